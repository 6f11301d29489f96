"""The accounts room as an application of its own: its routes, its errors, a database, and a clock that stands still."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gauzian.accounts.address import Addresses
from gauzian.accounts.identity import Identity
from gauzian.accounts.passwords import Passwords
from gauzian.accounts.registration import Registration
from gauzian.accounts.routes import Accounts
from gauzian.accounts.session import Sessions
from gauzian.accounts.throttle import Throttle
from gauzian.database.pool import Database, open_database
from gauzian.metrics import Metrics
from gauzian.web.refusals import AnswerErrors
from tests.asgi import Answer, call

PASSWORD = "Correct-Horse-9"


def registration(name: str = "ada", **changes: Any) -> dict[str, Any]:
    """A body for /register; None as a change leaves the field out."""
    whole = {
        "email": f"{name}@example.org",
        "username": name,
        "password": PASSWORD,
        "encrypted_private_key": f"private of {name}",
        "public_key": f"public of {name}",
        "private_key_salt": "salt",
        "iv": "iv",
        "encrypted_record_key": "record",
    }
    return {name: value for name, value in {**whole, **changes}.items() if value is not None}


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Letters:
    """Mail that arrives at once, or does not while `trouble` is set."""

    codes: list[tuple[str, str]] = field(default_factory=list)
    trouble: Exception | None = None

    async def send_code(self, email: str, code: str, *, minutes: int) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.codes.append((email, code))


@dataclass
class House:
    """What a test drives."""

    app: Starlette
    database: Database
    metrics: Metrics
    passwords: Passwords
    clock: Clock
    letters: Letters

    async def register(self, name: str = "ada", **changes: Any) -> Answer:
        return await call(self.app, "POST", "/register", json=registration(name, **changes))

    async def login(self, name: str = "ada", password: str = PASSWORD, address: str = "203.0.113.7") -> Answer:
        body = {"email": f"{name}@example.org", "password": password}
        return await call(self.app, "POST", "/login", json=body, client=(address, 1))

    async def get(self, path: str, token: str | None = None, **headers: str) -> Answer:
        bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
        return await call(self.app, "GET", path, headers={**bearer, **headers})

    async def post(self, path: str, token: str | None = None, **headers: str) -> Answer:
        bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
        return await call(self.app, "POST", path, headers={**bearer, **headers})

    def attempts(self, kind: str, status: str) -> float:
        labels = {"type": kind, "status": status}
        return self.metrics.registry.get_sample_value("gauzian_auth_attempts_total", labels) or 0.0


OpenHouse = Callable[..., House]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, most_connections=4) as database:
        yield database


@pytest.fixture
def open_house(database: Database) -> OpenHouse:
    def open_house(
        *,
        cookie_auth: bool = True,
        cookie_secure: bool = True,
        passwords: Passwords | None = None,
        trusted_proxies: tuple[str, ...] = (),
        allowed_origins: tuple[str, ...] = (),
    ) -> House:
        identity = Identity(database, cookie_auth=cookie_auth, allowed_origins=allowed_origins)
        clock, metrics, letters = Clock(), Metrics(), Letters()
        # Cheap hashes: what is tested here is not Argon2.
        passwords = passwords or Passwords(at_once=2, memory_kib=64)
        shared: dict[str, Any] = {
            "database": database,
            "passwords": passwords,
            "throttle": Throttle(clock=clock),
            "addresses": Addresses(trusted_proxies),
            "metrics": metrics,
            "sessions": Sessions(database, cookie_auth=cookie_auth, cookie_secure=cookie_secure),
        }
        accounts = Accounts(identity=identity, **shared)
        registration = Registration(mail=letters, **shared)

        async def change(request: Request) -> Response:
            return JSONResponse(str((await identity.require(request.scope)).user_id))

        routes = [
            Route("/login", accounts.login, methods=["POST"]),
            Route("/register", accounts.register, methods=["POST"]),
            Route("/register/send-otp", registration.send_code, methods=["POST"]),
            Route("/register/verify-otp", registration.verify_code, methods=["POST"]),
            Route("/register/finalize", registration.finalize, methods=["POST"]),
            Route("/logout", accounts.logout, methods=["POST"]),
            Route("/autologin", accounts.autologin),
            Route("/protected", accounts.protected),
            Route("/info", accounts.info),
            Route("/contacts/get_public_key/{email}", accounts.get_public_key),
            Route("/change", change, methods=["GET", "POST"]),
        ]
        app = Starlette(routes=routes, middleware=[Middleware(AnswerErrors, count=lambda code: None)])
        return House(app, database, metrics, passwords, clock, letters)

    return open_house


@pytest.fixture
def house(open_house: OpenHouse) -> House:
    return open_house()
