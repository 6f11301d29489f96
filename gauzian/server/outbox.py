"""Answers on their way to a client: little is held for it, and only as long as it accepts some."""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios

from gauzian.server.limits import KIB, ServerLimits
from gauzian.server.refusals import HungUp

# An application that sends without a pause to a client that is fast enough would keep the loop for itself: after so
# many bytes everybody else gets a turn.
_BYTES_PER_TURN = 1024 * KIB


class Outbox:
    """The writing side of a transport. `pause`, `resume`: asyncio says that its buffer is full, has room again."""

    __slots__ = (
        "_accepted",
        "_accepted_at",
        "_below",
        "_descriptor",
        "_limits",
        "_loop",
        "_since_turn",
        "_transport",
        "_writable",
        "_written",
        "closed",
    )

    def __init__(self, transport: asyncio.Transport, limits: ServerLimits, *, below: asyncio.Transport) -> None:
        """`below`: the transport of the socket, where TLS runs on one; else the same."""
        self.closed = False
        self._transport = transport
        self._below = below
        sock = transport.get_extra_info("socket")
        self._descriptor = sock.fileno() if below is transport and sock is not None else None  # None: encrypted
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._writable = asyncio.Event()
        self._writable.set()
        self._written = 0
        self._since_turn = 0
        self._accepted = -1
        self._accepted_at = 0.0

    async def write(self, data: bytes) -> None:
        """Hand `data` over and wait until nothing of it waits here. HungUp once there is no client."""
        view, start = memoryview(data), 0
        while start < len(view):
            if self.closed or self._below.is_closing():  # a failed write shows there first
                raise HungUp
            taken = self._write_to_kernel(view[start:])
            if start + taken < len(view):
                # The transport keeps some, and tells us when the kernel has taken it.
                piece = view[start + taken :][: self._limits.write_bytes]
                self._transport.write(piece)
                taken += len(piece)
            start += taken
            self._written += taken
            if not self._since_turn:
                self._loop.call_soon(self._turned)
            self._since_turn += taken
            if not self._writable.is_set():
                await self._writable.wait()
            elif self._since_turn >= _BYTES_PER_TURN:
                await asyncio.sleep(0)
        if self.closed:
            raise HungUp

    def write_some(self, view: memoryview) -> int:
        """What the kernel takes of it now; the rest is not kept. 0 while something waits, and without a client."""
        if self.closed or self._below.is_closing():
            return 0
        taken = self._write_to_kernel(view) if len(view) else 0
        self._written += taken
        return taken

    def _turned(self) -> None:
        self._since_turn = 0

    def _write_to_kernel(self, view: memoryview) -> int:
        """What it takes at once: a transport is handed little at a time, because it copies what it has to keep."""
        if self._descriptor is None or self._transport.get_write_buffer_size():
            return 0
        try:
            return os.write(self._descriptor, view)
        except OSError:  # full, or gone: the transport meets the same
            return 0

    def write_now(self, data: bytes) -> None:
        """For the few bytes that the HTTP itself has to say: no waiting."""
        if not self.closed:
            self._written += len(data)
            self._transport.write(data)

    def pause(self) -> None:
        if not self.closed:
            self._writable.clear()

    def resume(self) -> None:
        self._writable.set()

    def shut(self) -> None:
        """Nothing more will be written; who waits in `write` gets HungUp."""
        self.closed = True
        self._writable.set()

    def is_stuck(self, now: float) -> bool:
        """Has the client accepted nothing for `write_idle_seconds`, although there is something to accept?

        "Accepted" means by its system: the kernel's send buffer is large, and counting what leaves ours would cut slow
        readers.
        """
        if self._writable.is_set() and not self.closed:
            return False
        waiting = self._transport.get_write_buffer_size()
        accepted = self._written - waiting - _unacknowledged(self._transport)
        if accepted != self._accepted or not waiting:
            self._accepted, self._accepted_at = accepted, now
        return now - self._accepted_at >= self._limits.write_idle_seconds


def _unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes in the kernel's send buffer that the other side has not acknowledged."""
    sock = transport.get_extra_info("socket")
    try:
        return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
    except (OSError, AttributeError):  # closed; another system
        return 0
