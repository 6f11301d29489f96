"""Chunk rows written together: as if each were written by itself, only with fewer statements."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from anyio import fail_after
from anyio.lowlevel import checkpoint

from gauzian.database import chunks
from gauzian.database.chunks import NewChunk, StoredChunk
from gauzian.database.pool import Database
from gauzian.database.together import ChunkRows
from gauzian.errors import (
    ApiError,
    DatabaseBusy,
    InternalError,
    InvalidToken,
    OutcomeUnknown,
    QuotaExceeded,
    UploadClosed,
)
from tests.database.test_chunks import abort, add_file, add_user, new_chunk, opened, put, sum_of_rows, used

pytestmark = pytest.mark.anyio

Outcome = StoredChunk | BaseException


class Statements:
    """Holds the statements back until `go`, and knows what went into each of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        self.failure: Exception | None = None
        self.go = asyncio.Event()
        self._really = chunks.put_new_chunks
        monkeypatch.setattr(chunks, "put_new_chunks", self._held)

    async def _held(self, conn: Any, rows: Sequence[NewChunk], *, quota_bytes: int | None) -> dict[str, StoredChunk]:
        self.sizes.append(len(rows))
        await self.go.wait()
        written = await self._really(conn, rows, quota_bytes=quota_bytes)
        if self.failure is not None and len(rows) > 1:
            raise self.failure
        return written

    async def begun(self, many: int) -> None:
        with fail_after(10):
            while len(self.sizes) < many:
                await asyncio.sleep(0.001)


@asynccontextmanager
async def one_under_way(
    database: Database, user: UUID, statements: Statements, *, quota: int | None = None
) -> AsyncIterator[ChunkRows]:
    """Whoever comes now waits; at the end of the block the statement under way is let go."""
    rows = ChunkRows(database, quota_bytes=quota)
    file_id = await add_file(database, user)
    first = rows.put(new_chunk(user, file_id, 0))
    await statements.begun(1)
    yield rows
    statements.go.set()
    assert (await first).loser is None


async def begin(rows: ChunkRows, new: Iterable[NewChunk]) -> list[asyncio.Future[StoredChunk]]:
    tasks = [rows.put(row) for row in new]
    await checkpoint()
    return tasks


async def ends(tasks: list[asyncio.Future[StoredChunk]]) -> list[Outcome]:
    with fail_after(10):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_waits_goes_with_the_next_statement_whatever_user_and_file(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database_url) as (database, user):
        other = await add_user(database)
        files = [(user, await add_file(database, user)), (other, await add_file(database, other))]
        new = [new_chunk(who, file_id, index, b"abc") for index in (1, 0) for who, file_id in files]
        statements = Statements(monkeypatch)
        async with one_under_way(database, user, statements) as rows:
            tasks = await begin(rows, new)
        stored = await ends(tasks)
        assert statements.sizes == [1, 4]
        assert [(one.object_key, one.loser) for one in stored if isinstance(one, StoredChunk)] == [
            (row.object_key, None) for row in new
        ]
        assert (await used(database, user), await used(database, other)) == (6 + 1, 6)
        assert await sum_of_rows(database) == (5, 13)


async def test_one_that_cannot_be_fails_by_itself_and_its_neighbours_are_written(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database_url) as (database, user):
        other = await add_user(database)
        file_id, closed, small = [await add_file(database, owner) for owner in (user, user, other)]
        await abort(database, closed)
        kept, older = [await put(database, file_id, index, b"abc") for index in (5, 7)]
        statements = Statements(monkeypatch)
        async with one_under_way(database, user, statements, quota=100) as rows:
            tasks = await begin(
                rows,
                [
                    new_chunk(user, file_id, 0),
                    new_chunk(user, closed, 0),
                    new_chunk(uuid4(), file_id, 1),
                    new_chunk(other, file_id, 2),
                    new_chunk(other, small, 0, bytes(101)),
                    new_chunk(user, file_id, 5, b"abc"),
                    new_chunk(user, file_id, 7, b"abcd"),
                    new_chunk(user, file_id, 6, iv="x\0y"),
                    new_chunk(other, small, 1),
                ],
            )
        good, was_closed, signed_out, strange, full, again, replacing, impossible, last = await ends(tasks)
        assert statements.sizes == [1, 9]
        assert isinstance(good, StoredChunk)
        assert isinstance(last, StoredChunk)
        assert isinstance(was_closed, UploadClosed)
        assert isinstance(signed_out, InvalidToken)
        assert isinstance(strange, UploadClosed)
        assert isinstance(full, QuotaExceeded)
        assert isinstance(again, StoredChunk)
        assert again.object_key == kept.object_key
        assert isinstance(replacing, StoredChunk)
        assert replacing.loser == older.object_key
        assert isinstance(impossible, Exception)
        assert (await used(database, user), await used(database, other)) == (1 + 1 + 3 + 4, 1)


async def test_the_same_index_twice_among_those_who_wait_leaves_one_row(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database_url) as (database, user):
        file_id = await add_file(database, user)
        statements = Statements(monkeypatch)
        async with one_under_way(database, user, statements) as rows:
            tasks = await begin(rows, [new_chunk(user, file_id, 0, b"abc") for _ in range(3)])
        stored = [one for one in await ends(tasks) if isinstance(one, StoredChunk)]
        assert len({one.object_key for one in stored}) == 1
        assert len([one for one in stored if one.loser is not None]) == 2
        assert await used(database, user) == 1 + 3


