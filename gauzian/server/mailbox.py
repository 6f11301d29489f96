"""A body on its way to one application call: bounded in bytes, and the disconnect never waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from gauzian.errors import Message

# What a message costs beside its bytes (a dict and its place in the queue). Without it a body in chunks of one byte
# would fill a mailbox of 64 KiB with 20 MB of dicts.
MESSAGE_COST = 256


class Mailbox:
    """`receive` for the application on one side (`get`), for Hypercorn on the other (`put`).

    `put` takes every message and then waits while `most_bytes` or more lie here: at most that and one message are held.
    `wanted` is called once, at the first `get`, with whether something of the body is already here; `ended` when the
    body is complete.
    """

    __slots__ = ("_ended", "_messages", "_readers", "_wanted", "_writer", "closed", "held", "most_bytes")

    def __init__(self, *, most_bytes: int, wanted: Callable[[bool], None], ended: Callable[[], None]) -> None:
        self.most_bytes = most_bytes
        self.held = 0
        self.closed = False
        self._messages: deque[dict[str, Any]] = deque()
        self._readers: list[asyncio.Future[None]] = []  # an application may wait in two tasks at once
        self._writer: asyncio.Future[None] | None = None
        self._wanted: Callable[[bool], None] | None = wanted
        self._ended = ended

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
        self.held += len(message["body"]) + MESSAGE_COST
        self._wake_readers()
        # After the last message nothing of this body can come: the reader goes on, to notice when the client hangs up.
        while self.held >= self.most_bytes and not self.closed and not last:
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer
        return None

    async def get(self) -> Message:
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            wanted(bool(self._messages))
        while not self._messages:
            if self.closed:
                return {"type": "http.disconnect"}
            waiter = asyncio.get_running_loop().create_future()
            self._readers.append(waiter)
            try:
                await waiter
            finally:
                self._readers.remove(waiter)
        message = self._messages.popleft()
        self.held -= len(message["body"]) + MESSAGE_COST
        if self.held < self.most_bytes:
            self._wake_writer()
        return message

    def close(self) -> None:
        """The client is gone or has its answer. What is here can still be taken; then `get` says so, always."""
        self.closed = True
        self._wake_readers()
        self._wake_writer()

    def _wake_readers(self) -> None:
        for waiter in self._readers:
            if not waiter.done():
                waiter.set_result(None)

    def _wake_writer(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)
