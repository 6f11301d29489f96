"""The middle of a body, left in the kernel for who reads it from there (gauzian/tap.py says to whom and how)."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios

from gauzian.errors import Scope
from gauzian.server.framing import Http1
from gauzian.server.intake import Intake
from gauzian.server.limits import KIB
from gauzian.server.mailbox import Mailbox
from gauzian.tap import EXTENSION

# With less than this a hop to a thread costs more than the way by the event loop.
LEAST_BYTES = 64 * KIB


class BodyTap:
    """Of one request whose body has a known length and comes without TLS.

    No byte is read twice or out of turn: `hold` says yes only when nothing lies between the kernel and the application,
    and the transport reads nothing until the tap has let go.
    """

    __slots__ = ("_held", "_http", "_intake", "_mailbox", "_socket", "is_used", "taken")

    def __init__(self, sock: socket.socket, http: Http1, intake: Intake, mailbox: Mailbox) -> None:
        self.is_used = False
        """Somebody has asked."""
        self.taken = 0
        self._socket: socket.socket | None = sock
        self._http: Http1 | None = http
        self._intake: Intake | None = intake
        self._mailbox: Mailbox | None = mailbox
        self._held = False

    def hold(self) -> int:
        self.is_used = True
        size = self._available()
        if not size:
            self.release()
        elif self._intake is not None and not self._held:
            self._held = True
            self._intake.hold_off()
        return size

    def socket(self) -> socket.socket:
        if self._socket is None:
            raise ConnectionResetError
        return self._socket.dup()

    def read_into(self, buffer: memoryview) -> int:
        if not self._held or self._socket is None or self._http is None:
            return 0
        try:
            size = os.readv(self._socket.fileno(), (buffer[: self._http.middle()],))
        except OSError:
            return 0
        self.drawn(size)
        return size

    def drawn(self, size: int) -> None:
        self.taken += size
        if self._http is not None:
            self._http.count_past(size)

    def release(self) -> None:
        if self._held and self._intake is not None:
            self._held = False
            self._intake.go_on()

    def close(self) -> None:
        """The connection has ended, or somebody else reads from it. It knows us by its requests: no circle."""
        self._socket = self._http = self._intake = self._mailbox = None

    def _available(self) -> int:
        if self._socket is None or self._http is None or self._intake is None or self._mailbox is None:
            return 0
        size = self._http.middle()
        if size < LEAST_BYTES or not (self._mailbox.has_room and self._mailbox.is_empty and self._intake.is_idle):
            return 0
        return size if _waiting(self._socket) >= LEAST_BYTES else 0


def offer_tap(
    scope: Scope, transport: asyncio.Transport, http: Http1, intake: Intake, mailbox: Mailbox
) -> BodyTap | None:
    """Into the scope of a request that has just begun, if its body can come to need one."""
    if (http.rest() or 0) < LEAST_BYTES:
        return None
    tap = scope["extensions"][EXTENSION] = BodyTap(transport.get_extra_info("socket"), http, intake, mailbox)
    return tap


def _waiting(sock: socket.socket) -> int:
    size: int = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, b"\0\0\0\0"))[0]
    return size
