"""Objects in a bucket: URLs presigned without I/O, bytes streamed in pieces.

A put is one request with a known length. Bytes whose number nobody knows are spooled first, to a file without a name:
S3 wants to be told, and memory is no place to count them.

Retried is only what can be repeated truly: a put before its first piece was asked for, a spooled put from its spool,
a get before its first byte, a delete, a page of a list. Two retries within seconds: the client still has the chunk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from gauzian.bytebudget import ByteBudget
from gauzian.errors import StoreDown
from gauzian.metrics import Metrics
from gauzian.stores.base import MOST_PIECE_BYTES, ListedObject, ObjectMissing, StoredObject
from gauzian.stores.files import file_work
from gauzian.stores.keys import require_key
from gauzian.stores.s3_answers import Answer, Tries, ask_patiently
from gauzian.stores.s3_body import SentBody
from gauzian.stores.s3_listing import ListingPage
from gauzian.stores.s3_passage import Passages
from gauzian.stores.s3_received import ReceivedPieces, SmallFirstReads
from gauzian.stores.s3_signing import Signer
from gauzian.stores.s3_wire import S3Wire
from gauzian.stores.sharedbuffer import SharedBuffer
from gauzian.stores.spool import Spool
from gauzian.stores.threads import KIB, MIB, FileThreads
from gauzian.stores.watching import Watch

log = logging.getLogger(__name__)

# aiohttp stops reading from the store when an opened response holds twice this.
_READ_BUFFER_BYTES = 4 * KIB
# Held by all objects that are being read at a moment; one opened ahead holds no more than its first read.
_READING_BYTES = 1 * MIB
# Shorter than a store's own idle limit, so that it is we who close an idle connection.
_IDLE_SECONDS = 10.0
_DELETES_AT_ONCE = 8
_SILENT_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


@asynccontextmanager
async def open_s3(
    *,
    endpoint: str,
    access_key: str,
    secret_key: str,
    bucket: str,
    region: str,
    spool_dir: Path,
    threads: FileThreads,
    connect_seconds: float = 5.0,
    read_seconds: float = 30.0,
    most_connections: int = 512,
    metrics: Metrics | None = None,
) -> AsyncIterator[S3Store]:
    """The store in `bucket`, created if absent. Raises StoreDown if that cannot be done, ValueError for a bad endpoint.

    `read_seconds`: the longest silence of the store, whichever way the bytes go. Beyond `most_connections` requests
    wait for one, no longer than both times together.
    """
    signer = Signer(endpoint=endpoint, access_key=access_key, secret_key=secret_key, bucket=bucket, region=region)
    await file_work(threads.run(spool_dir.mkdir, parents=True, exist_ok=True))
    async with aiohttp.ClientSession(
        connector=SmallFirstReads(limit=most_connections, keepalive_timeout=_IDLE_SECONDS),
        timeout=aiohttp.ClientTimeout(
            total=None, connect=connect_seconds + read_seconds, sock_connect=connect_seconds, sock_read=read_seconds
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=_SILENT_HEADERS,
        auto_decompress=False,
        read_bufsize=_READ_BUFFER_BYTES,
    ) as session:
        buffer = SharedBuffer()
        store = S3Store(
            S3Wire(
                session,
                signer,
                reading=ByteBudget(_READING_BYTES, least=32 * KIB, most=MOST_PIECE_BYTES, parts=2),
                buffer=buffer,
                read_seconds=read_seconds,
            ),
            passages=Passages(buffer),
            spool_dir=spool_dir,
            threads=threads,
            stall_seconds=read_seconds,
            metrics=metrics,
        )
        await store.require_bucket(region)
        yield store


class S3Store:
    """ObjectStore (base.py) in a bucket. Made by `open_s3`."""

    def __init__(
        self,
        wire: S3Wire,
        *,
        passages: Passages,
        spool_dir: Path,
        threads: FileThreads,
        stall_seconds: float,
        metrics: Metrics | None,
    ) -> None:
        self._wire = wire
        self._spool_dir = spool_dir
        self._threads = threads
        self._stall_seconds = stall_seconds
        self._passages = passages
        self._metrics = metrics

    async def put(
        self, key: str, pieces: AsyncIterable[bytes], *, size: int | None, sha256: bytes | None = None
    ) -> StoredObject:
        require_key(key)
        with Watch(self._metrics, "put") as watch:
            if size is not None:
                body = self._body(pieces, size, sha256, watch)
                return await self._send(key, lambda: body, replay=False)
            async with Spool(self._spool_dir, threads=self._threads) as spool:
                source = aiter(pieces)
                while (piece := await watch.next(source)) is not None:
                    await spool.write(piece)
                size = await spool.finish()
                return await self._send(key, lambda: self._body(spool.pieces(), size, sha256, watch), replay=True)

    @asynccontextmanager
    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        with Watch(self._metrics, "get"):
            pieces = await self._open(require_key(key), start, length)
        try:
            yield _nothing() if pieces is None or length == 0 else pieces
        finally:
            if pieces is not None:
                pieces.close()

    async def delete_quietly(self, keys: Sequence[str]) -> int:
        """A few at a time; gives up when the store has failed as many times as there are at once."""
        todo = iter([require_key(key) for key in keys])
        removed = failed = 0

        async def work() -> None:
            nonlocal removed, failed
            for key in todo:
                if failed >= _DELETES_AT_ONCE:
                    return
                if await self._delete(key):
                    removed += 1
                else:
                    failed += 1

        with Watch(self._metrics, "delete") as watch:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_DELETES_AT_ONCE, len(keys))):
                    group.create_task(work())
            watch.failed = removed < len(keys)
        if watch.failed:
            log.warning("objects not removed: %d", len(keys) - removed)
        return removed

    async def list(self, prefix: str = "") -> AsyncIterator[ListedObject]:
        query = {"list_type": "2", "prefix": prefix}
        while True:
            with Watch(self._metrics, "list"):
                page = await self._page(query)
            for listed in page.objects:
                yield listed
            if page.next_token is None:
                return
            if page.next_token == query.get("continuation_token"):
                raise Answer(200, "EndlessListing").as_error("list")
            query["continuation_token"] = page.next_token

    async def check(self) -> None:
        with Watch(self._metrics, "check"):
            answer = await self._wire.ask("check", "HEAD")
            if answer.status != 200:
                raise answer.as_error("check")

    async def require_bucket(self, region: str) -> None:
        tries = Tries()
        while True:
            answer = await ask_patiently(lambda: self._wire.ask("check", "HEAD"))
            if answer.status == 404:
                answer = await self._wire.ask("create bucket", "PUT", body=_location(region))
            if answer.status == 200 or answer.code == "BucketAlreadyOwnedByYou":
                return
            # Perhaps a replica that starts with this one is making it. Stores have several codes for that, one of them
            # the same as for a stranger's bucket: whether it can be used is seen by asking.
            if answer.status != 409 or not await tries.again():
                raise answer.as_error("create bucket")

    def _body(self, pieces: AsyncIterable[bytes], size: int, sha256: bytes | None, watch: Watch) -> SentBody:
        return SentBody(
            pieces,
            size=size,
            sha256=sha256,
            watch=watch,
            stall_seconds=self._stall_seconds,
            passages=self._passages,
        )

    async def _send(self, key: str, make_body: Callable[[], SentBody], *, replay: bool) -> StoredObject:
        tries = Tries()
        while True:
            body = make_body()
            try:
                await self._wire.put(key, body)
                return body.stored()
            except StoreDown:
                may_repeat = not body.has_failed and (replay or not body.consumed)
                if not (may_repeat and await tries.again()):
                    raise

    async def _open(self, key: str, start: int, length: int | None) -> ReceivedPieces | None:
        """The bytes on their way; None if the object ends before `start`."""
        span = None if start == 0 and length is None else f"{start}-"
        if length is not None:
            span = f"{start}-{start + max(length, 1) - 1}"
        opened = await ask_patiently(lambda: self._wire.open(key, span))
        if not isinstance(opened, Answer):
            return opened
        if opened.is_absence:
            raise ObjectMissing(key)
        if opened.status == 416:
            return None
        raise opened.as_error("get")

    async def _delete(self, key: str) -> bool:
        try:
            answer = await ask_patiently(lambda: self._wire.ask("delete", "DELETE", key))
        except StoreDown:
            return False
        if answer.status < 300 or answer.is_absence:
            return True
        answer.as_error("delete")  # logs what S3 said
        return False

    async def _page(self, query: dict[str, str]) -> ListingPage:
        page = await ask_patiently(lambda: self._wire.page(**query))
        if isinstance(page, ListingPage):
            return page
        raise page.as_error("list")


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield


def _location(region: str) -> bytes | None:
    """What a bucket outside of the first region must be created with."""
    if region == "us-east-1":
        return None
    where = f"<LocationConstraint>{region}</LocationConstraint>"
    return f"<CreateBucketConfiguration>{where}</CreateBucketConfiguration>".encode()
