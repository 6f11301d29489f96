"""Chunk rows: one per (file, index) whatever races, the quota to the byte, nothing added to what is closed."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID, uuid4

import anyio
import pytest

from gauzian.database import accounts, care, chunks, tree
from gauzian.database.pool import Database, open_database
from gauzian.errors import InvalidToken, QuotaExceeded, UploadClosed

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[tuple[Database, UUID]]:
    """A database and one user in it."""
    async with open_database(url, most_connections=20) as database:
        yield database, await add_user(database)


async def add_user(database: Database) -> UUID:
    name = secrets.token_hex(8)
    async with database.connection() as conn:
        cursor = await conn.execute(
            """
            INSERT INTO users (email, username, password_hash, public_key, encrypted_private_key, private_key_salt, iv,
                               encrypted_record_key)
            VALUES (%s, %s, '-', '-', '-', '-', '-', '-') RETURNING id
            """,
            (f"{name}@example.org", name),
        )
        row = await cursor.fetchone()
        assert row is not None
        user = UUID(str(row[0]))
        await accounts.add_token(conn, user_id=user, sha256=token_of(user), lifetime=timedelta(hours=1))
    return user


def token_of(user: UUID) -> bytes:
    return hashlib.sha256(user.bytes).digest()


async def add_file(database: Database, owner: UUID, *, size: int = 0, quota: int | None = None) -> UUID:
    async with database.connection() as conn:
        return await tree.create_file(
            conn, owner_id=owner, encrypted_metadata="m", encrypted_file_key="k", mime_type="", size=size,
            total_chunks=None, quota_bytes=quota,
        )  # fmt: skip


def new_chunk(caller: UUID, file_id: UUID, index: int, content: bytes = b"x", *, iv: str = "iv") -> chunks.NewChunk:
    return chunks.NewChunk(
        token_sha256=token_of(caller),
        file_id=file_id,
        index=index,
        object_key=f"{file_id}.{secrets.token_hex(16)}",
        size=len(content),
        sha256=hashlib.sha256(content).digest(),
        xxh3=bytes(16),
        iv=iv,
    )


async def put(
    database: Database,
    file_id: UUID,
    index: int,
    content: bytes = b"x",
    *,
    iv: str = "iv",
    quota: int | None = None,
    caller: UUID | None = None,
) -> chunks.StoredChunk:
    async with database.connection() as conn:
        cursor = await conn.execute("SELECT owner_id FROM files WHERE id = %s", (file_id,))
        row = await cursor.fetchone()
        new = new_chunk(caller or (row[0] if row else uuid4()), file_id, index, content, iv=iv)
        return await chunks.put_chunk(conn, new, quota_bytes=quota)


async def used(database: Database, user: UUID) -> int:
    async with database.connection() as conn:
        cursor = await conn.execute("SELECT used_bytes FROM space WHERE user_id = %s", (user,))
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def sum_of_rows(database: Database) -> tuple[int, int]:
    async with database.connection() as conn:
        return await care.count_objects(conn)


async def abort(database: Database, file_id: UUID) -> None:
    async with database.transaction() as conn:
        assert await chunks.lock_upload(conn, file_id=file_id) is not None
        await chunks.mark_aborted(conn, file_id=file_id)


async def test_the_same_bytes_again_keep_the_first_object_and_name_the_second_as_loser(database_url: str) -> None:
    async with opened(database_url) as (database, user):
        file_id = await add_file(database, user)
        first = await put(database, file_id, 0, b"abc")
        again = await put(database, file_id, 0, b"abc")
        assert first.loser is None
        assert (again.id, again.object_key) == (first.id, first.object_key)
        assert again.loser not in (None, first.object_key)
        assert await used(database, user) == 3


async def test_other_bytes_or_another_iv_replace_and_the_old_object_is_the_loser(database_url: str) -> None:
    async with opened(database_url) as (database, user):
        file_id = await add_file(database, user)
        first = await put(database, file_id, 0, b"abc")
        longer = await put(database, file_id, 0, b"abcdef")
        assert longer.loser == first.object_key
        other_iv = await put(database, file_id, 0, b"abcdef", iv="other")
        assert other_iv.loser == longer.object_key
        shorter = await put(database, file_id, 0, b"a")
        assert shorter.loser == other_iv.object_key
        assert await used(database, user) == 1
        assert await sum_of_rows(database) == (1, 1)


async def test_twenty_at_once_on_one_index_leave_one_row_and_nineteen_losers(database_url: str) -> None:
    async with opened(database_url) as (database, user):
        file_id = await add_file(database, user)
        stored: list[chunks.StoredChunk] = []

        async def one(number: int) -> None:
            stored.append(await put(database, file_id, 0, b"x" * (1 + number % 3)))

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(one, number)
        losers = [chunk.loser for chunk in stored if chunk.loser is not None]
        assert len(losers) == len(set(losers)) == 19
        rows, size = await sum_of_rows(database)
        assert rows == 1
        assert await used(database, user) == size


async def test_a_hundred_at_once_at_the_edge_of_the_quota_fill_it_to_the_byte(database_url: str) -> None:
    async with opened(database_url) as (database, user):
        file_id = await add_file(database, user)
        refused = 0

        async def one(index: int) -> None:
            nonlocal refused
            try:
                await put(database, file_id, index, b"x" * 10, quota=375)
            except QuotaExceeded:
                refused += 1

        async with anyio.create_task_group() as tasks:
            for index in range(100):
                tasks.start_soon(one, index)
        assert refused == 63
        assert await used(database, user) == 370
        await put(database, file_id, 500, b"x" * 5, quota=375)
        assert await used(database, user) == 375
        await put(database, file_id, 500, b"y" * 5, quota=375)  # replacing takes nothing
        with pytest.raises(QuotaExceeded):
            await put(database, file_id, 500, b"y" * 6, quota=375)
        assert await sum_of_rows(database) == (38, 375)


async def test_a_user_s_own_quota_goes_before_the_default(database_url: str) -> None:
    async with opened(database_url) as (database, user):
        async with database.connection() as conn:
            await conn.execute("UPDATE users SET quota_bytes = 5 WHERE id = %s", (user,))
        file_id = await add_file(database, user, quota=1)
        await put(database, file_id, 0, b"12345", quota=1)
        with pytest.raises(QuotaExceeded):
            await put(database, file_id, 1, b"6", quota=None)
        with pytest.raises(QuotaExceeded):
            await add_file(database, user, size=1, quota=None)


async def test_a_file_that_cannot_fit_is_not_created(database_url: str) -> None:
    async with opened(database_url) as (database, user):
        with pytest.raises(QuotaExceeded):
            await add_file(database, user, size=11, quota=10)
        await add_file(database, user, size=10, quota=10)
        async with database.connection() as conn:
            cursor = await conn.execute("SELECT count(*) FROM files")
            row = await cursor.fetchone()
        assert row == (1,)


async def test_nothing_is_added_to_a_closed_upload(database_url: str) -> None:
    async with opened(database_url) as (database, user):
        complete, aborted = await add_file(database, user), await add_file(database, user)
        await put(database, complete, 0)
        async with database.transaction() as conn:
            await chunks.lock_upload(conn, file_id=complete)
            await chunks.mark_complete(
                conn, file_id=complete, arrived=await chunks.find_arrived(conn, file_id=complete)
            )
        await abort(database, aborted)
        for file_id in (complete, aborted, uuid4()):
            with pytest.raises(UploadClosed):
                await put(database, file_id, 1, caller=user)
        assert await used(database, user) == 1


async def test_a_chunk_that_races_with_finalize_is_either_counted_or_refused(database_url: str) -> None:
    async with opened(database_url) as (database, user):
        for _ in range(10):
            file_id = await add_file(database, user)
            counted, accepted = -1, 0

            async def finalize(file_id: UUID = file_id) -> None:
                nonlocal counted
                async with database.transaction() as conn:
                    await chunks.lock_upload(conn, file_id=file_id)
                    arrived = await chunks.find_arrived(conn, file_id=file_id)
                    await chunks.mark_complete(conn, file_id=file_id, arrived=arrived)
                    counted = arrived.count

            async def send(index: int, file_id: UUID = file_id) -> None:
                nonlocal accepted
                try:
                    await put(database, file_id, index)
                    accepted += 1
                except UploadClosed:
                    pass

            async with anyio.create_task_group() as tasks:
                for index in range(6):
                    tasks.start_soon(send, index)
                tasks.start_soon(finalize)
                for index in range(6, 12):
                    tasks.start_soon(send, index)
            assert counted == accepted


async def test_an_abort_gives_rows_and_space_back_in_bounded_steps(database_url: str) -> None:
    async with opened(database_url) as (database, user):
        file_id, other = await add_file(database, user), await add_file(database, user)
        keys = {(await put(database, file_id, index, b"1234")).object_key for index in range(7)}
        await put(database, other, 0, b"keep")
        async with database.connection() as conn:
            assert await chunks.take_chunks(conn, file_id=file_id, most=5) == [], "not aborted: nothing is taken"
        await abort(database, file_id)
        taken: list[str] = []
        async with database.connection() as conn:
            assert await care.list_half_removed(conn, most=10) == [file_id]
            while step := await chunks.take_chunks(conn, file_id=file_id, most=3):
                assert len(step) <= 3
                taken += step
            assert await care.list_half_removed(conn, most=10) == []
        assert set(taken) == keys
        assert await used(database, user) == 4
        assert await sum_of_rows(database) == (1, 4)


@pytest.mark.parametrize(
    ("indices", "received", "holes"),
    [
        ([], [], []),
        ([0], [(0, 0)], []),
        ([2], [(2, 2)], [(0, 1)]),
        ([0, 1, 2, 5, 6, 9], [(0, 2), (5, 6), (9, 9)], [(3, 4), (7, 8)]),
        ([2_147_483_647], [(2_147_483_647, 2_147_483_647)], [(0, 2_147_483_646)]),
    ],
)
async def test_what_has_arrived_and_what_is_missing(
    database_url: str, indices: list[int], received: list[tuple[int, int]], holes: list[tuple[int, int]]
) -> None:
    async with opened(database_url) as (database, user):
        file_id = await add_file(database, user)
        for index in reversed(indices):
            await put(database, file_id, index, b"ab")
        async with database.connection() as conn:
            assert await chunks.list_received(conn, file_id=file_id, most=10) == received
            assert await chunks.list_holes(conn, file_id=file_id, most=10) == holes
            assert await chunks.list_received(conn, file_id=file_id, most=1) == received[:1]
            arrived = await chunks.find_arrived(conn, file_id=file_id)
        assert (arrived.count, arrived.highest, arrived.stored_bytes) == (
            len(indices),
            max(indices, default=-1),
            2 * len(indices),
        )
        assert arrived.first_size == (2 if 0 in indices else 0)


async def test_the_target_tells_who_whose_and_how_full_in_one_statement(database_url: str) -> None:
    async with opened(database_url) as (database, user):
        stranger = await add_user(database)
        file_id = await add_file(database, user)
        await put(database, file_id, 3, b"12345")
        token, expired = secrets.token_bytes(32), secrets.token_bytes(32)
        async with database.connection() as conn:
            for value, age in ((token, 1), (expired, -1)):
                await conn.execute(
                    "INSERT INTO tokens (sha256, user_id, expires_at) VALUES (%s, %s, now() + %s)",
                    (value, stranger, timedelta(hours=age)),
                )
            by_token = await chunks.find_target(conn, file_id=file_id, index=3, quota_bytes=9, token_sha256=token)
            assert by_token == chunks.Target(stranger, user, "uploading", 5, 0, 9)
            assert await chunks.find_target(conn, file_id=file_id, index=3, quota_bytes=9, token_sha256=expired) is None
            by_user = await chunks.find_target(conn, file_id=file_id, index=4, quota_bytes=None, user_id=user)
            assert by_user == chunks.Target(user, user, "uploading", None, 5, None)
            unknown = await chunks.find_target(conn, file_id=uuid4(), index=None, quota_bytes=None, user_id=user)
            assert unknown is not None
            assert unknown.owner_id is None
            await conn.execute("UPDATE users SET is_active = false WHERE id = %s", (user,))
            assert await chunks.find_target(conn, file_id=file_id, index=4, quota_bytes=None, user_id=user) is None


async def test_untouched_uploads_are_found_and_touched_ones_are_not(database_url: str) -> None:
    async with opened(database_url) as (database, user):
        old, active, complete = [await add_file(database, user) for _ in range(3)]
        await put(database, old, 0)
        async with database.connection() as conn:
            await conn.execute("UPDATE files SET updated_at = now() - interval '2 days'")
            await conn.execute("UPDATE chunks SET created_at = now() - interval '2 days'")
            await conn.execute("UPDATE files SET state = 'complete' WHERE id = %s", (complete,))
        await put(database, active, 0)
        async with database.connection() as conn:
            assert await care.list_untouched(conn, ttl=timedelta(days=1), most=10) == [old]
            assert await care.list_untouched(conn, ttl=timedelta(days=3), most=10) == []


async def test_tombstones_are_forgotten_only_when_old_and_empty(database_url: str) -> None:
    async with opened(database_url) as (database, user):
        old, young, full = [await add_file(database, user) for _ in range(3)]
        await put(database, full, 0)
        for file_id in (old, young, full):
            await abort(database, file_id)
        async with database.connection() as conn:
            await conn.execute("UPDATE files SET updated_at = now() - interval '2 days' WHERE id <> %s", (young,))
            assert await care.remove_tombstones(conn, ttl=timedelta(days=1), most=10) == 1
            assert await chunks.find_upload(conn, file_id=old) is None
            assert await chunks.find_upload(conn, file_id=young) is not None
            assert await chunks.find_upload(conn, file_id=full) is not None


async def test_pages_of_all_objects_come_in_order_and_end(database_url: str) -> None:
    async with opened(database_url) as (database, user):
        files = [await add_file(database, user) for _ in range(3)]
        for file_id in files:
            for index in (1, 0, 2):
                await put(database, file_id, index)
        seen: list[tuple[UUID, int]] = []
        after = None
        async with database.connection() as conn:
            while page := await care.list_objects(conn, after=after, most=4):
                seen += [(row.file_id, row.index) for row in page]
                after = seen[-1]
        assert seen == sorted((file_id, index) for file_id in files for index in range(3))


async def test_the_row_is_for_whoever_the_token_belongs_to_now(database_url: str) -> None:
    """What was looked up before the body may have changed: the statement that writes asks again."""
    async with opened(database_url) as (database, owner):
        file_id, stranger = await add_file(database, owner), await add_user(database)
        with pytest.raises(UploadClosed):
            await put(database, file_id, 0, caller=stranger)
        with pytest.raises(UploadClosed):
            await put(database, uuid4(), 0, caller=owner)
        await put(database, file_id, 0)
        for change in (
            "UPDATE tokens SET expires_at = now() WHERE user_id = %s",
            "UPDATE users SET is_active = false WHERE id = %s",
            "DELETE FROM tokens WHERE user_id = %s",
        ):
            async with database.connection() as conn:
                await conn.execute(change, (owner,))
            with pytest.raises(InvalidToken):
                await put(database, file_id, 1)
            async with database.connection() as conn:
                await conn.execute("UPDATE users SET is_active = true WHERE id = %s", (owner,))
                await conn.execute("UPDATE tokens SET expires_at = now() + '1 hour' WHERE user_id = %s", (owner,))
        assert await used(database, owner) == 1
