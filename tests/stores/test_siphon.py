"""What goes from a socket to a file past the event loop: in its order, to the byte, and whatever comes between."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import xxhash

from gauzian.errors import ClientGone, DigestMismatch, StoreDown, StoreFull
from gauzian.stores.base import ObjectMissing, StoredObject
from gauzian.stores.disk import DiskStore, open_disk
from gauzian.stores.threads import FileThreads
from tests.stores.patience import Stuck, until
from tests.stores.tapped import DATA, KIB, MIB, sending

pytestmark = pytest.mark.anyio

KEY = "file.0.x"


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


async def read(store: DiskStore) -> bytes:
    async with store.get(KEY) as pieces:
        return b"".join([piece async for piece in pieces])


def turns_free(store: DiskStore) -> int:
    return store._siphons.turns._value


def stored(data: bytes) -> StoredObject:
    return StoredObject(len(data), hashlib.sha256(data).digest(), xxhash.xxh3_128(data).digest())


async def nothing_there(store: DiskStore, place: Path) -> None:
    assert files(place) == []
    with pytest.raises(ObjectMissing):
        await read(store)
    assert turns_free(store) == 3


@pytest.mark.parametrize("known", [True, False], ids=["size-known", "size-unknown"])
@pytest.mark.parametrize("size", [64 * KIB + 1, MIB, 3 * MIB + 7, 10 * MIB])
async def test_an_object_is_what_was_sent_whichever_way_its_bytes_came(
    store: DiskStore, size: int, known: bool
) -> None:
    data = DATA[:size]
    async with sending(data) as client:
        body = client.body
        put = store.put(KEY, body, size=size if known else None, sha256=hashlib.sha256(data).digest())
        assert await put == stored(data)
        assert body.taken > 0
        assert body.left == 0
        assert len(body.opened) == 1
        assert body.is_let_go
    assert await read(store) == data
    assert turns_free(store) == 3


@pytest.mark.parametrize("known", [True, False], ids=["size-known", "size-unknown"])
@pytest.mark.parametrize("ahead", [[1], [5, 1, 70_000], [10] * 2500, [600 * KIB, 700 * KIB, 800 * KIB]])
async def test_what_came_as_pieces_stands_before_what_is_drawn(store: DiskStore, ahead: list[int], known: bool) -> None:
    """Also if there are so many pieces that some are written before, and some with what is drawn."""
    edges = [sum(ahead[:number]) for number in range(len(ahead) + 1)]
    pieces = [DATA[start:end] for start, end in pairwise(edges)]
    data = DATA[: edges[-1] + 2 * MIB]
    async with sending(data[edges[-1] :], ahead=pieces) as client:
        assert await store.put(KEY, client.body, size=len(data) if known else None) == stored(data)
        assert client.body.taken > 0
        assert client.body.is_let_go
    assert await read(store) == data


@pytest.mark.parametrize("most", [64 * KIB, 100_001, MIB, MIB + 1, 3 * MIB])
async def test_no_more_is_drawn_at_a_time_than_the_tap_allows(store: DiskStore, most: int) -> None:
    data = DATA[: 4 * MIB]
    async with sending(data, most=most) as client:
        assert await store.put(KEY, client.body, size=len(data)) == stored(data)
        assert max(client.body.told) <= most
    assert await read(store) == data


async def test_a_turn_ends_after_some_mebibytes_whatever_else_waits(store: DiskStore) -> None:
    async with sending(DATA) as client:
        await store.put(KEY, client.body, size=len(DATA))
        assert max(client.body.told) <= 4 * MIB


async def test_what_stands_behind_the_body_stays_where_it_is(store: DiskStore) -> None:
    size = 3 * MIB
    async with sending(DATA[: size + 100_000], size=size) as client:
        assert await store.put(KEY, client.body, size=size) == stored(DATA[:size])
        assert client.body.taken > 0
        assert await client.rest() == DATA[size : size + 100_000]


@pytest.mark.parametrize("ahead", [[], [b"x"]], ids=["drawn-from-the-first", "a-piece-first"])
@pytest.mark.parametrize("known", [True, False], ids=["size-known", "size-unknown"])
async def test_the_wrong_digest_keeps_nothing_of_what_was_drawn(
    store: DiskStore, tmp_path: Path, known: bool, ahead: list[bytes]
) -> None:
    data = b"".join(ahead) + DATA[:MIB]
    async with sending(DATA[:MIB], ahead=ahead.copy()) as client:
        with pytest.raises(DigestMismatch):
            size = len(data) if known else None
            await store.put(KEY, client.body, size=size, sha256=hashlib.sha256(b"others").digest())
        assert client.body.taken > 0
        assert client.body.is_let_go
    await nothing_there(store, tmp_path)


async def test_more_than_was_declared_is_refused_while_it_is_drawn(store: DiskStore, tmp_path: Path) -> None:
    async with sending(DATA[: 2 * MIB]) as client:
        with pytest.raises(ValueError, match="bytes came"):
            await store.put(KEY, client.body, size=MIB)
        assert client.body.is_let_go
        left = client.body.left
        assert await client.rest() == DATA[2 * MIB - left : 2 * MIB]
    await nothing_there(store, tmp_path)


async def test_a_disk_that_fills_while_it_is_drawn_to_leaves_nothing_and_the_tap_knows_how_far_it_came(
    small_disk: Path, threads: FileThreads, unfinished: str
) -> None:
    data = DATA[: 9 * MIB]
    async with open_disk(small_disk, threads=threads, least_free_bytes=0) as store:
        async with sending(data) as client:
            with pytest.raises(StoreFull):
                await store.put(KEY, client.body, size=None)  # else it says so before all of it is here
            assert client.body.taken > 3 * MIB
            assert client.body.is_let_go
            left = client.body.left
            assert await client.rest() == data[len(data) - left :]
        await nothing_there(store, small_disk)
        async with sending(DATA[: 3 * MIB]) as client:
            assert await store.put(KEY, client.body, size=3 * MIB) == stored(DATA[: 3 * MIB])


async def test_too_many_open_files_is_a_reason_to_take_the_long_way(store: DiskStore) -> None:
    async with sending(DATA) as client:
        client.body.refuses = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        assert await store.put(KEY, client.body, size=len(DATA)) == stored(DATA)
        assert (client.body.taken, client.body.opened, client.body.told) == (0, [], [])
        assert client.body.is_let_go
    assert await read(store) == DATA
    assert turns_free(store) == 3


async def test_a_client_that_is_gone_while_its_bytes_are_drawn_is_what_its_pieces_say(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Stuck(monkeypatch, "writev")
    async with sending(DATA[:MIB], size=3 * MIB) as client:
        put = asyncio.create_task(store.put(KEY, client.body, size=3 * MIB))
        await until(stuck.inside.is_set, "the thread writes")
        await client.reset()
        stuck.go.set()
        with pytest.raises(ClientGone):
            await put
        assert 0 < client.body.taken <= MIB
        assert client.body.is_let_go
    await nothing_there(store, tmp_path)


async def test_a_connection_that_is_broken_off_before_it_is_drawn_from_is_what_its_pieces_say(
    store: DiskStore, tmp_path: Path
) -> None:
    async with sending(DATA[:MIB], size=3 * MIB) as client:
        await client.reset()
        with pytest.raises(ClientGone):
            await store.put(KEY, client.body, size=3 * MIB)
        assert client.body.is_let_go
    await nothing_there(store, tmp_path)


@asynccontextmanager
async def three_that_write(store: DiskStore, stuck: Stuck) -> AsyncIterator[list[asyncio.Task[StoredObject]]]:
    """They have all the turns there are, and stand still in the middle of a write."""
    async with sending(DATA[:MIB]) as one, sending(DATA[:MIB]) as two, sending(DATA[:MIB]) as three:
        puts = [
            asyncio.create_task(store.put(f"{KEY}{number}", client.body, size=MIB))
            for number, client in enumerate((one, two, three))
        ]
        await until(lambda: stuck.calls == 3, "three threads write")
        assert turns_free(store) == 0
        try:
            yield puts
        finally:
            stuck.go.set()
            await asyncio.wait(puts)
        assert all(client.body.is_let_go for client in (one, two, three))


async def test_a_fourth_waits_for_its_turn_and_then_has_it(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Stuck(monkeypatch, "writev")
    async with sending(DATA[: 2 * MIB]) as client, three_that_write(store, stuck) as puts:
        put = asyncio.create_task(store.put(KEY, client.body, size=2 * MIB))
        await until(lambda: client.body.held, "it has asked")
        assert (client.body.opened, client.body.told, stuck.calls) == ([], [], 3)
        stuck.go.set()
        assert await put == stored(DATA[: 2 * MIB])
        assert client.body.taken > 0
        assert [await one for one in puts] == [stored(DATA[:MIB])] * 3
    assert turns_free(store) == 3


async def test_a_tap_that_has_changed_its_mind_when_the_turn_comes_is_not_drawn_from(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does when the connection has ended meanwhile."""
    stuck = Stuck(monkeypatch, "writev")
    async with sending(DATA[: 2 * MIB]) as client, three_that_write(store, stuck):
        put = asyncio.create_task(store.put(KEY, client.body, size=2 * MIB))
        await until(lambda: client.body.held, "it has asked")
        client.body.most = 0
        stuck.go.set()
        assert await put == stored(DATA[: 2 * MIB])
        assert (client.body.opened, client.body.told) == ([], [])
        assert client.body.is_let_go
    assert turns_free(store) == 3


