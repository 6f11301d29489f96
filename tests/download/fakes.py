"""What brings trouble to a download: a store in memory, and clients that are slow, silent or gone."""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from xxhash import xxh3_128

from gauzian.database.downloads import ChunkRow
from gauzian.download.readahead import Wanted
from gauzian.errors import Message, StoreDown
from gauzian.stores.base import ListedObject, ObjectMissing, StoredObject

STARTED = datetime(2026, 3, 2, 9, 14, 7, 512000, tzinfo=UTC)


class TroubledStore:
    """Objects in memory, given in pieces of `piece` bytes; `trouble` by key: missing, refused, short, long, flipped,
    fails, stalls, stalls_opening, stalls_closing, fails_closing. Counts who is open, notes who keeps what was given,
    and takes an unpredictable number of turns of the loop for everything (`seed`)."""

    def __init__(self, *, piece: int = 4, seed: int = 0) -> None:
        self.objects: dict[str, bytes] = {}
        self.trouble: dict[str, str] = {}
        self.piece = piece
        self.opened: list[str] = []
        self.open_now: set[str] = set()
        self.most_open = 0
        self.kept: list[bytes] = []  # pieces that somebody still had when the next one was read
        self.stalling = asyncio.Event()
        self._random = random.Random(seed)

    @asynccontextmanager
    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        self.opened.append(key)
        self.open_now.add(key)
        self.most_open = max(self.most_open, len(self.open_now))
        owner = asyncio.current_task()
        try:
            await self._take_time()
            trouble = self.trouble.get(key)
            if trouble == "stalls_opening":
                await self._stall()
            if trouble == "missing" or key not in self.objects:
                raise ObjectMissing(key)
            if trouble == "refused":
                raise StoreDown
            content = self.objects[key][start : None if length is None else start + length]
            yield self._pieces(content, trouble)
        finally:
            assert asyncio.current_task() is owner, "left in another task than entered"
            await self._take_time()
            self.open_now.discard(key)
            if self.trouble.get(key) == "stalls_closing":
                await self._stall()
            if self.trouble.get(key) == "fails_closing":
                raise OSError("cannot close")

    async def _pieces(self, content: bytes, trouble: str | None) -> AsyncIterator[bytes]:
        if trouble == "short":
            content = content[:-1]
        elif trouble == "long":
            content += b"!"
        elif trouble == "flipped":
            content = content[:-1] + bytes([content[-1] ^ 1])
        for number, begin in enumerate(range(0, len(content), self.piece)):
            await self._take_time()
            if number > 1 and trouble == "fails":
                raise StoreDown
            if number and trouble == "stalls":
                await self._stall()
            piece = content[begin : begin + self.piece]
            yield piece
            # The first one waits for the second, and the last one for the end.
            if number and begin + self.piece < len(content) and sys.getrefcount(piece) > 2:
                self.kept.append(piece)

    async def _stall(self) -> None:
        self.stalling.set()
        await asyncio.Event().wait()

    async def _take_time(self) -> None:
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)

    async def put(
        self, key: str, pieces: AsyncIterable[bytes], *, size: int | None, sha256: bytes | None = None
    ) -> StoredObject:
        content = b"".join([piece async for piece in pieces])
        self.objects[key] = content
        return StoredObject(len(content), hashlib.sha256(content).digest(), xxh3_128(content).digest())

    async def delete_quietly(self, keys: Sequence[str]) -> int:
        for key in keys:
            self.objects.pop(key, None)
        return len(keys)

    async def list(self, prefix: str = "") -> AsyncIterator[ListedObject]:
        for key, content in self.objects.items():
            if key.startswith(prefix):
                yield ListedObject(key, len(content), STARTED)

    async def check(self) -> None: ...


def store_chunk(store: TroubledStore, index: int, content: bytes) -> ChunkRow:
    """Put an object into the store; returns the row that goes with it."""
    row = ChunkRow(
        chunk_id=uuid.uuid4(),
        index=index,
        object_key=f"file.{index}",
        size=len(content),
        sha256=hashlib.sha256(content).digest(),
        xxh3=xxh3_128(content).digest(),
        iv="aXYtaXYtaXYtaXY=",
        created_at=STARTED,
    )
    store.objects[row.object_key] = content
    return row


