from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from gauzian.server.limits import KIB, ServerLimits
from gauzian.server.linger import SCRATCH_BYTES, Lingerers
from tests.server import apps
from tests.server.client import head, until
from tests.server.conftest import QUICK, Run


class FloodedTransport(asyncio.Transport):
    """As much as one reads: each turn of the loop brings a full buffer, as long as reading is on."""

    def __init__(self, order: deque[FloodedTransport]) -> None:
        super().__init__()
        self.order, self.reads, self.reading, self.gone = order, 0, True, False
        self.linger: Any = None

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.linger = protocol

    def flood(self) -> None:
        if self.reading and not self.gone:
            self.reads += 1
            self.order.append(self)
            self.linger.buffer_updated(len(self.linger.get_buffer(-1)))

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.gone

    def abort(self) -> None:
        self.gone = True
        self.linger.connection_lost(None)


@pytest.mark.anyio
async def test_a_turn_of_the_loop_swallows_its_budget_and_everybody_gets_a_fair_share() -> None:
    limits = ServerLimits(linger_turn_bytes=4 * SCRATCH_BYTES, linger_bytes=10**12)
    lingerers = Lingerers(limits)
    order: deque[FloodedTransport] = deque()
    everybody = [FloodedTransport(order) for _ in range(20)]
    for one in everybody:
        lingerers.take(one, rest=None, lost=lambda: None)
    per_turn = []
    for _ in range(60):
        before = lingerers.swallowed
        for one in everybody:
            one.flood()
        per_turn.append(lingerers.swallowed - before)
        await asyncio.sleep(0)
    assert max(per_turn[2:]) <= 2 * limits.linger_turn_bytes
    reads = [one.reads for one in everybody]
    assert max(reads) - min(reads) <= 2
    assert min(reads) >= 5
    lingerers.abort_all()
    assert not lingerers.all


@pytest.mark.anyio
async def test_a_newcomer_stands_behind_those_who_wait() -> None:
    lingerers = Lingerers(ServerLimits(linger_turn_bytes=SCRATCH_BYTES, linger_bytes=10**12))
    order: deque[FloodedTransport] = deque()
    first, second = FloodedTransport(order), FloodedTransport(order)
    lingerers.take(first, rest=None, lost=lambda: None)
    first.flood()
    lingerers.take(second, rest=None, lost=lambda: None)
    assert not first.reading
    assert not second.reading
    await asyncio.sleep(0)
    assert (first.reading, second.reading) == (True, False)
    await asyncio.sleep(0)
    assert second.reading


@pytest.mark.anyio
async def test_one_who_vanishes_while_waiting_in_the_line_is_passed_over() -> None:
    lingerers = Lingerers(ServerLimits(linger_turn_bytes=SCRATCH_BYTES, linger_bytes=10**12))
    order: deque[FloodedTransport] = deque()
    one = FloodedTransport(order)
    lingerers.take(one, rest=None, lost=lambda: None)
    one.flood()
    one.abort()
    await asyncio.sleep(0)
    assert not one.reading
    assert not lingerers.all


@pytest.mark.anyio
async def test_it_ends_when_the_bound_of_bytes_is_reached(serving: Run, both: bool) -> None:
    limits = ServerLimits(linger_bytes=256 * KIB, linger_seconds=30, linger_idle_seconds=30)
    async with serving(apps.refuses_at_once, tls=both, limits=limits) as running:
        client = await running.connect(send_buffer=16 * KIB)
        await client.send(head("POST", "/", "Content-Length: 100000000"))
        assert (await client.answer("POST")).status == 400
        with pytest.raises((ConnectionError, TimeoutError)):
            for _ in range(400):
                await client.send(bytes(64 * KIB))
        assert 256 * KIB <= running.server.swallowed_bytes_total <= 256 * KIB + SCRATCH_BYTES


@pytest.mark.anyio
async def test_on_tls_where_nothing_can_be_half_closed_it_ends_when_the_declared_rest_has_come(serving: Run) -> None:
    limits = ServerLimits(linger_seconds=30, linger_idle_seconds=30)
    async with serving(apps.refuses_at_once, tls=True, limits=limits) as running:
        client = await running.connect()
        await client.send(head("POST", "/", "Content-Length: 200000") + bytes(100_000))
        assert (await client.answer("POST")).status == 400
        await until(lambda: running.server.lingering_connections == 1)
        await client.send(bytes(100_000))
        assert await client.ended()


@pytest.mark.anyio
async def test_silence_ends_it(serving: Run, both: bool) -> None:
    async with serving(apps.refuses_at_once, tls=both) as running:
        client = await running.connect()
        await client.send(head("POST", "/", "Content-Length: 100000000") + bytes(1000))
        assert (await client.answer("POST")).status == 400
        await until(lambda: running.server.open_connections == 0, QUICK.linger_idle_seconds * 20)


@pytest.mark.anyio
async def test_a_client_that_drips_is_cut_when_its_time_is_over(serving: Run, both: bool) -> None:
    limits = ServerLimits(linger_seconds=0.5, linger_idle_seconds=30)
    async with serving(apps.refuses_at_once, tls=both, limits=limits) as running:
        client = await running.connect()
        await client.send(head("POST", "/", "Content-Length: 100000000"))
        assert (await client.answer("POST")).status == 400
        with pytest.raises((ConnectionError, TimeoutError)):
            for _ in range(1000):
                await client.send(b"x")
                await asyncio.sleep(0.01)


@pytest.mark.anyio
async def test_it_ends_at_once_when_the_client_closes(serving: Run, both: bool) -> None:
    limits = ServerLimits(linger_seconds=30, linger_idle_seconds=30)
    async with serving(apps.refuses_at_once, tls=both, limits=limits) as running:
        client = await running.connect()
        await client.send(head("POST", "/", "Content-Length: 100000000"))
        await client.answer("POST")
        await until(lambda: running.server.lingering_connections == 1)
        client.vanish()
        await until(lambda: running.server.open_connections == 0, 2)
