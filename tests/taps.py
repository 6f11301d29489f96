"""A tap without a kernel behind it: a test says what was taken."""

from __future__ import annotations

import socket
from typing import Any

from gauzian.tap import EXTENSION


class CountedTap:
    """Never gives a byte; counts what is said to have come this way."""

    def __init__(self) -> None:
        self.taken = 0

    def hold(self) -> int:
        return 0

    def read_into(self, buffer: memoryview) -> int:
        raise AssertionError("nobody may read here")

    def socket(self) -> socket.socket:
        raise AssertionError("nobody may read here")

    def drawn(self, size: int) -> None:
        self.taken += size

    def release(self) -> None:
        pass


def offering(scope: dict[str, Any], tap: CountedTap) -> dict[str, Any]:
    """`scope`, as a server would give it that can do it."""
    return {**scope, "extensions": {EXTENSION: tap}}
