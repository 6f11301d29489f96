from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any, cast

import h11
import pytest

from gauzian import spout
from gauzian.errors import ASGIApp, ClientGone, Message, Receive, Scope, Send
from gauzian.server.limits import KIB, ServerLimits
from tests.server import apps
from tests.server.client import Client, head, post, until
from tests.server.conftest import QUICK, Run


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "bad_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, "bad_request"),  # TLS spoken to a plain port
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),  # no Host
        (head("POST", "/", "Content-Length: 5", "Content-Length: 6"), 400, "bad_request"),
        (head("POST", "/", "Content-Length: -1"), 400, "bad_request"),
        (head("POST", "/", "Transfer-Encoding: chunked") + b"zz\r\n", 400, "bad_request"),
        (head("POST", "/", "Transfer-Encoding: gzip, chunked"), 501, "transfer_encoding_unsupported"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http_version_unsupported"),
        (head("GET", "/", version="3.0"), 505, "http_version_unsupported"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 30 * KIB, 431, "headers_too_large"),
        (head("GET", "/", "X: " + "x" * 16 * KIB), 431, "headers_too_large"),  # whole, and only just too large
        (head("GET", "/" + "x" * 16 * KIB), 431, "headers_too_large"),
    ],
)
async def test_what_is_not_http_is_answered_in_our_shape(
    serving: Run, both: bool, request_bytes: bytes, status: int, code: str
) -> None:
    async with serving(apps.reads_all, tls=both) as running:
        client = await running.connect()
        await client.send(request_bytes)
        answer = await client.answer()
        told = json.loads(answer.body)
        assert (answer.status, told["code"]) == (status, code)
        assert told["error"]
        assert len(answer.headers["x-request-id"]) == 32
        assert answer.headers["connection"] == "close"


@pytest.mark.anyio
async def test_a_head_of_just_the_size_allowed_is_read(serving: Run) -> None:
    async with serving(apps.reads_all) as running:
        client = await running.connect()
        fill = QUICK.header_bytes - len(head("GET", "/", "X: "))
        await client.send(head("GET", "/", "X: " + "x" * fill))
        assert (await client.answer()).status == 200


@pytest.mark.anyio
async def test_a_malformed_chunk_ends_the_application_and_the_request(serving: Run) -> None:
    gone = asyncio.Event()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        await apps.wait_for_disconnect(receive)
        gone.set()

    async with serving(waits) as running:
        client = await running.connect()
        await client.send(head("POST", "/", "Transfer-Encoding: chunked") + b"1\r\nx\r\n")
        await until(lambda: running.server.requests_in_flight == 1)
        await client.send(b"no chunk\r\n")
        assert (await client.answer("POST")).status == 400
        await asyncio.wait_for(gone.wait(), 5)


@pytest.mark.anyio
async def test_a_head_that_does_not_come_in_time_is_answered_and_cut(serving: Run, both: bool) -> None:
    limits = ServerLimits(header_seconds=0.4)
    async with serving(apps.reads_all, tls=both, limits=limits) as running:
        dripping, silent = await running.connect(), await running.connect()

        async def drip() -> None:
            for byte in head("GET", "/", "X: " + "x" * 1000):
                await client_sends(byte)
                await asyncio.sleep(0.02)

        async def client_sends(byte: int) -> None:
            dripping.writer.write(bytes([byte]))

        drops = asyncio.ensure_future(drip())
        answer = await dripping.answer()
        drops.cancel()
        assert (answer.status, json.loads(answer.body)["code"]) == (408, "request_timeout")
        assert await silent.ended()
        assert running.server.slow_heads_total == 1


@pytest.mark.anyio
async def test_a_resting_connection_keeps_nothing_of_its_last_body(serving: Run) -> None:
    connections, body = 20, bytes(500 * KIB)
    async with serving(apps.reads_all) as running:
        clients = [await running.connect() for _ in range(connections)]
        tracemalloc.start()
        try:
            for client in clients:
                await client.send(post("/", body))
                assert (await client.answer("POST")).status == 200
            await until(lambda: running.server.requests_in_flight == 0)
            gc.collect()
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert running.server.open_connections == connections
        assert kept / connections < 24 * KIB


