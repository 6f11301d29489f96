"""From a socket to a file in one thread: a piece is received, hashed and written while one processor's cache has it.

By way of the event loop each piece is new memory, moves from one processor to the other, and is written long after it
was hashed: a sixth of the CPU of a large chunk.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from gauzian.stores.aside import Aside
from gauzian.stores.files import Batch, file_work
from gauzian.stores.tally import Tally
from gauzian.stores.threads import MIB, Strand
from gauzian.tap import Tap

# Read and written at once. Each call gives up the interpreter and takes it again: with 512 KiB that costs noticeably.
_BUFFER_BYTES = 1 * MIB
# More at a time only take the interpreter from each other.
_AT_ONCE = 3
# Then the next one gets the buffer.
_MOST_BYTES = 4 * MIB


class Siphons:
    """What all of them share: a few buffers, kept as long as anybody uses them."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(_AT_ONCE)
        self._buffers: list[memoryview] = []
        self._users = 0

    def begin(self) -> None:
        self._users += 1

    def end(self) -> None:
        self._users -= 1
        if not self._users:
            self._buffers.clear()

    @contextmanager
    def buffer(self) -> Iterator[memoryview]:
        """In a thread."""
        try:
            buffer = self._buffers.pop()
        except IndexError:
            buffer = memoryview(bytearray(_BUFFER_BYTES))
        try:
            yield buffer
        finally:
            if len(self._buffers) < _AT_ONCE:  # more: one that was cancelled has ended behind its turn
                self._buffers.append(buffer)


class Siphon:
    """Of one object on its way in: what waits at `tap` (if there is one) goes to `aside`, hashed by `tally`."""

    def __init__(self, tap: Tap | None, aside: Aside, tally: Tally, *, strand: Strand, siphons: Siphons) -> None:
        self._tap = tap
        self._aside = aside
        self._tally = tally
        self._strand = strand
        self._siphons = siphons
        self._socket: socket.socket | None = None
        self._most = 0
        self._drawn = 0

    async def run(self, batch: Batch) -> None:
        """Write what `batch` has and what waits behind it. Returns when little or nothing waits."""
        while self._tap is not None and self._tap.hold():
            async with self._siphons.turns:
                self._most = min(self._tap.hold(), _MOST_BYTES)
                if not self._most or not self._opened(self._tap):
                    return
                await batch.hand_over(lambda pieces: file_work(self._strand.run(self._draw, pieces)))
            self._tell(self._tap)

    def close(self) -> None:
        """When no thread is at it any more, in whichever it may be."""
        if self._socket is not None:
            self._socket.close()

    def abandon(self) -> None:
        """`close`, and leave nothing of the object."""
        self.close()
        self._aside.abandon()

    def end(self) -> None:
        """On the loop, however the put has ended."""
        self._most = 0  # a thread that hangs and was given up must not read on: somebody else does now
        if self._tap is not None:
            self._tell(self._tap)
            self._tap.release()
        if self._socket is not None:
            self._siphons.end()

    def _opened(self, tap: Tap) -> bool:
        if self._socket is None:
            try:
                self._socket = tap.socket()
            except OSError:  # too many open files: the long way needs none
                tap.release()
                return False
            self._siphons.begin()
        return True

    def _tell(self, tap: Tap) -> None:
        drawn, self._drawn = self._drawn, 0
        if drawn:
            tap.drawn(drawn)

    # -- in a thread

    def _draw(self, pieces: Sequence[bytes]) -> None:
        self._aside.take(pieces)
        with self._siphons.buffer() as buffer:
            while (left := self._most - self._drawn) > 0 and (size := self._receive(buffer[:left])):
                self._drawn += size
                self._tally.add(buffer[:size])
                self._aside.take((buffer[:size],))

    def _receive(self, buffer: memoryview) -> int:
        """0: nothing waits there, or the client is gone. Whoever reads next is told which."""
        assert self._socket is not None  # noqa: S101 - for the type checker: run has opened it
        try:
            return self._socket.recv_into(buffer)
        except OSError:
            return 0
