"""The last row: after everything the server holds what it held before, and no place is taken."""

from __future__ import annotations

import re
import time
from dataclasses import asdict

from tests.bench.bench import Bench, Line
from tests.bench.proc import Holdings

# Idle connections to the object store are closed by themselves, and what was cut off is noticed, after a while.
PATIENCE_SECONDS = 60.0
# The server needs a moment to notice that the connection we asked on is closed.
CALM_SECONDS = 0.5

# The default: as many as the pool may have, however many it had needed before.
DATABASE_CONNECTIONS = 10

# Gauges of /metrics that say what somebody holds at the moment, and those that count tasks.
TAKEN = re.compile(r"taken|in_flight|lingering|_waiting|state=\"lent\"")
TASKS = re.compile(r"tasks")


def grown(before: dict[str, int], now: dict[str, int]) -> list[str]:
    """What is more than before. Threads belong to pools that grow to their bound and stay: told, not judged. So do
    connections to PostgreSQL, each of which is a socket.
    """
    connections = now["database_connections"]
    pool = max(0, connections - before["database_connections"]) if connections <= DATABASE_CONNECTIONS else 0
    judged = ("descriptors", "sockets", "database_connections")
    return [f"{now[name]} {name}, were {before[name]}" for name in judged if now[name] > before[name] + pool]


class Look:
    """What the server holds now, and what of it is more than before."""

    def __init__(self, bench: Bench) -> None:
        time.sleep(CALM_SECONDS)
        self.now = Holdings.of(bench.server.pid)
        levels = bench.server.metrics()
        self.taken = {name: value for name, value in levels.items() if TAKEN.search(name)}
        self.tasks = {name: value for name, value in levels.items() if TASKS.search(name)}
        self.complaints = [*self._held(bench), *self._shown(bench)]

    def _held(self, bench: Bench) -> list[str]:
        assert bench.before is not None
        return grown(asdict(bench.before), asdict(self.now))

    def _shown(self, bench: Bench) -> list[str]:
        """The request for /metrics is itself in flight: so what was shown at rest is the measure, not 0."""
        shown = self.taken | self.tasks
        found = [
            f"{name} {value:g}, was {bench.levels.get(name, 0):g}"
            for name, value in shown.items()
            if value > bench.levels.get(name, 0)
        ]
        missing = [word for word in ("taken", "tasks") if not any(word in name for name in shown)]
        return found + [f"/metrics shows no {word}" for word in missing]


def after_everything(bench: Bench) -> list[Line]:
    assert bench.before is not None
    until = time.monotonic() + PATIENCE_SECONDS
    look = Look(bench)
    while look.complaints and time.monotonic() < until:
        look = Look(bench)
    now, before, shown = look.now, bench.before, look.taken | look.tasks
    note = f"{now.threads} threads, were {before.threads}; "
    note += "; ".join(look.complaints) or ", ".join(f"{name} {value:g}" for name, value in sorted(shown.items()))
    return [
        Line(
            "after everything: places, tasks, sockets, descriptors",
            f"{now.descriptors} fds, {now.sockets} sockets, {now.database_connections} PostgreSQL",
            f"≤ {before.descriptors}, {before.sockets}, {before.database_connections}; none taken",
            not look.complaints,
            note,
            {"before": asdict(before), "after": asdict(now), "levels": shown},
        )
    ]
