"""The middle of a body taken from the kernel, past the event loop: every byte once, in its place, and nothing hangs."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import random
import socket
import struct
import termios
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from gauzian.errors import ASGIApp, Receive, Scope, Send
from gauzian.server.connection import Connection
from gauzian.server.limits import KIB, ServerLimits
from gauzian.tap import EXTENSION, Tap
from tests.server import apps
from tests.server.client import Client, chunked, head, post, until
from tests.server.conftest import QUICK, Run, Running

pytestmark = pytest.mark.anyio

MIB = 1024 * KIB
LEAST = 64 * KIB
BODY = random.Random(6).randbytes(3 * MIB)
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def waiting(sock: socket.socket) -> int:
    """Bytes that have come and that nobody has read."""
    size: int = struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, b"\0\0\0\0"))[0]
    return size


def tap_of(scope: Scope) -> Tap:
    tap: Tap = scope["extensions"][EXTENSION]
    return tap


async def fills(tap: Tap, least: int = 128 * KIB) -> None:
    """Until so many bytes wait in the kernel, which is given room for them."""
    with tap.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
        await until(lambda: waiting(sock) >= least)


async def until_held(tap: Tap, receive: Receive) -> bytes:
    """What comes by `receive` until the tap says yes."""
    came = b""
    while not tap.hold():
        message = await receive()
        assert message["type"] == "http.request"
        assert message["more_body"]
        came += message["body"]
    return came


def draw(sock: socket.socket, most: int) -> bytes:
    """So many bytes, or what there is."""
    drawn = bytearray()
    while len(drawn) < most:
        try:
            piece = sock.recv(most - len(drawn))
        except OSError:  # nothing more, or the client is gone: `receive` says which
            break
        if not piece:
            break
        drawn += piece
    return bytes(drawn)


@dataclass
class Taken:
    body: bytes = b""
    by_tap: int = 0
    last: int = 0
    """Bytes of the last message."""
    is_whole: bool = False


def read_into(tap: Tap, size: int) -> bytes:
    """What there is, of more than may be read."""
    buffer = memoryview(bytearray(size + 100))
    return bytes(buffer[: tap.read_into(buffer)])


async def take_all(scope: Scope, receive: Receive, *, how: str = "in-a-thread") -> Taken:
    """As a store does: by `receive`, and whenever the tap says yes what waits behind it."""
    tap: Tap | None = scope["extensions"].get(EXTENSION)
    taken = Taken()
    if tap is not None:
        assert tap.hold() == 0
    while (message := await receive())["type"] == "http.request":
        taken.body += message["body"]
        taken.last = len(message["body"])
        if not message["more_body"]:
            taken.is_whole = True
            break
        while tap is not None and (size := tap.hold()):
            if how == "by-read-into":
                drawn = read_into(tap, size)
            else:
                with tap.socket() as sock:
                    drawn = await asyncio.to_thread(draw, sock, size) if how == "in-a-thread" else draw(sock, size)
                tap.drawn(len(drawn))
            taken.body += drawn
            taken.by_tap += len(drawn)
    if tap is not None:
        assert tap.taken == taken.by_tap
    return taken


async def tell(scope: Scope, send: Send, taken: Taken) -> None:
    told = {
        "path": scope["path"],
        "sha256": hashlib.sha256(taken.body).hexdigest(),
        "by_tap": taken.by_tap,
        "last": taken.last,
        "offered": EXTENSION in scope["extensions"],
    }
    await apps.answer(send, 200, json.dumps(told).encode())


async def body_comes_whole(running: Running) -> Client:
    client = await running.connect(send_buffer=4 * MIB)
    await client.send(post("/", BODY))
    told = json.loads((await client.answer("POST")).body)
    assert told["sha256"] == hashlib.sha256(BODY).hexdigest()
    return client


@pytest.mark.parametrize("how", ["in-a-thread", "right-there", "by-read-into"])
async def test_a_body_comes_byte_for_byte_by_both_ways_and_its_end_by_receive(serving: Run, how: str) -> None:
    async def takes(scope: Scope, receive: Receive, send: Send) -> None:
        await fills(tap_of(scope))
        await tell(scope, send, await take_all(scope, receive, how=how))

    async with serving(takes) as running:
        client = await running.connect(send_buffer=4 * MIB)
        for number in range(3):
            await client.send(post(f"/{number}", BODY))
            told = json.loads((await client.answer("POST")).body)
            assert (told["path"], told["sha256"]) == (f"/{number}", hashlib.sha256(BODY).hexdigest())
            assert told["by_tap"] > 0
            assert told["last"] >= 1
        assert running.server.accepted_total == 1


@pytest.mark.parametrize("how", ["socket", "read-into"])
@pytest.mark.parametrize("size", [LEAST * 4, 1 * MIB, 3 * MIB])
async def test_a_next_request_right_behind_the_body_is_not_touched(serving: Run, size: int, how: str) -> None:
    """All of both waits in the kernel when the tap is asked: it gives all of the body but its last byte."""
    body, behind = BODY[:size], post("/second", b"tail")

    async def takes(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/second":
            return await tell(scope, send, await take_all(scope, receive))
        tap = tap_of(scope)
        await fills(tap, min(size, MIB) // 2)
        taken = Taken(await until_held(tap, receive))
        most = tap.hold()
        with tap.socket() as sock:
            await until(lambda: waiting(sock) == size - len(taken.body) + len(behind))
            assert most == size - len(taken.body) - 1
            if how == "socket":
                taken.body += draw(sock, most)
                tap.drawn(most)
            else:
                taken.body += read_into(tap, most)
            assert waiting(sock) == 1 + len(behind)
        assert tap.hold() == 0
        message = await receive()
        assert (message["body"], message["more_body"]) == (body[-1:], False)
        taken.body += message["body"]
        taken.by_tap, taken.last = most, 1
        return await tell(scope, send, taken)

    async with serving(takes) as running:
        client = await running.connect(send_buffer=4 * MIB)
        await client.send(post("/first", body) + behind)
        first, second = [json.loads((await client.answer("POST")).body) for _ in range(2)]
        assert (first["path"], first["sha256"]) == ("/first", hashlib.sha256(body).hexdigest())
        assert (second["path"], second["sha256"]) == ("/second", hashlib.sha256(b"tail").hexdigest())
        assert (second["offered"], second["by_tap"]) == (False, 0)


@pytest.mark.parametrize(
    ("request_bytes", "tls"),
    [
        (head("GET", "/"), False),
        (post("/", BODY[:1000]), False),
        (post("/", BODY[: LEAST - 1]), False),
        (head("POST", "/", "Transfer-Encoding: chunked") + chunked(BODY[:MIB]), False),
        (post("/", BODY[:MIB]), True),
    ],
    ids=["no-body", "small", "just-too-small", "chunked", "tls"],
)
async def test_there_is_no_tap_for_what_needs_none_or_cannot_have_one(
    serving: Run, request_bytes: bytes, tls: bool
) -> None:
    async def takes(scope: Scope, receive: Receive, send: Send) -> None:
        await tell(scope, send, await take_all(scope, receive))

    async with serving(takes, tls=tls) as running:
        client = await running.connect()
        await client.send(request_bytes)
        told = json.loads((await client.answer()).body)
        assert (told["offered"], told["by_tap"]) == (False, 0)
        await client.send(head("POST", "/", f"Content-Length: {LEAST}"))
        await until(lambda: running.server.requests_in_flight == 1)
        await client.send(BODY[:LEAST])
        assert json.loads((await client.answer("POST")).body)["offered"] is not tls


async def test_the_tap_says_no_while_something_is_still_on_its_way_to_the_application(serving: Run) -> None:
    """Bytes in the kernel come after those that wait in the reader and in the mailbox."""
    states: list[str] = []

    async def takes(scope: Scope, receive: Receive, send: Send) -> None:
        tap, connection = tap_of(scope), the_connection(running)
        await fills(tap)
        assert connection._mailbox is not None
        assert tap.hold() == 0  # nothing has been asked for yet
        taken = Taken()
        with tap.socket() as sock:
            while not (size := tap.hold()):
                # Both refusals below come while more waits in the kernel than the tap ever wants.
                assert waiting(sock) >= LEAST
                taken.body += (await receive())["body"]
                states.append(
                    "mailbox" if not connection._mailbox.is_empty else "reader" if not connection.intake.is_idle else ""
                )
                assert bool(tap.hold()) is (states[-1] == "")
            await asyncio.sleep(0)
            taken.body += draw(sock, LEAST)
            tap.drawn(LEAST)
            # Let go, and not asked again before the mailbox is full.
            tap.release()
            await until(lambda: connection._mailbox is not None and connection._mailbox.is_full)
            await until(lambda: waiting(sock) >= LEAST)
            assert (tap.hold(), connection.intake.is_idle) == (0, True)
            while not connection._mailbox.is_empty:
                assert tap.hold() == 0
                taken.body += (await receive())["body"]
            assert tap.hold() == len(BODY) - len(taken.body) - 1
            assert size > 0
        rest = await take_rest(tap, receive)
        await tell(scope, send, Taken(taken.body + rest))

    async with serving(takes) as running:
        await body_comes_whole(running)
        assert states[-1] == ""
        assert "reader" in states


async def take_rest(tap: Tap, receive: Receive) -> bytes:
    tap.release()
    rest = await apps.read_all(receive)
    assert rest is not None
    return rest


def the_connection(running: Running) -> Connection:
    (connection,) = running.shared.connections
    assert isinstance(connection, Connection)
    return connection


async def test_a_body_that_comes_in_crumbs_is_left_to_receive(serving: Run) -> None:
    async def takes(scope: Scope, receive: Receive, send: Send) -> None:
        await tell(scope, send, await take_all(scope, receive))

    body = BODY[: 2 * LEAST]
    async with serving(takes) as running:
        client = await running.connect()
        await client.send(post("/", body)[: -len(body)])
        await until(lambda: running.server.requests_in_flight == 1)
        (connection,) = running.shared.connections
        for start in range(0, len(body), 10_000):
            await until(lambda: connection.intake._in_budget and connection.intake.is_idle)
            await client.send(body[start : start + 10_000])
        told = json.loads((await client.answer("POST")).body)
        assert (told["sha256"], told["by_tap"]) == (hashlib.sha256(body).hexdigest(), 0)


@pytest.mark.parametrize("asks", [True, False], ids=["asked", "not-asked"])
async def test_receive_brings_little_at_a_time_to_who_has_asked_before(serving: Run, asks: bool) -> None:
    sizes: list[int] = []

    async def takes(scope: Scope, receive: Receive, send: Send) -> None:
        tap = tap_of(scope)
        await fills(tap, MIB)
        if asks:
            tap.hold()
        taken = Taken()
        while not taken.is_whole:
            message = await receive()
            taken.body += message["body"]
            taken.is_whole = not message["more_body"]
            sizes.append(len(message["body"]))
        await tell(scope, send, taken)

    async with serving(takes) as running:
        await body_comes_whole(running)
        assert (max(sizes) <= 64 * KIB) is asks


async def test_after_a_yes_nothing_comes_by_receive_until_it_is_released(serving: Run) -> None:
    async def takes(scope: Scope, receive: Receive, send: Send) -> None:
        tap, connection = tap_of(scope), the_connection(running)
        await fills(tap)
        taken = Taken(await until_held(tap, receive))
        most = tap.hold()
        receiving = asyncio.ensure_future(receive())
        with tap.socket() as sock:
            await until(lambda: waiting(sock) == len(BODY) - len(taken.body))  # all that there is
            taken.body += draw(sock, MIB)
            tap.drawn(MIB)
            assert tap.hold() == most - MIB
            for _ in range(20):
                await asyncio.sleep(0)
            assert connection.intake.is_paused
            assert not receiving.done()
            tap.release()
            tap.release()  # any number of times
            assert not connection.intake.is_paused
            taken.body += (await receiving)["body"]
        # It may be held again.
        taken.body += await until_held(tap, receive)
        receiving = asyncio.ensure_future(receive())
        with tap.socket() as sock:
            drawn = draw(sock, tap.hold())
            tap.drawn(len(drawn))
        taken.body += drawn
        assert tap.hold() == 0  # releases it, too
        message = await receiving
        taken.body += message["body"]
        assert (len(message["body"]), message["more_body"]) == (1, False)
        await tell(scope, send, taken)

    async with serving(takes) as running:
        await body_comes_whole(running)


async def test_cancelled_while_it_waits_for_what_is_held_it_can_ask_again(serving: Run) -> None:
    async def takes(scope: Scope, receive: Receive, send: Send) -> None:
        tap = tap_of(scope)
        await fills(tap)
        came = await until_held(tap, receive)
        receiving = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        receiving.cancel()
        await asyncio.wait([receiving])
        assert receiving.cancelled()
        await tell(scope, send, Taken(came + await take_rest(tap, receive)))

    async with serving(takes) as running:
        await body_comes_whole(running)


async def goes(client: Client) -> None:
    await client.close()


async def resets(client: Client) -> None:
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    client.vanish()


@dataclass
class Held:
    """An application that holds its body, says so, and goes on as it is told."""

    then: Callable[[Held, Receive, Send], Awaitable[None]]
    came: bytes = b""
    is_held: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    has_ended: asyncio.Event = field(default_factory=asyncio.Event)
    failure: BaseException | None = None
    tap: Tap = field(init=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.tap = tap_of(scope)
        await fills(self.tap)
        self.came = await until_held(self.tap, receive)
        self.is_held.set()
        try:
            await self.then(self, receive, send)
        except BaseException as error:
            self.failure = error
            raise
        finally:
            self.has_ended.set()


@pytest.mark.parametrize("leaves", [goes, resets])
async def test_a_client_that_leaves_while_its_body_is_held_is_heard_of_once_all_is_drawn(
    serving: Run, leaves: Callable[[Client], Awaitable[None]]
) -> None:
    async def drains(held: Held, receive: Receive, send: Send) -> None:
        await held.go_on.wait()
        with held.tap.socket() as sock:
            assert waiting(sock) == MIB - len(held.came)
            while size := held.tap.hold():
                drawn = await asyncio.to_thread(draw, sock, size)
                held.came += drawn
                held.tap.drawn(len(drawn))
        held.tap.release()
        assert (await receive())["type"] == "http.disconnect"
        assert (held.tap.hold(), held.came) == (0, BODY[:MIB])

    app = Held(drains)
    async with serving(app) as running:
        client = await running.connect(send_buffer=4 * MIB)
        request = post("/", BODY)
        await client.send(request[: len(request) - len(BODY) + MIB])
        await app.is_held.wait()
        with app.tap.socket() as sock:
            await until(lambda: waiting(sock) == MIB - len(app.came))
            await leaves(client)
            state = socket.IPPROTO_TCP, socket.TCP_INFO, 1
            await until(lambda: sock.getsockopt(*state) != b"\x01")  # no longer established: the kernel has heard of it
        app.go_on.set()
        await app.has_ended.wait()
        assert app.failure is None
        await running.is_quiet()


@pytest.mark.parametrize("leaves", [goes, resets])
async def test_a_client_that_leaves_while_its_body_is_held_is_heard_of_when_it_is_released(
    serving: Run, leaves: Callable[[Client], Awaitable[None]]
) -> None:
    async def lets_go(held: Held, receive: Receive, send: Send) -> None:
        await held.go_on.wait()
        held.tap.release()
        assert await apps.read_all(receive) is None

    app = Held(lets_go)
    async with serving(app) as running:
        client = await running.connect(send_buffer=4 * MIB)
        request = post("/", BODY)
        await client.send(request[: len(request) - len(BODY) + MIB])
        await app.is_held.wait()
        await leaves(client)
        app.go_on.set()
        await app.has_ended.wait()
        assert app.failure is None
        await running.is_quiet()


async def broken_off(running: Running) -> None:
    the_connection(running).break_off()


async def aborted(running: Running) -> None:
    connection = the_connection(running)
    connection.transport.abort()
    await until(lambda: connection.closing)


@pytest.mark.parametrize("ends", [broken_off, aborted])
async def test_of_a_connection_that_has_ended_a_tap_gives_nothing_more(
    serving: Run, ends: Callable[[Running], Awaitable[None]]
) -> None:
    async def looks(held: Held, receive: Receive, send: Send) -> None:
        receiving = asyncio.ensure_future(receive())
        await held.go_on.wait()
        assert (await receiving)["type"] == "http.disconnect"
        assert_is_closed(held.tap)

    app = Held(looks)
    async with serving(app) as running:
        client = await running.connect(send_buffer=4 * MIB)
        await client.send(post("/", BODY))
        await app.is_held.wait()
        duplicate = app.tap.socket()
        await ends(running)
        app.go_on.set()
        await app.has_ended.wait()
        assert app.failure is None
        draw(duplicate, MIB)  # whoever still has it does no harm
        duplicate.close()
        assert await client.ended()
        await running.is_quiet()


def assert_is_closed(tap: Tap) -> None:
    taken = tap.taken
    assert tap.hold() == 0
    with pytest.raises(ConnectionResetError):
        tap.socket()
    assert read_into(tap, 10) == b""
    tap.drawn(10)
    tap.release()
    assert tap.hold() == 0
    assert tap.taken == taken + 10


async def test_a_server_that_stops_while_a_body_is_held_cancels_and_answers(serving: Run) -> None:
    async def waits(held: Held, receive: Receive, send: Send) -> None:
        await receive()

    app = Held(waits)
    async with serving(app, grace_seconds=0.05) as running:
        client = await running.connect(send_buffer=4 * MIB)
        await client.send(post("/", BODY))
        await app.is_held.wait()
        running.stop.set()
        assert (await client.answer("POST")).status == 503
        assert await client.ended()
        await client.close()
        await running.task
        assert isinstance(app.failure, asyncio.CancelledError)
        assert_is_closed(app.tap)


async def refuses(held: Held, receive: Receive, send: Send) -> None:
    await apps.answer(send, 413, b"too large")


async def fails(held: Held, receive: Receive, send: Send) -> None:
    raise RuntimeError("on purpose")


@pytest.mark.parametrize(("then", "status"), [(refuses, 413), (fails, 500)])
async def test_an_answer_while_the_body_is_held_is_read_and_the_rest_of_the_body_swallowed(
    serving: Run, then: Callable[[Held, Receive, Send], Awaitable[None]], status: int
) -> None:
    app = Held(then)
    async with serving(app) as running:
        client = await running.connect(send_buffer=256 * KIB)
        sending = asyncio.ensure_future(client.send(post("/", BODY)))
        answer = await client.answer("POST")
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        await sending
        await client.close()
        await running.is_quiet()
        assert running.server.swallowed_bytes_total == len(BODY) - len(app.came)
        assert_is_closed(app.tap)


async def test_of_a_request_that_has_its_answer_a_tap_gives_nothing_of_the_next_one(serving: Run) -> None:
    taps: list[Tap] = []

    async def takes(scope: Scope, receive: Receive, send: Send) -> None:
        taps.append(tap_of(scope))
        await fills(taps[-1])
        came = await until_held(taps[-1], receive)
        if len(taps) > 1:
            assert (taps[0].hold(), taps[1].hold()) == (0, len(BODY) - len(came) - 1)
            taps[0].release()
            assert the_connection(running).intake.is_paused
        await tell(scope, send, Taken(came + await take_rest(taps[-1], receive)))

    async with serving(takes) as running:
        client = await running.connect(send_buffer=4 * MIB)
        for _ in range(2):
            await client.send(post("/", BODY))
            told = json.loads((await client.answer("POST")).body)
            assert told["sha256"] == hashlib.sha256(BODY).hexdigest()


def leaves_little(rest: int) -> ASGIApp:
    """Draws all but so much of the body, and answers without a word to the tap."""

    async def draws(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            tap = tap_of(scope)
            await fills(tap)
            came = len(await until_held(tap, receive))
            with tap.socket() as sock:
                await until(lambda: waiting(sock) >= len(BODY) - came)
                drawn = draw(sock, len(BODY) - came - rest)
            tap.drawn(len(drawn))
        await apps.answer(send, 400)

    return draws


@pytest.mark.parametrize("rest", [1, 5000, 64 * KIB])
async def test_a_small_rest_that_is_still_held_is_read_off_after_the_answer(serving: Run, rest: int) -> None:
    limits = ServerLimits(linger_idle_seconds=60)  # it would be closed after that
    async with serving(leaves_little(rest), limits=limits) as running:
        client = await running.connect(send_buffer=4 * MIB)
        await client.send(post("/", BODY) + head("GET", "/"))
        for method in ("POST", "GET"):
            answer = await client.answer(method)
            assert (answer.status, "connection" in answer.headers) == (400, False)
        assert running.server.accepted_total == 1


async def test_a_rest_above_that_is_swallowed(serving: Run) -> None:
    async with serving(leaves_little(QUICK.small_body_bytes + 1)) as running:
        client = await running.connect(send_buffer=4 * MIB)
        await client.send(post("/", BODY))
        answer = await client.answer("POST")
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        await client.close()
        await running.is_quiet()
        assert running.server.swallowed_bytes_total == QUICK.small_body_bytes + 1
