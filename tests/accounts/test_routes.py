"""Accounts as life stories: register, sign in, be somebody, sign out."""

from __future__ import annotations

import json
import logging
from typing import Any
from uuid import UUID

import anyio
import pytest

from gauzian.accounts.passwords import Passwords
from tests.accounts.conftest import PASSWORD, House, OpenHouse, registration
from tests.asgi import call

pytestmark = pytest.mark.anyio


async def test_a_life_from_registration_to_sign_out(house: House) -> None:
    registered = await house.register()
    assert registered.status == 200
    given = registered.json()
    assert given == {
        "token": given["token"],
        "user_id": str(UUID(given["user_id"])),
        "encrypted_private_key": "private of ada",
        "private_key_salt": "salt",
        "iv": "iv",
        "public_key": "public of ada",
    }
    assert len(given["token"]) >= 43
    assert registered.header("cache-control") == "no-store"

    signed_in = await house.login()
    assert signed_in.status == 200
    assert signed_in.json() == {**given, "token": signed_in.json()["token"]}
    assert signed_in.json()["token"] != given["token"]

    token = signed_in.json()["token"]
    for path in ("/autologin", "/protected"):
        answer = await house.get(path, token)
        assert answer.status == 200
        assert isinstance(answer.json(), str)
    assert (await house.get("/info", token)).json() == {
        "id": given["user_id"],
        "email": "ada@example.org",
        "username": "ada",
        "encrypted_private_key": "private of ada",
        "private_key_salt": "salt",
        "iv": "iv",
        "public_key": "public of ada",
    }

    signed_out = await house.post("/logout", token)
    assert signed_out.status == 200
    assert isinstance(signed_out.json(), str)
    for path in ("/autologin", "/info"):
        assert (await house.get(path, token)).json()["code"] == "invalid_token"
    assert (await house.post("/logout", token)).status == 401
    assert (await house.get("/autologin", given["token"])).status == 200  # the other session goes on
    assert house.attempts("register", "success") == 1
    assert house.attempts("login", "success") == 1


async def test_the_public_key_of_a_contact_is_for_those_who_are_signed_in(house: House) -> None:
    ada = (await house.register("ada")).json()
    bob = (await house.register("bob")).json()
    for email in ("bob@example.org", "BOB%40Example.org"):
        answer = await house.get(f"/contacts/get_public_key/{email}", ada["token"])
        assert answer.json() == {"id": bob["user_id"], "user_id": bob["user_id"], "public_key": "public of bob"}
    assert (await house.get("/contacts/get_public_key/bob@example.org")).json()["code"] == "not_signed_in"
    missing = await house.get("/contacts/get_public_key/carl@example.org", ada["token"])
    assert (missing.status, missing.json()["error"]) == (404, "User not found")
    assert (await house.get("/contacts/get_public_key/a%00b@example.org", ada["token"])).status == 400


async def test_e_mails_are_the_same_in_any_case(house: House) -> None:
    await house.register(email="Ada@Example.org")
    assert (await house.login("ADA")).status == 200
    twin = await house.register("other", email="ADA@EXAMPLE.ORG")
    assert (twin.status, twin.json()["code"]) == (409, "already_registered")
    assert (await house.register("third", username="ada")).status == 409
    assert house.attempts("register", "failed") == 2


@pytest.mark.parametrize("name", sorted(registration()))
async def test_each_field_of_a_registration_is_needed_and_is_text(house: House, name: str) -> None:
    changes: list[tuple[Any, str]] = [(None, "missing_field"), (7, "bad_field"), ("a\0b" * 5, "bad_field")]
    for change, code in [*changes, ("x" * 20_000, "bad_field")]:
        answer = await house.register(**{name: change})
        assert (answer.status, answer.json()["code"], answer.json()["field"]) == (400, code, name)
    assert (await house.register()).status == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("email", "ada"),
        ("email", "@example.org"),
        ("email", "ada@"),
        ("email", "ada@example"),
        ("email", "ada@.org"),
        ("email", "ada@example.org."),
        ("email", "ada@exa mple.org"),
        ("email", "ada\n@example.org"),
        ("email", "a@b@example.org"),
        ("email", "a" * 250 + "@example.org"),
        ("username", "   "),
        ("username", "a\nb"),
        ("password", "short12"),
        ("password", "x" * 1025),
        ("public_key", ""),
    ],
)
async def test_a_registration_that_makes_no_sense_is_refused_by_field(house: House, name: str, value: str) -> None:
    answer = await house.register(**{name: value})
    assert (answer.status, answer.json()["code"], answer.json()["field"]) == (400, "bad_field", name)