class PassingStore(TroubledStore):
    """Its pieces are Passing; `passed` counts what went that way, in amounts that the seed decides."""

    def __init__(self, *, piece: int = 4, seed: int = 0) -> None:
        super().__init__(piece=piece, seed=seed)
        self.passed = 0

    def _pieces(self, content: bytes, trouble: str | None) -> AsyncIterator[bytes]:
        return _PassingPieces(self, content, trouble)


class _PassingPieces:
    def __init__(self, store: PassingStore, content: bytes, trouble: str | None) -> None:
        self._store = store
        self._plain = content
        self._trouble = trouble
        if trouble == "short":
            self._plain = content[:-1]
        elif trouble == "long":
            self._plain += b"!"
        elif trouble == "flipped":
            self._plain = content[:-1] + bytes([content[-1] ^ 1])
        self._at = self._number = 0

    def __aiter__(self) -> _PassingPieces:
        return self

    async def __anext__(self) -> bytes:
        await self._store._take_time()
        if self._number > 1 and self._trouble == "fails":
            raise StoreDown
        if self._number and self._trouble == "stalls":
            await self._store._stall()
        self._number += 1
        piece = self._plain[self._at : self._at + self._store.piece]
        self._at += len(piece)
        if not piece:
            raise StopAsyncIteration
        return piece

    async def pass_on(self, sink: Callable[[memoryview], int], most: int) -> list[bytes] | None:
        assert most > 0
        left = most = min(most, len(self._plain) - 1 - self._at)
        if left <= 0 or self._store._random.random() < 0.2:
            return None
        if self._trouble == "stalls":
            await self._store._stall()
        while left > 0:
            await self._store._take_time()
            view = memoryview(self._plain)[self._at :][: self._store._random.randint(1, left)]
            self._at += len(view)
            left -= len(view)
            taken = sink(view)
            self._store.passed += len(view)
            if rest := bytes(view[taken:]):
                return [rest[:2], rest[2:]] if rest[2:] else [rest]
        return []


class ListedPages:
    """Pages of a list, `size` at a time; after the last one `error`, if there is one."""

    def __init__(self, wanted: Sequence[Wanted], *, size: int = 2, error: Exception | None = None) -> None:
        self._rest = list(wanted)
        self._size = size
        self._error = error

    async def next_page(self) -> list[Wanted]:
        await asyncio.sleep(0)
        page, self._rest = self._rest[: self._size], self._rest[self._size :]
        if not page and self._error is not None:
            raise self._error
        return page


class Client:
    """The far end of one answer. `stalls_after` pieces it takes no more (a `send` then waits for ever);
    `leaves_after` pieces it is gone: `send` raises OSError, or swallows everything if `swallowed`."""

    def __init__(
        self, *, stalls_after: int | None = None, leaves_after: int | None = None, swallowed: bool = False
    ) -> None:
        self.sent: list[Message] = []
        self.stalled = asyncio.Event()
        self.gone = asyncio.Event()
        self.done = asyncio.Event()
        self._pieces = 0
        self._stalls_after = stalls_after
        self._leaves_after = leaves_after
        self._swallowed = swallowed
        self._asked = False

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def status(self) -> int | None:
        return next((int(message["status"]) for message in self.sent if "status" in message), None)

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        waits = [asyncio.ensure_future(event.wait()) for event in (self.gone, self.done)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if self.gone.is_set():
            if self._swallowed:
                return
            raise ConnectionResetError("the client is gone")
        if message.get("more_body"):
            if self._pieces == self._stalls_after:
                self.stalled.set()
                await asyncio.Event().wait()
            self._pieces += 1
            if self._pieces == self._leaves_after:
                self.gone.set()
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.done.set()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until the condition is true, for a few seconds at most."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)
