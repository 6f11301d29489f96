"""Where a token is found, and when a cookie alone is not enough."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gauzian.accounts.identity import Caller, Identity, new_token, sha256_of
from gauzian.database.pool import Database, open_database
from gauzian.errors import CrossSiteRequest, InvalidToken, NotSignedIn
from tests.accounts.conftest import House
from tests.asgi import scope_of

pytestmark = pytest.mark.anyio

Pairs = list[tuple[str, str]]


@asynccontextmanager
async def nowhere(*, cookie_auth: bool = True, allowed_origins: tuple[str, ...] = ()) -> AsyncIterator[Identity]:
    """For questions that need no look-up: its database is never connected to."""
    async with open_database("postgresql://nobody@/nowhere?host=/nonexistent") as database:
        yield Identity(database, cookie_auth=cookie_auth, allowed_origins=allowed_origins)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        ([("Authorization", "Bearer a")], ("a", False)),
        ([("Authorization", "bearer  a ")], ("a", False)),
        ([("Authorization", "Bearer a"), ("Cookie", "auth_token=b")], ("a", False)),
        ([("Authorization", "Basic eDp5"), ("Authorization", "Bearer a")], ("a", False)),
        ([("Authorization", "Basic eDp5"), ("Cookie", "auth_token=b")], ("b", True)),
        ([("Authorization", "Bearer"), ("Cookie", "auth_token=b")], ("b", True)),
        ([("Authorization", "a")], None),
        ([("Cookie", "auth_token=b; token=c")], ("b", True)),
        ([("Cookie", "token=c; auth_token=b")], ("b", True)),
        ([("Cookie", "token=c")], ("c", False)),
        ([("Cookie", "token=b; auth_token=b")], ("b", False)),
        ([("Cookie", "theme=dark"), ("Cookie", "auth_token=b")], ("b", True)),
        ([("Cookie", 'auth_token="b"')], ("b", True)),
        ([("Cookie", "auth_token=")], None),
        ([("Cookie", "auth_token=; token=c")], ("c", False)),
        ([("Cookie", "xauth_token=b; auth_tokenx=b; token_=b; nonsense;;=;")], None),
        ([("Cookie", "auth_token=b=c==")], ("b=c==", True)),
        ([("Authorization", "Bearer " + "x" * 2000)], None),
    ],
)
async def test_a_token_is_found_where_clients_put_it(headers: Pairs, expected: tuple[str, bool] | None) -> None:
    async with nowhere() as identity:
        found = identity.token_of(scope_of("GET", "/", headers=headers))
    assert found == (None if expected is None else (sha256_of(expected[0]), expected[1]))


async def test_with_cookies_off_only_bearer_counts() -> None:
    async with nowhere(cookie_auth=False) as identity:
        assert identity.token_of(scope_of("GET", "/", headers={"Cookie": "auth_token=b; token=c"})) is None
        found = identity.token_of(scope_of("GET", "/", headers={"Authorization": "Bearer a"}))
        assert found == (sha256_of("a"), False)


def test_tokens_are_long_and_never_the_same() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) == 43 for token in tokens)


HOST = ("Host", "drive.example")


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ([HOST, ("Origin", "https://drive.example")], True),
        ([HOST, ("Origin", "http://drive.example")], True),  # the scheme is the proxy's business
        ([HOST, ("Origin", "https://DRIVE.example")], True),
        ([HOST, ("Origin", "https://drive.example:443")], True),
        ([("Host", "drive.example:443"), ("Origin", "https://drive.example")], True),
        ([("Host", "127.0.0.1:8080"), ("Origin", "http://127.0.0.1:8080")], True),
        ([("Host", "[::1]:8080"), ("Origin", "http://[::1]:8080")], True),
        ([HOST, ("Sec-Fetch-Site", "same-origin")], True),
        ([("Host", "inner:8080"), ("Origin", "https://drive.example"), ("Sec-Fetch-Site", "same-origin")], True),
        ([HOST, ("Origin", "https://app.example")], True),  # configured
        ([HOST, ("Origin", "https://app.example"), ("Sec-Fetch-Site", "same-site")], True),
        ([HOST], False),
        ([HOST, ("Origin", "null")], False),
        ([HOST, ("Origin", "")], False),
        ([HOST, ("Origin", "https://evil.example")], False),
        ([HOST, ("Origin", "https://drive.example.evil.example")], False),
        ([HOST, ("Origin", "https://drive.example@evil.example")], False),
        ([HOST, ("Origin", "https://drive.example:8443")], False),
        ([HOST, ("Origin", "https://drive.example:port")], False),
        ([HOST, ("Origin", "https://[")], False),
        ([HOST, ("Origin", "drive.example")], False),
        ([HOST, ("Origin", "https://drive.example"), ("Origin", "https://evil.example")], False),
        ([HOST, ("Origin", "https://drive.example"), ("Sec-Fetch-Site", "cross-site")], False),
        ([HOST, ("Sec-Fetch-Site", "same-site")], False),
        ([HOST, ("Sec-Fetch-Site", "none")], False),
        ([HOST, ("Referer", "https://drive.example/")], False),
    ],
)
async def test_a_change_with_only_the_cookie_must_come_from_our_own_pages(headers: Pairs, allowed: bool) -> None:
    with_cookie = [*headers, ("Cookie", "auth_token=a")]
    async with nowhere(allowed_origins=("https://app.example",)) as identity:
        for method in ("POST", "PATCH", "DELETE", "PUT"):
            if allowed:
                assert identity.require_token(scope_of(method, "/", headers=with_cookie)) == sha256_of("a")
            else:
                with pytest.raises(CrossSiteRequest):
                    identity.require_token(scope_of(method, "/", headers=with_cookie))
        # Reading is safe, and a Bearer proves that the page knows the token.
        for method in ("GET", "HEAD", "OPTIONS"):
            assert identity.require_token(scope_of(method, "/", headers=with_cookie)) == sha256_of("a")
        bearer = [*with_cookie, ("Authorization", "Bearer a")]
        assert identity.require_token(scope_of("POST", "/", headers=bearer)) == sha256_of("a")


async def test_a_load_script_that_repeats_the_token_in_a_cookie_of_its_own_may_change_things(house: House) -> None:
    token = (await house.register()).json()["token"]
    assert (await house.post("/change", Cookie=f"token={token}")).status == 200
    assert (await house.post("/change", Cookie=f"auth_token={token}; token={token}")).status == 200
    assert (await house.post("/change", Cookie=f"auth_token={token}; token=other")).status == 403


async def test_require_gives_the_caller_or_says_why_not(house: House, database: Database) -> None:
    given = (await house.register()).json()
    identity = Identity(database, cookie_auth=True)
    caller = await identity.require(scope_of("POST", "/", headers={"Authorization": f"Bearer {given['token']}"}))
    assert caller == Caller(caller.user_id)
    assert str(caller.user_id) == given["user_id"]
    with pytest.raises(NotSignedIn):
        await identity.require(scope_of("POST", "/"))
    with pytest.raises(InvalidToken):
        await identity.require(scope_of("POST", "/", headers={"Authorization": "Bearer x\xff"}))
    with pytest.raises(CrossSiteRequest):
        await identity.require(scope_of("POST", "/", headers={"Cookie": f"auth_token={given['token']}"}))


async def test_a_401_says_how_to_sign_in_and_a_revoked_token_is_called_invalid(house: House) -> None:
    answer = await house.get("/protected")
    assert (answer.status, answer.header("www-authenticate")) == (401, "Bearer")
    assert "invalid" in (await house.get("/protected", "unknown")).json()["error"].lower()
