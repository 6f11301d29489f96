"""Rows about memory on the way in: at rest, a full house, the storm, bodies that are too large."""

from __future__ import annotations

import time
from dataclasses import asdict

from tests.bench.account import User
from tests.bench.bench import Bench, Line, answers, plus
from tests.bench.load import Load, merged
from tests.bench.payload import CHUNK_BYTES, GB, MIB
from tests.bench.plan import Group, Outcome, Plan
from tests.bench.proc import MemoryWatch, cpu_seconds

FULL_HOUSE = 50
STORM_CLIENTS = 1000
CROWD = 200
PROBE_EVERY_SECONDS = 0.02
STORM_SECONDS = 60.0


def idle(bench: Bench) -> list[Line]:
    figures = {"idle_mib": bench.idle_mib, "used_mib": bench.used_mib}
    note = "before the first request: the zero of all rows; "
    note += f"{plus(bench.used_mib - bench.idle_mib)} at rest after everything was used once"
    return [Line("idle", f"{bench.idle_mib:.1f} MiB", "≤ 72 MiB", bench.idle_mib <= 72, note, figures)]


def raw(bench: Bench) -> list[Line]:
    return _full_house(bench, "50 × 10 MiB at once, raw", bench.pick(disk=36, s3=24), User.raw_chunks)


def json_base64(bench: Bench) -> list[Line]:
    return _full_house(bench, "50 × 10 MiB at once, JSON/base64", 56, User.json_chunks)


def multipart(bench: Bench) -> list[Line]:
    return _full_house(bench, "50 × 10 MiB at once, multipart", 56, User.multipart_chunks)


def _full_house(bench: Bench, title: str, most_mib: float, chunks: object) -> list[Line]:
    assert callable(chunks)
    with bench.uploads(FULL_HOUSE) as files:
        groups: list[Group] = [chunks(user, file_id, clients) for user, file_id, clients in files]
        with MemoryWatch(bench.server.pid, every_seconds=0.05) as watch:
            outcome = bench.run(*groups, deadline_seconds=90)
        time.sleep(3)
        later = bench.over_idle(0.3)
    peak = bench.peak_over_idle(watch)
    holds = peak <= most_mib and outcome.answered_all and outcome.read(200) == FULL_HOUSE
    note = f"{plus(later)} after 3 s; {answers(outcome)} in {outcome.seconds:.1f} s"
    figures = {"peak_mib": peak, "after_3s_mib": later, **asdict(outcome)}
    return [Line(title, f"peak {plus(peak)}", f"≤ {plus(most_mib)}", holds, note, figures)]


# -- the storm


class StormRound:
    """One storm: so many clients at once, a probe beside them, the server's memory meanwhile."""

    def __init__(self, bench: Bench, clients: int, size: int) -> None:
        with bench.uploads(clients, size) as files:
            storm = [user.raw_chunks(file_id, share, payload=size) for user, file_id, share in files]
            probe = Group(
                "probe", 100_000, "GET /health/live", ("Connection: close",), pace_seconds=PROBE_EVERY_SECONDS
            )
            port = bench.server.port
            with (
                Load(Plan(port, tuple(storm), STORM_SECONDS)) as crowd,
                Load(Plan(port, (probe,), STORM_SECONDS + 20, until_stopped=True)) as prober,
                MemoryWatch(bench.server.pid) as self.watch,
            ):
                prober.go()
                cpu = cpu_seconds(bench.server.pid)
                crowd.go()
                crowd.result()
                self.cpu_seconds = round(cpu_seconds(bench.server.pid) - cpu, 2)
                prober.stop()
                prober.result()
        self.seconds, self.driver_cpu_seconds = crowd.seconds, crowd.cpu_seconds
        self.outcome, self.probe = merged(crowd.groups), prober.groups["probe"]
        self.peak_mib = bench.peak_over_idle(self.watch)
        self.rest_mib = 0.0

    @property
    def read_all(self) -> bool:
        outcome = self.outcome
        served = outcome.statuses.get("200", 0) + outcome.statuses.get("400 uploads_busy", 0)
        return outcome.answered_all and served == outcome.started and outcome.read(200) > 0

    def figures(self) -> dict[str, object]:
        return {
            "peak_mib": self.peak_mib,
            "rest_mib": self.rest_mib,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "driver_cpu_seconds": self.driver_cpu_seconds,
            "clients": asdict(self.outcome),
            "probe": asdict(self.probe),
            "memory": self.watch.series,
        }


