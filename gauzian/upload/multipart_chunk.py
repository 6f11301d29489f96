"""A chunk as multipart/form-data: parts `chunk`, `chunk_index` (or `index`), `iv`, in any order, as they stream by."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from uuid import UUID

from gauzian.errors import BadField, DuplicateField, MalformedMultipart, MissingField, Receive, Scope
from gauzian.upload.digest import promised_sha256
from gauzian.upload.formats import BodyLimits, ChunkPieces, IncomingChunk, Named, check_head
from gauzian.upload.part_headers import boundary_of, part_name
from gauzian.upload.target import file_id_of, index_of_text, iv_of

_MOST_HEADERS = 8 * 1024  # of one part
_MOST_PARTS = 32  # three are ours
_MOST_FIELD = 256  # bytes of an index or iv
_MOST_PADDING = 64  # white space that RFC 2046 allows behind a boundary

_MEANING = {"chunk": "chunk", "chunk_index": "index", "index": "index", "iv": "iv"}


class MultipartChunk:
    """POST /drive/files/{file_id}/upload-chunk."""

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits

    def check_declared(self, scope: Scope) -> None:
        self._limits.check_declared(scope, self._limits.most_encoded)

    def early_target(self, scope: Scope) -> tuple[UUID, int | None] | None:
        """The file; the index stands in the body."""
        check_head(scope)
        boundary_of(scope)
        return file_id_of(scope["path_params"]["file_id"]), None

    @asynccontextmanager
    async def open(self, scope: Scope, receive: Receive) -> AsyncIterator[IncomingChunk]:
        file_id = file_id_of(scope["path_params"]["file_id"])
        reader, sha256 = MultipartReader(boundary_of(scope), file_id), promised_sha256(scope)
        with (
            closing(self._limits.open_body(scope, receive, self._limits.most_encoded)) as body,
            closing(ChunkPieces(body, reader, most_bytes=self._limits.max_chunk_size)) as source,
        ):
            await source.look_ahead()
            yield IncomingChunk(file_id, source, size=source.size if source.ended else None, sha256=sha256)


# Looks at the window from a position on: where it stopped, and whether the next step can go on from there at once.
# Not a bound method: the reader would be a circle.
Step = Callable[["MultipartReader", bytes, int, list[bytes]], tuple[int, bool]]


class MultipartReader:
    """Pieces of the body in, bytes of the part `chunk` out; holds the head of one part at most."""

    def __init__(self, boundary: bytes, file_id: UUID) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._file_id = file_id
        self._window = b"\r\n"  # the first boundary may stand at the very beginning, without a line before it
        self._step: Step = MultipartReader._content
        self._part: str | None = None  # what the part means to us whose content comes by
        self._part_name = ""
        self._fields: dict[str, bytes] = {}
        self._parts = 0
        self._ended = False

    def feed(self, piece: bytes) -> list[bytes]:
        chunk: list[bytes] = []
        window = self._window + piece if self._window else piece
        at, go_on = 0, True
        while go_on:
            at, go_on = self._step(self, window, at, chunk)
        self._window = window[at:]
        return chunk

    def finish(self) -> Named:
        if not self._ended:
            raise MalformedMultipart("The body has no final boundary")
        for part, name in (("chunk", "chunk"), ("index", "chunk_index"), ("iv", "iv")):
            if part not in self._fields:
                raise MissingField(name)
        index = index_of_text(self._fields["index"].decode("latin-1"), "chunk_index")
        return Named(self._file_id, index, iv_of(self._fields["iv"].decode("latin-1")))

    def _content(self, window: bytes, at: int, chunk: list[bytes]) -> tuple[int, bool]:
        """What stands before the first boundary, or in a part: up to the next boundary."""
        found = window.find(self._delimiter, at)
        end = self._surely_content(window, at) if found < 0 else found
        if end > at and self._part == "chunk":
            chunk.append(window[at:end])
        elif end > at and self._part is not None:
            self._collect(self._part, window[at:end])
        if found < 0:
            return end, False
        self._part, self._step = None, MultipartReader._boundary_line
        return found + len(self._delimiter), True

    def _surely_content(self, window: bytes, at: int) -> int:
        """Where a boundary could begin that has not come to its end yet."""
        begun = window.find(b"\r", max(at, len(window) - len(self._delimiter) + 1))
        return len(window) if begun < 0 else begun

    def _collect(self, part: str, content: bytes) -> None:
        self._fields[part] += content
        if len(self._fields[part]) > _MOST_FIELD:
            raise BadField(self._part_name, "too long")

    def _boundary_line(self, window: bytes, at: int, chunk: list[bytes]) -> tuple[int, bool]:
        if window.startswith(b"--", at):
            self._ended, self._step = True, MultipartReader._epilogue
            return at, True
        end = window.find(b"\r\n", at)
        if end < 0 and len(window) - at <= _MOST_PADDING:
            return at, False
        if end < 0 or window[at:end].strip(b" \t"):
            raise MalformedMultipart("A line begins with the boundary and goes on")
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise MalformedMultipart(f"More than {_MOST_PARTS} parts")
        self._step = MultipartReader._head
        return end, True

    def _head(self, window: bytes, at: int, chunk: list[bytes]) -> tuple[int, bool]:
        """The headers of a part, from the line break before them to the empty line behind them."""
        end = window.find(b"\r\n\r\n", at, at + _MOST_HEADERS)
        if end < 0:
            if len(window) - at >= _MOST_HEADERS:
                raise MalformedMultipart(f"A part with headers of more than {_MOST_HEADERS} bytes")
            return at, False
        self._part_name = part_name(window[at + 2 : end])
        self._part = _MEANING.get(self._part_name)
        if self._part is not None:
            if self._part in self._fields:
                raise DuplicateField(self._part_name)
            self._fields[self._part] = b""
        self._step = MultipartReader._content
        return end + 4, True

    def _epilogue(self, window: bytes, at: int, chunk: list[bytes]) -> tuple[int, bool]:
        return len(window), False
