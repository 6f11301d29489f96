"""What the process holds: glibc made to give back what was freed."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from typing import Any

_M_ARENA_MAX = -8
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

# Above all pieces and batches: mapping those each time anew costs several times their hashing.
_MAPPED_FROM = 16 * 1024 * 1024


_ONCE_MORE_SECONDS = 2.0


class Allocator:
    """glibc's malloc. Absent elsewhere: then nothing here does anything."""

    def __init__(self) -> None:
        self._mallopt: Any = None
        self._malloc_trim: Any = None
        with contextlib.suppress(OSError, AttributeError, TypeError):
            libc = ctypes.CDLL(None)
            self._mallopt, self._malloc_trim = libc.mallopt, libc.malloc_trim

    def limit_arenas(self) -> None:
        """Two arenas instead of eight per core: each keeps free memory to itself. To be called before threads start.

        And Argon2's 19 MiB stay apart, mapped and unmapped: glibc would raise its threshold to the first block of that
        size that is freed, take the next one from the heap, and keep it there.
        """
        if self._mallopt is not None:
            self._mallopt(_M_ARENA_MAX, 2)
            self._mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM)
            self._mallopt(_M_TRIM_THRESHOLD, 2 * _MAPPED_FROM)

    def collect(self) -> None:
        """Circles that libraries leave (an HTTP client's connections, some KiB each) would lie here until the next
        crowd: with nothing to do nothing makes Python look for them."""
        gc.collect()

    def give_back(self) -> None:
        """Return free pages to the system. 0.3 ms when there is nothing to do, 1-2 ms under load; not in a thread,
        because everybody who allocates would wait for it all the same."""
        if self._malloc_trim is not None:
            self._malloc_trim(0)


def settle() -> None:
    """What the program is made of is never garbage: a collection need not look at it again, and takes a millisecond."""
    gc.collect()
    gc.freeze()


class Keeper:
    """Decides when memory is given back: while there is work every `seconds`, after the last of it soon, and once more.

    Once more, because what a crowd leaves is not all free when the last of it has been counted: the tasks of five
    thousand connections end a few hundred milliseconds later, and what Python keeps of them for its next objects (free
    lists, which a collection empties) would hold tens of MiB of their memory.
    """

    def __init__(self, allocator: Allocator, *, seconds: float) -> None:
        self._allocator = allocator
        self._seconds = seconds
        self._last = 0.0
        self._done_before = 0
        self._owed = 0

    def look(self, now: float, *, busy: bool, done: int) -> None:
        """`done` counts whatever is done here: as long as it stands still nothing can have become free."""
        if busy or done != self._done_before:
            self._owed = 2
            self._done_before = done
        if self._owed and now - self._last >= (self._seconds if self._owed == 2 else _ONCE_MORE_SECONDS):
            self._last = now
            if not busy:
                self._owed -= 1
                self._allocator.collect()
            self._allocator.give_back()
