"""Rows about CPU: the server's user and system time per GB or per chunk, against H measured between the rounds."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass

from tests.bench.account import DOWNLOAD_BYTES
from tests.bench.bench import Bench, Line, answers
from tests.bench.hash_cost import hash_cost
from tests.bench.load import Load, merged
from tests.bench.payload import CHUNK_BYTES, GB
from tests.bench.plan import Group, Outcome
from tests.bench.proc import cpu_seconds, family_cpu_seconds
from tests.bench.rows_out import forty_mib_file

TEN = 10
SMALL_BYTES = 512


@dataclass
class Round:
    """One run of a crowd and what the server spent on it."""

    cpu: float
    database_cpu: float
    load: Load
    outcome: Outcome

    @classmethod
    def run(cls, bench: Bench, *groups: Group) -> Round:
        pid = bench.server.pid
        cpu, family = cpu_seconds(pid), family_cpu_seconds(pid)
        load = bench.load(*groups, deadline_seconds=120)
        cpu, family = cpu_seconds(pid) - cpu, family_cpu_seconds(pid) - family
        return cls(cpu, family, load, merged(load.groups))


def bytes_in(bench: Bench) -> list[Line]:
    requests = 2 if bench.quick else 10

    def one() -> Round:
        with bench.uploads(TEN, requests * CHUNK_BYTES) as files:
            groups = [user.raw_chunks(file_id, clients, requests=requests) for user, file_id, clients in files]
            return Round.run(bench, *groups)

    total = TEN * requests * CHUNK_BYTES
    limit = bench.pick(disk=3.6, s3=3.4)
    return [_per_gb(bench, "CPU per GB in, raw, ten connections", limit, total, TEN * requests, one)]


def bytes_out(bench: Bench) -> list[Line]:
    requests = 1 if bench.quick else 3
    with forty_mib_file(bench) as file_id:
        group = bench.users[0].downloads(file_id, TEN, requests=requests)
        total = TEN * requests * DOWNLOAD_BYTES
        title = "CPU per GB out, whole file, ten connections"
        return [_per_gb(bench, title, 1.6, total, TEN * requests, lambda: Round.run(bench, group))]


def _per_gb(bench: Bench, title: str, limit: float, total: int, answered: int, one: Callable[[], Round]) -> Line:
    one()  # the first round warms files, caches and connections
    yardsticks, rounds = [hash_cost(bench.payload, total)], []
    for _ in range(3):
        rounds.append(one())
        yardsticks.append(hash_cost(bench.payload, total))
    costs = [each.cpu * GB / total for each in rounds]
    # Each round against the two measurements around it: the machine's own mood cancels out.
    ratios = [cost * 2 / (yardsticks[n] + yardsticks[n + 1]) for n, cost in enumerate(costs)]
    ratio, speed = statistics.median(ratios), statistics.median(total / each.load.seconds / 1e6 for each in rounds)
    whole = all(each.outcome.answered_all and each.outcome.read(200) == answered for each in rounds)
    database = statistics.median(each.database_cpu for each in rounds) * GB / total
    spread = "/".join(f"{value:.2f}" for value in ratios)
    note = f"{statistics.median(costs):.2f} CPU-s/GB, H {statistics.median(yardsticks):.2f}; rounds {spread}"
    note += f"; {speed:.0f} MB/s"
    note += (
        f"; PostgreSQL {database:.2f}, driver {statistics.median(e.load.cpu_seconds for e in rounds) * GB / total:.2f}"
    )
    note += "" if whole else f"; {answers(rounds[-1].outcome)}"
    figures = {
        "ratio": ratio,
        "ratios": ratios,
        "cpu_s_per_gb": costs,
        "h_s_per_gb": yardsticks,
        "mb_per_s": speed,
        "outcomes": [asdict(each.outcome) for each in rounds],
    }
    return Line(title, f"{ratio:.2f} H", f"≤ {limit:.1f} H", whole and ratio <= limit, note, figures)


def small_chunks(bench: Bench) -> list[Line]:
    connections, requests = 20, 40 if bench.quick else 150
    total = connections * requests
    rounds = []
    # All are deleted in the end only: ext4 looks at each recently deleted inode before it makes a new one, and a round
    # would pay a quarter of its time for the files of the round before.
    with contextlib.ExitStack() as kept:
        for number in range(4):
            files = kept.enter_context(bench.uploads(connections, requests * SMALL_BYTES))
            groups = [
                user.raw_chunks(file_id, clients, payload=SMALL_BYTES, requests=requests)
                for user, file_id, clients in files
            ]
            one = Round.run(bench, *groups)
            if number:  # the first one warms up
                rounds.append(one)
    costs = [each.cpu * 1000 / total for each in rounds]
    cost = statistics.median(costs)
    rate = statistics.median(total / each.load.seconds for each in rounds)
    database = statistics.median(each.database_cpu * 1000 / total for each in rounds)
    worst = max(rounds, key=lambda each: each.outcome.p99_ms).outcome
    whole = all(each.outcome.answered_all and each.outcome.read(200) == total for each in rounds)
    note = f"{rate:.0f} per second; rounds {'/'.join(f'{value:.2f}' for value in costs)}; PostgreSQL {database:.2f} ms"
    note += f"; answer p50 {worst.p50_ms:.0f}, p99 {worst.p99_ms:.0f} ms" + ("" if whole else f"; {answers(worst)}")
    figures = {
        "cpu_ms": cost,
        "rounds": costs,
        "per_second": rate,
        "outcomes": [asdict(each.outcome) for each in rounds],
    }
    title = "512-byte chunks, 20 connections"
    return [Line(title, f"{cost:.2f} ms CPU each", "≤ 1.2 ms", whole and cost <= 1.2, note, figures)]
