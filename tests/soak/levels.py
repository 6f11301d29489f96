"""What the server holds on to at one moment: from /proc, and from its own /metrics."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.proc import Holdings, descendants, rss_mib
from tests.soak.slope import Rule

MEMORY = Rule(noise_per_hour=18, step=1.5, find_per_hour=60)  # MiB
# Backends of PostgreSQL fill caches of their own, each at its own pace.
DATABASE_MEMORY = Rule(noise_per_hour=30, step=5, find_per_hour=120)
COUNT = Rule(noise_per_hour=6, step=1.5, find_per_hour=60)


@dataclass(frozen=True)
class Quantity:
    """`metric`: its name in /metrics; None when it comes from /proc. `at_rest`: the level that rest must have."""

    name: str
    rule: Rule
    metric: str | None = None
    at_rest: float | None = None


QUANTITIES = (
    Quantity("memory, RSS (MiB)", MEMORY),
    Quantity("memory, anonymous (MiB)", MEMORY),
    Quantity("threads", COUNT),
    Quantity("descriptors", COUNT),
    Quantity("sockets", COUNT),
    Quantity("PostgreSQL processes", COUNT),
    Quantity("PostgreSQL connections", COUNT),
    Quantity("PostgreSQL private memory (MiB)", DATABASE_MEMORY),
    Quantity("tasks", COUNT, "gauzian_tasks"),
    Quantity("connections open", COUNT, "gauzian_connections_open", 1),  # the one that asks
    Quantity("connections lingering", COUNT, "gauzian_connections_lingering", 0),
    Quantity("requests in flight", COUNT, "gauzian_http_requests_in_flight", 1),  # the one that asks
    Quantity("upload places taken", COUNT, "gauzian_upload_places_taken", 0),
    Quantity("download places taken", COUNT, "gauzian_download_places_taken", 0),
    Quantity("database connections lent", COUNT, 'gauzian_database_connections{state="lent"}', 0),
    Quantity("database connections waited for", COUNT, "gauzian_database_waiting", 0),
)

Levels = dict[str, float]


def levels_of(pid: int, metrics: dict[str, float]) -> Levels:
    """Every quantity once. Raises KeyError when /metrics does not show one of them."""
    held = Holdings.of(pid)
    family = descendants(pid)
    levels = {
        "memory, RSS (MiB)": rss_mib(pid),
        # Without pages of files, whose share depends on who else has them mapped.
        "memory, anonymous (MiB)": rollup_mib(pid, "Anonymous"),
        "threads": float(held.threads),
        "descriptors": float(held.descriptors),
        "sockets": float(held.sockets),
        "PostgreSQL processes": float(len(family)),
        "PostgreSQL connections": float(held.database_connections),
        "PostgreSQL private memory (MiB)": sum(rollup_mib(child, "Pss_Anon") for child in family),
    }
    return levels | {item.name: metrics[item.metric] for item in QUANTITIES if item.metric is not None}


def rollup_mib(pid: int, field: str) -> float:
    """One line of /proc/<pid>/smaps_rollup; 0 of a process that has just ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
    return 0.0


def middle_of(several: Sequence[Levels]) -> Levels:
    """The median of each quantity: one passing piece does not count."""
    return {name: statistics.median(levels[name] for levels in several) for name in several[0]}


def restless(levels: Levels) -> list[str]:
    """What is still held although nobody asks for anything."""
    return [
        f"{item.name} {levels[item.name]:g}"
        for item in QUANTITIES
        if item.at_rest is not None and levels[item.name] > item.at_rest
    ]
