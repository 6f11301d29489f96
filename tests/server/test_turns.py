"""A crowd that brings bodies does not stand before somebody who brings none."""

from __future__ import annotations

import asyncio
import socket

import anyio
import pytest

from gauzian.errors import Receive, Scope, Send
from gauzian.server.limits import ServerLimits
from gauzian.server.serve import Server
from gauzian.server.turns import Turns

pytestmark = pytest.mark.anyio

CROWD = 200


async def test_a_get_goes_first_and_posts_come_a_few_per_turn_in_order() -> None:
    turns = Turns(2)
    order: list[int] = []

    async def post(number: int) -> None:
        await turns.come(b"POST / HTTP/1.1\r\n")
        order.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(9):
            tasks.start_soon(post, number)
        await asyncio.sleep(0)
        begun = len(order)
        await turns.come(b"GET / HTTP/1.1\r\n")
        assert len(order) == begun <= 2, "the GET did not wait"
    assert order == list(range(9))


async def test_whoever_leaves_while_waiting_takes_no_turn() -> None:
    turns = Turns(1)
    tasks = [asyncio.create_task(turns.come(b"PUT / HTTP/1.1\r\n")) for _ in range(6)]
    await asyncio.sleep(0)
    for task in tasks[2:5]:
        task.cancel()
    with anyio.fail_after(5):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert [task.cancelled() for task in tasks] == [False, False, True, True, True, False]
    assert not turns._waiting


async def test_health_is_answered_before_most_of_a_crowd_has_begun() -> None:
    begun = 0
    begun_before_health: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal begun
        if scope["type"] != "http":
            raise NotImplementedError
        if scope["method"] == "GET":
            begun_before_health.append(begun)
        else:
            begun += 1
        await send({"type": "http.response.start", "status": 400, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    server = Server(
        app,
        host="127.0.0.1",
        port=0,
        limits=ServerLimits(begun_per_turn=2),
        on_listening=lambda addresses: listening.set_result(addresses[0][1]),
    )
    stop = asyncio.Event()
    serving = asyncio.create_task(server.serve(stop))
    port = await listening
    sockets = []
    # Without an await the server cannot begin: all of the crowd stands in the kernel's queue before the probe does.
    for number in range(CROWD + 1):
        sock = socket.create_connection(("127.0.0.1", port))
        head = b"GET /health/live" if number == CROWD else b"POST /upload"
        sock.sendall(head + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        sockets.append(sock)
    with anyio.fail_after(30):
        while begun < CROWD or not begun_before_health:
            await anyio.sleep(0.01)
    assert begun_before_health[0] < CROWD / 2
    for sock in sockets:
        sock.close()
    stop.set()
    await serving