async def test_cancelled_while_it_waits_for_a_turn_it_leaves_nothing(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Stuck(monkeypatch, "writev")
    ahead = [b"a piece that waits, too"]
    async with sending(DATA[:MIB], ahead=ahead) as client, three_that_write(store, stuck) as puts:
        put = asyncio.create_task(store.put(KEY, client.body, size=len(ahead[0]) + MIB))
        await until(lambda: client.body.held, "it has asked")
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        assert (client.body.opened, client.body.told) == ([], [])
        assert client.body.is_let_go
        assert not any(one.done() for one in puts)
    assert files(tmp_path) == [f"{KEY}{number}" for number in range(3)]
    assert turns_free(store) == 3


async def test_cancelled_while_a_thread_writes_it_waits_for_it_and_leaves_nothing(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Stuck(monkeypatch, "writev")
    data = DATA[: 3 * MIB]
    async with sending(data) as client:
        put = asyncio.create_task(store.put(KEY, client.body, size=len(data)))
        await until(stuck.inside.is_set, "the thread writes")
        (duplicate,) = client.body.opened
        put.cancel()
        done, _ = await asyncio.wait([put], timeout=0.05)
        put.cancel()  # somebody is impatient: changes nothing
        await asyncio.sleep(0)
        assert not done
        assert duplicate.fileno() >= 0  # nothing was closed under the thread
        stuck.go.set()
        with pytest.raises(asyncio.CancelledError):
            await put
        assert client.body.is_let_go
        left = client.body.left
        assert await client.rest() == data[len(data) - left :]
    await nothing_there(store, tmp_path)


async def test_a_thread_that_was_given_up_draws_nothing_any_more(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else reads from the connection by then."""
    monkeypatch.setattr("gauzian.stores.threads.PATIENCE_SECONDS", 0.02)
    stuck = Stuck(monkeypatch, "writev")
    data = DATA[: 3 * MIB]
    async with sending(data) as client:
        put = asyncio.create_task(store.put(KEY, client.body, size=len(data)))
        await until(stuck.inside.is_set, "the thread writes")
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        assert not client.body.held
        left = client.body.left
        stuck.go.set()
        await until(lambda: client.body.is_let_go, "the thread has ended")
        assert await client.rest() == data[len(data) - left :]
    await until(lambda: files(tmp_path) == [], "nothing is left")
    assert turns_free(store) == 3


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize(("name", "code", "error"), [("writev", errno.EIO, StoreDown), ("fsync", errno.EIO, StoreDown)])
async def test_any_system_call_may_fail_while_it_is_drawn(
    store: DiskStore,
    tmp_path: Path,
    failing: Callable[[str, int, int], None],
    name: str,
    code: int,
    error: type[Exception],
    after: int,
) -> None:
    async with sending(DATA[: 3 * MIB]) as client:
        failing(name, code, after)
        try:
            await store.put(KEY, client.body, size=3 * MIB)
        except error:
            assert files(tmp_path) == []
        else:
            assert after >= 1, "it did not fail"
        assert client.body.is_let_go
        left = client.body.left
        assert await client.rest() == DATA[3 * MIB - left : 3 * MIB]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int, int], None]:
    """A system call that works so many times and then fails."""

    def fail(name: str, code: int, after: int) -> None:
        real, calls = getattr(os, name), 0

        def call(*args: object) -> object:
            nonlocal calls
            calls += 1
            if calls > after:
                raise OSError(code, os.strerror(code))
            return real(*args)

        monkeypatch.setattr(os, name, call)

    return fail


async def test_no_more_buffers_are_kept_than_may_be_in_use_at_once(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is cancelled gives its turn away before its thread has given back the buffer."""
    with monkeypatch.context() as patch:
        stuck = Stuck(patch, "writev")
        async with sending(DATA[:MIB]) as client, three_that_write(store, stuck) as puts:
            for one in puts:
                one.cancel()
            await until(lambda: turns_free(store) == 3, "their turns are free")
            put = asyncio.create_task(store.put(KEY, client.body, size=MIB))
            await until(lambda: stuck.calls == 4, "a fourth thread writes")
            stuck.go.set()
            assert await put == stored(DATA[:MIB])
    assert store._siphons._buffers == []


async def test_buffers_are_kept_as_long_as_anybody_uses_one(store: DiskStore) -> None:
    siphons = store._siphons
    siphons.begin()
    for number in range(2):
        async with sending(DATA[:MIB]) as client:
            assert await store.put(f"{KEY}{number}", client.body, size=MIB) == stored(DATA[:MIB])
            (kept,) = siphons._buffers
            assert bytes(kept[:1000]) in DATA
    siphons.end()
    assert siphons._buffers == []
    async with sending(DATA[:MIB]) as client:
        assert await store.put(KEY, client.body, size=MIB) == stored(DATA[:MIB])
    assert siphons._buffers == []


async def test_what_is_given_back_too_late_is_thrown_away(store: DiskStore) -> None:
    siphons = store._siphons
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(siphons.buffer())
    assert len(siphons._buffers) == 3


@pytest.mark.parametrize("ahead", [[], [b"x"]], ids=["drawn-from-the-first", "a-piece-first"])
async def test_threads_that_have_been_closed_leave_no_socket_open(
    store: DiskStore, threads: FileThreads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: list[bytes]
) -> None:
    async with sending(DATA[:MIB], ahead=ahead.copy()) as client:
        with monkeypatch.context() as patch:
            patch.setattr(threads._workers, "_closed", True)
            with pytest.raises(RuntimeError, match="closed"):
                await store.put(KEY, client.body, size=len(ahead) + MIB)
        assert len(client.body.opened) == 1
        assert client.body.taken == 0
        assert client.body.is_let_go
    assert threads.writing.held == 0
    await nothing_there(store, tmp_path)
