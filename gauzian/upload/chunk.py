"""THE CORRIDOR: place -> who -> which chunk -> whose file -> object -> row -> answer.

The order is chosen. The place comes first, before the database and before the first byte of the body is asked for: a
refusal costs no I/O, and a stranger holds a place only for one look-up. No database connection is held while a client
is slow. An object without a row is litter for the reaper; a row without an object would be a lost chunk: so the object
comes first and the row after it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

from gauzian.access import Act, require, standing_by_owner
from gauzian.accounts.identity import Identity
from gauzian.database import chunks
from gauzian.database.chunks import NewChunk
from gauzian.database.pool import Database
from gauzian.database.together import ChunkRows
from gauzian.errors import (
    ApiError,
    InvalidToken,
    OutcomeUnknown,
    QuotaExceeded,
    Receive,
    Scope,
    Send,
    UploadClosed,
    UploadTooSlow,
)
from gauzian.metrics import Metrics
from gauzian.stores.base import ObjectStore, StoredObject
from gauzian.stores.threads import outlast
from gauzian.upload.admissions import Admissions
from gauzian.upload.formats import IncomingChunk
from gauzian.upload.gate import Place, UploadGate

# Seconds that the last, short steps may still take when the server is stopping: longer than a statement or a delete
# takes to time out.
_LAST_STEPS_SECONDS = 35


class Format(Protocol):
    """One way of writing a chunk into a request; upload/formats.py has three."""

    def check_declared(self, scope: Scope) -> None: ...
    def early_target(self, scope: Scope) -> tuple[UUID, int | None] | None: ...
    def open(self, scope: Scope, receive: Receive) -> AbstractAsyncContextManager[IncomingChunk]: ...


class ReceiveChunk:
    """A chunk route: the same for every format."""

    def __init__(
        self,
        format: Format,
        *,
        gate: UploadGate,
        identity: Identity,
        database: Database,
        store: ObjectStore,
        metrics: Metrics,
        rows: ChunkRows,
        quota_bytes: int | None,
    ) -> None:
        self._format = format
        self._gate = gate
        self._identity = identity
        self._database = database
        self._store = store
        self._metrics = metrics
        self._rows = rows
        self._quota_bytes = quota_bytes
        self._admissions = Admissions()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._format.check_declared(scope)
        with self._gate.enter() as place:
            answer = await self._timed(scope, receive, place)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())],
            }
        )
        await send({"type": "http.response.body", "body": answer})

    async def _timed(self, scope: Scope, receive: Receive, place: Place) -> bytes:
        started, status = time.perf_counter(), "failed"
        try:
            answer = await self._take_in(scope, receive, place)
            status = "success"
            return answer
        except UploadTooSlow:
            self._metrics.slow_clients.labels("upload").inc()
            raise
        finally:
            self._metrics.chunk_upload_seconds.labels(status).observe(time.perf_counter() - started)

    async def _take_in(self, scope: Scope, receive: Receive, place: Place) -> bytes:
        token = self._identity.require_token(scope)
        early = await self._identify(scope, token, place)
        async with self._format.open(scope, receive) as incoming:
            if isinstance(early, UUID):
                self._admit(await self._find_target(incoming.file_id, None, user_id=early))
            elif incoming.size is not None:
                self._check_quota(early, incoming.size)
            key = f"{incoming.file_id}.{secrets.token_hex(16)}"
            stored = await self._store.put(key, incoming.pieces, size=incoming.size, sha256=incoming.sha256)
            self._metrics.bytes_in.inc(stored.size)
            row = await self._write_row(incoming, key, stored, token)
        return _answer(row, incoming.index, stored)

    async def _identify(self, scope: Scope, token: bytes, place: Place) -> chunks.Target | UUID:
        """Who is asking, and their target if the URL alone names it (one statement for both); else only the user."""
        try:
            named = self._format.early_target(scope)
        except ApiError as refusal:
            await self._identity.require(scope)  # 401 comes before any other complaint
            raise refusal from None
        if named is None:
            caller = await self._identity.require(scope)
            place.claim_for(caller.user_id)
            return caller.user_id
        file_id, index = named
        target = self._admissions.find(token, file_id)
        if target is None:
            target = await self._find_target(file_id, index, token_sha256=token)
            self._admissions.remember(token, file_id, target)
        place.claim_for(target.user_id)
        self._admit(target)
        return target

    async def _find_target(
        self, file_id: UUID, index: int | None, *, token_sha256: bytes | None = None, user_id: UUID | None = None
    ) -> chunks.Target:
        async with self._database.connection() as conn:
            target = await chunks.find_target(
                conn,
                file_id=file_id,
                index=index,
                quota_bytes=self._quota_bytes,
                token_sha256=token_sha256,
                user_id=user_id,
            )
        if target is None:
            raise InvalidToken
        return target

    def _admit(self, target: chunks.Target) -> None:
        require(Act.UPLOAD, standing_by_owner(target.user_id, target.owner_id), "file")
        if target.state != "uploading":
            raise UploadClosed

    def _check_quota(self, target: chunks.Target, size: int) -> None:
        """A first look, so that a chunk that cannot fit is refused unread; the row's statement decides exactly.

        A retry of a chunk that is there already takes only the difference: the last bytes of a quota stay usable.
        """
        growth = size - (target.replaces or 0)
        if target.quota_bytes is not None and growth > 0 and target.used_bytes + growth > target.quota_bytes:
            raise QuotaExceeded

    async def _write_row(
        self, incoming: IncomingChunk, key: str, stored: StoredObject, token: bytes
    ) -> chunks.StoredChunk:
        """In any case to its end, whoever is cancelled meanwhile: a statement broken off leaves us not knowing whether
        it was committed."""
        outcome = self._rows.put(
            NewChunk(
                token_sha256=token,
                file_id=incoming.file_id,
                index=incoming.index,
                object_key=key,
                size=stored.size,
                sha256=stored.sha256,
                xxh3=stored.xxh3,
                iv=incoming.iv,
            )
        )
        try:
            row = await asyncio.shield(outcome)
        except BaseException:
            await outlast(self._tidy_up(outcome, token, incoming.file_id, key), seconds=_LAST_STEPS_SECONDS)
            raise
        else:
            if row.loser is not None:
                await outlast(self._tidy_up(outcome, token, incoming.file_id, key), seconds=_LAST_STEPS_SECONDS)
            return row
        finally:
            del outcome  # it knows the exception, which knows this frame: a circle

    async def _tidy_up(
        self, outcome: asyncio.Future[chunks.StoredChunk], token: bytes, file_id: UUID, key: str
    ) -> None:
        """The object that no row names: the one it was to name, or the one it no longer does."""
        try:
            row = await outcome
        except OutcomeUnknown:
            return  # perhaps committed: if not, the sweep finds the object
        except Exception:
            self._admissions.forget(token, file_id)
            await self._store.delete_quietly([key])
        else:
            if row.loser is not None:
                await self._store.delete_quietly([row.loser])
        finally:
            del outcome


def _answer(row: chunks.StoredChunk, index: int, stored: StoredObject) -> bytes:
    return json.dumps(
        {
            "s3_record_id": str(row.id),
            "s3_id": row.object_key,
            "index": str(index),
            "date_upload": row.created_at.isoformat(),
            "data_hash": stored.sha256.hex(),
        },
        separators=(",", ":"),
    ).encode()
