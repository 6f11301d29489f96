"""Stores that make trouble: a server that answers as it is told, and a proxy that spoils the talk with a real one."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def answer(status: int, body: bytes = b"", *, length: int | None = None, headers: str = "") -> bytes:
    """An answer as bytes; `length` is what it claims, if that is not the truth."""
    declared = len(body) if length is None else length
    return f"HTTP/1.1 {status} Whatever\r\nContent-Length: {declared}\r\n{headers}\r\n".encode() + body


def s3_error(status: int, code: str) -> bytes:
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>secret words of the store</Message></Error>'
    return answer(status, text.encode())


@dataclass
class Call:
    """One request: its head has come, its body has not been read."""

    method: str
    path: str
    head: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def body(self) -> bytes:
        length = next(
            int(line[15:]) for line in self.head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        return await self.reader.readexactly(length)

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()


Behaviour = Callable[[Call], Awaitable[None]]


@dataclass
class FaultyS3:
    """Each method does what its behaviour says; HEAD (is there a bucket?) says yes. A behaviour that returns keeps the
    connection; raise ConnectionError to cut it."""

    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    connections: set[asyncio.StreamWriter] = field(default_factory=set)
    accepted: int = 0
    endpoint: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        self.accepted += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method, path, _ = head.decode().split(" ", 2)
                self.calls.append(method)
                call = Call(method, path, head, reader, writer)
                await self.behaviours.get(method, _say_yes)(call)
        self.connections.discard(writer)
        writer.transport.abort()


async def _say_yes(call: Call) -> None:
    if call.method == "PUT":
        await call.body()
    await call.say(OK)


@asynccontextmanager
async def faulty_s3(*, tls: ssl.SSLContext | None = None, **behaviours: Behaviour) -> AsyncIterator[FaultyS3]:
    faulty = FaultyS3(behaviours)
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        with suppress(asyncio.CancelledError):
            await faulty.serve(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    where = "http://127.0.0.1" if tls is None else "https://localhost"
    faulty.endpoint = f"{where}:{server.sockets[0].getsockname()[1]}"
    try:
        yield faulty
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Proxy:
    """Between us and a real store. Bytes are counted per connection and direction."""

    endpoint: str = ""
    cut_request_after: int | None = None
    cut_answer_after: int | None = None
    answers_pass: asyncio.Event = field(default_factory=asyncio.Event)
    answer_held: asyncio.Event = field(default_factory=asyncio.Event)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        theirs, to_them = await asyncio.open_connection("127.0.0.1", port)
        self.writers.add(writer)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._requests(reader, to_them))
                group.create_task(self._answers(theirs, writer))
        except* (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.writers.discard(writer)
            writer.transport.abort()
            to_them.transport.abort()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while data := await reader.read(65_536):
            passed += len(data)
            if self.cut_request_after is not None and passed > self.cut_request_after:
                break
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        passed = 0
        while data := await reader.read(65_536):
            if not self.answers_pass.is_set():
                self.answer_held.set()
                await self.answers_pass.wait()
            passed += len(data)
            if self.cut_answer_after is not None and passed > self.cut_answer_after:
                break
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


@asynccontextmanager
async def proxied(endpoint: str) -> AsyncIterator[Proxy]:
    proxy = Proxy()
    proxy.answers_pass.set()
    port = int(endpoint.rpartition(":")[2])
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        with suppress(asyncio.CancelledError):
            await proxy.connect(reader, writer, port)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    proxy.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
