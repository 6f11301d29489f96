"""Requests that bring a body take turns; those that bring none go first.

A crowd of a thousand uploads, most of them to be refused, is a second of work. Whoever asks for health or for a file
meanwhile must not stand behind all of it: so only a few such requests begin in one turn of the event loop, and the rest
wait here, in order.
"""

from __future__ import annotations

import asyncio
from collections import deque

# Methods that usually bring no body; what they cost is small and known.
_FIRST = (b"GET ", b"HEAD", b"OPTI")


class Turns:
    """`await turns.come(head)` before a request is begun; `head` is the first piece of it."""

    def __init__(self, per_turn: int) -> None:
        self._per_turn = per_turn
        self._begun = 0  # in this turn of the loop
        self._waiting: deque[asyncio.Future[None]] = deque()  # one per connection at most
        self._loop = asyncio.get_running_loop()
        self._scheduled = False

    async def come(self, head: bytes) -> None:
        if head.startswith(_FIRST):
            return
        self._schedule()
        if self._begun < self._per_turn and not self._waiting:
            self._begun += 1
            return
        turn = self._loop.create_future()
        self._waiting.append(turn)
        await turn

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        self._scheduled = False
        self._begun = 0
        while self._waiting and self._begun < self._per_turn:
            turn = self._waiting.popleft()
            if not turn.done():  # cancelled: its client is gone
                turn.set_result(None)
                self._begun += 1
        if self._waiting:
            self._schedule()
