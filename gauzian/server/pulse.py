"""One heartbeat for the whole server: who is overdue, and how late the event loop is.

One timer for all connections instead of several per request: setting a deadline is an assignment, and looking at a
thousand idle connections costs a fraction of a millisecond.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

MOST_SECONDS = 0.25
_WINDOW_SECONDS = 30.0


class Pulse:
    """Calls `beat(now)` every `seconds`. `lag`: how late the last beat came; `worst_lag`: the worst of 30 to 60 s."""

    def __init__(self, beat: Callable[[float], None], *, seconds: float) -> None:
        self._beat = beat
        self._seconds = seconds
        self._handle: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self._window_began = self._loop.time()
        self._worst_now = self._worst_before = 0.0
        self.lag = 0.0

    @property
    def worst_lag(self) -> float:
        return max(self._worst_now, self._worst_before)

    def start(self) -> None:
        self._due = self._loop.time() + self._seconds
        self._handle = self._loop.call_at(self._due, self._tick)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _tick(self) -> None:
        now = self._loop.time()
        self._measure(now, late=max(0.0, now - self._due))
        self.start()  # first, so that a beat that raises is not the last
        self._beat(now)

    def _measure(self, now: float, *, late: float) -> None:
        self.lag = late
        if now - self._window_began >= _WINDOW_SECONDS:
            self._window_began, self._worst_before, self._worst_now = now, self._worst_now, 0.0
        self._worst_now = max(self._worst_now, late)
