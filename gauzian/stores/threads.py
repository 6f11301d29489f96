"""File work happens here: a few threads of our own, and memory budgets divided among those who read and write.

The law of this module: a file is never closed while a thread may still be using its number. Whatever is cancelled, the
clean-up of a `Strand` runs after its last job has ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import anyio

from gauzian.bytebudget import ByteBudget
from gauzian.stores.cached import CachedReads
from gauzian.stores.jobs import Job, Workers

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

KIB = 1024
MIB = 1024 * KIB

# A job is one system call or a few: longer than this only on a disk that hangs, and then waiting helps nobody.
PATIENCE_SECONDS = 10.0


async def outlast(work: Awaitable[object], *, seconds: float) -> None:
    """Wait for clean-up to end although we are being cancelled, but no longer than `seconds`; its failure is logged.

    A cancellation that comes meanwhile is not lost: it goes on when the work has ended. Both kinds are held off:
    anyio's scopes (which cancel again and again) and asyncio's `task.cancel()` (which a scope does not shield from).
    """
    loop = asyncio.get_running_loop()
    job = asyncio.ensure_future(work)
    deadline = loop.time() + seconds
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not job.done() and (left := deadline - loop.time()) > 0:
            try:
                await asyncio.wait([job], timeout=left)
            except asyncio.CancelledError as error:
                cancelled = error
    if not job.done():
        job.cancel()
        log.error("clean-up took longer than %.0f s and was given up", seconds)
    elif not job.cancelled() and (failure := job.exception()) is not None:
        log.error("clean-up failed", exc_info=failure)
    if cancelled is not None:
        raise cancelled


class FileThreads:
    """A few threads for file work, and what their users may hold in memory: `async with FileThreads() as threads`.

    Its queue needs no bound of its own: a put, get or spool has at most one job in it, and those are counted by places.
    """

    def __init__(self, workers: int = 8, *, write_bytes: int = 8 * MIB, read_bytes: int = 1 * MIB) -> None:
        self._workers = Workers(workers, name="files")
        # A hop costs some 50 us: below 64 KiB it outweighs the copying, above 1 MiB nothing is gained any more.
        self.writing = ByteBudget(write_bytes, least=16 * KIB, most=1 * MIB, parts=2)
        self.reading = ByteBudget(read_bytes, least=32 * KIB, most=256 * KIB, parts=2)
        self.cached = CachedReads(self.reading.most)

    async def __aenter__(self) -> FileThreads:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._workers.close()
        await outlast(asyncio.to_thread(self._workers.join), seconds=PATIENCE_SECONDS)

    def begin(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """Raises RuntimeError when the threads have been closed."""
        return self._workers.begin(partial(func, *args, **kwargs))

    async def run(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One job by itself. Cancelled, it is not waited for: for anything that holds a file open use a Strand."""
        return await self.begin(func, *args, **kwargs).result()


class Strand:
    """The jobs of one file: one at a time, and a clean-up after the last of them."""

    def __init__(self, threads: FileThreads) -> None:
        self._threads = threads
        self._job: Job[Any] | None = None

    @property
    def idle(self) -> bool:
        """No job is under way: nothing in a thread can be using the file."""
        return self._job is None or self._job.ended

    @property
    def begun(self) -> bool:
        return self._job is not None

    async def run(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Cancelled: a job that has not begun never runs; one that has goes on by itself, and `end` waits for it."""
        job = self._threads.begin(func, *args, **kwargs)
        self._job = job
        return await job.result()

    async def end(self, cleanup: Callable[[], None]) -> None:
        """Run `cleanup` in a thread once no job is under way any more; wait for it, shielded and bounded.

        Should the bound pass (a disk that hangs), the clean-up still runs when the job has ended: never under it.
        """
        ended = asyncio.Event()

        def begin() -> None:
            try:
                self._threads.begin(_quietly, cleanup).then(ended.set)
            except RuntimeError:  # the threads have been closed
                _quietly(cleanup)
                ended.set()

        if self._job is None:
            begin()
        else:
            self._job.then(begin)
        await outlast(ended.wait(), seconds=PATIENCE_SECONDS)


def _quietly(cleanup: Callable[[], None]) -> None:
    try:
        cleanup()
    except Exception as error:
        log.warning("clean-up of a file failed", exc_info=error)
