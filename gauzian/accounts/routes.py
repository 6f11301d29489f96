"""Register, sign in, sign out, who am I, the public key of a contact."""

from __future__ import annotations

import dataclasses
import re
from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gauzian.accounts.address import Addresses
from gauzian.accounts.identity import COOKIE, Identity, new_token, sha256_of
from gauzian.accounts.passwords import MOST_PASSWORD_BYTES, Passwords
from gauzian.accounts.throttle import Throttle
from gauzian.database import accounts
from gauzian.database.pool import Database
from gauzian.errors import BadField, InvalidToken, TooManyAttempts, UserNotThere, WrongCredentials
from gauzian.metrics import Metrics
from gauzian.web import fields

TOKEN_LIFETIME = timedelta(days=10)

# RFC 5321 4.5.3.1.3: 256 octets with the angle brackets.
MOST_EMAIL_BYTES = 254
MOST_USERNAME_BYTES = 255
# NIST SP 800-63B's least length and nothing about character classes: clients of the first generation had no rule at
# all, and their users and load scripts must be able to register. The browser client may ask for more.
LEAST_PASSWORD_CHARACTERS = 8

# One @ with something before it; no space or control character anywhere; the domain has a dot inside.
_EMAIL = re.compile(r"[^\s\x00-\x1f\x7f@]+@[^\s\x00-\x1f\x7f@.]+(?:\.[^\s\x00-\x1f\x7f@.]+)+")
_OPAQUE = ("encrypted_private_key", "public_key", "private_key_salt", "iv")


