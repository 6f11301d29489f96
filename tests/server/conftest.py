"""A running server for one test, and a count of everything that a test must not leave behind."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from gauzian.errors import ASGIApp
from gauzian.server.limits import KIB, ServerLimits
from gauzian.server.serve import Server
from gauzian.server.shared import Shared
from tests.server.apps import with_lifespan
from tests.server.client import Client, until

# Small and quick, so that a bound is met within a test.
QUICK = ServerLimits(linger_bytes=8 * 1024 * KIB, linger_seconds=5, linger_idle_seconds=0.3, cleanup_seconds=1)


@dataclass
class Running:
    """A server that serves in a task of the test's own loop."""

    server: Server
    address: tuple[str, int]
    tls: ssl.SSLContext | None
    stop: asyncio.Event
    task: asyncio.Task[None]
    clients: list[Client] = field(default_factory=list)

    @property
    def shared(self) -> Shared:
        assert self.server._shared is not None
        return self.server._shared

    async def connect(self, **options: Any) -> Client:
        client = await Client.connect(self.address, tls=self.tls, **options)
        self.clients.append(client)
        return client

    async def is_quiet(self) -> None:
        await until(lambda: self.server.requests_in_flight == 0 and self.server.open_connections == 0)
        await until(lambda: not self.shared.tasks)


def files_open() -> int:
    return len(os.listdir("/proc/self/fd"))


Run = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture(params=["plain", "tls"])
def both(request: pytest.FixtureRequest) -> bool:
    """For tests that hold on a plain connection and on TLS: use with `serving(..., tls=both)`."""
    return request.param == "tls"


@pytest.fixture
def serving(request: pytest.FixtureRequest) -> Run:
    """Runs an application for a while; afterwards as many tasks and open files as before, or the test fails."""

    @asynccontextmanager
    async def run(
        app: ASGIApp,
        *,
        tls: bool = False,
        limits: ServerLimits = QUICK,
        events: list[str] | None = None,
        **options: Any,
    ) -> AsyncIterator[Running]:
        server_tls = client_tls = None
        if tls:
            path = request.getfixturevalue("certificate")
            server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server_tls.load_cert_chain(path)
            client_tls = ssl.create_default_context(cafile=path)
        tasks_before, files_before = len(asyncio.all_tasks()), files_open()
        listening: asyncio.Future[list[tuple[str, int]]] = asyncio.get_running_loop().create_future()
        server = Server(
            with_lifespan(app, events),
            host="127.0.0.1",
            port=0,
            limits=limits,
            tls=server_tls,
            on_listening=listening.set_result,
            **options,
        )
        stop = asyncio.Event()
        task = asyncio.ensure_future(server.serve(stop))
        await asyncio.wait([task, listening], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        running = Running(server, listening.result()[0], client_tls, stop, task)
        try:
            yield running
            for client in running.clients:
                await client.close()
            if not stop.is_set():
                await running.is_quiet()
        finally:
            for client in running.clients:
                client.vanish()
            stop.set()
            await asyncio.wait([task], timeout=10)
        if not task.cancelled():
            task.result()
        assert server.open_connections == 0
        assert running.shared.reading.held == 0
        await until(lambda: len(asyncio.all_tasks()) <= tasks_before)
        await until(lambda: files_open() <= files_before)

    return run
