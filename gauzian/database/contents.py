"""SQL: everything below a folder, for clients that make a ZIP file of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

Connection = AsyncConnection[Any]

PAGE_FILES = 200
PAGE_FOLDERS = 500
PAGE_CHUNKS = 4000
PAGE_BYTES = 1024 * 1024  # of files or folders, whose names may be long


@dataclass(frozen=True, slots=True)
class Listed:
    """A file without its chunks, or a folder; `text` is JSON."""

    id: UUID
    text: str
    is_last: bool  # no other can follow


@dataclass(frozen=True, slots=True)
class ListedChunk:
    file_id: UUID
    index: int
    text: str


# From the root: all that is in the tree; below a folder: what is below it. Only what may be listed.
_FOLDERS = """
    SELECT a.folder_id AS id, json_build_object('type', 'folder', 'folder_id', a.folder_id,
           'parent_folder_id', a.parent_id, 'encrypted_metadata', t.encrypted_metadata,
           'encrypted_folder_key', a.encrypted_folder_key, 'path',
           CASE WHEN a.parent_id IS NOT DISTINCT FROM %(folder_id)s THEN '' ELSE a.parent_id || '/' END)::text AS text
    FROM folder_access a JOIN folders t ON t.id = a.folder_id
    WHERE a.user_id = %(user_id)s AND a.is_accepted AND t.trashed_at IS NULL AND a.folder_id > %(after)s
      AND (%(folder_id)s::uuid IS NULL OR a.folder_id <> %(folder_id)s
           AND a.folder_id IN (SELECT folders_below(%(user_id)s, %(folder_id)s)))
    ORDER BY a.folder_id LIMIT %(most)s
"""
_FILES = """
    SELECT a.file_id AS id, json_build_object('type', 'file', 'file_id', a.file_id, 'folder_id', a.folder_id,
           'encrypted_metadata', t.encrypted_metadata, 'encrypted_file_key', a.encrypted_file_key,
           'mime_type', t.mime_type, 'size', t.size, 'path',
           CASE WHEN a.folder_id IS NOT DISTINCT FROM %(folder_id)s THEN '' ELSE a.folder_id || '/' END)::text AS text
    FROM file_access a JOIN files t ON t.id = a.file_id
    WHERE a.user_id = %(user_id)s AND a.is_accepted AND t.state = 'complete' AND t.trashed_at IS NULL
      AND a.file_id > %(after)s
      AND (%(folder_id)s::uuid IS NULL OR a.folder_id IN (SELECT folders_below(%(user_id)s, %(folder_id)s)))
    ORDER BY a.file_id LIMIT %(most)s
"""
# One row is always there, however long; the last one of a page that is not full is the last of all.
_PAGE = """
    SELECT id, text, number = rows AND rows < %(most)s AS is_last FROM (
        SELECT id, text, sum(octet_length(text)) OVER (ORDER BY id) - octet_length(text) AS before,
               row_number() OVER (ORDER BY id) AS number, count(*) OVER () AS rows
        FROM ({items}) AS items) AS counted
    WHERE before < %(most_bytes)s ORDER BY id
"""
_START = UUID(int=0)


async def list_folders(conn: Connection, *, user_id: UUID, folder_id: UUID | None, after: UUID | None) -> list[Listed]:
    """The next page of the folders below `folder_id`, itself excluded; None: of all folders."""
    return await _list(conn, _FOLDERS, PAGE_FOLDERS, user_id=user_id, folder_id=folder_id, after=after)


async def list_files(conn: Connection, *, user_id: UUID, folder_id: UUID | None, after: UUID | None) -> list[Listed]:
    """The next page of the files in and below `folder_id`; None: of all files."""
    return await _list(conn, _FILES, PAGE_FILES, user_id=user_id, folder_id=folder_id, after=after)


async def _list(
    conn: Connection, query: str, most: int, *, user_id: UUID, folder_id: UUID | None, after: UUID | None
) -> list[Listed]:
    cursor = conn.cursor(row_factory=class_row(Listed))
    given = {"user_id": user_id, "folder_id": folder_id, "after": after or _START, "most": most}
    await cursor.execute(_PAGE.format(items=query).encode(), given | {"most_bytes": PAGE_BYTES})
    return await cursor.fetchall()


async def list_chunks(
    conn: Connection, *, file_ids: Sequence[UUID], after: tuple[UUID, int] | None
) -> list[ListedChunk]:
    """The next page of the chunks of several files, in the order of (file, index)."""
    cursor = conn.cursor(row_factory=class_row(ListedChunk))
    file_id, index = after or (_START, -1)
    await cursor.execute(
        """
        SELECT file_id, index, json_build_object('s3_key', object_key, 'index', index)::text AS text FROM chunks
        WHERE file_id = ANY (%s) AND (file_id, index) > (%s, %s) ORDER BY file_id, index LIMIT %s
        """,
        (list(file_ids), file_id, index, PAGE_CHUNKS),
    )
    return await cursor.fetchall()
