"""One request on one connection, sent as an ordinary, a slow or a rude client sends it, and its answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from tests.soak.ledger import Wrong

PIECE_BYTES = 32 * 1024
BUFFER_BYTES = 64 * 1024
KEPT_BYTES = 64 * 1024  # of an answer's body, to read JSON from
PATIENCE_SECONDS = 60.0
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)

Buffer = bytes | memoryview


@dataclass(frozen=True)
class Request:
    """`body`: buffers that are sent one after the other; `declared`: another length than theirs; -1: none at all."""

    method: str
    path: str
    body: tuple[Buffer, ...] = ()
    headers: tuple[str, ...] = ()
    token: str | None = None
    declared: int | None = None
    rate: float = 0.0  # bytes per second, at most; 0: as fast as it goes

    def head(self) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: soak", *self.headers]
        if self.token is not None:
            lines.append(f"Authorization: Bearer {self.token}")
        length = sum(map(len, self.body)) if self.declared is None else self.declared
        if length == -1:
            lines.append("Transfer-Encoding: chunked")
        elif self.method != "GET":
            lines.append(f"Content-Length: {length}")
        return "\r\n".join([*lines, "", ""]).encode()


def asks(method: str, path: str, fields: object = None, token: str | None = None) -> Request:
    """A request with or without JSON."""
    if fields is None:
        return Request(method, path, token=token)
    return Request(method, path, (json.dumps(fields).encode(),), ("Content-Type: application/json",), token)


@dataclass
class Answer:
    """`matches` is False when the body was not what the caller expected; None when nothing was expected."""

    status: int
    head: bytes
    body: bytes = b""
    length: int = 0
    matches: bool | None = None
    fields: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        with contextlib.suppress(ValueError):
            self.fields = json.loads(self.body)

    @property
    def label(self) -> str:
        code = self.fields.get("code") if isinstance(self.fields, dict) and self.status >= 400 else None
        return f"{self.status} {code}" if code else str(self.status)


class Wire:
    """One connection. Everything on it is bounded by `PATIENCE_SECONDS`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.sent = 0
        self.received = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, port: int) -> AsyncIterator[Wire]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=BUFFER_BYTES)
        wire = cls(reader, writer)
        try:
            yield wire
        finally:
            writer.transport.abort()

    async def send(self, buffer: Buffer, rate: float = 0.0) -> None:
        """Raises ConnectionError when the server has stopped listening; its answer may be there all the same."""
        view = memoryview(buffer)
        for start in range(0, len(view), PIECE_BYTES):
            piece = view[start : start + PIECE_BYTES]
            self.writer.write(piece)
            await self.writer.drain()
            self.sent += len(piece)
            if rate:
                await asyncio.sleep(len(piece) / rate)

    async def send_request(self, request: Request) -> None:
        await self.send(request.head())
        for buffer in request.body:
            if request.declared == -1:
                await self.send(b"%x\r\n" % len(buffer))
            await self.send(buffer, request.rate)
            if request.declared == -1:
                await self.send(b"\r\n")
        if request.declared == -1:
            await self.send(b"0\r\n\r\n")

    async def read(
        self, expected: memoryview | None = None, rate: float = 0.0, stop_after: int | None = None
    ) -> Answer:
        """The answer, its body compared on the way. Raises Wrong when there is none, or not all of it."""
        head = b"HTTP/1.1 100"
        while head.startswith(b"HTTP/1.1 1"):
            try:
                head = await self.reader.readuntil(b"\r\n\r\n")
            except (asyncio.IncompleteReadError, OSError) as error:
                raise Wrong("answer not read", f"{type(error).__name__} after {self.sent} bytes sent") from None
        found = _LENGTH.search(head)
        length = int(found[1]) if found else 0
        answer = Answer(int(head[9:12]), head, length=length)
        return await self._read_body(answer, expected if answer.status < 300 else None, rate, stop_after)

    async def _read_body(
        self, answer: Answer, expected: memoryview | None, rate: float, stop_after: int | None
    ) -> Answer:
        kept, got = bytearray(), 0
        matches = None if expected is None else answer.length == len(expected)
        while got < answer.length and (stop_after is None or got < stop_after):
            try:
                piece = await self.reader.read(min(BUFFER_BYTES, answer.length - got))
            except OSError:
                piece = b""
            if not piece:
                raise Wrong("answer cut short", f"{answer.status}: {got} of {answer.length} bytes")
            if expected is not None and expected[got : got + len(piece)] != piece:
                matches = False
            if len(kept) < KEPT_BYTES:
                kept += piece
            got += len(piece)
            self.received += len(piece)
            if rate:
                await asyncio.sleep(len(piece) / rate)
        return Answer(answer.status, answer.head, bytes(kept), answer.length, matches)


async def exchange(port: int, request: Request, expected: memoryview | None = None, read_rate: float = 0.0) -> Answer:
    """Send the request while reading the answer, as a client does that may be refused before it has sent all."""
    answer, _ = await measured_exchange(port, request, expected, read_rate)
    return answer


async def measured_exchange(
    port: int, request: Request, expected: memoryview | None = None, read_rate: float = 0.0
) -> tuple[Answer, Wire]:
    async with Wire.open(port) as wire:
        sending = asyncio.create_task(_send_quietly(wire, request))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await wire.read(expected, read_rate), wire
        except TimeoutError:
            raise Wrong("answer not read", f"{request.method} {request.path[:60]}: nothing in time") from None
        finally:
            sending.cancel()
            await asyncio.wait([sending])


async def _send_quietly(wire: Wire, request: Request) -> None:
    """A client that was answered early cannot send the rest: that is no error, the answer decides."""
    with contextlib.suppress(OSError):
        await wire.send_request(request)
