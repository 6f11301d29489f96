"""The reading side of one connection: small reads until a body is wanted, at most two of them here at any time."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import SupportsIndex

from gauzian.bytebudget import ByteBudget, Held
from gauzian.server.limits import KIB

# Much less than what waits for a tap, and enough for a client that is slow.
_LITTLE_BYTES = 64 * KIB


class _Little:
    """In the place of a number: a share of the budget, as long as that is little."""

    __slots__ = ("_budget",)

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget

    def __index__(self) -> int:
        return min(_LITTLE_BYTES, self._budget.share)


class Intake:
    """One read is being handled and one waits here; then reading pauses, and what comes waits in the kernel.

    While a body is wanted a read brings a share of `budget` and counts in it; else it brings `head_read` bytes.
    """

    __slots__ = (
        "_budget",
        "_counted",
        "_head_read",
        "_held",
        "_held_off",
        "_in_budget",
        "_loop",
        "_news",
        "_paused",
        "_reads",
        "_transport",
    )

    def __init__(self, transport: asyncio.Transport, budget: ByteBudget, *, head_read: int) -> None:
        self._transport = transport
        self._budget = budget
        self._head_read = head_read
        self._loop = asyncio.get_running_loop()
        self._reads: deque[bytes] = deque()
        self._news: asyncio.Future[None] | None = None  # while somebody waits in `next`
        self._paused = False
        self._held_off = False
        self._in_budget = False
        self._held = Held(budget)
        self._counted = 0  # of the read that is being handled
        self._read_at_most(head_read)

    def __len__(self) -> int:
        """Bytes that wait here."""
        return sum(map(len, self._reads))

    @property
    def is_paused(self) -> bool:
        return self._paused or self._held_off

    @property
    def is_idle(self) -> bool:
        """Everything that came has been handled, and `next` waits for more."""
        return not self._reads and self._news is not None and not self._news.done()

    def put(self, data: bytes) -> None:
        self._reads.append(data)
        if self._in_budget:
            self._held.hold(len(data))
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
        else:  # the last read is still being handled
            self._paused = True
            self._transport.pause_reading()

    async def next(self) -> bytes:
        while not self._reads:
            if self._paused:
                self._paused = False
                self._read_on()
            self._news = self._loop.create_future()
            await self._news
        data = self._reads.popleft()
        self._counted = len(data) if self._in_budget else 0
        return data

    def handled(self) -> None:
        """What `next` gave is in the mailbox now, or thrown away."""
        self._held.drop(self._counted)
        self._counted = 0

    def hold_off(self) -> None:
        """Read no more until `go_on`: the mailbox is full."""
        self._held_off = True
        self._transport.pause_reading()

    def go_on(self) -> None:
        self._held_off = False
        self._read_on()

    def want_body(self, *, little: bool = False) -> None:
        """`little`: bring little at a time, because somebody takes from the kernel what is left there."""
        self._in_budget = True
        self._held.hold(len(self))
        self._read_at_most(_Little(self._budget) if little else self._budget)

    def body_ended(self) -> None:
        if self._in_budget:
            self._in_budget = False
            self._held.drop()
            self._counted = 0
            self._read_at_most(self._head_read)

    def _read_on(self) -> None:
        if not self.is_paused:
            self._transport.resume_reading()

    def _read_at_most(self, size: SupportsIndex) -> None:
        self._transport.max_size = size  # type: ignore[attr-defined]  # the selector transport's; elsewhere it does nothing