@pytest.mark.anyio
async def test_between_requests_a_connection_may_rest_and_then_the_head_has_its_own_time(serving: Run) -> None:
    limits = ServerLimits(header_seconds=0.2, keep_alive_seconds=0.9)
    async with serving(apps.reads_all, limits=limits) as running:
        client = await running.connect()
        await client.send(post("/", b""))
        await client.answer("POST")
        await asyncio.sleep(0.5)  # longer than a head may take
        await client.send(post("/", b""))
        assert (await client.answer("POST")).status == 200
        await client.send(b"GET /")
        assert (await client.answer()).status == 408


@pytest.mark.anyio
async def test_a_connection_that_rests_too_long_is_closed(serving: Run, both: bool) -> None:
    limits = ServerLimits(keep_alive_seconds=0.2)
    async with serving(apps.reads_all, tls=both, limits=limits) as running:
        client = await running.connect()
        await client.send(post("/", b""))
        await client.answer("POST")
        assert await client.ended()


@pytest.mark.anyio
async def test_an_application_takes_the_time_it_wants(serving: Run) -> None:
    limits = ServerLimits(header_seconds=0.1, keep_alive_seconds=0.1, write_idle_seconds=0.1, linger_idle_seconds=0.1)

    async def ponders(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.5)
        await apps.answer(send, 200)

    async with serving(ponders, limits=limits) as running:
        client = await running.connect()
        await client.send(post("/", b"x" * 10_000))
        assert (await client.answer("POST")).status == 200


