from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from gauzian.errors import Receive, Scope, Send
from gauzian.server.limits import KIB, ServerLimits
from gauzian.server.outbox import Outbox
from gauzian.server.refusals import HungUp
from tests.server.client import Client, head, until
from tests.server.conftest import Run

SIZE = 16 * 1024 * KIB
LARGE_PIECE = bytes(1024 * KIB)


class SendsMuch:
    """Sends SIZE bytes in large pieces and counts what it got rid of."""

    def __init__(self) -> None:
        self.sent = 0
        self.failed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = (b"content-length", str(SIZE).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        try:
            while self.sent < SIZE:
                more = self.sent + len(LARGE_PIECE) < SIZE
                await send({"type": "http.response.body", "body": LARGE_PIECE, "more_body": more})
                self.sent += len(LARGE_PIECE)
        except OSError:
            self.failed = True


async def read_slowly(client: Client, pause: float) -> int:
    """Everything up to the end of the stream, with a pause after each 256 KiB."""
    total = since = 0
    while data := await client.read(64 * KIB):
        total += len(data)
        since += len(data)
        if since >= 256 * KIB:
            since = 0
            await asyncio.sleep(pause)
    return total


@pytest.mark.anyio
async def test_send_waits_for_a_client_that_does_not_read_and_little_is_held(serving: Run, both: bool) -> None:
    app = SendsMuch()
    limits = ServerLimits()
    async with serving(app, tls=both, limits=limits) as running:
        client = await running.connect(receive_buffer=16 * KIB)
        await client.send(head("GET", "/"))
        await client.read(1000)
        (connection,) = running.shared.connections
        await until(lambda: connection.transport.get_write_buffer_size() > 0)
        await asyncio.sleep(0.2)
        assert app.sent < SIZE / 2
        assert connection.transport.get_write_buffer_size() <= limits.write_bytes + 8 * KIB  # TLS adds a little
        client.vanish()
        await until(lambda: app.failed)


@pytest.mark.anyio
async def test_a_client_that_accepts_nothing_is_cut_and_send_ends(serving: Run, both: bool) -> None:
    app = SendsMuch()
    async with serving(app, tls=both, limits=ServerLimits(write_idle_seconds=0.4)) as running:
        client = await running.connect(receive_buffer=16 * KIB)
        await client.send(head("GET", "/"))
        await until(lambda: app.failed)
        assert running.server.stalled_writes_total == 1
        await until(lambda: running.server.open_connections == 0)


@pytest.mark.anyio
async def test_a_slow_client_gets_everything_also_what_waits_when_the_application_is_done(
    serving: Run, both: bool
) -> None:
    app = SendsMuch()
    async with serving(app, tls=both, limits=ServerLimits(write_idle_seconds=1.0)) as running:
        client = await running.connect(receive_buffer=64 * KIB)
        await client.send(head("GET", "/", "Connection: close"))
        began = time.monotonic()
        assert await read_slowly(client, 0.03) > SIZE
        assert time.monotonic() - began > 1.0  # longer than a client may stand still


@pytest.mark.anyio
async def test_a_client_counts_as_reading_also_while_the_kernel_alone_sends(serving: Run) -> None:
    """Behind a full send buffer of the kernel ours does not move for a while, although the client reads on."""
    app = SendsMuch()
    async with serving(app, limits=ServerLimits(write_idle_seconds=0.6)) as running:
        client = await running.connect(receive_buffer=16 * KIB)
        await client.send(head("GET", "/"))
        await client.read(1000)
        (connection,) = running.shared.connections
        await until(lambda: connection.transport.get_write_buffer_size() > 0)
        waiting, longest, since = 0, 0.0, time.monotonic()
        for _ in range(50):
            await client.read(8 * KIB)
            await asyncio.sleep(0.03)
            if connection.transport.get_write_buffer_size() != waiting:
                waiting, since = connection.transport.get_write_buffer_size(), time.monotonic()
            longest = max(longest, time.monotonic() - since)
        assert longest > 0.8  # or this test says nothing
        assert running.server.stalled_writes_total == 0


@pytest.mark.anyio
async def test_a_client_that_stops_reading_when_the_application_is_done_is_cut_too(serving: Run, both: bool) -> None:
    async def sends_more_than_sockets_hold(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(40):
            await send({"type": "http.response.body", "body": LARGE_PIECE, "more_body": True})

    limits = ServerLimits(write_idle_seconds=0.4)
    async with serving(sends_more_than_sockets_hold, tls=both, limits=limits) as running:
        client = await running.connect(receive_buffer=16 * KIB)
        await client.send(head("GET", "/", "Connection: close"))
        await until(lambda: running.server.accepted_total == 1 and running.server.open_connections == 0)
        await until(lambda: running.server.requests_in_flight == 0)


class GreedyTransport(asyncio.Transport):
    """Accepts whatever is written, at once."""

    def write(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return False


@pytest.mark.anyio
async def test_one_who_sends_without_a_pause_lets_the_others_have_their_turn() -> None:
    transport = GreedyTransport()
    outbox = Outbox(transport, ServerLimits(), below=transport)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count_turns())
    for _ in range(64):
        await outbox.write(bytes(256 * KIB))
    counting.cancel()
    assert turns >= 16


@pytest.mark.anyio
async def test_a_writer_that_waits_can_be_cancelled_and_hears_of_the_end() -> None:
    transport = GreedyTransport()
    outbox = Outbox(transport, ServerLimits(), below=transport)
    outbox.pause()
    cancelled, other = [asyncio.ensure_future(outbox.write(b"x")) for _ in range(2)]
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.sleep(0)
    assert not other.done()
    outbox.shut()
    with pytest.raises(HungUp):
        await other
    with pytest.raises(HungUp):
        await outbox.write(b"y")
