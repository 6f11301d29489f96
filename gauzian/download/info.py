"""File info: what a client needs to know before it downloads, with every chunk of the file.

A file of 100 GB has 100 000 chunks: they are read and written page by page, and only a file of one page has a
Content-Length.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from gauzian.access import Act
from gauzian.accounts.identity import Identity
from gauzian.database.downloads import ChunkRow, FileRow, list_chunks
from gauzian.database.pool import Database
from gauzian.download.routes import find_readable_file
from gauzian.errors import Receive, Scope, Send
from gauzian.metrics import Metrics
from gauzian.web.outlet import Headers, Outlet, send_at_once

# About 65 KB of JSON, and a few milliseconds of the event loop.
PAGE_ROWS = 250

_HEADERS: Headers = [(b"content-type", b"application/json"), (b"cache-control", b"private, no-store")]


class SendFileInfo:
    """GET and HEAD of a file's info, also of an upload that is still going on. Needs no place: it holds a page, and
    no connection.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        database: Database,
        metrics: Metrics,
        stall_seconds: float,
        page_rows: int = PAGE_ROWS,
    ) -> None:
        self._identity = identity
        self._database = database
        self._metrics = metrics
        self._stall_seconds = stall_seconds
        self._page_rows = page_rows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        file = await find_readable_file(scope, Act.READ_INFO, identity=self._identity, database=self._database)
        first = await self._page(file, 0)
        if len(first) < self._page_rows:
            await self._send_at_once(scope, send, file, first)
        elif scope["method"] == "HEAD":
            await send_at_once(send, 200, _HEADERS)
        else:
            await self._send_by_page(receive, send, file, first)

    async def _send_at_once(self, scope: Scope, send: Send, file: FileRow, rows: list[ChunkRow]) -> None:
        body = _opening(file) + _chunks(rows) + _closing(len(rows))
        headers = [*_HEADERS, (b"content-length", str(len(body)).encode())]
        await send_at_once(send, 200, headers, b"" if scope["method"] == "HEAD" else body)

    async def _send_by_page(self, receive: Receive, send: Send, file: FileRow, rows: list[ChunkRow]) -> None:
        outlet = Outlet(
            receive,
            send,
            stall_seconds=self._stall_seconds,
            count_slow=self._metrics.slow_clients.labels("download").inc,
        )
        async with outlet:
            await outlet.start(200, _HEADERS)
            await outlet.write(_opening(file))
            count = 0
            while rows:
                separator = b"," if count else b""
                count += len(rows)
                after, is_last = rows[-1].index + 1, len(rows) < self._page_rows
                piece = separator + _chunks(rows)
                rows = []  # not held while a slow client takes its time
                await outlet.write(piece)
                if not is_last:
                    rows = await self._page(file, after)
            await outlet.finish(_closing(count))

    async def _page(self, file: FileRow, first: int) -> list[ChunkRow]:
        async with self._database.connection() as conn:
            return await list_chunks(conn, file_id=file.file_id, first=first, most=self._page_rows)


def _opening(file: FileRow) -> bytes:
    known = {
        "file_id": str(file.file_id),
        "encrypted_metadata": file.encrypted_metadata,
        "encrypted_file_key": file.encrypted_file_key,
        "size": file.size,
        "mime_type": file.mime_type,
        "created_at": file.created_at.isoformat(),
        "updated_at": file.updated_at.isoformat(),
    }
    return json.dumps(known, separators=(",", ":"))[:-1].encode() + b',"chunks":['


def _chunks(rows: Sequence[ChunkRow]) -> bytes:
    listed = [
        {
            "s3_key": row.object_key,
            "index": row.index,
            "chunk_id": str(row.chunk_id),
            "size": row.size,
            "iv": row.iv,
            "sha256": row.sha256.hex(),
        }
        for row in rows
    ]
    return json.dumps(listed, separators=(",", ":"))[1:-1].encode()


def _closing(count: int) -> bytes:
    """The number of chunks that were listed; it stands last because more may arrive while an unfinished upload is
    listed.
    """
    return b'],"chunk_count":%d}' % count
