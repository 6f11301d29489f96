"""Registration in three steps: a code goes to an e-mail address, the code becomes a token, the token a user."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gauzian.accounts.address import Addresses
from gauzian.accounts.forms import MOST_EMAIL_BYTES, mailable, new_user, strong_password
from gauzian.accounts.identity import new_token, sha256_of
from gauzian.accounts.mail import Mail
from gauzian.accounts.passwords import Passwords
from gauzian.accounts.session import OPAQUE, Sessions
from gauzian.accounts.throttle import Throttle, too_many
from gauzian.database import accounts, registrations
from gauzian.database.pool import Database
from gauzian.errors import (
    AlreadyRegistered,
    BadField,
    SignInBusy,
    TooManyAttempts,
)
from gauzian.metrics import Metrics
from gauzian.registration_errors import NotProved, WrongCode
from gauzian.web import fields

_ALPHABET = string.ascii_uppercase + string.digits
_CODE = re.compile(r"[A-Z0-9]{6}")
_MINUTES = int(registrations.LIFETIME.total_seconds()) // 60
# More than one request can leave behind, so the table shrinks while it is written to.
_FORGET_AT_ONCE = 100


class Registration:
    def __init__(
        self,
        *,
        database: Database,
        sessions: Sessions,
        passwords: Passwords,
        throttle: Throttle,
        addresses: Addresses,
        mail: Mail,
        metrics: Metrics,
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._passwords = passwords
        self._throttle = throttle
        self._addresses = addresses
        self._mail = mail
        self._attempts = metrics.sign_in_attempts

    async def send_code(self, request: Request) -> Response:
        given = await fields.json_object(request.scope, request.receive)
        email = mailable(given)
        address = self._addresses.of(request.scope)
        async with self._counted("send_code"):
            self._throttle.require_mail(address=address)
            self._throttle.mailed(address=address)
            code = "".join(secrets.choice(_ALPHABET) for _ in range(6))
            salt = secrets.token_bytes(16)
            sha256 = registrations.hash_code(salt, code)
            await self._begin(email, salt, sha256)
            try:
                await self._mail.send_code(email, code, minutes=_MINUTES)
            except Exception:
                async with self._database.connection() as connection:
                    await registrations.withdraw(connection, email=email, code_sha256=sha256)
                raise
        return JSONResponse("Code sent")

    async def verify_code(self, request: Request) -> Response:
        given = await fields.json_object(request.scope, request.receive)
        email = fields.text(given, "email", most=MOST_EMAIL_BYTES).strip().lower()
        code = fields.text(given, "otp", most=64).strip().upper()
        if not _CODE.fullmatch(code):
            raise BadField("otp", "must be six letters or digits")
        address = self._addresses.of(request.scope)
        async with self._counted("verify_code"):
            self._throttle.require_code(address=address)
            token = new_token()
            async with self._database.transaction() as connection:
                wait = await registrations.exchange(connection, email=email, code=code, token_sha256=sha256_of(token))
            # Outside: raised inside it would take the count of wrong codes back.
            if wait == 0:
                self._throttle.wrong_code(address=address)
                raise WrongCode
            if wait is not None:
                raise too_many(wait)
        return JSONResponse(token, headers={"Cache-Control": "no-store"})

    async def finalize(self, request: Request) -> Response:
        given = await fields.json_object(request.scope, request.receive)
        user = new_user(given) | {"email": mailable(given)}
        password = strong_password(given)
        sha256 = sha256_of(_token(given))
        address = self._addresses.of(request.scope)
        async with self._counted("register"):
            self._throttle.require_registration(address=address)
            self._throttle.registered(address=address)
            # Before the password, which costs us something; and again when the token is used up.
            async with self._database.connection() as connection:
                if not await registrations.is_proved(connection, email=user["email"], token_sha256=sha256):
                    raise NotProved
            async with self._passwords.turn():
                password_hash = await self._passwords.hash(password)
            # A name that is taken rolls back: the same token serves for another one.
            async with self._database.transaction() as connection:
                if not await registrations.finish(connection, email=user["email"], token_sha256=sha256):
                    raise NotProved
                user_id = await accounts.create_user(connection, password_hash=password_hash, **user)
            opaque = {name: user[name] for name in OPAQUE}
            return await self._sessions.begin(accounts.SignIn(user_id=user_id, password_hash=password_hash, **opaque))

    async def _begin(self, email: str, salt: bytes, sha256: bytes) -> None:
        async with self._database.connection() as connection:
            if await accounts.is_registered(connection, email=email):
                raise AlreadyRegistered("E-mail is already registered", status=400)
            await registrations.remove_expired(connection, limit=_FORGET_AT_ONCE)
            if await registrations.is_full(connection):
                raise SignInBusy
            standing = await registrations.begin(connection, email=email, salt=salt, code_sha256=sha256)
        if standing is not None:
            raise too_many(max(standing.cooldown_seconds, standing.blocked_seconds, 1.0))

    @asynccontextmanager
    async def _counted(self, kind: str) -> AsyncIterator[None]:
        try:
            yield
        except TooManyAttempts:
            self._attempts.labels(kind, "throttled").inc()
            raise
        except Exception:
            self._attempts.labels(kind, "failed").inc()
            raise
        self._attempts.labels(kind, "success").inc()


def _token(given: dict[str, Any]) -> str:
    """None at all is answered like a wrong one: a client that lost it must begin anew, as with one that expired."""
    token = given.get("temp_token")
    if not isinstance(token, str) or not 0 < len(token) <= 1024:
        raise NotProved
    return token