async def test_a_user_of_the_first_generation_may_have_a_plain_password_and_no_record_key(house: House) -> None:
    assert (await house.register(password="password", encrypted_record_key="")).status == 200
    assert (await house.login(password="password")).status == 200


async def test_a_wrong_password_and_an_unknown_e_mail_get_the_same_answer(house: House) -> None:
    await house.register()
    answers = [await house.login(password="wrong"), await house.login("nobody"), await house.login(password="")]
    answers.append(await call(house.app, "POST", "/login", json={"email": "x", "password": "y"}))
    for answer in answers[:2] + answers[3:]:
        assert (answer.status, answer.json()) == (401, {"error": "Invalid credentials", "code": "invalid_credentials"})
        assert answer.header("set-cookie") is None
    assert house.attempts("login", "failed") == 4


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"email": 1}', b'{"email": "a", "email": "b"}'])
async def test_a_sign_in_that_is_no_sign_in_is_400(house: House, body: bytes) -> None:
    answer = await call(house.app, "POST", "/login", headers={"Content-Type": "application/json"}, body=body)
    assert answer.status == 400
    assert (await call(house.app, "POST", "/login", body=body)).status == 415


async def test_the_cookie_is_httponly_and_secure_unless_told_otherwise(open_house: OpenHouse) -> None:
    house = open_house()
    registered = await house.register()
    token = registered.json()["token"]
    expected = f"auth_token={token}; Path=/; HttpOnly; SameSite=Lax; Max-Age=864000"
    assert registered.header("set-cookie") == f"{expected}; Secure"
    plain = await open_house(cookie_secure=False).login()
    assert "Secure" not in str(plain.header("set-cookie"))
    assert (await house.post("/logout", token)).header("set-cookie") == (
        "auth_token=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0; Secure"
    )


async def test_with_cookies_off_none_is_set_and_none_is_read(open_house: OpenHouse) -> None:
    house = open_house(cookie_auth=False)
    registered = await house.register()
    assert registered.header("set-cookie") is None
    token = registered.json()["token"]
    assert (await house.get("/protected", Cookie=f"auth_token={token}; token={token}")).status == 401
    assert (await house.get("/protected", token)).status == 200


async def test_after_some_failures_an_account_waits_and_is_told_how_long(house: House) -> None:
    await house.register()
    for _ in range(5):
        assert (await house.login(password="wrong")).status == 401
    answer = await house.login()
    assert (answer.status, answer.json()["code"]) == (429, "too_many_attempts")
    assert "Too many" in answer.json()["error"]
    assert answer.header("retry-after") == "2"
    assert house.attempts("login", "throttled") == 1

    house.clock.now += 2
    assert (await house.login()).status == 200
    for _ in range(5):  # a success starts anew
        assert (await house.login(password="wrong")).status == 401


async def test_a_stranger_does_not_lock_the_owner_out(house: House) -> None:
    await house.register()
    assert (await house.login(address="198.51.100.1")).status == 200
    for number in range(200):
        await house.login(password="wrong", address=f"192.0.2.{number}")
    assert (await house.login(password="wrong", address="192.0.2.250")).status == 429
    assert (await house.login(address="198.51.100.1")).status == 200  # where the owner was before
    answer = await house.login(address="198.51.100.2")  # a new place of the owner's waits seconds, not minutes
    assert answer.status == 429
    assert int(str(answer.header("retry-after"))) <= 10
    house.clock.now += 10
    assert (await house.login(address="198.51.100.2")).status == 200


