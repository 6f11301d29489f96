"""The two shapes in which a single chunk leaves: raw bytes, or base64 inside of JSON."""

from __future__ import annotations

import json
from typing import Protocol
from urllib.parse import quote

import pybase64

from gauzian.database.downloads import ChunkRow
from gauzian.download.conditions import Version
from gauzian.web.outlet import Headers

_PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))


class Format(Protocol):
    """How one chunk is written; made for one answer."""

    version: Version
    length: int
    headers: Headers
    is_plain: bool  # what is sent are the stored bytes, and nothing else

    def __init__(self, row: ChunkRow) -> None: ...

    def encode(self, piece: bytes) -> bytes:
        """What to send for the next piece; may be empty."""
        ...

    def end(self) -> bytes:
        """What is still to be sent after the last piece."""
        ...


class RawChunk:
    """The stored bytes; what belongs to them stands in the headers."""

    is_plain = True

    def __init__(self, row: ChunkRow) -> None:
        self.version = Version(f'"{row.sha256.hex()}"', row.created_at)
        self.length = row.size
        self.headers = [
            (b"content-type", b"application/octet-stream"),
            (b"x-content-type-options", b"nosniff"),
            # A client wrote this text: nothing in it may end the header. Base64 is not touched.
            (b"x-chunk-iv", quote(row.iv, safe=_PRINTABLE).encode()),
            (b"x-chunk-index", str(row.index).encode()),
            (b"content-digest", b"sha-256=:" + pybase64.b64encode(row.sha256) + b":"),
        ]

    def encode(self, piece: bytes) -> bytes:
        return piece

    def end(self) -> bytes:
        return b""


class JsonChunk:
    """`{"data": base64, "iv": text, "index": "text"}`, encoded as it streams; its length is known before."""

    is_plain = False

    def __init__(self, row: ChunkRow) -> None:
        self._before = b'{"data":"'
        self._after = f'","iv":{json.dumps(row.iv)},"index":"{row.index}"}}'.encode()
        self._carry = b""  # up to two bytes: base64 takes three at a time
        self.version = Version(f'"{row.sha256.hex()}-json"', row.created_at)
        self.length = len(self._before) + (row.size + 2) // 3 * 4 + len(self._after)
        self.headers = [(b"content-type", b"application/json")]

    def encode(self, piece: bytes) -> bytes:
        if self._carry:
            piece = self._carry + piece
        whole = len(piece) - len(piece) % 3
        self._carry = piece[whole:]
        before, self._before = self._before, b""
        return before + pybase64.b64encode(memoryview(piece)[:whole])

    def end(self) -> bytes:
        return self._before + pybase64.b64encode(self._carry) + self._after
