"""The bytes every client of the bench sends: the same in each process, to compare what comes back."""

from __future__ import annotations

import random

MIB = 1024 * 1024
GB = 1_000_000_000
CHUNK_BYTES = 10 * MIB


def make_payload() -> bytes:
    """One chunk of bytes that no file system and no proxy can compress."""
    return random.Random(20).randbytes(CHUNK_BYTES)
