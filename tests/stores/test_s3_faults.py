"""What the S3 store does when the other side refuses, stalls, lies or dies."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from gauzian.errors import ClientGone, StoreDown, StoreFull
from gauzian.stores.base import ObjectMissing
from gauzian.stores.s3 import S3Store, open_s3
from gauzian.stores.threads import FileThreads
from tests.rclone import S3Address
from tests.stores.faulty import OK, Behaviour, Call, answer, faulty_s3, proxied, s3_error
from tests.stores.patience import Halting, cut, until

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
DATA = random.Random(2).randbytes(5 * MIB)
KEY = "file.0.x"
SHORT = 0.5
"""Seconds that a store may be silent where a test wants to see it silent; elsewhere it has all the time it needs."""
LONG = 30.0


class Opener(Protocol):
    def __call__(self, endpoint: str, read_seconds: float = LONG) -> AbstractAsyncContextManager[S3Store]: ...


@pytest.fixture
def opened(threads: FileThreads, tmp_path: Path, bucket: str) -> Opener:
    @asynccontextmanager
    async def open_one(endpoint: str, read_seconds: float = LONG) -> AsyncIterator[S3Store]:
        async with open_s3(
            endpoint=endpoint,
            access_key="gauzian-access",
            secret_key="gauzian-secret",
            bucket=bucket,
            region="us-east-1",
            spool_dir=tmp_path,
            threads=threads,
            connect_seconds=LONG,
            read_seconds=read_seconds,
        ) as store:
            yield store

    return open_one


async def read(store: S3Store, start: int = 0, length: int | None = None) -> bytes:
    async with store.get(KEY, start=start, length=length) as pieces:
        return b"".join([piece async for piece in pieces])


def says(*answers: bytes) -> Behaviour:
    """Each time the next of `answers`, the last one for ever."""
    left = list(answers)

    async def behave(call: Call) -> None:
        if call.method == "PUT":
            await call.body()
        await call.say(left.pop(0) if len(left) > 1 else left[0])

    return behave


def says_early(data: bytes, *, then_cuts: bool = False) -> Behaviour:
    """Answers before it has read anything of the body, and then reads nothing."""

    async def behave(call: Call) -> None:
        await call.say(data)
        await (cuts(call) if then_cuts else is_silent(call))

    return behave


async def cuts(call: Call) -> None:
    raise ConnectionResetError


async def is_silent(call: Call) -> None:
    await asyncio.Event().wait()


async def takes_all_and_is_silent(call: Call) -> None:
    await call.body()
    await asyncio.Event().wait()


async def takes_some_and_cuts(call: Call) -> None:
    await call.reader.readexactly(MIB)
    raise ConnectionResetError


async def takes_all_and_cuts(call: Call) -> None:
    await call.body()
    raise ConnectionResetError


async def answers_by_half(call: Call) -> None:
    await call.body()
    await call.say(b"HTTP/1.1 200 OK\r\nContent-")
    raise ConnectionResetError


SILENT = {"never reads", "never answers", "silent"}
PUT_FAILURES: dict[str, tuple[Behaviour, type[Exception]]] = {
    "cut at once": (cuts, StoreDown),
    "cut in the body": (takes_some_and_cuts, StoreDown),
    "cut before the answer": (takes_all_and_cuts, StoreDown),
    "never reads": (is_silent, StoreDown),
    "never answers": (takes_all_and_is_silent, StoreDown),
    "500 after the body": (says(s3_error(500, "InternalError")), StoreDown),
    "503 before the body": (says_early(s3_error(503, "SlowDown")), StoreDown),
    "503 before the body, and cut": (says_early(s3_error(503, "SlowDown"), then_cuts=True), StoreDown),
    "403 before the body": (says_early(s3_error(403, "SignatureDoesNotMatch")), StoreDown),
    "no such bucket": (says(s3_error(404, "NoSuchBucket")), StoreDown),
    "moved": (says(answer(307, headers="Location: http://127.0.0.1:1/\r\n")), StoreDown),
    "200 before the body": (says_early(OK), StoreDown),
    "no HTTP": (says(b"SSH-2.0-OpenSSH\r\n\r\n"), StoreDown),
    "half an answer": (answers_by_half, StoreDown),
    "507": (says(answer(507)), StoreFull),
    "quota": (says(s3_error(403, "QuotaExceeded")), StoreFull),
    "full": (says(s3_error(400, "XMinioStorageFull")), StoreFull),
}


@pytest.mark.parametrize("name", PUT_FAILURES)
async def test_a_put_that_fails_says_so_and_is_not_repeated(opened: Opener, name: str) -> None:
    behaviour, error = PUT_FAILURES[name]
    patience = SHORT if name in SILENT else LONG
    async with faulty_s3(PUT=behaviour) as faulty, opened(faulty.endpoint, patience) as store:
        with pytest.raises(error):
            await store.put(KEY, cut(DATA), size=len(DATA))
        assert faulty.calls.count("PUT") == 1


@pytest.mark.parametrize("name", PUT_FAILURES)
async def test_a_spooled_put_is_repeated_from_the_spool(opened: Opener, name: str) -> None:
    behaviour, _ = PUT_FAILURES[name]
    failures = 1
    kept = b""

    async def fail_once(call: Call) -> None:
        nonlocal failures, kept
        if failures:
            failures -= 1
            await behaviour(call)
        else:
            kept = await call.body()
            await call.say(OK)

    patience = SHORT if name in SILENT else LONG
    async with faulty_s3(PUT=fail_once) as faulty, opened(faulty.endpoint, patience) as store:
        if PUT_FAILURES[name][1] is StoreFull:
            with pytest.raises(StoreFull):
                await store.put(KEY, cut(DATA), size=None)
            return
        stored = await store.put(KEY, cut(DATA), size=None)
        assert stored.size == len(DATA)
        assert kept == DATA
        assert faulty.calls.count("PUT") == 2


async def test_an_early_answer_does_not_wait_for_a_client_that_stands_still(opened: Opener) -> None:
    pieces = Halting(DATA[:MIB])
    early = says_early(s3_error(503, "SlowDown"))
    async with faulty_s3(PUT=early) as faulty, opened(faulty.endpoint) as store:
        with pytest.raises(StoreDown):
            await asyncio.wait_for(store.put(KEY, pieces, size=2 * MIB), 5)
        assert pieces.cancelled or pieces.given < MIB


async def test_a_store_that_dies_while_the_client_stands_still_is_noticed(opened: Opener) -> None:
    pieces = Halting(DATA[:100_000])
    async with faulty_s3(PUT=is_silent) as faulty, opened(faulty.endpoint) as store:
        put = asyncio.create_task(store.put(KEY, pieces, size=MIB))
        await pieces.reached.wait()
        for connection in faulty.connections:
            connection.transport.abort()
        with pytest.raises(StoreDown):
            await asyncio.wait_for(put, 5)
        assert pieces.cancelled


async def test_a_slow_client_is_not_the_stores_silence(opened: Opener) -> None:
    """The client stands still for longer than the store may: that is for the client's own limits to judge."""
    pieces = Halting(DATA[:100_000])
    async with faulty_s3() as faulty, opened(faulty.endpoint, SHORT) as store:
        put = asyncio.create_task(store.put(KEY, pieces, size=100_000))
        await pieces.reached.wait()
        done, _ = await asyncio.wait([put], timeout=2 * SHORT)
        assert not done
        pieces.go.set()
        assert (await put).size == 100_000


