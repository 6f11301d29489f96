"""SQL of registrations: what a token is good for when it is used up, over a real database."""

from __future__ import annotations

import hashlib

import pytest

from gauzian.database import registrations
from gauzian.database.pool import Database

pytestmark = pytest.mark.anyio

ADA, SALT = "ada@example.org", b"s" * 16
TOKEN, OTHER = hashlib.sha256(b"token").digest(), hashlib.sha256(b"other").digest()


async def prove(database: Database) -> None:
    code = registrations.hash_code(SALT, "AB12CD")
    async with database.transaction() as conn:
        assert await registrations.begin(conn, email=ADA, salt=SALT, code_sha256=code) is None
        assert await registrations.exchange(conn, email=ADA, code="AB12CD", token_sha256=TOKEN) is None


async def test_a_token_is_used_up_by_who_holds_it_for_its_address_and_once(database: Database) -> None:
    await prove(database)
    async with database.connection() as conn:
        assert not await registrations.finish(conn, email=ADA, token_sha256=OTHER)
        assert not await registrations.finish(conn, email="eve@example.org", token_sha256=TOKEN)
        assert await registrations.finish(conn, email=ADA, token_sha256=TOKEN)
        assert not await registrations.finish(conn, email=ADA, token_sha256=TOKEN)


async def test_a_token_that_has_expired_since_it_was_looked_at_is_not_used(database: Database) -> None:
    await prove(database)
    async with database.connection() as conn:
        assert await registrations.is_proved(conn, email=ADA, token_sha256=TOKEN)
        await conn.execute("UPDATE registrations SET token_until = now()")
        assert not await registrations.finish(conn, email=ADA, token_sha256=TOKEN)


async def test_what_has_expired_goes_in_small_steps_and_nothing_else(database: Database) -> None:
    code = registrations.hash_code(SALT, "AB12CD")
    async with database.connection() as conn:
        for number in range(5):
            await registrations.begin(conn, email=f"u{number}@example.org", salt=SALT, code_sha256=code)
        await conn.execute("UPDATE registrations SET expires_at = now() WHERE email <> 'u0@example.org'")
        assert [await registrations.remove_expired(conn, limit=3) for _ in range(3)] == [3, 1, 0]
