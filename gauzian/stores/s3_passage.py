"""From a client's socket to the store's: read, hashed and sent at once, while the processor's cache has it.

As a piece of its own each would be new memory, and wait between these three for turns of the event loop.
"""

from __future__ import annotations

import asyncio
import os

from gauzian.bytebudget import ByteBudget, Held
from gauzian.stores.sharedbuffer import SharedBuffer
from gauzian.stores.tally import Tally
from gauzian.stores.threads import KIB, MIB
from gauzian.tap import Tap

# What the store did not take at once, of all puts together.
_LEFT_BYTES = 4 * MIB


class Passages:
    """What all of them share."""

    def __init__(self, buffer: SharedBuffer) -> None:
        self.buffer = buffer
        self.left = ByteBudget(_LEFT_BYTES, least=16 * KIB, most=1 * MIB, parts=2)


class Passage:
    """For one put whose pieces have a `tap`. `tally` counts what goes this way, too."""

    def __init__(self, tap: Tap, tally: Tally, passages: Passages) -> None:
        self._tap = tap
        self._tally = tally
        self._passages = passages
        self._held = Held(passages.left)

    def begin(self) -> None:
        """Before the first piece is asked for. That one comes in any case: the head of the request goes with it."""
        self._passages.buffer.users += 1
        self._tap.hold()
        self._tap.release()

    def move(self, transport: asyncio.WriteTransport) -> bytes | None:
        """Send what waits behind the pieces so far: the rest that the store did not take, to be handed over before the
        next `move`; None if little or nothing waits, and the next bytes are a piece."""
        self._held.drop()
        if not self._tap.hold():
            return None
        size = self._tap.read_into(self._passages.buffer.share(self._passages.left.share))
        if not size:
            self._tap.release()
            return None
        view = self._passages.buffer.bytes[:size]
        self._tally.add(view)
        rest = bytes(view[_sent(transport, view) :])
        self._held.hold(len(rest))
        return rest

    def end(self) -> None:
        """Once, after `begin`."""
        self._passages.buffer.users -= 1
        self._held.drop()
        self._tap.release()


def _sent(transport: asyncio.WriteTransport, view: memoryview) -> int:
    """How much the kernel took, if nothing waits in front of it and nothing is to be encrypted."""
    if transport.get_write_buffer_size() or transport.get_extra_info("ssl_object") is not None:
        return 0
    try:
        return os.write(transport.get_extra_info("socket").fileno(), view)
    except OSError:  # full, or gone: who is handed the rest meets the same
        return 0
