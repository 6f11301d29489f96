"""The memory a set of settings can come to, as a number: for the start-up line, for `settings`, and for
MAX_CONCURRENT_UPLOADS=auto.

The figures per item are ceilings: what `make bench` measured, rounded up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

KIB = 1024
MIB = 1024 * 1024

IDLE = 80 * MIB  # the process with nothing to do, after its first busy hour
PER_UPLOAD = 768 * KIB  # one read, one mailbox, one batch for the store
PER_DOWNLOAD = 1024 * KIB  # one piece, the socket's buffer, two objects opened ahead
PER_CONNECTION = 24 * KIB  # parser, task, first 4 KiB of a request
PER_PASSWORD_CHECK = 20 * MIB  # Argon2id's memory

_FEWEST, _MOST = 4, 1000
_DEFAULT_PLACES = 50
_CGROUP_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, slots=True)
class Load:
    """As much of everything as the settings allow at the same moment."""

    uploads: int
    downloads: int
    connections: int
    password_checks: int


def ceiling(load: Load) -> int:
    """Bytes of resident memory that the service stays under at that load (PostgreSQL not included)."""
    return (
        IDLE
        + load.uploads * PER_UPLOAD
        + load.downloads * PER_DOWNLOAD
        + load.connections * PER_CONNECTION
        + load.password_checks * PER_PASSWORD_CHECK
    )


def places_within(limit: int | None, *, downloads: int, connections: int, password_checks: int) -> int:
    """How many uploads at once fit into `limit` bytes beside everything else; the default where there is no limit."""
    if limit is None:
        return _DEFAULT_PLACES
    rest = limit - ceiling(Load(0, downloads, connections, password_checks))
    return max(_FEWEST, min(_MOST, rest // PER_UPLOAD))


def memory_limit(files: Iterable[str] = _CGROUP_FILES) -> int | None:
    """The container's memory limit in bytes (cgroup v2, then v1), None if there is none."""
    for name in files:
        try:
            text = Path(name).read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < 2**60:  # cgroup v1 writes "no limit" as a huge number
            return int(text)
    return None
