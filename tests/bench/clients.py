"""The clients of a load driver: plain sockets that do as told, also where a library would be kinder."""

from __future__ import annotations

import errno
import itertools
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Protocol

from tests.bench.answer import Answer
from tests.bench.message import SLICE_BYTES, Messages, Stock
from tests.bench.plan import Group, Outcome, Plan, percentile

READ_BYTES = 256 * 1024
# A slow reader takes little at a time and lets its kernel take little ahead: otherwise the kernel is the one who reads.
SLOW_READ_BYTES = 32 * 1024
SLOW_RECEIVE_BUFFER = 64 * 1024
GONE = (errno.ECONNRESET, errno.EPIPE)


class Crowd:
    """The clients of one group and what became of them."""

    def __init__(self, group: Group, plan: Plan, stock: Stock) -> None:
        self.group = group
        self.messages = Messages(group, f"{plan.host}:{plan.port}", stock)
        self.numbers = itertools.count(group.first)
        self.digest = stock.digest(group.payload) if group.check_digest else None
        self.expected = stock.wrapped if group.check_bytes else None
        self.outcome = Outcome()
        self.statuses: Counter[str] = Counter()
        self.unread: Counter[str] = Counter()
        self.latencies: list[float] = []

    def report(self) -> Outcome:
        outcome = self.outcome
        outcome.statuses, outcome.unread = dict(self.statuses), dict(self.unread)
        marks = [round(percentile(self.latencies, p) * 1000, 2) for p in (50, 90, 99, 100)]
        outcome.p50_ms, outcome.p90_ms, outcome.p99_ms, outcome.max_ms = marks
        return outcome


class Loop(Protocol):
    """What a client needs of the loop that drives it."""

    plan: Plan
    scratch: memoryview
    period: int
    began: float
    clients: set[Client]
    enough: bool

    def watch(self, client: Client, events: int) -> None: ...
    def rewatch(self, client: Client, events: int) -> None: ...
    def unwatch(self, client: Client) -> None: ...
    def later(self, when: float, action: Callable[[], None]) -> None: ...


