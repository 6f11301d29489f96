"""Health and numbers on a port of their own.

A probe on the port of everybody stands in the kernel's queue behind a crowd that is not let in: nobody sees who is in
that queue, so nobody can be let forward. This door has a queue of its own, and it can stay closed to the world.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from gauzian.assembly.parts import Parts
from gauzian.assembly.urls import compose_probes
from gauzian.server.limits import ServerLimits
from gauzian.server.serve import Server
from gauzian.settings import Settings

# An orchestrator, Prometheus, a person or two.
_CONNECTIONS = 64


@asynccontextmanager
async def probes_beside(parts: Parts, settings: Settings) -> AsyncIterator[tuple[str, int] | None]:
    """Answers probes as long as it is open, so that a server that is stopping can still say so. Its address, or None
    without PROBE_PORT. OSError: the port is not to be had.
    """
    if settings.probe_port is None:
        yield None
        return
    listening: asyncio.Future[list[tuple[str, int]]] = asyncio.get_running_loop().create_future()
    server = Server(
        compose_probes(parts, settings),
        host=settings.host,
        port=settings.probe_port,
        limits=ServerLimits(max_connections=_CONNECTIONS),
        grace_seconds=0,
        on_listening=listening.set_result,
        beside=True,
    )
    stop = asyncio.Event()
    task = asyncio.create_task(server.serve(stop))
    try:
        either: list[asyncio.Future[Any]] = [task, listening]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()  # raises
        yield listening.result()[0]
    finally:
        stop.set()
        await asyncio.wait([task])
