"""Rows that compare: the naive handler under the same storm and the same load, against what ours needed in this run."""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass

from tests.bench import rows_cpu, rows_storm
from tests.bench.bench import Bench, Line, answers, plus
from tests.bench.machine import running_server
from tests.bench.proc import available_mib
from tests.bench.rows_cpu import PerGb
from tests.bench.storms import Storms

NAIVE = (sys.executable, "-m", "tests.bench.naive")
# Beyond it, or beyond this part of what the machine has to give, the naive server is ended.
MOST_MIB, MOST_PART = 16 * 1024.0, 0.7


@dataclass
class Figures:
    """What a naive server needed."""

    storms: Storms
    cost: PerGb | None  # None when the storm was its end


def naive(bench: Bench) -> list[Line]:
    """Two forms of it. On S3 only: the handler knows no disk."""
    lines: list[Line] = []
    if "storm_peak_mib" not in bench.record.figures:
        lines += rows_storm.storm(bench)
    if "in_h" not in bench.record.figures:
        lines += rows_cpu.bytes_in(bench)
    reads_first = _measured(bench, asks_first=False)
    bench.record.curves["naive"] = reads_first.storms.curve
    lines += _lines(bench, reads_first, "naive handler (body, then a place)")
    asks_first = _measured(bench, asks_first=True)
    bench.record.curves["naive, asks first"] = asks_first.storms.curve
    return lines + _lines(bench, asks_first, "naive handler (a place, then the body)")


def _measured(bench: Bench, *, asks_first: bool) -> Figures:
    settings = bench.settings | ({"NAIVE_ASKS": "first"} if asks_first else {})
    with running_server(settings, work=bench.work, command=NAIVE, name="naive") as server:
        other = Bench(bench.store, server, bench.quick)
        other.begin()
        # A fresh process for each: what the first storm leaves behind would only make the second worse.
        storms = Storms.run(other, most_mib=min(MOST_MIB, MOST_PART * available_mib()))
        return Figures(storms, rows_cpu.measure_in(other) if server.alive else None)


def _lines(bench: Bench, theirs: Figures, title: str) -> list[Line]:
    storms, cost = theirs.storms, theirs.cost
    return [
        _memory(bench, storms, title),
        _storm_cpu(bench, storms, title),
        *([_cpu(bench, cost, title)] if cost else []),
    ]


def _memory(bench: Bench, storms: Storms, title: str) -> Line:
    ours = bench.record.figures["storm_peak_mib"]
    peak, everyone = storms.peak_mib, storms.everyone()
    times = "/".join(f"{one.seconds:.0f}" for one in storms.rounds)
    note = f"{plus(peak)} against {plus(ours)}; {plus(storms.later_mib)} {storms.later_seconds} s later; "
    note += f"{answers(everyone)}; rounds {times} s"
    note += "; health p99 " + "/".join(f"{one.probe.p99_ms:.0f}" for one in storms.rounds) + " ms"
    note += "; ENDED there, the machine has no more for it" if storms.curve.killed else ""
    return Line(
        f"{title}: its rise in the storm",
        f"{peak / max(ours, 1.0):.0f} times ours",
        "≥ 25 times",
        peak >= 25 * ours,
        note,
        {
            "peak_mib": peak,
            "ours_mib": ours,
            "rounds": [one.figures() for one in storms.rounds],
        },
    )


def _storm_cpu(bench: Bench, storms: Storms, title: str) -> Line:
    """Of the bytes that clients sent, refused or not: the same crowd sends the same to both."""
    spent, ours = storms.cpu_per_gb_sent, bench.record.figures["storm_cpu_per_gb_sent"]
    return Line(
        f"{title}: its CPU per GB that clients sent in the storm",
        f"{spent / ours:.1f} times ours",
        "",
        None,
        f"{spent:.2f} against {ours:.2f} CPU-s/GB",
        {"cpu_s_per_gb_sent": [spent, ours]},
        goal="≥ 3 times",
        reached=spent >= 3 * ours,
    )


def _cpu(bench: Bench, cost: PerGb, title: str) -> Line:
    ours = bench.record.figures["in_h"]
    spent = statistics.median(cost.costs)
    return Line(
        f"{title}: its CPU per GB in, ten connections, nobody refused",
        f"{cost.ratio / ours:.1f} times ours",
        "",
        None,
        f"{cost.ratio:.2f} H ({spent:.2f} CPU-s/GB) against {ours:.2f} H",
        {"ratio": cost.ratio, "ours": ours, "cpu_s_per_gb": cost.costs},
        goal="≥ 3 times",
        reached=cost.ratio >= 3 * ours,
    )
