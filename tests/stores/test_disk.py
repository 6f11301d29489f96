"""What only the disk store has: threads, a disk that is full or slow, a process that died."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gauzian.errors import StoreDown, StoreFull
from gauzian.stores.base import ObjectMissing
from gauzian.stores.disk import DiskStore, open_disk
from gauzian.stores.threads import FileThreads
from tests.stores.patience import Halting, Stuck, cut, until

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
DATA = random.Random(3).randbytes(3 * MIB)
KEY = "file.0.x"


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


def find(directory: Path) -> Path:
    return next(directory.rglob(KEY))


async def read(store: DiskStore, key: str = KEY) -> bytes:
    async with store.get(key) as pieces:
        return b"".join([piece async for piece in pieces])


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, name: str, code: int, after: int = 0) -> Iterator[None]:
    """A system call that works `after` times and then fails."""
    real = getattr(os, name)
    calls = 0

    def fail(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            if name == "close":
                real(*args)  # Linux closes it all the same
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        yield


async def test_a_full_disk_says_so_leaves_nothing_and_recovers(small_disk: Path, threads: FileThreads) -> None:
    async with open_disk(small_disk, threads=threads, least_free_bytes=0) as store:
        await store.put("a", cut(DATA), size=len(DATA))
        for size in (len(DATA), None):
            with pytest.raises(StoreFull):
                await store.put("b", cut(DATA), size=size)
            assert files(small_disk) == ["a"]
        assert await read(store, "a") == DATA
        await store.delete_quietly(["a"])
        await store.put("b", cut(DATA), size=len(DATA))
        assert await read(store, "b") == DATA


@pytest.mark.parametrize("unfinished", ["nameless"], indirect=True)
async def test_a_disk_with_no_room_for_an_object_says_so_before_all_of_it_is_here(
    small_disk: Path, threads: FileThreads, unfinished: str
) -> None:
    async with open_disk(small_disk, threads=threads, least_free_bytes=0) as store:
        pieces = Halting(DATA[: 2 * MIB])
        with pytest.raises(StoreFull):
            await asyncio.wait_for(store.put(KEY, aiter(pieces), size=5 * MIB), 8)
        assert not pieces.reached.is_set()
        assert files(small_disk) == []
        small = DATA[: 300 * 1024]
        await store.put(KEY, cut(small), size=len(small))
        assert find(small_disk).stat().st_blocks * 512 < len(small) + 64 * 1024


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="there is no such advice here")
@pytest.mark.parametrize(
    ("size", "advised"), [(512 * 1024 + 1, True), (256 * 1024, True), (256 * 1024 - 1, False), (1, False)]
)
async def test_a_large_object_is_let_go_of_by_the_page_cache_once_it_is_on_the_disk(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch, size: int, advised: bool
) -> None:
    """Only what is clean can be forgotten: the advice before the sync would be for nothing."""
    calls: list[str] = []
    fsync, advise = os.fsync, os.posix_fadvise

    def synced(fd: int) -> None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            calls.append("sync")
        fsync(fd)

    def told(fd: int, start: int, length: int, advice: int) -> None:
        assert (start, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        calls.append("advice")
        advise(fd, start, length, advice)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "posix_fadvise", told)
    await store.put(KEY, cut(bytes(size)), size=size)
    assert calls == ["sync"] + ["advice"] * advised


async def test_check_wants_some_space_left(small_disk: Path, threads: FileThreads) -> None:
    async with open_disk(small_disk, threads=threads, least_free_bytes=2 * MIB) as store:
        await store.check()
        await store.put("a", cut(DATA), size=len(DATA))
        with pytest.raises(StoreDown):
            await store.check()


CALLS = [
    ("open", errno.ENOSPC, StoreFull),
    ("open", errno.EMFILE, StoreDown),
    ("writev", errno.ENOSPC, StoreFull),
    ("writev", errno.EDQUOT, StoreFull),
    ("writev", errno.EIO, StoreDown),
    ("fsync", errno.EIO, StoreDown),
    ("close", errno.EIO, StoreDown),
    ("rename", errno.ENOSPC, StoreFull),
    ("link", errno.ENOSPC, StoreFull),
    ("mkdir", errno.EROFS, StoreDown),
]
NAMING = {"nameless": "link", "named": "rename"}


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize(("name", "code", "error"), CALLS)
async def test_any_system_call_may_fail_and_nothing_is_left(
    store: DiskStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unfinished: str,
    name: str,
    code: int,
    error: type[Exception],
    after: int,
) -> None:
    if name in NAMING.values() and name != NAMING[unfinished]:
        return  # no such call is made
    try:
        with failing(monkeypatch, name, code, after):
            await store.put(KEY, cut(DATA), size=len(DATA))
    except error:
        assert files(tmp_path) == []
    else:
        assert after >= 1, "it did not fail"
        assert await read(store) == DATA


async def test_a_write_that_takes_only_a_part_is_continued(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev
    part = random.Random(4)

    def short(fd: int, pieces: Sequence[Any]) -> int:
        joined = b"".join(pieces)
        return real(fd, [joined[: part.randint(1, 100_000)]])

    monkeypatch.setattr(os, "writev", short)
    await store.put(KEY, cut(DATA, 7777), size=len(DATA))
    assert await read(store) == DATA


async def test_the_answer_comes_after_file_and_directories_are_synced(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unfinished: str
) -> None:
    story: list[str] = []

    def noted(name: str, what: Callable[..., str]) -> None:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            result = real(*args, **kwargs)
            story.append(f"{name} {what(*args)}")
            return result

        monkeypatch.setattr(os, name, call)

    def opened(fd: int) -> str:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return "file"
        return str(Path(os.readlink(f"/proc/self/fd/{fd}")).relative_to(tmp_path)).partition("/")[2] or "store"

    noted("fsync", opened)
    noted(NAMING[unfinished], lambda source, target: Path(target).name)
    await store.put("abcd.1", cut(b"x"), size=1)
    parents = ["fsync store", "fsync ab"]
    if unfinished == "nameless":
        assert story == [*parents, "fsync file", "link abcd.1", "fsync ab/cd"]
    else:
        assert story == ["fsync file", *parents, "rename abcd.1", "fsync ab/cd"]


async def test_nothing_unfinished_has_a_name_where_the_file_system_can_do_without(
    store: DiskStore, tmp_path: Path, unfinished: str
) -> None:
    pieces = Halting(DATA)
    put = asyncio.create_task(store.put(KEY, pieces, size=len(DATA)))
    await pieces.reached.wait()
    assert len(files(tmp_path)) == (1 if unfinished == "named" else 0)
    pieces.go.set()
    await put
    assert files(tmp_path) == [KEY]
    await store.put(KEY, cut(b"another"), size=7)  # link() would not replace it
    assert await read(store) == b"another"
    assert files(tmp_path) == [KEY]


async def test_a_tiny_object_costs_one_hop(
    store: DiskStore, threads: FileThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    hops: list[object] = []
    begin = threads.begin

    def counted(*args: Any, **kwargs: Any) -> Any:
        hops.append(args)
        return begin(*args, **kwargs)

    monkeypatch.setattr(threads, "begin", counted)
    await store.put(KEY, cut(DATA[:512]), size=512)
    assert len(hops) == 1


@pytest.mark.parametrize("name", ["open", "writev", "fsync", "naming"])
async def test_cancelled_while_a_thread_works_it_waits_and_leaves_nothing(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unfinished: str, name: str
) -> None:
    stuck = Stuck(monkeypatch, NAMING[unfinished] if name == "naming" else name)
    put = asyncio.create_task(store.put(KEY, cut(DATA), size=len(DATA)))
    await until(stuck.inside.is_set, "the thread is in the call")
    before = os.listdir("/proc/self/fd")
    put.cancel()
    done, _ = await asyncio.wait([put], timeout=0.05)
    put.cancel()  # somebody is impatient: changes nothing
    await asyncio.sleep(0)
    assert not done
    assert len(os.listdir("/proc/self/fd")) >= len(before)  # nothing was closed under the thread
    stuck.go.set()
    with pytest.raises(asyncio.CancelledError):
        await put
    assert files(tmp_path) == []


async def test_a_get_left_while_a_thread_reads_closes_the_file_after_it(
    store: DiskStore, threads: FileThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put(KEY, cut(DATA), size=len(DATA))
    threads.cached.supported = False
    stuck = Stuck(monkeypatch, "pread")
    get = asyncio.create_task(read(store))
    await until(stuck.inside.is_set, "the thread is in the call")
    get.cancel()
    done, _ = await asyncio.wait([get], timeout=0.05)
    assert not done
    stuck.go.set()
    with pytest.raises(asyncio.CancelledError):
        await get


async def test_what_is_not_in_the_page_cache_is_read_in_a_thread(store: DiskStore, tmp_path: Path) -> None:
    await store.put(KEY, cut(DATA), size=len(DATA))
    fd = os.open(find(tmp_path), os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
    assert await read(store) == DATA


async def test_where_reads_cannot_promise_not_to_wait_all_are_done_in_a_thread(
    store: DiskStore, threads: FileThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.put(KEY, cut(DATA), size=len(DATA))
    with failing(monkeypatch, "preadv", errno.EOPNOTSUPP):
        assert await read(store) == DATA
    assert not threads.cached.supported


async def test_a_disk_that_cannot_be_read_fails_the_get(store: DiskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    await store.put(KEY, cut(DATA), size=len(DATA))
    with failing(monkeypatch, "preadv", errno.EIO), failing(monkeypatch, "pread", errno.EIO), pytest.raises(StoreDown):
        await read(store)


async def test_an_object_that_lost_its_end_ends_early(store: DiskStore, tmp_path: Path) -> None:
    await store.put(KEY, cut(DATA), size=len(DATA))
    async with store.get(KEY) as pieces:
        first = await anext(pieces)
        os.truncate(find(tmp_path), MIB)
        assert first + b"".join([piece async for piece in pieces]) == DATA[:MIB]


async def test_a_store_whose_directory_is_gone_is_down(store: DiskStore, tmp_path: Path) -> None:
    for name in ("tmp", "objects"):
        (tmp_path / name).rename(tmp_path / f"{name}-elsewhere")
    with pytest.raises(StoreDown):
        await store.check()
    with pytest.raises(StoreDown):
        await store.put(KEY, cut(b"x"), size=1)
    with pytest.raises(ObjectMissing):
        await read(store)
    for name in ("tmp", "objects"):
        (tmp_path / f"{name}-elsewhere").rename(tmp_path / name)
    await store.check()


async def test_a_place_that_is_no_directory_cannot_be_opened(tmp_path: Path, threads: FileThreads) -> None:
    async with open_disk(tmp_path, threads=threads) as store:
        await store.put(KEY, cut(b"x"), size=1)
    with pytest.raises(StoreDown):
        async with open_disk(find(tmp_path), threads=threads):
            pytest.fail("opened")


async def test_what_a_dead_process_left_is_removed_and_what_a_living_one_writes_is_not(
    tmp_path: Path, threads: FileThreads
) -> None:
    orphan = tmp_path / "tmp" / "dead"
    orphan.mkdir(parents=True)
    (orphan / "7").write_bytes(b"half an object")
    pieces = Halting(DATA)
    async with open_disk(tmp_path, threads=threads) as living:
        assert not orphan.exists()
        put = asyncio.create_task(living.put(KEY, pieces, size=len(DATA)))
        await pieces.reached.wait()
        async with open_disk(tmp_path, threads=threads) as second:
            await second.put("other", cut(b"x"), size=1)
        pieces.go.set()
        await put
        assert await read(living) == DATA
    assert files(tmp_path) == [KEY, "other"]
    assert os.listdir(tmp_path / "tmp") == []


async def test_many_puts_share_one_budget(store: DiskStore, threads: FileThreads) -> None:
    """Fifty uploads that stand still hold no more than the budget together."""
    waiting = [Halting(DATA[: 600 * 1024]) for _ in range(50)]
    puts = [
        asyncio.create_task(store.put(f"many.{number}", pieces, size=len(DATA)))
        for number, pieces in enumerate(waiting)
    ]
    for pieces in waiting:
        await pieces.reached.wait()
    assert sum(pieces.given for pieces in waiting) > threads.writing.total
    await until(lambda: threads.writing.held <= threads.writing.total + 50 * threads.writing.least, "they are written")
    for put in puts:
        put.cancel()
    await asyncio.wait(puts)
