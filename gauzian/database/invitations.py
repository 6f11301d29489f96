"""SQL: what follows on a share: accept, reject, revoke."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import scalar_row

Connection = AsyncConnection[Any]

# A thing is accepted into the folder it was put into if that one is accepted, else into the root: nothing that is
# accepted ever lies in an invitation, where nobody could find it.
_ACCEPT_FILES = """
    UPDATE file_access a
    SET is_accepted = true,
        folder_id = (SELECT f.folder_id FROM folder_access f
                     WHERE f.folder_id = a.folder_id AND f.user_id = a.user_id AND f.is_accepted)
    WHERE a.user_id = %(user_id)s AND NOT a.is_accepted
"""


async def accept_file(conn: Connection, *, user_id: UUID, file_id: UUID) -> None:
    await conn.execute(f"{_ACCEPT_FILES} AND a.file_id = %(file_id)s", {"user_id": user_id, "file_id": file_id})


async def accept_folder(conn: Connection, *, user_id: UUID, folder_id: UUID) -> None:
    """With everything below it."""
    given = {"user_id": user_id, "folder_id": folder_id}
    await conn.execute(
        """
        UPDATE folder_access a SET parent_id = NULL
        WHERE a.user_id = %(user_id)s AND a.folder_id = %(folder_id)s AND NOT a.is_accepted
          AND NOT EXISTS (SELECT 1 FROM folder_access p
                          WHERE p.folder_id = a.parent_id AND p.user_id = a.user_id AND p.is_accepted)
        """,
        given,
    )
    await conn.execute(
        """
        UPDATE folder_access SET is_accepted = true
        WHERE user_id = %(user_id)s AND NOT is_accepted
          AND folder_id IN (SELECT folders_below(%(user_id)s, %(folder_id)s))
        """,
        given,
    )
    await conn.execute(
        f"{_ACCEPT_FILES} AND a.folder_id IN (SELECT folders_below(%(user_id)s, %(folder_id)s))",
        given,
    )


async def accept_all(conn: Connection, *, user_id: UUID) -> None:
    """Every invitation: for clients that know none."""
    given = {"user_id": user_id}
    await conn.execute(
        "UPDATE folder_access SET is_accepted = true WHERE user_id = %(user_id)s AND NOT is_accepted", given
    )
    await conn.execute(_ACCEPT_FILES, given)


async def has_invitations(conn: Connection, *, user_id: UUID) -> bool:
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(
        """
        SELECT EXISTS (SELECT 1 FROM folder_access WHERE user_id = %(user_id)s AND NOT is_accepted)
            OR EXISTS (SELECT 1 FROM file_access WHERE user_id = %(user_id)s AND NOT is_accepted)
        """,
        {"user_id": user_id},
    )
    return bool(await cursor.fetchone())


async def leave_file(conn: Connection, *, user_id: UUID, file_id: UUID) -> bool:
    """Whether there was anything to leave; an owner's row stays."""
    cursor = await conn.execute(
        "DELETE FROM file_access WHERE file_id = %s AND user_id = %s AND access_level <> 'owner'", (file_id, user_id)
    )
    return cursor.rowcount > 0


async def leave_folder(conn: Connection, *, user_id: UUID, folder_id: UUID) -> None:
    """With everything below it that is not their own."""
    await conn.execute("SELECT leave_folder(%s, %s)", (user_id, folder_id))


# What somebody loses with a folder: what lies below it for who revokes, if that one owns it, or if its owner has it
# there as well. What a third one has shared with both stays where it is, although who revokes keeps it in this folder.
_REVOKE = """
    WITH below AS (SELECT folders_below(%(owner_id)s, %(folder_id)s) AS id)
    DELETE FROM {access} a USING {access} theirs, {things} t, {access} owners
    WHERE a.user_id = %(user_id)s AND a.access_level <> 'owner'
      AND theirs.{id} = a.{id} AND theirs.user_id = %(owner_id)s AND {inside}
      AND t.id = a.{id} AND owners.{id} = a.{id} AND owners.user_id = t.owner_id
      AND (t.owner_id = %(owner_id)s OR owners.{place} IN (SELECT id FROM below))
"""
_REVOKE_FILES = _REVOKE.format(
    access="file_access",
    things="files",
    id="file_id",
    place="folder_id",
    inside="theirs.folder_id IN (SELECT id FROM below)",
)
_REVOKE_FOLDERS = _REVOKE.format(
    access="folder_access",
    things="folders",
    id="folder_id",
    place="parent_id",
    inside="theirs.folder_id IN (SELECT id FROM below)",
)


async def revoke_folder(conn: Connection, *, owner_id: UUID, folder_id: UUID, user_id: UUID) -> bool:
    """With everything below it that is not the other's own. Whether there was anything."""
    given = {"owner_id": owner_id, "folder_id": folder_id, "user_id": user_id}
    # Files first: with the folders their places would go.
    files = await conn.execute(_REVOKE_FILES, given)
    folders = await conn.execute(_REVOKE_FOLDERS, given)
    return files.rowcount + folders.rowcount > 0
