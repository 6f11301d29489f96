"""A server's memory over time, with the moments at which storms began and ended: what the picture is drawn from."""

from __future__ import annotations

import time
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
    def from_json(cls, told: dict[str, Any]) -> Curve:
        series, storms = ([(first, second) for first, second in told[name]] for name in ("series", "storms"))
        return cls(series, storms, bool(told["killed"]))


class Recorder:
    """Notes when storms are, beside a watch that runs through all of them."""

    def __init__(self, watch: MemoryWatch) -> None:
        self._watch = watch
        self._storms: list[tuple[float, float]] = []
        self._began = 0.0

    def storm_begins(self) -> None:
        self._began = time.monotonic()

    def storm_ends(self) -> None:
        zero = self._watch.began
        self._storms.append((round(self._began - zero, 2), round(time.monotonic() - zero, 2)))

    def curve(self) -> Curve:
        return Curve(list(self._watch.series), self._storms, self._watch.killed)
