"""When is an upload complete: the four rules, without any I/O.

1. the indices are exactly 0 ... n-1;  2. a size above 0 needs a chunk;  3. a declared number of chunks is n;
4. the stored bytes are explained by the declared size: each chunk is its plaintext plus one constant overhead.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

# Bytes that encryption adds to each chunk: none, the AES-GCM tag, or IV and tag.
OVERHEADS = (0, 16, 28)

Ranges = list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Facts:
    size: int  # declared plaintext bytes of the file
    declared_chunks: Collection[int]  # every number of chunks the client has named (initialize, finalize)
    count: int
    highest: int  # highest index that is there, -1 if none is
    stored_bytes: int
    first_size: int  # stored bytes of chunk 0, 0 if it is not there
    holes: Ranges  # missing runs below `highest`


def find_missing(facts: Facts, *, check_bytes: bool) -> tuple[str, Ranges] | None:
    """None when the upload is complete, else the rule that is broken and the index ranges still to come, as far as they
    can be told.
    """
    expected = max(facts.declared_chunks, default=facts.count)
    tail = [(facts.highest + 1, expected - 1)] if expected > facts.highest + 1 else []
    if facts.holes:
        return "indices", [*facts.holes, *tail]
    if any(number != facts.count for number in facts.declared_chunks):
        return "total_chunks", tail
    if facts.size > 0 and facts.count == 0:
        return "empty", [(0, 0)]
    if check_bytes and not _explained(facts):
        return "size", _tail_by_size(facts)
    return None


def _explained(facts: Facts) -> bool:
    return any(facts.stored_bytes - facts.size == facts.count * overhead for overhead in OVERHEADS)


def _tail_by_size(facts: Facts) -> Ranges:
    """All chunks but the last are as large as the first: how many would the declared size need? [] when that tells
    nothing.
    """
    for overhead in (16, 28, 0):
        plain = facts.first_size - overhead
        if plain > 0 and facts.stored_bytes == facts.count * facts.first_size:
            needed = math.ceil(facts.size / plain)
            if needed > facts.count:
                return [(facts.count, needed - 1)]
    return []
