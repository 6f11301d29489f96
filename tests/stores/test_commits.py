"""Small objects written together: as if each were written by itself, only with fewer hops and syncs."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from gauzian.errors import StoreDown, StoreFull
from gauzian.stores import commits
from gauzian.stores.disk import DiskStore, open_disk
from gauzian.stores.threads import FileThreads
from tests.stores.patience import cut, until

pytestmark = pytest.mark.anyio

KEYS = [f"aaaa.{number}" for number in range(5)] + [f"bbbb.{number}" for number in range(5)]


@pytest.fixture(params=["nameless", "named"])
async def store(
    tmp_path: Path, threads: FileThreads, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DiskStore]:
    if request.param == "named":
        monkeypatch.setattr("gauzian.stores.disk.has_nameless_files", lambda directory: False)
    async with open_disk(tmp_path, threads=threads) as store:
        yield store


class Hops:
    """Holds every hop of several objects back until `go`, and knows how many objects went in each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.inside = threading.Event()
        self.go = threading.Event()
        self._really = commits._commit_all
        monkeypatch.setattr(commits, "_commit_all", self._held)

    def _held(self, group: Any, fsync: bool) -> Any:
        self.sizes.append(len(group))
        self.inside.set()
        assert self.go.wait(20)
        return self._really(group, fsync)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


def put(store: DiskStore, key: str, data: bytes | None = None) -> asyncio.Task[Any]:
    data = key.encode() if data is None else data
    return asyncio.create_task(store.put(key, cut(data), size=len(data)))


async def one_under_way(store: DiskStore, hops: Hops) -> asyncio.Task[Any]:
    first = put(store, "zzzz.0")
    await until(hops.inside.is_set, "a thread has the first object")
    return first


async def waiting(store: DiskStore, many: int) -> None:
    await until(lambda: len(store._commits._waiting) == many, "the others wait")


async def read(store: DiskStore, key: str) -> bytes:
    async with store.get(key) as pieces:
        return b"".join([piece async for piece in pieces])