@pytest.mark.anyio
async def test_the_scope_says_who_asks_for_what(serving: Run, both: bool) -> None:
    scopes: list[Scope] = []

    async def notes(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await apps.answer(send, 204)

    async with serving(notes, tls=both) as running:
        client = await running.connect()
        await client.send(head("GET", "/a%20b/%C3%A4?x=1&y=%20", "Upgrade: h2c", "HTTP2-Settings: AA"))
        answer = await client.answer()
        assert (answer.status, "server" in answer.headers, "date" in answer.headers) == (204, False, True)
        scope = scopes[0]
        assert scope["client"] == client.writer.get_extra_info("sockname")
        assert scope["server"] == running.address
        assert scope["scheme"] == ("https" if both else "http")
        assert (scope["method"], scope["http_version"]) == ("GET", "1.1")
        assert (scope["path"], scope["query_string"]) == ("/a b/ä", b"x=1&y=%20")
        assert set(scope["extensions"]) == (set() if both else {spout.EXTENSION})
        assert (b"upgrade", b"h2c") in scope["headers"]


@pytest.mark.anyio
async def test_a_websocket_is_asked_for_in_vain(serving: Run) -> None:
    async with serving(apps.refuses_at_once) as running:
        client = await running.connect()
        await client.send(head("GET", "/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"))
        assert (await client.answer()).status == 400


@pytest.mark.anyio
async def test_expect_is_answered_only_when_the_body_is_wanted(serving: Run, both: bool) -> None:
    wanted = asyncio.Event()

    async def hesitates(scope: Scope, receive: Receive, send: Send) -> None:
        await wanted.wait()
        await apps.reads_all(scope, receive, send)

    async with serving(hesitates, tls=both) as running:
        client = await running.connect()
        await client.send(head("POST", "/", "Content-Length: 3", "Expect: 100-continue"))
        await until(lambda: running.server.requests_in_flight == 1)
        reading = asyncio.ensure_future(client.answer("POST", interim=True))
        await asyncio.sleep(0.05)
        assert not reading.done()
        wanted.set()
        assert (await reading).status == 100
        await client.send(b"abc")
        answer = await client.answer("POST")
        assert (answer.status, "connection" in answer.headers) == (200, False)
        await client.send(post("/", b"next"))
        assert (await client.answer("POST")).status == 200


@pytest.mark.anyio
async def test_one_who_expects_but_sends_at_once_gets_no_100(serving: Run) -> None:
    async with serving(apps.reads_all) as running:
        client = await running.connect()
        await client.send(post("/", b"abc", "Expect: 100-continue"))
        assert (await client.answer("POST", interim=True)).status == 200


@pytest.mark.anyio
async def test_one_who_is_refused_before_the_100_is_told_that_it_ends(serving: Run) -> None:
    """Whether it sends its small body then is its free choice: nobody could tell the body from a next request."""
    async with serving(apps.refuses_at_once) as running:
        client = await running.connect()
        await client.send(head("POST", "/", "Content-Length: 3", "Expect: 100-continue"))
        answer = await client.answer("POST")
        assert (answer.status, answer.headers["connection"]) == (400, "close")


@pytest.mark.anyio
@pytest.mark.parametrize("app", [apps.refuses_at_once, apps.refuses_after_part, apps.reads_all, apps.never_answers])
async def test_a_connection_is_freed_at_its_end_and_not_when_garbage_is_collected(
    serving: Run, both: bool, app: ASGIApp, caplog: pytest.LogCaptureFixture
) -> None:
    """A thousand refused uploads would else be 20 MB until the collector comes."""
    async with serving(app, tls=both) as running:
        client = await running.connect()
        await client.send(head("POST", "/", "Content-Length: 100000") + bytes(80_000))
        await until(lambda: running.server.accepted_total == 1)
        known = weakref.WeakSet(running.shared.connections)
        gc.disable()
        try:
            if app is not apps.reads_all and app is not apps.never_answers:
                await client.answer("POST")
                await until(lambda: running.server.lingering_connections == 1)
            else:
                client.vanish()
            await until(lambda: not running.shared.tasks)
            await until(lambda: not known)
        finally:
            gc.enable()
    assert not caplog.records  # an application whose client has gone owes no answer


@pytest.mark.anyio
async def test_a_small_rest_is_read_off_however_it_comes(serving: Run, both: bool) -> None:
    async with serving(apps.refuses_at_once, tls=both) as running:
        client = await running.connect()
        for _ in range(3):
            request = post("/", b"x" * 40 * KIB)
            await client.send(request[:2000])
            answer = await client.answer("POST")
            assert (answer.status, "connection" in answer.headers) == (400, False)
            await client.send(request[2000:30_000])
            await client.send(request[30_000:] + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await client.answer()).status == 400
        assert running.server.accepted_total == 1


@pytest.mark.anyio
async def test_a_small_rest_that_does_not_come_is_not_waited_for(serving: Run) -> None:
    async with serving(apps.refuses_at_once) as running:
        client = await running.connect()
        await client.send(post("/", b"x" * 1000)[:500])
        assert (await client.answer("POST")).status == 400
        assert await client.ended()


@pytest.mark.anyio
async def test_a_request_that_is_said_to_be_the_last_is_answered_whatever_stands_behind_it(serving: Run) -> None:
    async with serving(apps.refuses_after_a_wait) as running:
        for more in (b"\r\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 10_000):
            client = await running.connect()
            await client.send(head("GET", "/", version="1.0") + more)
            assert (await client.answer()).status == 401
            client = await running.connect()
            await client.send(head("GET", "/", "Connection: close"))
            await until(lambda: running.server.requests_in_flight > 0)
            await client.send(more)
            assert (await client.answer()).status == 401


@pytest.mark.anyio
async def test_a_body_that_nobody_asked_for_waits_in_the_kernel(serving: Run, both: bool) -> None:
    """What is held for a connection whose application has not looked yet is a few small reads."""
    asked = asyncio.Event()

    async def hesitates(scope: Scope, receive: Receive, send: Send) -> None:
        await asked.wait()
        await apps.reads_all(scope, receive, send)

    async with serving(hesitates, tls=both) as running:
        client = await running.connect(send_buffer=16 * KIB)
        body = bytes(2048 * KIB)
        sending = asyncio.ensure_future(client.send(post("/", body)))
        await until(lambda: running.server.requests_in_flight == 1)
        await asyncio.sleep(0.1)
        (connection,) = running.shared.connections
        held = connection._mailbox.held + len(connection.intake)
        if both:  # TLS gives whole records, two of them at once
            held += cast(Any, connection.transport).get_read_buffer_size()
        assert held <= (3 * 33 * KIB if both else 4 * QUICK.head_read)
        assert both or not sending.done()  # asyncio's TLS client takes everything into a buffer of its own
        asked.set()
        await sending
        assert json.loads((await client.answer("POST")).body)["size"] == len(body)


def takes_one_piece(then: Callable[[], None], go_on: asyncio.Event) -> ASGIApp:
    """Of a body, says so, and reads all of it only when it may go on."""

    async def hesitates(scope: Scope, receive: Receive, send: Send) -> None:
        first = await receive()
        then()
        await go_on.wait()

        async def from_the_first() -> Message:
            nonlocal first
            message, first = first, {}
            return message or await receive()

        await apps.reads_all(scope, from_the_first, send)

    return hesitates


@pytest.mark.anyio
async def test_what_many_send_and_nobody_takes_yet_stays_within_one_budget(serving: Run, both: bool) -> None:
    """Each has had a first piece and then takes nothing: what is read of the others' bodies meanwhile is bounded."""
    limits = ServerLimits(read_budget=512 * KIB, body_read=128 * KIB, body_read_least=4 * KIB)
    go_on, begun = asyncio.Event(), 0

    def count() -> None:
        nonlocal begun
        begun += 1

    bodies = [bytes([number]) * (1024 * KIB + number) for number in range(20)]
    async with serving(takes_one_piece(count, go_on), tls=both, limits=limits) as running:
        clients = [await running.connect(send_buffer=16 * KIB) for _ in bodies]
        sending = [
            asyncio.ensure_future(client.send(post("/", body))) for client, body in zip(clients, bodies, strict=True)
        ]
        await until(lambda: begun == len(bodies))
        connections = list(running.shared.connections)
        await until(lambda: all(one.intake.is_paused for one in connections))  # reading is paused everywhere
        held = sum(one._mailbox.held + len(one.intake) for one in connections if one._mailbox)
        least = 3 * 33 * KIB if both else 4 * 4 * KIB  # TLS gives whole records, two of them at once
        assert held <= running.shared.reading.held <= 512 * KIB + len(bodies) * least
        go_on.set()
        await asyncio.gather(*sending)
        for client, body in zip(clients, bodies, strict=True):
            told = json.loads((await client.answer("POST")).body)
            assert (told["size"], told["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
        assert running.shared.reading.held == 0


@pytest.mark.anyio
async def test_what_an_application_does_not_take_stops_the_reading_and_no_reader_waits_with_a_piece(
    serving: Run,
) -> None:
    took_one, go_on = asyncio.Event(), asyncio.Event()
    body = bytes(range(256)) * 8 * KIB

    async with serving(takes_one_piece(took_one.set, go_on)) as running:
        client = await running.connect(send_buffer=16 * KIB)
        request = post("/", body)
        await client.send(request[: -len(body)])
        await until(lambda: running.server.requests_in_flight == 1)
        (connection,) = running.shared.connections
        await until(lambda: connection.intake._in_budget)  # the body is wanted
        sending = asyncio.ensure_future(client.send(body))
        await took_one.wait()
        await until(lambda: connection.intake.is_paused)
        assert connection._mailbox is not None
        assert connection._mailbox.is_full
        assert connection.intake.is_idle
        go_on.set()
        await sending
        told = json.loads((await client.answer("POST")).body)
        assert (told["size"], told["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


@pytest.mark.anyio
async def test_a_body_comes_whole_however_its_reads_fall_and_the_next_request_after_it(serving: Run) -> None:
    """Pieces in the middle of a body pass by h11, its end and what follows do not: the seam must not show."""
    body = bytes(range(256)) * 400
    async with serving(apps.reads_all) as running:
        client = await running.connect()
        for size in (1, 700, 2 * KIB, 5000, 50_000, len(body) - 1, len(body)):
            request = post("/first", body) + post("/second", b"tail")
            seen = len(head("POST", "/first", f"Content-Length: {len(body)}"))
            await client.send(request[:seen])
            await until(lambda: running.server.requests_in_flight == 1)
            step = max(size, len(body) // 50)
            for start in range(seen, len(request), step):
                await client.send(request[start : start + step])
                await asyncio.sleep(0)
            first, second = [json.loads((await client.answer("POST")).body) for _ in range(2)]
            assert first == {"path": "/first", "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            assert second["size"] == 4
        await client.send(head("POST", "/", "Content-Length: 3000"))
        await until(lambda: running.server.requests_in_flight == 1)
        await client.send(bytes(3000))  # one read that is the rest to its last byte, and nothing behind it
        assert json.loads((await client.answer("POST")).body)["size"] == 3000
        assert running.shared.reading.held == 0


@pytest.mark.anyio
@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("headers", [[], [(b"content-length", b"100000")]])
async def test_an_answer_that_breaks_in_the_middle_never_looks_complete(
    serving: Run, both: bool, version: str, headers: Any
) -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
        raise RuntimeError("on purpose")

    async with serving(breaks, tls=both) as running:
        client = await running.connect()
        await client.send(head("GET", "/", version=version))
        if version == "1.0" and not headers and not both:
            # Here the end of the stream would be the end of the body: it must be a reset.
            with pytest.raises(ConnectionResetError):
                while await client.read():
                    pass
        elif not (
            version == "1.0" and not headers
        ):  # asyncio's client does not tell a cut TLS stream from an ended one
            assert await fails_or_falls_short(client)


async def fails_or_falls_short(client: Client) -> bool:
    try:
        return not (await client.answer()).complete
    except (ConnectionError, h11.RemoteProtocolError):
        return True


@pytest.mark.anyio
async def test_an_application_that_ends_without_an_answer_is_excused_with_500(serving: Run) -> None:
    async def forgets(scope: Scope, receive: Receive, send: Send) -> None:
        pass

    async with serving(forgets) as running:
        client = await running.connect()
        await client.send(head("GET", "/"))
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["code"]) == (500, "internal_error")
        assert answer.headers["x-request-id"]


@pytest.mark.anyio
async def test_an_answer_with_a_header_that_cannot_be_sent_becomes_500(serving: Run) -> None:
    async def injects(scope: Scope, receive: Receive, send: Send) -> None:
        await apps.answer(send, 200, headers=[(b"x", b"a\r\nset-cookie: b")])

    async with serving(injects) as running:
        client = await running.connect()
        await client.send(head("GET", "/"))
        answer = await client.answer()
        assert (answer.status, "set-cookie" in answer.headers) == (500, False)


@pytest.mark.anyio
async def test_send_raises_for_a_client_that_is_gone_and_nobody_logs_it(
    serving: Run, both: bool, caplog: pytest.LogCaptureFixture
) -> None:
    raised: list[BaseException] = []

    async def sends_on(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(64 * KIB), "more_body": True})
        except OSError as error:
            raised.append(error)
            raise

    async with serving(sends_on, tls=both) as running:
        client = await running.connect()
        await client.send(head("GET", "/"))
        await client.read()
        client.vanish()
        await until(lambda: bool(raised))
        assert isinstance(raised[0], ClientGone)
    assert not caplog.records


@pytest.mark.anyio
async def test_the_application_hears_at_once_when_its_client_hangs_up(serving: Run, both: bool) -> None:
    async with serving(apps.never_answers, tls=both) as running:
        for more in (b"", b"GET / HTTP/1.1\r\n"):  # also behind the beginning of a next request
            client = await running.connect()
            await client.send(head("GET", "/") + more)
            await until(lambda: running.server.requests_in_flight == 1)
            await client.close()
            await until(lambda: running.server.requests_in_flight == 0)


@pytest.mark.anyio
async def test_an_answer_broken_off_before_a_pipelined_request_leaves_no_reader_behind(serving: Run) -> None:
    async def breaks(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise RuntimeError("on purpose")

    async with serving(breaks) as running:
        client = await running.connect()
        await client.send(head("GET", "/") + head("GET", "/"))
        assert await fails_or_falls_short(client)
        await running.is_quiet()


@pytest.mark.anyio
async def test_a_whole_body_is_delivered_even_if_its_client_leaves_right_behind_it(serving: Run) -> None:
    sizes: list[int] = []
    asked = asyncio.Event()

    async def hesitates(scope: Scope, receive: Receive, send: Send) -> None:
        await asked.wait()
        body = await apps.read_all(receive)
        sizes.append(-1 if body is None else len(body))

    async with serving(hesitates) as running:
        client = await running.connect()
        await client.send(post("/", b"x" * 2000))
        await until(lambda: running.server.requests_in_flight == 1)
        await client.close()
        await until(lambda: running.server.open_connections == 0)
        asked.set()
        await until(lambda: bool(sizes))
        assert sizes == [2000]
