"""Rows about how cost grows: memory of n uploads at once, of n connections that wait. Both must be straight lines."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tests.bench.bench import REST_SECONDS, Bench, Line, answers, plus
from tests.bench.fit import least_squares
from tests.bench.load import Load
from tests.bench.machine import wait_for
from tests.bench.payload import CHUNK_BYTES
from tests.bench.plan import Group, Plan
from tests.bench.proc import Holdings, MemoryWatch

UPLOADS = (1, 10, 50, 200)
CONNECTIONS = (100, 1000, 5000)
SETTINGS = {"MAX_CONCURRENT_UPLOADS": "200", "MAX_UPLOADS_PER_USER": "200", "MAX_CONNECTIONS": "6000"}
CONNECT_SECONDS = 20.0
STAY_SECONDS = 2 * CONNECT_SECONDS
HELD: dict[str, Any] = {"then": "hold", "hold_seconds": STAY_SECONDS}
BEGUN_BYTES = 64 * 1024
PLACES_TAKEN = "gauzian_upload_places_taken"
NO_FILE = "00000000-0000-4000-8000-000000000000"
# A line is straight when no point is further from it than this, or than this part of the largest rise.
MOST_MIB, MOST_PART = 8.0, 0.1


def uploads(bench: Bench) -> list[Line]:
    """n clients that send as fast as they can, and n that have sent half of their 10 MiB and wait.

    Those who send share a budget for reads: the first ten take most of it, and from there on it is a line. Those who
    wait show what an upload keeps by itself.
    """
    sending = [(float(clients), _sending(bench, clients)) for clients in UPLOADS]
    waiting = [(float(clients), _waiting(bench, clients)) for clients in UPLOADS]
    return [
        growth_line("memory of n uploads at once, sending", "upload", sending, line_from=10),
        growth_line("memory of n uploads at once, half sent, waiting", "upload", waiting),
    ]


def _sending(bench: Bench, clients: int) -> float:
    """The peak; the median of three crowds."""
    _rest(bench)
    return statistics.median(_crowd(bench, clients) for _ in range(1 if bench.quick else 3))


def _crowd(bench: Bench, clients: int) -> float:
    with bench.uploads(clients) as files:
        groups = [user.raw_chunks(file_id, share) for user, file_id, share in files if share]
        with MemoryWatch(bench.server.pid, every_seconds=0.05) as watch:
            outcome = bench.run(*groups, deadline_seconds=60)
    if not outcome.answered_all or outcome.read(200) != clients:
        raise RuntimeError(f"{clients} uploads: {answers(outcome)}")
    return bench.peak_over_idle(watch)


def _waiting(bench: Bench, clients: int) -> float:
    """At rest beside them, soon after the last of them has stopped sending."""
    _rest(bench)
    half: dict[str, Any] = {"send_at_most": CHUNK_BYTES // 2, "then": "hold", "hold_seconds": STAY_SECONDS}
    with bench.uploads(clients) as files:
        groups = tuple(user.raw_chunks(file_id, share, **half) for user, file_id, share in files if share)
        before = Holdings.of(bench.server.pid).sockets
        with Load(Plan(bench.server.port, groups, STAY_SECONDS)) as load:
            load.go()
            taken = wait_for(lambda: bench.server.metrics()[PLACES_TAKEN] >= clients, 10)
            if not taken:
                raise RuntimeError(f"{bench.server.metrics()[PLACES_TAKEN]} of {clients} uploads have a place")
            # What was freed on the way goes back every five seconds while there is work.
            time.sleep(7)
            rise = bench.over_idle()
        wait_for(lambda: Holdings.of(bench.server.pid).sockets <= before, CONNECT_SECONDS)
    return rise


def _rest(bench: Bench) -> None:
    """A whole rest, in a quick run as well: one point's leavings would be the next one's rise."""
    wait_for(lambda: bench.server.rss_mib(0.0) < bench.used_mib + 1, REST_SECONDS)


# Connections of three kinds, each kept until all are there and a second longer. Each kind wants a server of its own:
# what Python keeps of five thousand connections for the next ones is no zero for another kind.


def idle_connections(bench: Bench) -> list[Line]:
    def idle(count: int) -> Group:
        return Group("idle", count, "GET /health/live", stay_seconds=STAY_SECONDS)

    return [_kind(bench, "answered once and kept alive", idle)]


def unfinished_connections(bench: Bench) -> list[Line]:
    def unfinished(count: int) -> Group:
        return Group("head", count, "GET /health/live", (f"X-Long: {'x' * 4000}",), send_at_most=3000, **HELD)

    return [_kind(bench, "3000 bytes of a request's head", unfinished)]


def refused_connections(bench: Bench) -> list[Line]:
    def refused(count: int) -> Group:
        return bench.users[0].raw_chunks(NO_FILE, count, send_at_most=BEGUN_BYTES, **HELD)

    return [_kind(bench, "refused after 64 KiB of its 10 MiB, still there", refused)]


def _kind(bench: Bench, name: str, group: Callable[[int], Group]) -> Line:
    points = [(float(count), _held(bench, group(count))) for count in CONNECTIONS]
    _rest(bench)
    left = f"; {plus(bench.over_idle())} when all are gone"
    return growth_line(f"memory of n waiting connections: {name}", "connection", points, left=left)


def _held(bench: Bench, group: Group) -> float:
    """Peak while so many are open. The server is asked nothing meanwhile; its sockets are counted from outside."""
    _rest(bench)
    pid = bench.server.pid
    before = Holdings.of(pid).sockets
    with MemoryWatch(pid) as watch:
        with Load(Plan(bench.server.port, (group,), STAY_SECONDS)) as load:
            load.go()
            if not wait_for(lambda: Holdings.of(pid).sockets >= before + group.clients, CONNECT_SECONDS):
                raise RuntimeError(f"{Holdings.of(pid).sockets - before} of {group.clients} connections are open")
            time.sleep(1)
        peak = bench.peak_over_idle(watch)
    wait_for(lambda: Holdings.of(pid).sockets <= before + 10, CONNECT_SECONDS)
    return peak


def growth_line(
    title: str, each: str, points: list[tuple[float, float]], *, line_from: float = 0, left: str = ""
) -> Line:
    """A line through the points from `line_from` on; those before it must not lie above it."""
    fit = least_squares([point for point in points if point[0] >= line_from])
    above = max([rise - fit.at(count) for count, rise in points if count < line_from], default=0.0)
    most = max(MOST_MIB, MOST_PART * max(rise for _, rise in points))
    told = ", ".join(f"{count:.0f}: {rise:+.1f}" for count, rise in points)
    where = f" (from {line_from:.0f} on)" if line_from else ""
    return Line(
        title,
        f"{fit.slope * 1024:.0f} KiB per {each}",
        f"a line, all within {most:.0f} MiB",
        max(fit.worst, above) <= most,
        f"MiB over idle, {told}; {fit.intercept:.1f} MiB + {fit.slope * 1024:.1f} KiB × n{where}, "
        f"worst point {fit.worst:.1f} MiB off, R² {fit.r_squared:.3f}{left}",
        {"points": points, **asdict(fit)},
    )
