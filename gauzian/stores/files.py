"""Reading and writing files in pieces: what the disk store and the spool share."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from gauzian.bytebudget import ByteBudget, Held
from gauzian.errors import StoreDown, StoreFull
from gauzian.stores.base import TURN_BYTES
from gauzian.stores.threads import MIB, FileThreads, Strand

log = logging.getLogger(__name__)

T = TypeVar("T")

# writev takes at most IOV_MAX (1024) pieces at once.
_MOST_PIECES = 1000
# What is asked of the kernel ahead of a read that had to wait: page cache, not our memory.
_READAHEAD_BYTES = 2 * MIB
_FULL = {errno.ENOSPC, errno.EDQUOT}


async def file_work(work: Awaitable[T]) -> T:
    """The seam to the operating system: its errors end here."""
    try:
        return await work
    except OSError as error:
        log.warning("file system: %s", os.strerror(error.errno or errno.EIO))
        raise (StoreFull() if error.errno in _FULL else StoreDown()) from error


class Batch:
    """Pieces on their way to a file, collected until they are worth a hop to a thread."""

    def __init__(self, budget: ByteBudget) -> None:
        self.pieces: list[bytes] = []
        self._held = Held(budget)

    def add(self, piece: bytes) -> None:
        self.pieces.append(piece)
        self._held.hold(len(piece))

    @property
    def size(self) -> int:
        return self._held.size

    @property
    def full(self) -> bool:
        return self.size >= self._held.budget.share or len(self.pieces) >= _MOST_PIECES

    async def hand_over(self, take: Callable[[list[bytes]], Awaitable[None]]) -> None:
        """All that has been collected; it is ours, and counts, until `take` has ended."""
        pieces, self.pieces = self.pieces, []
        try:
            await take(pieces)
        finally:
            self._held.drop()

    def drop(self) -> None:
        self.pieces.clear()
        self._held.drop()


def write_all(fd: int, pieces: Sequence[bytes | memoryview]) -> int:
    """One writev, and more when it took less than everything (a disk about to be full, a signal); how many bytes."""
    left: list[bytes | memoryview] = list(pieces)
    total = 0
    while left:
        written = os.writev(fd, left)
        if written == 0:
            raise OSError(errno.EIO, "writev took nothing")
        total += written
        left = _after(left, written)
    return total


def _after(pieces: list[bytes | memoryview], written: int) -> list[bytes | memoryview]:
    for position, piece in enumerate(pieces):
        if written < len(piece):
            return [memoryview(piece)[written:], *pieces[position + 1 :]]
        written -= len(piece)
    return []


class FilePieces:
    """The bytes [start, end) of an open file as pieces, one per `__anext__`, each read when it is asked for.

    What lies in the page cache is read right here on the event loop: RWF_NOWAIT promises not to wait for the disk, and
    a hop to a thread costs three times the copy. The rest is read in a thread, with word to the kernel what comes next.
    A piece counts in `held` until the next one is asked for; whoever made that drops the last one: a dropped iterator
    ends nobody knows when.
    """

    def __init__(self, fd: int, start: int, end: int, *, held: Held, threads: FileThreads, strand: Strand) -> None:
        self._fd = fd
        self._at = start
        self._end = end
        self._since_turn = 0
        self._held = held
        self._cached = threads.cached
        self._strand = strand

    def __aiter__(self) -> FilePieces:
        return self

    async def __anext__(self) -> bytes:
        self._held.drop()
        if self._since_turn >= TURN_BYTES:
            self._since_turn = 0
            await asyncio.sleep(0)
        want = min(self._held.budget.share, self._end - self._at)
        if want <= 0:
            raise StopAsyncIteration
        piece = self._cached.read(self._fd, want, self._at)
        if piece is None:
            piece = await file_work(self._strand.run(_read_ahead, self._fd, want, self._at))
            self._since_turn = 0
        if not piece:
            raise StopAsyncIteration  # shorter than it was: the caller counts
        self._at += len(piece)
        self._since_turn += len(piece)
        self._held.hold(len(piece))
        return piece


def _read_ahead(fd: int, want: int, at: int) -> bytes:
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, at + want, _READAHEAD_BYTES, os.POSIX_FADV_WILLNEED)
    return os.pread(fd, want, at)
