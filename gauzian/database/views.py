"""SQL: what a user sees, as JSON texts that are sent as they come: no value of a long list becomes a Python object.

Lists come in pages, bounded in rows and in bytes; every list follows an index and asks per page, not per item.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

Connection = AsyncConnection[Any]
Kind = Literal["folder", "file"]
Where = Literal["place", "trash", "invitations", "all"]

# A folder of a thousand files is one page; so is what a client has put into names as long as they may be.
PAGE_ROWS = 1500
PAGE_BYTES = 2 * 1024 * 1024
# The path to a folder is one piece. Beyond this, a thousand ordinary folders deep, it begins further down.
PATH_BYTES = 1024 * 1024

# What JavaScript's numbers can hold: clients calculate with the limit.
UNLIMITED = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Item:
    text: str  # JSON
    at: datetime
    id: UUID
    before: int  # bytes of the page's items before this one


@dataclass(frozen=True, slots=True)
class Head:
    """What every view says beside its lists; the values but `user_id` and `is_there` are JSON texts."""

    user_id: UUID
    is_there: bool  # the folder that was asked for, as something this user may list; the root always is
    full_path: str
    drive_info: str
    trash_info: str
    user_info: str


_HEAD = """
    WITH caller AS (
        SELECT u.id, u.username, u.email, u.quota_bytes FROM tokens t JOIN users u ON u.id = t.user_id
        WHERE t.sha256 = %(token_sha256)s AND t.expires_at > now() AND u.is_active
    ), path AS (
        SELECT up.folder_id, up.distance, f.encrypted_metadata, f.trashed_at, a.encrypted_folder_key, a.is_accepted
        FROM caller c CROSS JOIN LATERAL folders_above(c.id, %(folder_id)s) up
        JOIN folders f ON f.id = up.folder_id JOIN folder_access a ON a.folder_id = up.folder_id AND a.user_id = c.id
    ), here AS (
        SELECT %(folder_id)s::uuid IS NULL
            OR EXISTS (SELECT 1 FROM path WHERE distance = 0 AND trashed_at IS NULL AND is_accepted) AS is_there
    )
    SELECT c.id AS user_id, here.is_there,
           CASE WHEN here.is_there THEN coalesce((
               SELECT json_agg(json_build_object('folder_id', folder_id, 'path_index', distance, 'encrypted_metadata',
                               encrypted_metadata, 'encrypted_folder_key', encrypted_folder_key) ORDER BY distance DESC)
               FROM (SELECT *, sum(octet_length(encrypted_metadata) + octet_length(encrypted_folder_key))
                               OVER (ORDER BY distance) AS bytes FROM path) AS counted
               WHERE bytes < %(most_path_bytes)s), '[]') ELSE '[]' END::text AS full_path,
           json_build_object(
               'used_space', coalesce((SELECT used_bytes FROM space WHERE user_id = c.id), 0),
               'file_count', (SELECT count(*) FROM files
                              WHERE owner_id = c.id AND state = 'complete' AND trashed_at IS NULL),
               'folder_count', (SELECT count(*) FROM folders WHERE owner_id = c.id AND trashed_at IS NULL),
               'storage_limit_bytes', coalesce(c.quota_bytes, %(quota_bytes)s, %(unlimited)s),
               'account_tier', CASE WHEN c.quota_bytes IS NULL THEN 'free' ELSE 'custom' END)::text AS drive_info,
           CASE WHEN %(with_trash)s THEN json_build_object(
               'used_space', (SELECT coalesce(sum(stored_bytes), 0)::bigint FROM files
                              WHERE owner_id = c.id AND trashed_at IS NOT NULL),
               'file_count', (SELECT count(*) FROM files WHERE owner_id = c.id AND trashed_at IS NOT NULL),
               'folder_count', (SELECT count(*) FROM folders WHERE owner_id = c.id AND trashed_at IS NOT NULL)
               ) ELSE 'null' END::text AS trash_info,
           json_build_object('id', c.id, 'username', c.username, 'email', c.email)::text AS user_info
    FROM caller c CROSS JOIN here
