"""One buffer for all bytes that go from one socket to another: nobody waits while something is in it."""

from __future__ import annotations

from gauzian.stores.threads import KIB, MIB

# Hashing it holds up the event loop for a millisecond: then others get their turn.
_BUFFER_BYTES = 1 * MIB
# A few get as much at a time; of many each gets less, so that a round of all of them takes some milliseconds.
_ROUND_BYTES = 8 * MIB
_LEAST_BYTES = 64 * KIB


class SharedBuffer:
    """`users`: how many may come to use it in one round of the event loop; counted by themselves."""

    def __init__(self) -> None:
        self.bytes = memoryview(bytearray(_BUFFER_BYTES))
        self.users = 0

    def share(self, most: int) -> memoryview:
        """What one of them may use of it now, at most `most` bytes."""
        return self.bytes[: min(most, max(_LEAST_BYTES, _ROUND_BYTES // max(1, self.users)))]
