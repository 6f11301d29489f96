"""SQL: what an operator sees of users and does to them, whoever is signed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row

Connection = AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class Person:
    """`files` are whole ones, those in the trash too: they all count in `used_bytes`, as unfinished uploads do."""

    id: UUID
    email: str
    username: str
    is_active: bool
    used_bytes: int
    quota_bytes: int | None  # None: the server's default
    files: int


_PERSON = """
    SELECT u.id, u.email, u.username, u.is_active, coalesce(s.used_bytes, 0) AS used_bytes, u.quota_bytes,
           (SELECT count(*) FROM files f WHERE f.owner_id = u.id AND f.state = 'complete') AS files
    FROM users u LEFT JOIN space s ON s.user_id = u.id
"""


async def list_page(conn: Connection, *, after: str, most: int) -> list[Person]:
    """The next ones in the order of e-mail addresses, after the one that was the last."""
    cursor = conn.cursor(row_factory=class_row(Person))
    await cursor.execute(_PERSON + "WHERE lower(u.email) > lower(%s) ORDER BY lower(u.email) LIMIT %s", (after, most))
    return await cursor.fetchall()


async def find_person(conn: Connection, *, email: str) -> Person | None:
    cursor = conn.cursor(row_factory=class_row(Person))
    await cursor.execute(_PERSON + "WHERE lower(u.email) = lower(%s)", (email,))
    return await cursor.fetchone()


async def set_quota(conn: Connection, *, user_id: UUID, quota_bytes: int | None) -> None:
    await conn.execute("UPDATE users SET quota_bytes = %s WHERE id = %s", (quota_bytes, user_id))


async def set_active(conn: Connection, *, user_id: UUID, is_active: bool) -> None:
    """Who is switched off is signed out too: switched on again, nothing that was open then opens by itself."""
    await conn.execute("UPDATE users SET is_active = %s WHERE id = %s", (is_active, user_id))
    if not is_active:
        await conn.execute("DELETE FROM tokens WHERE user_id = %s", (user_id,))


async def forget_person(conn: Connection, *, user_id: UUID) -> list[UUID]:
    """All that is theirs, in the caller's transaction. Returns the files that had chunks: their objects are to go.

    What others own in folders of theirs falls to the roots of whoever had it there: the foreign keys say so.
    """
    # As long as this takes: a row by itself is quick, but a user may have millions of them.
    await conn.execute("SET LOCAL statement_timeout = 0")
    # First: nothing new can name this user from here on (foreign keys ask for a share of this row).
    await conn.execute("SELECT 1 FROM users WHERE id = %s FOR UPDATE", (user_id,))
    # Whoever is writing a chunk's row holds a share of its file's: afterwards none of them is unseen.
    await conn.execute(
        "SELECT count(*) FROM (SELECT FROM files WHERE owner_id = %s ORDER BY id FOR UPDATE) f", (user_id,)
    )
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(
        """
        WITH gone AS (
            DELETE FROM chunks c USING files f WHERE f.owner_id = %s AND c.file_id = f.id RETURNING c.file_id
        )
        SELECT DISTINCT file_id FROM gone
        """,
        (user_id,),
    )
    files: list[UUID] = await cursor.fetchall()
    for statement in (
        "DELETE FROM files WHERE owner_id = %s",
        "DELETE FROM folders WHERE owner_id = %s",
        "DELETE FROM file_access WHERE user_id = %s",
        "DELETE FROM folder_access WHERE user_id = %s",
        "DELETE FROM registrations r USING users u WHERE u.id = %s AND r.email = lower(u.email)",
        "DELETE FROM users WHERE id = %s",
    ):
        await conn.execute(statement.encode(), (user_id,))
    return files
