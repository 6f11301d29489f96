"""SQL: files and folders, and where they lie."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import scalar_row

from gauzian.access import Thing
from gauzian.errors import QuotaExceeded


async def create_file(
    conn: AsyncConnection[Any],
    *,
    owner_id: UUID,
    encrypted_metadata: str,
    encrypted_file_key: str,
    mime_type: str,
    size: int,
    total_chunks: int | None,
    quota_bytes: int | None,
    folder_id: UUID | None = None,
) -> UUID:
    """A new, empty upload in a folder of its owner's tree or in its root. Raises QuotaExceeded when `size` cannot fit
    beside what is stored.

    One statement: the file, its owner's access and the owner's space row are there together or not at all.
    """
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(
        """
        WITH room AS (
            SELECT u.id FROM users u LEFT JOIN space s ON s.user_id = u.id
            WHERE u.id = %(owner_id)s
              AND (coalesce(u.quota_bytes, %(quota_bytes)s::bigint) IS NULL
                   OR coalesce(s.used_bytes, 0) + %(size)s::bigint <= coalesce(u.quota_bytes, %(quota_bytes)s::bigint))
        ), counted AS (
            INSERT INTO space (user_id) SELECT id FROM room ON CONFLICT DO NOTHING
        ), file AS (
            INSERT INTO files (owner_id, encrypted_metadata, mime_type, size, total_chunks)
            SELECT id, %(encrypted_metadata)s, %(mime_type)s, %(size)s, %(total_chunks)s FROM room
            RETURNING id, owner_id
        )
        INSERT INTO file_access (file_id, user_id, folder_id, encrypted_file_key, access_level)
        SELECT id, owner_id, %(folder_id)s, %(encrypted_file_key)s, 'owner' FROM file RETURNING file_id
        """,
        {
            "owner_id": owner_id,
            "folder_id": folder_id,
            "encrypted_metadata": encrypted_metadata,
            "encrypted_file_key": encrypted_file_key,
            "mime_type": mime_type,
            "size": size,
            "total_chunks": total_chunks,
            "quota_bytes": quota_bytes,
        },
    )
    file_id: UUID | None = await cursor.fetchone()
    if file_id is None:
        raise QuotaExceeded
    return file_id


async def create_folder(
    conn: AsyncConnection[Any],
    *,
    owner_id: UUID,
    parent_id: UUID | None,
    encrypted_metadata: str,
    encrypted_folder_key: str,
) -> UUID:
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(
        """
        WITH folder AS (
            INSERT INTO folders (owner_id, encrypted_metadata) VALUES (%s, %s) RETURNING id, owner_id
        )
        INSERT INTO folder_access (folder_id, user_id, parent_id, encrypted_folder_key, access_level)
        SELECT id, owner_id, %s, %s, 'owner' FROM folder RETURNING folder_id
        """,
        (owner_id, encrypted_metadata, parent_id, encrypted_folder_key),
    )
    folder_id: UUID | None = await cursor.fetchone()
    assert folder_id is not None  # noqa: S101 - INSERT ... RETURNING gives one row or raises
    return folder_id


async def rename(conn: AsyncConnection[Any], thing: Thing, *, id: UUID, encrypted_metadata: str) -> None:
    things = "files" if thing == "file" else "folders"
    await conn.execute(
        f"UPDATE {things} SET encrypted_metadata = %s, updated_at = now() WHERE id = %s",  # noqa: S608 - one of two
        (encrypted_metadata, id),
    )


async def move_file(
    conn: AsyncConnection[Any], *, user_id: UUID, file_id: UUID, old: UUID | None, new: UUID | None
) -> None:
    """In the mover's tree, and for everyone who has it in the same folder and may see the new one."""
    await conn.execute(
        """
        UPDATE file_access a SET folder_id = %(new)s
        WHERE a.file_id = %(file_id)s
          AND (a.user_id = %(user_id)s
               OR a.folder_id = %(old)s
                  AND EXISTS (SELECT 1 FROM folder_access t
                              WHERE t.folder_id = %(new)s AND t.user_id = a.user_id AND t.is_accepted))
        """,
        {"user_id": user_id, "file_id": file_id, "old": old, "new": new},
    )


async def move_folder(conn: AsyncConnection[Any], *, user_id: UUID, folder_id: UUID, parent_id: UUID | None) -> bool:
    """False: it would come to lie below itself, and nothing has changed. The caller has a transaction."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute("SELECT move_folder(%s, %s, %s)", (user_id, folder_id, parent_id))
    return bool(await cursor.fetchone())
