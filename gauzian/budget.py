"""The memory a set of settings can come to, as a number: for the start-up line, for `settings`, for README's table, and
for MAX_CONCURRENT_UPLOADS=auto.

The figures per item are ceilings: the slopes that `make bench` measures (its rows "memory of n ..."), and about half as
much again. The size of a chunk is in none of them: no chunk is ever in memory as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

KIB = 1024
MIB = 1024 * 1024

IDLE = 80 * MIB  # the process with nothing to do, after its first busy hour
SHARED = (
    24 * MIB
)  # what ten uploads and ten downloads at full speed take of the budgets that all share; more take no more
PER_UPLOAD = 200 * KIB  # its least shares of these budgets, parser, task, rows
PER_DOWNLOAD = 256 * KIB  # two least pieces, objects opened ahead, what the socket has not taken
PER_CONNECTION = 24 * KIB  # parser, task, first 4 KiB of a request; a refused one that still sends keeps most
PER_TLS = 80 * KIB  # on top, where TLS_CERT is set: asyncio's read buffer, OpenSSL's state
PER_PASSWORD_CHECK = 20 * MIB  # Argon2id's memory

_FEWEST, _MOST = 4, 1000
_DEFAULT_PLACES = 50
_CGROUP_ROOT = "/sys/fs/cgroup"
_CGROUP_FILES = ("memory.max", "memory/memory.limit_in_bytes")

# README's table: memory in MiB, and the downloads and connections that are reasonable beside it.
SIZES = ((160, 20, 200), (192, 50, 1000), (256, 100, 2000), (512, 200, 5000), (1024, 400, 10_000))


@dataclass(frozen=True, slots=True)
class Load:
    """As much of everything as the settings allow at the same moment."""

    uploads: int
    downloads: int
    connections: int
    password_checks: int
    tls: bool = False


def parts(load: Load) -> list[tuple[str, int]]:
    """What it is made of: a few words and bytes each."""
    per_connection = PER_CONNECTION + (PER_TLS if load.tls else 0)
    return [
        ("at rest", IDLE),
        ("for shared buffers", SHARED),
        (f"for {load.uploads} uploads", load.uploads * PER_UPLOAD),
        (f"for {load.downloads} downloads", load.downloads * PER_DOWNLOAD),
        (f"for {load.connections} connections", load.connections * per_connection),
        (f"for {load.password_checks} password checks", load.password_checks * PER_PASSWORD_CHECK),
    ]


def ceiling(load: Load) -> int:
    """Bytes of resident memory that the service stays under at that load (PostgreSQL not included)."""
    return sum(size for _, size in parts(load))


def told(load: Load) -> str:
    """`226 MiB: 80 at rest, 24 for shared buffers, 10 for 50 uploads, ...`"""
    return f"{_mib(ceiling(load))} MiB: " + ", ".join(f"{_mib(size)} {words}" for words, size in parts(load))


def misfit(load: Load, limit: int | None) -> str | None:
    """What to tell an operator whose settings can come to more than the memory limit; None if they fit."""
    if limit is None or ceiling(load) <= limit:
        return None
    return (
        f"these settings can come to {told(load)}; the memory limit is {_mib(limit)} MiB. "
        "Lower MAX_CONNECTIONS, MAX_CONCURRENT_DOWNLOADS or MAX_CONCURRENT_UPLOADS, or raise the limit"
    )


def _mib(size: int) -> int:
    return -(-size // MIB)


def places_within(
    limit: int | None, *, downloads: int, connections: int, password_checks: int, tls: bool = False
) -> int:
    """How many uploads at once fit into `limit` bytes beside everything else; the default where there is no limit."""
    if limit is None:
        return _DEFAULT_PLACES
    rest = limit - ceiling(Load(0, downloads, connections, password_checks, tls))
    return max(_FEWEST, min(_MOST, rest // PER_UPLOAD))


def memory_limit(root: str = _CGROUP_ROOT, own: str = "/proc/self/cgroup") -> int | None:
    """The tightest memory limit in bytes on this process's cgroup (version 2, then 1) and those above it, None if there
    is none. In a container ours is the root; under systemd it is not.
    """
    limits = [limit for name in _limit_files(root, own) if (limit := _limit_in(name)) is not None]
    return min(limits, default=None)


def _limit_files(root: str, own: str) -> Iterator[Path]:
    yield from (Path(root, name) for name in _CGROUP_FILES)
    try:
        lines = Path(own).read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        home, name = (root, "memory.max") if not controllers else (f"{root}/memory", "memory.limit_in_bytes")
        if controllers in ("", "memory"):
            here = path.strip("/")
            while here:
                yield Path(home, here, name)
                here = os.path.dirname(here)


def _limit_in(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    # cgroup v1 writes "no limit" as a huge number
    return int(text) if text.isdigit() and int(text) < 2**60 else None


def table() -> str:
    """README's sizing table, in Markdown: memory, and what fits into it by the arithmetic above."""
    lines = [
        "| memory | MAX_CONCURRENT_UPLOADS up to | MAX_CONCURRENT_DOWNLOADS | MAX_CONNECTIONS | chunk size "
        "| uploads if each chunk were in memory, and a copy of it |",
        "|---|---|---|---|---|---|",
    ]
    for size, downloads, connections in SIZES:
        places = places_within(size * MIB, downloads=downloads, connections=connections, password_checks=2)
        lines.append(f"| {size} MiB | {places} | {downloads} | {connections} | any | {_held_whole(size)} |")
    return "\n".join(lines)


def _held_whole(size: int) -> int:
    """The arithmetic this project began with: 50 such uploads of 10 MB need 1.2 GB, 0.2 of them for the program."""
    return max(0, (size * MIB - 200 * 1000**2) // (2 * 10 * 1000**2))


if __name__ == "__main__":
    print(table())
