"""The middle of an answer past `send`: every byte once and in its place, never the last, never in another answer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from gauzian.errors import Receive, Scope, Send
from gauzian.server.limits import KIB, ServerLimits
from gauzian.spout import EXTENSION, Spout
from tests.server import apps
from tests.server.client import Client, head, until
from tests.server.conftest import Run

pytestmark = pytest.mark.anyio

MIB = 1024 * KIB
BODY = random.Random(8).randbytes(5 * MIB + 3)
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(BODY))]}


def spout_of(scope: Scope) -> Spout:
    spout: Spout = scope["extensions"][EXTENSION]
    return spout


def more(body: bytes) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": True}


class Pours:
    """Answers with BODY, `size` bytes at a time: by the spout, and by `send` what did not go that way."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.passed = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        spout = spout_of(scope)
        await send(START)
        await send(more(BODY[:10]))
        at = 10
        while at < len(BODY):
            view = memoryview(BODY)[at : at + self.size]
            taken = spout.send_now(view)
            self.passed += taken
            rest = bytes(view[taken:])
            at += len(view)
            if rest:
                await send({**more(rest), "more_body": at < len(BODY)})
            else:
                await asyncio.sleep(0)


@pytest.mark.parametrize("size", [3000, 64 * KIB, 2 * MIB, 6 * MIB])
async def test_what_passes_and_what_is_sent_come_in_order_whatever_the_client_takes(serving: Run, size: int) -> None:
    app = Pours(size)
    async with serving(app) as running:
        for options in ({}, {"receive_buffer": 16 * KIB}):
            client = await running.connect(**options)
            for _ in range(2):
                await client.send(head("GET", "/"))
                answer = await client.answer()
                assert answer.body == BODY
                assert app.passed > 0
                app.passed = 0


async def test_the_last_byte_is_left_and_nothing_goes_before_the_head_or_behind_the_end(serving: Run) -> None:
    told: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        tell = spout_of(scope).send_now
        told.append(tell(memoryview(b"early")))
        await send({**START, "headers": [(b"content-length", b"5")]})
        told.append(tell(memoryview(b"1")))  # the head has not gone out yet
        await send(more(b"1"))
        told.append(tell(memoryview(b"")))
        told.append(tell(memoryview(b"2345and too much")))
        told.append(tell(memoryview(b"5")))
        await send({**more(b"5"), "more_body": False})
        told.append(tell(memoryview(b"late")))

    async with serving(app) as running:
        client = await running.connect()
        await client.send(head("GET", "/"))
        assert (await client.answer()).body == b"12345"
        await until(lambda: len(told) == 6)
    assert told == [0, 0, 0, 3, 0, 0]


async def test_nothing_goes_behind_the_last_byte_while_the_end_is_still_to_be_said(serving: Run) -> None:
    told: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": [(b"content-length", b"5")]})
        await send(more(b"12345"))
        told.append(spout_of(scope).send_now(memoryview(b"67")))
        await send({**more(b""), "more_body": False})

    async with serving(app) as running:
        client = await running.connect()
        await client.send(head("GET", "/"))
        assert (await client.answer()).body == b"12345"
        assert told == [0]


async def test_nothing_goes_into_an_answer_without_a_length(serving: Run) -> None:
    told: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": []})
        await send(more(b"all"))
        told.append(spout_of(scope).send_now(memoryview(b"not this")))
        await send({**more(b""), "more_body": False})

    async with serving(app) as running:
        client = await running.connect()
        await client.send(head("GET", "/"))
        assert (await client.answer()).body == b"all"
    assert told == [0]


async def test_a_spout_that_was_kept_says_nothing_in_the_next_answer(serving: Run) -> None:
    kept: list[Spout] = []
    told: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kept.append(spout_of(scope))
        await send({**START, "headers": [(b"content-length", b"3")]})
        await send(more(b"1"))
        told.append(kept[0].send_now(memoryview(b"x")))
        await send({**more(b"23"[told[-1] :]), "more_body": False})

    async with serving(app) as running:
        client = await running.connect()
        await client.send(head("GET", "/"))
        assert (await client.answer()).body == b"1x3"
        await client.send(head("GET", "/"))
        assert (await client.answer()).body == b"123"
    assert told == [1, 0]


@pytest.mark.parametrize("end", [Client.vanish, None])
async def test_nothing_goes_out_while_bytes_wait_and_when_the_client_is_gone(
    serving: Run, end: Callable[[Client], None] | None
) -> None:
    stuck, gone = asyncio.Event(), asyncio.Event()
    told: list[tuple[bool, int]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        sending = asyncio.ensure_future(send(more(BODY[:-1000])))
        (connection,) = running.shared.connections
        await until(lambda: connection.transport.get_write_buffer_size() > 0)
        told.append((sending.done(), spout_of(scope).send_now(memoryview(b"x"))))
        stuck.set()
        await gone.wait()
        await asyncio.wait([sending])
        sending.exception()
        told.append((sending.done(), spout_of(scope).send_now(memoryview(b"x"))))

    async with serving(app, limits=ServerLimits(write_idle_seconds=0.2)) as running:
        client = await running.connect(receive_buffer=16 * KIB)
        await client.send(head("GET", "/"))
        await stuck.wait()
        if end is not None:
            end(client)
        await until(lambda: not running.shared.connections)  # left, or cut off because it takes nothing
        gone.set()
        await until(lambda: len(told) == 2)
    assert told == [(False, 0), (True, 0)]


async def test_an_encrypted_connection_has_none(serving: Run) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await apps.answer(send, 200, repr(scope["extensions"]).encode())

    async with serving(app, tls=True) as running:
        client = await running.connect()
        await client.send(head("GET", "/"))
        assert (await client.answer()).body == b"{}"
