"""Jobs for threads, and their results back on the event loop.

What concurrent.futures does, at half the price of a hop: a job has no lock and no condition of its own, and what ends
while the loop is busy is told to it in one wake-up. Everything that is about a job's end happens on the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class Job(Generic[T]):
    """A call on its way to a thread and back. `ended`: no thread uses anything of it, and none will."""

    __slots__ = ("_call", "_future", "_outcome", "_then", "ended")

    def __init__(self, call: Callable[[], T], loop: asyncio.AbstractEventLoop) -> None:
        # Who takes it out decides: a thread, that it runs, or who withdraws it, that it never does. pop() is atomic.
        self._call = [call]
        self._future: asyncio.Future[T] | None = loop.create_future()
        self._outcome: T | _Failure | None = None
        self._then: list[Callable[[], None]] = []
        self.ended = False

    async def result(self) -> T:
        """Once, for who began it. Cancelled: a job that has not begun never runs; one that has goes on by itself."""
        try:
            return await cast("asyncio.Future[T]", self._future)
        except asyncio.CancelledError:
            self._withdraw()
            raise
        finally:
            self._future = None  # an error knows this frame, and this frame knows the job: kept, it would keep itself

    def _withdraw(self) -> None:
        with suppress(IndexError):  # a thread has it
            self._call.pop()
            self._end()

    def then(self, callback: Callable[[], None]) -> None:
        """Call it on the loop when the job has ended; now, if it has."""
        if self.ended:
            callback()
        else:
            self._then.append(callback)

    def run(self) -> bool:
        """In a thread. False: it was withdrawn."""
        try:
            call = self._call.pop()
        except IndexError:
            return False
        self._outcome = _outcome(call)
        return True

    def settle(self) -> None:
        """On the loop, after `run`. Who waited and was cancelled is told nothing."""
        outcome, self._outcome = cast("T | _Failure", self._outcome), None
        if self._future is not None and not self._future.done():
            if isinstance(outcome, _Failure):
                self._future.set_exception(outcome.error)
            else:
                self._future.set_result(outcome)
        self._end()

    def _end(self) -> None:
        self.ended = True
        callbacks, self._then = self._then, []
        for callback in callbacks:
            callback()


class _Failure:
    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _outcome(call: Callable[[], T]) -> T | _Failure:
    try:
        return call()
    except BaseException as error:
        return _Failure(error)
    finally:
        del call  # an error knows this frame, and the call knows a batch of pieces


class Workers:
    """Threads that take jobs in the order in which they came. Daemons: a disk that hangs does not keep the process."""

    def __init__(self, count: int, *, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Job[object] | None] = SimpleQueue()
        self._ended: deque[Job[object]] = deque()  # as many as there are threads, and what one turn of the loop adds
        self._is_told = False
        self._closed = False
        self._threads = [threading.Thread(target=self._work, name=f"{name}_{n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def begin(self, call: Callable[[], T]) -> Job[T]:
        """Raises RuntimeError after `close`."""
        if self._closed:
            raise RuntimeError("the threads have been closed")
        job = Job(call, self._loop)
        self._jobs.put(job)  # type: ignore[arg-type]  # whatever it gives back goes to who began it
        return job

    def close(self) -> None:
        """What has been begun still runs."""
        if not self._closed:
            self._closed = True
            for _ in self._threads:
                self._jobs.put(None)

    def join(self) -> None:
        """Blocking, after `close`: until the last job has ended."""
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while self._work_once():
            pass

    def _work_once(self) -> bool:
        """A frame of its own for each: a thread that waits for work must not keep the last one's bytes."""
        job = self._jobs.get()
        if job is None:
            return False
        if job.run():
            self._ended.append(job)
            if not self._is_told:
                self._is_told = True
                with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                    self._loop.call_soon_threadsafe(self._settle)
        return True

    def _settle(self) -> None:
        self._is_told = False  # before looking: who comes later tells again
        while self._ended:
            self._ended.popleft().settle()