async def test_a_quota_that_two_together_would_break_takes_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database_url) as (database, user):
        file_id = await add_file(database, user)
        statements = Statements(monkeypatch)
        async with one_under_way(database, user, statements, quota=10) as rows:
            tasks = await begin(rows, [new_chunk(user, file_id, index, bytes(6)) for index in (0, 1)])
        outcomes = await ends(tasks)
        assert sorted(type(one).__name__ for one in outcomes) == ["QuotaExceeded", "StoredChunk"]
        assert await used(database, user) == 1 + 6


async def test_a_locked_upload_holds_up_no_other(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(database_url) as (database, user):
        locked, free = await add_file(database, user), await add_file(database, user)
        rows = ChunkRows(database, quota_bytes=None)
        async with database.transaction() as conn:
            await chunks.lock_upload(conn, file_id=locked)
            waiting = await begin(rows, [new_chunk(user, locked, index) for index in range(8)])
            with fail_after(10):
                assert (await rows.put(new_chunk(user, free, 0))).loser is None
            assert not any(task.done() for task in waiting)
        assert all(isinstance(one, StoredChunk) for one in await ends(waiting))


async def test_a_user_whose_space_is_locked_holds_up_no_other_for_long(database_url: str) -> None:
    async with opened(database_url) as (database, user):
        other = await add_user(database)
        locked, free = await add_file(database, user), await add_file(database, other)
        rows = ChunkRows(database, quota_bytes=None)
        async with database.transaction() as conn:
            await conn.execute("SELECT 1 FROM space WHERE user_id = %s FOR UPDATE", (user,))
            waiting = await begin(rows, [new_chunk(user, locked, index) for index in range(4)])
            with fail_after(10):
                assert (await rows.put(new_chunk(other, free, 0))).loser is None
            assert not any(task.done() for task in waiting)
        assert all(isinstance(one, StoredChunk) for one in await ends(waiting))


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (OutcomeUnknown(), OutcomeUnknown),
        (DatabaseBusy(), DatabaseBusy),
        (psycopg.ProgrammingError(), InternalError),
        (ValueError(), OutcomeUnknown),
    ],
)
async def test_when_the_statement_fails_each_is_told_with_an_exception_of_its_own_and_nothing_is_tried_again(
    database_url: str, monkeypatch: pytest.MonkeyPatch, failure: Exception, told: type[ApiError]
) -> None:
    async with opened(database_url) as (database, user):
        file_id = await add_file(database, user)
        statements = Statements(monkeypatch)
        statements.failure = failure
        async with one_under_way(database, user, statements) as rows:
            tasks = await begin(rows, [new_chunk(user, file_id, index) for index in range(3)])
        outcomes = await ends(tasks)
        assert [type(one) for one in outcomes] == [told] * 3
        assert len({id(one) for one in outcomes}) == 3
        assert statements.sizes == [1, 3]
        statements.failure = None
        assert isinstance((await ends(await begin(rows, [new_chunk(user, file_id, 3)])))[0], StoredChunk)


async def test_cancelled_while_it_waits_its_row_is_not_written_and_its_neighbours_are(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(database_url) as (database, user):
        file_id = await add_file(database, user)
        statements = Statements(monkeypatch)
        async with one_under_way(database, user, statements) as rows:
            tasks = await begin(rows, [new_chunk(user, file_id, index) for index in range(3)])
            tasks[1].cancel()
        outcomes = await ends(tasks)
        assert isinstance(outcomes[1], asyncio.CancelledError)
        assert statements.sizes == [1, 2]
        async with database.connection() as conn:
            assert await chunks.list_received(conn, file_id=file_id, most=10) == [(0, 0), (2, 2)]


async def test_cancelled_at_any_turn_the_others_are_written_and_the_next_are_taken(database_url: str) -> None:
    async with opened(database_url) as (database, user):
        file_id = await add_file(database, user)
        rows = ChunkRows(database, quota_bytes=None)
        index = 0
        for turns in range(40):
            tasks = await begin(rows, [new_chunk(user, file_id, index + number) for number in range(5)])
            for _ in range(turns):
                await asyncio.sleep(0)
            for victim in (tasks[0], tasks[3]):  # a statement's own caller, and one who waits
                victim.cancel()
            outcomes = await ends(tasks)
            assert all(isinstance(outcomes[number], StoredChunk) for number in (1, 2, 4)), turns
            index += 5
        with fail_after(10):
            assert (await rows.put(new_chunk(user, file_id, index))).loser is None
        count, size = await sum_of_rows(database)
        assert count == size == await used(database, user)


async def test_twenty_callers_on_the_same_indices_in_any_order_never_lock_each_other_out(database_url: str) -> None:
    async with opened(database_url) as (database, user):
        file_id = await add_file(database, user)
        several = [ChunkRows(database, quota_bytes=None) for _ in range(4)]  # as in several processes
        tasks = []
        for number, rows in enumerate(several):
            order = range(30) if number % 2 else range(29, -1, -1)
            tasks += [rows.put(new_chunk(user, file_id, index)) for index in order]
        outcomes = await ends(tasks)
        assert [one for one in outcomes if not isinstance(one, StoredChunk)] == []
        assert await used(database, user) == 30
        assert (await sum_of_rows(database)) == (30, 30)
