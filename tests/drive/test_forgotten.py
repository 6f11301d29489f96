"""A user is deleted while others are at it, while chunks are on their way, while the store does not do its part."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from gauzian.assembly.people import People
from gauzian.errors import StoreDown, UserNotThere
from gauzian.stores.base import ListedObject
from tests.drive.people import Person, Town, town
from tests.fakes import AroundStore, StoreStalls
from tests.service import objects_of, running_service

pytestmark = pytest.mark.anyio


@pytest.fixture
async def place(database_url: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with town(database_url, tmp_path) as place:
        yield place


def people_of(place: Town) -> People:
    return People(place.service.parts.database, place.service.parts.store)


async def delete(place: Town, person: Person) -> bool:
    _, is_clean = await people_of(place).delete(person.user.email)
    return is_clean


async def rows_of(place: Town, person: Person) -> int:
    """In how many rows of any table this user is named."""
    async with place.service.parts.database.connection() as conn:
        cursor = await conn.execute(
            """
            SELECT table_name, column_name FROM information_schema.columns
            WHERE table_schema = 'public' AND (column_name IN ('user_id', 'owner_id') OR table_name = 'users')
              AND data_type = 'uuid'
            """
        )
        count = 0
        for table, column in await cursor.fetchall():
            query = f"SELECT count(*) FROM {table} WHERE {column} = %s"
            row = await (await conn.execute(query.encode(), (person.id,))).fetchone()
            count += row[0] if row else 0
        return count


async def test_their_files_are_gone_for_everybody_with_their_objects_and_nothing_else(place: Town) -> None:
    ann, bob = place.ann, place.bob
    folder = await ann.folder()
    inside, shared, trashed = await ann.file(folder), await ann.file(), await ann.file()
    await ann.post("/drive/delete_file", file_id=trashed)
    unfinished = await ann.user.initialize(10)
    await ann.user.put(unfinished, 0, b"half")
    aborted = await ann.user.initialize(10)
    await ann.user.put(aborted, 0, b"half")
    await ann.user.abort(aborted)
    await ann.share_folder(folder, bob, "editor")
    await ann.share_file(shared, bob)
    kept = await bob.file()
    assert await bob.sees() == {folder, shared, kept}
    assert await bob.can_read(inside)

    assert await delete(place, ann)
    assert await bob.sees() == {kept}
    assert not await bob.can_read(inside)
    assert not await bob.can_read(shared)
    assert await bob.can_read(kept)
    assert {key.split(".")[0] for key in await objects_of(place.service)} - {"instance"} <= {kept}
    assert await rows_of(place, ann) == 0
    assert (await ann.call("GET", "/info")).status == 401
    with pytest.raises(UserNotThere):
        await delete(place, ann)


async def test_what_was_shared_with_them_stays_where_it_was_for_the_others(place: Town) -> None:
    ann, bob, cat = place.ann, place.bob, place.cat
    folder = await bob.folder()
    file = await bob.file(folder)
    for other in (ann, cat):
        await bob.share_folder(folder, other, "editor")
    hers = await ann.file(folder)
    await ann.propagate("file", hers, bob, cat)
    assert await delete(place, ann)
    assert await bob.sees(folder) == await cat.sees(folder) == {file}
    assert await cat.can_read(file)


class StoreForgetsToDelete(AroundStore):
    async def delete_quietly(self, keys: object) -> int:
        return 0


class StoreCannotList(AroundStore):
    def list(self, prefix: str = "") -> AsyncIterator[ListedObject]:
        raise StoreDown


class StoreIsDown(AroundStore):
    async def check(self) -> None:
        raise StoreDown


@pytest.mark.parametrize("kind", [StoreForgetsToDelete, StoreCannotList])
async def test_objects_that_could_not_be_removed_are_said_and_found_by_the_sweep(
    place: Town, kind: type[AroundStore], tmp_path: Path
) -> None:
    parts = place.service.parts
    await parts.reaper.claim_store()  # as the service does when it starts
    await place.ann.file()
    _, is_clean = await People(parts.database, kind(parts.store)).delete(place.ann.user.email)
    assert not is_clean
    assert await rows_of(place, place.ann) == 0
    left = [path for path in (tmp_path / "store").rglob("*.*") if path.is_file() and "instance" not in path.name]
    assert len(left) == 1
    for path in left:
        os.utime(path, (0, 0))
    report = await parts.reaper.reap(sweep=True)
    assert (report.refused, report.objects) == (None, 1)
    assert not [key for key in await objects_of(place.service) if not key.startswith("instance")]


async def test_with_the_store_gone_nobody_is_deleted(place: Town) -> None:
    file = await place.ann.file()
    parts = place.service.parts
    with pytest.raises(StoreDown):
        await People(parts.database, StoreIsDown(parts.store)).delete(place.ann.user.email)
    assert await place.ann.can_read(file)


async def test_a_chunk_on_its_way_meanwhile_is_refused_and_leaves_no_object(database_url: str, tmp_path: Path) -> None:
    async with town(database_url, tmp_path) as place:
        parts = place.service.parts
        file_id = await place.ann.user.initialize(10)
        stalled = StoreStalls(parts.store)
        async with running_service(database_url, tmp_path) as other:
            for route in other.app.app.router.routes:  # type: ignore[attr-defined]
                if route.path == "/drive/upload_chunk_binary":
                    route.app._store = stalled
            user = type(place.ann.user)(other, place.ann.user.token, place.ann.user.email)
            statuses: list[int] = []

            async def put() -> None:
                statuses.append((await user.put(file_id, 0, b"0123456789")).status)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(put)
                while not stalled.waiting:
                    await asyncio.sleep(0)
                assert await delete(place, place.ann)
                stalled.go_on.set()
            assert statuses == [401]
            assert not [key for key in await objects_of(place.service) if key.startswith(file_id)]


async def test_deleting_somebody_who_is_busy_ends_and_nothing_of_theirs_is_left(place: Town) -> None:
    ann, bob = place.ann, place.bob
    folder = await ann.folder()
    await ann.share_folder(folder, bob, "editor")
    done = anyio.Event()
    statuses: set[int] = set()

    async def be_busy(person: Person, number: int) -> None:
        while not done.is_set():
            made = await person.call(
                "POST",
                "/drive/create_folder",
                json={"encrypted_metadata": "m", "parent_folder_id": folder, "encrypted_folder_key": "k"},
            )
            statuses.add(made.status)
            if person is ann and made.status == 200:
                file_id = await ann.call(
                    "POST",
                    "/drive/initialize_file",
                    json={
                        "size": 4,
                        "encrypted_metadata": "m",
                        "mime_type": "",
                        "folder_id": folder,
                        "encrypted_file_key": "k",
                    },
                )
                statuses.add(file_id.status)
                if file_id.status == 200:
                    statuses.add((await ann.user.put(file_id.json()["file_id"], 0, b"1234")).status)
            await asyncio.sleep(0)

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(be_busy, ann, number)
            tasks.start_soon(be_busy, bob, number)
        while 200 not in statuses:
            await asyncio.sleep(0.01)
        is_clean = await delete(place, ann)
        done.set()
    assert is_clean
    assert await rows_of(place, ann) == 0
    assert not [key for key in await objects_of(place.service) if not key.startswith("instance")]
    assert statuses <= {200, 401, 403, 404, 409, 503}, statuses
