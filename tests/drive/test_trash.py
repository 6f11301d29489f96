"""Into the trash, out of it, and for good; and what becomes of other people's things."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.drive.people import Person, Town, town
from tests.service import objects_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def place(database_url: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with town(database_url, tmp_path) as town_:
        yield town_


async def sql(place: Town, statement: str, *given: Any) -> None:
    async with place.service.parts.database.connection() as conn:
        await conn.execute(statement.encode(), given)


async def used(person: Person) -> int:
    return int((await person.ok("GET", "/drive/get_drive_info"))["used_space"])


async def chunks_of(place: Town) -> set[str]:
    return {key for key in await objects_of(place.service) if not key.startswith("instance.")}


@pytest.mark.parametrize("generation", ["A", "B"])
async def test_a_file_goes_to_the_trash_and_comes_back(place: Town, generation: str) -> None:
    ann = place.ann
    folder = await ann.folder()
    file = await ann.file(folder, b"12345")
    if generation == "A":
        await ann.post("/drive/delete_file", file_id=file)
        await ann.post("/drive/delete_file", file_id=file)  # repeated, it changes nothing
    else:
        await ann.ok("DELETE", f"/drive/files/{file}")
    assert await ann.sees(folder) == set()
    view = await ann.view("corbeille")
    assert [one["file_id"] for one in view["files_and_folders"]["files"]] == [file]
    assert (view["full_path"], view["corbeille_info"]["file_count"]) == ([], 1)
    assert await ann.can_read(file), "its owner may still read it"
    assert await used(ann) == 5
    await ann.post("/drive/restore_file", file_id=file)
    assert await ann.sees(folder) == {file}
    assert await ann.sees("corbeille") == set()
    assert await ann.refused("POST", "/drive/restore_file", json={"file_id": file}) == (404, "not_in_trash")


async def test_a_second_delete_is_the_permanent_one(place: Town) -> None:
    ann = place.ann
    file, kept = await ann.file(content=b"12345"), await ann.file(content=b"1")
    assert len(await chunks_of(place)) == 2
    for _ in range(2):
        await ann.ok("DELETE", f"/drive/files/{file}")
    assert await ann.sees("corbeille") == set()
    assert {key.split(".")[0] for key in await chunks_of(place)} == {kept}
    assert await used(ann) == 1
    assert await ann.refused("DELETE", f"/drive/files/{file}") == (404, "file_not_found")
    assert await ann.refused("POST", "/drive/restore_file", json={"file_id": file}) == (404, "file_not_found")


async def test_deleting_an_unfinished_upload_aborts_it(place: Town) -> None:
    ann = place.ann
    file = await ann.user.initialize(10)
    await ann.user.put(file, 0, b"12345")
    await ann.ok("DELETE", f"/drive/files/{file}")
    assert await ann.sees("corbeille") == set()
    assert (await chunks_of(place), await used(ann)) == (set(), 0)
    assert (await ann.user.put(file, 1, b"12345")).status == 409


async def test_a_folder_goes_with_all_below_and_comes_back_with_what_went_with_it(place: Town) -> None:
    ann = place.ann
    top = await ann.folder(name="top")
    sub = await ann.folder(top, name="sub")
    earlier_folder, earlier_file = await ann.folder(sub), await ann.file(sub)
    one, two = await ann.file(top), await ann.file(sub)
    await ann.ok("DELETE", f"/drive/folders/{earlier_folder}")
    await ann.ok("DELETE", f"/drive/files/{earlier_file}")
    await ann.ok("DELETE", f"/drive/folders/{top}")
    assert await ann.sees() == set()
    assert (await ann.view(sub))["full_path"] == []
    # The folders that were thrown away, not those inside of them; all files, as flat as they always were.
    assert await ann.sees("corbeille") == {top, one, two, earlier_file}
    await ann.post("/drive/restore_folder", folder_id=top)
    assert (await ann.sees(), await ann.sees(top), await ann.sees(sub)) == ({top}, {one, sub}, {two})
    assert await ann.sees("corbeille") == {earlier_folder, earlier_file}


async def test_restoring_brings_back_the_folders_above_without_what_lies_in_them(place: Town) -> None:
    ann = place.ann
    top = await ann.folder(name="top")
    sub = await ann.folder(top, name="sub")
    file, other = await ann.file(sub), await ann.file(sub)
    await ann.post("/drive/delete_folder", folder_id=top)
    await ann.post("/drive/restore_file", file_id=file)
    assert (await ann.sees(), await ann.sees(top), await ann.sees(sub)) == ({top}, {sub}, {file})
    assert await ann.sees("corbeille") == {other}
    await ann.post("/drive/delete_folder", folder_id=top)
    await ann.post("/drive/restore_folder", folder_id=sub)
    assert (await ann.sees(top), await ann.sees(sub)) == ({sub}, {file})


async def test_emptying_the_trash_removes_what_is_in_it_and_nothing_else(place: Town) -> None:
    ann, bob = place.ann, place.bob
    top = await ann.folder(name="top")
    sub = await ann.folder(top)
    await ann.file(sub, b"123")
    await ann.file("root", b"1234")
    kept, theirs = await ann.file("root", b"1"), await bob.file("root", b"12")
    await bob.ok("DELETE", f"/drive/files/{theirs}")
    for thing in await ann.sees() - {kept}:
        kind = "folders" if thing == top else "files"
        await ann.ok("DELETE", f"/drive/{kind}/{thing}")
    await ann.ok("POST", "/drive/empty_trash")
    assert (await ann.sees("corbeille"), await ann.sees(), await used(ann)) == (set(), {kept}, 1)
    assert {key.split(".")[0] for key in await chunks_of(place)} == {kept, theirs}
    assert await bob.sees("corbeille") == {theirs}


async def test_a_trashed_folder_deleted_again_goes_for_good_with_what_is_in_it(place: Town) -> None:
    ann = place.ann
    top = await ann.folder()
    sub = await ann.folder(top)
    await ann.file(sub)
    saved = await ann.file(sub)
    await ann.ok("DELETE", f"/drive/folders/{top}")
    await ann.post("/drive/restore_file", file_id=saved)
    await ann.ok("DELETE", f"/drive/folders/{top}")  # restored with the file: into the trash again
    assert await ann.sees("corbeille") >= {top, saved}
    await ann.ok("DELETE", f"/drive/folders/{top}")
    assert (await ann.sees("corbeille"), await chunks_of(place), await used(ann)) == (set(), set(), 0)


async def test_what_is_interrupted_in_emptying_is_finished_by_the_reaper(
    place: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gauzian.drive.trash._MOST_SECONDS", 0.0)
    ann = place.ann
    for _ in range(3):
        await ann.ok("DELETE", f"/drive/files/{await ann.file()}")
    await ann.ok("POST", "/drive/empty_trash")
    assert len(await chunks_of(place)) == 3
    await place.service.parts.reaper.reap(sweep=False)
    assert (await chunks_of(place), await used(ann)) == (set(), 0)


async def test_after_trash_days_the_reaper_empties_it(place: Town) -> None:
    ann = place.ann
    old, new, folder = await ann.file(), await ann.file(), await ann.folder()
    inside = await ann.file(folder)
    for path in (f"files/{old}", f"files/{new}", f"folders/{folder}"):
        await ann.ok("DELETE", f"/drive/{path}")
    for table, id in (("files", old), ("files", inside), ("folders", folder)):
        await sql(place, f"UPDATE {table} SET trashed_at = now() - interval '30 days 1 minute' WHERE id = %s", id)
    report = await place.service.parts.reaper.reap(sweep=False, dry_run=True)
    assert report.trashed == 3
    report = await place.service.parts.reaper.reap(sweep=False)
    assert report.trashed == 3
    assert await ann.sees("corbeille") == {new}
    assert {key.split(".")[0] for key in await chunks_of(place)} == {new}


async def test_trash_days_of_nothing_keep_it_for_ever(database_url: str, tmp_path: Path) -> None:
    async with town(database_url, tmp_path, trash_days=0) as place:
        file = await place.ann.file()
        await place.ann.ok("DELETE", f"/drive/files/{file}")
        await sql(place, "UPDATE files SET trashed_at = now() - interval '90 years'")
        await place.service.parts.reaper.reap(sweep=False)
        assert await place.ann.sees("corbeille") == {file}


async def test_other_peoples_things_in_a_folder_survive_whatever_its_owner_does(place: Town) -> None:
    """They return to their owners' roots; for the others they stay what they are."""
    ann, bob, cat = place.ann, place.bob, place.cat
    top = await ann.folder(name="top")
    sub = await ann.folder(top, name="sub")
    await ann.share_folder(top, bob, "editor")
    await ann.share_folder(top, cat)
    file = await bob.file(sub, b"of bob")
    folder = await bob.folder(sub, name="of bob")
    inside = await bob.file(folder)
    for kind, id in (("file", file), ("folder", folder), ("file", inside)):
        await bob.propagate(kind, id, ann, cat)
    assert await ann.sees(sub) == await cat.sees(sub) == {file, folder}
    await ann.ok("DELETE", f"/drive/folders/{top}")
    assert await bob.sees() == {file, folder}
    assert await bob.sees(folder) == {inside}
    assert await cat.sees() == {file, folder}
    assert await ann.sees() == set()
    assert await ann.sees("corbeille") == {top}
    await ann.ok("POST", "/drive/empty_trash")
    for person in (bob, cat):
        assert await person.can_read(file)
        assert await person.can_read(inside)
    assert not await ann.can_read(file)


