"""The end of a soak in words: what was done, what went wrong, and the table of levels."""

from __future__ import annotations

import math

from tests.bench.payload import MIB
from tests.soak.ledger import Ledger
from tests.soak.slope import Judgement
from tests.soak.watch import Watch
from tests.soak.world import PLACES

_WIDE = 36


def table(judgements: dict[str, Judgement]) -> list[str]:
    """`at most`: the slope's upper bound (99 %); `noise`: the slope that is none."""
    title = (
        f"{'at rest':<{_WIDE}} {'first':>8} {'last':>8} {'slope/h':>9} {'at least':>9} {'at most':>9} {'noise':>7}  ok?"
    )
    lines = [title, "─" * len(title)]
    for name, told in judgements.items():
        slope = told.slope
        figures = (slope.estimate, slope.low, slope.high, told.allowed) if slope else (math.nan,) * 4
        cells = "".join(f"{_figure(value):>{width}}" for value, width in zip(figures, (10, 10, 10, 8), strict=True))
        lines.append(f"{name:<{_WIDE}} {_figure(told.first):>8} {_figure(told.last):>8}{cells}  {told.verdict.value}")
    return lines


def _figure(value: float) -> str:
    if not math.isfinite(value):
        return "-" if math.isnan(value) else f"{value:+}"
    return f"{value:.1f}".removesuffix(".0").replace("-0", "0") if abs(value) < 0.05 else f"{value:.1f}"


def work_done(ledger: Ledger, watch: Watch) -> list[str]:
    places, most_places = watch.under_load("upload places taken")
    _, most_memory = watch.under_load("memory, RSS (MiB)")
    return [
        "acts: " + _counts(ledger.acts),
        "answers: " + _counts(ledger.answers),
        f"{ledger.sent_bytes / MIB:.0f} MiB sent, {ledger.received_bytes / MIB:.0f} MiB received, "
        f"{watch.cpu_seconds:.0f} s of the server's CPU",
        f"under load: {places:.1f} of {PLACES} places taken on average, {most_places:.0f} at most; "
        f"RSS at most {most_memory:.0f} MiB; the event loop at most {watch.worst_lag:.2f} s late",
    ]


def failures(ledger: Ledger) -> list[str]:
    lines = []
    for kind, count in ledger.failures.most_common():
        lines.append(f"FAILED {count} × {kind}")
        lines += [f"    {example}" for example in ledger.examples[kind]]
    return lines


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1]))
