"""The body of an answer from S3: read when somebody wants it, in pieces as large as the budget allows.

aiohttp asks the question and reads the head. Then the connection is taken from it and read as directly as can be: its
parser would copy each piece, hold it twice, and want a turn of the event loop for it. What can be passed on at once
never becomes a piece: it is read into one buffer that all share. After the last byte the connection goes back to
aiohttp's pool.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, SupportsIndex

import aiohttp
from aiohttp.connector import Connection

from gauzian.bytebudget import ByteBudget, Held
from gauzian.stores.base import MOST_PIECE_BYTES, TURN_BYTES
from gauzian.stores.s3_answers import FOREIGN, unanswered
from gauzian.stores.sharedbuffer import SharedBuffer
from gauzian.stores.threads import KIB

_FIRST_READ_BYTES = 8 * KIB


class SmallFirstReads(aiohttp.TCPConnector):
    """An answer that nobody reads yet takes up little: asyncio would read 256 KiB of each object opened ahead."""

    async def connect(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> Connection:
        connection = await super().connect(req, traces, timeout)
        if connection.transport is not None:
            _read_at_most(connection.transport, _FIRST_READ_BYTES)
        return connection


def _read_at_most(transport: asyncio.Transport, size: SupportsIndex) -> None:
    transport.max_size = size  # type: ignore[attr-defined]  # the selector transport's; elsewhere unused


class ReceivedPieces(Protocol):
    """One piece per `__anext__`; what is not asked for waits in the store."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def __anext__(self) -> bytes: ...

    def close(self) -> None:
        """Frees everything at once: a connection with bytes still to come is closed, not read to its end."""
        ...


def received(
    response: aiohttp.ClientResponse, budget: ByteBudget, buffer: SharedBuffer, *, read_seconds: float
) -> ReceivedPieces:
    """The body of `response`, to be closed. `read_seconds`: the longest silence of the store. Iterating raises
    StoreDown.
    """
    if response.content_length is None or "Transfer-Encoding" in response.headers:
        return _Streamed(response, budget)
    return _Direct(response, response.content_length, budget, buffer, read_seconds=read_seconds)