class Client:
    """One connection and its requests, one after another."""

    def __init__(self, crowd: Crowd, loop: Loop) -> None:
        self.crowd = crowd
        self.loop = loop
        self.left = crowd.group.requests
        self.sock: socket.socket
        self.sending = True
        self.trouble: str | None = None  # what the socket complained about while sending

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.crowd.group.read_rate or self.crowd.group.read_at_most:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_RECEIVE_BUFFER)
        self._resets = 0
        self._allowed_at = 0.0
        self.began = time.monotonic()
        self.sock.connect_ex((self.loop.plan.host, self.loop.plan.port))
        self._next_request()
        self.loop.watch(self, self._events())

    def ready(self, events: int) -> None:
        """The socket can be read or written, or is broken."""
        if self.sending and events & ~select.EPOLLIN:
            self._send()
        elif not self.sending or self.crowd.group.watch:
            self._receive()

    def _next_request(self) -> None:
        self.answer = Answer(self.crowd.expected)
        self._parts: Iterator[memoryview] = self.crowd.messages.parts(next(self.crowd.numbers))
        self._view = memoryview(b"")
        self.request_sent = 0
        self.sending = True

    def _events(self) -> int:
        if not self.sending:
            return select.EPOLLIN
        return select.EPOLLIN | select.EPOLLOUT if self.crowd.group.watch else select.EPOLLOUT

    def _send(self) -> None:
        share = SLICE_BYTES  # per turn, so that a thousand senders advance together
        stop = self.crowd.group.send_at_most
        try:
            while share > 0:
                if not self._view:
                    part = next(self._parts, None)
                    if part is None:
                        return self._stop_sending()
                    self._view = part
                sent = self.sock.send(self._view if stop is None else self._view[: stop - self.request_sent])
                share -= sent
                self._view = self._view[sent:]
                self.request_sent += sent
                self.crowd.outcome.sent_bytes += sent
                if stop is not None and self.request_sent >= stop:
                    return self._leave()
        except BlockingIOError:
            return None
        except OSError as error:
            self.trouble = errno.errorcode.get(error.errno or 0, type(error).__name__)
            if error.errno not in GONE:
                return self._end(self.trouble)
            self._stop_sending()  # the answer may lie in our receive queue all the same

    def _stop_sending(self) -> None:
        self.sending = False
        self._view = memoryview(b"")
        self.loop.rewatch(self, self._events())

    def _receive(self) -> None:
        rate = self.crowd.group.read_rate
        try:
            size = self.sock.recv_into(self.loop.scratch, SLOW_READ_BYTES if rate else READ_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            # The error is told once; what was received before it can still be read.
            self._resets += 1
            self.trouble = errno.errorcode.get(error.errno or 0, type(error).__name__)
            return self._end(self.trouble) if self._resets > 1 else None
        if not size:
            if self.answer.end():
                return self._answered()
            return self._end(self.trouble or "closed")
        before = self.answer.received
        self.answer.feed(self.loop.scratch[:size], period=self.loop.period)
        self.crowd.outcome.received_bytes += self.answer.received - before
        if self.answer.complete:
            return self._answered()
        stop = self.crowd.group.read_at_most
        if stop is not None and self.answer.received >= stop:
            return self._leave()
        if rate:
            self._slow_down(size / rate)
        return None

    def _slow_down(self, seconds: float) -> None:
        now = time.monotonic()
        self._allowed_at = max(self._allowed_at, now) + seconds
        if self._allowed_at > now + 0.005:
            self.loop.unwatch(self)
            self.loop.later(self._allowed_at, lambda: self.loop.watch(self, select.EPOLLIN))

    def _answered(self) -> None:
        answer, crowd = self.answer, self.crowd
        crowd.statuses[answer.label()] += 1
        crowd.latencies.append(time.monotonic() - self.began)
        if answer.damaged or (crowd.digest and answer.status == 200 and crowd.digest not in answer.body):
            crowd.outcome.wrong += 1
        self.left -= 1
        if not self.left or (self.loop.enough and crowd.group.every_seconds):
            return self._stay(crowd.group.stay_seconds)
        if answer.closes or self.sending:  # an answer before the end of the request ends the connection
            crowd.outcome.reconnects += 1
            self._forget()
            return self.connect()
        if crowd.group.every_seconds:
            return self._pause_until(self.began + crowd.group.every_seconds)
        self.began = time.monotonic()
        self._next_request()
        self.loop.rewatch(self, self._events())
        return self._send()

    def _pause_until(self, when: float) -> None:
        """The next request has its time; a connection closed meanwhile is found out by then."""

        def go_on() -> None:
            if self.loop.enough:
                return self._close()
            self.began = time.monotonic()
            self._next_request()
            self.loop.watch(self, self._events())
            return self._send()

        self.loop.unwatch(self)
        self.loop.later(when, go_on)

    def _stay(self, seconds: float | None) -> None:
        if seconds is None:
            return self._close()
        self.loop.unwatch(self)
        return self.loop.later(time.monotonic() + seconds, self._close)

    def _leave(self) -> None:
        """Do as planned: go without a word, or stay without one."""
        self.crowd.outcome.left += 1
        if self.answer.status is not None:
            self.crowd.statuses[str(self.answer.status)] += 1
        if self.crowd.group.then == "hold":
            self.loop.unwatch(self)
            self.loop.later(time.monotonic() + self.crowd.group.hold_seconds, self._close)
        else:
            self._close()

    def _end(self, reason: str) -> None:
        """No (whole) answer came: `reason` says why."""
        if self.answer.status is None:
            self.crowd.unread[reason] += 1
        else:
            self.crowd.statuses[self.answer.label()] += 1
            self.crowd.outcome.cut += 1
        self._close()

    def give_up(self) -> None:
        self._end("deadline, sending" if self.sending else "deadline, reading")

    def _forget(self) -> None:
        self.loop.unwatch(self)
        self.sock.close()

    def _close(self) -> None:
        self._forget()
        self.loop.clients.discard(self)
        self.crowd.outcome.seconds = time.monotonic() - self.loop.began
