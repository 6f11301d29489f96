"""A chunk's way out: whole file, range, single chunk.

The same stops as on the way in: place -> who -> what, and is it theirs -> object -> bytes. The answer begins when the
first piece is there and nothing is wrong with it; whatever goes wrong later breaks the connection off, and
Content-Length tells the client.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager

from gauzian.access import Act, Standing, require
from gauzian.accounts.identity import Identity
from gauzian.database.downloads import FileRow, FoundChunk, find_chunk, find_file
from gauzian.database.pool import Database
from gauzian.download import conditions
from gauzian.download.formats import Format
from gauzian.download.gate import DownloadGate
from gauzian.download.pages import FilePages, OneChunk
from gauzian.download.ranges import ByteRange, parse_range
from gauzian.download.readahead import Pages, ReadAhead
from gauzian.errors import (
    ChunkNotThere,
    ClientGone,
    Receive,
    Scope,
    Send,
    UploadIncomplete,
)
from gauzian.metrics import Metrics
from gauzian.spout import EXTENSION
from gauzian.web import fields
from gauzian.web.outlet import Headers, Outlet, send_at_once

_OBJECT_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}", re.ASCII)


class _Download:
    """What all downloads share: the place, and the way from the store to the client."""

    def __init__(
        self,
        *,
        gate: DownloadGate,
        identity: Identity,
        database: Database,
        objects: ReadAhead,
        metrics: Metrics,
        stall_seconds: float,
    ) -> None:
        self._gate = gate
        self._identity = identity
        self._database = database
        self._objects = objects
        self._metrics = metrics
        self._stall_seconds = stall_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._gate.enter():
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError

    async def _send(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        status: int,
        headers: Headers,
        pages: Pages,
        format: Format | None = None,
    ) -> None:
        spout = scope.get("extensions", {}).get(EXTENSION) if format is None or format.is_plain else None
        async with (
            Outlet(
                receive,
                send,
                stall_seconds=self._stall_seconds,
                count_bytes=self._metrics.bytes_out.inc,
                count_slow=self._metrics.slow_clients.labels("download").inc,
                spout=spout,
            ) as outlet,
            aclosing(self._objects.pieces(pages, outlet.send_now if spout else None)) as pieces,
        ):
            piece: bytes | None = await anext(pieces, None)  # what is damaged or missing shows before the head goes out
            await outlet.start(status, headers)
            while piece is not None:
                await outlet.write(piece if format is None else format.encode(piece))
                del piece
                piece = await anext(pieces, None)
            await outlet.finish(b"" if format is None else format.end())


class SendFile(_Download):
    """The bytes of a complete file's chunks in index order, all of them or a range."""

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        file = await self._find(scope)
        version = conditions.Version(file_tag(file), file.finalized_at or file.updated_at)
        if conditions.is_not_modified(scope["headers"], version):
            return await send_at_once(send, 304, version.headers())
        part = None
        if scope["method"] == "GET":  # RFC 9110 14.2: Range means nothing to other methods
            part = parse_range(conditions.wanted_range(scope["headers"], version), file.stored_bytes)
        wanted = part or ByteRange(0, file.stored_bytes)
        headers = version.headers() + _file_headers(file, wanted)
        if part is not None:
            headers.append((b"content-range", f"bytes {part.start}-{part.stop - 1}/{file.stored_bytes}".encode()))
        status = 200 if part is None else 206
        if scope["method"] == "HEAD":
            return await send_at_once(send, status, headers)
        with _outcome(self._count, "success" if part is None else "partial"):
            await self._send(scope, receive, send, status, headers, FilePages(self._database, file, wanted))
        return None

    async def _find(self, scope: Scope) -> FileRow:
        file = await find_readable_file(scope, Act.READ, identity=self._identity, database=self._database)
        if file.state != "complete":
            raise UploadIncomplete
        return file

    def _count(self, outcome: str) -> None:
        self._metrics.file_downloads.labels(outcome).inc()


class SendChunk(_Download):
    """One chunk by the name of its object, in one of the shapes of formats.py. Also of an upload that is still going
    on.
    """

    def __init__(
        self,
        format: Callable[[FoundChunk], Format],
        *,
        gate: DownloadGate,
        identity: Identity,
        database: Database,
        objects: ReadAhead,
        metrics: Metrics,
        stall_seconds: float,
    ) -> None:
        super().__init__(
            gate=gate,
            identity=identity,
            database=database,
            objects=objects,
            metrics=metrics,
            stall_seconds=stall_seconds,
        )
        self._format = format

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        row = await self._find(scope)
        format = self._format(row)
        if conditions.is_not_modified(scope["headers"], format.version):
            return await send_at_once(send, 304, format.version.headers())
        length = (b"content-length", str(format.length).encode())
        headers = [*format.version.headers(), *format.headers, length]
        if scope["method"] == "HEAD":
            return await send_at_once(send, 200, headers)

        def count(outcome: str) -> None:
            self._metrics.chunk_download_seconds.labels(outcome).observe(time.perf_counter() - started)

        with _outcome(count, "success"):
            await self._send(scope, receive, send, 200, headers, OneChunk(row), format)
        return None

    async def _find(self, scope: Scope) -> FoundChunk:
        token = self._identity.require_token(scope)
        key = scope["path_params"]["s3_key"]
        if not _OBJECT_KEY.fullmatch(key):
            key = ""  # no object's name: who asks is told so if they are signed in
        async with self._database.connection() as conn:
            row = await find_chunk(conn, token_sha256=token, object_key=key)
        if row is None or row.standing is Standing.ABSENT:
            raise ChunkNotThere
        require(Act.READ, row.standing, "file")
        return row


async def find_readable_file(scope: Scope, act: Act, *, identity: Identity, database: Database) -> FileRow:
    """The file that `scope` names, as its caller sees it."""
    caller = await identity.require(scope)
    file_id = fields.path_uuid(scope, "file_id")
    async with database.connection() as conn:
        file = await find_file(conn, user_id=caller.user_id, file_id=file_id)
    require(act, Standing.ABSENT if file is None else file.standing, "file")
    assert file is not None  # noqa: S101 - nobody may do anything with what is absent
    return file


def file_tag(file: FileRow) -> str:
    """A complete file is never changed, so its id and the moment it was completed say all."""
    moment = file.finalized_at or file.updated_at
    return f'"{file.file_id.hex}-{int(moment.timestamp() * 1_000_000):x}"'


def _file_headers(file: FileRow, wanted: ByteRange) -> Headers:
    return [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", str(wanted.stop - wanted.start).encode()),
        (b"accept-ranges", b"bytes"),
        # The name is in the encrypted metadata, which only the client can read: a fixed, harmless one instead.
        (b"content-disposition", f'attachment; filename="{file.file_id}"'.encode()),
        (b"x-content-type-options", b"nosniff"),
    ]


@contextmanager
def _outcome(count: Callable[[str], None], good: str) -> Iterator[None]:
    """Count how it ended: `good`, "aborted" (the client is gone, too slow, or we are stopping) or "failed"."""
    try:
        yield
    except (ClientGone, asyncio.CancelledError):
        count("aborted")
        raise
    except BaseException:
        count("failed")
        raise
    count(good)
