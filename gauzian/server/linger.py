"""Answered before the body was read: swallow the rest into one shared buffer, a fair share per turn of the loop.

A server that closes a socket with unread bytes in it makes the kernel send a reset, and a reset destroys the answer on
its way: the client that was still sending its body sees "connection reset" instead of "busy, retry in 2 s". So after an
early answer we say "that was all" (half-close), and go on reading without looking, until the client closes too.
Everything above the transport is freed at once: what lingers is a socket, a transport and an object of eight slots. The
bytes of all of them go into the same buffer.

Reading for nothing must not cost those who are served. In one turn of the loop about `linger_turn_bytes` are
swallowed; whoever comes after that stands in a line, its bytes waiting in the kernel and at the client, and a few are
let go on per turn.

Four things end it: the client closes; it was silent for `linger_idle_seconds`; `linger_seconds` are over;
`linger_bytes` were swallowed. On TLS there is no half-close: there it also ends when the declared rest has come.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable

from gauzian.server.limits import KIB, ServerLimits

SCRATCH_BYTES = 256 * KIB


class Lingerers:
    """All lingering connections of one server, their line and their common buffer."""

    def __init__(self, limits: ServerLimits) -> None:
        self.limits = limits
        self.scratch = memoryview(bytearray(SCRATCH_BYTES))
        self.all: set[Linger] = set()
        self.swallowed = 0  # bytes, ever
        self._loop = asyncio.get_running_loop()
        self._spent = 0
        self._line: deque[Linger] = deque()
        self._turn_is_due = False

    def take(self, transport: asyncio.Transport, *, rest: int | None, lost: Callable[[], None]) -> None:
        """Go on with `transport`. `rest`: bytes still to come, None if unknown; `lost` is called at its end."""
        one = Linger(self, transport, rest, lost)
        self.all.add(one)
        with contextlib.suppress(OSError, NotImplementedError):  # gone; TLS
            transport.write_eof()
        transport.set_protocol(one)
        if not self._one_by_one(one):
            one.go_on()

    def look(self, now: float) -> None:
        for one in list(self.all):
            one.look(now)

    def abort_all(self) -> None:
        for one in list(self.all):
            one.transport.abort()

    def count(self, one: Linger, size: int) -> None:
        self.swallowed += size
        self._spent += size
        if not self._one_by_one(one):
            self._see_to_next_turn()

    def _one_by_one(self, one: Linger) -> bool:
        """Once there is a line everybody goes to its end after each read: nobody swallows twice before all have."""
        if not self._line and self._spent < self.limits.linger_turn_bytes:
            return False
        one.transport.pause_reading()
        one.in_line = True
        self._line.append(one)
        self._see_to_next_turn()
        return True

    def _see_to_next_turn(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_is_due = False
        self._spent = 0
        for _ in range(max(1, self.limits.linger_turn_bytes // SCRATCH_BYTES)):
            if not self._line:
                return
            one = self._line.popleft()
            one.in_line = False
            one.go_on()
        if self._line:
            self._see_to_next_turn()


def unwind(transport: asyncio.Transport) -> None:
    """asyncio's transport knows one of its own methods: a circle, and a thousand refused clients are a thousand of them
    that wait for the garbage collector."""
    if hasattr(transport, "_read_ready_cb"):
        transport._read_ready_cb = None


class Linger(asyncio.BufferedProtocol):
    """One of them."""

    __slots__ = ("_all", "_ends_at", "_lost", "_rest", "_silent_since", "_swallowed", "in_line", "transport")

    def __init__(
        self, lingerers: Lingerers, transport: asyncio.Transport, rest: int | None, lost: Callable[[], None]
    ) -> None:
        self.transport = transport
        self.in_line = False
        self._all = lingerers
        self._lost = lost
        self._rest = None if transport.can_write_eof() else rest
        self._swallowed = 0
        self._silent_since = asyncio.get_running_loop().time()
        self._ends_at = self._silent_since + lingerers.limits.linger_seconds

    def go_on(self) -> None:
        if not self.transport.is_closing():
            # Standing in our line was not the client's silence.
            self._silent_since = asyncio.get_running_loop().time()
            self.transport.resume_reading()

    def look(self, now: float) -> None:
        # While our answer still goes out the client is reading, not silent.
        waiting = not self.in_line and self.transport.get_write_buffer_size() == 0
        silent = waiting and now - self._silent_since >= self._all.limits.linger_idle_seconds
        if silent or now >= self._ends_at:
            self.transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._all.scratch

    def buffer_updated(self, nbytes: int) -> None:
        self._swallowed += nbytes
        self._silent_since = asyncio.get_running_loop().time()
        if self._rest is not None and self._swallowed >= self._rest:
            self.transport.close()
        elif self._swallowed >= self._all.limits.linger_bytes:
            self.transport.abort()
        self._all.count(self, nbytes)

    def eof_received(self) -> None:
        """The client is done: the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        unwind(self.transport)
        self._all.all.discard(self)
        self._lost()

    def pause_writing(self) -> None:
        """The answer was handed over whole; it goes out as it can."""

    def resume_writing(self) -> None:
        pass
