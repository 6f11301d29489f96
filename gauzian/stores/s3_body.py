"""The body of a PUT to S3: pieces, hashed as they go by, and cut off rather than completed when anything is wrong.

S3 makes an object once as many bytes have come as Content-Length said: the last piece is the commit. It is held back
until `pieces` has ended, the count is right and the digest is right. Whatever goes wrong before that, the connection is
aborted and no object appears: there is nothing to take back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from hashlib import sha256 as new_sha256

from aiohttp import Payload
from aiohttp.abc import AbstractStreamWriter
from xxhash import xxh3_128

from gauzian.errors import DigestMismatch
from gauzian.stores.base import StoredObject
from gauzian.stores.watching import Watch


class SentBody(Payload):
    """For one request. aiohttp runs it in a task of its own and wraps what goes wrong there: ask `error` afterwards.

    `stall_seconds`: how long the store may leave bytes untaken (aiohttp bounds only its reads).
    """

    _autoclose = True  # there is nothing to close, and aiohttp need not warn

    def __init__(
        self, pieces: AsyncIterable[bytes], *, size: int, sha256: bytes | None, watch: Watch, stall_seconds: float
    ) -> None:
        super().__init__(None)
        self._size = self._length = size
        self._source = aiter(pieces)
        self._expected_sha256 = sha256
        self._watch = watch
        self._stall_seconds = stall_seconds
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._untaken_since: float | None = None
        self._ended: asyncio.Event | None = None
        self._sha256 = new_sha256()
        self._xxh3 = xxh3_128()
        self.error: BaseException | None = None
        """What `pieces` raised, or what was wrong with what it gave."""
        self.committed = False
        """The last byte was handed over: from here on the object may be there."""

    def stored(self) -> StoredObject:
        return StoredObject(self._length, self._sha256.digest(), self._xxh3.digest())

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
        try:
            await self._send(writer)
        except BaseException:
            # close() would go on sending what is buffered, for as long as the store takes: it must see a cut, now.
            self._transport.abort()
            raise
        finally:
            self._timer.cancel()
            self._ended.set()

    async def _send(self, writer: AbstractStreamWriter) -> None:
        sent = 0
        last: bytes | None = None
        while (piece := await self._next()) is not None:
            sent += len(piece)
            if sent > self._length:
                raise self._wrong(ValueError(f"more than {self._length} bytes came"))
            self._sha256.update(piece)
            self._xxh3.update(piece)
            if sent == self._length:
                last = piece
            else:
                await self._hand_over(writer, piece)
        if sent != self._length:
            raise self._wrong(ValueError(f"{sent} bytes came instead of {self._length}"))
        if self._expected_sha256 is not None and self._sha256.digest() != self._expected_sha256:
            raise self._wrong(DigestMismatch())
        self.committed = True
        if last is not None:
            await self._hand_over(writer, last)

    async def _next(self) -> bytes | None:
        try:
            return await self._watch.next(self._source)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.error = error
            raise

    def _wrong(self, error: Exception) -> Exception:
        self.error = error
        return error

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
