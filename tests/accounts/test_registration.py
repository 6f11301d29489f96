"""Registration with a code, as life stories: it is sent, it is entered, it becomes a user; and what goes wrong."""

from __future__ import annotations

import json
import logging
from typing import Any

import anyio
import pytest

from gauzian.database import registrations
from gauzian.registration_errors import MailDown, Undeliverable
from tests.accounts.conftest import PASSWORD, House, OpenHouse, registration
from tests.asgi import Answer, call

pytestmark = pytest.mark.anyio

ADA = "ada@example.org"
STRONG = "Correct-Horse-42"


async def post(house: House, path: str, body: dict[str, Any], address: str = "203.0.113.7") -> Answer:
    return await call(house.app, "POST", f"/register/{path}", json=body, client=(address, 1))


async def send(house: House, email: str = ADA, **more: Any) -> Answer:
    return await post(house, "send-otp", {"email": email}, **more)


async def verify(house: House, code: str, email: str = ADA, **more: Any) -> Answer:
    return await post(house, "verify-otp", {"email": email, "otp": code}, **more)


async def finalize(house: House, token: str | None, name: str = "ada", **changes: Any) -> Answer:
    given = {"password": STRONG, "temp_token": token} | changes
    return await post(house, "finalize", registration(name, **given))


async def proved(house: House, name: str = "ada") -> str:
    """A token for an e-mail address of its own."""
    email = f"{name}@example.org"
    assert (await send(house, email)).status == 200
    answer = await verify(house, house.letters.codes[-1][1], email)
    assert answer.status == 200
    return str(answer.json())


async def sql(house: House, statement: str) -> list[Any]:
    async with house.database.connection() as connection:
        cursor = await connection.execute(statement.encode())
        return await cursor.fetchall() if cursor.description else []


async def wait(house: House, seconds: int) -> None:
    """As if everything had happened so much earlier."""
    columns = ("sent_at", "code_until", "wrong_until", "token_until", "expires_at")
    moved = ", ".join(f"{name} = {name} - interval '{seconds} seconds'" for name in columns)
    await sql(house, f"UPDATE registrations SET {moved}")


def wrong(code: str) -> str:
    return "AAAAAA" if code != "AAAAAA" else "BBBBBB"


async def test_from_the_code_to_a_user_who_is_signed_in(house: House) -> None:
    sent = await send(house, "  Ada@Example.ORG ")
    assert (sent.status, type(sent.json())) == (200, str)
    [(email, code)] = house.letters.codes
    assert email == ADA
    assert len(code) == 6
    assert code.isalnum()
    assert code == code.upper()

    verified = await verify(house, f" {code.lower()} ", "ADA@example.org ")
    assert verified.status == 200
    assert isinstance(verified.json(), str)
    assert verified.header("cache-control") == "no-store"

    answer = await finalize(house, verified.json(), email="ADA@Example.org")
    assert answer.status == 200
    given = answer.json()
    assert given == {
        "token": given["token"],
        "user_id": given["user_id"],
        "encrypted_private_key": "private of ada",
        "private_key_salt": "salt",
        "iv": "iv",
        "public_key": "public of ada",
    }
    assert str(answer.header("set-cookie")).startswith(f"auth_token={given['token']};")
    assert (await house.get("/info", given["token"])).json()["email"] == ADA, "stored in lower case"
    assert (await house.login(password=STRONG)).status == 200
    assert await sql(house, "SELECT * FROM registrations") == [], "nothing is left of the way here"
    assert [house.attempts(kind, "success") for kind in ("send_code", "verify_code", "register")] == [1, 1, 1]


NOT_PLAIN = [
    *("", "ada", "@example.org", "a@b@c.de", "a da@example.org"),
    *("ada@localhost", "ada@.example.org", "ada@example.org."),
    *("ada,eve@example.org", "ada(eve@example.org", "ada<eve@example.org>", '"ada"@example.org'),
    *("ada\u200e@example.org", "ada@example.org\r\nBcc: eve@x.org", "a" * 250 + "@x.org"),
]


@pytest.mark.parametrize("email", NOT_PLAIN)
async def test_no_code_is_sent_to_what_is_no_plain_address(house: House, email: str) -> None:
    assert (await send(house, email)).status == 400
    assert house.letters.codes == []
    assert await sql(house, "SELECT * FROM registrations") == []


@pytest.mark.parametrize("path", ["send-otp", "verify-otp", "finalize"])
async def test_what_is_no_json_object_is_refused_as_everywhere(house: House, path: str) -> None:
    assert (await post(house, path, {})).json()["code"] == "missing_field"
    assert (await call(house.app, "POST", f"/register/{path}", body=b"{}")).status == 415


async def test_an_address_that_is_registered_gets_no_code(house: House) -> None:
    await house.register()
    answer = await send(house, "ADA@example.org")
    assert (answer.status, answer.json()["code"]) == (400, "already_registered")
    await sql(house, "UPDATE users SET is_active = false")
    assert (await send(house)).status == 400
    assert house.letters.codes == []


