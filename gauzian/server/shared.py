"""What all connections of one server have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypercorn.asyncio.worker_context import WorkerContext

from gauzian.bytebudget import ByteBudget
from gauzian.errors import ASGIApp
from gauzian.server.framing import HttpConfig
from gauzian.server.limits import ServerLimits
from gauzian.server.linger import Lingerers
from gauzian.server.turns import Turns

if TYPE_CHECKING:
    from gauzian.server.connection import Connection


@dataclass(slots=True, kw_only=True)
class Shared:
    app: ASGIApp
    config: HttpConfig
    context: WorkerContext
    limits: ServerLimits
    lingerers: Lingerers
    reading: ByteBudget
    turns: Turns
    state: dict[str, Any]  # what the application's lifespan left for its requests
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # a request or a connection has ended
    stopping: bool = False
    connections: set[Connection] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)  # everything that runs for a connection
    requests: set[asyncio.Task[None]] = field(default_factory=set)  # of these, the calls of the application
    ended: int = 0  # requests and connections, ever
    slow_heads: int = 0
    stalled_writes: int = 0

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def start_request(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.start(work)
        self.requests.add(task)
        task.add_done_callback(self._request_ended)

    def _request_ended(self, task: asyncio.Task[None]) -> None:
        self.requests.discard(task)
        self.one_ended()

    def one_ended(self) -> None:
        self.ended += 1
        self.changed.set()
