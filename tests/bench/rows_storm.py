"""Rows about a storm: a thousand clients with 10 MiB each, five thousand with 1 MiB each, and fifty places."""

from __future__ import annotations

from tests.bench.bench import Bench, Line, answers, plus
from tests.bench.load import merged
from tests.bench.payload import MIB
from tests.bench.plan import Outcome
from tests.bench.storms import STORM_CLIENTS, STORM_SECONDS, Storm, Storms

CROWD = 5000


def storm(bench: Bench) -> list[Line]:
    storms = Storms.run(bench)
    bench.record.curves[bench.store] = storms.curve
    bench.record.figures["storm_peak_mib"] = storms.peak_mib
    bench.record.figures["storm_cpu_per_gb_sent"] = storms.cpu_per_gb_sent
    return [_answers(storms), *_memory(storms), _probe(storms.rounds)]


def _answers(storms: Storms) -> Line:
    rounds, everyone = storms.rounds, storms.everyone()
    times = "/".join(f"{one.seconds:.1f}" for one in rounds)
    cost = f"{times} s, CPU {'/'.join(f'{one.cpu_seconds:.1f}' for one in rounds)} s"
    return Line(
        f"storm: {STORM_CLIENTS} × 10 MiB, 50 places, four users",
        f"{everyone.read()} of {everyone.started} read",
        "all: 200 or 400 busy",
        all(one.read_all for one in rounds),
        f"{len(rounds)} rounds: {answers(everyone)}; {cost}",
        {"rounds": [one.figures() for one in rounds], "later_mib": storms.later_mib},
    )


def _memory(storms: Storms) -> list[Line]:
    peak, later = storms.peak_mib, storms.later_mib
    second, last = storms.rounds[1], storms.rounds[-1]
    grows = max(last.peak_mib - second.peak_mib, last.rest_mib - second.rest_mib)
    peaks = "/".join(f"{one.peak_mib:.0f}" for one in storms.rounds)
    rests = "/".join(f"{one.rest_mib:.0f}" for one in storms.rounds)
    after = f"{storms.later_seconds} s after the last round"
    return [
        Line(
            "storm: peak",
            f"peak {plus(peak)}",
            "≤ +64 MiB",
            peak <= 64,
            f"rounds {peaks}",
            goal="≤ +40 MiB",
            reached=peak <= 40,
        ),
        Line(
            "storm: afterwards",
            plus(later),
            "≤ +16 MiB",
            later <= 16,
            after,
            goal="≤ +12 MiB",
            reached=later <= 12,
        ),
        Line(
            "storm: last round against the second",
            plus(grows),
            "≤ +4 MiB",
            grows <= 4,
            f"the worse of peak ({peaks}) and rest 10 s after ({rests})",
        ),
    ]


def _probe(rounds: list[Storm]) -> Line:
    probe, kept = _worst([one.probe for one in rounds]), _worst([one.kept for one in rounds])
    return Line(
        "storm: GET /health/live, new connection each",
        f"p99 {probe.p99_ms:.0f}, max {probe.max_ms:.0f} ms",
        "p99 ≤ 250, max ≤ 2000 ms",
        probe.p99_ms <= 250 and probe.max_ms <= 2000 and probe.started == probe.read(200),
        f"worst round; p50 {probe.p50_ms:.0f} ms; {probe.read(200)} of {probe.started} answered 200; {_said(kept)}",
    )


def _worst(outcomes: list[Outcome]) -> Outcome:
    """Counts of all rounds, times of the worst."""
    return merged({str(number): one for number, one in enumerate(outcomes)})


def _said(kept: Outcome) -> str:
    return f"on a kept connection p50 {kept.p50_ms:.0f}, p99 {kept.p99_ms:.0f}, max {kept.max_ms:.0f} ms"


# -- more connections than are let in


def five_thousand(bench: Bench) -> list[Line]:
    """Three thousand wait in the kernel at first: MAX_CONNECTIONS are let in.

    A new connection to the same port waits behind them there: nobody sees who stands in that queue, so nobody can be
    let forward. That is what PROBE_PORT is for, and a proxy's kept connection is in already.
    """
    one = Storm(bench, CROWD, MIB)
    outcome = one.outcome
    title = f"{CROWD} × 1 MiB, 50 places, 2000 connections let in"
    memory = f"{answers(outcome)} in {one.seconds:.1f} s, CPU {one.cpu_seconds:.1f} s"
    return [
        Line(
            title,
            f"{outcome.read()} read, last after {outcome.max_ms / 1000:.1f} s",
            f"all: 200 or 400 busy, ≤ {STORM_SECONDS:.0f} s",
            one.read_all,
            memory,
            one.figures(),
        ),
        Line(f"{CROWD} × 1 MiB: peak", f"peak {plus(one.peak_mib)}", "≤ +96 MiB", one.peak_mib <= 96),
        _probe_beside(one),
    ]


def _probe_beside(one: Storm) -> Line:
    probe, kept, aside = one.probe, one.kept, one.aside
    if aside is None:
        raise RuntimeError("this row needs a server with PROBE_PORT")
    told = f"{aside.read(200)} of {aside.started} answered 200; {_said(kept)}; new on the crowd's own port: "
    told += f"p50 {probe.p50_ms:.0f}, p99 {probe.p99_ms:.0f}, max {probe.max_ms:.0f} ms"
    answered = aside.started == aside.read(200) and probe.started == probe.read(200) and kept.answered_all
    return Line(
        f"{CROWD} × 1 MiB: GET /health/live on PROBE_PORT, new connection each",
        f"p99 {aside.p99_ms:.0f}, max {aside.max_ms:.0f} ms",
        "p99 ≤ 500 ms",
        answered and max(aside.p99_ms, kept.p99_ms) <= 500,
        told,
    )
