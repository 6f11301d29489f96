"""A body whose middle can be taken from the kernel, and the client that sends it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import socket
import struct
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gauzian.errors import ClientGone
from tests.stores.patience import until

KIB = 1024
MIB = 1024 * KIB
DATA = random.Random(5).randbytes(10 * MIB)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Body:
    """`size` bytes that a client sends on a real connection: they come as pieces, and past them by a tap, itself.

    `ahead`: as pieces, before anything is asked of the connection. `most`: what one `hold` allows at most.
    """

    def __init__(self, ours: socket.socket, size: int, *, ahead: list[bytes], most: int) -> None:
        self.ours = ours
        self.left = size
        self.taken = 0
        self.told: list[int] = []
        self.opened: list[socket.socket] = []
        self.held = False
        self.asked = False
        self.refuses: OSError | None = None
        self._ahead = ahead
        self.most = most

    @property
    def tap(self) -> Body:
        return self

    @property
    def waiting(self) -> int:
        size: int = struct.unpack("i", fcntl.ioctl(self.ours, termios.FIONREAD, b"\0\0\0\0"))[0]
        return size

    @property
    def is_let_go(self) -> bool:
        return self.asked and not self.held and all(one.fileno() == -1 for one in self.opened)

    # -- as pieces

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        assert not self.held, "asked for a piece while the tap is held"
        if self._ahead:
            return self._ahead.pop(0)
        if not self.left:
            raise StopAsyncIteration
        try:
            async with asyncio.timeout(8):  # a put that has lost count would wait for ever
                piece = await asyncio.get_running_loop().sock_recv(self.ours, min(self.left, 64 * KIB))
        except ConnectionResetError:
            piece = b""
        if not piece:
            raise ClientGone
        self.left -= len(piece)
        return piece

    # -- by the tap

    def hold(self) -> int:
        self.asked = True
        size = min(self.left - 1, self.most)
        self.held = not self._ahead and min(size, self.waiting) >= 64 * KIB
        return size if self.held else 0

    def read_into(self, buffer: memoryview) -> int:
        assert self.held, "read although the tap is not held"
        try:
            size = os.readv(self.ours.fileno(), [buffer[: min(self.left - 1, self.most)]])
        except OSError:
            return 0
        self.drawn(size)
        return size

    def socket(self) -> socket.socket:
        if self.refuses is not None:
            raise self.refuses
        self.opened.append(self.ours.dup())
        return self.opened[-1]

    def drawn(self, size: int) -> None:
        self.told.append(size)
        self.taken += size
        self.left -= size

    def release(self) -> None:
        self.held = False


class Client:
    """Sends, as fast as it is read from."""

    def __init__(self, theirs: socket.socket, body: Body, sending: asyncio.Task[None]) -> None:
        self.theirs = theirs
        self.body = body
        self.sending = sending

    async def reset(self) -> None:
        await self.sending
        self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        self.theirs.close()

    async def rest(self) -> bytes:
        """What nobody has read, once all has been sent and the client has hung up."""
        loop, rest = asyncio.get_running_loop(), b""
        hanging_up = asyncio.create_task(self._hang_up())
        while piece := await loop.sock_recv(self.body.ours, MIB):
            rest += piece
        await hanging_up
        return rest

    async def _hang_up(self) -> None:
        await self.sending
        self.theirs.shutdown(socket.SHUT_WR)


@asynccontextmanager
async def sending(
    data: bytes, *, size: int | None = None, ahead: list[bytes] | None = None, most: int = 1 << 40
) -> AsyncIterator[Client]:
    """A client that sends `data`, of which `size` bytes are the body, when so much waits that the tap says yes."""
    loop = asyncio.get_running_loop()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with theirs, ours:
        theirs.setblocking(False)
        ours.setblocking(False)
        body = Body(ours, len(data) if size is None else size, ahead=ahead or [], most=most)
        task = loop.create_task(loop.sock_sendall(theirs, data))
        try:
            await until(lambda: body.waiting >= min(len(data), 128 * KIB), "something waits")
            yield Client(theirs, body, task)
        finally:
            task.cancel()
            await asyncio.wait([task])
            for one in body.opened:
                one.close()
