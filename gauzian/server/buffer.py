"""h11's buffer, without its two copies of a body: a large piece is kept as it came and handed on whole."""

from __future__ import annotations

from typing import Any

from h11._receivebuffer import ReceiveBuffer

from gauzian.server.limits import KIB

# Below this a piece is cheaper to copy than to hold apart.
_WORTH_PASSING = 2 * KIB


class PassThrough(ReceiveBuffer):
    """Put in the place of a connection's buffer. Whoever wants to look inside a piece gets the ordinary one."""

    def __init__(self) -> None:
        super().__init__()
        self._piece: bytes | None = None

    def __iadd__(self, data: bytes | bytearray) -> PassThrough:
        if self._piece is None and not self._data and type(data) is bytes and len(data) > _WORTH_PASSING:
            self._piece = data
        else:
            self._settle()
            super().__iadd__(data)
        return self

    def __bool__(self) -> bool:
        return self._piece is not None or bool(self._data)

    def __len__(self) -> int:
        return len(self._data) if self._piece is None else len(self._piece)

    def __bytes__(self) -> bytes:
        return bytes(self._data) if self._piece is None else self._piece

    def maybe_extract_at_most(self, count: int) -> Any:
        if self._piece is not None and len(self._piece) <= count:
            piece, self._piece = self._piece, None
            return piece
        self._settle()
        return super().maybe_extract_at_most(count)

    def maybe_extract_next_line(self) -> bytearray | None:
        self._settle()
        return super().maybe_extract_next_line()

    def maybe_extract_lines(self) -> list[bytearray] | None:
        self._settle()
        return super().maybe_extract_lines()

    def is_next_line_obviously_invalid_request_line(self) -> bool:
        self._settle()
        return super().is_next_line_obviously_invalid_request_line()

    def _settle(self) -> None:
        """Into the ordinary buffer: somebody wants to look inside."""
        if self._piece is not None:
            piece, self._piece = self._piece, None
            super().__iadd__(piece)
