"""Rows of chunks, written together: who comes while a statement is under way waits for the next, which takes all.

A small chunk costs as much for its row as for its bytes, and a commit serves many rows as well as one. Nobody waits who
finds the database idle. Rows that cannot go together (a retry, a quota that is full, an upload that is being closed) go
by themselves: none fails for the sake of another.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence

from gauzian.database import chunks
from gauzian.database.chunks import NewChunk, StoredChunk
from gauzian.database.pool import Database
from gauzian.errors import ApiError, DatabaseBusy, DatabaseDown, OutcomeUnknown

log = logging.getLogger(__name__)

# Bounds what a failure throws back on single statements.
_MOST_ROWS = 64

_Outcome = asyncio.Future[StoredChunk | None]


class ChunkRows:
    """`put` writes one row, alone or with others. `quota_bytes` is the default for users without one of their own."""

    def __init__(self, database: Database, *, quota_bytes: int | None) -> None:
        self._database = database
        self._quota_bytes = quota_bytes
        self._under_way = False  # one statement and no more: two would carry half as many rows each
        self._waiting: deque[tuple[NewChunk, _Outcome]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def put(self, row: NewChunk) -> StoredChunk:
        """Raises what chunks.put_chunk raises, and what the database does. A row whose caller was cancelled before its
        statement left is not written.
        """
        if not self._under_way:
            self._under_way = True
            try:
                stored = (await self._put_new([row])).get(row.object_key)
            finally:
                self._next()
        else:
            outcome: _Outcome = asyncio.get_running_loop().create_future()
            self._waiting.append((row, outcome))
            stored = await outcome
        return stored or await self._put_alone(row)

    def _next(self) -> None:
        """The statement has ended: those who waited for it are written in a task of their own."""
        if not self._waiting:
            self._under_way = False
            return
        task = asyncio.create_task(self._put_waiting())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _put_waiting(self) -> None:
        try:
            while group := self._take():
                await self._put_group(group)
        finally:
            self._under_way = False

    def _take(self) -> list[tuple[NewChunk, _Outcome]]:
        group: list[tuple[NewChunk, _Outcome]] = []
        while self._waiting and len(group) < _MOST_ROWS:
            row, outcome = self._waiting.popleft()
            if not outcome.done():  # else cancelled
                group.append((row, outcome))
        return group

    async def _put_group(self, group: list[tuple[NewChunk, _Outcome]]) -> None:
        stored: Mapping[str, StoredChunk] = {}
        failure: type[ApiError] | None = None
        try:
            stored = await self._put_new([row for row, _ in group])
        except (DatabaseBusy, DatabaseDown) as error:
            failure = type(error)
        except Exception as error:
            if not isinstance(error, OutcomeUnknown):
                log.exception("chunk rows: not foreseen")
            failure = OutcomeUnknown
        for row, outcome in group:
            if outcome.done():
                continue
            if failure is not None:
                outcome.set_exception(failure())  # one for each: an exception knows the frames it came through
            else:
                outcome.set_result(stored.get(row.object_key))

    async def _put_new(self, rows: Sequence[NewChunk]) -> Mapping[str, StoredChunk]:
        async with self._database.connection() as conn:
            return await chunks.put_new_chunks(conn, rows, quota_bytes=self._quota_bytes)

    async def _put_alone(self, row: NewChunk) -> StoredChunk:
        async with self._database.connection() as conn:
            return await chunks.put_chunk(conn, row, quota_bytes=self._quota_bytes)
