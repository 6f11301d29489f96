"""A client that does exactly what a test says, on a raw connection."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import h11

PATIENCE = 10.0


async def until(is_so: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Look until it is so."""
    ends_at = asyncio.get_running_loop().time() + seconds
    while not is_so():
        assert asyncio.get_running_loop().time() < ends_at, "it never became so"
        await asyncio.sleep(0.002)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool = True


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._http = h11.Connection(h11.CLIENT)

    @classmethod
    async def connect(
        cls,
        address: tuple[str, int],
        *,
        tls: ssl.SSLContext | None = None,
        send_buffer: int = 0,
        receive_buffer: int = 0,
    ) -> Client:
        sock = socket.socket()
        if send_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, address)
        except OSError:
            sock.close()
            raise
        name = "localhost" if tls else None
        # The stream's own read-ahead is twice its limit: small, so that a client that does not read does not read.
        reader, writer = await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=name, limit=2**14)
        return cls(reader, writer)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await asyncio.wait_for(self.writer.drain(), PATIENCE)

    async def read(self, most: int = 65536) -> bytes:
        return await asyncio.wait_for(self.reader.read(most), PATIENCE)

    async def read_or_reset(self) -> bytes:
        """As `read`; a connection that is broken off ends there, too."""
        try:
            return await self.read()
        except ConnectionResetError:
            return b""

    async def answer(self, method: str = "GET", *, interim: bool = False) -> Answer:
        """The next answer, or 100 if `interim`; not `complete` if the connection ended before it did."""
        http = self._http
        if http.our_state is http.their_state is h11.DONE:
            http.start_next_cycle()
        if http.our_state is h11.IDLE:  # h11 wants to know what was asked
            http.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
            http.send(h11.EndOfMessage())
        answer = Answer(0, {}, b"", complete=False)
        while not answer.complete:
            event = http.next_event()
            if event is h11.NEED_DATA:
                try:
                    data = await self.read()
                    http.receive_data(data)
                    if not data and answer.status == 0:
                        raise EOFError("no answer")
                except ConnectionError:
                    if answer.status == 0:
                        raise
                    return answer
            elif isinstance(event, h11.InformationalResponse):
                if interim:
                    return Answer(event.status_code, {}, b"")
            elif isinstance(event, h11.Response):
                answer.status = event.status_code
                answer.headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                answer.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                answer.complete = True
        return answer

    async def ended(self) -> bool:
        """True at the end of the stream, after throwing away what still came; a reset counts as an end."""
        try:
            while await self.read():
                pass
        except ConnectionError:
            pass
        return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(self.writer.wait_closed(), 2)
        self.vanish()

    def vanish(self) -> None:
        with contextlib.suppress(AttributeError):  # asyncio's, for a transport that is already gone
            self.writer.transport.abort()


def head(method: str, path: str, *headers: str, version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: x", *headers, "", ""]).encode()


def post(path: str, body: bytes, *headers: str) -> bytes:
    return head("POST", path, f"Content-Length: {len(body)}", *headers) + body


def chunked(body: bytes, size: int = 8000) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
