"""What stores/base.py promises, asked of both stores."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterable, AsyncIterator
from datetime import UTC, datetime, timedelta

import anyio
import pytest
import xxhash

from gauzian.errors import ClientGone, DigestMismatch, StoreDown
from gauzian.stores.base import TURN_BYTES, ObjectMissing, ObjectStore, StoredObject
from tests.stores.conftest import Room
from tests.stores.patience import Halting, cut, until

pytestmark = pytest.mark.anyio

KIB = 1024
MIB = 1024 * KIB
KEY = "0f6c3a52-file.0.a1"
DATA = random.Random(1).randbytes(10 * MIB)


async def put(store: ObjectStore, key: str, data: bytes) -> StoredObject:
    return await store.put(key, cut(data), size=len(data))


async def read(store: ObjectStore, key: str, start: int = 0, length: int | None = None) -> bytes:
    async with store.get(key, start=start, length=length) as pieces:
        collected = [piece async for piece in pieces]
    assert all(0 < len(piece) <= 512 * KIB for piece in collected)
    return b"".join(collected)


def held_for_reading(room: Room) -> int:
    wire = getattr(room.store, "_wire", None)
    return room.threads.reading.held if wire is None else int(wire._reading.held)


async def nothing_there(room: Room) -> None:
    assert [listed async for listed in room.store.list()] == []
    await until(lambda: room.files() == [], "no file is left behind the store")


@pytest.mark.parametrize("known", [True, False], ids=["size-known", "size-unknown"])
@pytest.mark.parametrize("size", [0, 1, 511, 65_537, 512 * KIB - 1, 512 * KIB, 512 * KIB + 1, 10 * MIB])
async def test_what_was_put_is_what_is_got(room: Room, size: int, known: bool) -> None:
    data = DATA[:size]
    stored = await room.store.put(KEY, cut(data, 100_003), size=size if known else None)
    assert stored == StoredObject(size, hashlib.sha256(data).digest(), xxhash.xxh3_128(data).digest())
    assert await read(room.store, KEY) == data
    assert room.files() == [KEY]


async def test_very_small_and_empty_pieces_are_pieces(room: Room) -> None:
    async def crumbs() -> AsyncIterator[bytes]:
        for at in range(3000):
            yield DATA[at : at + 1]
            yield b""

    await room.store.put(KEY, crumbs(), size=3000)
    assert await read(room.store, KEY) == DATA[:3000]


RANGES = [(0, None), (0, 1), (0, 0), (5, 0), (1, None), (99_999, 2), (65_536, 65_536), (0, 300_000), (299_999, None)]
BEYOND = [(299_999, 5), (0, 300_001), (300_000, None), (300_000, 1), (400_000, 7)]


@pytest.mark.parametrize(("start", "length"), RANGES + BEYOND)
async def test_a_range_is_a_slice_that_ends_early_beyond_the_end(room: Room, start: int, length: int | None) -> None:
    data = DATA[:300_000]
    await put(room.store, KEY, data)
    assert await read(room.store, KEY, start, length) == data[start:][:length]


@pytest.mark.parametrize(("start", "length"), [(0, None), (5, 5), (0, 0)])
async def test_an_object_that_is_not_there_is_missing(room: Room, start: int, length: int | None) -> None:
    with pytest.raises(ObjectMissing):
        await read(room.store, KEY, start, length)


async def test_a_second_put_replaces_the_first(room: Room) -> None:
    await put(room.store, KEY, DATA[: 3 * MIB])
    await put(room.store, KEY, DATA[5:10])
    assert await read(room.store, KEY) == DATA[5:10]
    assert room.files() == [KEY]


@pytest.mark.parametrize("known", [True, False], ids=["size-known", "size-unknown"])
@pytest.mark.parametrize("size", [0, 9, 3 * MIB])
async def test_the_wrong_digest_keeps_nothing_and_the_right_one_keeps_it(room: Room, size: int, known: bool) -> None:
    data, declared = DATA[:size], size if known else None
    with pytest.raises(DigestMismatch):
        await room.store.put(KEY, cut(data), size=declared, sha256=hashlib.sha256(b"others").digest())
    await nothing_there(room)
    await room.store.put(KEY, cut(data), size=declared, sha256=hashlib.sha256(data).digest())
    assert await read(room.store, KEY) == data


@pytest.mark.parametrize("error", [ClientGone(), OSError(28, "theirs"), StoreDown("theirs")], ids=repr)
@pytest.mark.parametrize("known", [True, False], ids=["size-known", "size-unknown"])
@pytest.mark.parametrize("given", [0, 2 * MIB, 3 * MIB], ids=["first", "middle", "after-the-last"])
async def test_what_pieces_raises_comes_out_unchanged(room: Room, error: Exception, given: int, known: bool) -> None:
    pieces = Halting(DATA[:given], error=error)
    pieces.go.set()
    with pytest.raises(type(error)) as raised:
        await room.store.put(KEY, pieces, size=3 * MIB if known else None)
    assert raised.value is error
    assert error.__cause__ is None
    await nothing_there(room)


@pytest.mark.parametrize(
    ("declared", "given"),
    [(10, 9), (10, 11), (0, 1), (1, 0), (2 * MIB, MIB), (MIB, 2 * MIB), (65_536, 65_537), (131_072, 65_536)],
)
async def test_another_number_of_bytes_than_declared_keeps_nothing(room: Room, declared: int, given: int) -> None:
    with pytest.raises(ValueError, match="bytes came"):
        await room.store.put(KEY, cut(DATA[:given]), size=declared)
    await nothing_there(room)


async def test_no_more_is_asked_of_pieces_than_one_beyond_the_size(room: Room) -> None:
    pieces = Halting(DATA)
    with pytest.raises(ValueError, match="bytes came"):
        await room.store.put(KEY, pieces, size=MIB)
    assert pieces.given <= MIB + 65_536


async def put_and_cancel(store: ObjectStore, pieces: Halting, size: int | None, *, by_scope: bool) -> None:
    """Cancel a put that waits for its next piece: the way asyncio does, or the way an anyio scope does."""
    if by_scope:
        async with anyio.create_task_group() as group:

            async def one() -> None:
                await store.put(KEY, pieces, size=size)

            group.start_soon(one)
            await pieces.reached.wait()
            group.cancel_scope.cancel()
        return
    task = asyncio.create_task(store.put(KEY, pieces, size=size))
    await pieces.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("by_scope", [True, False], ids=["scope", "task"])
@pytest.mark.parametrize("known", [True, False], ids=["size-known", "size-unknown"])
@pytest.mark.parametrize("given", [0, 100, 2 * MIB, 3 * MIB], ids=["first", "early", "middle", "end"])
async def test_a_cancelled_put_leaves_nothing(room: Room, given: int, known: bool, by_scope: bool) -> None:
    pieces = Halting(DATA[:given])
    await put_and_cancel(room.store, pieces, 3 * MIB if known else None, by_scope=by_scope)
    assert pieces.cancelled
    await nothing_there(room)


async def test_a_put_cancelled_at_any_moment_leaves_nothing(room: Room) -> None:
    """One turn of the loop later each time, until one put is done before it is cancelled."""
    for turns in range(2000):
        task = asyncio.create_task(room.store.put(KEY, cut(DATA[:200_000]), size=200_000))
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            await task
            break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [listed async for listed in room.store.list()] == [], turns
    else:
        pytest.fail("it never got done")
    await room.store.delete_quietly([KEY])
    await nothing_there(room)


async def test_fifty_puts_and_gets_at_once_do_not_mix_up(room: Room) -> None:
    async def there_and_back(number: int) -> None:
        data = DATA[number : number + 300_000 + number]
        await put(room.store, f"{KEY}{number}", data)
        assert await read(room.store, f"{KEY}{number}") == data

    async with asyncio.TaskGroup() as group:
        for number in range(50):
            group.create_task(there_and_back(number))


async def test_leaving_a_get_early_frees_it_and_the_store_goes_on(room: Room) -> None:
    await put(room.store, KEY, DATA)
    for _ in range(20):
        async with room.store.get(KEY) as pieces:
            await anext(pieces)
        async with room.store.get(KEY):
            pass
    assert await read(room.store, KEY) == DATA


async def test_a_cancelled_get_frees_everything(room: Room) -> None:
    await put(room.store, KEY, DATA)
    for turns in range(40):
        task = asyncio.create_task(read(room.store, KEY))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert await read(room.store, KEY) == DATA


async def test_pieces_of_a_get_are_read_as_they_are_asked_for(room: Room) -> None:
    """Twenty opened objects that nobody reads: not one thing waits for them."""
    await put(room.store, KEY, DATA)
    async with anyio.create_task_group() as group:
        for _ in range(20):

            async def stalled() -> None:
                async with room.store.get(KEY) as pieces:
                    await anext(pieces)
                    await asyncio.Event().wait()

            group.start_soon(stalled)
        assert await read(room.store, KEY) == DATA
        group.cancel_scope.cancel()


async def test_list_gives_what_begins_with_the_prefix(room: Room) -> None:
    keys = ["aaaa.1", "aaaa.22", "aaab.3", "a.4", "b", "a_b-C.d", "-x.5"]
    before = datetime.now(UTC) - timedelta(seconds=3)
    for number, key in enumerate(keys):
        await put(room.store, key, DATA[:number])
    for prefix in ["", "a", "aa", "aaa", "aaaa", "aaaa.", "aaaa.2", "a.4", "b", "c", "-x", "a_b-"]:
        listed = {entry.key: entry async for entry in room.store.list(prefix)}
        assert set(listed) == {key for key in keys if key.startswith(prefix)}, prefix
        for key, entry in listed.items():
            assert entry.size == keys.index(key)
            assert before <= entry.modified <= datetime.now(UTC) + timedelta(seconds=3)


async def test_a_long_list_comes_complete_and_can_be_left(room: Room) -> None:
    """More than one page of S3 (1000), more than one hop of the disk (500)."""
    keys = [f"many.{number}" for number in range(1100)]

    async def fill(part: list[str]) -> None:
        for key in part:
            await put(room.store, key, b"x")

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(fill(keys[number::20]))
    assert {entry.key async for entry in room.store.list("many")} == set(keys)
    listing = room.store.list()
    await anext(listing)
    await listing.aclose()  # type: ignore[attr-defined]
    assert await room.store.delete_quietly(keys) == 1100
    await nothing_there(room)


async def test_delete_removes_what_is_there_and_minds_no_absence(room: Room) -> None:
    await put(room.store, "aaaa.1", b"1")
    await put(room.store, "aaaa.2", b"2")
    assert await room.store.delete_quietly([]) == 0
    assert await room.store.delete_quietly(["aaaa.1", "aaaa.3", "zzzz.9"]) == 3
    assert [entry.key async for entry in room.store.list()] == ["aaaa.2"]


@pytest.mark.parametrize("key", ["", ".", "..", ".hidden", "a/b", "a" * 201, "ä", "a b", "a\n", "../../x"])
async def test_a_name_that_is_no_key_is_refused(room: Room, key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        await put(room.store, key, b"x")
    with pytest.raises(ValueError, match="key"):
        await read(room.store, key)
    with pytest.raises(ValueError, match="key"):
        await room.store.delete_quietly([key])


@pytest.mark.parametrize("key", ["a", "ab..cd", "-..", "_", "A.b_c-D", "x" * 200])
async def test_every_key_is_a_name_of_its_own(room: Room, key: str) -> None:
    await put(room.store, key, b"x")
    assert await read(room.store, key) == b"x"
    assert [entry.key async for entry in room.store.list(key)] == [key]
    assert [entry.key async for entry in room.store.list()] == [key]
    await room.store.delete_quietly([key])
    await nothing_there(room)


async def test_check_is_quiet_when_all_is_well(room: Room) -> None:
    await room.store.check()
    await nothing_there(room)


async def test_operations_are_observed_without_the_time_a_client_took(room: Room) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        yield b"x" * 9
        await asyncio.sleep(0.5)
        yield b"x"

    pieces: AsyncIterable[bytes] = slowly()
    await room.store.put(KEY, pieces, size=10)
    await read(room.store, KEY)
    with pytest.raises(ObjectMissing):
        await read(room.store, "absent")
    with pytest.raises(ValueError, match="bytes came"):
        await room.store.put(KEY, cut(b"xx"), size=1)
    await room.store.delete_quietly([KEY])
    seen = {
        (sample.labels["operation"], sample.labels["status"], sample.name.rpartition("_")[2]): sample.value
        for family in room.metrics.registry.collect()
        if family.name == "gauzian_store_operation_duration_seconds"
        for sample in family.samples
    }
    assert seen["put", "success", "count"] == 1
    assert seen["put", "success", "sum"] < 0.4
    assert seen["get", "success", "count"] == 2
    assert seen["delete", "success", "count"] == 1
    assert not any(count for (_, status, _), count in seen.items() if status == "failed")


async def test_others_get_their_turn_between_two_pieces_while_nothing_is_held(room: Room) -> None:
    """A reader that gave way while a piece of his counts would take from everybody's memory for as long as all of the
    others work: with ten of them pieces are a third of what they might be."""
    await put(room.store, KEY, DATA)
    held: list[int] = []

    async def other() -> None:
        while True:
            held.append(held_for_reading(room))
            await asyncio.sleep(0)

    async with room.store.get(KEY) as pieces:
        await anext(pieces)
        beside = asyncio.create_task(other())
        most = without_turn = 0
        seen = 0
        async for piece in pieces:
            without_turn = without_turn + len(piece) if len(held) == seen else len(piece)
            most, seen = max(most, without_turn), len(held)
        beside.cancel()
    assert most <= TURN_BYTES + 512 * KIB
    assert len(held) >= len(DATA) // (TURN_BYTES + 512 * KIB)
    assert set(held) == {0}