class Accounts:
    def __init__(
        self,
        *,
        database: Database,
        identity: Identity,
        passwords: Passwords,
        throttle: Throttle,
        addresses: Addresses,
        metrics: Metrics,
        cookie_secure: bool,
    ) -> None:
        self._database = database
        self._identity = identity
        self._passwords = passwords
        self._throttle = throttle
        self._addresses = addresses
        self._attempts = metrics.sign_in_attempts
        self._cookie_secure = cookie_secure

    async def login(self, request: Request) -> Response:
        given = await fields.json_object(request.scope, request.receive)
        email = fields.text(given, "email", most=MOST_EMAIL_BYTES).strip()
        password = fields.text(given, "password", most=MOST_PASSWORD_BYTES, allow_empty=True)
        address = self._addresses.of(request.scope)
        try:
            user = await self._check(email, password, address)
        except TooManyAttempts:
            self._attempts.labels("login", "throttled").inc()
            raise
        except WrongCredentials:
            self._attempts.labels("login", "failed").inc()
            raise
        answer = await self._sign_in(user)
        self._attempts.labels("login", "success").inc()
        return answer

    async def register(self, request: Request) -> Response:
        given = await fields.json_object(request.scope, request.receive)
        user = _registration(given)
        password = _new_password(given)
        address = self._addresses.of(request.scope)
        try:
            self._throttle.require_registration(address=address)
        except TooManyAttempts:
            self._attempts.labels("register", "throttled").inc()
            raise
        self._throttle.registered(address=address)
        async with self._passwords.turn():
            password_hash = await self._passwords.hash(password)
        try:
            async with self._database.connection() as connection:
                user_id = await accounts.create_user(connection, password_hash=password_hash, **user)
        except Exception:
            self._attempts.labels("register", "failed").inc()
            raise
        opaque = {name: user[name] for name in _OPAQUE}
        answer = await self._sign_in(accounts.SignIn(user_id=user_id, password_hash=password_hash, **opaque))
        self._attempts.labels("register", "success").inc()
        return answer

    async def logout(self, request: Request) -> Response:
        sha256 = self._identity.require_token(request.scope)
        async with self._database.connection() as connection:
            was_valid = await accounts.remove_token(connection, sha256=sha256)
        if not was_valid:
            raise InvalidToken
        response = JSONResponse("Logged out")
        self._set_cookie(response, "", max_age=0)
        return response

    async def autologin(self, request: Request) -> Response:
        await self._identity.require(request.scope)
        return JSONResponse("Signed in")

    async def protected(self, request: Request) -> Response:
        await self._identity.require(request.scope)
        return JSONResponse("Signed in")

    async def info(self, request: Request) -> Response:
        caller = await self._identity.require(request.scope)
        async with self._database.connection() as connection:
            found = await accounts.find_info(connection, user_id=caller.user_id)
        if found is None:
            raise InvalidToken
        return JSONResponse({**dataclasses.asdict(found), "id": str(found.id)})

    async def get_public_key(self, request: Request) -> Response:
        await self._identity.require(request.scope)
        email = fields.storable("email", request.path_params["email"].strip(), most=MOST_EMAIL_BYTES)
        async with self._database.connection() as connection:
            found = await accounts.find_public_key(connection, email=email)
        if found is None:
            raise UserNotThere
        # The first generation of clients reads `id`, the second `user_id`.
        return JSONResponse({"id": str(found.user_id), "user_id": str(found.user_id), "public_key": found.public_key})

    async def _check(self, email: str, password: str, address: str) -> accounts.SignIn:
        account = email.lower()
        self._throttle.require_sign_in(account=account, address=address)
        async with self._database.connection() as connection:
            user = await accounts.find_sign_in(connection, email=email)
        async with self._passwords.turn():
            # Again: those before us in the line may have failed since. So a burst is no way around the throttle.
            self._throttle.require_sign_in(account=account, address=address)
            is_right = await self._passwords.is_right(None if user is None else user.password_hash, password)
            if user is None or not is_right:
                self._throttle.failed(account=account, address=address)
                raise WrongCredentials
            self._throttle.succeeded(account=account, address=address)
            if self._passwords.is_outdated(user.password_hash):
                await self._renew_hash(user, password)
        return user

    async def _renew_hash(self, user: accounts.SignIn, password: str) -> None:
        new = await self._passwords.hash(password)
        async with self._database.connection() as connection:
            await accounts.replace_password_hash(connection, user_id=user.user_id, old=user.password_hash, new=new)

    async def _sign_in(self, user: accounts.SignIn) -> Response:
        token = new_token()
        async with self._database.connection() as connection:
            await accounts.add_token(connection, user_id=user.user_id, sha256=sha256_of(token), lifetime=TOKEN_LIFETIME)
        answer = {"token": token, "user_id": str(user.user_id), **{name: getattr(user, name) for name in _OPAQUE}}
        response = JSONResponse(answer, headers={"Cache-Control": "no-store"})
        self._set_cookie(response, token, max_age=int(TOKEN_LIFETIME.total_seconds()))
        return response

    def _set_cookie(self, response: Response, value: str, *, max_age: int) -> None:
        if not self._identity.cookie_auth:
            return
        secure = "; Secure" if self._cookie_secure else ""
        response.headers.append(
            "Set-Cookie", f"{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={max_age}{secure}"
        )


def _registration(given: dict[str, Any]) -> dict[str, str]:
    """The fields of a new user, as create_user takes them, without the password."""
    email = fields.text(given, "email", most=MOST_EMAIL_BYTES).strip()
    if not _EMAIL.fullmatch(email):
        raise BadField("email", "must be an e-mail address")
    username = fields.text(given, "username", most=MOST_USERNAME_BYTES).strip()
    if not username or not username.isprintable():
        raise BadField("username", "must be printable and not empty")
    opaque = {name: fields.text(given, name, most=fields.MOST_KEY) for name in _OPAQUE}
    # Nobody reads this one yet; older clients send it empty.
    record_key = fields.text(given, "encrypted_record_key", most=fields.MOST_KEY, allow_empty=True)
    return {"email": email, "username": username, "encrypted_record_key": record_key, **opaque}


def _new_password(given: dict[str, Any]) -> str:
    password = fields.text(given, "password", most=MOST_PASSWORD_BYTES)
    if len(password) < LEAST_PASSWORD_CHARACTERS:
        raise BadField("password", f"must have at least {LEAST_PASSWORD_CHARACTERS} characters")
    return password
