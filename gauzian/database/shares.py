"""SQL: how a user stands to a thing, and who else sees it. access.py says what follows from that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row, scalar_row

from gauzian.access import Act, Standing, Thing, require, standing_of
from gauzian.errors import TooManyMembers

Connection = AsyncConnection[Any]
Level = Literal["editor", "viewer"]
# SHARE for who puts something beside or into it, UPDATE for who changes it.
Lock = Literal["SHARE", "UPDATE"]


@dataclass(frozen=True, slots=True)
class Stand:
    """How one user stands to one thing. Without a row of theirs place and level are None."""

    id: UUID
    owner_id: UUID
    state: str  # of a file: 'uploading' or 'complete'; of a folder always 'complete'
    is_trashed: bool
    access_level: str | None
    is_accepted: bool | None
    place: UUID | None  # the folder it lies in, in this user's tree

    @property
    def standing(self) -> Standing:
        return standing_of(access_level=self.access_level, is_accepted=self.is_accepted, is_trashed=self.is_trashed)


@dataclass(frozen=True, slots=True)
class Member:
    user_id: UUID
    username: str
    public_key: str
    access_level: str


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody gets: their own wrapped key, a level, and whether it is an invitation still."""

    user_id: UUID
    encrypted_key: str
    access_level: Level


# Users who see one thing. Their names and keys are one answer, some 250 KB; and clients wrap a key for each.
MOST_MEMBERS = 256

# The names of the two pairs of tables; the rest of the statements is the same.
_NAMES: Mapping[Thing, Mapping[str, str]] = {
    "file": {
        "things": "files",
        "access": "file_access",
        "id": "file_id",
        "place": "folder_id",
        "key": "encrypted_file_key",
        "state": "t.state",
        "exists": "t.state <> 'aborted'",
    },
    "folder": {
        "things": "folders",
        "access": "folder_access",
        "id": "folder_id",
        "place": "parent_id",
        "key": "encrypted_folder_key",
        "state": "'complete'",
        "exists": "true",
    },
}

_STAND = """
    SELECT t.id, t.owner_id, {state} AS state, t.trashed_at IS NOT NULL AS is_trashed, a.access_level, a.is_accepted,
           a.{place} AS place
    FROM {things} t LEFT JOIN {access} a ON a.{id} = t.id AND a.user_id = %(user_id)s
    WHERE t.id = ANY (%(ids)s) AND {exists} ORDER BY t.id
"""


def _sql(thing: Thing, template: str) -> str:
    return template.format_map(_NAMES[thing])


async def find_stands(
    conn: Connection, thing: Thing, *, user_id: UUID, ids: Sequence[UUID], lock: Lock | None = None
) -> dict[UUID, Stand]:
    """By id, those that exist. `lock`: until the end of the transaction nobody else changes their state, name or trash;
    one who does so already is waited for.
    """
    if lock is not None:
        # A statement of its own, so that the next one sees what was committed while we waited.
        await conn.execute(
            f"SELECT 1 FROM {_NAMES[thing]['things']} WHERE id = ANY (%s) ORDER BY id FOR {lock}",  # noqa: S608
            (list(ids),),
        )
    cursor = conn.cursor(row_factory=class_row(Stand))
    await cursor.execute(_sql(thing, _STAND), {"user_id": user_id, "ids": list(ids)})
    return {row.id: row for row in await cursor.fetchall()}


async def find_stand(
    conn: Connection, thing: Thing, *, user_id: UUID, id: UUID, lock: Lock | None = None
) -> Stand | None:
    return (await find_stands(conn, thing, user_id=user_id, ids=[id], lock=lock)).get(id)


async def require_stand(
    conn: Connection, act: Act, thing: Thing, *, user_id: UUID, id: UUID, lock: Lock | None = None
) -> Stand:
    """How they stand to it, if they may do that. Raises what access.require raises."""
    stand = await find_stand(conn, thing, user_id=user_id, id=id, lock=lock)
    require(act, Standing.ABSENT if stand is None else stand.standing, thing)
    assert stand is not None  # noqa: S101 - nobody may do anything with what is absent
    return stand


async def require_few_members(conn: Connection, thing: Thing, *, ids: Sequence[UUID]) -> None:
    """Raises TooManyMembers: the caller's transaction is taken back."""
    cursor = await conn.execute(
        _sql(
            thing,
            "SELECT 1 FROM {access} WHERE {id} = ANY (%s) GROUP BY {id} HAVING count(*) > %s LIMIT 1",
        ),
        (list(ids), MOST_MEMBERS),
    )
    if await cursor.fetchone() is not None:
        raise TooManyMembers


