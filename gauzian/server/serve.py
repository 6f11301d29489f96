"""Listen, run the application's lifespan, stop gracefully, give memory back."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

import anyio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.lifespan import Lifespan
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.utils import LifespanTimeoutError

from gauzian.bytebudget import ByteBudget
from gauzian.errors import ASGIApp, Message, Receive, Scope, Send
from gauzian.server.accept import Door, bind, raise_file_limit
from gauzian.server.framing import HttpConfig
from gauzian.server.limits import ServerLimits
from gauzian.server.linger import Lingerers
from gauzian.server.memory import Allocator, Keeper, settle
from gauzian.server.pulse import MOST_SECONDS, Pulse
from gauzian.server.shared import Shared
from gauzian.server.turns import Turns

log = logging.getLogger(__name__)


class StopSignal(Protocol):
    """anyio.Event or asyncio.Event."""

    async def wait(self) -> Any: ...


class StartFailed(Exception):
    """The application's lifespan refused to start; the text says why."""


class Server:
    """One server for one application, to be served once. Its numbers may be read at any time."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        port: int,
        limits: ServerLimits | None = None,
        grace_seconds: float = 30.0,
        on_listening: Callable[[list[tuple[str, int]]], None] = lambda addresses: None,
        tls: ssl.SSLContext | None = None,
        storing: ByteBudget | None = None,
        beside: bool = False,
    ) -> None:
        """`storing`: where the bodies go from here; what is held there, we do not read. `beside`: another server of the
        same process looks after its memory."""
        self._app = app
        self._host, self._port = host, port
        self._limits = limits or ServerLimits()
        self._grace_seconds = grace_seconds
        self._on_listening = on_listening
        self._tls = tls
        self._storing = storing
        self._door: Door | None = None
        self._shared: Shared | None = None
        self._pulse: Pulse | None = None
        self._keeper = None if beside else Keeper(Allocator(), seconds=self._limits.trim_seconds)

    # -- levels and totals, for whoever exports them

    @property
    def open_connections(self) -> int:
        """Sockets that are open, lingering ones and unfinished TLS handshakes included."""
        return self._door.open if self._door else 0

    @property
    def lingering_connections(self) -> int:
        return len(self._shared.lingerers.all) if self._shared else 0

    @property
    def requests_in_flight(self) -> int:
        return len(self._shared.requests) if self._shared else 0

    @property
    def accepted_total(self) -> int:
        return self._door.accepted if self._door else 0

    @property
    def accept_pauses_total(self) -> int:
        """How often nobody was let in for a while: max_connections open, or no file descriptor left."""
        return self._door.pauses if self._door else 0

    @property
    def swallowed_bytes_total(self) -> int:
        """Bytes of refused bodies that were read and thrown away."""
        return self._shared.lingerers.swallowed if self._shared else 0

    @property
    def slow_heads_total(self) -> int:
        """Clients cut because their request head did not arrive in time."""
        return self._shared.slow_heads if self._shared else 0

    @property
    def stalled_writes_total(self) -> int:
        """Clients cut because they accepted nothing of their answer for too long."""
        return self._shared.stalled_writes if self._shared else 0

    @property
    def loop_lag_seconds(self) -> float:
        return self._pulse.lag if self._pulse else 0.0

    @property
    def worst_loop_lag_seconds(self) -> float:
        """The worst of the last 30 to 60 seconds."""
        return self._pulse.worst_lag if self._pulse else 0.0

    # -- the life of a server

    async def serve(self, stop: StopSignal) -> None:
        """Serve until `stop` is set and what is in flight has ended, or `grace_seconds` are over. OSError: the address
        is not to be had. StartFailed: the application will not start."""
        Allocator().limit_arenas()
        raise_file_limit(self._limits.max_connections)
        shared = self._shared = self._furnish()
        sockets = await bind(self._host, self._port)
        door = self._door = Door(shared, sockets, self._with_alpn())
        pulse = self._pulse = Pulse(self._beat, seconds=self._beat_seconds())
        try:
            async with _lifespan(shared):
                try:
                    if self._keeper is not None:
                        settle()
                    door.begin()
                    pulse.start()
                    self._on_listening([sock.getsockname()[:2] for sock in sockets])
                    await stop.wait()
                    await self._wind_down(shared, door)
                finally:
                    await self._end(shared, door)
        finally:
            pulse.stop()
            door.shut()

    def _furnish(self) -> Shared:
        limits = self._limits
        config = HttpConfig()
        config.errorlog = logging.getLogger("gauzian.server.hypercorn")
        config.h11_max_incomplete_size = limits.header_bytes
        config.shutdown_timeout = limits.cleanup_seconds
        return Shared(
            app=self._app,
            config=config,
            context=WorkerContext(None),
            limits=limits,
            lingerers=Lingerers(limits),
            turns=Turns(limits.begun_per_turn),
            reading=ByteBudget(
                limits.read_budget,
                least=limits.body_read_least,
                most=limits.body_read,
                parts=limits.read_parts,
                beside=self._storing,
            ),
            state={},
        )

    def _with_alpn(self) -> ssl.SSLContext | None:
        if self._tls is not None:
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _beat_seconds(self) -> float:
        limits = self._limits
        shortest = min(
            limits.header_seconds,
            limits.keep_alive_seconds,
            limits.write_idle_seconds,
            limits.linger_seconds,
            limits.linger_idle_seconds,
        )
        return min(MOST_SECONDS, shortest / 4)

    def _beat(self, now: float) -> None:
        shared = cast(Shared, self._shared)
        for connection in list(shared.connections):
            connection.look(now)
        shared.lingerers.look(now)
        if self._keeper is not None:
            busy = bool(shared.requests or shared.lingerers.all)
            self._keeper.look(now, busy=busy, done=shared.ended)

    async def _wind_down(self, shared: Shared, door: Door) -> None:
        """Whoever asks still gets an answer: a health probe must be able to read 503 while uploads finish."""
        shared.stopping = True
        await shared.context.terminated.set()
        ends_at = asyncio.get_running_loop().time() + self._grace_seconds
        for connection in list(shared.connections):
            if connection.is_idle:
                connection.close(linger=False)
        await _until(lambda: not shared.requests, shared.changed, ends_at)
        door.shut()
        await _cancelled(shared.requests, self._limits.cleanup_seconds)
        for connection in list(shared.connections):
            connection.close()  # answers that are still going out go on
        # Everybody has an answer; those who are still sending get a moment to read it.
        ends_at = min(ends_at, asyncio.get_running_loop().time() + self._limits.linger_idle_seconds)
        await _until(lambda: door.open == 0, shared.changed, ends_at)

    async def _end(self, shared: Shared, door: Door) -> None:
        """Whatever is still there goes, in bounded time and also when we are being cancelled."""
        with anyio.CancelScope(shield=True):
            door.shut()
            await asyncio.sleep(0)  # who was just let in becomes a connection
            await _cancelled(shared.requests, self._limits.cleanup_seconds)
            for connection in list(shared.connections):
                connection.transport.abort()
            shared.lingerers.abort_all()
            door.abort_handshakes()
            await _cancelled(shared.tasks, 1.0)
            ends_at = asyncio.get_running_loop().time() + 1.0
            await _until(lambda: door.open == 0, shared.changed, ends_at)


async def _until(is_so: Callable[[], bool], changed: asyncio.Event, ends_at: float) -> None:
    with anyio.move_on_after(ends_at - asyncio.get_running_loop().time()):
        while not is_so():
            changed.clear()
            await changed.wait()


async def _cancelled(tasks: set[asyncio.Task[None]], seconds: float) -> None:
    going = set(tasks)
    for task in going:
        task.cancel()
    if going:
        await asyncio.wait(going, timeout=seconds)


@asynccontextmanager
async def _lifespan(shared: Shared) -> AsyncIterator[None]:
    """The application's startup before, its shutdown after; an application without lifespan is fine."""
    failures: list[str] = []

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        async def noting_send(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                failures.append(message.get("message") or "the application did not start")
            await send(message)

        await shared.app(scope, receive, noting_send)

    loop = asyncio.get_running_loop()
    lifespan = Lifespan(ASGIWrapper(cast(Any, noting)), shared.config, loop, cast(Any, shared.state))
    task = loop.create_task(lifespan.handle_lifespan())
    try:
        try:
            await lifespan.wait_for_startup()
        except LifespanTimeoutError as error:
            raise StartFailed("the application did not start in time") from error
        if failures:
            raise StartFailed(failures[0])
        yield
    finally:
        with anyio.CancelScope(shield=True):
            if not task.done():
                try:
                    await lifespan.wait_for_shutdown()
                except LifespanTimeoutError:
                    log.error("the application did not shut down in time")
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
