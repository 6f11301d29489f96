"""The soak's clients notice what they are there for: other bytes, fewer bytes, no answer, something still held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.soak.ledger import MOST_EXAMPLES, MOST_KINDS, Ledger, Wrong
from tests.soak.levels import QUANTITIES, middle_of, restless
from tests.soak.wire import Request, asks, exchange

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def server_that_says(answer: bytes) -> AsyncIterator[int]:
    """Reads a little, answers, closes what it sends and swallows the rest."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.write_eof()
            while await reader.read(65536):
                pass
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(("body", "matches"), [(b"abc", True), (b"abx", False), (b"ab", False), (b"abcd", False)])
async def test_other_bytes_are_noticed(body: bytes, matches: bool) -> None:
    async with server_that_says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)) as port:
        answer = await exchange(port, Request("GET", "/"), memoryview(b"abc"))
    assert answer.matches is matches


async def test_an_answer_cut_short_is_noticed() -> None:
    async with server_that_says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc") as port:
        with pytest.raises(Wrong, match="answer cut short: 200: 3 of 9 bytes"):
            await exchange(port, Request("GET", "/"))


async def test_no_answer_is_noticed() -> None:
    async with server_that_says(b"") as port:
        with pytest.raises(Wrong, match="answer not read"):
            await exchange(port, Request("GET", "/"))


async def test_a_refusal_is_read_while_the_body_is_still_being_sent() -> None:
    refusal = b'{"error":"busy","code":"uploads_busy"}'
    wire = b"HTTP/1.1 400 Bad Request\r\ncontent-length: %d\r\n\r\n%b" % (len(refusal), refusal)
    async with server_that_says(wire) as port:
        answer = await exchange(port, Request("POST", "/", (bytes(8_000_000),)))
    assert answer.label == "400 uploads_busy"


async def test_a_100_continue_is_no_answer() -> None:
    async with server_that_says(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n") as port:
        assert (await exchange(port, asks("POST", "/", {"a": 1}))).label == "204"


def test_a_ledger_stays_small() -> None:
    ledger = Ledger()
    for number in range(3 * MOST_KINDS):
        for _ in range(2 * MOST_EXAMPLES):
            ledger.fail(f"kind {number}", "x" * 5000)
    assert len(ledger.failures) == len(ledger.examples) == MOST_KINDS + 1
    assert ledger.failures.total() == 6 * MOST_KINDS * MOST_EXAMPLES
    assert {len(kept) for kept in ledger.examples.values()} == {MOST_EXAMPLES}
    assert max(len(text) for kept in ledger.examples.values() for text in kept) <= 500


def test_what_is_held_at_rest_is_named() -> None:
    levels = {item.name: item.at_rest or 0.0 for item in QUANTITIES}
    assert restless(levels) == []
    assert restless(levels | {"upload places taken": 2.0, "threads": 99.0}) == ["upload places taken 2"]


def test_the_middle_ignores_a_passing_piece() -> None:
    assert middle_of([{"a": 1.0}, {"a": 50.0}, {"a": 2.0}]) == {"a": 2.0}
