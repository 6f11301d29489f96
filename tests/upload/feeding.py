"""Bodies for the readers of chunk formats: cut into pieces in every way that a network can."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from gauzian.errors import ApiError, Message, Receive, Scope
from gauzian.upload.formats import IncomingChunk, Named, Reader

FILE_ID = "0b2c4d6e-1f30-4a52-8c74-9d96b8dafcfe"
IV = "q83vEjRWeJCrze8+"


@dataclass
class Fed:
    named: Named
    data: bytes


def feed(reader: Reader, pieces: Iterable[bytes]) -> Fed:
    data = b"".join(found for piece in pieces for found in reader.feed(piece))
    return Fed(reader.finish(), data)


def in_pieces(body: bytes, size: int) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


def cut_at(body: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


def complaint(error: ApiError) -> tuple[str, Any]:
    """What a client can tell errors apart by."""
    return error.code, error.fields.get("field")


def post(body_length: int | None = None, *, query: str = "", file_id: str = FILE_ID, **headers: str) -> dict[str, Any]:
    named = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    length = (b"transfer-encoding", b"chunked") if body_length is None else (b"content-length", b"%d" % body_length)
    return {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "headers": [length, *named],
        "query_string": query.encode("latin-1"),
        "path_params": {"file_id": file_id},
    }


class Client:
    """Sends these pieces as they are asked for; then its end, or nothing more at all."""

    def __init__(self, pieces: Iterable[bytes], *, ends: bool = True) -> None:
        self.pieces = iter(pieces)
        self.ends = ends
        self.asked = 0
        self.waiting = asyncio.Event()

    async def receive(self) -> Message:
        self.asked += 1
        for piece in self.pieces:
            return {"type": "http.request", "body": piece, "more_body": True}
        if not self.ends:
            self.waiting.set()
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b"", "more_body": False}


class Format(Protocol):
    def check_declared(self, scope: Scope) -> None: ...
    def early_target(self, scope: Scope) -> object: ...
    def open(self, scope: Scope, receive: Receive) -> AbstractAsyncContextManager[IncomingChunk]: ...


@dataclass
class Arrived:
    file_id: str
    index: int
    iv: str
    data: bytes
    size: int | None
    sha256: bytes | None
    largest: int


async def arrive(format: Format, scope: dict[str, Any], client: Client) -> Arrived:
    """The three steps of the corridor, with nothing between them."""
    format.check_declared(scope)
    format.early_target(scope)
    async with format.open(scope, client.receive) as incoming:
        pieces = [piece async for piece in incoming.pieces]
        size, sha256 = incoming.size, incoming.sha256
    return Arrived(
        str(incoming.file_id), incoming.index, incoming.iv, b"".join(pieces), size, sha256, max(map(len, pieces))
    )