async def test_the_next_code_comes_after_thirty_seconds_and_is_the_only_one_that_counts(house: House) -> None:
    await send(house)
    refused = await send(house)
    assert (refused.status, refused.json()["code"]) == (429, "too_many_attempts")
    assert 1 <= int(str(refused.header("retry-after"))) <= 30
    assert (await send(house, "eve@example.org")).status == 200, "another address does not wait"
    await wait(house, 31)
    assert (await send(house)).status == 200
    codes = [code for email, code in house.letters.codes if email == ADA]
    assert len(codes) == 2
    assert (await verify(house, codes[0])).status == 401
    assert (await verify(house, codes[1])).status == 200


async def test_two_requests_at_once_send_one_mail(house: House) -> None:
    statuses: list[int] = []

    async def ask() -> None:
        statuses.append((await send(house)).status)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(ask)
    assert sorted(statuses) == [200] + [429] * 7
    assert len(house.letters.codes) == 1


async def test_five_wrong_codes_and_even_the_right_one_waits_ten_minutes(house: House) -> None:
    await send(house)
    code = house.letters.codes[-1][1]
    for _ in range(5):
        answer = await verify(house, wrong(code))
        assert (answer.status, answer.json()["code"]) == (401, "wrong_code")
    refused = await verify(house, code)
    assert refused.status == 429
    assert 590 <= int(str(refused.header("retry-after"))) <= 600
    await wait(house, 31)
    assert (await send(house)).status == 429, "nor does a new code begin a new count"
    await wait(house, 570)
    assert (await send(house)).status == 200
    assert (await verify(house, house.letters.codes[-1][1])).status == 200


async def test_wrong_codes_sent_at_once_are_all_counted(house: House) -> None:
    await send(house)
    code = house.letters.codes[-1][1]
    statuses: list[int] = []

    async def guess(number: int) -> None:
        statuses.append((await verify(house, wrong(code), address=f"192.0.2.{number}")).status)

    async with anyio.create_task_group() as tasks:
        for number in range(12):
            tasks.start_soon(guess, number)
    assert sorted(statuses) == [401] * 5 + [429] * 7


async def test_a_new_code_between_does_not_forget_wrong_ones(house: House) -> None:
    await send(house)
    for _ in range(4):
        await verify(house, wrong(house.letters.codes[-1][1]))
    await wait(house, 31)
    await send(house)
    code = house.letters.codes[-1][1]
    assert (await verify(house, wrong(code))).status == 401
    assert (await verify(house, code)).status == 429


@pytest.mark.parametrize("code", ["", "ABC", "ABCDEFG", "AB-DEF", "ÀBCDEF"])
async def test_what_cannot_be_a_code_is_400_and_no_wrong_one(house: House, code: str) -> None:
    await send(house)
    for _ in range(6):
        assert (await verify(house, code)).status == 400
    assert (await verify(house, house.letters.codes[-1][1])).status == 200


async def test_a_code_counts_once_for_its_address_and_for_ten_minutes(house: House) -> None:
    await send(house)
    await send(house, "eve@example.org")
    code = house.letters.codes[0][1]
    assert (await verify(house, code, "eve@example.org")).status == 401
    assert (await verify(house, code, "nobody@example.org")).status == 401
    await wait(house, 601)
    assert (await verify(house, code)).status == 401
    await send(house)
    code = house.letters.codes[-1][1]
    assert (await verify(house, code)).status == 200
    assert (await verify(house, code)).status == 401


async def test_who_guesses_for_many_addresses_is_slowed_down_and_nobody_else(house: House) -> None:
    statuses = [(await verify(house, "AAAAAA", f"u{number}@example.org")).status for number in range(31)]
    assert statuses == [401] * 30 + [429]
    assert await sql(house, "SELECT * FROM registrations") == [], "guesses leave nothing behind"
    assert (await verify(house, "AAAAAA", address="192.0.2.1")).status == 401
    house.clock.now += 2
    assert (await verify(house, "AAAAAA")).status == 401


async def test_mails_for_one_client_address_are_few_and_resume(open_house: OpenHouse) -> None:
    house = open_house(trusted_proxies=("10.0.0.0/8",))

    async def ask(number: int, address: str) -> Answer:
        body, forwarded = {"email": f"u{number}@example.org"}, {"X-Forwarded-For": address}
        path, proxy = "/register/send-otp", ("10.0.0.1", 1)
        return await call(house.app, "POST", path, json=body, headers=forwarded, client=proxy)

    assert [(await ask(number, "192.0.2.1")).status for number in range(21)] == [200] * 20 + [429]
    assert (await ask(30, "192.0.2.2")).status == 200
    house.clock.now += 60
    assert (await ask(31, "192.0.2.1")).status == 200
    assert house.attempts("send_code", "throttled") == 1


