"""One answer on its way to a client that may be slow, silent or gone.

A server may swallow what is sent to a client that has left (Hypercorn's own connection does), and a store may keep us
waiting while the client leaves: so somebody listens for the disconnect as long as an answer is on its way, one task
per answer and nothing per piece. A client that takes no piece for `stall_seconds` is cut off: it would hold its place
for ever. It should be generous: the kernel's send buffer empties in steps of a megabyte, for which a slow reader takes
its time; a server that sees what the client has acknowledged may be stricter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType

from gauzian.errors import ClientGone, Message, Receive, Send
from gauzian.spout import Spout

Headers = list[tuple[bytes, bytes]]

# The counter of bytes is told after so many.
_COUNT_BYTES = 256 * 1024


class Outlet:
    """An async context manager; in it `start`, then `write` as often as needed, then `finish`. Raises ClientGone."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        *,
        stall_seconds: float,
        count_slow: Callable[[], None],
        spout: Spout | None = None,
        count_bytes: Callable[[float], None] = lambda number: None,
    ) -> None:
        self._receive = receive
        self._send = send
        self._spout = spout
        self._stall_seconds = stall_seconds
        self._count_bytes = count_bytes
        self._count_slow = count_slow
        self._loop = asyncio.get_running_loop()
        self._sending_since: float | None = None  # None: nobody waits for the client
        self._uncounted = 0
        self._left: int | None = None  # bytes still to come, where that is known
        self._ended = False
        self._cut = False

    async def __aenter__(self) -> Outlet:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - we are being awaited
        self._task = task
        self._cancellations_before = task.cancelling()
        self._listener = self._loop.create_task(self._listen())
        self._timer = self._loop.call_later(self._stall_seconds, self._look)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._listener.cancel()
        self._count_bytes(self._uncounted)
        # The same bookkeeping as asyncio.timeout: a cancellation from outside that came as well must go on.
        is_ours = self._cut and self._task.uncancel() <= self._cancellations_before
        del self._task, self._listener, self._timer  # they know us: a circle, with the last piece in it
        if is_ours and isinstance(error, asyncio.CancelledError):
            raise ClientGone from error

    async def start(self, status: int, headers: Headers) -> None:
        length = next((value for name, value in headers if name == b"content-length"), None)
        self._left = None if length is None else int(length)
        await self._tell({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, piece: bytes) -> None:
        """Returns when the server wants more; `piece` is not empty.

        May return without giving way to other tasks: whatever gives the pieces does that while it holds none, and our
        server does it in any case (outbox.py).
        """
        if self._left is not None:
            self._left -= len(piece)
            if self._left == 0:
                return await self.finish(piece)
        await self._tell({"type": "http.response.body", "body": piece, "more_body": True})
        self._count(len(piece))
        return None

    def send_now(self, view: memoryview) -> int:
        """How much of the front of `view` went out by the spout, behind what was written before: 0 without one."""
        if self._spout is None or self._left is None:
            return 0
        taken = self._spout.send_now(view[: max(0, self._left - 1)])
        self._left -= taken
        self._count(taken)
        return taken

    async def finish(self, piece: bytes = b"") -> None:
        """With the last byte that Content-Length has named the answer is ended: a client that leaves then has got it
        all.
        """
        if self._ended:
            return
        self._ended = True
        self._listener.cancel()  # the end of the answer is reported as a disconnect too
        await self._tell({"type": "http.response.body", "body": piece, "more_body": False})
        self._uncounted += len(piece)

    def _count(self, size: int) -> None:
        self._uncounted += size
        if self._uncounted >= _COUNT_BYTES:
            self._count_bytes(self._uncounted)
            self._uncounted = 0

    async def _tell(self, message: Message) -> None:
        self._sending_since = self._loop.time()
        try:
            await self._send(message)
        except OSError as error:
            raise ClientGone from error
        self._sending_since = None

    async def _listen(self) -> None:
        try:
            while (await self._receive())["type"] != "http.disconnect":
                pass  # a request body that nobody wanted
        except Exception:  # noqa: S110 - whatever ails it, the client cannot be heard any more
            pass
        self._cut_off()

    def _look(self) -> None:
        """The timer: cut off a client that has kept us waiting too long, else look again when it would have."""
        left = self._stall_seconds
        if self._sending_since is not None:
            left -= self._loop.time() - self._sending_since
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        elif not self._cut:
            self._count_slow()
            self._cut_off()

    def _cut_off(self) -> None:
        if not self._cut:
            self._cut = True
            self._task.cancel()


async def send_at_once(send: Send, status: int, headers: Headers, body: bytes = b"") -> None:
    """A whole answer that is in memory already: HEAD, 304, something small."""
    try:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
    except OSError as error:
        raise ClientGone from error
