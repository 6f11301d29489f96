"""Chunks out of a store: in order, never too many open, never a damaged one to its end, and everything closed
afterwards.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from gauzian.database.downloads import ChunkRow
from gauzian.download.formats import Format, JsonChunk, RawChunk
from gauzian.download.ranges import plan
from gauzian.download.readahead import ReadAhead, Wanted
from gauzian.download.routes import _Download
from gauzian.errors import DatabaseDown, Message, ObjectDamaged, StoreDown
from gauzian.metrics import Metrics
from tests.download.fakes import Client, ListedPages, PassingStore, TroubledStore, store_chunk, until

pytestmark = pytest.mark.anyio


def fill(store: TroubledStore, sizes: Sequence[int]) -> tuple[list[Wanted], bytes]:
    contents = [bytes((7 * index + at) % 256 for at in range(size)) for index, size in enumerate(sizes)]
    rows = [store_chunk(store, index, content) for index, content in enumerate(contents)]
    return [Wanted(row, 0, row.size) for row in rows], b"".join(contents)


async def read(objects: ReadAhead, wanted: Sequence[Wanted], *, page: int = 2) -> bytes:
    async with aclosing(objects.pieces(ListedPages(wanted, size=page))) as pieces:
        return b"".join([piece async for piece in pieces])


async def read_until_trouble(objects: ReadAhead, wanted: Sequence[Wanted]) -> tuple[bytes, Exception | None]:
    """What had been given out when it ended, and how it ended."""
    given = b""
    try:
        async with aclosing(objects.pieces(ListedPages(wanted))) as pieces:
            async for piece in pieces:
                given += piece
    except Exception as error:
        return given, error
    return given, None


@pytest.mark.parametrize("seed", range(25))
async def test_the_bytes_come_in_order_whatever_time_everything_takes(seed: int) -> None:
    rng = random.Random(seed)
    store = TroubledStore(piece=rng.randint(1, 9), seed=seed)
    wanted, whole = fill(store, [rng.randint(1, 30) for _ in range(rng.randint(0, 9))])
    ahead = rng.randint(0, 3)
    objects = ReadAhead(store, ahead=ahead)

    assert await read(objects, wanted, page=rng.randint(1, 4)) == whole
    assert store.opened == [one.row.object_key for one in wanted]
    assert store.most_open <= 1 + ahead
    assert not store.open_now
    assert objects.opened == 0


@pytest.mark.parametrize("seed", range(25))
async def test_any_range_is_the_slice(seed: int) -> None:
    rng = random.Random(seed)
    store = TroubledStore(piece=rng.randint(1, 9), seed=seed)
    whole_chunks, whole = fill(store, [rng.randint(1, 20) for _ in range(6)])
    start = rng.randrange(len(whole))
    stop = rng.randint(start + 1, len(whole))
    sizes = [one.row.size for one in whole_chunks]
    wanted = [Wanted(whole_chunks[part.position].row, part.start, part.stop) for part in plan(start, stop, sizes)]
    assert await read(ReadAhead(store, ahead=2), wanted) == whole[start:stop]


class Taker:
    """Takes bytes beside the pieces, as many of them as the seed decides; all that came, in order."""

    def __init__(self, seed: int) -> None:
        self.got = b""
        self._random = random.Random(seed)

    def send_now(self, view: memoryview) -> int:
        taken = self._random.choice([len(view), self._random.randint(0, len(view))])
        self.got += view[:taken]
        return taken

    async def read(self, objects: ReadAhead, wanted: Sequence[Wanted]) -> Exception | None:
        """How it ended."""
        try:
            async with aclosing(objects.pieces(ListedPages(wanted), self.send_now)) as pieces:
                async for piece in pieces:
                    assert piece
                    self.got += piece
        except Exception as error:
            return error
        return None


@pytest.fixture
def holding_back_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gauzian.download.readahead.HELD_BACK_BYTES", 5)
    monkeypatch.setattr("gauzian.download.readahead.LEAD_BYTES", 40)


@pytest.mark.usefixtures("holding_back_little")
@pytest.mark.parametrize("seed", range(60))
async def test_what_passes_by_and_what_comes_as_pieces_is_the_range_in_order(seed: int) -> None:
    rng = random.Random(seed)
    store, taker = PassingStore(piece=rng.randint(1, 9), seed=seed), Taker(seed)
    chunks, whole = fill(store, [rng.randint(1, 120) for _ in range(6)])
    start = rng.choice([0, rng.randrange(len(whole))])
    stop = rng.choice([len(whole), rng.randint(start + 1, len(whole))])
    parts = plan(start, stop, [one.row.size for one in chunks])
    wanted = [Wanted(chunks[part.position].row, part.start, part.stop) for part in parts]
    objects = ReadAhead(store, ahead=rng.randint(0, 2))
    assert await taker.read(objects, wanted) is None
    assert taker.got == whole[start:stop]
    assert store.passed > 0 or stop - start < 200
    assert not store.open_now
    assert objects.opened == 0


@pytest.mark.usefixtures("holding_back_little")
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("start", "stop"), [(0, 90), (0, 50), (30, 90), (20, 60)])
@pytest.mark.parametrize(
    ("trouble", "kind"),
    [("short", ObjectDamaged), ("long", ObjectDamaged), ("flipped", ObjectDamaged), ("fails", StoreDown)],
)
async def test_what_passes_by_of_a_bad_chunk_is_never_all_of_it(
    trouble: str, kind: type[Exception], start: int, stop: int, seed: int
) -> None:
    store, taker = PassingStore(piece=4, seed=seed), Taker(seed)
    wanted, whole = fill(store, [90])
    store.trouble["file.0"] = trouble
    error = await taker.read(ReadAhead(store, ahead=2), [dataclasses.replace(wanted[0], start=start, stop=stop)])
    assert type(error) is kind
    assert len(taker.got) < stop - start
    assert taker.got == whole[start : start + len(taker.got)]


@pytest.mark.usefixtures("holding_back_little")
async def test_the_next_object_is_opened_in_time_although_all_of_this_one_passes_by() -> None:
    store, ahead_at = PassingStore(piece=4, seed=1), []
    wanted, whole = fill(store, [100, 100])
    store._random.random = lambda: 1.0  # type: ignore[method-assign]  # always passing
    got = 0

    def send_now(view: memoryview) -> int:
        nonlocal got
        got += len(view)
        ahead_at.append((got, len(store.opened)))
        return len(view)

    async with aclosing(ReadAhead(store, ahead=1).pieces(ListedPages(wanted), send_now)) as pieces:
        async for piece in pieces:
            got += len(piece)
    assert got == len(whole)
    assert [opened for at, opened in ahead_at if at <= 60] == [1] * sum(at <= 60 for at, _ in ahead_at)
    assert any(opened == 2 for at, opened in ahead_at if 61 < at < 95)


@pytest.mark.usefixtures("holding_back_little")
async def test_a_cancellation_while_bytes_pass_by_closes_everything() -> None:
    turns, finished = 0, False
    while not finished:
        turns += 1
        store = PassingStore(piece=4, seed=3)
        wanted, _ = fill(store, [60] * 3)
        objects = ReadAhead(store, ahead=2)
        reader = asyncio.create_task(Taker(3).read(objects, wanted))
        for _ in range(turns):
            await asyncio.sleep(0)
        finished = reader.done()
        reader.cancel()
        await asyncio.wait([reader])
        await until(lambda: not store.open_now and objects.opened == 0)  # noqa: B023 - awaited in this turn
        assert reader.cancelled() or finished
    assert turns > 20


async def test_a_store_that_stalls_while_bytes_pass_by_is_let_go_when_the_client_is() -> None:
    store = PassingStore(piece=4)
    wanted, _ = fill(store, [200 * 1024, 8])
    store.trouble["file.0"] = "stalls"
    objects = ReadAhead(store, ahead=0)
    reader = asyncio.create_task(Taker(1).read(objects, wanted))
    await store.stalling.wait()
    reader.cancel()
    await asyncio.wait([reader])
    assert not store.open_now
    assert objects.opened == 0


@pytest.mark.parametrize("start", [0, 9, 30])
async def test_no_piece_is_kept_while_the_next_one_is_read(start: int) -> None:
    store = TroubledStore(piece=4)
    wanted, whole = fill(store, [40, 41])
    wanted[0] = dataclasses.replace(wanted[0], start=start)
    given = 0
    async with aclosing(ReadAhead(store, ahead=1).pieces(ListedPages(wanted))) as pieces:
        while piece := await anext(pieces, b""):
            given += len(piece)
            del piece
    assert given == len(whole) - start
    assert store.kept == []


@pytest.mark.parametrize("format", [None, RawChunk, JsonChunk])
async def test_a_download_keeps_no_piece_while_the_next_one_is_read(
    format: Callable[[ChunkRow], Format] | None,
) -> None:
    nobody: Any = None
    store, client, sent = TroubledStore(piece=4), Client(), 0
    wanted, whole = fill(store, [40, 41])
    download = _Download(
        gate=nobody,
        identity=nobody,
        database=nobody,
        objects=ReadAhead(store, ahead=1),
        metrics=Metrics(),
        stall_seconds=60,
    )

    async def send(message: Message) -> None:
        nonlocal sent
        sent += len(message.get("body", b""))

    shape = None if format is None else format(wanted[0].row)
    await download._send({}, client.receive, send, 200, [], ListedPages(wanted), shape)
    assert sent >= len(whole)
    assert store.kept == []


async def test_the_next_two_are_opened_while_the_first_is_sent_and_no_third() -> None:
    store = TroubledStore(piece=4)
    wanted, _ = fill(store, [12] * 6)
    objects = ReadAhead(store, ahead=2)
    async with aclosing(objects.pieces(ListedPages(wanted))) as pieces:
        assert len(await anext(pieces)) == 4
        await until(lambda: len(store.open_now) == 3)
        for _ in range(50):
            await asyncio.sleep(0)
        assert store.opened == ["file.0", "file.1", "file.2"]
        assert objects.opened == 3
    assert not store.open_now
    assert objects.opened == 0


@pytest.mark.parametrize("at", [0, 1, 2, 4])
@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        ("missing", ObjectDamaged),
        ("short", ObjectDamaged),
        ("long", ObjectDamaged),
        ("flipped", ObjectDamaged),
        ("refused", StoreDown),
        ("fails", StoreDown),
    ],
)
async def test_a_bad_chunk_ends_the_download_before_its_last_byte(trouble: str, kind: type[Exception], at: int) -> None:
    store = TroubledStore(piece=4, seed=at)
    wanted, whole = fill(store, [10, 11, 12, 13, 14])
    store.trouble[f"file.{at}"] = trouble
    objects = ReadAhead(store, ahead=2)

    given, error = await read_until_trouble(objects, wanted)
    assert type(error) is kind
    before = sum(one.row.size for one in wanted[:at])
    assert given == whole[: len(given)]
    assert before <= len(given) < before + wanted[at].row.size
    assert not store.open_now
    assert objects.opened == 0


@pytest.mark.parametrize("trouble", ["missing", "short", "long", "flipped"])
async def test_a_bad_chunk_of_one_piece_gives_no_byte_at_all(trouble: str) -> None:
    store = TroubledStore(piece=100)
    wanted, _ = fill(store, [10, 10])
    store.trouble["file.0"] = trouble
    given, error = await read_until_trouble(ReadAhead(store, ahead=2), wanted)
    assert given == b""
    assert isinstance(error, ObjectDamaged)


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (3, 6), (5, 12), (10, 12), (11, 12), (0, 1)])
@pytest.mark.parametrize("trouble", ["short", "long", "flipped"])
async def test_a_part_of_a_damaged_chunk_is_never_given_to_its_end(trouble: str, start: int, stop: int) -> None:
    store = TroubledStore(piece=4)
    wanted, whole = fill(store, [12])
    store.trouble["file.0"] = trouble
    given, error = await read_until_trouble(
        ReadAhead(store, ahead=2), [dataclasses.replace(wanted[0], start=start, stop=stop)]
    )
    assert isinstance(error, ObjectDamaged)
    assert len(given) < stop - start
    assert given == whole[start : start + len(given)]


async def test_trouble_further_on_waits_for_its_turn() -> None:
    store = TroubledStore(piece=4)
    wanted, whole = fill(store, [8, 8, 8])
    store.trouble["file.1"] = "refused"
    given, error = await read_until_trouble(ReadAhead(store, ahead=2), wanted)
    assert given == whole[:8]
    assert isinstance(error, StoreDown)


async def test_a_database_that_fails_between_two_pages_closes_what_is_open() -> None:
    store = TroubledStore(piece=4)
    wanted, _ = fill(store, [8, 8])
    objects = ReadAhead(store, ahead=2)
    async with aclosing(objects.pieces(ListedPages(wanted, error=DatabaseDown()))) as pieces:
        with pytest.raises(DatabaseDown):
            [piece async for piece in pieces]
    assert not store.open_now
    assert objects.opened == 0


@pytest.mark.parametrize("taken", range(1, 10))
async def test_leaving_after_any_piece_closes_everything(taken: int) -> None:
    store = TroubledStore(piece=4, seed=taken)
    wanted, _ = fill(store, [12] * 4)
    objects = ReadAhead(store, ahead=2)
    tasks = len(asyncio.all_tasks())
    async with aclosing(objects.pieces(ListedPages(wanted))) as pieces:
        for _ in range(taken):
            await anext(pieces)
    assert not store.open_now
    assert objects.opened == 0
    assert len(asyncio.all_tasks()) == tasks


@pytest.mark.parametrize("cancellations", [1, 2])
async def test_a_cancellation_at_any_await_closes_everything(cancellations: int) -> None:
    turns, finished = 0, False
    while not finished:
        turns += 1
        store = TroubledStore(piece=4, seed=3)
        wanted, _ = fill(store, [12] * 4)
        objects = ReadAhead(store, ahead=2)
        reader = asyncio.create_task(read(objects, wanted))
        for _ in range(turns):
            await asyncio.sleep(0)
        finished = reader.done()
        for _ in range(cancellations):
            reader.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([reader])
        await until(lambda: not store.open_now and objects.opened == 0)  # noqa: B023 - awaited in this turn
        if cancellations == 1:
            assert reader.cancelled() or finished
    assert turns > 20


@pytest.mark.parametrize("trouble", ["stalls", "stalls_opening"])
async def test_a_store_that_stalls_is_let_go_when_the_client_is(trouble: str) -> None:
    store = TroubledStore(piece=4)
    wanted, _ = fill(store, [8, 8, 8])
    store.trouble["file.1"] = trouble
    objects = ReadAhead(store, ahead=1)
    reader = asyncio.create_task(read(objects, wanted))
    await store.stalling.wait()
    reader.cancel()
    await asyncio.wait([reader])
    assert reader.cancelled()
    assert not store.open_now
    assert objects.opened == 0


async def test_an_object_that_will_not_close_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gauzian.download.readahead.CLOSE_SECONDS", 0.05)
    store = TroubledStore(piece=4)
    wanted, whole = fill(store, [8, 8])
    store.trouble["file.0"] = "stalls_closing"
    objects = ReadAhead(store, ahead=1)
    assert await read(objects, wanted) == whole
    await until(lambda: objects.opened == 0)


async def test_an_object_whose_closing_fails_was_still_read(caplog: pytest.LogCaptureFixture) -> None:
    store = TroubledStore(piece=4)
    wanted, whole = fill(store, [8, 8])
    store.trouble["file.0"] = "fails_closing"
    assert await read(ReadAhead(store, ahead=1), wanted) == whole
    assert "closing an object failed" in caplog.text
