"""SQL: what the reaper and the scrub ask, about uploads and objects of everybody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row

Connection = AsyncConnection[Any]


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """What a row says about an object."""

    file_id: UUID
    index: int
    object_key: str
    size: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Standing:
    """What operators ask about everybody's uploads and objects."""

    unfinished_uploads: int = 0
    overdue_uploads: int = 0  # that should have been removed by now
    stored_bytes: int = 0
    scrubbed_at: float = 0.0  # seconds since 1970; 0: never
    scrub_checked: int = 0
    scrub_damaged: int = 0


_UNTOUCHED = """state = 'uploading' AND updated_at < now() - %(ttl)s
          AND NOT EXISTS (SELECT 1 FROM chunks WHERE file_id = files.id AND created_at >= now() - %(ttl)s)"""
_HALF_REMOVED = "state = 'aborted' AND EXISTS (SELECT 1 FROM chunks WHERE file_id = files.id)"


async def count_removable(conn: Connection, *, ttl: timedelta) -> int:
    """How many uploads the two lists below would give, however long they are."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(
        f"SELECT count(*) FROM files WHERE ({_UNTOUCHED}) OR ({_HALF_REMOVED})",  # noqa: S608 - constants of ours
        {"ttl": ttl},
    )
    return int(await cursor.fetchone() or 0)


async def list_untouched(conn: Connection, *, ttl: timedelta, most: int) -> list[UUID]:
    """Open uploads to which nothing has happened for `ttl`."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(
        f"SELECT id FROM files WHERE {_UNTOUCHED} ORDER BY updated_at LIMIT %(most)s",  # noqa: S608 - constants of ours
        {"ttl": ttl, "most": most},
    )
    return await cursor.fetchall()


async def list_half_removed(conn: Connection, *, most: int) -> list[UUID]:
    """Aborted uploads that still have chunk rows: whoever aborted them was interrupted."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(f"SELECT id FROM files WHERE {_HALF_REMOVED} LIMIT %s", (most,))  # noqa: S608 - a constant
    return await cursor.fetchall()


async def remove_tombstones(conn: Connection, *, ttl: timedelta, most: int) -> int:
    """Forget aborted uploads altogether once no late chunk can ask for them any more."""
    cursor = await conn.execute(
        """
        DELETE FROM files WHERE id IN (
            SELECT id FROM files WHERE state = 'aborted' AND updated_at < now() - %s
              AND NOT EXISTS (SELECT 1 FROM chunks WHERE file_id = files.id) LIMIT %s)
        """,
        (ttl, most),
    )
    return cursor.rowcount


async def find_named(conn: Connection, *, object_keys: Sequence[str]) -> set[str]:
    """Those of `object_keys` that a row names."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute("SELECT object_key FROM chunks WHERE object_key = ANY(%s)", (list(object_keys),))
    return set(await cursor.fetchall())


async def find_instance(conn: Connection) -> UUID:
    """The identity of this database, made when its schema was."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute("SELECT id FROM instance")
    instance: UUID | None = await cursor.fetchone()
    assert instance is not None  # noqa: S101 - the migration wrote it
    return instance


async def count_objects(conn: Connection) -> tuple[int, int]:
    """How many objects rows name, and their bytes."""
    cursor = await conn.execute("SELECT count(*), coalesce(sum(size), 0)::bigint FROM chunks")
    row = await cursor.fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    return int(row[0]), int(row[1])


async def list_objects(conn: Connection, *, after: tuple[UUID, int] | None, most: int) -> list[ObjectRow]:
    """The next page of all rows, in the order of (file, index)."""
    cursor = conn.cursor(row_factory=class_row(ObjectRow))
    file_id, index = after or (UUID(int=0), -1)
    await cursor.execute(
        """
        SELECT file_id, index, object_key, size, sha256 FROM chunks
        WHERE (file_id, index) > (%s, %s) ORDER BY file_id, index LIMIT %s
        """,
        (file_id, index, most),
    )
    return await cursor.fetchall()


async def find_standing(conn: Connection, *, overdue: timedelta) -> Standing:
    """`overdue`: an upload untouched for so long should be gone."""
    cursor = conn.cursor(row_factory=class_row(Standing))
    await cursor.execute(
        f"""
        SELECT (SELECT count(*) FROM files WHERE state = 'uploading') AS unfinished_uploads,
               (SELECT count(*) FROM files
                WHERE ({_UNTOUCHED}) OR ({_HALF_REMOVED} AND updated_at < now() - %(ttl)s)) AS overdue_uploads,
               (SELECT coalesce(sum(used_bytes), 0)::bigint FROM space) AS stored_bytes,
               coalesce(extract(epoch FROM scrubbed_at), 0)::float AS scrubbed_at, scrub_checked, scrub_damaged
        FROM instance
        """,  # noqa: S608 - constants of ours
        {"ttl": overdue},
    )
    standing = await cursor.fetchone()
    assert standing is not None  # noqa: S101 - the migration wrote the row of this instance
    return standing


async def note_scrub(conn: Connection, *, checked: int, damaged: int) -> None:
    """A scrub has come to its end just now."""
    await conn.execute(
        "UPDATE instance SET scrubbed_at = now(), scrub_checked = %s, scrub_damaged = %s", (checked, damaged)
    )
