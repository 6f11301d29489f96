from __future__ import annotations

import asyncio
import json

import anyio
import pytest

from gauzian.errors import Receive, Scope, Send
from gauzian.server.limits import KIB, ServerLimits
from gauzian.server.serve import Server, StartFailed
from tests.server import apps
from tests.server.client import head, post, until
from tests.server.conftest import Run


class Gated:
    """Answers /slow only when told to, everything else at once; notes how calls ended."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.cancelled = 0
        self.cleaned_up = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                with anyio.CancelScope(shield=True):
                    await asyncio.sleep(0.05)
                    self.cleaned_up += 1
                raise
        await apps.answer(send, 200, scope["path"].encode())


@pytest.mark.anyio
async def test_the_life_of_a_server_from_startup_to_shutdown(serving: Run, both: bool) -> None:
    events: list[str] = []
    async with serving(apps.reads_all, tls=both, events=events) as running:
        assert events == ["lifespan.startup"]
        client = await running.connect()
        await client.send(post("/", b"x"))
        assert (await client.answer("POST")).status == 200
        assert (running.server.open_connections, running.server.accepted_total) == (1, 1)
    assert events == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.anyio
async def test_stopping_with_nothing_in_flight_is_quick_and_closes_who_rests(serving: Run, both: bool) -> None:
    async with serving(apps.reads_all, tls=both, grace_seconds=30) as running:
        resting, fresh = await running.connect(), await running.connect()
        await resting.send(post("/", b"x"))
        await resting.answer("POST")
        await until(lambda: running.server.open_connections == 2)
        running.stop.set()
        async with asyncio.timeout(2):
            assert await resting.ended()
            assert await fresh.ended()
            await resting.close()
            await fresh.close()
            await running.task


@pytest.mark.anyio
async def test_while_requests_are_in_flight_new_ones_are_answered_and_told_to_close(serving: Run, both: bool) -> None:
    app = Gated()
    async with serving(app, tls=both, grace_seconds=30) as running:
        slow, resting = await running.connect(), await running.connect()
        await resting.send(head("GET", "/"))
        assert "connection" not in (await resting.answer()).headers
        await slow.send(head("GET", "/slow"))
        await until(lambda: running.server.requests_in_flight == 1)
        running.stop.set()
        assert await resting.ended()
        probe = await running.connect()
        await probe.send(head("GET", "/health"))
        answer = await probe.answer()
        assert (answer.body, answer.headers["connection"]) == (b"/health", "close")
        app.go.set()
        answer = await slow.answer()
        assert (answer.body, answer.headers["connection"]) == (b"/slow", "close")
        for client in running.clients:
            await client.close()
        await asyncio.wait_for(running.task, 5)
        with pytest.raises(ConnectionRefusedError):
            await running.connect()


@pytest.mark.anyio
async def test_uploads_and_downloads_in_flight_finish(serving: Run, both: bool) -> None:
    body = bytes(1024 * KIB)

    async def echoes(scope: Scope, receive: Receive, send: Send) -> None:
        await apps.answer(send, 200, await apps.read_all(receive) or b"")

    async with serving(echoes, tls=both, grace_seconds=30) as running:
        client = await running.connect(send_buffer=16 * KIB)
        await client.send(post("/", body)[:100_000])
        await until(lambda: running.server.requests_in_flight == 1)
        running.stop.set()
        await client.send(post("/", body)[100_000:])
        assert len((await client.answer("POST")).body) == len(body)
        await client.close()
        await asyncio.wait_for(running.task, 5)


@pytest.mark.anyio
async def test_when_the_grace_is_over_requests_are_cancelled_and_may_clean_up(serving: Run, both: bool) -> None:
    app = Gated()
    async with serving(app, tls=both, grace_seconds=0.2) as running:
        client = await running.connect()
        await client.send(head("GET", "/slow"))
        await until(lambda: running.server.requests_in_flight == 1)
        running.stop.set()
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["code"]) == (503, "shutting_down")
        await asyncio.wait_for(running.task, 5)
        assert (app.cancelled, app.cleaned_up) == (1, 1)


@pytest.mark.anyio
async def test_an_application_that_will_not_be_cancelled_does_not_hold_up_the_end(serving: Run) -> None:
    ended = asyncio.Event()

    async def clings(scope: Scope, receive: Receive, send: Send) -> None:
        with anyio.CancelScope(shield=True):
            await ended.wait()

    limits = ServerLimits(cleanup_seconds=0.2)
    async with serving(clings, grace_seconds=0.1, limits=limits) as running:
        client = await running.connect()
        await client.send(head("GET", "/"))
        await until(lambda: running.server.requests_in_flight == 1)
        running.stop.set()
        await asyncio.wait_for(running.task, 5)
        ended.set()


@pytest.mark.anyio
async def test_who_lingers_at_the_end_still_reads_an_answer(serving: Run, both: bool) -> None:
    async with serving(apps.refuses_at_once, tls=both, grace_seconds=30) as running:
        client = await running.connect()
        await client.send(head("POST", "/", "Content-Length: 100000000") + bytes(200_000))
        await until(lambda: running.server.lingering_connections == 1)
        running.stop.set()
        assert (await client.answer("POST")).status == 400
        await client.close()
        await asyncio.wait_for(running.task, 5)


@pytest.mark.anyio
async def test_being_cancelled_cleans_up_all_the_same(serving: Run, both: bool) -> None:
    app = Gated()
    events: list[str] = []
    limits = ServerLimits(linger_idle_seconds=30)
    async with serving(app, tls=both, events=events, limits=limits) as running:
        slow, lingering, resting = [await running.connect() for _ in range(3)]
        await slow.send(head("GET", "/slow"))
        await lingering.send(head("POST", "/", "Content-Length: 100000000"))
        await resting.send(head("GET", "/"))
        await resting.answer()
        await until(lambda: running.server.requests_in_flight == 1 and running.server.lingering_connections == 1)
        running.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running.task
        assert running.server.open_connections == 0
        assert app.cleaned_up == 1
        running.stop.set()
    assert events[-1] == "lifespan.shutdown"


@pytest.mark.anyio
async def test_an_application_that_does_not_start_is_not_served(serving: Run) -> None:
    async def refuses_to_start(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    server = Server(
        refuses_to_start, host="127.0.0.1", port=0, on_listening=lambda addresses: pytest.fail("it listens")
    )
    with pytest.raises(StartFailed, match="no database"):
        await server.serve(asyncio.Event())


@pytest.mark.anyio
async def test_any_kind_of_event_stops_it() -> None:
    stop = anyio.Event()
    server = Server(
        apps.with_lifespan(apps.reads_all), host="127.0.0.1", port=0, on_listening=lambda addresses: stop.set()
    )
    async with asyncio.timeout(5):
        await server.serve(stop)


@pytest.mark.anyio
async def test_what_the_lifespan_leaves_in_state_is_there_for_requests(serving: Run) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await apps.answer(send, 200, scope["state"]["greeting"])

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["greeting"] = b"hello"
        await apps.with_lifespan(app)(scope, receive, send)

    listening: asyncio.Future[list[tuple[str, int]]] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    server = Server(with_state, host="127.0.0.1", port=0, on_listening=listening.set_result)
    task = asyncio.ensure_future(server.serve(stop))
    reader, writer = await asyncio.open_connection(*(await listening)[0])
    writer.write(head("GET", "/", "Connection: close"))
    assert (await reader.read()).endswith(b"hello")
    writer.close()
    stop.set()
    await task
