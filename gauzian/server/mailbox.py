"""A body on its way to one application call: bounded in bytes, and the disconnect never waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from gauzian.bytebudget import ByteBudget
from gauzian.errors import Message

# What a message costs beside its bytes (a dict and its place in the queue). Without it a body in chunks of one byte
# would fill a mailbox of 64 KiB with 20 MB of dicts.
MESSAGE_COST = 256


class Mailbox:
    """`receive` for the application on one side (`get`), for Hypercorn on the other (`put`).

    `put` takes every message and then waits while too much lies here: `least_bytes` until the body is wanted, then a
    share of the budget, at most `most_bytes`. So that and one message are held. `wanted` is called once, at the first
    `get`, with whether something of the body is already here; `ended` when the body is complete; `roomy` when more
    may come after `is_still_full` has said yes.
    """

    __slots__ = (
        "_budget",
        "_counted",
        "_ended",
        "_filled",
        "_least_bytes",
        "_loop",
        "_messages",
        "_most_bytes",
        "_readers",
        "_roomy",
        "_wanted",
        "_writer",
        "closed",
        "held",
    )

    def __init__(
        self,
        *,
        budget: ByteBudget,
        least_bytes: int,
        most_bytes: int,
        wanted: Callable[[bool], None],
        ended: Callable[[], None],
        roomy: Callable[[], None],
    ) -> None:
        self.held = 0
        self.closed = False
        self._budget = budget
        self._counted = False  # in the budget: from the first `get` until it is closed
        self._filled = False
        self._least_bytes = least_bytes
        self._loop = asyncio.get_running_loop()
        self._most_bytes = most_bytes
        self._messages: deque[dict[str, Any]] = deque()
        self._readers: list[asyncio.Future[None]] = []  # an application may wait in two tasks at once
        self._writer: asyncio.Future[None] | None = None
        self._wanted: Callable[[bool], None] | None = wanted
        self._ended = ended
        self._roomy = roomy

    async def put(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.disconnect":
            return self.close()
        last = not message["more_body"]
        if last:
            self._ended()
        if self.closed:
            return None
        if last and not message["body"] and self._messages:
            self._messages[-1]["more_body"] = False  # one message instead of two: small requests are many
            return None
        self._messages.append(message)
        self._hold(len(message["body"]) + MESSAGE_COST)
        self._wake_readers()
        # After the last message nothing of this body can come: the reader goes on, to notice when the client hangs up.
        while self.is_full and not self.closed and not last:
            self._writer = self._loop.create_future()
            await self._writer
        return None

    @property
    def has_room(self) -> bool:
        """Is the body wanted, and may more of it come?"""
        return self._counted and not self.is_full

    def put_now(self, piece: bytes) -> bool:
        """`put` for a piece in the middle of a body; only while there is room. False: full, for the moment."""
        self._messages.append({"type": "http.request", "body": piece, "more_body": True})
        self._hold(len(piece) + MESSAGE_COST)
        self._wake_readers()
        return not self.is_full

    def is_still_full(self) -> bool:
        """Some time after a `put_now` that filled it. Yes: `roomy` will be called when there is room."""
        self._filled = self.is_full and not self.closed
        return self._filled

    async def get(self) -> Message:
        if self._wanted is not None:
            self._begin(self._wanted)
        while not self._messages:
            if self.closed:
                return {"type": "http.disconnect"}
            waiter = self._loop.create_future()
            self._readers.append(waiter)
            try:
                await waiter
            finally:
                self._readers.remove(waiter)
        message = self._messages.popleft()
        self._hold(-len(message["body"]) - MESSAGE_COST)
        if not self.is_full:
            self._make_room()
        return message

    def close(self) -> None:
        """The client is gone or has its answer. What is here can still be taken; then `get` says so, always."""
        self.closed = True
        if self._counted:
            self._counted = False
            self._budget.held -= self.held
        self._wake_readers()
        self._make_room()

    @property
    def is_empty(self) -> bool:
        return not self._messages

    @property
    def is_full(self) -> bool:
        if not self.held:  # most of the time: spares the division
            return False
        return self.held >= (min(self._most_bytes, self._budget.share) if self._counted else self._least_bytes)

    def _begin(self, wanted: Callable[[bool], None]) -> None:
        self._wanted = None
        if not self.closed:
            self._counted = True
            self._budget.held += self.held
        wanted(bool(self._messages))

    def _hold(self, size: int) -> None:
        self.held += size
        if self._counted:
            self._budget.held += size

    def _wake_readers(self) -> None:
        for waiter in self._readers:
            if not waiter.done():
                waiter.set_result(None)

    def _make_room(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)
        if self._filled:
            self._filled = False
            self._roomy()