def storm(bench: Bench) -> list[Line]:
    rounds = []
    for _ in range(2 if bench.quick else 5):
        one = StormRound(bench, STORM_CLIENTS, CHUNK_BYTES)
        time.sleep(3 if bench.quick else 10)
        one.rest_mib = bench.over_idle()
        rounds.append(one)
    time.sleep(2 if bench.quick else 19)
    return [*_storm_memory(rounds, bench.over_idle(), 5 if bench.quick else 30), _storm_probe(rounds)]


def _storm_memory(rounds: list[StormRound], later: float, later_seconds: int) -> list[Line]:
    peak = max(one.peak_mib for one in rounds)
    read = sum(one.outcome.read() for one in rounds)
    total = sum(one.outcome.started for one in rounds)
    everyone = merged({str(number): one.outcome for number, one in enumerate(rounds)})
    times = "/".join(f"{one.seconds:.1f}" for one in rounds)
    cost = f"{times} s, CPU {'/'.join(f'{one.cpu_seconds:.1f}' for one in rounds)} s"
    figures = {"rounds": [one.figures() for one in rounds], "later_mib": later}
    second, last = rounds[1], rounds[-1]
    grows = max(last.peak_mib - second.peak_mib, last.rest_mib - second.rest_mib)
    peaks, rests = ("/".join(f"{value:.0f}" for value in values) for values in _columns(rounds))
    return [
        Line(
            f"storm: {STORM_CLIENTS} × 10 MiB, 50 places, four users",
            f"{read} of {total} read",
            "all: 200 or 400 busy",
            all(one.read_all for one in rounds),
            f"{len(rounds)} rounds: {answers(everyone)}; {cost}",
            figures,
        ),
        Line("storm: peak", f"peak {plus(peak)}", "≤ +64 MiB", peak <= 64, f"rounds {peaks}"),
        Line(
            "storm: afterwards", f"{plus(later)}", "≤ +16 MiB", later <= 16, f"{later_seconds} s after the last round"
        ),
        Line(
            "storm: last round against the second",
            f"{plus(grows)}",
            "≤ +4 MiB",
            grows <= 4,
            f"the worse of peak ({peaks}) and rest 10 s after ({rests})",
        ),
    ]


def _columns(rounds: list[StormRound]) -> tuple[list[float], list[float]]:
    return [one.peak_mib for one in rounds], [one.rest_mib for one in rounds]


def _storm_probe(rounds: list[StormRound]) -> Line:
    probes = [one.probe for one in rounds]
    p99, worst = max(probe.p99_ms for probe in probes), max(probe.max_ms for probe in probes)
    asked, read = sum(probe.started for probe in probes), sum(probe.read(200) for probe in probes)
    p50 = max(probe.p50_ms for probe in probes)
    return Line(
        "storm: GET /health/live, new connection each",
        f"p99 {p99:.0f}, max {worst:.0f} ms",
        "p99 ≤ 250, max ≤ 2000 ms",
        p99 <= 250 and worst <= 2000 and asked == read,
        f"worst round; p50 {p50:.0f} ms; {read} of {asked} answered 200",
        {"probes": [asdict(probe) for probe in probes]},
    )


# -- too large


def declared_giants(bench: Bench) -> list[Line]:
    """Clients with 1 GB to send that stop as soon as they see the answer."""
    with bench.uploads(CROWD, GB) as files:
        groups = [
            user.raw_chunks(file_id, clients, payload=GB, declared=GB, watch=True) for user, file_id, clients in files
        ]
        return _refused(bench, f"{CROWD} × declared 1 GB, watching for the answer", groups)


def endless_chunked(bench: Bench) -> list[Line]:
    """Clients that do not say how much comes, and send 20 MiB before they look."""
    size = 20 * MIB
    with bench.uploads(CROWD, size) as files:
        groups = [user.raw_chunks(file_id, clients, payload=size, chunked=True) for user, file_id, clients in files]
        return _refused(bench, f"{CROWD} × 20 MiB without a length, all sent first", groups, "each has a place; ")


def _refused(bench: Bench, title: str, groups: list[Group], note: str = "") -> list[Line]:
    with MemoryWatch(bench.server.pid, every_seconds=0.05) as watch:
        outcome: Outcome = bench.run(*groups, deadline_seconds=90)
    peak = bench.peak_over_idle(watch)
    count = outcome.read(413)
    note += f"{answers(outcome)} in {outcome.seconds:.1f} s, {outcome.sent_bytes / GB:.2f} GB sent"
    holds = count == CROWD and outcome.answered_all and peak <= 32
    measured = f"{count} × 413, peak {plus(peak)}"
    return [Line(title, measured, f"{CROWD} × 413, ≤ +32 MiB", holds, note, {"peak_mib": peak, **asdict(outcome)})]
