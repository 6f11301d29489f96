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


@dataclass
class PerGb:
    """What moving bytes cost in a few rounds, in H and in seconds per GB."""

    rounds: list[Round]
    costs: list[float]
    yardsticks: list[float]
    total: int
    answered: int

    @classmethod
    def measure(cls, bench: Bench, total: int, answered: int, one: Callable[[], Round]) -> PerGb:
        one()  # the first round warms files, caches and connections
        yardsticks, rounds = [hash_cost(bench.payload, total)], []
        for _ in range(3):
            rounds.append(one())
            yardsticks.append(hash_cost(bench.payload, total))
        return cls(rounds, [each.cpu * GB / total for each in rounds], yardsticks, total, answered)

    @property
    def ratios(self) -> list[float]:
        """Each round against the two measurements around it: the machine's own mood cancels out."""
        return [cost * 2 / (self.yardsticks[n] + self.yardsticks[n + 1]) for n, cost in enumerate(self.costs)]

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def is_whole(self) -> bool:
        return all(each.outcome.answered_all and each.outcome.read(200) == self.answered for each in self.rounds)

    def line(self, title: str, limit: float, goal: float) -> Line:
        rounds, ratio = self.rounds, self.ratio
        speed = statistics.median(self.total / each.load.seconds / 1e6 for each in rounds)
        database = statistics.median(each.database_cpu for each in rounds) * GB / self.total
        driver = statistics.median(each.load.cpu_seconds for each in rounds) * GB / self.total
        note = f"{statistics.median(self.costs):.2f} CPU-s/GB, H {statistics.median(self.yardsticks):.2f}; "
        note += f"rounds {'/'.join(f'{value:.2f}' for value in self.ratios)}; {speed:.0f} MB/s"
        note += f"; PostgreSQL {database:.2f}, driver {driver:.2f}"
        note += "" if self.is_whole else f"; {answers(rounds[-1].outcome)}"
        figures = {
            "ratio": ratio,
            "ratios": self.ratios,
            "cpu_s_per_gb": self.costs,
            "h_s_per_gb": self.yardsticks,
            "mb_per_s": speed,
            "outcomes": [asdict(each.outcome) for each in rounds],
        }
        holds, reached = self.is_whole and ratio <= limit, self.is_whole and ratio <= goal
        return Line(
            title, f"{ratio:.2f} H", f"≤ {limit:.1f} H", holds, note, figures, goal=f"≤ {goal:.1f} H", reached=reached
        )


def measure_in(bench: Bench) -> PerGb:
    requests = 2 if bench.quick else 10

    def one() -> Round:
        with bench.uploads(TEN, requests * CHUNK_BYTES) as files:
            groups = [user.raw_chunks(file_id, clients, requests=requests) for user, file_id, clients in files]
            return Round.run(bench, *groups)

    return PerGb.measure(bench, TEN * requests * CHUNK_BYTES, TEN * requests, one)


def bytes_in(bench: Bench) -> list[Line]:
    cost = measure_in(bench)
    bench.record.figures["in_h"] = cost.ratio
    limit, goal = bench.pick(disk=3.6, s3=3.4), bench.pick(disk=3.0, s3=2.8)
    return [cost.line("CPU per GB in, raw, ten connections", limit, goal)]


def bytes_out(bench: Bench) -> list[Line]:
    requests = 1 if bench.quick else 3
    with forty_mib_file(bench) as file_id:
        group = bench.users[0].downloads(file_id, TEN, requests=requests)
        total, answered = TEN * requests * DOWNLOAD_BYTES, TEN * requests
        cost = PerGb.measure(bench, total, answered, lambda: Round.run(bench, group))
    return [cost.line("CPU per GB out, whole file, ten connections", 1.6, 1.2)]


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
    note = f"rounds {'/'.join(f'{value:.2f}' for value in costs)}; PostgreSQL {database:.2f} ms"
    note += f"; answer p50 {worst.p50_ms:.0f}, p99 {worst.p99_ms:.0f} ms" + ("" if whole else f"; {answers(worst)}")
    figures = {
        "cpu_ms": cost,
        "rounds": costs,
        "per_second": rate,
        "outcomes": [asdict(each.outcome) for each in rounds],
    }
    title = "512-byte chunks, 20 connections"
    return [
        Line(
            title,
            f"{cost:.2f} ms CPU each, {rate:.0f} per s",
            "≤ 1.2 ms",
            whole and cost <= 1.2,
            note,
            figures,
            goal="≤ 0.85 ms, ≥ 1000/s",
            reached=whole and cost <= 0.85 and rate >= 1000,
        )
    ]
