"""Who is asking: a token in the Authorization header or in a cookie -> Caller.

Tokens are opaque, 256 random bits. Only their SHA-256 is compared and stored: a table that leaks signs nobody in, and
a look-up by hash gives a timing attack nothing to work on.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import UUID

from gauzian.database import accounts
from gauzian.database.pool import Database
from gauzian.errors import CrossSiteRequest, InvalidToken, NotSignedIn, Scope

# The cookie we set ...
COOKIE = "auth_token"
# ... and the one that load scripts make themselves out of the token they were given.
_OWN_COOKIE = "token"
# Far longer than any token of ours; longer ones are not worth a hash.
_MOST_TOKEN_BYTES = 1024
_SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Caller:
    user_id: UUID


def new_token() -> str:
    return secrets.token_urlsafe(32)


def sha256_of(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class Identity:
    """`cookie_auth=False`: no cookie is read. `allowed_origins`: other origins whose pages may act with the cookie."""

    def __init__(self, database: Database, *, cookie_auth: bool, allowed_origins: Collection[str] = ()) -> None:
        self.cookie_auth = cookie_auth
        self._database = database
        self._allowed_origins = frozenset(allowed_origins)

    async def require(self, scope: Scope) -> Caller:
        """Raises NotSignedIn, InvalidToken or CrossSiteRequest."""
        sha256 = self.require_token(scope)
        async with self._database.connection() as connection:
            user_id = await accounts.find_caller(connection, token_sha256=sha256)
        if user_id is None:
            raise InvalidToken
        return Caller(user_id)

    def require_token(self, scope: Scope) -> bytes:
        """The token's SHA-256, not looked up yet, if the request may use it. Raises NotSignedIn, CrossSiteRequest."""
        found = self.token_of(scope)
        if found is None:
            raise NotSignedIn
        sha256, from_cookie = found
        if from_cookie:
            self.require_same_origin(scope)
        return sha256

    def token_of(self, scope: Scope) -> tuple[bytes, bool] | None:
        """The token's SHA-256, and whether a browser may have attached it without its page knowing.

        Bearer, else cookie auth_token, else cookie token. The last one we never set: who sends it has read the token,
        which no foreign page can; so it counts like a Bearer, alone or beside the same value in auth_token.
        """
        token, from_cookie = _bearer(scope), False
        if token is None and self.cookie_auth:
            cookies = list(_cookies(scope))
            ours = next((value for name, value in cookies if name == COOKIE and value), None)
            own = next((value for name, value in cookies if name == _OWN_COOKIE and value), None)
            token = ours or own
            from_cookie = ours is not None and ours != own
        if token is None or len(token) > _MOST_TOKEN_BYTES:
            return None
        return sha256_of(token), from_cookie

    def require_same_origin(self, scope: Scope) -> None:
        """For requests that a browser signs by itself: those that change something must come from our own pages."""
        if scope["method"] not in _SAFE_METHODS and not self._is_same_origin(scope):
            raise CrossSiteRequest

    def _is_same_origin(self, scope: Scope) -> bool:
        origin = _only(scope, b"origin")
        if origin is not None and origin in self._allowed_origins:
            return True
        site = _only(scope, b"sec-fetch-site")
        if site is not None:
            return site == "same-origin"
        host = _only(scope, b"host")
        return origin is not None and host is not None and _same_host(origin, host)


def _bearer(scope: Scope) -> str | None:
    """The first Authorization header that is of our kind; another kind (a proxy's Basic) is not for us."""
    for value in _all(scope, b"authorization"):
        kind, _, token = value.strip().partition(" ")
        if kind.lower() == "bearer" and token.strip():
            return token.strip()
    return None


def _cookies(scope: Scope) -> Iterator[tuple[str, str]]:
    """Name and value of every cookie in every Cookie header; what is none is skipped."""
    for line in _all(scope, b"cookie"):
        for part in line.split(";"):
            name, separator, value = part.strip().partition("=")
            if separator:
                yield name.strip(), value.strip().strip('"')


def _all(scope: Scope, name: bytes) -> Iterator[str]:
    return (bytes(value).decode("latin-1") for key, value in scope["headers"] if key == name)


def _only(scope: Scope, name: bytes) -> str | None:
    """The header's value; one that stands there twice proves nothing."""
    values = list(_all(scope, name))
    return values[0].strip() if len(values) == 1 else None


def _same_host(origin: str, host: str) -> bool:
    """Whether the origin's host and port are those that were asked for. The scheme is not: a proxy may end TLS."""
    try:
        theirs = urlsplit(origin)
        ours = urlsplit(f"{theirs.scheme}://{host}")
        default = _DEFAULT_PORTS.get(theirs.scheme)
        if not theirs.hostname or theirs.hostname != ours.hostname:
            return False
        return (theirs.port or default) == (ours.port or default)
    except ValueError:
        return False
