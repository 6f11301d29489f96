"""Base64 that stands in a JSON string, decoded piece by piece, strictly.

pybase64 and not binascii, whose strict mode costs 40 times as much: one JSON chunk would hold up everybody for 70 ms.
"""

from __future__ import annotations

import json

import pybase64

from gauzian.errors import BadField

_LONGEST_ESCAPE = len("\\u0041")


class Base64Text:
    """The standard alphabet with padding; nothing else, not even white space. Keeps at most a few characters back."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._escape = b""  # a JSON escape of which the rest has not come yet
        self._carry = b""  # up to three characters of a group of four
        self._padded = False

    def decode(self, text: bytes) -> bytes:
        if self._escape or b"\\" in text:
            text = self._without_escapes(self._escape + text)
        if self._carry:
            text = self._carry + text
        whole = len(text) & ~3
        self._carry = text[whole:]
        if not whole:
            return b""
        if self._padded:
            raise self._refusal()
        self._padded = text[whole - 1 : whole] == b"="
        try:
            # A view: cutting off the carry must not copy the whole piece.
            return pybase64.b64decode(memoryview(text)[:whole], validate=True)
        except ValueError:  # binascii.Error, or characters that are not ASCII
            raise self._refusal() from None

    def finish(self) -> None:
        if self._escape or self._carry:
            raise self._refusal()

    def _without_escapes(self, text: bytes) -> bytes:
        """Some libraries write every slash as \\/, and \\u002b for a plus is JSON, too."""
        last = text.rfind(b"\\", -_LONGEST_ESCAPE + 1)
        begun = text[last:] if last >= 0 else b""
        is_cut = begun == b"\\" or (begun.startswith(b"\\u") and len(begun) < _LONGEST_ESCAPE)
        self._escape = begun if is_cut else b""
        try:
            whole = text[: len(text) - len(self._escape)]
            return str(json.loads(f'"{whole.decode("ascii")}"')).encode("ascii")
        except ValueError:
            raise self._refusal() from None

    def _refusal(self) -> BadField:
        return BadField(self._field, "not base64 (standard alphabet, with padding)")
