"""The middle of an answer, straight to the client's system: for bytes that nobody wants to keep as a piece."""

from __future__ import annotations

from typing import Protocol

EXTENSION = "gauzian.spout"
"""Its name in an ASGI scope's "extensions", where the server can do it."""


class Spout(Protocol):
    """Beside `send`, for the middle of one answer whose head was sent with a Content-Length."""

    def send_now(self, view: memoryview) -> int:
        """How much of the front of `view` has gone out, right here, as the next bytes of the body.

        The rest is `send`'s, and so is the last byte of a body in any case; 0 while earlier bytes wait, and when the
        client is gone: `send` says so.
        """
        ...
