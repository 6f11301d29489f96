"""SQL: into the trash, out of it, and for good. Only what is the caller's own ever lies there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import scalar_row

Connection = AsyncConnection[Any]

# A purged file is what an aborted upload is: a tombstone whose chunk rows are taken one batch at a time, each before
# its objects, by whoever purged it or else by the reaper. What was restored while we waited for its row is asked of the
# row itself once more: the list behind IN is not made again.
_PURGE = """
    WITH gone AS (
        UPDATE files SET state = 'aborted', trashed_at = NULL, updated_at = now()
        WHERE id IN ({which}) AND trashed_at IS NOT NULL RETURNING id
    ), unseen AS (
        DELETE FROM file_access USING gone WHERE file_id = gone.id
    )
    SELECT id FROM gone LIMIT {most}
"""
# Files that whoever purges is told of; the reaper finds the others.
_MOST_TOLD = 1000


async def lock_trash(conn: Connection, *, user_id: UUID) -> None:
    """One change of a user's trash at a time, until the end of the transaction: they lock files and folders in either
    order, and would wait for each other in a circle. 0x747261: only these locks are of this class.
    """
    await conn.execute("SELECT pg_advisory_xact_lock(7631457, hashtext(%s))", (str(user_id),))


async def trash_file(conn: Connection, *, file_id: UUID) -> None:
    await conn.execute("UPDATE files SET trashed_at = now(), updated_at = now() WHERE id = %s", (file_id,))


async def trash_folder(conn: Connection, *, user_id: UUID, folder_id: UUID) -> None:
    """With what is theirs below it; the migration says what becomes of the rest."""
    await conn.execute("SELECT trash_folder(%s, %s)", (user_id, folder_id))


async def restore_file(conn: Connection, *, user_id: UUID, file_id: UUID) -> None:
    """With the folders above it, and without what lies in them."""
    await conn.execute("SELECT restore_file(%s, %s)", (user_id, file_id))


async def restore_folder(conn: Connection, *, user_id: UUID, folder_id: UUID) -> None:
    """With the folders above it, and what was thrown away together with it."""
    await conn.execute("SELECT restore_folder(%s, %s)", (user_id, folder_id))


async def purge_file(conn: Connection, *, file_id: UUID) -> list[UUID]:
    return await _ids(conn, _PURGE.format(which="SELECT %s::uuid", most=_MOST_TOLD), (file_id,))


async def purge_folder(conn: Connection, *, user_id: UUID, folder_id: UUID) -> list[UUID]:
    """A trashed folder with everything trashed below it. Returns the files whose objects are to be removed."""
    given = {"user_id": user_id, "folder_id": folder_id}
    below = """
        WITH RECURSIVE below (folder_id) AS (
            SELECT %(folder_id)s::uuid
            UNION
            SELECT a.folder_id
            FROM below b JOIN folder_access a ON a.user_id = %(user_id)s AND a.parent_id = b.folder_id
            WHERE a.access_level = 'owner'
              AND (SELECT f.trashed_at IS NOT NULL FROM folders f WHERE f.id = a.folder_id)
        )
        SELECT folder_id FROM below
    """
    folders = await _ids(conn, below, given)
    which = """
        SELECT f.id FROM files f JOIN file_access a ON a.file_id = f.id
        WHERE a.user_id = %(user_id)s AND a.folder_id = ANY (%(folders)s)
          AND f.owner_id = %(user_id)s AND f.trashed_at IS NOT NULL
    """
    files = await _ids(conn, _PURGE.format(which=which, most=_MOST_TOLD), {"user_id": user_id, "folders": folders})
    await conn.execute("DELETE FROM folders WHERE id = ANY (%s) AND trashed_at IS NOT NULL", (folders,))
    return files


async def purge_all(conn: Connection, *, user_id: UUID) -> list[UUID]:
    """All that `user_id` has in the trash."""
    which = "SELECT id FROM files WHERE owner_id = %(user_id)s AND trashed_at IS NOT NULL"
    files = await _ids(conn, _PURGE.format(which=which, most=_MOST_TOLD), {"user_id": user_id})
    await conn.execute("DELETE FROM folders WHERE owner_id = %s AND trashed_at IS NOT NULL", (user_id,))
    return files


async def purge_expired(conn: Connection, *, ttl: timedelta, most: int) -> int:
    """Up to `most` files and as many folders that everybody's trash has held for `ttl`. Returns how many."""
    which = "SELECT id FROM files WHERE trashed_at < now() - %(ttl)s LIMIT %(most)s FOR UPDATE SKIP LOCKED"
    files = await _ids(conn, _PURGE.format(which=which, most=most), {"ttl": ttl, "most": most})
    folders = await conn.execute(
        """
        DELETE FROM folders WHERE id IN (
            SELECT id FROM folders WHERE trashed_at < now() - %s LIMIT %s FOR UPDATE SKIP LOCKED)
        """,
        (ttl, most),
    )
    return len(files) + folders.rowcount


async def count_expired(conn: Connection, *, ttl: timedelta) -> int:
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(
        """
        SELECT (SELECT count(*) FROM files WHERE trashed_at < now() - %(ttl)s)
             + (SELECT count(*) FROM folders WHERE trashed_at < now() - %(ttl)s)
        """,
        {"ttl": ttl},
    )
    return int(await cursor.fetchone() or 0)


async def _ids(conn: Connection, query: str, given: dict[str, Any] | Sequence[Any]) -> list[UUID]:
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(query.encode(), given)
    return await cursor.fetchall()
