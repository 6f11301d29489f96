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

import psycopg

from gauzian.database import chunks
from gauzian.database.chunks import NewChunk, StoredChunk
from gauzian.database.pool import Database
from gauzian.errors import ApiError, DatabaseBusy, DatabaseDown, InternalError, OutcomeUnknown

log = logging.getLogger(__name__)

# Bounds what a failure throws back on single statements.
_MOST_ROWS = 64

# When rows come faster than statements end, the next statement waits for a few more: it costs as much as four rows do.
# A client does not see it: its chunk took longer to send.
_GATHER_SECONDS = 0.003

_Outcome = asyncio.Future[StoredChunk]


class ChunkRows:
    """`put` writes one row, alone or with others. `quota_bytes` is the default for users without one of their own."""

    def __init__(self, database: Database, *, quota_bytes: int | None) -> None:
        self._database = database
        self._quota_bytes = quota_bytes
        self._waiting: deque[tuple[NewChunk, _Outcome]] = deque()
        self._together: asyncio.Task[None] | None = None  # one statement: two would carry half as many rows each
        self._alone: set[asyncio.Task[None]] = set()

    def put(self, row: NewChunk) -> asyncio.Future[StoredChunk]:
        """What becomes of the row, which is written whether or not anybody waits for it: its result, or what
        chunks.put_chunk raises, or what the database does. Cancelled before its statement left it is not written;
        afterwards nobody knows.
        """
        outcome: _Outcome = asyncio.get_running_loop().create_future()
        self._waiting.append((row, outcome))
        if self._together is None:
            # It begins in the next turn of the loop: what comes in this one goes with the first statement.
            self._together = asyncio.create_task(self._put_waiting())
        return outcome

    async def _put_waiting(self) -> None:
        try:
            while group := self._take():
                await self._put_group(group)
                if self._waiting:
                    await asyncio.sleep(_GATHER_SECONDS)
        finally:
            self._together = None

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
        except psycopg.Error:  # the server said no, and not because of one of the rows
            log.exception("chunk rows: not foreseen")
            failure = InternalError
        except Exception as error:
            if not isinstance(error, OutcomeUnknown):
                log.exception("chunk rows: not foreseen")
            failure = OutcomeUnknown
        for row, outcome in group:
            if outcome.done():
                continue
            if failure is not None:
                outcome.set_exception(failure())  # one for each: an exception knows the frames it came through
            elif (one := stored.get(row.object_key)) is not None:
                outcome.set_result(one)
            else:
                self._begin_alone(row, outcome)

    async def _put_new(self, rows: Sequence[NewChunk]) -> Mapping[str, StoredChunk]:
        async with self._database.connection() as conn:
            return await chunks.put_new_chunks(conn, rows, quota_bytes=self._quota_bytes)

    def _begin_alone(self, row: NewChunk, outcome: _Outcome) -> None:
        task = asyncio.create_task(self._put_alone(row, outcome))
        self._alone.add(task)
        task.add_done_callback(self._alone.discard)

    async def _put_alone(self, row: NewChunk, outcome: _Outcome) -> None:
        try:
            async with self._database.connection() as conn:
                stored = await chunks.put_chunk(conn, row, quota_bytes=self._quota_bytes)
        except Exception as error:
            if not outcome.done():
                outcome.set_exception(error)
        else:
            if not outcome.done():
                outcome.set_result(stored)
        finally:
            del outcome  # it knows the exception, which knows this frame: a circle
