"""Samples of what the server holds: every few seconds under load, and carefully at each rest."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass, field

from tests.bench.machine import Server, parse_metrics
from tests.bench.proc import cpu_seconds
from tests.soak.ledger import Wrong
from tests.soak.levels import QUANTITIES, Levels, levels_of, middle_of, restless
from tests.soak.slope import Judgement, judge
from tests.soak.wire import Request, exchange
from tests.soak.world import World

LOAD_EVERY_SECONDS = 3.0
REST_SAMPLES = 5
REST_EVERY_SECONDS = 0.4
QUIET_SECONDS = 20.0  # until nothing may be held any more: what was broken off is noticed late

Series = list[tuple[float, Levels]]


@dataclass
class Watch:
    """`loaded` and `rests`: seconds since the beginning, and the levels then."""

    world: World
    server: Server
    loaded: Series = field(default_factory=list)
    rests: Series = field(default_factory=list)
    worst_lag: float = 0.0
    cpu_seconds: float = 0.0  # of the server, up to the last rest

    async def keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOAD_EVERY_SECONDS)
            if self.world.open.is_set():
                try:
                    self.loaded.append((self._now(), await self._look()))
                except (Wrong, OSError, KeyError) as error:
                    self.world.ledger.fail("no sample", repr(error))

    async def rest(self, seconds: float) -> bool:
        """Nobody works: wait until nothing is held and memory had its time to go back, then look. Says whether there
        was something to see.
        """
        try:
            await self._rest(seconds)
        except (Wrong, OSError, KeyError) as error:
            self.world.ledger.fail("no sample at rest", repr(error))
            return False
        return True

    async def _rest(self, seconds: float) -> None:
        until = time.monotonic() + QUIET_SECONDS
        held = restless(await self._look())
        while held and time.monotonic() < until:
            await asyncio.sleep(0.2)
            held = restless(await self._look())
        if held:
            self.world.ledger.fail("held at rest", ", ".join(held))
        await asyncio.sleep(seconds)
        levels = []
        for _ in range(REST_SAMPLES):
            levels.append(await self._look())
            await asyncio.sleep(REST_EVERY_SECONDS)
        self.rests.append((self._now(), middle_of(levels)))
        self.cpu_seconds = cpu_seconds(self.server.pid)

    def judgements(self) -> dict[str, Judgement]:
        return {
            item.name: judge([(when, levels[item.name]) for when, levels in self.rests], item.rule)
            for item in QUANTITIES
        }

    def under_load(self, name: str) -> tuple[float, float]:
        """Mean and highest."""
        values = [levels[name] for _, levels in self.loaded] or [0.0]
        return statistics.fmean(values), max(values)

    def _now(self) -> float:
        return round(time.monotonic() - self.world.ledger.began, 2)

    async def _look(self) -> Levels:
        answer = await exchange(self.world.port, Request("GET", "/metrics"))
        metrics = parse_metrics(answer.body.decode())
        self.worst_lag = max(self.worst_lag, metrics.get("gauzian_event_loop_worst_lag_seconds", 0.0))
        return levels_of(self.server.pid, metrics)
