"""Clients that are slow, silent or gone while an answer is on its way."""

from __future__ import annotations

import asyncio

import pytest

from gauzian.errors import ClientGone, Message
from gauzian.spout import Spout
from gauzian.web.outlet import Outlet, send_at_once
from tests.download.fakes import Client, until

pytestmark = pytest.mark.anyio


class Counts:
    def __init__(self) -> None:
        self.bytes = 0.0
        self.slow = 0

    def count_bytes(self, number: float) -> None:
        self.bytes += number

    def count_slow(self) -> None:
        self.slow += 1


class Hose:
    """A spout that takes `size` bytes at a time."""

    def __init__(self, client: Client, size: int) -> None:
        self.client = client
        self.size = size

    def send_now(self, view: memoryview) -> int:
        self.client.sent.append({"type": "by the spout", "body": bytes(view[: self.size])})
        return len(view[: self.size])


def outlet_to(client: Client, counts: Counts, *, stall_seconds: float = 60.0, spout: Spout | None = None) -> Outlet:
    return Outlet(
        client.receive,
        client.send,
        stall_seconds=stall_seconds,
        spout=spout,
        count_slow=counts.count_slow,
        count_bytes=counts.count_bytes,
    )


async def answer(outlet: Outlet, pieces: int) -> None:
    async with outlet:
        await outlet.start(200, [])
        for _ in range(pieces):
            await outlet.write(b"12345678")
            await asyncio.sleep(0)
        await outlet.finish(b"end")


async def test_an_answer_goes_out_whole_and_leaves_no_task_behind() -> None:
    client, counts, tasks = Client(), Counts(), len(asyncio.all_tasks())
    await answer(outlet_to(client, counts), 5)
    assert client.body == b"12345678" * 5 + b"end"
    assert client.done.is_set()
    assert counts.bytes == 43
    await until(lambda: len(asyncio.all_tasks()) == tasks)


@pytest.mark.parametrize("swallowed", [False, True])
async def test_a_client_that_leaves_ends_the_answer(swallowed: bool) -> None:
    client, counts, tasks = Client(leaves_after=3, swallowed=swallowed), Counts(), len(asyncio.all_tasks())
    with pytest.raises(ClientGone):
        await answer(outlet_to(client, counts), 1000)
    assert client.body == b"12345678" * 3
    assert counts.slow == 0
    await until(lambda: len(asyncio.all_tasks()) == tasks)


async def test_a_client_that_leaves_while_the_store_keeps_us_waiting_is_noticed() -> None:
    client, counts = Client(), Counts()
    with pytest.raises(ClientGone):
        async with outlet_to(client, counts) as outlet:
            await outlet.start(200, [])
            client.gone.set()
            await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_client_that_takes_nothing_any_more_is_cut() -> None:
    client, counts = Client(stalls_after=2), Counts()
    with pytest.raises(ClientGone):
        await answer(outlet_to(client, counts, stall_seconds=0.05), 1000)
    assert counts.slow == 1
    assert counts.bytes == 16


async def test_a_slow_store_is_not_the_clients_fault() -> None:
    client, counts = Client(), Counts()
    async with outlet_to(client, counts, stall_seconds=0.01) as outlet:
        await outlet.start(200, [])
        await asyncio.sleep(0.08)  # the store
        await outlet.finish()
    assert counts.slow == 0


@pytest.mark.parametrize("turns", [None, *range(8)])
async def test_a_cancellation_from_outside_stays_one(turns: int | None) -> None:
    """Also when the client leaves at the same moment, or some turns of the loop before."""
    client, counts = Client(stalls_after=1), Counts()
    sender = asyncio.create_task(answer(outlet_to(client, counts), 10))
    await client.stalled.wait()
    if turns is not None:
        client.gone.set()
        for _ in range(turns):
            await asyncio.sleep(0)
    in_time = sender.cancel()
    await asyncio.wait([sender])
    assert sender.cancelled() == in_time
    assert in_time or isinstance(sender.exception(), ClientGone)


async def test_the_end_of_an_answer_is_not_taken_for_a_client_that_left() -> None:
    """Servers report the end as a disconnect too, and may do so before the last `send` has returned."""
    client, counts = Client(), Counts()

    async def send(message: Message) -> None:
        await client.send(message)
        for _ in range(20):
            await asyncio.sleep(0)

    outlet = Outlet(client.receive, send, stall_seconds=60, count_slow=counts.count_slow)
    await answer(outlet, 2)
    assert client.done.is_set()


async def test_a_request_body_nobody_wanted_is_passed_over() -> None:
    messages: list[Message] = [{"type": "http.request", "body": b"x", "more_body": True} for _ in range(3)]
    client, counts = Client(), Counts()

    async def receive() -> Message:
        return messages.pop() if messages else await client.receive()

    await answer(Outlet(receive, client.send, stall_seconds=60, count_slow=counts.count_slow), 20)
    assert not messages
    assert client.done.is_set()


async def test_a_receive_that_fails_is_a_client_that_cannot_be_heard() -> None:
    async def receive() -> Message:
        raise RuntimeError("no more messages")

    with pytest.raises(ClientGone):
        await answer(Outlet(receive, Client().send, stall_seconds=60, count_slow=Counts().count_slow), 20)


async def test_a_small_answer_to_a_client_that_left_is_no_error_of_ours() -> None:
    client = Client()
    client.gone.set()
    with pytest.raises(ClientGone):
        await send_at_once(client.send, 304, [])


@pytest.mark.parametrize("swallowed", [False, True])
async def test_a_client_that_leaves_with_the_last_byte_has_got_it_all(swallowed: bool) -> None:
    client, counts = Client(leaves_after=3, swallowed=swallowed), Counts()
    async with outlet_to(client, counts) as outlet:
        await outlet.start(200, [(b"content-length", b"24")])
        for _ in range(3):
            await outlet.write(b"12345678")
        for _ in range(5):
            await asyncio.sleep(0)
        await outlet.finish()
    assert client.body == b"12345678" * 3
    assert counts.bytes == 24


@pytest.mark.parametrize("size", [0, 1, 4, 100])
async def test_what_goes_by_the_spout_is_counted_and_the_last_byte_does_not(size: int) -> None:
    client, counts, whole = Client(), Counts(), b"0123456789"
    async with outlet_to(client, counts, spout=Hose(client, size)) as outlet:
        await outlet.start(200, [(b"content-length", b"10")])
        await outlet.write(whole[:1])
        taken = outlet.send_now(memoryview(whole)[1:])
        assert taken == min(size, 8)
        await outlet.write(whole[1 + taken :])
        assert outlet.send_now(memoryview(b"more")) == 0
    assert client.body == whole
    assert [message["more_body"] for message in client.sent if "more_body" in message] == [True, False]
    assert counts.bytes == 10


async def test_a_spout_is_told_nothing_while_nobody_knows_the_length() -> None:
    client, counts = Client(), Counts()
    async with outlet_to(client, counts, spout=Hose(client, 100)) as outlet:
        await outlet.start(200, [])
        assert outlet.send_now(memoryview(b"bytes")) == 0
        await outlet.finish(b"end")
    assert client.body == b"end"
