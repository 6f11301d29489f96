"""Threads, budgets, and clean-up that outlasts whoever asked for it."""

from __future__ import annotations

import asyncio
import logging
import threading

import anyio
import pytest

from gauzian.stores.threads import FileThreads, Strand, outlast
from tests.stores.patience import until

pytestmark = pytest.mark.anyio


async def test_results_and_failures_come_back(threads: FileThreads) -> None:
    assert await threads.run(sorted, [3, 1, 2], reverse=True) == [3, 2, 1]
    with pytest.raises(ZeroDivisionError):
        await threads.run(divmod, 1, 0)


async def test_a_job_that_has_not_begun_never_runs_once_cancelled(nothing_left: None) -> None:
    go = threading.Event()
    ran: list[int] = []
    async with FileThreads(1) as threads:
        busy = asyncio.create_task(threads.run(go.wait, 20))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(threads.run(ran.append, 1))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go.set()
        assert await busy
    assert ran == []


@pytest.mark.parametrize("by_scope", [True, False])
async def test_the_clean_up_of_a_strand_runs_after_its_last_job(threads: FileThreads, by_scope: bool) -> None:
    go = threading.Event()
    inside = threading.Event()
    story: list[str] = []

    def work() -> None:
        inside.set()
        go.wait(20)
        story.append("work")

    async def life() -> None:
        strand = Strand(threads)
        try:
            await strand.run(work)
        finally:
            await strand.end(lambda: story.append("clean"))

    scope = anyio.CancelScope()

    async def scoped() -> None:
        with scope:
            await life()

    task = asyncio.create_task(scoped() if by_scope else life())
    await until(inside.is_set, "it works")
    if by_scope:
        scope.cancel()
    else:
        task.cancel()
    done, _ = await asyncio.wait([task], timeout=0.05)
    assert not done
    assert story == []
    go.set()
    await asyncio.wait([task])
    assert story == ["work", "clean"]


async def test_a_strand_without_a_job_is_cleaned_up_too(threads: FileThreads) -> None:
    story: list[int] = []
    await Strand(threads).end(lambda: story.append(1))
    assert story == [1]


async def test_a_clean_up_that_fails_is_logged(threads: FileThreads, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise OSError("no")

    with caplog.at_level(logging.WARNING):
        await Strand(threads).end(fail)
    assert "clean-up of a file failed" in caplog.text


async def test_closed_threads_still_clean_up(nothing_left: None) -> None:
    story: list[int] = []
    async with FileThreads(1) as threads:
        strand = Strand(threads)
    await strand.end(lambda: story.append(1))
    assert story == [1]


async def test_outlast_is_bounded_and_hands_the_cancellation_on(caplog: pytest.LogCaptureFixture) -> None:
    ended = asyncio.Event()
    task = asyncio.create_task(outlast(ended.wait(), seconds=20))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    ended.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await outlast(asyncio.Event().wait(), seconds=0.02)
    assert "was given up" in caplog.text

    async def fail() -> None:
        raise ValueError

    await outlast(fail(), seconds=1)
    assert "clean-up failed" in caplog.text