async def list_members(conn: Connection, thing: Thing, *, id: UUID, but: UUID, invited_too: bool) -> list[Member]:
    """Everybody with a row for it except `but`."""
    cursor = conn.cursor(row_factory=class_row(Member))
    await cursor.execute(
        _sql(
            thing,
            """
        SELECT u.id AS user_id, u.username, u.public_key, a.access_level
        FROM {access} a JOIN users u ON u.id = a.user_id
        WHERE a.{id} = %(id)s AND a.user_id <> %(but)s AND (a.is_accepted OR %(invited_too)s) AND u.is_active
        ORDER BY a.created_at, u.id
        """,
        ),
        {"id": id, "but": but, "invited_too": invited_too},
    )
    return await cursor.fetchall()


async def find_users(conn: Connection, *, ids: Sequence[UUID]) -> set[UUID]:
    """Those of `ids` that are users something can be shared with."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute("SELECT id FROM users WHERE id = ANY (%s) AND is_active", (list(ids),))
    return set(await cursor.fetchall())


async def grant(conn: Connection, thing: Thing, *, id: UUID, grants: Sequence[Grant]) -> None:
    """An invitation for each. Who has a row keeps its place and whether it is accepted; an owner's row stays as it is.

    Bound parameters as arrays: one statement, however many they are.
    """
    await conn.execute(
        _sql(
            thing,
            """
        INSERT INTO {access} AS a ({id}, user_id, {key}, access_level, is_accepted)
        SELECT %(id)s, g.user_id, g.key, g.level, false
        FROM unnest(%(users)s::uuid[], %(keys)s::text[], %(levels)s::text[]) AS g (user_id, key, level)
        ON CONFLICT ({id}, user_id) DO UPDATE SET {key} = excluded.{key}, access_level = excluded.access_level
        WHERE a.access_level <> 'owner'
        """,
        ),
        _arrays(id, grants),
    )


async def grant_in_place(conn: Connection, thing: Thing, *, id: UUID, place: UUID, grants: Sequence[Grant]) -> None:
    """The same for something in a folder: who has that folder gets it there, accepted if the folder is."""
    await conn.execute(
        _sql(
            thing,
            """
        INSERT INTO {access} AS a ({id}, user_id, {key}, access_level, is_accepted, {place})
        SELECT %(id)s, g.user_id, g.key, g.level, coalesce(f.is_accepted, false), f.folder_id
        FROM unnest(%(users)s::uuid[], %(keys)s::text[], %(levels)s::text[]) AS g (user_id, key, level)
        LEFT JOIN folder_access f ON f.folder_id = %(place)s AND f.user_id = g.user_id
        ON CONFLICT ({id}, user_id) DO UPDATE SET {key} = excluded.{key}, access_level = excluded.access_level
        WHERE a.access_level <> 'owner'
        """,
        ),
        _arrays(id, grants) | {"place": place},
    )


def _arrays(id: UUID, grants: Sequence[Grant]) -> dict[str, Any]:
    return {
        "id": id,
        "users": [one.user_id for one in grants],
        "keys": [one.encrypted_key for one in grants],
        "levels": [one.access_level for one in grants],
    }


async def grant_many(
    conn: Connection, thing: Thing, *, user_id: UUID, keys: Mapping[UUID, str], level: Level
) -> set[UUID]:
    """Many things to one user, as invitations in their root. Returns those they had no row for."""
    cursor = conn.cursor(row_factory=scalar_row)
    await cursor.execute(
        _sql(
            thing,
            """
        INSERT INTO {access} AS a ({id}, user_id, {key}, access_level, is_accepted)
        SELECT g.id, %(user_id)s, g.key, %(level)s, false
        FROM unnest(%(ids)s::uuid[], %(keys)s::text[]) AS g (id, key) ORDER BY g.id
        ON CONFLICT ({id}, user_id) DO UPDATE SET {key} = excluded.{key}, access_level = excluded.access_level
        WHERE a.access_level <> 'owner'
        RETURNING CASE WHEN xmax = 0 THEN {id} END
        """,
        ),
        {"user_id": user_id, "level": level, "ids": list(keys), "keys": list(keys.values())},
    )
    return {found for found in await cursor.fetchall() if found is not None}


async def place_like(conn: Connection, thing: Thing, *, ids: Sequence[UUID], user_id: UUID, like: UUID) -> None:
    """Put what `user_id` has just been given into the folders where `like` has it, if they have those too."""
    await conn.execute(
        _sql(
            thing,
            """
        UPDATE {access} a SET {place} = theirs.{place}
        FROM {access} theirs JOIN folder_access f ON f.folder_id = theirs.{place} AND f.user_id = %(user_id)s
        WHERE a.{id} = ANY (%(ids)s) AND a.user_id = %(user_id)s AND theirs.{id} = a.{id} AND theirs.user_id = %(like)s
        """,
        ),
        {"user_id": user_id, "like": like, "ids": list(ids)},
    )
