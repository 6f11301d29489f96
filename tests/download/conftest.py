"""A house with a way out only: real database, real identity, a store in memory that can be made to fail."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from xxhash import xxh3_128

from gauzian.accounts.identity import Identity, sha256_of
from gauzian.database.pool import open_database
from gauzian.download.formats import JsonChunk, RawChunk
from gauzian.download.gate import DownloadGate
from gauzian.download.info import SendFileInfo
from gauzian.download.readahead import ReadAhead
from gauzian.download.routes import SendChunk, SendFile
from gauzian.metrics import Metrics
from gauzian.web.refusals import AnswerErrors
from tests.asgi import Answer, call, scope_of
from tests.download.fakes import STARTED, Client, TroubledStore, until

IV = "aXYtaXYtaXYtaXY="


class House:
    """The download routes over their parts, and what a test needs to put into them."""

    def __init__(self, database: Any, *, places: int = 3, stall_seconds: float = 60.0, info_rows: int = 4) -> None:
        self.database = database
        self.store = TroubledStore(piece=1000)
        self.metrics = Metrics()
        self.gate = DownloadGate(places=places, metrics=self.metrics)
        self.objects = ReadAhead(self.store, ahead=2)
        identity = Identity(database, cookie_auth=True)
        sending = {
            "gate": self.gate,
            "identity": identity,
            "database": database,
            "objects": self.objects,
            "metrics": self.metrics,
            "stall_seconds": stall_seconds,
        }
        info = SendFileInfo(
            identity=identity,
            database=database,
            metrics=self.metrics,
            stall_seconds=stall_seconds,
            page_rows=info_rows,
        )
        self.app = Starlette(
            routes=[
                Route("/drive/file/{file_id}", info, methods=["GET"]),
                Route("/drive/download/{file_id}", SendFile(**sending), methods=["GET"]),
                Route("/drive/download_chunk_binary/{s3_key}", SendChunk(RawChunk, **sending), methods=["GET"]),
                Route("/drive/download_chunk/{s3_key}", SendChunk(JsonChunk, **sending), methods=["GET"]),
            ],
            middleware=[Middleware(AnswerErrors, count=lambda code: self.metrics.errors.labels(code).inc())],
        )

    async def execute(self, statement: str, *values: Any) -> None:
        async with self.database.connection() as conn:
            await conn.execute(statement, values)

    async def add_user(self, name: str) -> UUID:
        """A user whose token is their name."""
        async with self.database.connection() as conn:
            cursor = await conn.execute(
                "INSERT INTO users (email, username, password_hash, public_key, encrypted_private_key,"
                " private_key_salt, iv, encrypted_record_key) VALUES (%s, %s, '', '', '', '', '', '') RETURNING id",
                (f"{name}@drive.example", name),
            )
            (user_id,) = await cursor.fetchone()
            await conn.execute(
                "INSERT INTO tokens (sha256, user_id, expires_at) VALUES (%s, %s, now() + %s)",
                (sha256_of(name), user_id, timedelta(days=1)),
            )
        return UUID(str(user_id))

    async def add_file(self, owner_id: UUID, contents: Sequence[bytes], *, state: str = "complete") -> UUID:
        """A file of these chunks; their objects are called <file>.<index>."""
        stored = sum(map(len, contents)) if state == "complete" else None
        async with self.database.connection() as conn:
            cursor = await conn.execute(
                "INSERT INTO files (owner_id, encrypted_metadata, mime_type, size, state, stored_bytes, chunk_count,"
                " finalized_at) VALUES (%s, 'bWV0YQ==', 'text/plain', 12, %s, %s, %s, %s) RETURNING id",
                (owner_id, state, stored, len(contents) if state == "complete" else None, STARTED),
            )
            (file_id,) = await cursor.fetchone()
            await conn.execute(
                "INSERT INTO file_access (file_id, user_id, encrypted_file_key, access_level)"
                " VALUES (%s, %s, 'a2V5', 'owner')",
                (file_id, owner_id),
            )
            for index, content in enumerate(contents):
                key = f"{file_id}.{index}"
                self.store.objects[key] = content
                await conn.execute(
                    "INSERT INTO chunks (file_id, index, object_key, size, sha256, xxh3, iv)"
                    " VALUES (%s, %s, %s, %s, %s, %s, %s)",
                    (
                        file_id,
                        index,
                        key,
                        len(content),
                        hashlib.sha256(content).digest(),
                        xxh3_128(content).digest(),
                        IV,
                    ),
                )
        return UUID(str(file_id))

    async def get(self, path: str, *, user: str | None = "ada", method: str = "GET", **headers: str) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if user is not None:
            given["authorization"] = f"Bearer {user}"
        return await call(self.app, method, path, headers=given)

    async def get_as(self, client: Client, path: str) -> None:
        """Ada's request, by a client that makes trouble."""
        scope = scope_of("GET", path, headers={"authorization": "Bearer ada"})
        await self.app(scope, client.receive, client.send)

    def sample(self, text: str) -> float:
        """The value of one metric's sample."""
        line = next(
            (line for line in self.metrics.render().decode().splitlines() if line.startswith(text + " ")), "0 0"
        )
        return float(line.rsplit(" ", 1)[1])

    def is_quiet(self) -> bool:
        lent = self.database.statistics()
        return not (self.gate.taken or self.objects.opened or self.store.open_now or lent.size - lent.idle)


@pytest.fixture
async def house(database_url: str) -> AsyncIterator[House]:
    async with open_database(database_url) as database:
        house = House(database)
        yield house
        await until(house.is_quiet)  # every place, object and connection was given back
