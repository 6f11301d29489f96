"""A chunk in three costumes: raw, JSON/base64, multipart; each becomes the same IncomingChunk, in pieces.

Here stands what they share, and the raw one; json_chunk.py and multipart_chunk.py have the others. A format is used in
three steps: `check_declared` looks at the length alone, before anything is spent on the request; `early_target` at what
else the head says; `open` asks for the body. Memory is flat: a format holds little more than the piece it is given.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from gauzian.errors import ChunkTooLarge, EmptyChunk, Receive, Scope, UnsupportedMediaType, UploadTooSlow
from gauzian.tap import Tap
from gauzian.upload.digest import promised_sha256
from gauzian.upload.target import file_id_of, index_of_text, iv_of, query_fields
from gauzian.web.body import Body, declared_length, header

# What base64 and the fields around it may add: a third for base64, some escapes, a few fields and part headers.
_ENCODED_BESIDE = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """The same for every chunk route; `max_chunk_size` counts decoded bytes, `min_rate` is in bytes per second."""

    max_chunk_size: int
    idle_seconds: float = 15.0
    min_rate: float = 16 * 1024
    grace_seconds: float = 10.0

    @property
    def most_encoded(self) -> int:
        return self.max_chunk_size * 3 // 2 + _ENCODED_BESIDE

    def check_declared(self, scope: Scope, most_bytes: int) -> None:
        """Refuse by Content-Length what cannot be a chunk; without one the count has to do it."""
        declared = declared_length(scope)
        if declared == 0:
            raise EmptyChunk
        if declared is not None and declared > most_bytes:
            raise ChunkTooLarge(self.max_chunk_size)

    def open_body(self, scope: Scope, receive: Receive, most_bytes: int) -> Body:
        self.check_declared(scope, most_bytes)
        return Body(
            scope,
            receive,
            most_bytes=most_bytes,
            idle_seconds=self.idle_seconds,
            slowest=self.min_rate,
            grace_seconds=self.grace_seconds,
            too_large=lambda _: ChunkTooLarge(self.max_chunk_size),
            too_slow=UploadTooSlow,
        )


@dataclass(frozen=True, slots=True)
class Named:
    """Which chunk it is."""

    file_id: UUID
    index: int
    iv: str


class Reader(Protocol):
    """A format without I/O: pieces of the body in, pieces of the chunk out. An error ends it."""

    def feed(self, piece: bytes) -> Iterable[bytes]: ...

    def finish(self) -> Named:
        """The body ended here: raises if it may not."""
        ...


class ChunkPieces:
    """The bytes of a chunk, out of a body through a reader, counted.

    `tap`: where the next of them may be taken instead, if they are the bytes of the body as they are (not together with
    `look_ahead`: what it has read comes first).
    They end only where the body ended and was valid to its last byte; an error is final, as in Body.
    """

    def __init__(self, body: Body, reader: Reader, *, most_bytes: int, tap: Tap | None = None) -> None:
        self.tap = tap
        self._counted = 0
        self._body = body
        self._reader = reader
        self._most_bytes = most_bytes
        self._ready: deque[bytes] = deque()
        self._named: Named | None = None
        self._broken: Exception | None = None

    def __aiter__(self) -> ChunkPieces:
        return self

    async def __anext__(self) -> bytes:
        while not self._ready:
            if self.ended:
                raise StopAsyncIteration
            await self._pull()
        return self._ready.popleft()

    @property
    def size(self) -> int:
        """Bytes that have come."""
        return self._counted if self.tap is None else self._counted + self.tap.taken

    @property
    def ended(self) -> bool:
        """The body has been read to its end; bytes of it may still wait here."""
        return self._named is not None

    @property
    def named(self) -> Named:
        if self._named is None or self._ready:
            raise RuntimeError("index and iv may stand behind the bytes: read the pieces to their end first")
        return self._named

    async def look_ahead(self) -> None:
        """Read until bytes of the chunk wait here, and to the end if all that is declared has come."""
        while not self.ended and (not self._ready or self._body.received == self._body.declared):
            await self._pull()

    def close(self) -> None:
        """Nobody will ask for more. An error knows the frames it came through, and they know us."""
        self._broken = None
        self._ready.clear()

    async def _pull(self) -> None:
        if self._broken is not None:
            raise self._broken
        try:
            self._take(await anext(self._body))
        except StopAsyncIteration:
            self._finish()

    def _take(self, piece: bytes) -> None:
        try:
            for found in self._reader.feed(piece):
                self._counted += len(found)
                if self.size > self._most_bytes:
                    raise ChunkTooLarge(self._most_bytes)
                if found:
                    self._ready.append(found)
        except Exception as error:
            self._broken = error
            raise

    def _finish(self) -> None:
        try:
            named = self._reader.finish()
            if not self.size:
                raise EmptyChunk
            self._named = named
        except Exception as error:
            self._broken = error
            raise


class IncomingChunk:
    """One chunk on its way in.

    `pieces` are the decoded bytes; they raise what is wrong with the body, up to its last byte. `size` is their number
    when it is known before, else None. `sha256` is what the client promises about them, None without a promise. `index`
    and `iv` may be read once `pieces` has ended: some clients send them behind the bytes.
    """

    def __init__(
        self,
        file_id: UUID,
        source: ChunkPieces,
        *,
        size: int | None,
        sha256: bytes | None,
        pieces: AsyncIterator[bytes] | None = None,
    ) -> None:
        self.file_id = file_id
        self.size = size
        self.sha256 = sha256
        self.pieces: AsyncIterator[bytes] = source if pieces is None else pieces
        self._source = source

    @property
    def index(self) -> int:
        return self._source.named.index

    @property
    def iv(self) -> str:
        return self._source.named.iv


def check_head(scope: Scope) -> None:
    """Refuse what the headers of any chunk route may not say."""
    if (header(scope, b"content-encoding") or b"identity").strip().lower() != b"identity":
        raise UnsupportedMediaType("A chunk is stored as it is sent: no Content-Encoding")
    promised_sha256(scope)


class RawChunk:
    """POST /drive/upload_chunk_binary?file_id=&index=&iv= with the bytes as they are. The main path."""

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits

    def check_declared(self, scope: Scope) -> None:
        self._limits.check_declared(scope, self._limits.max_chunk_size)

    def early_target(self, scope: Scope) -> tuple[UUID, int | None] | None:
        check_head(scope)
        named = _named_by_query(scope)
        return named.file_id, named.index

    @asynccontextmanager
    async def open(self, scope: Scope, receive: Receive) -> AsyncIterator[IncomingChunk]:
        named, most = _named_by_query(scope), self._limits.max_chunk_size
        with (
            closing(self._limits.open_body(scope, receive, most)) as body,
            closing(ChunkPieces(body, _AsItIs(named), most_bytes=most, tap=body.tap)) as pieces,
        ):
            yield IncomingChunk(named.file_id, pieces, size=body.declared, sha256=promised_sha256(scope))


class _AsItIs:
    def __init__(self, named: Named) -> None:
        self._named = named

    def feed(self, piece: bytes) -> tuple[bytes]:
        return (piece,)

    def finish(self) -> Named:
        return self._named


def _named_by_query(scope: Scope) -> Named:
    fields = query_fields(scope, "file_id", "index", "iv")
    return Named(file_id_of(fields["file_id"]), index_of_text(fields["index"]), iv_of(fields["iv"]))
