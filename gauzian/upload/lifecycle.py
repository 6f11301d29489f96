"""Before and after the chunks: initialize, what has arrived, finalize (refuses holes), abort."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gauzian.access import Act, require, standing_by_owner
from gauzian.accounts.identity import Identity
from gauzian.database import chunks, tree
from gauzian.database.pool import Connection, Database
from gauzian.database.shares import require_stand
from gauzian.errors import BadField, UploadClosed, UploadIncomplete
from gauzian.metrics import Metrics
from gauzian.upload.completeness import Facts, find_missing
from gauzian.upload.removal import Removal
from gauzian.web import fields

log = logging.getLogger(__name__)

# Ranges named in one answer. Chunks of an honest upload leave a handful of gaps; a list that a client can make as long
# as it likes is memory it decides about. A cut list is still true: what is not named is asked for again after the next
# answer.
_MOST_RANGES = 10_000

_MOST_CHUNKS = 2**31 - 1  # a chunk's index is an int4


class Uploads:
    """The JSON commands of an upload's life. Only the owner of a file may give them."""

    def __init__(
        self,
        *,
        identity: Identity,
        database: Database,
        removal: Removal,
        metrics: Metrics,
        quota_bytes: int | None,
        max_chunk_size: int,
        ttl: timedelta,
        check_bytes: bool,
    ) -> None:
        self._identity = identity
        self._database = database
        self._removal = removal
        self._metrics = metrics
        self._quota_bytes = quota_bytes
        self._max_chunk_size = max_chunk_size
        self._ttl = ttl
        self._check_bytes = check_bytes

    async def initialize(self, request: Request) -> Response:
        caller = await self._identity.require(request.scope)
        given = await fields.json_object(request.scope, request.receive)
        size = fields.integer(given, "size", least=0, most=2**63 - 1)
        total_chunks = fields.optional_integer(given, "total_chunks", least=0, most=_MOST_CHUNKS)
        metadata = fields.text(given, "encrypted_metadata", most=fields.MOST_METADATA)
        mime_type = fields.text(given, "mime_type", most=255, allow_empty=True)
        file_key = fields.text(given, "encrypted_file_key", most=fields.MOST_KEY)
        folder_id = fields.folder(given, "folder_id")
        async with self._room_in(folder_id, caller.user_id) as conn:
            file_id = await tree.create_file(
                conn,
                owner_id=caller.user_id,
                folder_id=folder_id,
                encrypted_metadata=metadata,
                encrypted_file_key=file_key,
                mime_type=mime_type,
                size=size,
                total_chunks=total_chunks,
                quota_bytes=self._quota_bytes,
            )
        return JSONResponse({"file_id": str(file_id)})

    @asynccontextmanager
    async def _room_in(self, folder_id: UUID | None, user_id: UUID) -> AsyncIterator[Connection]:
        """A connection on which something new may be put into this folder, and it stays there meanwhile."""
        if folder_id is None:
            async with self._database.connection() as conn:
                yield conn
            return
        async with self._database.transaction() as conn:
            await require_stand(conn, Act.ADD, "folder", user_id=user_id, id=folder_id, lock="SHARE")
            yield conn

    async def received(self, request: Request) -> Response:
        caller = await self._identity.require(request.scope)
        file_id = fields.path_uuid(request.scope, "file_id")
        async with self._database.connection() as conn:
            upload = _owned(await chunks.find_upload(conn, file_id=file_id), caller.user_id)
            if upload.state == "aborted":
                raise UploadClosed
            arrived = await chunks.find_arrived(conn, file_id=file_id)
            received = await chunks.list_received(conn, file_id=file_id, most=_MOST_RANGES)
        answer = {
            "file_id": str(file_id),
            "size": upload.size,
            "total_chunks": upload.total_chunks,
            "received": received,
            "bytes": arrived.stored_bytes,
            "expires_at": None if upload.state == "complete" else (upload.last_activity + self._ttl).isoformat(),
            "max_chunk_size": self._max_chunk_size,
            "state": upload.state,
        }
        return JSONResponse(answer)

    async def finalize(self, request: Request) -> Response:
        caller = await self._identity.require(request.scope)
        file_id = fields.path_uuid(request.scope, "file_id")
        outcome = request.path_params["etat"]
        if outcome == "aborted":
            return await self._abort(file_id, caller.user_id)
        if outcome != "completed":
            raise BadField("etat", "must be completed or aborted")
        total_chunks = fields.optional_query_integer(request.scope, "total_chunks", least=0, most=_MOST_CHUNKS)
        try:
            first_time = await self._complete(file_id, caller.user_id, total_chunks)
        except UploadIncomplete:
            self._metrics.file_uploads.labels("incomplete").inc()
            raise
        if first_time:
            self._metrics.file_uploads.labels("success").inc()
        return JSONResponse("File upload completed")

    async def abort(self, request: Request) -> Response:
        caller = await self._identity.require(request.scope)
        given = await fields.json_object(request.scope, request.receive)
        return await self._abort(fields.uuid(given, "file_id"), caller.user_id)

    async def _complete(self, file_id: UUID, user_id: UUID, total_chunks: int | None) -> bool:
        """Under the lock that keeps chunks out. False: it was complete already. Raises UploadIncomplete, and it stays
        open.
        """
        async with self._database.transaction() as conn:
            upload = _owned(await chunks.lock_upload(conn, file_id=file_id), user_id)
            if upload.state == "complete":
                return False
            if upload.state == "aborted":
                raise UploadClosed
            arrived = await chunks.find_arrived(conn, file_id=file_id)
            contiguous = arrived.highest == arrived.count - 1
            facts = Facts(
                size=upload.size,
                declared_chunks={n for n in (upload.total_chunks, total_chunks) if n is not None},
                count=arrived.count,
                highest=arrived.highest,
                stored_bytes=arrived.stored_bytes,
                first_size=arrived.first_size,
                holes=[] if contiguous else await chunks.list_holes(conn, file_id=file_id, most=_MOST_RANGES),
            )
            broken = find_missing(facts, check_bytes=self._check_bytes)
            if broken is not None:
                rule, missing = broken
                raise UploadIncomplete(
                    missing=missing, rule=rule, chunks=arrived.count, bytes=arrived.stored_bytes, size=upload.size
                )
            await chunks.mark_complete(conn, file_id=file_id, arrived=arrived)
        return True

    async def _abort(self, file_id: UUID, user_id: UUID) -> Response:
        """Unknown or already gone is fine: clients cancel with several requests at once."""
        async with self._database.transaction() as conn:
            upload = await chunks.lock_upload(conn, file_id=file_id)
            if upload is not None:
                if _owned(upload, user_id).state == "complete":
                    raise UploadClosed("A finalized file cannot be aborted")
                if upload.state == "uploading":
                    await chunks.mark_aborted(conn, file_id=file_id)
                    self._metrics.file_uploads.labels("aborted").inc()
        if upload is not None:
            await self._removal.remove_objects(file_id)
        return JSONResponse("Upload aborted")


def _owned(upload: chunks.Upload | None, user_id: UUID) -> chunks.Upload:
    require(Act.UPLOAD, standing_by_owner(user_id, None if upload is None else upload.owner_id), "file")
    assert upload is not None  # noqa: S101 - nobody may do anything with what is absent
    return upload
