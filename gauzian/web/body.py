"""A request body that owns its limits: counted, capped, timed, in pieces.

Nothing is collected here unless `read` is called, and nobody below knows HTTP. Three things can go wrong while a client
sends, and each is an exception of its own: more bytes than allowed, too slowly, gone.

Time is counted only while we wait for the client: when the store behind us is slow, that is not the client's fault.
The watch is one timer per body that looks every few seconds instead of one per piece, because a timeout per piece costs
more than reading it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial

from gauzian.errors import ApiError, BadField, BodyTooLarge, BodyTooSlow, ClientGone, Message, Receive, Scope
from gauzian.tap import EXTENSION, Tap

# More digits are no length that anybody sends, and int() itself refuses some thousands of them.
_MOST_DIGITS = 18

# A timer this late means that the process was stopped or starved: that is not the client's silence.
_ASLEEP_SECONDS = 1.0


def header(scope: Scope, name: bytes) -> bytes | None:
    """The value of the first header of that lower-case name."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


def declared_length(scope: Scope) -> int | None:
    """Content-Length, or None when the body comes without one (RFC 9112 6.3: Transfer-Encoding overrides it)."""
    if header(scope, b"transfer-encoding") is not None:
        return None
    value = header(scope, b"content-length")
    if value is None:
        return 0 if scope.get("http_version", "1.1").startswith("1") else None
    if not value.isdigit() or len(value) > _MOST_DIGITS:
        raise BadField("Content-Length", "not a number of bytes")
    return int(value)


class Body:
    """The bytes of one request, as an async iterator of pieces.

    `most_bytes`: BodyTooLarge (or what `too_large` makes) at once if more are declared, else as soon as more have come.
    `idle_seconds`: the longest wait for a next piece; `slowest`: bytes per second that the client must reach on average
    once it has kept us waiting for `grace_seconds` in total (0: any rate); else BodyTooSlow (or what `too_slow` makes).
    ClientGone when it hangs up or ends before what it declared.

    Whoever needs no pieces may take what lies between them by `tap`, where there is one; it counts as received.

    A refusal is final: whoever asks again after one gets it again and never an end that looks like a whole body. A wait
    that was cancelled from outside may be taken up again. `close` is for whoever stops before the end; without it one
    timer lives on for at most `idle_seconds`.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        *,
        most_bytes: int,
        idle_seconds: float = 15.0,
        slowest: float = 16 * 1024,
        grace_seconds: float = 10.0,
        too_large: Callable[[int], ApiError] = BodyTooLarge,
        too_slow: Callable[[], ApiError] = BodyTooSlow,
    ) -> None:
        self.declared = declared_length(scope)
        self.most_bytes = most_bytes
        self.tap: Tap | None = scope.get("extensions", {}).get(EXTENSION) if self.declared is not None else None
        self.ended = False
        self._received = 0
        self._receive = receive
        self._idle_seconds = idle_seconds
        self._slowest = slowest
        self._grace_seconds = grace_seconds
        self._too_large = too_large
        self._too_slow = too_slow
        self._refusal: Callable[[], Exception] | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[object] | None = None  # who waits, while somebody waits
        self._waiting_since = 0.0
        self._waited = 0.0
        self._cut = False
        if self.declared is not None and self.declared > most_bytes:
            raise too_large(most_bytes)

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        """The next piece, never empty."""
        if self._refusal is not None:
            raise self._refusal()
        while not self.ended:
            message = await self._next_message()
            if message["type"] == "http.disconnect":
                raise self._refuse(ClientGone)
            piece: bytes = message.get("body", b"")
            self._received += len(piece)
            if self.received > self.most_bytes:
                raise self._refuse(partial(self._too_large, self.most_bytes))
            if not message.get("more_body", False):
                self._end()
            if piece:
                return piece
        raise StopAsyncIteration

    @property
    def received(self) -> int:
        """Bytes that have come, by way of pieces or by way of `tap`."""
        return self._received if self.tap is None else self._received + self.tap.taken

    async def read(self) -> bytes:
        """All of it, for small bodies: `most_bytes` is what it may cost in memory."""
        return b"".join([piece async for piece in self])

    def close(self) -> None:
        """Nobody will ask for more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self.close()
        if self.declared is not None and self.received < self.declared:
            raise self._refuse(ClientGone)  # our server says http.disconnect here; another one may not
        self.ended = True

    def _refuse(self, refusal: Callable[[], Exception]) -> Exception:
        self.close()
        self._refusal = refusal
        return refusal()

    def _patience(self) -> float:
        """Seconds that the client may have kept us waiting in total, given what it has sent so far."""
        return max(self._grace_seconds, self.received / self._slowest) if self._slowest > 0 else math.inf

    async def _next_message(self) -> Message:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker: an async iterator runs in a task
        cancelled_before = task.cancelling()
        self._start_waiting(task)
        try:
            message = await self._receive()
        except asyncio.CancelledError:
            # The same bookkeeping as asyncio.timeout: a cancellation from outside that came as well must go on.
            if self._cut and task.uncancel() <= cancelled_before:
                raise self._refuse(self._too_slow) from None
            self.close()
            raise
        finally:
            self._waited += self._loop.time() - self._waiting_since
            self._task = None
        if self._cut:  # a receive that swallows a cancellation when its message comes at the same moment
            task.uncancel()
            raise self._refuse(self._too_slow)
        return message

    def _start_waiting(self, task: asyncio.Task[object]) -> None:
        self._task = task
        self._waiting_since = self._loop.time()
        self._cut = False
        if self._timer is None:
            self._look_after(min(self._idle_seconds, self._patience() - self._waited))

    def _look_after(self, seconds: float) -> None:
        self._timer = self._loop.call_later(max(0.0, seconds), self._look)

    def _look(self) -> None:
        """The timer: cut the wait if it is over, else look again when it would be. Nobody waits: no timer either."""
        due = self._timer.when() if self._timer is not None else 0.0
        self._timer = None
        if self._task is None:
            return
        now = self._loop.time()
        if now - due > _ASLEEP_SECONDS:
            self._waiting_since = now  # what the client sent meanwhile has not been looked at yet
        waiting = now - self._waiting_since
        left = min(self._idle_seconds - waiting, self._patience() - self._waited - waiting)
        if left <= 0:
            self._cut = True
            self._task.cancel()
        else:
            self._look_after(left)
