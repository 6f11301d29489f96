"""SQL of users and tokens, over a real database."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from gauzian.database import accounts
from gauzian.database.pool import Database
from gauzian.errors import AlreadyRegistered

pytestmark = pytest.mark.anyio

DAY = timedelta(days=1)


async def create(database: Database, *, email: str = "Ada@Example.org", username: str = "ada") -> UUID:
    async with database.connection() as connection:
        return await accounts.create_user(
            connection,
            email=email,
            username=username,
            password_hash="hash",
            public_key="public",
            encrypted_private_key="private",
            private_key_salt="salt",
            iv="iv",
            encrypted_record_key="record",
        )


def sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


async def test_a_user_is_found_by_e_mail_in_any_case_and_kept_as_written(database: Database) -> None:
    user_id = await create(database)
    async with database.connection() as connection:
        for email in ("Ada@Example.org", "ada@example.ORG"):
            found = await accounts.find_sign_in(connection, email=email)
            assert found == accounts.SignIn(user_id, "hash", "private", "salt", "iv", "public")
            contact = await accounts.find_public_key(connection, email=email)
            assert contact == accounts.Contact(user_id, "public")
        assert await accounts.find_sign_in(connection, email="ada") is None
        assert await accounts.find_public_key(connection, email="ada") is None
        info = await accounts.find_info(connection, user_id=user_id)
        assert info == accounts.Info(user_id, "Ada@Example.org", "ada", "private", "salt", "iv", "public")
        assert await accounts.find_info(connection, user_id=uuid4()) is None


@pytest.mark.parametrize(("email", "username"), [("ADA@example.org", "other"), ("other@example.org", "ada")])
async def test_e_mail_and_username_are_taken_once(database: Database, email: str, username: str) -> None:
    await create(database)
    with pytest.raises(AlreadyRegistered):
        await create(database, email=email, username=username)
    await create(database, email="other@example.org", username="other")


async def test_a_token_works_until_it_is_removed(database: Database) -> None:
    user_id = await create(database)
    async with database.connection() as connection:
        await accounts.add_token(connection, user_id=user_id, sha256=sha256("one"), lifetime=DAY)
        await accounts.add_token(connection, user_id=user_id, sha256=sha256("two"), lifetime=DAY)
        assert await accounts.find_caller(connection, token_sha256=sha256("one")) == user_id
        assert await accounts.find_caller(connection, token_sha256=sha256("three")) is None
        assert await accounts.remove_token(connection, sha256=sha256("one"))
        assert not await accounts.remove_token(connection, sha256=sha256("one"))
        assert await accounts.find_caller(connection, token_sha256=sha256("one")) is None
        assert await accounts.find_caller(connection, token_sha256=sha256("two")) == user_id


async def test_an_expired_token_is_none_and_is_removed_in_small_steps(database: Database) -> None:
    user_id = await create(database)
    async with database.connection() as connection:
        for number in range(5):
            await accounts.add_token(connection, user_id=user_id, sha256=sha256(str(number)), lifetime=-DAY)
        await accounts.add_token(connection, user_id=user_id, sha256=sha256("good"), lifetime=DAY)
        assert await accounts.find_caller(connection, token_sha256=sha256("0")) is None
        assert not await accounts.remove_token(connection, sha256=sha256("4"))
        assert [await accounts.remove_expired_tokens(connection, limit=3) for _ in range(3)] == [3, 1, 0]
        assert await accounts.find_caller(connection, token_sha256=sha256("good")) == user_id


async def test_an_inactive_user_is_nobody(database: Database) -> None:
    user_id = await create(database)
    async with database.connection() as connection:
        await accounts.add_token(connection, user_id=user_id, sha256=sha256("one"), lifetime=DAY)
        await connection.execute("UPDATE users SET is_active = false")
        assert await accounts.find_caller(connection, token_sha256=sha256("one")) is None
        assert await accounts.find_sign_in(connection, email="ada@example.org") is None
        assert await accounts.find_public_key(connection, email="ada@example.org") is None


async def test_a_new_hash_replaces_only_the_one_it_was_made_for(database: Database) -> None:
    user_id = await create(database)
    async with database.connection() as connection:
        await accounts.replace_password_hash(connection, user_id=user_id, old="hash", new="better")
        await accounts.replace_password_hash(connection, user_id=user_id, old="hash", new="late")
        found = await accounts.find_sign_in(connection, email="ada@example.org")
    assert found is not None
    assert found.password_hash == "better"


async def test_there_is_one_instance_and_never_a_second(database: Database) -> None:
    with pytest.raises(psycopg.errors.UniqueViolation):
        async with database.connection() as connection:
            await connection.execute("INSERT INTO instance DEFAULT VALUES")
    with pytest.raises(psycopg.errors.CheckViolation):
        async with database.connection() as connection:
            await connection.execute("INSERT INTO instance (only_one) VALUES (false)")
