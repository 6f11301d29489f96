"""SQL: uploads in progress and their chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from psycopg import AsyncConnection, errors
from psycopg.rows import class_row, scalar_row, tuple_row

from gauzian.errors import InvalidToken, QuotaExceeded, UploadClosed

State = Literal["uploading", "complete", "aborted"]
Connection = AsyncConnection[Any]
Ranges = list[tuple[int, int]]


# What put_chunk() in the database raises.
_UPLOAD_NOT_OPEN, _QUOTA_DOES_NOT_CARRY, _SIGNED_OUT = "GZ001", "GZ002", "GZ003"
# What put_new_chunks() raises, a lock that is not free, a deadlock; and whatever is wrong with one of the values.
_NOT_TOGETHER = ("GZ004", "55P03", "40P01", "22", "23")
_PUT_NEW_CHUNKS = """
    SELECT object_key, id, created_at
    FROM put_new_chunks(
        %b::bytea[], %b::uuid[], %b::int[], %b::text[], %b::int[], %b::bytea[], %b::bytea[], %b::text[], %b
    )
"""


@dataclass(frozen=True, slots=True)
class Target:
    """Who is asking, and the file they want to put a chunk into: all that can be known before the body."""

    user_id: UUID
    owner_id: UUID | None  # None: there is no such file
    state: State | None
    replaces: int | None  # bytes of the chunk that is there already under this index
    used_bytes: int
    quota_bytes: int | None  # None: unlimited


@dataclass(frozen=True, slots=True)
class NewChunk:
    """The row of a chunk, and who asks for it: in the order of put_chunk()'s arguments."""

    token_sha256: bytes
    file_id: UUID
    index: int
    object_key: str
    size: int
    sha256: bytes
    xxh3: bytes
    iv: str

    @property
    def values(self) -> tuple[bytes, UUID, int, str, int, bytes, bytes, str]:
        return (
            self.token_sha256,
            self.file_id,
            self.index,
            self.object_key,
            self.size,
            self.sha256,
            self.xxh3,
            self.iv,
        )


@dataclass(frozen=True, slots=True)
class StoredChunk:
    id: UUID
    object_key: str
    created_at: datetime
    loser: str | None  # the object that no row names any more


@dataclass(frozen=True, slots=True)
class Upload:
    owner_id: UUID
    state: State
    size: int
    total_chunks: int | None
    last_activity: datetime


@dataclass(frozen=True, slots=True)
class Arrived:
    """What the chunks of one file add up to."""

    count: int
    highest: int  # -1: none
    stored_bytes: int
    first_size: int  # bytes of chunk 0, 0 if it is not there


_TARGET = """
    SELECT u.id AS user_id, f.owner_id, f.state, c.size AS replaces, coalesce(s.used_bytes, 0) AS used_bytes,
           coalesce(u.quota_bytes, %(quota_bytes)s) AS quota_bytes
    FROM {who}
    LEFT JOIN files f ON f.id = %(file_id)s
    LEFT JOIN chunks c ON c.file_id = f.id AND c.index = %(index)s
    LEFT JOIN space s ON s.user_id = u.id
    WHERE {condition} AND u.is_active
"""
_TARGET_BY_TOKEN = _TARGET.format(
    who="tokens t JOIN users u ON u.id = t.user_id", condition="t.sha256 = %(token_sha256)s AND t.expires_at > now()"
)
_TARGET_BY_USER = _TARGET.format(who="users u", condition="u.id = %(user_id)s")


async def find_target(
    conn: Connection,
    *,
    file_id: UUID,
    index: int | None,
    quota_bytes: int | None,
    token_sha256: bytes | None = None,
    user_id: UUID | None = None,
) -> Target | None:
    """By token (who is asking is part of the question) or by user. None: not signed in.

    `quota_bytes` is the default for users without one of their own.
    """
    query = _TARGET_BY_USER if token_sha256 is None else _TARGET_BY_TOKEN
    cursor = conn.cursor(row_factory=class_row(Target))
    await cursor.execute(
        query,
        {
            "file_id": file_id,
            "index": index,
            "quota_bytes": quota_bytes,
            "token_sha256": token_sha256,
            "user_id": user_id,
        },
    )
    return await cursor.fetchone()


async def put_chunk(conn: Connection, row: NewChunk, *, quota_bytes: int | None) -> StoredChunk:
    """Write the row of one chunk; raises InvalidToken (of now, or of another user than the owner), UploadClosed and
    QuotaExceeded, and then nothing was written."""
    cursor = conn.cursor(row_factory=class_row(StoredChunk))
    try:
        await cursor.execute("SELECT * FROM put_chunk(%s, %s, %s, %s, %s, %s, %s, %s, %s)", (*row.values, quota_bytes))
        stored = await cursor.fetchone()
    except errors.DatabaseError as error:
        if error.sqlstate == _UPLOAD_NOT_OPEN:
            raise UploadClosed from error
        if error.sqlstate == _SIGNED_OUT:
            raise InvalidToken from error
        if error.sqlstate == _QUOTA_DOES_NOT_CARRY:
            raise QuotaExceeded from error
        raise
    assert stored is not None  # noqa: S101 - the function returns one row or raises
    return stored


