"""Register, sign in, sign out, who am I, the public key of a contact."""

from __future__ import annotations

import dataclasses

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gauzian.accounts.address import Addresses
from gauzian.accounts.forms import MOST_EMAIL_BYTES, new_password, new_user
from gauzian.accounts.identity import Identity
from gauzian.accounts.passwords import MOST_PASSWORD_BYTES, Passwords
from gauzian.accounts.session import OPAQUE, Sessions
from gauzian.accounts.throttle import Throttle
from gauzian.database import accounts
from gauzian.database.pool import Database
from gauzian.errors import InvalidToken, TooManyAttempts, UserNotThere, WrongCredentials
from gauzian.metrics import Metrics
from gauzian.web import fields


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
        sessions: Sessions,
    ) -> None:
        self._database = database
        self._identity = identity
        self._passwords = passwords
        self._throttle = throttle
        self._addresses = addresses
        self._attempts = metrics.sign_in_attempts
        self._sessions = sessions

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
        answer = await self._sessions.begin(user)
        self._attempts.labels("login", "success").inc()
        return answer

    async def register(self, request: Request) -> Response:
        given = await fields.json_object(request.scope, request.receive)
        user = new_user(given)
        password = new_password(given)
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
        opaque = {name: user[name] for name in OPAQUE}
        answer = await self._sessions.begin(accounts.SignIn(user_id=user_id, password_hash=password_hash, **opaque))
        self._attempts.labels("register", "success").inc()
        return answer

    async def logout(self, request: Request) -> Response:
        sha256 = self._identity.require_token(request.scope)
        async with self._database.connection() as connection:
            was_valid = await accounts.remove_token(connection, sha256=sha256)
        if not was_valid:
            raise InvalidToken
        return self._sessions.ended()

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
