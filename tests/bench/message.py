"""A request as a sequence of buffers to send: nothing is joined or copied that is longer than a few pages."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import cached_property

from tests.bench.payload import MIB, make_payload
from tests.bench.plan import NUMBER, Group

FRAME_BYTES = 65536
SLICE_BYTES = 1 * MIB
# Requests up to here are one buffer, and so one system call.
SMALL_BYTES = 32768


class Stock:
    """The buffers all clients share, each made when first needed."""

    @cached_property
    def raw(self) -> bytes:
        return make_payload()

    @cached_property
    def wrapped(self) -> bytes:
        """The payload and its beginning once more: any piece of the endless repetition stands in it in one place."""
        return self.raw + self.raw[:SLICE_BYTES]

    @cached_property
    def frames(self) -> bytes:
        """One MiB of payload in chunked framing."""
        pieces = (self.raw[start : start + FRAME_BYTES] for start in range(0, MIB, FRAME_BYTES))
        return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)

    def base64(self, size: int) -> bytes:
        return base64.b64encode(self.raw[:size])

    def digest(self, size: int) -> bytes:
        return hashlib.sha256(self.raw[:size]).hexdigest().encode()


class Messages:
    """Makes the requests of one group."""

    def __init__(self, group: Group, host: str, stock: Stock) -> None:
        if group.chunked and (group.payload % MIB or group.prefix or group.suffix or group.base64):
            raise ValueError("a chunked body is whole MiB of plain payload")
        if (group.base64 or group.check_digest) and group.payload > len(stock.raw):
            raise ValueError("base64 and digests only up to the payload's length")
        self.group = group
        self.stock = stock
        self._head = "".join(
            [f"{group.target} HTTP/1.1\r\n", f"Host: {host}\r\n", *(f"{line}\r\n" for line in group.headers)]
        )
        if group.chunked:
            self._buffer, self._payload = stock.frames, len(stock.frames) * (group.payload // MIB)
        elif group.base64:
            self._buffer = stock.base64(group.payload)
            self._payload = len(self._buffer)
        else:
            self._buffer, self._payload = stock.raw if group.payload else b"", group.payload

    def parts(self, number: int) -> Iterator[memoryview]:
        """The buffers of request `number`, in order."""
        group = self.group
        prefix, suffix = (text.replace(NUMBER, str(number)).encode() for text in (group.prefix, group.suffix))
        if group.chunked:
            suffix = b"0\r\n\r\n"
        first = self._header(number, len(prefix) + self._payload + len(suffix)) + prefix
        if len(first) + self._payload + len(suffix) <= SMALL_BYTES:
            yield memoryview(first + self._buffer[: self._payload] + suffix)
            return
        yield memoryview(first)
        yield from self._payload_slices()
        if suffix:
            yield memoryview(suffix)

    def _header(self, number: int, length: int) -> bytes:
        group = self.group
        framing = ""
        if group.chunked:
            framing = "Transfer-Encoding: chunked\r\n"
        elif length or group.declared is not None or group.target.startswith("POST"):
            framing = f"Content-Length: {length if group.declared is None else group.declared}\r\n"
        return f"{self._head}{framing}\r\n".replace(NUMBER, str(number)).encode()

    def _payload_slices(self) -> Iterator[memoryview]:
        buffer, left, start = memoryview(self._buffer), self._payload, 0
        while left:
            piece = buffer[start : start + min(SLICE_BYTES, left)]
            yield piece
            left -= len(piece)
            start = (start + len(piece)) % len(buffer)
