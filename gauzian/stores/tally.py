"""The bytes of one object, counted and hashed as they go by, and compared with what was said about them before."""

from __future__ import annotations

from hashlib import sha256 as new_sha256

from xxhash import xxh3_128

from gauzian.errors import DigestMismatch
from gauzian.stores.base import StoredObject


class Tally:
    """`add` every piece in order, then `finish`. `size` and `sha256`: what the bytes must come to, where that is known.

    Where the bytes are received, while the processor's cache has them: pieces on the event loop, what a thread receives
    (siphon.py) in that thread. A hop only for the hash would give up the interpreter and take it again for every piece.
    """

    __slots__ = ("_expected_sha256", "_expected_size", "_sha256", "_xxh3", "size")

    def __init__(self, *, size: int | None, sha256: bytes | None) -> None:
        self.size = 0
        self._expected_size = size
        self._expected_sha256 = sha256
        self._sha256 = new_sha256()
        self._xxh3 = xxh3_128()

    def add(self, piece: bytes | memoryview) -> None:
        """Raises ValueError as soon as there are too many."""
        self.size += len(piece)
        if self._expected_size is not None and self.size > self._expected_size:
            raise ValueError(f"more than {self._expected_size} bytes came")
        self._sha256.update(piece)
        self._xxh3.update(piece)

    def finish(self) -> StoredObject:
        """Raises ValueError for another size, DigestMismatch for another hash than expected."""
        if self._expected_size is not None and self.size != self._expected_size:
            raise ValueError(f"{self.size} bytes came instead of {self._expected_size}")
        stored = StoredObject(self.size, self._sha256.digest(), self._xxh3.digest())
        if self._expected_sha256 is not None and stored.sha256 != self._expected_sha256:
            raise DigestMismatch
        return stored
