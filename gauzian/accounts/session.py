"""A session begins and ends: a new token in the answer and in a cookie, the cookie taken away."""

from __future__ import annotations

from datetime import timedelta

from starlette.responses import JSONResponse, Response

from gauzian.accounts.identity import COOKIE, new_token, sha256_of
from gauzian.database import accounts
from gauzian.database.pool import Database

TOKEN_LIFETIME = timedelta(days=10)

# What clients keep for themselves on the server, never read here.
OPAQUE = ("encrypted_private_key", "public_key", "private_key_salt", "iv")


class Sessions:
    """`cookie_auth=False`: no cookie is set. `cookie_secure`: it is sent over HTTPS only."""

    def __init__(self, database: Database, *, cookie_auth: bool, cookie_secure: bool) -> None:
        self._database = database
        self._cookie_auth = cookie_auth
        self._cookie_secure = cookie_secure

    async def begin(self, user: accounts.SignIn) -> Response:
        """What sign-in and registration answer."""
        token = new_token()
        async with self._database.connection() as connection:
            await accounts.add_token(connection, user_id=user.user_id, sha256=sha256_of(token), lifetime=TOKEN_LIFETIME)
        answer = {"token": token, "user_id": str(user.user_id), **{name: getattr(user, name) for name in OPAQUE}}
        response = JSONResponse(answer, headers={"Cache-Control": "no-store"})
        self._set_cookie(response, token, max_age=int(TOKEN_LIFETIME.total_seconds()))
        return response

    def ended(self) -> Response:
        response = JSONResponse("Logged out")
        self._set_cookie(response, "", max_age=0)
        return response

    def _set_cookie(self, response: Response, value: str, *, max_age: int) -> None:
        if not self._cookie_auth:
            return
        secure = "; Secure" if self._cookie_secure else ""
        response.headers.append(
            "Set-Cookie", f"{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={max_age}{secure}"
        )