@pytest.mark.parametrize(
    ("trouble", "status", "code"), [(Undeliverable(), 400, "undeliverable"), (MailDown(), 503, "mail_unavailable")]
)
async def test_a_mail_that_does_not_get_out_is_said_and_costs_no_waiting(
    house: House, trouble: Exception, status: int, code: str
) -> None:
    house.letters.trouble = trouble
    for _ in range(2):
        answer = await send(house)
        assert (answer.status, answer.json()["code"]) == (status, code)
    house.letters.trouble = None
    assert (await send(house)).status == 200
    assert (await verify(house, house.letters.codes[-1][1])).status == 200


async def test_trouble_with_the_mail_does_not_forget_wrong_codes(house: House) -> None:
    await send(house)
    for _ in range(5):
        await verify(house, wrong(house.letters.codes[-1][1]))
    await sql(house, "UPDATE registrations SET wrong_codes = 4")
    await wait(house, 31)
    house.letters.trouble = MailDown()
    assert (await send(house)).status == 503
    assert (await verify(house, "AAAAAA")).status == 401
    assert (await verify(house, "AAAAAA")).status == 429


@pytest.mark.parametrize("token", [None, "", 7, "x" * 2000, "guess"])
async def test_without_the_token_nobody_is_registered(house: House, token: Any) -> None:
    await proved(house)
    answer = await finalize(house, token)
    assert (answer.status, answer.json()["code"]) == (401, "email_not_proved")
    assert await sql(house, "SELECT * FROM users") == []


async def test_a_token_proves_its_own_address_once_and_for_ten_minutes(house: House) -> None:
    token = await proved(house)
    assert (await finalize(house, token, email="eve@example.org")).status == 401
    await wait(house, 601)
    assert (await finalize(house, token)).status == 401
    token = await proved(house)
    assert (await finalize(house, token)).status == 200
    await sql(house, "DELETE FROM users")
    assert (await finalize(house, token)).status == 401


async def test_one_token_used_at_the_same_time_makes_one_user(house: House) -> None:
    token = await proved(house)
    statuses: list[int] = []

    async def use(number: int) -> None:
        statuses.append((await finalize(house, token, username=f"ada{number}")).status)

    async with anyio.create_task_group() as tasks:
        for number in range(5):
            tasks.start_soon(use, number)
    assert sorted(statuses) == [200, 401, 401, 401, 401]


async def test_a_username_that_is_taken_is_409_and_the_token_serves_for_another(house: House) -> None:
    await house.register("eve")
    token = await proved(house)
    answer = await finalize(house, token, username="eve")
    assert (answer.status, answer.json()["code"]) == (409, "already_registered")
    assert (await finalize(house, token)).status == 200


async def test_an_address_that_was_registered_meanwhile_is_409(house: House) -> None:
    token = await proved(house)
    await house.register()
    assert (await finalize(house, token, username="other")).status == 409


@pytest.mark.parametrize(
    "password", ["", "Short-42", "no-capital-42", "No-digit-at-all", "NoSpecialOne42", "No-digit-\u0664\u0662-x"]
)
async def test_a_password_below_the_promise_is_400_and_the_token_is_kept(house: House, password: str) -> None:
    token = await proved(house)
    answer = await finalize(house, token, password=password)
    assert (answer.status, answer.json()["field"]) == (400, "password")
    assert (await finalize(house, token)).status == 200


async def test_finalizing_counts_as_registering_does(house: House) -> None:
    for _ in range(100):
        assert (await finalize(house, "guess")).status == 401
    token = await proved(house)
    answer = await finalize(house, token)
    assert (answer.status, answer.header("retry-after")) == (429, "10")
    house.clock.now += 10
    assert (await finalize(house, token)).status == 200


async def test_registering_without_a_code_goes_on_as_before(house: House) -> None:
    await proved(house)
    assert (await house.register()).status == 200
    assert (await house.login(password=PASSWORD)).status == 200


async def test_what_has_expired_is_forgotten_as_others_come_and_what_is_open_is_bounded(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registrations, "MOST_OPEN", 3)
    for number in range(3):
        assert (await send(house, f"u{number}@example.org")).status == 200
    refused = await send(house)
    assert (refused.status, refused.json()["code"]) == (503, "sign_in_busy")
    await wait(house, 601)
    assert (await send(house)).status == 200
    assert await sql(house, "SELECT email FROM registrations") == [(ADA,)]


async def test_neither_code_nor_token_nor_address_is_logged_or_stored_as_it_is(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await send(house)
        code = house.letters.codes[-1][1]
        stored = str(await sql(house, "SELECT registrations::text FROM registrations"))
        token = (await verify(house, code)).json()
        stored += str(await sql(house, "SELECT registrations::text FROM registrations"))
        await finalize(house, token)
    logged = json.dumps([record.__dict__ for record in caplog.records], default=str)
    for secret in (code, token, ADA, STRONG):
        assert secret not in logged
    assert code not in stored
    assert token not in stored