async def test_who_comes_meanwhile_goes_with_the_next_hop_and_a_directory_is_synced_once(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("aaaa.x", "bbbb.x"):
        await store.put(key, cut(b"x"), size=1)  # their directories are there
    hops = Hops(monkeypatch)
    first = await one_under_way(store, hops)
    others = [put(store, key) for key in KEYS]
    await waiting(store, len(KEYS))
    synced: list[str] = []
    real = os.fsync

    def noted(fd: int) -> None:
        real(fd)
        synced.append("file" if stat.S_ISREG(os.fstat(fd).st_mode) else Path(os.readlink(f"/proc/self/fd/{fd}")).name)

    monkeypatch.setattr(os, "fsync", noted)
    hops.go.set()
    await first
    stored = await asyncio.gather(*others)
    assert [one.size for one in stored] == [len(key) for key in KEYS]
    assert hops.sizes == [1, len(KEYS)]
    assert [await read(store, key) for key in KEYS] == [key.encode() for key in KEYS]
    assert files(tmp_path) == sorted([*KEYS, "aaaa.x", "bbbb.x", "zzzz.0"])
    assert sorted(name for name in synced if name in ("aa", "bb")) == ["aa", "bb"]
    assert synced.count("file") == 1 + len(KEYS)


@pytest.mark.parametrize(
    ("call", "code", "error"), [("writev", errno.ENOSPC, StoreFull), ("fsync", errno.EIO, StoreDown)]
)
async def test_one_that_fails_fails_by_itself_and_leaves_nothing(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, error: type[Exception]
) -> None:
    hops = Hops(monkeypatch)
    first = await one_under_way(store, hops)
    others = [put(store, key, bytes(1000 + number)) for number, key in enumerate(KEYS)]
    await waiting(store, len(KEYS))
    real = getattr(os, call)

    def fails_for_the_third(fd: int, *rest: Any) -> Any:
        size = sum(map(len, rest[0])) if rest else os.fstat(fd).st_size
        if size == 1002:
            raise OSError(code, os.strerror(code))
        return real(fd, *rest)

    monkeypatch.setattr(os, call, fails_for_the_third)
    hops.go.set()
    await first
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert [number for number, one in enumerate(outcomes) if isinstance(one, BaseException)] == [2]
    assert isinstance(outcomes[2], error)
    assert files(tmp_path) == sorted([*(key for key in KEYS if key != KEYS[2]), "zzzz.0"])


async def test_a_directory_that_cannot_be_synced_fails_those_in_it(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hops = Hops(monkeypatch)
    first = await one_under_way(store, hops)
    others = [put(store, key) for key in KEYS]
    await waiting(store, len(KEYS))
    real = commits.sync_directory

    def fails(directory: str) -> None:
        if directory.endswith("/aa/aa"):
            raise OSError(errno.EIO, "broken")
        real(directory)

    monkeypatch.setattr(commits, "sync_directory", fails)
    hops.go.set()
    await first
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert [isinstance(one, StoreDown) for one in outcomes] == [True] * 5 + [False] * 5
    assert len({id(one) for one in outcomes}) == len(KEYS)
    assert files(tmp_path) == sorted([*KEYS[5:], "zzzz.0"])


async def test_cancelled_while_it_waits_it_is_never_written(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hops = Hops(monkeypatch)
    first = await one_under_way(store, hops)
    others = [put(store, key) for key in KEYS[:3]]
    await waiting(store, 3)
    others[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await others[1]
    hops.go.set()
    await asyncio.gather(first, others[0], others[2])
    assert hops.sizes == [1, 2]
    assert files(tmp_path) == [KEYS[0], KEYS[2], "zzzz.0"]


@pytest.mark.parametrize("by_scope", [False, True], ids=["task.cancel", "cancel scope"])
async def test_cancelled_while_a_thread_has_it_nothing_is_left_and_its_neighbours_are_there(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_scope: bool
) -> None:
    hops = Hops(monkeypatch)
    first = await one_under_way(store, hops)
    scope = anyio.CancelScope()

    async def scoped() -> None:
        with scope:
            await store.put(KEYS[1], cut(b"x"), size=1)

    victim = asyncio.create_task(scoped())
    others = [put(store, KEYS[0]), put(store, KEYS[2])]
    await waiting(store, 3)
    hops.inside.clear()
    hops.go.set()
    await first
    hops.go.clear()
    await until(hops.inside.is_set, "a thread has them")
    if by_scope:
        scope.cancel()
    else:
        victim.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not victim.done()  # it waits for the thread
    hops.go.set()
    await asyncio.wait([victim], timeout=10)
    assert victim.done()
    await asyncio.gather(*others)
    assert KEYS[1] not in files(tmp_path)
    assert files(tmp_path) == [KEYS[0], KEYS[2], "zzzz.0"]


async def test_cancelled_at_any_turn_it_is_either_stored_or_gone(store: DiskStore, tmp_path: Path) -> None:
    there: set[str] = set()
    for turns in range(60):
        tasks = {key: put(store, key) for number in range(4) if (key := f"cccc.{turns}.{number}")}
        for _ in range(turns):
            await asyncio.sleep(0)
        victims = list(tasks.values())[1::2]
        for victim in victims:
            victim.cancel()
        with anyio.fail_after(5):  # nobody waits for what never comes
            await asyncio.wait(tasks.values())
        there |= {key for key, task in tasks.items() if not task.cancelled()}
        assert not any(task.exception() for task in tasks.values() if not task.cancelled())
        assert set(files(tmp_path)) == there
    assert len(there) >= 120


async def test_an_object_that_is_told_its_end_and_cancelled_in_the_same_turn_is_taken_back(
    store: DiskStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Told(commits._Entry):
        def __init__(self, aside: Any, pieces: Any, done: asyncio.Future[None]) -> None:
            super().__init__(aside, pieces, done)
            victim = asyncio.current_task()
            assert victim is not None
            done.add_done_callback(lambda _: victim.cancel())  # before the victim itself is woken by it

    monkeypatch.setattr(commits, "_Entry", Told)
    with anyio.fail_after(5), pytest.raises(asyncio.CancelledError):
        await put(store, KEYS[0])
    assert files(tmp_path) == []
