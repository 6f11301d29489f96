"""An HTTP/1.1 answer as it arrives in pieces: what the load driver must know of it and nothing more."""

from __future__ import annotations

import json
import re

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[ \t]*close", re.IGNORECASE)

MOST_HEAD_BYTES = 65536
# Bodies up to here are kept to read error codes and digests from; longer ones are only counted and compared.
KEPT_BODY_BYTES = 8192


class Answer:
    """Feed it pieces until `complete`. `expected`: what a long body must repeat, and its beginning again."""

    __slots__ = (
        "_chunked",
        "_head",
        "_keeps",
        "_until_eof",
        "body",
        "closes",
        "complete",
        "damaged",
        "expected",
        "left",
        "received",
        "status",
    )

    def __init__(self, expected: bytes | None = None) -> None:
        self.expected = expected
        self.status: int | None = None  # known as soon as the header is complete
        self.body = bytearray()
        self.received = 0  # bytes of the body
        self.left = 0
        self.complete = False
        self.closes = False  # the connection is of no use afterwards
        self.damaged = False
        self._head = bytearray()
        self._chunked = False
        self._until_eof = False
        self._keeps = False

    def feed(self, piece: memoryview, *, period: int = 1) -> None:
        if self.status is None:
            self._head += piece
            self._read_head(period)
        elif len(piece):
            self._take(piece, period)

    def end(self) -> bool:
        """The server closed: was that the proper end of this answer?"""
        if self.status is not None and self._until_eof:
            self.complete = True
        self.closes = True
        return self.complete

    def label(self) -> str:
        """The status, and the code of an error beside it."""
        if self.status is None:
            return "none"
        if self.status >= 400 and self.body:
            try:
                return f"{self.status} {json.loads(bytes(self.body))['code']}"
            except (ValueError, KeyError, TypeError):
                return str(self.status)
        return str(self.status)

    def _read_head(self, period: int) -> None:
        while True:
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                if len(self._head) > MOST_HEAD_BYTES:
                    raise ValueError("endless header")
                return
            head, rest = bytes(self._head[:end]), bytes(self._head[end + 4 :])
            status = int(head[9:12])
            if status >= 200:
                break
            self._head = bytearray(rest)  # 100 Continue: the real answer comes after it
        self._head = bytearray()
        self.status = status
        length = _LENGTH.search(head)
        self.left = int(length[1]) if length else 0
        self._chunked = _CHUNKED.search(head) is not None
        self._until_eof = not length and not self._chunked and status not in (204, 304)
        self._keeps = self._chunked or self._until_eof or self.left <= KEPT_BODY_BYTES
        self.closes = self._until_eof or _CLOSE.search(head) is not None
        self.complete = not self.left and not self._chunked and not self._until_eof
        if rest:
            self._take(memoryview(rest), period)

    def _take(self, piece: memoryview, period: int) -> None:
        size = len(piece)
        if (
            self.expected is not None
            and not self._keeps
            and not self.expected.startswith(piece, self.received % period)
        ):
            self.damaged = True
        if self._keeps and len(self.body) < KEPT_BODY_BYTES:
            self.body += piece
        self.received += size
        if self._chunked:
            self.complete = self.body.endswith(b"0\r\n\r\n")
        elif not self._until_eof:
            self.left -= size
            self.complete = self.left <= 0