async def test_what_its_owner_throws_away_is_gone_for_all_and_back_with_its_shares(place: Town) -> None:
    ann, bob = place.ann, place.bob
    top = await ann.folder()
    file = await ann.file(top)
    await ann.share_folder(top, bob, "editor")
    await ann.ok("DELETE", f"/drive/folders/{top}")
    assert await bob.sees() == set()
    assert not await bob.can_read(file)
    assert await bob.refused("GET", f"/drive/file/{file}") == (404, "file_not_found")
    given = {"folder_id": top, "new_encrypted_metadata": "mine now"}
    assert await bob.refused("POST", "/drive/rename_folder", json=given) == (404, "folder_not_found")
    await ann.post("/drive/restore_folder", folder_id=top)
    assert (await bob.sees(), await bob.sees(top)) == ({top}, {file})
    assert await bob.can_read(file)


async def test_deleting_what_is_shared_with_one_is_leaving_it(place: Town) -> None:
    ann, bob = place.ann, place.bob
    top = await ann.folder()
    file, alone = await ann.file(top), await ann.file()
    await ann.share_folder(top, bob, "editor")
    await ann.share_file(alone, bob)
    own = await bob.file(top)
    await bob.propagate("file", own, ann)
    await bob.ok("DELETE", f"/drive/folders/{top}")
    await bob.post("/drive/delete_file", file_id=alone)
    assert await bob.sees() == {own}, "his own has come back to his root"
    assert await bob.sees("corbeille") == set()
    assert await ann.sees(top) == {file, own}
    assert await ann.sees() == {top, alone}
    assert not await bob.can_read(file)


