"""The door: listen, let a few in per turn, and nobody when the house is full."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from typing import Any, cast

from gauzian.server.connection import Connection
from gauzian.server.limits import KIB, ServerLimits
from gauzian.server.shared import Shared

log = logging.getLogger(__name__)

# asyncio allocates this much for each TLS connection at once; its own 256 KiB would be half a gigabyte for 2000
# connections. Two TLS records.
_TLS_READ = 32 * KIB
_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_RETRY_SECONDS = 1.0


async def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to every address of `host`, all on one port; 0 is any that is free. Not listening yet. OSError says
    which address it is that is not to be had.
    """
    bound: list[socket.socket] = []
    wanted = port
    try:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            sock = socket.socket(family, socket.SOCK_STREAM)
            bound.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address[0], port, *address[2:]))
            port = port or sock.getsockname()[1]
    except OSError as error:
        for sock in bound:
            sock.close()
        raise OSError(
            error.errno, f"cannot listen on {host or 'any address'}, port {wanted}: {error.strerror}"
        ) from error
    return bound


def raise_file_limit(connections: int) -> None:
    """Let the process open four times as many files as it takes connections: stores and databases want theirs too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * connections
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    reachable = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
    if reachable < 2 * connections:
        log.warning("only %d files may be open at once, for %d connections", reachable, connections)


class Door:
    """Accepts connections and counts them until their socket is closed, whoever holds it by then."""

    def __init__(self, shared: Shared, sockets: list[socket.socket], tls: ssl.SSLContext | None) -> None:
        self.open = 0
        self.accepted = 0
        self.pauses = 0
        self._shared = shared
        self._limits: ServerLimits = shared.limits
        self._sockets = sockets
        self._tls = tls
        self._handshakes: set[_SmallTls] = set()
        self._loop = asyncio.get_running_loop()
        self._accepting = False
        self._retry: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        for sock in self._sockets:
            sock.listen(self._limits.backlog)
        self._go_on()

    def shut(self) -> None:
        """Nobody comes in any more; who is in the kernel's queue is turned away."""
        self._pause()
        for sock in self._sockets:
            sock.close()
        self._sockets = []
        if self._retry is not None:
            self._retry.cancel()

    def abort_handshakes(self) -> None:
        for one in list(self._handshakes):
            one.abort()

    def _go_on(self) -> None:
        if not self._accepting:
            self._accepting = True
            for sock in self._sockets:
                self._loop.add_reader(sock, self._accept, sock)

    def _pause(self) -> None:
        if self._accepting:
            self._accepting = False
            for sock in self._sockets:
                self._loop.remove_reader(sock)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(self._limits.accepts_per_turn):
            if self.open >= self._limits.max_connections:
                self.pauses += 1
                return self._pause()
            try:
                sock, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return None
            except OSError as error:
                return self._out_of(error)
            self._admit(sock)
        return None

    def _out_of(self, error: OSError) -> None:
        if error.errno not in _OUT_OF_RESOURCES:
            raise error
        # The listening socket stays readable: without a pause the loop would spin on it.
        log.warning("cannot accept connections for now: %s", error.strerror)
        self.pauses += 1
        self._pause()
        self._retry = self._loop.call_later(_RETRY_SECONDS, self._go_on)

    def _admit(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.open += 1
        self.accepted += 1
        self._shared.start(self._adopt(sock))

    async def _adopt(self, sock: socket.socket) -> None:
        protocol: asyncio.Protocol | SSLProtocol
        if self._tls is None:
            protocol = Connection(self._shared, self._left)
        else:
            protocol = _SmallTls(self._shared, self._tls, self._left, self._handshakes)
        await self._loop.connect_accepted_socket(lambda: protocol, sock)

    def _left(self) -> None:
        self.open -= 1
        self._shared.one_ended()
        if not self._accepting and self._sockets and self.open < self._limits.max_connections:
            self._go_on()


class _SmallTls(SSLProtocol):
    """asyncio's TLS with a buffer of our size, known to us from its handshake to the end of the socket."""

    max_size = _TLS_READ

    def __init__(
        self, shared: Shared, context: ssl.SSLContext, left: Callable[[], None], known: set[_SmallTls]
    ) -> None:
        self._connection = Connection(shared, _nothing)
        super().__init__(
            asyncio.get_running_loop(),
            self._connection,
            context,
            cast(Any, None),  # nobody waits for the handshake; typeshed does not know that this may be
            server_side=True,
            ssl_handshake_timeout=cast(Any, shared.limits.header_seconds),  # may be a fraction, too
            ssl_shutdown_timeout=shared.limits.write_idle_seconds,
        )
        self._left = left
        self._known = known

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._connection.below = cast(asyncio.Transport, transport)
        self._known.add(self)
        super().connection_made(transport)

    def eof_received(self) -> None:
        """The client is gone, perhaps without a goodbye. asyncio, if reading is paused, would go on and throw away what
        is written, without a word to the writer."""
        self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._known.discard(self)
        del self._connection  # they know each other: freed now, not when garbage is collected
        self._left()

    def abort(self) -> None:
        if self._connection.below is not None:
            self._connection.below.abort()


def _nothing() -> None:
    """The socket's end is told by its TLS."""