class _Direct(asyncio.BufferedProtocol):
    """A body of known length, on a connection that is ours until it has come."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        length: int,
        budget: ByteBudget,
        buffer: SharedBuffer,
        *,
        read_seconds: float,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._response = response
        self._left = length
        self._since_turn = 0
        self._held = Held(budget)
        self._buffer = buffer
        self._sink: Callable[[memoryview], int] | None = None  # while bytes are passed on
        self._most = 0
        self._rest: list[bytes] = []
        self._read_seconds = read_seconds
        self._waiter: asyncio.Future[None] | None = None
        self._waiting_since: float | None = None
        self._lost: Exception | None = None
        # What came together with the head.
        self._come = list(iter(response.content.read_nowait, b""))
        self._transport: asyncio.Transport | None = None
        self._descriptor: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        connection = response.connection
        if connection is not None and connection.protocol is not None and connection.transport is not None:
            self._take(connection.transport, connection.protocol)

    def _take(self, transport: asyncio.Transport, owner: Any) -> None:
        owner.pause_reading()  # and its time limit
        self._owner = owner
        self._transport = transport
        transport.set_protocol(self)
        if transport.get_extra_info("ssl_object") is None:
            self._descriptor = transport.get_extra_info("socket").fileno()
        self._timer = self._loop.call_later(self._read_seconds, self._look)

    def _give_back(self) -> None:
        """To aiohttp, as if it had read the body itself."""
        transport, self._transport = self._transport, None
        if self._timer is not None:
            self._timer.cancel()
        if transport is not None:
            transport.set_protocol(self._owner)
            del self._owner

    def close(self) -> None:
        self._held.drop()
        self._give_back()
        self._come.clear()
        self._response.close()

    def __aiter__(self) -> _Direct:
        return self

    async def __anext__(self) -> bytes:
        self._held.drop()
        if not self._left:
            raise StopAsyncIteration
        if self._since_turn >= TURN_BYTES:
            self._since_turn = 0
            await asyncio.sleep(0)
        piece = self._come.pop(0) if self._come else self._read_now() or await self._wait()
        self._left -= len(piece)
        if self._left < 0:
            raise unanswered("get", ValueError("more than Content-Length"))
        if not self._left and self._transport is not None:
            self._give_back()
            self._response.content.feed_eof()  # aiohttp takes it for the end that it would have seen itself
        self._since_turn += len(piece)
        self._held.hold(len(piece))
        return piece

    async def pass_on(self, sink: Callable[[memoryview], int], most: int) -> list[bytes] | None:
        """See Passing. The last byte is always a piece's. While the store is quick this needs no turn of a task: the
        event loop reads, and `sink` is told."""
        self._held.drop()
        self._most = min(most, self._left - 1)
        if self._transport is None or self._come or self._most <= 0:
            return None
        self._sink = sink
        self._buffer.users += 1
        try:
            await self._more(self._transport)
        finally:
            self._buffer.users -= 1
            self._sink = None
        if self._lost is not None:
            raise unanswered("get", self._lost)
        rest, self._rest = self._rest, []
        return rest

    def _read_now(self) -> bytes | None:
        """What waits in the kernel, without a turn of the event loop; None if it is nothing, or encrypted."""
        if self._transport is None or self._transport.is_closing() or self._descriptor is None:
            return None
        try:
            # One more than there should be, to see if there is: it would become the next answer.
            piece = os.read(self._descriptor, min(self._left + 1, self._held.budget.share))
        except BlockingIOError:
            return None
        except OSError as error:
            raise unanswered("get", error) from error
        if not piece:
            raise unanswered("get", EOFError())
        return piece

    async def _wait(self) -> bytes:
        if self._transport is not None and self._lost is None and not self._come:
            await self._more(self._transport)
        if not self._come:
            raise unanswered("get", self._lost or EOFError())
        return self._come.pop(0)

    async def _more(self, transport: asyncio.Transport) -> None:
        """Until something has come, or nothing will."""
        if self._lost is not None:
            return
        self._waiter = self._loop.create_future()
        self._waiting_since = self._loop.time()
        transport.resume_reading()
        try:
            await self._waiter
        finally:
            self._waiter = self._waiting_since = None
        self._since_turn = 0

    # -- told by asyncio

    def get_buffer(self, sizehint: int) -> memoryview:
        budget = self._held.budget
        if self._sink is None:
            return self._buffer.bytes[: min(self._left + 1, budget.share)]
        # Nearly always nothing of it is kept: it may be all that is left of the budget.
        return self._buffer.share(min(self._most, max(budget.share, budget.total - budget.held)))

    def buffer_updated(self, nbytes: int) -> None:
        view = self._buffer.bytes[:nbytes]
        if self._sink is None:
            self._come.append(bytes(view))
        elif self._passed(self._sink, view):
            self._waiting_since = self._loop.time()
            return
        if self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def _passed(self, sink: Callable[[memoryview], int], view: memoryview) -> bool:
        """Whether it was all taken and more is wanted."""
        self._left -= len(view)
        self._most -= len(view)
        left = view[sink(view) :]
        self._held.hold(len(left))
        self._rest = [bytes(left[at : at + MOST_PIECE_BYTES]) for at in range(0, len(left), MOST_PIECE_BYTES)]
        return not left and self._most > 0

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = exc or ConnectionResetError()
        if self._transport is not None:
            self._owner.connection_lost(exc)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _look(self) -> None:
        """One timer per body, not per piece: has the store been silent for too long, else look again in time."""
        now = self._loop.time()
        left = self._read_seconds - (now - (self._waiting_since or now))
        if left <= 0:
            self._lost = TimeoutError()
            self._wake()
        else:
            self._timer = self._loop.call_later(left, self._look)


class _Streamed:
    """A body of unknown length, which only a proxy in front of a store would send: aiohttp knows when it ends."""

    def __init__(self, response: aiohttp.ClientResponse, budget: ByteBudget) -> None:
        self._response = response
        self._held = Held(budget)

    def close(self) -> None:
        self._held.drop()
        self._response.close()

    def __aiter__(self) -> _Streamed:
        return self

    async def __anext__(self) -> bytes:
        self._held.drop()
        try:
            # As it lies there: read(n) would raise what aiohttp may hold to twice n, for good.
            piece = await self._response.content.readany()
        except (*FOREIGN, RuntimeError) as error:  # RuntimeError: what aiohttp calls a connection that has just gone
            raise unanswered("get", error) from error
        if not piece:
            raise StopAsyncIteration
        self._held.hold(len(piece))
        return piece
