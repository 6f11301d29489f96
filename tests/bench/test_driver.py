"""The bench's own arithmetic, and its driver against a socket that behaves badly."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.bench.answer import Answer
from tests.bench.load import drive
from tests.bench.machine import parse_metrics
from tests.bench.message import Messages, Stock
from tests.bench.payload import CHUNK_BYTES, MIB
from tests.bench.plan import Group, Plan, percentile
from tests.bench.proc import available_mib, parse_stat

REFUSAL = b'HTTP/1.1 400 Bad Request\r\nContent-Length: 23\r\n\r\n{"code":"uploads_busy"}'


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([], 99, 0.0), ([5.0], 50, 5.0), ([3.0, 1.0, 2.0], 50, 2.0), ([float(n) for n in range(1, 101)], 99, 99.0)],
)
def test_a_percentile_is_a_value_that_was_measured(values: list[float], percent: float, expected: float) -> None:
    assert percentile(values, percent) == expected


def test_metrics_keep_their_labels_and_lose_their_comments() -> None:
    text = '# HELP a b\na_total 3.0\nb{c="d e"} 1e+06\n'
    assert parse_metrics(text) == {"a_total": 3.0, 'b{c="d e"}': 1e6}


def test_a_process_name_may_hold_brackets_and_spaces() -> None:
    assert parse_stat("7 (a) b (c) S 5 1 1 0 -1 0 0 0 0 0 200 100 0 0")[0] == 5


def test_the_machine_has_memory_to_give() -> None:
    assert 16 < available_mib() < 16 * 1024 * 1024


def test_a_plan_survives_its_way_to_the_driver() -> None:
    plan = Plan(80, (Group("a", 2, "GET /", ("A: b",), read_rate=5),), until_stopped=True)
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("wire", "label", "body"),
    [
        (REFUSAL, "400 uploads_busy", b'{"code":"uploads_busy"}'),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "204", b""),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n", "200", b"2\r\nOK\r\n0\r\n\r\n"),
    ],
)
def test_an_answer_is_read_in_pieces_of_any_size(wire: bytes, label: str, body: bytes, step: int) -> None:
    answer = Answer()
    for start in range(0, len(wire), step):
        assert not answer.complete
        answer.feed(memoryview(wire[start : start + step]))
    assert (answer.complete, answer.label(), bytes(answer.body)) == (True, label, body)


@pytest.mark.parametrize("spoil", [False, True])
def test_bytes_that_were_not_stored_are_noticed(spoil: bool) -> None:
    stock = Stock()
    sent = bytearray(stock.raw + stock.raw[:MIB])
    if spoil:
        sent[CHUNK_BYTES + 5] ^= 1
    answer = Answer(stock.wrapped)
    answer.feed(memoryview(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(sent)))
    for start in range(0, len(sent), 200_000):
        answer.feed(memoryview(sent)[start : start + 200_000], period=len(stock.raw))
    assert (answer.complete, answer.damaged) == (True, spoil)


def test_requests_are_numbered_and_measured() -> None:
    group = Group("a", 1, "POST /?index=@N@", prefix='{"index":@N@,"data":"', payload=300, base64=True, suffix='"}')
    head, _, body = b"".join(Messages(group, "h", Stock()).parts(12)).partition(b"\r\n\r\n")
    assert b"index=12" in head
    assert b"Content-Length: %d" % len(body) in head
    assert body.startswith(b'{"index":12,"data":"')


def test_a_body_without_length_is_framed_to_its_end() -> None:
    group = Group("a", 1, "POST /", payload=2 * MIB, chunked=True)
    body = b"".join(Messages(group, "h", Stock()).parts(0)).partition(b"\r\n\r\n")[2]
    assert body.endswith(b"\r\n0\r\n\r\n")
    assert body.count(b"\r\n10000\r\n") == 31
    assert b"Content-Length" not in body


@contextlib.contextmanager
def server_that(read_bytes: int, *, reset: bool) -> Iterator[int]:
    """Answers each connection after so many bytes, then resets it or swallows the rest."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    got = 0
                    while got < read_bytes:
                        got += len(connection.recv(65536))
                    connection.sendall(REFUSAL)
                    connection.shutdown(socket.SHUT_WR)
                    while not reset and connection.recv(1 << 20):
                        pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@contextlib.contextmanager
def patient_server(received: list[bytes]) -> Iterator[int]:
    """Answers every whole head with OK; notes what came on each connection until its end."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    got = b""
                    while piece := connection.recv(65536):
                        got += piece
                        if piece.endswith(b"\r\n\r\n"):
                            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")
                received.append(got)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def test_one_connection_asks_again_at_its_pace() -> None:
    received: list[bytes] = []
    with patient_server(received) as port:
        load = drive(port, Group("a", 1, "GET /", requests=4, every_seconds=0.03), deadline_seconds=10)
    outcome = load.groups["a"]
    assert (outcome.statuses, outcome.reconnects, outcome.unread) == ({"200": 4}, 0, {})
    assert load.seconds >= 0.09
    assert [text.count(b"GET / ") for text in received] == [4]


def test_a_client_may_stay_after_its_answer_and_stop_within_its_head() -> None:
    received: list[bytes] = []
    with patient_server(received) as port:
        load = drive(port, Group("a", 1, "GET /", stay_seconds=0.2), deadline_seconds=10)
        assert load.seconds >= 0.2
        assert load.groups["a"].statuses == {"200": 1}
        cut = drive(port, Group("b", 1, "GET /", send_at_most=7), deadline_seconds=10).groups["b"]
    assert (cut.left, cut.sent_bytes, cut.unread) == (1, 7, {})
    assert received[1] == b"GET / H"


@pytest.mark.parametrize("watch", [False, True])
def test_an_early_answer_is_read_while_sending_and_after_it(watch: bool) -> None:
    with server_that(1000, reset=False) as port:
        load = drive(port, Group("a", 3, "POST /", payload=CHUNK_BYTES, watch=watch), deadline_seconds=10)
    assert load.groups["a"].statuses == {"400 uploads_busy": 3}
    assert load.groups["a"].answered_all


def test_a_reset_is_told_apart_from_an_answer() -> None:
    with server_that(1, reset=True) as port:
        outcome = drive(port, Group("a", 3, "POST /", payload=CHUNK_BYTES), deadline_seconds=10).groups["a"]
    assert outcome.read() + sum(outcome.unread.values()) == 3
    assert set(outcome.unread) <= {"ECONNRESET", "EPIPE"}
