"""Which bytes were asked for, and which chunks they lie in: numbers only, no I/O.

Offsets are half open as in Python: `start` is the first byte, `stop` the one after the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gauzian.errors import RangeNotSatisfiable

# A hundred digits: more than any size, and far from where int() refuses to convert.
_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,100})-([0-9]{0,100})[ \t]*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Slice:
    """The part of one chunk that is wanted: its bytes `start` to `stop`."""

    position: int  # of the chunk, in the sizes given to `plan`
    start: int
    stop: int


def parse_range(value: str | None, size: int) -> ByteRange | None:
    """The range that a Range header asks of `size` bytes; None: send everything.

    Malformed values, other units and several ranges at once are answered with everything, which RFC 9110 14.2 allows.
    So is any range of nothing: an empty file has no byte to be outside of. Raises RangeNotSatisfiable when no wanted
    byte exists.
    """
    match = _RANGE.fullmatch(value) if value is not None else None
    if match is None or size == 0:
        return None
    first, last = match.groups()
    if not first and not last:
        return None
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), size if not last else min(size, int(last) + 1)
        if last and int(last) < start:
            return None
    if start >= stop:
        raise RangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"})
    return ByteRange(start, stop)


def plan(start: int, stop: int, sizes: Iterable[int], *, offset: int = 0) -> Iterator[Slice]:
    """The slices that make up bytes `start` to `stop` of chunks with these `sizes`, the first of which begins at byte
    `offset`.
    """
    for position, size in enumerate(sizes):
        if offset >= stop:
            return
        wanted = Slice(position, max(0, start - offset), min(size, stop - offset))
        offset += size
        if wanted.start < wanted.stop:
            yield wanted