async def test_nothing_happens_to_what_lies_in_the_trash_but_out_and_away(place: Town) -> None:
    ann = place.ann
    folder, file, other = await ann.folder(), await ann.file(), await ann.file()
    await ann.ok("DELETE", f"/drive/folders/{folder}")
    await ann.ok("DELETE", f"/drive/files/{file}")
    in_trash = (409, "in_trash")
    for path, given in (
        ("/drive/rename_file", {"file_id": file, "new_encrypted_metadata": "m"}),
        ("/drive/rename_folder", {"folder_id": folder, "new_encrypted_metadata": "m"}),
        ("/drive/move_file", {"file_id": file, "new_parent_folder_id": "root"}),
        ("/drive/move_file", {"file_id": other, "new_parent_folder_id": folder}),
        ("/drive/move_folder", {"folder_id": folder, "new_parent_folder_id": "root"}),
        (
            "/drive/create_folder",
            {"encrypted_metadata": "m", "parent_folder_id": folder, "encrypted_folder_key": "k"},
        ),
        ("/drive/share_file", {"file_id": file, "contact_id": place.bob.id, "encrypted_item_key": "k"}),
        ("/drive/propagate_file_access", {"file_id": file, "user_keys": []}),
        ("/drive/revoke-access", {"item_type": "file", "item_id": file, "contact_id": place.bob.id}),
    ):
        assert await ann.refused("POST", path, json=given) == in_trash, path
    assert await ann.refused("POST", f"/drive/finalize_upload/{file}/aborted") == (409, "upload_closed")


@pytest.mark.parametrize("kind", ["file", "folder"])
async def test_what_is_restored_is_found_by_everybody_although_its_folder_stays_in_the_trash(
    place: Town, kind: str
) -> None:
    ann, bob = place.ann, place.bob
    top = await ann.folder()
    inside = await ann.folder(top)
    thing = await (ann.file(inside) if kind == "file" else ann.folder(inside))
    await ann.share_folder(top, bob, "editor")
    await ann.post(f"/drive/move_{kind}", **{f"{kind}_id": thing, "new_parent_folder_id": "root"})
    assert await bob.sees(inside) == {thing}  # Bob does not see Ann's root: it stays where he has it
    await ann.ok("DELETE", f"/drive/{kind}s/{thing}")
    await ann.ok("DELETE", f"/drive/folders/{inside}")
    await ann.post(f"/drive/restore_{kind}", **{f"{kind}_id": thing})
    assert await bob.sees() == {top, thing}


async def test_what_went_by_way_of_another_ones_folder_comes_back_with_its_own(place: Town) -> None:
    ann, bob = place.ann, place.bob
    top = await ann.folder()
    await ann.share_folder(top, bob, "editor")
    theirs = await bob.folder(top)
    await bob.propagate("folder", theirs, ann, level="editor")
    file, sub = await ann.file(theirs), await ann.folder(theirs)
    deep = await ann.file(sub)
    for kind, id in (("file", file), ("folder", sub), ("file", deep)):
        await ann.propagate(kind, id, bob)
    await ann.ok("DELETE", f"/drive/folders/{top}")
    assert await bob.sees() == {theirs}
    assert await bob.sees(theirs) == set()
    await ann.post("/drive/restore_folder", folder_id=top)
    assert await ann.sees("corbeille") == set()
    assert await ann.sees() == {top, file, sub}
    assert await ann.sees(sub) == {deep}
    assert (await bob.sees(), await bob.sees(theirs)) == ({top, theirs}, {file, sub})
