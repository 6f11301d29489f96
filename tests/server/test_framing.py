from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import random
from asyncio.selector_events import _SelectorSocketTransport
from importlib.metadata import version
from typing import Any, get_type_hints

import h11
import pytest
from h11._readers import ContentLengthReader
from h11._receivebuffer import ReceiveBuffer
from h11._writers import ContentLengthWriter
from hypercorn.asyncio.lifespan import Lifespan
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream

from gauzian.errors import Receive, Scope, Send
from gauzian.server.buffer import PassThrough
from gauzian.server.framing import Http1, HttpConfig
from tests.server import apps
from tests.server.client import chunked, head, post
from tests.server.conftest import Run


def names_used_in(function: Any) -> set[str]:
    return set(function.__code__.co_names)


def test_what_we_use_of_hypercorn_and_h11_is_still_there() -> None:
    """We stand inside of these two: an upgrade that moves something must fail here and not under load."""
    assert (version("hypercorn"), version("h11")) == ("0.18.0", "0.16.0")
    assert list(inspect.signature(H11Protocol.__init__).parameters)[1:] == [
        *("app", "config", "context", "task_group", "connection_state", "ssl", "client", "server", "send"),
    ]
    # What we override is called from where we think.
    assert {"_check_protocol", "_create_stream", "_send_error_response"} <= names_used_in(H11Protocol._handle_events)
    assert {"can_read", "they_are_waiting_for_100_continue"} <= names_used_in(H11Protocol._handle_events)
    assert {"_close_stream", "start_next_cycle", "terminated"} <= names_used_in(H11Protocol._maybe_recycle)
    assert {"spawn_app", "app_put", "closed"} <= names_used_in(HTTPStream.handle)
    assert {"app_send", "_send_closed", "_send_error_response"} <= set(vars(HTTPStream))
    assert {"REQUEST", "RESPONSE", "CLOSED"} <= set(ASGIHTTPState.__members__)
    assert {"startup_timeout", "shutdown_timeout", "errorlog", "h11_max_incomplete_size"} <= set(vars(Config))
    assert "keep_alive_max_requests" in vars(Config)
    assert {"wait_for_startup", "wait_for_shutdown", "handle_lifespan"} <= set(vars(Lifespan))
    assert WorkerContext.__init__.__code__.co_varnames[:2] == ("self", "max_requests")
    connection = h11.Connection(h11.SERVER)
    assert type(connection._receive_buffer) is ReceiveBuffer
    assert hasattr(connection, "client_is_waiting_for_100_continue")
    assert ContentLengthReader(3)._remaining == 3
    assert names_used_in(ContentLengthReader.__call__) >= {"_remaining", "maybe_extract_at_most"}
    assert ContentLengthWriter(3)._length == 3
    assert names_used_in(ContentLengthWriter.send_data) == names_used_in(ContentLengthWriter.send_eom) | {"len"}
    assert hasattr(connection, "_writer")
    assert "max_size" in names_used_in(_SelectorSocketTransport._read_ready__data_received)  # asked at each read
    ours = {name for name in vars(PassThrough) if not name.startswith("_s") and callable(getattr(PassThrough, name))}
    theirs = {name for name in vars(ReceiveBuffer) if callable(getattr(ReceiveBuffer, name))}
    assert theirs - ours == {"_extract"}  # a new way to look inside the buffer must be known to ours
    assert get_type_hints(ReceiveBuffer.__bytes__)["return"] is bytes


def test_the_date_is_made_once_per_second() -> None:
    config = HttpConfig()
    first = config.response_headers("h11")
    assert [name for name, _ in first] == [b"date"]
    assert config.response_headers("h11")[0][1].endswith(b"GMT")


def fed(pieces: list[bytes], reads: list[int]) -> tuple[list[bytes], list[bytes]]:
    """What both buffers give for the same story: pieces come in, then up to so many bytes are taken, in turns."""
    results: tuple[list[bytes], list[bytes]] = ([], [])
    for buffer, result in zip((ReceiveBuffer(), PassThrough()), results, strict=True):
        for piece, count in zip(pieces, reads, strict=True):
            buffer += piece
            assert len(buffer) == len(bytes(buffer))
            assert bool(buffer) == (len(buffer) > 0)
            if count == 0:
                result.append(b"\n".join(buffer.maybe_extract_lines() or [b"none"]))
            elif count == 1:
                result.append(bytes(buffer.maybe_extract_next_line() or b"none"))
            else:
                result.append(bytes(buffer.maybe_extract_at_most(count) or b"none"))
        result.append(bytes(buffer))
        result.append(str(buffer.is_next_line_obviously_invalid_request_line()).encode())
    return results


