"""A chunk as JSON {file_id, index, chunk_data: base64, iv}, keys in any order, decoded as it streams.

The trick is not to write a JSON parser: the string of chunk_data is cut out of the stream, and what is left of the
document, bounded and small, is judged by the real one: once where chunk_data begins, so that nothing malformed gets any
further and the file is known before its bytes, and once at the end.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from typing import Any, Protocol
from uuid import UUID

from gauzian.errors import BadField, MalformedJson, Receive, Scope, UnsupportedMediaType
from gauzian.upload.base64_text import Base64Text
from gauzian.upload.digest import promised_sha256
from gauzian.upload.formats import BodyLimits, ChunkPieces, IncomingChunk, Named, check_head
from gauzian.upload.target import file_id_of, index_of_number, iv_of, only_once, require
from gauzian.web.body import header

# Everything but the string of chunk_data: three short fields in about 150 bytes, and room for what others may add.
_MOST_BESIDE = 16 * 1024
_MOST_DEPTH = 32
_MOST_KEY = len("chunk_data") * len("\\u0063")

_FIELDS = ("file_id", "index", "chunk_data", "iv")
_JSON_TYPE = re.compile(rb"application/(?:json|[!#$&^_.+a-z0-9-]+\+json)")
_STRUCTURE = re.compile(rb'["{}\[\]]')
_STRING_STOP = re.compile(rb'["\\]')
_COLON = re.compile(rb"[ \t\r\n:]*")


class Spool(Protocol):
    """What stores/spool.py has: bytes that must wait, on disk."""

    async def write(self, piece: bytes) -> None: ...
    async def finish(self) -> int: ...
    def pieces(self) -> AsyncIterable[bytes]: ...


class JsonChunk:
    """POST /drive/upload_chunk."""

    def __init__(self, limits: BodyLimits, *, new_spool: Callable[[], AbstractAsyncContextManager[Spool]]) -> None:
        self._limits = limits
        self._new_spool = new_spool

    def check_declared(self, scope: Scope) -> None:
        self._limits.check_declared(scope, self._limits.most_encoded)

    def early_target(self, scope: Scope) -> tuple[UUID, int | None] | None:
        """Nothing: the URL names no file."""
        check_head(scope)
        media_type = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
        if not _JSON_TYPE.fullmatch(media_type):
            raise UnsupportedMediaType("This route takes application/json")
        return None

    @asynccontextmanager
    async def open(self, scope: Scope, receive: Receive) -> AsyncIterator[IncomingChunk]:
        self.early_target(scope)
        reader, sha256 = JsonReader(), promised_sha256(scope)
        with (
            closing(self._limits.open_body(scope, receive, self._limits.most_encoded)) as body,
            closing(ChunkPieces(body, reader, most_bytes=self._limits.max_chunk_size)) as source,
        ):
            await source.look_ahead()
            if reader.file_id is not None:
                size = source.size if source.ended else None
                yield IncomingChunk(reader.file_id, source, size=size, sha256=sha256)
                return
            async with self._new_spool() as spool:
                async for piece in source:
                    await spool.write(piece)
                size, pieces = await spool.finish(), aiter(spool.pieces())
                yield IncomingChunk(source.named.file_id, source, size=size, sha256=sha256, pieces=pieces)


class JsonReader:
    """Pieces of the document in, decoded bytes of chunk_data out; holds a few KiB at most."""

    def __init__(self) -> None:
        self.file_id: UUID | None = None  # as soon as it is known
        self._rest = bytearray()  # the document, with "" for chunk_data
        self._at = 0  # how far `rest` was looked through
        self._depth = 0
        self._string_from: int | None = None  # inside of a string: where it began
        self._after_key = False  # right behind "chunk_data", perhaps the key
        self._data: Base64Text | None = None
        self._in_data = False

    def feed(self, piece: bytes) -> list[bytes]:
        decoded: list[bytes] = []
        at = 0
        while at < len(piece):
            at = self._feed_data(piece, at, decoded) if self._in_data else self._feed_rest(piece, at)
        return decoded

    def finish(self) -> Named:
        if self._in_data:
            raise MalformedJson("The JSON ends inside of chunk_data")
        found = self._fields(bytes(self._rest))
        self.file_id = file_id_of(require(found, "file_id"))
        index = index_of_number(require(found, "index"))
        require(found, "chunk_data")
        if self._data is None:
            raise BadField("chunk_data", "not a string")
        return Named(self.file_id, index, iv_of(require(found, "iv")))

    def _feed_data(self, piece: bytes, at: int, decoded: list[bytes]) -> int:
        # No quote belongs to base64: the first one ends the string, or its backslash is left behind to be refused.
        assert self._data is not None  # noqa: S101 - for the type checker
        end = piece.find(b'"', at)
        decoded.append(self._data.decode(piece[at:] if end < 0 else piece[at:end]))
        if end < 0:
            return len(piece)
        self._data.finish()
        self._in_data = False
        self._rest += b'"'
        self._at = len(self._rest)
        return end + 1

    def _feed_rest(self, piece: bytes, at: int) -> int:
        before = len(self._rest)
        taken = piece[at : at + max(0, _MOST_BESIDE - before)]
        if not taken:
            raise MalformedJson(f"More than {_MOST_BESIDE} bytes beside chunk_data")
        self._rest += taken
        if not self._reaches_data():
            return at + len(taken)
        del self._rest[self._at :]
        found = self._fields(bytes(self._rest) + b'"}')
        if "file_id" in found:
            self.file_id = file_id_of(found["file_id"])
        self._data, self._in_data = Base64Text("chunk_data"), True
        return at + self._at - before

    def _reaches_data(self) -> bool:
        """Look further through `rest`; true if the opening quote of chunk_data has been passed."""
        while self._at < len(self._rest):
            if self._string_from is not None:
                self._pass_string(self._string_from)
            elif self._after_key:
                self._at = _at_end_of(_COLON, self._rest, self._at)
                if self._at == len(self._rest):
                    return False
                self._after_key = False
                if self._rest[self._at] == ord('"'):
                    self._at += 1
                    return True
            else:
                self._pass_structure()
        return False

    def _pass_string(self, start: int) -> None:
        stop = _STRING_STOP.search(self._rest, self._at)
        if stop is None:
            self._at = len(self._rest)
        elif stop[0] == b"\\":
            self._at = stop.end() + 1  # whatever is escaped, it does not end the string
        else:
            self._at = stop.end()
            self._string_from = None
            self._after_key = self._depth == 1 and _is_data_key(bytes(self._rest[start : stop.start()]))

    def _pass_structure(self) -> None:
        found = _STRUCTURE.search(self._rest, self._at)
        if found is None:
            self._at = len(self._rest)
            return
        self._at = found.end()
        if found[0] == b'"':
            self._string_from = self._at
            return
        self._depth += 1 if found[0] in b"{[" else -1
        if not 0 <= self._depth <= _MOST_DEPTH:
            raise MalformedJson

    def _fields(self, document: bytes) -> dict[str, object]:
        try:
            value = _PARSER.decode(document.decode("utf-8"))
        except ValueError:
            raise MalformedJson from None
        if not isinstance(value, _Members):
            raise MalformedJson("The body is not a JSON object")
        return only_once(value, _FIELDS)


class _Members(list[tuple[str, Any]]):
    """An object as its members stand there, so that none hides another."""


def _refuse_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are no JSON


_PARSER = json.JSONDecoder(object_pairs_hook=_Members, parse_constant=_refuse_constant)


def _at_end_of(pattern: re.Pattern[bytes], text: bytearray, at: int) -> int:
    match = pattern.match(text, at)
    return at if match is None else match.end()


def _is_data_key(raw: bytes) -> bool:
    if b"\\" not in raw or len(raw) > _MOST_KEY:
        return raw == b"chunk_data"
    try:
        return bool(json.loads(f'"{raw.decode("ascii")}"') == "chunk_data")
    except ValueError:
        return False
