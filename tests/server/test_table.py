"""Whatever the application does and however the client behaves: it reads its answer, and nothing is left over."""

from __future__ import annotations

import asyncio

import pytest

from gauzian.errors import ASGIApp
from tests.server import apps
from tests.server.client import Client, chunked, head, post
from tests.server.conftest import Run

BODY = bytes(range(256)) * 2 * 1024  # 512 KiB: more than the sockets hold, given the small buffer of the client
HALF = len(BODY) // 2
SMALL_BUFFER = 32 * 1024

APPS: dict[str, tuple[ASGIApp, int]] = {
    "refuses at once": (apps.refuses_at_once, 400),
    "refuses after a wait": (apps.refuses_after_a_wait, 401),
    "refuses after part": (apps.refuses_after_part, 413),
    "raises at once": (apps.raises_at_once, 500),
    "raises after part": (apps.raises_after_part, 500),
    "never answers": (apps.never_answers, 0),
    "reads all": (apps.reads_all, 200),
}


class Behaviour:
    """What one kind of client does; each ends with having seen `status`, or in vanishing when there is none to see."""

    @staticmethod
    async def writes_all(client: Client, status: int) -> None:
        await client.send(post("/", BODY))
        assert (await client.answer("POST")).status == status

    @staticmethod
    async def reads_early(client: Client, status: int) -> None:
        sending = asyncio.ensure_future(client.send(post("/", BODY)))
        answer = await client.answer("POST")
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        assert answer.status == status

    @staticmethod
    async def stalls(client: Client, status: int) -> None:
        """Half of the body and then nothing more: those who wait for all of it wait until we go."""
        await client.send(post("/", BODY)[:HALF])
        if status != 200:
            assert (await client.answer("POST")).status == status

    @staticmethod
    async def vanishes(client: Client, status: int) -> None:
        await client.send(post("/", BODY)[:HALF])
        client.vanish()

    @staticmethod
    async def vanishes_after_the_head(client: Client, status: int) -> None:
        await client.send(head("POST", "/", f"Content-Length: {len(BODY)}"))
        client.vanish()

    @staticmethod
    async def pipelines(client: Client, status: int) -> None:
        """A second request right behind the body. It is answered only when the first one's body was read."""
        await client.send(post("/", BODY) + post("/second", b"x"))
        answer = await client.answer("POST")
        assert answer.status == status
        if status == 200:
            assert b"second" in (await client.answer("POST")).body
        else:
            assert answer.headers["connection"] == "close"

    @staticmethod
    async def keeps_alive(client: Client, status: int) -> None:
        """Small bodies are read off: the connection survives their refusal."""
        for _ in range(3):
            await client.send(post("/", b"x" * 500))
            answer = await client.answer("POST")
            assert answer.status == status
            if status == 500:  # made by the server itself: it trusts nothing after that
                assert answer.headers["connection"] == "close"
                return
            assert "connection" not in answer.headers

    @staticmethod
    async def expects(client: Client, status: int) -> None:
        """Sends the body only when told to."""
        await client.send(head("POST", "/", f"Content-Length: {len(BODY)}", "Expect: 100-continue"))
        first = await client.answer("POST", interim=True)
        if first.status == 100:
            await client.send(BODY)
            assert (await client.answer("POST")).status == status
        else:
            assert (first.status, first.headers["connection"]) == (status, "close")

    @staticmethod
    async def sends_chunks(client: Client, status: int) -> None:
        await client.send(head("POST", "/", "Transfer-Encoding: chunked") + chunked(BODY))
        assert (await client.answer("POST")).status == status

    @staticmethod
    async def speaks_http_1_0(client: Client, status: int) -> None:
        await client.send(head("POST", "/", f"Content-Length: {len(BODY)}", version="1.0") + BODY)
        answer = await client.answer("POST")
        assert answer.status == status
        assert answer.headers["connection"] == "close"


BEHAVIOURS = [name for name in vars(Behaviour) if not name.startswith("_")]
CASES = [
    pytest.param(app, name, id=f"{app}-{name}")
    for app in APPS
    for name in BEHAVIOURS
    if app != "never answers" or name in ("vanishes", "vanishes_after_the_head", "stalls")
]


@pytest.mark.anyio
@pytest.mark.parametrize(("app_name", "behaviour"), CASES)
async def test_everyone_reads_an_answer_and_nothing_is_left(
    serving: Run, both: bool, app_name: str, behaviour: str
) -> None:
    app, status = APPS[app_name]
    if behaviour == "stalls" and app_name == "never answers":
        status = 200  # as for those who wait for the rest
    async with serving(app, tls=both) as running:
        clients = [await running.connect(send_buffer=SMALL_BUFFER) for _ in range(2)]
        async with asyncio.timeout(15):
            await asyncio.gather(*[getattr(Behaviour, behaviour)(client, status) for client in clients])
