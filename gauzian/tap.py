"""A body's bytes where they wait in the kernel: for whoever can take them from there and needs no pieces."""

from __future__ import annotations

import socket
from typing import Protocol

EXTENSION = "gauzian.tap"
"""Its name in an ASGI scope's "extensions", where the server can do it."""


class Tap(Protocol):
    """Beside `receive`, for the middle of one body. All methods on the event loop.

    The last byte of a body always comes by `receive`, and so does word of a client that is gone.
    """

    @property
    def taken(self) -> int:
        """Bytes that came this way so far."""
        ...

    def hold(self) -> int:
        """How many bytes may be read now and soon; 0 unless many wait there and `receive` has given what
        came before them. `receive` then gives nothing until `hold` has answered 0 or `release` was called.

        Ask before the first `receive`, too: it then brings less at a time, and leaves more to the tap.
        """
        ...

    def read_into(self, buffer: memoryview) -> int:
        """While held: right here, without waiting. 0: nothing is there, or the client is gone."""
        ...

    def socket(self) -> socket.socket:
        """A duplicate that does not block, for a thread; whoever asked closes it. Raises OSError."""
        ...

    def drawn(self, size: int) -> None:
        """So many bytes were read from it by the thread."""
        ...

    def release(self) -> None:
        """The rest comes by `receive`. Any number of times."""
        ...
