"""A server's memory over time, with the moments at which storms began and ended: what the picture is drawn from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.bench.proc import MemoryWatch


@dataclass
class Curve:
    """`series`: seconds and MiB; `storms`: begin and end of each round on the same clock."""

    series: list[tuple[float, float]] = field(default_factory=list)
    storms: list[tuple[float, float]] = field(default_factory=list)
    killed: bool = False  # the process grew over what the machine can give, and was ended

    @classmethod
    def of(cls, watch: MemoryWatch, storms: list[tuple[float, float]]) -> Curve:
        """`storms` by the clock of time.monotonic()."""
        marks = [(round(begin - watch.began, 2), round(end - watch.began, 2)) for begin, end in storms]
        return cls(list(watch.series), marks, watch.killed)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Curve:
        series, storms = ([(first, second) for first, second in told[name]] for name in ("series", "storms"))
        return cls(series, storms, bool(told["killed"]))
