"""A request body: counted, capped, timed, and what happens when the wait for it is broken off."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import pytest

from gauzian.errors import BadField, BodyTooLarge, BodyTooSlow, ClientGone, Message, UploadTooSlow
from gauzian.web import body as body_module
from gauzian.web.body import Body, declared_length, header
from tests.taps import CountedTap, offering

pytestmark = pytest.mark.anyio


class Client:
    """The sending side of a request: what it has sent waits here until the body is asked for."""

    def __init__(self, *pieces: bytes, ends: bool = False) -> None:
        self.sent: asyncio.Queue[Message] = asyncio.Queue()
        self.asked = 0
        for piece in pieces:
            self.send(piece)
        if ends:
            self.send(b"", more=False)

    def send(self, piece: bytes, *, more: bool = True) -> None:
        self.sent.put_nowait({"type": "http.request", "body": piece, "more_body": more})

    def hang_up(self) -> None:
        self.sent.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> Message:
        self.asked += 1
        return await self.sent.get()


def request(**headers: str) -> dict[str, Any]:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "http_version": "1.1", "headers": named}


CHUNKED = request(transfer_encoding="chunked")


def body_of(client: Client, scope: dict[str, Any] = CHUNKED, **limits: Any) -> Body:
    return Body(scope, client.receive, **{"most_bytes": 1000, **limits})


def timers(body: Body) -> list[float]:
    """Seconds until each timer that this body has left in the loop."""
    loop = asyncio.get_running_loop()
    handles = [handle for handle in loop._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    return [handle.when() - loop.time() for handle in handles if getattr(handle._callback, "__self__", None) is body]


def pending_cancellations() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("scope", "length"),
    [
        (request(content_length="12"), 12),
        (request(content_length="0"), 0),
        (request(), 0),
        (request(transfer_encoding="chunked"), None),
        (request(transfer_encoding="chunked", content_length="12"), None),
        ({"http_version": "2", "headers": []}, None),
        ({"http_version": "2", "headers": [(b"content-length", b"7")]}, 7),
    ],
)
def test_the_declared_length_is_what_the_headers_say(scope: dict[str, Any], length: int | None) -> None:
    assert declared_length(scope) == length


@pytest.mark.parametrize("junk", ["", "-1", "+1", "1.0", "1 2", "0x10", "1_0", "٣", "9" * 19, "9" * 5000])
def test_a_junk_length_is_refused_by_name(junk: str) -> None:
    with pytest.raises(BadField) as refused:
        declared_length(request(content_length=junk))
    assert refused.value.fields == {"field": "Content-Length"}


def test_the_first_header_of_a_name_counts() -> None:
    scope = {"headers": [(b"a", b"1"), (b"b", b"2"), (b"b", b"3")]}
    assert (header(scope, b"b"), header(scope, b"c")) == (b"2", None)


async def test_pieces_come_as_they_were_sent_and_never_empty() -> None:
    body = body_of(Client(b"one", b"", b"two", b"", ends=True))
    assert [piece async for piece in body] == [b"one", b"two"]
    assert (body.ended, body.received, timers(body)) == (True, 6, [])
    assert [piece async for piece in body] == []


async def test_a_last_piece_with_bytes_is_given_too() -> None:
    client = Client(b"one")
    client.send(b"two", more=False)
    assert await body_of(client, request(content_length="6")).read() == b"onetwo"
    assert client.asked == 2


async def test_a_body_declared_too_large_is_refused_before_it_is_asked_for() -> None:
    client = Client()
    with pytest.raises(BodyTooLarge) as refused:
        body_of(client, request(content_length="1001"))
    assert refused.value.fields == {"limit": 1000}
    assert client.asked == 0
    assert body_of(client, request(content_length="1000")).declared == 1000


async def test_an_undeclared_body_is_refused_as_soon_as_the_count_passes_the_limit() -> None:
    client = Client(b"x" * 600, b"y" * 400, b"z", b"never read")
    body = body_of(client)
    assert [len(await anext(body)), len(await anext(body))] == [600, 400]
    for _ in range(2):  # a refusal is final: it never turns into an end
        with pytest.raises(BodyTooLarge):
            await anext(body)
    assert (client.asked, timers(body)) == (3, [])


async def test_the_caller_chooses_what_too_large_and_too_slow_are_called() -> None:
    with pytest.raises(ZeroDivisionError):
        body_of(Client(), request(content_length="1001"), too_large=lambda limit: ZeroDivisionError(limit))
    with pytest.raises(UploadTooSlow):
        await body_of(Client(), idle_seconds=0.01, too_slow=UploadTooSlow).read()


async def test_a_client_that_hangs_up_is_gone_and_stays_gone() -> None:
    client = Client(b"some")
    client.hang_up()
    body = body_of(client)
    assert await anext(body) == b"some"
    for _ in range(2):
        with pytest.raises(ClientGone):
            await anext(body)
    assert timers(body) == []


async def test_a_client_that_hangs_up_while_we_wait_is_gone() -> None:
    client = Client()
    body = body_of(client)
    waiter = asyncio.create_task(body.read())
    await until(lambda: client.asked == 1)
    client.hang_up()
    with pytest.raises(ClientGone):
        await asyncio.wait_for(waiter, 5)


@pytest.mark.parametrize("sent", [b"", b"12345"])
async def test_an_end_before_the_declared_length_is_no_end(sent: bytes) -> None:
    client = Client(sent, ends=True)
    body = body_of(client, request(content_length="6"))
    for _ in range(2):
        with pytest.raises(ClientGone):
            await body.read()
    assert not body.ended


async def test_a_silent_client_is_cut_after_the_idle_time() -> None:
    body = body_of(Client(b"first"), idle_seconds=0.1)
    assert await anext(body) == b"first"
    started = time.monotonic()
    with pytest.raises(BodyTooSlow):
        await anext(body)
    assert 0.09 < time.monotonic() - started < 2
    assert (pending_cancellations(), timers(body)) == (0, [])
    with pytest.raises(BodyTooSlow):
        await anext(body)


async def drip(client: Client, *, seconds: float, piece: bytes = b"x") -> None:
    while True:
        client.send(piece)
        await asyncio.sleep(seconds)


async def test_a_dripping_client_is_cut_by_its_rate_after_the_grace() -> None:
    client = Client()
    body = body_of(client, idle_seconds=5, slowest=1000, grace_seconds=0.2)
    dripping = asyncio.create_task(drip(client, seconds=0.02))
    started = time.monotonic()
    try:
        with pytest.raises(BodyTooSlow):
            await body.read()
    finally:
        dripping.cancel()
    assert 0.18 < time.monotonic() - started < 2
    assert body.received > 2  # it was inside of the idle time all along


async def test_a_client_that_keeps_its_rate_is_not_cut_after_the_grace() -> None:
    client = Client()
    body = body_of(client, most_bytes=2_000, idle_seconds=5, slowest=100, grace_seconds=0.05)
    dripping = asyncio.create_task(drip(client, seconds=0.01, piece=b"x" * 50))
    try:
        with pytest.raises(BodyTooLarge):
            await body.read()
    finally:
        dripping.cancel()


@pytest.mark.parametrize("slowest", [0, 0.0, 1e-9])
async def test_a_rate_of_nothing_leaves_only_the_idle_time(slowest: float) -> None:
    client = Client()
    body = body_of(client, most_bytes=20, idle_seconds=5, slowest=slowest, grace_seconds=0.05)
    dripping = asyncio.create_task(drip(client, seconds=0.01))
    try:
        with pytest.raises(BodyTooLarge):
            await body.read()
    finally:
        dripping.cancel()


async def test_a_slow_store_is_not_the_clients_fault() -> None:
    client = Client(b"a", b"b", b"c", ends=True)
    body = body_of(client, idle_seconds=0.05, slowest=1e9, grace_seconds=0.05)
    got = []
    async for piece in body:
        got.append(piece)
        await asyncio.sleep(0.08)
    assert got == [b"a", b"b", b"c"]


async def test_a_process_that_slept_does_not_blame_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module, "_ASLEEP_SECONDS", 0.05)
    client = Client()
    body = body_of(client, idle_seconds=0.1)
    loop = asyncio.get_running_loop()
    loop.call_later(0.02, time.sleep, 0.3)
    loop.call_later(0.25, client.send, b"came while we slept")
    assert await anext(body) == b"came while we slept"


async def test_cancelled_while_waiting_it_goes_on_and_leaves_no_timer() -> None:
    client = Client()
    body = body_of(client)
    waiter = asyncio.create_task(body.read())
    await until(lambda: client.asked == 1)
    assert len(timers(body)) == 1
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert timers(body) == []


async def test_a_wait_that_was_broken_off_from_outside_can_be_taken_up_again() -> None:
    client = Client(b"one")
    body = body_of(client)
    assert await anext(body) == b"one"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await anext(body)
    with anyio.move_on_after(0.02) as scope:
        await anext(body)
    assert scope.cancelled_caught
    client.send(b"two", more=False)
    assert await body.read() == b"two"
    assert timers(body) == []


# Both timers are due in the same turn of the loop, because the loop slept over them; whichever comes first.
RACE = pytest.mark.parametrize("outer_seconds", [0.045, 0.05, 0.055])


def sleep_over_both() -> None:
    asyncio.get_running_loop().call_later(0.02, time.sleep, 0.1)


@RACE
async def test_an_outer_asyncio_timeout_that_races_with_the_cut_is_not_lost(outer_seconds: float) -> None:
    body = body_of(Client(), idle_seconds=0.05)
    sleep_over_both()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(outer_seconds):
            await anext(body)
    assert (pending_cancellations(), timers(body)) == (0, [])
    await asyncio.sleep(0)  # nothing left over that would hit the next wait


@RACE
async def test_an_outer_anyio_scope_that_races_with_the_cut_is_not_lost(outer_seconds: float) -> None:
    body = body_of(Client(), idle_seconds=0.05)
    sleep_over_both()
    with anyio.move_on_after(outer_seconds) as scope:
        with contextlib.suppress(BodyTooSlow):
            await anext(body)
        await asyncio.sleep(0.2)
    assert scope.cancelled_caught
    assert (pending_cancellations(), timers(body)) == (0, [])
    await asyncio.sleep(0)


@RACE
async def test_a_task_cancelled_in_the_turn_of_the_cut_ends_cancelled(outer_seconds: float) -> None:
    body = body_of(Client(), idle_seconds=0.05)
    waiter = asyncio.create_task(body.read())
    asyncio.get_running_loop().call_later(outer_seconds, waiter.cancel)
    sleep_over_both()
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_a_cut_works_in_a_task_that_was_cancelled_before() -> None:
    async def clean_up_slowly() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await body_of(Client(), idle_seconds=0.02).read()

    task = asyncio.create_task(clean_up_slowly())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(BodyTooSlow):
        await task


async def test_a_receive_that_swallows_the_cut_is_still_too_slow() -> None:
    async def receive() -> Message:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return {"type": "http.request", "body": b"late", "more_body": True}
        raise AssertionError

    body = Body(CHUNKED, receive, most_bytes=100, idle_seconds=0.02)
    with pytest.raises(BodyTooSlow):
        await anext(body)
    assert (pending_cancellations(), timers(body)) == (0, [])


async def test_another_task_may_read_on() -> None:
    body = body_of(Client(b"one"), idle_seconds=0.05)

    async def first_piece() -> bytes:
        return await anext(body)

    assert await asyncio.create_task(first_piece()) == b"one"
    with pytest.raises(BodyTooSlow):
        await body.read()


async def test_an_abandoned_body_leaves_one_timer_for_the_idle_time_at_most() -> None:
    body = body_of(Client(b"one", b"two"), idle_seconds=0.1)
    assert await anext(body) == b"one"
    assert len(timers(body)) == 1
    assert timers(body)[0] <= 0.1
    await until(lambda: timers(body) == [])


async def test_a_closed_body_leaves_no_timer() -> None:
    body = body_of(Client(b"one", b"two"))
    assert await anext(body) == b"one"
    body.close()
    assert timers(body) == []


async def test_a_thousand_pieces_cost_one_timer() -> None:
    body = body_of(Client(*[b"x"] * 1000, ends=True), most_bytes=2000)
    highest = 0
    async for _ in body:
        highest = max(highest, len(timers(body)))
    assert highest == 1


def declaring(length: int, tap: CountedTap) -> dict[str, Any]:
    return offering(request(content_length=str(length)), tap)


async def test_a_body_of_a_known_length_has_the_tap_that_the_server_offers() -> None:
    tap = CountedTap()
    assert body_of(Client(), declaring(12, tap)).tap is tap
    assert body_of(Client(), offering(CHUNKED, tap)).tap is None
    assert body_of(Client(), request(content_length="12")).tap is None
    assert body_of(Client(), {**request(content_length="12"), "extensions": {"other": tap}}).tap is None


async def test_what_was_taken_by_the_tap_has_been_received() -> None:
    client, tap = Client(b"one"), CountedTap()
    body = body_of(client, declaring(12, tap))
    assert await anext(body) == b"one"
    tap.drawn(4)
    assert body.received == 7
    tap.drawn(3)
    assert (body.received, body.ended) == (10, False)
    client.send(b"tw", more=False)
    assert [piece async for piece in body] == [b"tw"]
    assert (body.received, body.ended, timers(body)) == (12, True, [])


@pytest.mark.parametrize("taken", [0, 1, 6])
async def test_an_end_before_the_declared_length_is_no_end_with_a_tap_either(taken: int) -> None:
    client, tap = Client(b"one"), CountedTap()
    body = body_of(client, declaring(12, tap))
    assert await anext(body) == b"one"
    tap.drawn(taken)
    client.send(b"tw", more=False)
    for _ in range(2):
        with pytest.raises(ClientGone):
            await anext(body)
    assert (body.ended, timers(body)) == (False, [])


async def test_a_body_is_too_large_whichever_way_it_came() -> None:
    client, tap = Client(b"one"), CountedTap()
    body = body_of(client, declaring(12, tap), most_bytes=12)
    assert await anext(body) == b"one"
    tap.drawn(8)
    client.send(b"xx")
    for _ in range(2):
        with pytest.raises(BodyTooLarge):
            await anext(body)


async def test_what_was_taken_by_the_tap_counts_for_the_clients_rate() -> None:
    """In a second it may keep us waiting for as long as it has sent: the grace alone would be over at once."""
    client, tap = Client(b"x"), CountedTap()
    body = body_of(client, declaring(502, tap), slowest=100, grace_seconds=0.01)
    assert await anext(body) == b"x"
    tap.drawn(500)
    asyncio.get_running_loop().call_later(0.1, partial(client.send, b"x", more=False))
    assert await anext(body) == b"x"
    assert body.received == 502
