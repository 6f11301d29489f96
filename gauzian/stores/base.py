"""Seam 1: what the rest of the house may rely on, whatever keeps the objects."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

# What a reader may take before others get their turn: 0.2 ms of a core on the way out.
TURN_BYTES = 256 * 1024
# A client must take a piece within the time that it may stall.
MOST_PIECE_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a store says about an object it has just taken: counted and hashed from the bytes as they went by."""

    size: int
    sha256: bytes  # 32 bytes
    xxh3: bytes  # 16 bytes: XXH3-128, what downloads are checked with (SHA-256 costs 20 times as much)


@dataclass(frozen=True, slots=True)
class ListedObject:
    key: str
    size: int
    modified: datetime  # aware, UTC, by the store's clock


class ObjectMissing(Exception):
    """There is no object of that name."""


@runtime_checkable
class Passing(Protocol):
    """Beside `__anext__`, what the pieces of some stores can do: bytes that never become a piece."""

    async def pass_on(self, sink: Callable[[memoryview], int], most: int) -> list[bytes] | None:
        """Hand what comes to `sink` as it comes, until that was `most` bytes or it did not take all of them.

        `sink` must not fail; it returns how much of the front of its bytes is done with, and has them for that moment
        only. The answer is what it did not take, as pieces of at most MOST_PIECE_BYTES, to be let go of before
        anything else is asked for. None: not this way now, ask for a piece. Raises StoreDown. Gives way to others.
        """
        ...


class ObjectStore(Protocol):
    """Objects by key. A key is ASCII, at most 200 characters, of [a-zA-Z0-9._-], not beginning with a dot.

    Every method may raise StoreDown (unreachable, refused, timed out, failed). Every wait has a bound.
    """

    async def put(
        self, key: str, pieces: AsyncIterable[bytes], *, size: int | None, sha256: bytes | None = None
    ) -> StoredObject:
        """Take the bytes of `pieces` as object `key`; return once they are durable.

        `size`: number of bytes if the caller knows it, None if not. `sha256`: what the bytes must hash to, if known.
        Whatever `pieces` raises comes out unchanged. Raises DigestMismatch (other hash than `sha256`), StoreFull,
        StoreDown, and ValueError when `pieces` gives another number of bytes than `size`.
        When it raises or is cancelled, no object of these bytes is there (best effort if the store has just died: the
        sweep finds it), and nothing else is left: no temporary file, no open connection, nobody reading `pieces`. An
        object that the key had before may be there or not: keys are used once. Not retried once a piece was asked for.
        `pieces` may be iterated in another task than the caller's, and is not closed. If it has a `tap` (see
        gauzian/tap.py), the store may take from there what has not been asked for as pieces.
        Memory: at most about a MiB however large the object, and a few MiB for all puts together.
        """
        ...

    def get(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open `length` bytes of the object from `start` (all of it by default) as pieces of at most
        MOST_PIECE_BYTES. They may be Passing.

        Entering raises ObjectMissing or StoreDown. The iterator ends early if the object is shorter than asked for (the
        caller counts) and raises StoreDown if the store fails midway. Leaving at any moment frees everything at once.
        Pieces are read as the caller asks for them: a slow caller holds back the store, not memory. `__anext__` gives
        way to other tasks at least every TURN_BYTES, before it reads: a caller that has let go of the last piece holds
        nothing meanwhile, and so the memory that all share is free for who has his turn.
        """
        ...

    async def delete_quietly(self, keys: Sequence[str]) -> int:
        """Remove these objects; absent ones are fine. Logs failures instead of raising (the sweep comes again).
        Returns how many were removed or were not there."""
        ...

    def list(self, prefix: str = "") -> AsyncIterator[ListedObject]:
        """All objects whose key begins with `prefix`, in no promised order, in bounded memory; no names but keys."""
        ...

    async def check(self) -> None:
        """Return if the store answers and can be written to, as far as that can be told cheaply, else StoreDown."""
        ...
