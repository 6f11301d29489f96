"""Trees that are wide, deep and full: a bounded number of queries, each along an index."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.drive.people import Town, town

pytestmark = pytest.mark.anyio

FOLDERS, DEPTH, FILES = 10_000, 200, 1_000

# A chain of DEPTH folders, FOLDERS in all, the others spread over the chain; FILES files in the deepest.
_GROW = """
WITH chain AS (
    INSERT INTO folders (id, owner_id, encrypted_metadata)
    SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, %(user)s, 'folder ' || n
    FROM generate_series(1, %(folders)s) AS n RETURNING id
)
INSERT INTO folder_access (folder_id, user_id, parent_id, encrypted_folder_key, access_level)
SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, %(user)s,
       CASE WHEN n = 1 THEN NULL ELSE
           ('00000000-0000-4000-8000-' ||
            lpad(to_hex(CASE WHEN n <= %(depth)s THEN n - 1 ELSE n %% %(depth)s + 1 END), 12, '0'))::uuid
       END, 'key', 'owner'
FROM generate_series(1, %(folders)s) AS n
"""
_FILL = """
WITH new AS (
    INSERT INTO files (owner_id, encrypted_metadata, mime_type, size, state, stored_bytes, chunk_count)
    SELECT %(user)s, repeat('m', 200), 'text/plain', 10, 'complete', 10, 1 FROM generate_series(1, %(files)s)
    RETURNING id
)
INSERT INTO file_access (file_id, user_id, folder_id, encrypted_file_key, access_level)
SELECT id, %(user)s, %(folder)s, repeat('k', 684), 'owner' FROM new
"""

# Two hundred others have twice as much, some of it in the trash: who asks for one's own must not read all that.
_CROWD = """
WITH others AS (
    INSERT INTO users (email, username, password_hash, public_key, encrypted_private_key, private_key_salt, iv,
                       encrypted_record_key)
    SELECT n || '@example.org', 'user ' || n, '', '', '', '', '', '' FROM generate_series(1, 200) AS n RETURNING id
), folder AS (
    INSERT INTO folders (owner_id, encrypted_metadata, trashed_at)
    SELECT id, '', CASE WHEN n % 2 = 0 THEN now() END FROM others, generate_series(1, 100) AS n RETURNING id, owner_id
), seen AS (
    INSERT INTO folder_access (folder_id, user_id, encrypted_folder_key, access_level, is_accepted)
    SELECT id, owner_id, 'key', 'owner', random() < 0.99 FROM folder
), file AS (
    INSERT INTO files (owner_id, encrypted_metadata, mime_type, size, state, stored_bytes, chunk_count, trashed_at)
    SELECT id, '', '', 1, 'complete', 1, 1, CASE WHEN n % 2 = 0 THEN now() END
    FROM others, generate_series(1, 100) AS n RETURNING id, owner_id
), seen_too AS (
    INSERT INTO file_access (file_id, user_id, encrypted_file_key, access_level, is_accepted)
    SELECT id, owner_id, 'key', 'owner', random() < 0.99 FROM file
)
INSERT INTO chunks (file_id, index, object_key, size, sha256, xxh3, iv)
SELECT id, 0, id::text, 1, sha256(''), substr(sha256(''), 1, 16), 'iv' FROM file
"""


def folder(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


@asynccontextmanager
async def large(database_url: str, data_dir: Path, *, crowd: bool = False) -> AsyncIterator[Town]:
    async with town(database_url, data_dir) as place:
        given = {"user": place.ann.id, "folders": FOLDERS, "depth": DEPTH, "files": FILES, "folder": folder(DEPTH)}
        async with place.service.parts.database.connection() as conn:
            await conn.execute(_GROW, given)
            await conn.execute(_FILL, given)
            if crowd:
                await conn.execute(_CROWD)
            await conn.execute("ANALYZE")
        yield place


@contextmanager
def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Any]]]:
    """What is asked of the database in here."""
    seen: list[tuple[str, Any]] = []
    execute = psycopg.AsyncCursor.execute

    async def told(self: Any, query: Any, params: Any = None, **more: Any) -> Any:
        seen.append((query.decode() if isinstance(query, bytes) else str(query), params))
        return await execute(self, query, params, **more)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.AsyncCursor, "execute", told)
        yield seen


async def plans_of(place: Town, asked: list[tuple[str, Any]]) -> str:
    """The plans of these statements; functions of ours are told apart by a test of their own."""
    async with place.service.parts.database.connection() as conn:
        texts = []
        for query, params in asked:
            cursor = await conn.execute(f"EXPLAIN (FORMAT JSON) {query}".encode(), params)
            row = await cursor.fetchone()
            assert row is not None
            texts.append(json.dumps(row[0]))
    return "\n".join(texts)


def scanned(plans: str) -> set[str]:
    """Tables that a plan reads from one end to the other."""
    found = set()

    def look(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("Node Type") == "Seq Scan":
                found.add(node["Relation Name"])
            for value in node.values():
                look(value)
        elif isinstance(node, list):
            for value in node:
                look(value)

    for line in plans.splitlines():
        look(json.loads(line))
    return found


# A row per person: reading them all is no more than looking one up.
SMALL = {"users", "tokens", "space"}

# Asked seldom, and for a large part of what a user has: the planner may find that reading a table is less work.
RARE = ("get_file_folder/corbeille", "get_file_folder/shared_with_me", "files", "folder_contents")


async def test_every_view_and_every_check_takes_few_queries_along_indexes(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with large(database_url, tmp_path, crowd=True) as place:
        ann = place.ann
        file = await ann.file(folder(3), b"abc")
        key = (await ann.ok("GET", f"/drive/file/{file}"))["chunks"][0]["s3_key"]
        upload = await ann.user.initialize(3, folder_id=folder(3))
        # `most`: queries, with the one that asks who is asking. A page of files is followed by their chunks.
        for path, most in (
            (f"get_file_folder/{folder(DEPTH)}", 3),  # a thousand files, two hundred folders above them
            ("get_file_folder/root", 3),
            (f"get_file_folder/{folder(7)}", 3),
            ("get_file_folder/corbeille", 3),
            ("get_file_folder/shared_with_me", 3),
            ("get_all_drive_info/root", 4),
            ("get_folder/root", 2),
            ("get_drive_info", 1),
            ("files", 2),
            (f"folder_contents/{folder(DEPTH)}", 2 + 1 + 2 * 6),
            (f"folder_contents/{folder(2)}", 2 + 21 + 2 * 6),
            (f"file/{file}", 3),
            (f"download_chunk_binary/{key}", 1),
        ):
            with statements(monkeypatch) as asked:
                answer = await ann.call("GET", f"/drive/{path}")
            assert answer.status == 200, path
            assert 0 < len(asked) <= most, (path, len(asked))
            if not path.startswith(RARE):
                assert scanned(await plans_of(place, asked)) <= SMALL, path
        view = await ann.view(folder(DEPTH))
        assert (len(view["files_and_folders"]["files"]), len(view["full_path"])) == (FILES, DEPTH)
        with statements(monkeypatch) as asked:
            assert (await ann.user.put(upload, 0, b"abc")).status == 200
        look, _row = asked  # the row is written by a function, which looks again
        assert scanned(await plans_of(place, [look])) <= SMALL


async def test_a_deep_tree_is_thrown_away_restored_shared_and_removed_as_one(database_url: str, tmp_path: Path) -> None:
    async with large(database_url, tmp_path) as place:
        ann, bob = place.ann, place.bob
        await ann.share_folder(folder(100), bob)
        assert len(await bob.sees(folder(DEPTH))) >= FILES
        await ann.ok("DELETE", f"/drive/folders/{folder(2)}")
        assert await ann.sees() == {folder(1)}
        assert folder(2) not in await ann.sees(folder(1))
        assert await bob.sees() == set()
        await ann.post("/drive/restore_folder", folder_id=folder(2))
        assert len(await ann.sees(folder(DEPTH))) >= FILES
        assert await bob.sees() == {folder(100)}
        await ann.post("/drive/revoke-access", item_type="folder", item_id=folder(100), contact_id=bob.id)
        assert await bob.sees() == set()
        await ann.ok("DELETE", f"/drive/folders/{folder(1)}")
        await ann.ok("POST", "/drive/empty_trash")
        info = await ann.ok("GET", "/drive/get_drive_info")
        assert (info["file_count"], info["folder_count"]) == (0, 0)