async def test_a_burst_of_guesses_is_no_way_around(open_house: OpenHouse) -> None:
    house = open_house()
    await house.register()
    statuses: list[int] = []

    async def guess() -> None:
        statuses.append((await house.login(password="wrong")).status)

    async with anyio.create_task_group() as tasks:
        for _ in range(40):
            tasks.start_soon(guess)
    # Five, and at most those that were being checked when the fifth failed.
    assert statuses.count(401) <= 6
    assert set(statuses) == {401, 429}


async def test_many_right_passwords_at_once_are_no_offence(house: House) -> None:
    await house.register()
    statuses: list[int] = []

    async def sign_in() -> None:
        statuses.append((await house.login()).status)

    async with anyio.create_task_group() as tasks:
        for _ in range(40):
            tasks.start_soon(sign_in)
    assert statuses == [200] * 40


async def test_registrations_from_one_address_are_limited_and_resume(house: House) -> None:
    await house.register()
    for _ in range(99):
        assert (await house.register()).status == 409
    answer = await house.register("bob")
    assert (answer.status, answer.header("retry-after")) == (429, "10")
    assert house.attempts("register", "throttled") == 1
    elsewhere = await call(house.app, "POST", "/register", json=registration("bob"), client=("198.51.100.9", 1))
    assert elsewhere.status == 200
    house.clock.now += 40
    assert (await house.register("carl")).status == 200


async def test_the_address_counts_that_a_trusted_proxy_tells(open_house: OpenHouse) -> None:
    house = open_house(trusted_proxies=("10.0.0.0/8",))
    await house.register()

    async def guess(address: str) -> int:
        body = {"email": "ada@example.org", "password": "wrong"}
        forwarded = {"X-Forwarded-For": address}
        return (await call(house.app, "POST", "/login", json=body, headers=forwarded, client=("10.0.0.1", 1))).status

    assert [await guess("192.0.2.1") for _ in range(6)] == [401] * 5 + [429]
    assert await guess("192.0.2.2") == 401
    assert await guess("192.0.2.2, 192.0.2.1") == 429  # what stands before the proxy's own word is hearsay


async def test_a_hash_of_weaker_parameters_is_renewed_when_its_owner_signs_in(open_house: OpenHouse) -> None:
    await open_house(passwords=Passwords(at_once=1, memory_kib=64)).register()
    stronger = open_house(passwords=Passwords(at_once=1, memory_kib=128))
    assert (await stronger.login(password="wrong")).status == 401
    assert await stored_hash(stronger) == "m=64"
    assert (await stronger.login()).status == 200
    assert await stored_hash(stronger) == "m=128"
    assert (await stronger.login()).status == 200


async def stored_hash(house: House) -> str:
    async with house.database.connection() as connection:
        row = await (await connection.execute("SELECT password_hash FROM users")).fetchone()
    assert row is not None
    return str(row[0]).split("$")[3].split(",")[0]


async def test_only_hashes_of_tokens_and_passwords_are_stored(house: House) -> None:
    token = (await house.register()).json()["token"]
    async with house.database.connection() as connection:
        rows: list[Any] = await (
            await connection.execute("SELECT users::text, tokens::text FROM users, tokens")
        ).fetchall()
    assert len(rows) == 1
    assert token not in str(rows)
    assert PASSWORD not in str(rows)


async def test_an_expired_token_is_refused(house: House) -> None:
    token = (await house.register()).json()["token"]
    async with house.database.connection() as connection:
        await connection.execute("UPDATE tokens SET expires_at = now() - interval '1 second'")
    assert (await house.get("/protected", token)).status == 401


async def test_a_token_lives_ten_days(house: House) -> None:
    await house.register()
    async with house.database.connection() as connection:
        cursor = await connection.execute("SELECT extract(epoch FROM expires_at - created_at)::int FROM tokens")
        assert await cursor.fetchone() == (864_000,)


async def test_no_secret_and_no_e_mail_is_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        token = (await house.register()).json()["token"]
        await house.register()
        await house.login(password="Wrong-Secret-1")
        await house.get("/info", token)
        await house.get("/contacts/get_public_key/ada@example.org", token)
    logged = json.dumps([record.__dict__ for record in caplog.records], default=str)
    for secret in (token, PASSWORD, "Wrong-Secret-1", "ada@example.org", "private of ada"):
        assert secret not in logged
