"""H, the yardstick for CPU: what hashlib.sha256 costs per GB on this machine at this moment."""

from __future__ import annotations

import hashlib
import time

from tests.bench.payload import GB, MIB


def hash_cost(payload: bytes, total_bytes: int) -> float:
    """CPU seconds per GB of hashing `total_bytes`, measured on this thread."""
    view, left = memoryview(payload), total_bytes
    digest = hashlib.sha256()
    before = time.thread_time()
    while left > 0:
        for start in range(0, min(left, len(view)), MIB):
            digest.update(view[start : start + MIB])
        left -= len(view)
    return (time.thread_time() - before) * GB / (total_bytes - left)
