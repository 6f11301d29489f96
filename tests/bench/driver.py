"""The load driver: a process that drives thousands of clients from one epoll loop and costs little itself.

`python -m tests.bench.driver`: the plan comes in as one line of JSON, "ready" goes out, any line comes in ("go"), the
result goes out as one line of JSON.
"""

from __future__ import annotations

import contextlib
import gc
import heapq
import itertools
import json
import resource
import select
import sys
import time
from collections.abc import Callable
from dataclasses import asdict

from tests.bench.clients import READ_BYTES, Client, Crowd
from tests.bench.message import Stock
from tests.bench.plan import Plan


class Driver:
    """The loop: sockets, timers, the deadline and the word from outside that it is enough."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        stock = Stock()
        self.crowds = [Crowd(group, plan, stock) for group in plan.groups]
        self.period = len(stock.raw)
        self.scratch = memoryview(bytearray(READ_BYTES))
        self.clients: set[Client] = set()
        self.began = 0.0
        self.enough = False
        self._poll = select.epoll()
        self._watched: dict[int, Client] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = itertools.count()

    def run(self) -> dict[str, object]:
        self.began = time.monotonic()
        cpu = time.process_time()
        if self.plan.until_stopped:
            self._poll.register(sys.stdin.fileno(), select.EPOLLIN)
        for crowd in self.crowds:
            self._start(crowd)
        deadline = self.began + self.plan.deadline_seconds
        while self.clients or self._timers:
            if time.monotonic() >= deadline:
                for client in list(self.clients):
                    client.give_up()
                break
            self._turn(deadline)
        seconds, cpu = time.monotonic() - self.began, time.process_time() - cpu
        groups = {crowd.group.name: asdict(crowd.report()) for crowd in self.crowds}
        return {"seconds": round(seconds, 3), "cpu_seconds": round(cpu, 3), "groups": groups}

    def watch(self, client: Client, events: int) -> None:
        self._watched[client.sock.fileno()] = client
        self._poll.register(client.sock.fileno(), events)

    def rewatch(self, client: Client, events: int) -> None:
        self._poll.modify(client.sock.fileno(), events)

    def unwatch(self, client: Client) -> None:
        if self._watched.pop(client.sock.fileno(), None) is not None:
            self._poll.unregister(client.sock.fileno())

    def later(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (when, next(self._ticket), action))

    def _start(self, crowd: Crowd) -> None:
        """Begin all clients of a group at once, or the next one and the timer for the one after it."""
        pace = crowd.group.pace_seconds
        while crowd.outcome.started < crowd.group.clients and not self.enough:
            client = Client(crowd, self)
            crowd.outcome.started += 1
            self.clients.add(client)
            client.connect()
            if pace is not None:
                when = self.began + pace * crowd.outcome.started
                return self.later(when, lambda: self._start(crowd))
        return None

    def _turn(self, deadline: float) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2]()
        if not self.clients and not self._timers:
            return
        wake = min(deadline, self._timers[0][0]) if self._timers else deadline
        for number, events in self._poll.poll(max(0.0, wake - time.monotonic()), 256):
            client = self._watched.get(number)
            if client is not None:
                client.ready(events)
            elif number == sys.stdin.fileno():
                self.enough = True
                self._poll.unregister(number)


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    driver = Driver(Plan.from_json(sys.stdin.readline()))
    print("ready", flush=True)
    sys.stdin.readline()
    gc.disable()
    print(json.dumps(driver.run()), flush=True)


if __name__ == "__main__":
    main()
