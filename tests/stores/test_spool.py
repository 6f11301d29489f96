"""Bytes laid down until they are wanted."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from pathlib import Path
from typing import Any

import pytest

from gauzian.errors import BodyTooLarge, StoreDown, StoreFull
from gauzian.stores.spool import Spool
from gauzian.stores.threads import FileThreads
from tests.stores.patience import until

pytestmark = pytest.mark.anyio

DATA = random.Random(5).randbytes(3_000_000)


async def fill(spool: Spool, data: bytes, piece: int = 50_000) -> None:
    for start in range(0, len(data), piece):
        await spool.write(data[start : start + piece])


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 600_000, 3_000_000])
async def test_what_was_written_comes_back_as_often_as_asked(tmp_path: Path, threads: FileThreads, size: int) -> None:
    async with Spool(tmp_path, threads=threads) as spool:
        await fill(spool, DATA[:size])
        assert await spool.finish() == size
        for _ in range(3):
            assert b"".join([piece async for piece in spool.pieces()]) == DATA[:size]
        async for _piece in spool.pieces():
            break
        assert os.listdir(tmp_path) == []  # it never had a name


async def test_few_bytes_need_no_disk(threads: FileThreads) -> None:
    async with Spool(Path("/nowhere"), threads=threads) as spool:
        await fill(spool, DATA[:60_000])
        await spool.finish()
        assert b"".join([piece async for piece in spool.pieces()]) == DATA[:60_000]


async def test_many_bytes_without_a_disk_are_a_store_that_is_down(threads: FileThreads) -> None:
    async with Spool(Path("/nowhere"), threads=threads) as spool:
        await fill(spool, DATA[:100_000])
        with pytest.raises(StoreDown):
            await spool.finish()


async def test_a_full_disk_says_so(tmp_path: Path, threads: FileThreads, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "writev", full)
    async with Spool(tmp_path, threads=threads) as spool:
        with pytest.raises(StoreFull):
            await fill(spool, DATA)


async def test_more_than_allowed_is_refused_at_once(tmp_path: Path, threads: FileThreads) -> None:
    async with Spool(tmp_path, threads=threads, most_bytes=100_000) as spool:
        await fill(spool, DATA[:100_000])
        with pytest.raises(BodyTooLarge):
            await spool.write(b"x")


async def test_where_files_must_have_names_they_have_them_for_a_moment(
    tmp_path: Path, threads: FileThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_TMPFILE")
    async with Spool(tmp_path, threads=threads) as spool:
        await fill(spool, DATA)
        assert os.listdir(tmp_path) == []
        await spool.finish()
        assert b"".join([piece async for piece in spool.pieces()]) == DATA


async def test_cancelled_anywhere_it_leaves_nothing(tmp_path: Path, threads: FileThreads) -> None:
    async def life() -> None:
        async with Spool(tmp_path, threads=threads) as spool:
            await fill(spool, DATA[:700_000])
            await spool.finish()
            async for _ in spool.pieces():
                await asyncio.sleep(0)

    for turns in range(0, 200, 3):
        task = asyncio.create_task(life())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            break
    assert os.listdir(tmp_path) == []
    await until(lambda: threads.reading.held == threads.writing.held == 0, "shares are given back")
