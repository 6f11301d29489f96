"""An object on its way from S3: whole, cut anywhere, encrypted or not; the connection is used again or is gone."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import aiohttp
import pytest

from gauzian.bytebudget import ByteBudget
from gauzian.errors import StoreDown
from gauzian.stores.base import MOST_PIECE_BYTES, TURN_BYTES, Passing
from gauzian.stores.s3_received import ReceivedPieces, SmallFirstReads, received
from gauzian.stores.sharedbuffer import SharedBuffer
from tests.stores.faulty import Behaviour, Call, FaultyS3, answer, faulty_s3
from tests.stores.patience import until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]

KIB = 1024
SMALL = b"a few bytes"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LARGE = random.Random(5).randbytes(3 * 1024 * KIB + 7)
SHORT = 0.3
LONG = 30.0


@dataclass
class Asking:
    """Something that asks one store, and what its pieces may hold."""

    session: aiohttp.ClientSession
    faulty: FaultyS3
    budget: ByteBudget
    read_seconds: float
    buffer: SharedBuffer

    @asynccontextmanager
    async def get(self) -> AsyncIterator[ReceivedPieces]:
        response = await self.session.get(self.faulty.endpoint)
        pieces = received(response, self.budget, self.buffer, read_seconds=self.read_seconds)
        try:
            yield pieces
        finally:
            pieces.close()

    async def read(self) -> bytes:
        async with self.get() as pieces:
            return b"".join([piece async for piece in pieces])


class Ask(Protocol):
    def __call__(self, behaviour: Behaviour, read_seconds: float = LONG) -> AbstractAsyncContextManager[Asking]: ...


@pytest.fixture(params=["plain", "tls"])
def asking(request: pytest.FixtureRequest) -> Ask:
    certificate: Path | None = request.getfixturevalue("certificate") if request.param == "tls" else None

    @asynccontextmanager
    async def ask(behaviour: Behaviour, read_seconds: float = LONG) -> AsyncIterator[Asking]:
        theirs = ours = None
        if certificate is not None:
            theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            theirs.load_cert_chain(certificate)
            ours = ssl.create_default_context(cafile=certificate)
        budget = ByteBudget(256 * KIB, least=16 * KIB, most=128 * KIB, parts=2)
        async with (
            faulty_s3(tls=theirs, GET=behaviour) as faulty,
            aiohttp.ClientSession(
                connector=SmallFirstReads(ssl=ours or True), read_bufsize=4 * KIB, auto_decompress=False
            ) as session,
        ):
            buffer = SharedBuffer()
            yield Asking(session, faulty, budget, read_seconds, buffer)
        assert (budget.held, buffer.users) == (0, 0)

    return ask


def sends(data: bytes, *, cuts: tuple[int, ...] = (), every: int = 0) -> Behaviour:
    """Says `data`, cut at these places, or into pieces of `every` bytes; each leaves before the next is handed over."""
    places = [0, *(cuts or range(every, len(data), every) if every or cuts else ()), len(data)]

    async def behave(call: Call) -> None:
        for start, stop in pairwise(places):
            await call.say(data[start:stop])
            await asyncio.sleep(0)

    return behave


def says_little(ended: asyncio.Event) -> Behaviour:
    """Promises LARGE, says SMALL, and waits for the end of the connection."""

    async def behave(call: Call) -> None:
        await call.say(answer(200, SMALL, length=len(LARGE)))
        await call.reader.read()
        ended.set()

    return behave


HEAD = len(answer(200, LARGE)) - len(LARGE)
WAYS: dict[str, tuple[Behaviour, bytes]] = {
    "nothing": (sends(answer(200)), b""),
    "a little, with its head": (sends(answer(200, SMALL)), SMALL),
    "a little, byte by byte": (sends(answer(200, SMALL), every=1), SMALL),
    "much": (sends(answer(200, LARGE)), LARGE),
    "much, its head alone": (sends(answer(200, LARGE), cuts=(HEAD,)), LARGE),
    "much, a byte with its head": (sends(answer(200, LARGE), cuts=(HEAD + 1,)), LARGE),
    "much, its last byte alone": (sends(answer(200, LARGE), cuts=(HEAD + len(LARGE) - 1,)), LARGE),
    "much, in small pieces": (sends(answer(200, LARGE), every=1000), LARGE),
    "as much as is read with a head": (sends(answer(200, LARGE[: 20 * KIB]), every=HEAD + 9), LARGE[: 20 * KIB]),
}


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_sent_arrives_however_it_is_cut_and_the_connection_serves_again(asking: Ask, way: str) -> None:
    behaviour, expected = WAYS[way]
    async with asking(behaviour) as ask:
        for _ in range(3):
            assert await ask.read() == expected
        assert ask.faulty.accepted == 1


async def test_no_piece_is_larger_than_its_share_and_the_share_is_counted_until_the_next(asking: Ask) -> None:
    async with asking(sends(answer(200, LARGE))) as ask, ask.get() as pieces:
        async for piece in pieces:
            assert ask.budget.held == len(piece) <= 256 * KIB


async def test_others_get_their_turn_even_if_all_of_it_waits_in_the_kernel(
    asking: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    really = os.read

    async def other() -> None:
        while True:
            held.append(ask.budget.held)
            await asyncio.sleep(0)

    async with asking(sends(answer(200, LARGE))) as ask, ask.get() as pieces:
        ours = getattr(pieces, "_descriptor", None)
        monkeypatch.setattr(os, "read", lambda fd, size: bytes(size) if fd == ours else really(fd, size))
        beside = asyncio.create_task(other())
        most = since_turn = seen = 0
        for _ in range(10):
            piece = await anext(aiter(pieces))
            since_turn = since_turn + len(piece) if len(held) == seen else len(piece)
            most, seen = max(most, since_turn), len(held)
        beside.cancel()
    assert most <= TURN_BYTES + ask.budget.most
    assert set(held) == {0}


async def test_what_nobody_asks_for_stays_in_the_kernel(asking: Ask) -> None:
    asked = asyncio.Event()

    async def behave(call: Call) -> None:
        await call.say(answer(200, SMALL, length=len(SMALL) + len(LARGE)))
        await asked.wait()
        await call.say(LARGE)

    async with asking(behave) as ask, ask.get() as pieces:
        assert await anext(pieces) == SMALL
        waiting = asyncio.ensure_future(anext(pieces))
        await asyncio.wait([waiting], timeout=0.05)
        asked.set()
        got = await waiting
        await asyncio.sleep(0.05)  # it could come now, if it were let in
        assert pieces._come == []  # type: ignore[attr-defined]
        assert got + b"".join([piece async for piece in pieces]) == LARGE


async def test_an_unknown_length_ends_where_the_store_says(asking: Ask) -> None:
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(LARGE), LARGE)
    async with asking(sends(CHUNKED + body, every=30_000)) as ask:
        for _ in range(2):
            assert await ask.read() == LARGE
        assert ask.faulty.accepted == 1


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("sent", [0, 1, 20 * KIB, len(LARGE) - 1])
async def test_a_body_cut_short_fails_and_the_next_is_read_on_another_connection(
    asking: Ask, sent: int, chunked: bool
) -> None:
    cut = True
    head = answer(200, b"", length=len(LARGE)) if not chunked else CHUNKED
    body = LARGE if not chunked else b"%x\r\n%b\r\n0\r\n\r\n" % (len(LARGE), LARGE)

    async def behave(call: Call) -> None:
        await call.say(head + (body[:sent] if cut else body))
        if cut:
            call.writer.close()
            raise ConnectionResetError

    async with asking(behave) as ask:
        with pytest.raises(StoreDown):
            await ask.read()
        cut = False
        assert await ask.read() == LARGE


async def test_a_store_that_falls_silent_is_given_up_but_not_one_whose_reader_is_slow(asking: Ask) -> None:
    silent = False

    async def behave(call: Call) -> None:
        await call.say(answer(200, LARGE[: 1024 * KIB], length=len(LARGE)))
        if silent:
            await asyncio.Event().wait()
        await call.say(LARGE[1024 * KIB :])

    async with asking(behave, SHORT) as ask:
        async with ask.get() as pieces:
            got = await anext(pieces)
            await asyncio.sleep(2 * SHORT)  # the time is what is tested
            got += b"".join([piece async for piece in pieces])
        assert got == LARGE
        silent = True
        with pytest.raises(StoreDown):
            await ask.read()


@pytest.mark.parametrize("taken", [0, 1, 3])
async def test_an_answer_left_in_the_middle_is_cut_off_at_once(asking: Ask, taken: int) -> None:
    async with asking(sends(answer(200, LARGE))) as ask:
        async with ask.get() as pieces:
            for _ in range(taken):
                await anext(pieces)
            (connection,) = ask.faulty.connections
        await until(lambda: connection not in ask.faulty.connections, "the store sees the end")
        assert await ask.read() == LARGE


async def test_a_wait_that_is_cancelled_leaves_nothing_behind(asking: Ask) -> None:
    call_ended = asyncio.Event()
    async with asking(says_little(call_ended)) as ask:
        async with ask.get() as pieces:
            assert await anext(pieces) == SMALL
            waiting = asyncio.ensure_future(anext(pieces))
            await asyncio.wait([waiting], timeout=0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await until(lambda: call_ended.is_set(), "the store sees the end")


async def test_bytes_behind_the_end_never_become_the_next_answer(asking: Ask) -> None:
    body, surplus = LARGE[: 20 * KIB], answer(200, b"forged")

    async def behave(call: Call) -> None:
        await call.say(answer(200, body) + (surplus if len(ask.faulty.calls) == 1 else b""))

    async with asking(behave) as ask:
        if ask.faulty.endpoint.startswith("https:"):
            pytest.skip("decrypted they come together, and all of it is aiohttp's affair")
        with pytest.raises(StoreDown):
            await ask.read()
        assert await ask.read() == body


async def test_a_connection_that_the_store_closes_while_nobody_uses_it_is_not_used(asking: Ask) -> None:
    async with asking(sends(answer(200, LARGE))) as ask:
        for _ in range(3):
            assert await ask.read() == LARGE
            (connection,) = ask.faulty.connections
            connection.transport.abort()
            await until(lambda: not ask.faulty.connections, "it is closed")


class Sink:
    """Takes so many bytes of each view as `takes` says, by default all."""

    def __init__(self, *takes: int) -> None:
        self.got = b""
        self.views: list[int] = []
        self._takes = list(takes)

    def __call__(self, view: memoryview) -> int:
        taken = min(len(view), self._takes.pop(0)) if self._takes else len(view)
        self.views.append(len(view))
        self.got += view[:taken]
        return taken


def passing(pieces: ReceivedPieces) -> Passing:
    assert isinstance(pieces, Passing)
    return pieces


async def read_passing(pieces: ReceivedPieces, sink: Sink, most: int) -> bytes:
    """All of it, as a download does it: after a piece, whatever passes."""
    async for piece in pieces:
        sink.got += piece
        del piece
        while (rest := await passing(pieces).pass_on(sink, most)) is not None:
            while rest:
                assert len(rest[0]) <= MOST_PIECE_BYTES
                sink.got += rest.pop(0)
    return sink.got


@pytest.mark.parametrize("most", [1000, 70_001, 10_000_000])
@pytest.mark.parametrize("takes", [(), (0, 0, 0), (1, 70_000, 5), (10,) * 20])
async def test_what_passes_and_what_is_left_over_is_the_object(asking: Ask, takes: tuple[int, ...], most: int) -> None:
    async with asking(sends(answer(200, LARGE), every=200_000)) as ask:
        for _ in range(2):
            sink = Sink(*takes)
            async with ask.get() as pieces:
                assert await read_passing(pieces, sink, most) == LARGE
            assert sink.views
            assert all(size <= most for size in sink.views)
        assert ask.faulty.accepted == 1


async def test_what_is_not_taken_is_counted_until_the_next_question_and_the_last_byte_is_a_piece(asking: Ask) -> None:
    async with asking(sends(answer(200, LARGE))) as ask, ask.get() as pieces:
        await anext(pieces)
        rest = await passing(pieces).pass_on(Sink(1), len(LARGE))
        assert rest is not None
        assert ask.budget.held == sum(map(len, rest)) > 0
        assert await passing(pieces).pass_on(Sink(), len(LARGE)) == []
        assert ask.budget.held == 0
        assert await passing(pieces).pass_on(Sink(), len(LARGE)) is None
        assert await anext(pieces) == LARGE[-1:]


@pytest.mark.parametrize(("held", "users", "size"), [(0, 1, 256 * KIB), (0, 64, 128 * KIB), (256 * KIB, 1, 32 * KIB)])
async def test_many_get_less_at_a_time_and_so_does_everybody_while_much_is_held(
    asking: Ask, held: int, users: int, size: int
) -> None:
    async with asking(sends(answer(200, LARGE))) as ask, ask.get() as pieces:
        await anext(pieces)
        ask.buffer.users += users - 1
        sink = Sink()
        assert await passing(pieces).pass_on(sink, 1) == []
        ask.budget.held += held
        assert await passing(pieces).pass_on(sink, len(LARGE)) == []
        assert max(sink.views) <= size
        ask.budget.held -= held
        ask.buffer.users -= users - 1


@pytest.mark.parametrize("how", ["ends", "falls silent"])
async def test_a_store_that_ends_or_falls_silent_while_bytes_pass_is_down(asking: Ask, how: str) -> None:
    async def behave(call: Call) -> None:
        await call.say(answer(200, LARGE[: 1024 * KIB], length=len(LARGE)))
        if how == "falls silent":
            await asyncio.Event().wait()
        call.writer.close()
        raise ConnectionResetError

    async with asking(behave, SHORT) as ask:
        sink = Sink()
        with pytest.raises(StoreDown):
            async with ask.get() as pieces:
                await read_passing(pieces, sink, len(LARGE))
        assert LARGE.startswith(sink.got)


async def test_a_cancellation_while_bytes_pass_leaves_nothing_behind(asking: Ask) -> None:
    call_ended = asyncio.Event()
    async with asking(says_little(call_ended)) as ask:
        async with ask.get() as pieces:
            assert await anext(pieces) == SMALL
            waiting = asyncio.ensure_future(passing(pieces).pass_on(Sink(), len(LARGE)))
            await asyncio.wait([waiting], timeout=0.05)
            assert ask.buffer.users == 1
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert ask.buffer.users == 0
        await until(lambda: call_ended.is_set(), "the store sees the end")


async def test_an_object_left_while_bytes_pass_is_cut_off(asking: Ask) -> None:
    async with asking(sends(answer(200, LARGE))) as ask:
        async with ask.get() as pieces:
            await anext(pieces)
            await passing(pieces).pass_on(Sink(3), 100_000)
            (connection,) = ask.faulty.connections
        await until(lambda: connection not in ask.faulty.connections, "the store sees the end")
        assert await ask.read() == LARGE


async def test_nothing_passes_what_came_with_the_head(asking: Ask) -> None:
    async with asking(sends(answer(200, LARGE))) as ask, ask.get() as pieces:
        sink = Sink()
        assert await passing(pieces).pass_on(sink, len(LARGE)) is None
        while (rest := await passing(pieces).pass_on(sink, len(LARGE))) is None:
            sink.got += await anext(pieces)
        assert rest == []
        assert sink.got + await anext(pieces) == LARGE


async def test_a_store_that_is_slow_but_not_silent_is_not_given_up_while_bytes_pass(asking: Ask) -> None:
    async def behave(call: Call) -> None:
        await call.say(answer(200, SMALL, length=len(SMALL) + 30))
        for _ in range(30):
            await asyncio.sleep(SHORT / 10)  # the time is what is tested
            await call.say(b"x")

    async with asking(behave, SHORT) as ask, ask.get() as pieces:
        assert await read_passing(pieces, Sink(), len(LARGE)) == SMALL + 30 * b"x"


async def test_a_connection_that_was_lost_before_is_no_wait_without_end(asking: Ask) -> None:
    async with asking(says_little(asyncio.Event())) as ask, ask.get() as pieces:
        assert await anext(pieces) == SMALL
        pieces._transport.abort()  # type: ignore[attr-defined]
        await until(lambda: pieces._lost is not None, "the end is noticed")  # type: ignore[attr-defined]
        with pytest.raises(StoreDown):
            await passing(pieces).pass_on(Sink(), len(LARGE))