@pytest.mark.parametrize("seed", range(200))
def test_our_buffer_gives_the_same_bytes_as_h11s(seed: int) -> None:
    dice = random.Random(seed)
    alphabet = [b"a", b"\r\n", b"\r\n\r\n", b"b" * 3000, b"c" * 10, b"\n"]
    pieces = [b"".join(dice.choices(alphabet, k=dice.randint(0, 4))) for _ in range(8)]
    reads = [dice.choice([0, 1, 2, 100, 3000, 10_000]) for _ in pieces]
    theirs, ours = fed(pieces, reads)
    assert ours == theirs


def a_request(dice: random.Random) -> tuple[bytes, dict[str, Any]]:
    body = dice.randbytes(dice.choice([0, 1, 500, 4096, 30_000, 200_000]))
    path = f"/{dice.randrange(10**6)}"
    if dice.random() < 0.5:
        raw = post(path, body)
    else:
        raw = head("POST", path, "Transfer-Encoding: chunked") + chunked(
            body, dice.choice([1 + len(body) // 50, 70_000])
        )
    return raw, {"path": path, "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(4))
async def test_random_pipelined_requests_in_random_pieces_arrive_unharmed(serving: Run, both: bool, seed: int) -> None:
    dice = random.Random(seed)
    requests = [a_request(dice) for _ in range(25)]
    stream = b"".join(raw for raw, _ in requests)

    async with serving(apps.reads_all, tls=both) as running:
        client = await running.connect()

        async def send_in_pieces() -> None:
            start = 0
            while start < len(stream):
                size = dice.choice([1, 7, 900, 5000, 100_000])
                await client.send(stream[start : start + size])
                start += size
                if dice.random() < 0.3:
                    await asyncio.sleep(0)

        sending = asyncio.ensure_future(send_in_pieces())
        for _, truth in requests:
            assert json.loads((await client.answer("POST")).body) == truth
        await sending


@pytest.mark.anyio
async def test_a_request_is_understood_byte_by_byte_and_not_when_cut_short(serving: Run) -> None:
    raw = post("/a", b"hello") + b"GET /b HT"
    async with serving(apps.reads_all) as running:
        client = await running.connect()
        for byte in raw:
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert json.loads((await client.answer("POST")).body)["size"] == 5
        await client.close()
        await running.is_quiet()


LONG = bytes(range(256)) * 300
# What an application sends as a body, and how many bytes of it go the short way when it says how many there are.
ANSWERS: dict[str, tuple[int, list[object], int]] = {
    "in pieces": (len(LONG), [LONG[:1], LONG[1:40_000], LONG[40_000:70_000], LONG[70_000:]], 69_999),
    "with empty ones between": (6, [b"", b"ab", b"", b"cd", b"", b"ef", b""], 2),
    "whole": (6, [b"abcdef"], 0),
    "and an end by itself": (6, [b"abc", b"de", b"f", b""], 2),
    "of another type": (6, [b"ab", bytearray(b"cd"), memoryview(b"ef"), b""], 0),
    "nothing": (0, [b""], 0),
    "one byte too much": (5, [b"ab", b"cd", b"ef", b"gh"], 2),
    "much too much": (3, [b"a", b"b" * 50_000, b"c"], 0),
    "too little": (7, [b"ab", b"cd", b"ef"], 2),
}


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_is_the_same_on_the_wire_whether_its_middle_goes_the_short_way_or_not(
    serving: Run, monkeypatch: pytest.MonkeyPatch, name: str, framing: str, method: str
) -> None:
    length, pieces, short = ANSWERS[name]
    passed: list[int] = []
    passes_out = Http1.passes_out

    def noted(self: Http1, data: bytes) -> bool:
        does = passes_out(self, data)
        passed.append(len(data) if does else 0)
        return does

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", str(length).encode())] if framing == "length" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number, piece in enumerate(pieces, 1):
            await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})

    async def wire(way: object) -> bytes:
        monkeypatch.setattr(Http1, "passes_out", way)
        monkeypatch.setattr(HttpConfig, "response_headers", lambda self, protocol: [])
        async with serving(app) as running:
            client = await running.connect()
            await client.send(head(method, "/", "Connection: close"))
            told = b""
            while piece := await client.read_or_reset():
                told += piece
            return told

    long_way, short_way = await wire(lambda self, data: False), await wire(noted)
    if sum(map(len, pieces)) == length or framing == "chunked" or method == "HEAD":  # type: ignore[arg-type]
        assert short_way == long_way
    else:  # broken off, with a reset that may overtake what was sent: never whole
        for told in (short_way, long_way):
            assert len(told.partition(b"\r\n\r\n")[2]) < length
    assert sum(passed) == (short if framing == "length" and method == "GET" else 0)
