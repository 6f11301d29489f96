"""The body of a PUT to S3: pieces, hashed as they go by, and cut off rather than completed when anything is wrong.

S3 makes an object once as many bytes have come as Content-Length said: the last piece is the commit. It is held back
until `pieces` has ended, the count is right and the digest is right. Whatever goes wrong before that, the connection is
aborted and no object appears: there is nothing to take back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable

from aiohttp import Payload
from aiohttp.abc import AbstractStreamWriter

from gauzian.errors import DigestMismatch
from gauzian.stores.base import StoredObject
from gauzian.stores.s3_passage import Passage, Passages
from gauzian.stores.tally import Tally
from gauzian.stores.watching import Watch
from gauzian.tap import Tap


class SentBody(Payload):
    """For one request. aiohttp runs it in a task of its own and wraps what goes wrong there: `take_error` afterwards.

    `stall_seconds`: how long the store may leave bytes untaken (aiohttp bounds only its reads).
    """

    _autoclose = True  # there is nothing to close, and aiohttp need not warn

    def __init__(
        self,
        pieces: AsyncIterable[bytes],
        *,
        size: int,
        sha256: bytes | None,
        watch: Watch,
        stall_seconds: float,
        passages: Passages,
    ) -> None:
        super().__init__(None)
        self._size = self._length = size
        self._source = aiter(pieces)
        self._watch = watch
        self._stall_seconds = stall_seconds
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._untaken_since: float | None = None
        self._ended: asyncio.Event | None = None
        self._tally = Tally(size=size, sha256=sha256)
        tap: Tap | None = getattr(pieces, "tap", None)
        self._passage = None if tap is None else Passage(tap, self._tally, passages)
        self.has_failed = False
        """`pieces` raised, or something was wrong with what it gave."""
        self._error: BaseException | None = None
        self.committed = False
        """The last byte was handed over: from here on the object may be there."""
        self._called_off = False

    def stored(self) -> StoredObject:
        """Once the store has taken it."""
        return self._tally.finish()

    def take_error(self) -> BaseException | None:
        """What `pieces` raised, or what was wrong. Once: it knows the frames it came through, and they know us."""
        error, self._error = self._error, None
        return error

    def _failed(self, error: BaseException) -> None:
        self.has_failed = True
        self._error = error

    def call_off(self) -> bool:
        """No commit from here on, also if a cancellation reaches the sender a turn later. False: it is too late."""
        self._called_off = not self.committed
        return self._called_off

    async def settled(self) -> None:
        """Return when nobody uses `pieces` any more."""
        if self._ended is not None:
            await self._ended.wait()

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("a stream has no text")

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self._transport = writer.transport
        if self._transport is None or self._transport.is_closing():
            # The store closed it while it was idle. Nothing was consumed: aiohttp takes another connection.
            raise ConnectionResetError
        self._consumed = True
        self._ended = asyncio.Event()
        self._timer = self._loop.call_later(self._stall_seconds, self._look)
        if self._passage is not None:
            self._passage.begin()
        try:
            await self._send(writer)
        except BaseException:
            # close() would go on sending what is buffered, for as long as the store takes: it must see a cut, now.
            self._transport.abort()
            if not self.has_failed:
                raise
        finally:
            self._timer.cancel()
            self._ended.set()
            if self._passage is not None:
                self._passage.end()
            del self._source, self._passage  # aiohttp keeps its request, and so us, until garbage is collected
        if self.has_failed:
            # Not the error itself: aiohttp would keep it, and with it the frames above and the last piece in them.
            raise ConnectionAbortedError

    async def _send(self, writer: AbstractStreamWriter) -> None:
        last: list[bytes] = []
        while await self._pass_on(writer, last):
            pass
        self._check()
        if self._called_off:
            raise ConnectionAbortedError
        self.committed = True
        for piece in last:
            await self._hand_over(writer, piece)

    async def _pass_on(self, writer: AbstractStreamWriter, last: list[bytes]) -> bool:
        """One piece; the last one is only kept. A function of its own, because one that loops would hold each piece
        while it waits for the next."""
        piece = await self._next()
        if piece is None:
            return False
        self._count(piece)
        if self._tally.size == self._length:
            last.append(piece)
        else:
            await self._hand_over(writer, piece)
            del piece
            await self._pass_by(writer)
        return True

    async def _pass_by(self, writer: AbstractStreamWriter) -> None:
        """What waits in the kernel behind the last piece, as far as it goes without being one."""
        while self._passage is not None and self._transport is not None:
            rest = self._passage.move(self._transport)
            if rest is None:
                return
            if rest:
                await self._hand_over(writer, rest)
            del rest
            await asyncio.sleep(0)

    async def _next(self) -> bytes | None:
        try:
            return await self._watch.next(self._source)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._failed(error)
            raise

    def _count(self, piece: bytes) -> None:
        try:
            self._tally.add(piece)
        except ValueError as error:
            self._failed(error)
            raise

    def _check(self) -> None:
        try:
            self._tally.finish()
        except (ValueError, DigestMismatch) as error:
            self._failed(error)
            raise

    async def _hand_over(self, writer: AbstractStreamWriter, piece: bytes) -> None:
        self._untaken_since = self._loop.time()
        await writer.write(piece)
        self._untaken_since = None

    def _look(self) -> None:
        """One timer per body, not per piece: abort if the store took nothing for so long, else look again in time."""
        now = self._loop.time()
        left = self._stall_seconds - (now - (self._untaken_since or now))
        if left <= 0 and self._transport is not None:
            self._transport.abort()
        else:
            self._timer = self._loop.call_later(left, self._look)
