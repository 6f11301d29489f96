"""SQL: what a download asks. Statements only; every list has a bound."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, dict_row, tuple_row

from gauzian.access import Standing, standing_of
from gauzian.errors import InvalidToken

Connection = AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class FileRow:
    """A file as one user sees it. `encrypted_file_key` is None when it exists but is not theirs."""

    file_id: UUID
    owner_id: UUID
    access_level: str | None
    is_accepted: bool | None
    is_trashed: bool
    encrypted_metadata: str
    encrypted_file_key: str | None
    size: int  # what the client declared
    mime_type: str
    state: str  # 'uploading' or 'complete'
    created_at: datetime
    updated_at: datetime
    finalized_at: datetime | None
    stored_bytes: int
    chunk_count: int

    @property
    def standing(self) -> Standing:
        return standing_of(access_level=self.access_level, is_accepted=self.is_accepted, is_trashed=self.is_trashed)


@dataclass(frozen=True, slots=True)
class ChunkRow:
    chunk_id: UUID
    index: int
    object_key: str
    size: int
    sha256: bytes
    xxh3: bytes
    iv: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class FoundChunk(ChunkRow):
    """A chunk found by the name of its object, and how the asking user stands to its file."""

    file_id: UUID
    access_level: str | None
    is_accepted: bool | None
    is_trashed: bool

    @property
    def standing(self) -> Standing:
        return standing_of(access_level=self.access_level, is_accepted=self.is_accepted, is_trashed=self.is_trashed)


_CHUNK = "c.id AS chunk_id, c.index, c.object_key, c.size, c.sha256, c.xxh3, c.iv, c.created_at"

# Aborted uploads are tombstones: there is no such file. The sums are only asked for while finalize has not written
# them down.
_FILE = """
    SELECT f.id AS file_id, f.owner_id, a.access_level, a.is_accepted,
           f.trashed_at IS NOT NULL AS is_trashed, f.encrypted_metadata, a.encrypted_file_key, f.size, f.mime_type,
           f.state, f.created_at, f.updated_at, f.finalized_at,
           coalesce(f.stored_bytes, (SELECT coalesce(sum(size), 0) FROM chunks WHERE file_id = f.id))::bigint
               AS stored_bytes,
           coalesce(f.chunk_count, (SELECT count(*) FROM chunks WHERE file_id = f.id))::integer AS chunk_count
    FROM files f LEFT JOIN file_access a ON a.file_id = f.id AND a.user_id = %(user_id)s
    WHERE f.id = %(file_id)s AND f.state <> 'aborted'
"""


async def find_file(conn: Connection, *, user_id: UUID, file_id: UUID) -> FileRow | None:
    cursor = conn.cursor(row_factory=class_row(FileRow))
    await cursor.execute(_FILE, {"user_id": user_id, "file_id": file_id})
    return await cursor.fetchone()


async def find_chunk(conn: Connection, *, token_sha256: bytes, object_key: str) -> FoundChunk | None:
    """Who is asking, what for, and how they stand to it: one statement. Raises InvalidToken."""
    cursor = conn.cursor(row_factory=dict_row)
    await cursor.execute(
        f"""
        SELECT {_CHUNK}, f.id AS file_id, a.access_level, a.is_accepted, f.trashed_at IS NOT NULL AS is_trashed
        FROM tokens t JOIN users u ON u.id = t.user_id
        LEFT JOIN (chunks c JOIN files f ON f.id = c.file_id AND f.state <> 'aborted')
          ON c.object_key = %(object_key)s
        LEFT JOIN file_access a ON a.file_id = f.id AND a.user_id = u.id
        WHERE t.sha256 = %(token_sha256)s AND t.expires_at > now() AND u.is_active
        """,  # noqa: S608 - a constant of ours
        {"token_sha256": token_sha256, "object_key": object_key},
    )
    row = await cursor.fetchone()
    if row is None:
        raise InvalidToken
    return None if row["chunk_id"] is None else FoundChunk(**row)


async def list_chunks(conn: Connection, *, file_id: UUID, first: int, most: int) -> list[ChunkRow]:
    """The chunks from index `first` on, ascending, at most `most` of them."""
    cursor = conn.cursor(row_factory=class_row(ChunkRow))
    await cursor.execute(
        f"SELECT {_CHUNK} FROM chunks c WHERE c.file_id = %s AND c.index >= %s ORDER BY c.index LIMIT %s",  # noqa: S608
        (file_id, first, most),
    )
    return await cursor.fetchall()


async def find_chunk_at(conn: Connection, *, file_id: UUID, byte: int) -> tuple[int, int] | None:
    """The index of the chunk that holds this byte of the file, and the byte that this chunk begins with. Reads the
    rows up to it.
    """
    cursor = conn.cursor(row_factory=tuple_row)
    await cursor.execute(
        """
        SELECT index, (until - size)::bigint
        FROM (SELECT index, size, sum(size) OVER (ORDER BY index ROWS UNBOUNDED PRECEDING) AS until
              FROM chunks WHERE file_id = %s) AS counted
        WHERE until > %s ORDER BY index LIMIT 1
        """,
        (file_id, byte),
    )
    return await cursor.fetchone()