async def test_a_cut_does_not_wait_for_a_store_that_takes_nothing(opened: Opener) -> None:
    """What is buffered for a store that stands still is thrown away: else the connection stays as long as it likes."""
    async with faulty_s3(PUT=is_silent) as faulty, opened(faulty.endpoint) as store:
        put = asyncio.create_task(store.put(KEY, cut(DATA * 4), size=4 * len(DATA)))
        await until(lambda: "PUT" in faulty.calls, "it is asked")
        before = len(os.listdir("/proc/self/fd"))
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        await until(lambda: len(os.listdir("/proc/self/fd")) < before, "the connection is closed")


@pytest.mark.parametrize("how", ["answers", "cuts", "is cancelled"])
async def test_nobody_reads_the_pieces_once_a_put_has_failed(opened: Opener, how: str) -> None:
    reached = asyncio.Event()
    ended = False

    async def reluctant() -> AsyncIterator[bytes]:
        nonlocal ended
        yield DATA[:100_000]
        reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.1)
            ended = True

    async def refuses_later(call: Call) -> None:
        await reached.wait()
        if how == "answers":
            await call.say(s3_error(503, "SlowDown"))
        await (cuts(call) if how == "cuts" else is_silent(call))

    async with faulty_s3(PUT=refuses_later) as faulty, opened(faulty.endpoint) as store:
        put = asyncio.create_task(store.put(KEY, reluctant(), size=MIB))
        await reached.wait()
        if how == "is cancelled":
            put.cancel()
        with pytest.raises(asyncio.CancelledError if how == "is cancelled" else StoreDown):
            await put
        assert ended