"""


async def find_head(
    conn: Connection, *, token_sha256: bytes, folder_id: UUID | None, quota_bytes: int | None, with_trash: bool = False
) -> Head | None:
    """None: not signed in."""
    cursor = conn.cursor(row_factory=class_row(Head))
    await cursor.execute(
        _HEAD,
        {
            "token_sha256": token_sha256,
            "folder_id": folder_id,
            "quota_bytes": quota_bytes,
            "unlimited": UNLIMITED,
            "with_trash": with_trash,
            "most_path_bytes": PATH_BYTES,
        },
    )
    return await cursor.fetchone()


# The size of a folder is that of the files in it, not below it.
_FOLDER = """json_build_object(
    'type', 'folder', 'folder_id', a.folder_id, 'parent_folder_id', {parent}, 'is_root', {parent} IS NULL,
    'encrypted_metadata', t.encrypted_metadata, 'encrypted_folder_key', a.encrypted_folder_key,
    'access_level', a.access_level,
    'folder_size', (SELECT coalesce(sum(f.size), 0)::bigint FROM file_access i JOIN files f ON f.id = i.file_id
                    WHERE i.user_id = a.user_id AND i.folder_id = a.folder_id AND i.is_accepted
                      AND f.state = 'complete' AND f.trashed_at IS NULL),
    'created_at', t.created_at, 'updated_at', t.updated_at)"""
_FILE = """json_build_object(
    'type', 'file', 'file_id', a.file_id, 'id', a.file_id, 'folder_id', a.folder_id, 'access_level', a.access_level,
    'encrypted_metadata', t.encrypted_metadata, 'encrypted_file_key', a.encrypted_file_key,
    'file_size', t.size, 'size', t.size, 'mime_type', t.mime_type,
    'created_at', t.created_at, 'updated_at', t.updated_at)"""

# For each kind: the tables, the item, and which rows belong to which list. An invitation stands in its list if it does
# not lie in another one; a folder stands in the trash if it does not lie in another one that does.
_KINDS: Mapping[Kind, Mapping[str, str]] = {
    "folder": {
        "from": "folder_access a JOIN folders t ON t.id = a.folder_id",
        "id": "a.folder_id",
        "item": _FOLDER.format(parent="a.parent_id"),
        "loose_item": _FOLDER.format(parent="NULL::uuid"),
        "place": "a.is_accepted AND t.trashed_at IS NULL AND a.place = %(place)s",
        "all": "a.is_accepted AND t.trashed_at IS NULL",
        "trash": """t.owner_id = a.user_id AND t.trashed_at IS NOT NULL AND NOT EXISTS (
            SELECT 1 FROM folders p WHERE p.id = a.parent_id AND p.trashed_at IS NOT NULL)""",
        "invitations": """NOT a.is_accepted AND t.trashed_at IS NULL AND NOT EXISTS (
            SELECT 1 FROM folder_access p WHERE p.folder_id = a.parent_id AND p.user_id = a.user_id
            AND NOT p.is_accepted)""",
    },
    "file": {
        "from": "file_access a JOIN files t ON t.id = a.file_id",
        "id": "a.file_id",
        "item": _FILE,
        "loose_item": _FILE,
        "place": "a.is_accepted AND t.state = 'complete' AND t.trashed_at IS NULL AND a.place = %(place)s",
        "all": "a.is_accepted AND t.state = 'complete' AND t.trashed_at IS NULL",
        "trash": "t.owner_id = a.user_id AND t.state = 'complete' AND t.trashed_at IS NOT NULL",
        "invitations": """NOT a.is_accepted AND t.state = 'complete' AND t.trashed_at IS NULL AND NOT EXISTS (
            SELECT 1 FROM folder_access p WHERE p.folder_id = a.folder_id AND p.user_id = a.user_id
            AND NOT p.is_accepted)""",
    },
}

_PAGE = """
    SELECT text, at, id, before FROM (
        SELECT text, at, id, sum(octet_length(text)) OVER (ORDER BY at, id) - octet_length(text) AS before FROM (
            SELECT {item}::text AS text, a.created_at AS at, {id} AS id
            FROM {from} WHERE a.user_id = %(user_id)s AND {which} {after}
            ORDER BY a.created_at, {id} LIMIT %(most)s) AS rows) AS counted
    WHERE before < %(most_bytes)s ORDER BY at, id
"""


async def list_items(
    conn: Connection, kind: Kind, where: Where, *, user_id: UUID, folder_id: UUID | None, after: Item | None
) -> list[Item]:
    """The next page of a list in the order in which the user got the things, and of the items of `folder_id` (None: the
    root) if that is `where`. `is_last` tells whether there can be another page.
    """
    parts = dict(_KINDS[kind])
    parts["which"] = parts[where]
    if where in ("trash", "invitations"):
        parts["item"] = parts["loose_item"]
    parts["after"] = "" if after is None else f"AND (a.created_at, {parts['id']}) > (%(at)s, %(id)s)"
    cursor = conn.cursor(row_factory=class_row(Item))
    await cursor.execute(
        _PAGE.format_map(parts).encode(),
        {
            "user_id": user_id,
            "place": folder_id or user_id,
            "most": PAGE_ROWS,
            "most_bytes": PAGE_BYTES,
            "at": after and after.at,
            "id": after and after.id,
        },
    )
    return await cursor.fetchall()


def is_last(page: list[Item]) -> bool:
    if not page:
        return True
    return len(page) < PAGE_ROWS and page[-1].before + len(page[-1].text.encode()) < PAGE_BYTES
