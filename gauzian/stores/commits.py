"""Small objects made durable together: who comes while some are being written waits for the next hop, which takes all.

A small object costs a thread, a dozen system calls and two waits for the disk, and each call hands the interpreter from
one thread to another: with eight threads that is more work than all the rest of the request. In one hop a thread takes
step after step for all of them, and a directory is synced once for all that got a name in it. Nobody waits who finds
the disk idle; one object's failure is its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

from gauzian.stores.aside import Aside, sync_directory
from gauzian.stores.threads import KIB, PATIENCE_SECONDS, FileThreads, outlast

log = logging.getLogger(__name__)

# Larger ones keep a thread busy with their bytes, and are better off with one each.
MOST_BYTES = 64 * KIB
# Descriptors open at once, and how long the first one waits for the last.
_MOST_OBJECTS = 64


class _Entry:
    """An object that waits: `begun` when a thread has it, `done` is cancelled by whoever stops waiting for it."""

    __slots__ = ("aside", "begun", "done", "gone", "pieces")

    def __init__(self, aside: Aside, pieces: Sequence[bytes], done: asyncio.Future[None]) -> None:
        self.aside = aside
        self.pieces = pieces
        self.done = done
        self.begun = False
        self.gone = asyncio.Event()  # its `done` was cancelled, and nothing of it is left


class Commits:
    """`commit` does what Aside.commit does, alone or with others."""

    def __init__(self, threads: FileThreads, *, fsync: bool) -> None:
        self._threads = threads
        self._fsync = fsync
        self._waiting: deque[_Entry] = deque()  # a put has one entry at most, and puts are counted by places
        self._task: asyncio.Task[None] | None = None

    async def commit(self, aside: Aside, pieces: Sequence[bytes]) -> None:
        """Raises the OSError of this object, of which nothing is left then. Cancelled before a thread has it, nothing
        is ever written; later, what was made is taken away again, and that is waited for, shielded and bounded.
        """
        loop = asyncio.get_running_loop()
        entry = _Entry(aside, pieces, loop.create_future())
        self._waiting.append(entry)
        if self._task is None:
            self._task = loop.create_task(self._work())
        try:
            await entry.done
        except asyncio.CancelledError:
            if entry.begun:
                await outlast(self._take_back(entry), seconds=PATIENCE_SECONDS)
            raise

    async def _take_back(self, entry: _Entry) -> None:
        if entry.done.cancelled():
            await entry.gone.wait()
        else:  # cancelled in the same turn in which it was told how it ended
            entry.done.exception()
            await self._threads.run(_abandon_all, [entry])

    async def _work(self) -> None:
        try:
            while group := self._take():
                await self._commit(group)
        finally:
            self._task = None

    def _take(self) -> list[_Entry]:
        group: list[_Entry] = []
        while self._waiting and len(group) < _MOST_OBJECTS:
            entry = self._waiting.popleft()
            if not entry.done.done():  # else cancelled
                entry.begun = True
                group.append(entry)
        return group

    async def _commit(self, group: Sequence[_Entry]) -> None:
        failures: Sequence[Exception | None]
        try:
            failures = await self._threads.run(_commit_all, group, self._fsync)
        except RuntimeError as error:  # the threads have been closed
            failures = [error] * len(group)
        unwanted = [entry for entry in group if entry.done.done()]
        # Told in the same turn: from here on who is cancelled takes their object back themselves.
        for entry, failure in zip(group, failures, strict=True):
            if entry.done.done():
                continue
            if failure is None:
                entry.done.set_result(None)
            else:
                entry.done.set_exception(failure)
        if unwanted:
            await self._take_away(unwanted)

    async def _take_away(self, unwanted: Sequence[_Entry]) -> None:
        try:
            await self._threads.run(_abandon_all, unwanted)
        except RuntimeError as error:  # the threads have been closed
            log.warning("clean-up of a file failed", exc_info=error)
        for entry in unwanted:
            entry.gone.set()


def _commit_all(group: Sequence[_Entry], fsync: bool) -> list[Exception | None]:
    """In a thread: every step for all, then the next. What fails drops out and leaves nothing."""
    failures: dict[int, Exception] = {}

    def each(step: Callable[[_Entry], object]) -> None:
        for number, entry in enumerate(group):
            if number not in failures:
                try:
                    step(entry)
                except Exception as error:
                    failures[number] = error

    each(lambda entry: entry.aside.take(entry.pieces))
    if len(group) > 1:
        each(lambda entry: entry.aside.begin_sync())
    each(lambda entry: entry.aside.sync())
    each(lambda entry: entry.aside.put_in_place())
    if fsync:
        synced: dict[str, OSError | None] = {}
        each(lambda entry: _sync_once(entry.aside.directory, synced))
    _abandon_all([group[number] for number in failures])
    return [failures.get(number) for number in range(len(group))]


def _sync_once(directory: str, synced: dict[str, OSError | None]) -> None:
    if directory not in synced:
        try:
            sync_directory(directory)
            synced[directory] = None
        except OSError as error:
            synced[directory] = error
    if (failure := synced[directory]) is not None:
        raise OSError(failure.errno, failure.strerror)


def _abandon_all(group: Sequence[_Entry]) -> None:
    for entry in group:
        try:
            entry.aside.abandon()
        except OSError as error:
            log.warning("clean-up of a file failed", exc_info=error)