async def put_new_chunks(
    conn: Connection, rows: Sequence[NewChunk], *, quota_bytes: int | None
) -> dict[str, StoredChunk]:
    """Write the rows of several chunks, of any callers, if all of them can be and are new: by their objects' keys.

    Empty if not: nothing was written, and `put_chunk` says of each by itself what is to be said.
    """
    cursor = conn.cursor(row_factory=tuple_row)
    try:
        await cursor.execute(
            _PUT_NEW_CHUNKS, (*map(list, zip(*(row.values for row in rows), strict=True)), quota_bytes)
        )
        written = await cursor.fetchall()
    except errors.DatabaseError as error:
        if (error.sqlstate or "").startswith(_NOT_TOGETHER):
            return {}
        raise
    return {key: StoredChunk(id, key, created_at, None) for key, id, created_at in written}


_UPLOAD = """
    SELECT owner_id, state, size, total_chunks,
           greatest(updated_at, (SELECT max(created_at) FROM chunks WHERE file_id = files.id)) AS last_activity
    FROM files WHERE id = %s
"""


async def find_upload(conn: Connection, *, file_id: UUID) -> Upload | None:
    cursor = conn.cursor(row_factory=class_row(Upload))
    await cursor.execute(_UPLOAD, (file_id,))
    return await cursor.fetchone()


async def lock_upload(conn: Connection, *, file_id: UUID) -> Upload | None:
    """The same, and nobody adds a chunk to it or changes its state until this transaction ends."""
    await conn.execute("SELECT 1 FROM files WHERE id = %s FOR UPDATE", (file_id,))
    # Asked for anew: this statement sees what was committed while we waited for the lock.
    return await find_upload(conn, file_id=file_id)


async def find_arrived(conn: Connection, *, file_id: UUID) -> Arrived:
    cursor = conn.cursor(row_factory=class_row(Arrived))
    await cursor.execute(
        """
        SELECT count(*) AS count, coalesce(max(index), -1) AS highest, coalesce(sum(size), 0)::bigint AS stored_bytes,
               coalesce(max(size) FILTER (WHERE index = 0), 0) AS first_size
        FROM chunks WHERE file_id = %s
        """,
        (file_id,),
    )
    row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    return row


async def list_received(conn: Connection, *, file_id: UUID, most: int) -> Ranges:
    """The runs of indices that are there, ascending, at most `most` of them."""
    cursor = conn.cursor(row_factory=tuple_row)
    await cursor.execute(
        """
        SELECT min(index), max(index)
        FROM (SELECT index, index - row_number() OVER (ORDER BY index) AS run
              FROM chunks WHERE file_id = %s) AS numbered
        GROUP BY run ORDER BY 1 LIMIT %s
        """,
        (file_id, most),
    )
    return await cursor.fetchall()


async def list_holes(conn: Connection, *, file_id: UUID, most: int) -> Ranges:
    """The runs of indices missing below the highest one that is there, ascending, at most `most` of them."""
    cursor = conn.cursor(row_factory=tuple_row)
    await cursor.execute(
        """
        SELECT before + 1, index - 1
        FROM (SELECT index, lag(index, 1, -1) OVER (ORDER BY index) AS before FROM chunks WHERE file_id = %s) AS pairs
        WHERE index > before + 1 ORDER BY 1 LIMIT %s
        """,
        (file_id, most),
    )
    return await cursor.fetchall()


async def mark_complete(conn: Connection, *, file_id: UUID, arrived: Arrived) -> None:
    """The caller holds the lock of `lock_upload` and has checked what arrived."""
    await conn.execute(
        """
        UPDATE files
        SET state = 'complete', finalized_at = now(), updated_at = now(), stored_bytes = %s, chunk_count = %s
        WHERE id = %s
        """,
        (arrived.stored_bytes, arrived.count, file_id),
    )


async def mark_aborted(conn: Connection, *, file_id: UUID) -> None:
    """Close the upload and forget who could see it; its chunk rows are taken afterwards. The caller holds the lock."""
    await conn.execute("UPDATE files SET state = 'aborted', updated_at = now() WHERE id = %s", (file_id,))
    await conn.execute("DELETE FROM file_access WHERE file_id = %s", (file_id,))


async def take_chunks(conn: Connection, *, file_id: UUID, most: int) -> list[str]:
    """Remove up to `most` chunk rows of an aborted upload and give their space back; returns their objects' keys."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(
        """
        WITH taken AS (
            DELETE FROM chunks USING files
            WHERE files.id = %(file_id)s AND files.state = 'aborted' AND chunks.file_id = files.id
              AND chunks.index IN (SELECT index FROM chunks WHERE file_id = %(file_id)s ORDER BY index LIMIT %(most)s)
            RETURNING chunks.object_key, chunks.size, files.owner_id
        ), freed AS (
            UPDATE space SET used_bytes = used_bytes - total.bytes
            FROM (SELECT owner_id, sum(size) AS bytes FROM taken GROUP BY owner_id) AS total
            WHERE space.user_id = total.owner_id
        )
        SELECT object_key FROM taken
        """,
        {"file_id": file_id, "most": most},
    )
    return await cursor.fetchall()
