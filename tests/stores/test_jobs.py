"""Jobs: who takes one, how its end is told, and what is left of it."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from gauzian.stores.jobs import Workers
from tests.stores.patience import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def workers(nothing_left: None) -> AsyncIterator[Workers]:
    workers = Workers(2, name="test")
    try:
        yield workers
    finally:
        workers.close()
        await asyncio.to_thread(workers.join)


class Busy:
    """Both threads stand in a job until they may go on."""

    def __init__(self, workers: Workers, count: int = 2) -> None:
        self.go = threading.Event()
        self.begun: list[int] = []
        self.jobs = [workers.begin(self._stand) for _ in range(count)]

    def _stand(self) -> int:
        self.begun.append(1)
        assert self.go.wait(20)
        return 7


class Large:
    """Something that may not be kept."""

    def touch(self) -> None:
        pass

    def fail(self) -> None:
        raise OSError("no")


async def test_a_result_and_a_failure_come_back_to_who_began_the_job(workers: Workers) -> None:
    assert await workers.begin(lambda: 5).result() == 5
    with pytest.raises(ZeroDivisionError):
        await workers.begin(lambda: 1 / 0).result()
    assert await workers.begin(lambda: None).result() is None


async def test_jobs_begin_in_the_order_in_which_they_came(workers: Workers) -> None:
    order: list[int] = []
    busy = Busy(workers, 1)
    jobs = [workers.begin(lambda number=number: order.append(number)) for number in range(100)]  # type: ignore[misc]
    for job in jobs:
        await job.result()
    assert order == list(range(100))
    busy.go.set()
    await busy.jobs[0].result()


async def test_jobs_that_end_while_the_loop_is_busy_are_told_in_one_turn(workers: Workers) -> None:
    told: list[int] = []
    ended = threading.Semaphore(0)
    jobs = [workers.begin(lambda: ended.release()) for _ in range(20)]
    for number, job in enumerate(jobs):
        job.then(lambda number=number: told.append(number))  # type: ignore[misc]
    for _ in jobs:
        assert ended.acquire(timeout=20)  # the loop stands still meanwhile
    await until(lambda: len(told) == len(jobs), "all are told")
    assert sorted(told) == list(range(20))


async def test_a_job_that_no_thread_has_yet_never_runs_once_cancelled_and_has_ended(workers: Workers) -> None:
    busy, ran, told = Busy(workers), [0], [0]
    await until(lambda: len(busy.begun) == 2, "both threads are busy")
    job = workers.begin(lambda: ran.append(1))
    job.then(lambda: told.append(1))
    waiting = asyncio.create_task(job.result())
    await asyncio.sleep(0)
    assert not job.ended
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert job.ended
    assert told == [0, 1]
    busy.go.set()
    for one in busy.jobs:
        assert await one.result() == 7
    assert await workers.begin(lambda: 3).result() == 3
    assert ran == [0]


async def test_a_job_that_a_thread_has_goes_on_without_who_waited_and_ends(workers: Workers) -> None:
    busy, told = Busy(workers, 1), [0]
    await until(lambda: len(busy.begun) == 1, "it is in a thread")
    job = busy.jobs[0]
    waiting = asyncio.create_task(job.result())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not job.ended
    job.then(lambda: told.append(1))
    assert told == [0]
    busy.go.set()
    await until(lambda: job.ended, "it has ended")
    assert told == [0, 1]
    job.then(lambda: told.append(2))
    assert told == [0, 1, 2]


@pytest.mark.parametrize("method", [Large.touch, Large.fail])
async def test_nothing_of_a_job_is_kept_once_it_has_ended_and_no_circle_is_left(
    workers: Workers, method: Callable[[Large], None]
) -> None:
    async def one() -> weakref.ref[Large]:
        large = Large()
        job = workers.begin(lambda large=large: method(large))  # type: ignore[misc]
        with suppress(OSError):
            await job.result()
        return weakref.ref(large)

    gc.collect()
    gc.disable()
    try:
        kept = await one()
        await until(lambda: kept() is None, "it is gone without the garbage collector")
    finally:
        gc.enable()


async def test_closed_workers_end_what_was_begun_and_take_nothing_more(nothing_left: None) -> None:
    workers = Workers(2, name="test")
    results = [workers.begin(lambda: 1).result() for _ in range(50)]
    workers.close()
    workers.close()
    with pytest.raises(RuntimeError):
        workers.begin(lambda: 1)
    assert await asyncio.gather(*results) == [1] * 50
    await asyncio.to_thread(workers.join)
    assert not any(thread.is_alive() for thread in workers._threads)


def test_a_job_that_ends_after_its_loop_was_closed_disturbs_nobody() -> None:
    go = threading.Event()

    async def leave() -> Workers:
        workers = Workers(1, name="test")
        workers.begin(lambda: go.wait(20))
        workers.close()
        return workers

    workers = asyncio.run(leave())
    go.set()
    workers.join()