async def test_a_put_that_the_store_finishes_after_the_cancellation_is_taken_back(opened: Opener) -> None:
    """Cutting the connection would not stop this store; deleting too early would delete nothing."""
    objects: set[str] = set()
    has_all, may_finish, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def finishes_late(call: Call) -> None:
        await call.body()
        has_all.set()
        await may_finish.wait()
        objects.add(KEY)
        finished.set()
        await call.say(OK)

    async def removes(call: Call) -> None:
        objects.discard(KEY)
        await call.say(answer(204))

    async with faulty_s3(PUT=finishes_late, DELETE=removes) as faulty, opened(faulty.endpoint) as store:
        put = asyncio.create_task(store.put(KEY, cut(DATA), size=len(DATA)))
        await has_all.wait()
        put.cancel()
        await asyncio.wait([put], timeout=0.2)
        may_finish.set()
        with pytest.raises(asyncio.CancelledError):
            await put
        await finished.wait()
        assert objects == set()
        assert faulty.calls.count("DELETE") == 1


async def test_what_s3_said_is_in_the_log_and_not_in_the_error(
    opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    async with faulty_s3(PUT=says(s3_error(403, "AccessDenied"))) as faulty, opened(faulty.endpoint) as store:
        with caplog.at_level(logging.WARNING), pytest.raises(StoreDown) as raised:
            await store.put(KEY, cut(b"x"), size=1)
    assert "code=AccessDenied" in caplog.text
    assert "secret words" not in caplog.text
    assert "gauzian-secret" not in caplog.text
    assert "AccessDenied" not in str(raised.value.body())


async def test_a_body_cut_off_by_us_never_looks_complete(opened: Opener) -> None:
    """The bytes of the last piece are held back until the client is done: the store sees less than was declared."""
    seen: list[int] = []

    async def count(call: Call) -> None:
        taken = 0
        try:
            while data := await call.reader.read(65_536):
                taken += len(data)
        finally:
            seen.append(taken)

    gone = ClientGone()
    pieces = Halting(DATA, error=gone)
    async with faulty_s3(PUT=count) as faulty, opened(faulty.endpoint) as store:
        put = asyncio.create_task(store.put(KEY, pieces, size=len(DATA)))
        await pieces.reached.wait()
        pieces.go.set()
        with pytest.raises(ClientGone) as raised:
            await put
        assert raised.value is gone
        await until(lambda: bool(seen), "the store sees the cut")
    assert seen[0] < len(DATA)
    assert faulty.calls.count("DELETE") == 0  # nothing had to be taken back


async def test_a_put_without_its_answer_is_taken_back(opened: Opener, s3_server: S3Address, bucket: str) -> None:
    async with proxied(s3_server.endpoint) as proxy, opened(proxy.endpoint) as store:
        proxy.answers_pass.clear()
        put = asyncio.create_task(store.put(KEY, cut(DATA), size=len(DATA)))
        await proxy.answer_held.wait()
        assert (s3_server.data_dir / bucket / KEY).exists()
        for writer in proxy.writers:
            writer.transport.abort()
        proxy.answers_pass.set()
        with pytest.raises(StoreDown):
            await put
        assert not (s3_server.data_dir / bucket / KEY).exists()


async def test_a_put_cancelled_before_its_answer_is_taken_back(
    opened: Opener, s3_server: S3Address, bucket: str
) -> None:
    async with proxied(s3_server.endpoint) as proxy, opened(proxy.endpoint) as store:
        proxy.answers_pass.clear()
        put = asyncio.create_task(store.put(KEY, cut(DATA), size=len(DATA)))
        await proxy.answer_held.wait()
        assert (s3_server.data_dir / bucket / KEY).exists()
        put.cancel()
        done, _ = await asyncio.wait([put], timeout=0.1)
        assert not done  # it waits to learn what became of the object
        proxy.answers_pass.set()
        with pytest.raises(asyncio.CancelledError):
            await put
        assert not (s3_server.data_dir / bucket / KEY).exists()


@pytest.mark.parametrize("after", [0, 1000, 2 * MIB])
async def test_a_real_store_keeps_nothing_of_a_broken_put(
    opened: Opener, s3_server: S3Address, bucket: str, after: int
) -> None:
    async with proxied(s3_server.endpoint) as proxy, opened(proxy.endpoint) as store:
        proxy.cut_request_after = after
        with pytest.raises(StoreDown):
            await store.put(KEY, cut(DATA), size=len(DATA))
        await until(lambda: list((s3_server.data_dir / bucket).iterdir()) == [], "the store forgets it")


async def test_connections_that_the_store_closed_meanwhile_are_not_used(opened: Opener, s3_server: S3Address) -> None:
    async with proxied(s3_server.endpoint) as proxy, opened(proxy.endpoint) as store:
        for _ in range(3):
            await store.put(KEY, cut(DATA), size=len(DATA))
            for writer in proxy.writers:
                writer.transport.abort()
            await until(lambda: not proxy.writers, "they are closed")
        assert await read(store) == DATA


async def test_a_get_that_breaks_off_midway_fails(opened: Opener, s3_server: S3Address) -> None:
    async with proxied(s3_server.endpoint) as proxy, opened(proxy.endpoint) as store:
        await store.put(KEY, cut(DATA), size=len(DATA))
        proxy.cut_answer_after = 2 * MIB
        with pytest.raises(StoreDown):
            await read(store)
        proxy.cut_answer_after = None
        assert await read(store) == DATA


def ranged(first: int, last: int) -> str:
    return f"Content-Range: bytes {first}-{last}/1000\r\n"


GET_ANSWERS: dict[str, tuple[Behaviour, bytes | type[Exception], int]] = {
    "fine": (says(answer(206, b"x" * 10, headers=ranged(5, 14))), b"x" * 10, 1),
    "fewer than asked": (says(answer(206, b"x" * 3, headers=ranged(5, 7))), b"xxx", 1),
    "shorter than it says": (
        says_early(answer(206, b"xxx", length=10, headers=ranged(5, 14)), then_cuts=True),
        StoreDown,
        1,
    ),
    "range ignored": (says(answer(200, b"x" * 1000)), StoreDown, 1),
    "another range": (says(answer(206, b"x" * 10, headers=ranged(0, 9))), StoreDown, 1),
    "more than asked": (says(answer(206, b"x" * 11, headers=ranged(5, 15))), StoreDown, 1),
    "beyond the end": (says(s3_error(416, "InvalidRange")), b"", 1),
    "missing": (says(s3_error(404, "NoSuchKey")), ObjectMissing, 1),
    "missing, wordless": (says(answer(404)), ObjectMissing, 1),
    "no bucket": (says(s3_error(404, "NoSuchBucket")), StoreDown, 1),
    "forbidden": (says(s3_error(403, "AccessDenied")), StoreDown, 1),
    "moved": (says(answer(301, headers="Location: http://127.0.0.1:1/\r\n")), StoreDown, 1),
    "500 for ever": (says(s3_error(500, "InternalError")), StoreDown, 3),
    "503, then fine": (says(s3_error(503, "SlowDown"), answer(206, b"y" * 10, headers=ranged(5, 14))), b"y" * 10, 2),
    "silent": (is_silent, StoreDown, 3),
    "cut": (cuts, StoreDown, 3),
    "a huge refusal": (says(answer(400, b"<Code>" * 100_000)), StoreDown, 1),
}


@pytest.mark.parametrize("name", GET_ANSWERS)
async def test_a_get_is_repeated_before_its_first_byte_if_that_may_help(opened: Opener, name: str) -> None:
    behaviour, expected, calls = GET_ANSWERS[name]
    patience = SHORT if name in SILENT else LONG
    async with faulty_s3(GET=behaviour) as faulty, opened(faulty.endpoint, patience) as store:
        if isinstance(expected, bytes):
            assert await read(store, 5, 10) == expected
        else:
            with pytest.raises(expected):
                await read(store, 5, 10)
        # aiohttp itself asks once more, at once, when a connection was closed before an answer.
        assert faulty.calls.count("GET") == calls * (1 + (name == "cut"))


async def test_a_cancelled_wait_for_a_get_frees_it(opened: Opener) -> None:
    async with faulty_s3(GET=is_silent) as faulty, opened(faulty.endpoint) as store:
        get = asyncio.create_task(read(store))
        await until(lambda: "GET" in faulty.calls, "it is asked")
        get.cancel()
        with pytest.raises(asyncio.CancelledError):
            await get


LISTING = (
    b'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Contents><Key>a.1</Key><Size>7</Size><LastModified>2026-01-02T03:04:05.678Z</LastModified></Contents>"
)
END = b"</ListBucketResult>"
BOMB = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">]><x>&a;</x>'
AGAIN = LISTING + b"<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>" + END
BAD_LISTINGS = {"bomb": BOMB, "cut": LISTING, "html": b"<html><br></html>", "empty": b"", "endless": AGAIN}


@pytest.mark.parametrize("name", BAD_LISTINGS)
async def test_a_bad_listing_is_a_store_that_is_down(opened: Opener, name: str) -> None:
    async with faulty_s3(GET=says(answer(200, BAD_LISTINGS[name]))) as faulty, opened(faulty.endpoint) as store:
        with pytest.raises(StoreDown):
            assert [listed async for listed in store.list("a")]


async def test_a_page_of_a_list_is_asked_for_again(opened: Opener) -> None:
    pages = says(s3_error(503, "SlowDown"), answer(200, AGAIN), s3_error(500, "x"), answer(200, LISTING + END))
    async with faulty_s3(GET=pages) as faulty, opened(faulty.endpoint) as store:
        assert [listed.key async for listed in store.list()] == ["a.1", "a.1"]


async def test_a_delete_is_repeated_and_gives_up_quietly(opened: Opener, caplog: pytest.LogCaptureFixture) -> None:
    keys = [f"k.{number}" for number in range(1000)]
    moody = says(s3_error(503, "SlowDown"), answer(204))
    async with faulty_s3(DELETE=moody) as faulty, opened(faulty.endpoint) as store:
        assert await store.delete_quietly(keys) == 1000
        assert faulty.calls.count("DELETE") == 1001
    async with faulty_s3(DELETE=says(s3_error(403, "AccessDenied"))) as faulty, opened(faulty.endpoint) as store:
        assert await store.delete_quietly(keys) == 0
        assert faulty.calls.count("DELETE") < 20  # a store that refuses eight refuses a thousand
        assert "objects not removed: 1000" in caplog.text


@pytest.mark.parametrize("behaviour", [cuts, is_silent, says(answer(403)), says(answer(404)), says(answer(500))])
async def test_check_says_when_the_store_is_down(opened: Opener, behaviour: Behaviour) -> None:
    patience = SHORT if behaviour is is_silent else LONG
    async with faulty_s3() as faulty, opened(faulty.endpoint, patience) as store:
        await store.check()
        faulty.behaviours["HEAD"] = behaviour
        with pytest.raises(StoreDown):
            await store.check()


@pytest.mark.parametrize("code", [403, 500])
async def test_a_bucket_that_cannot_be_had_stops_the_opening(opened: Opener, code: int) -> None:
    async with faulty_s3(HEAD=says(answer(404)), PUT=says(s3_error(code, "No"))) as faulty:
        with pytest.raises(StoreDown):
            async with opened(faulty.endpoint):
                pytest.fail("opened")


async def test_a_bucket_that_somebody_has_just_made_is_fine(opened: Opener) -> None:
    mine = says(s3_error(409, "BucketAlreadyOwnedByYou"))
    async with faulty_s3(HEAD=says(answer(404)), PUT=mine) as faulty, opened(faulty.endpoint):
        pass


@pytest.mark.parametrize("code", ["BucketAlreadyExists", "OperationAborted"])
async def test_a_bucket_that_somebody_is_just_making_is_asked_for_again(opened: Opener, code: str) -> None:
    head, put = says(answer(404), answer(404), answer(200)), says(s3_error(409, code))
    async with faulty_s3(HEAD=head, PUT=put) as faulty, opened(faulty.endpoint):
        assert faulty.calls == ["HEAD", "PUT", "HEAD", "PUT", "HEAD"]


@pytest.mark.parametrize("seen", [404, 403])
async def test_a_bucket_that_is_a_strangers_stops_the_opening(opened: Opener, seen: int) -> None:
    head, put = says(answer(404), answer(seen)), says(s3_error(409, "BucketAlreadyExists"))
    async with faulty_s3(HEAD=head, PUT=put) as faulty:
        with pytest.raises(StoreDown):
            async with opened(faulty.endpoint):
                pytest.fail("opened")
        assert len(faulty.calls) <= 6


async def test_nobody_there_takes_nothing_of_the_body(opened: Opener) -> None:
    async with faulty_s3() as faulty, opened(faulty.endpoint) as store:
        away = socket.socket()
        away.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        store._wire._signer._host = f"127.0.0.1:{away.getsockname()[1]}"
        pieces = Halting(DATA)
        with pytest.raises(StoreDown):
            await store.put(KEY, pieces, size=len(DATA))
        assert pieces.given == 0
        put = asyncio.create_task(store.put(KEY, cut(DATA), size=len(DATA)))
        await asyncio.sleep(0)
        away.close()
        port = int(store._wire._signer._host.rpartition(":")[2])
        server = await asyncio.start_server(faulty.serve, "127.0.0.1", port)
        assert (await put).size == len(DATA)  # it came up in time for the second try
        server.close()
        for connection in list(faulty.connections):
            connection.transport.abort()


@pytest.mark.parametrize("endpoint", ["", "ftp://host", "http://", "http://host/path", "http://host:notaport"])
async def test_a_bad_endpoint_is_a_value_error(opened: Opener, endpoint: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        async with opened(endpoint):
            pytest.fail("opened")


@pytest.mark.parametrize("turns", range(6))
async def test_a_put_cancelled_around_its_last_byte_is_cut_off_or_taken_back_after_its_answer(
    opened: Opener, turns: int
) -> None:
    """In whichever turn of the event loop the cancellation comes: never a DELETE that the store may get first."""
    seen: list[str] = []

    async def takes_its_time(call: Call) -> None:
        await call.body()
        seen.append("all of it")
        await asyncio.sleep(0.05)  # a DELETE that does not wait for the answer would come meanwhile
        seen.append("answered")
        await call.say(OK)

    async def deletes(call: Call) -> None:
        seen.append("deleted")
        await call.say(OK)

    async def ends_in_a_cancellation() -> AsyncIterator[bytes]:
        async for piece in cut(DATA):
            yield piece
        putting.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)

    async with faulty_s3(PUT=takes_its_time, DELETE=deletes) as faulty, opened(faulty.endpoint) as store:
        putting = asyncio.ensure_future(store.put(KEY, ends_in_a_cancellation(), size=len(DATA)))
        with pytest.raises(asyncio.CancelledError):
            await putting
        await until(lambda: not faulty.connections or "deleted" in seen, "it is over")
        assert seen in ([], ["all of it", "answered", "deleted"])
