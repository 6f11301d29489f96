"""SQL: files (folders and trash come to stand here too)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import scalar_row

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
) -> UUID:
    """A new, empty upload in the root of its owner. Raises QuotaExceeded when `size` cannot fit beside what is stored.

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
        INSERT INTO file_access (file_id, user_id, encrypted_file_key, access_level)
        SELECT id, owner_id, %(encrypted_file_key)s, 'owner' FROM file RETURNING file_id
        """,
        {
            "owner_id": owner_id,
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
