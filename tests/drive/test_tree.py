"""Folders and files: create, list, rename, move; seen by their owner and by those they are shared with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from gauzian.database import contents
from tests.drive.people import Town, town

pytestmark = pytest.mark.anyio


@pytest.fixture
async def place(database_url: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with town(database_url, tmp_path) as town_:
        yield town_


async def test_a_tree_is_listed_folder_by_folder_with_the_path_to_each(place: Town) -> None:
    ann = place.ann
    top = await ann.folder(name="top")
    sub = await ann.folder(top, name="sub")
    file = await ann.file(sub, b"12345", name="five")
    view = await ann.view(sub)
    assert [crumb["folder_id"] for crumb in view["full_path"]] == [top, sub]
    assert [crumb["path_index"] for crumb in view["full_path"]] == [1, 0]
    assert view["full_path"][1] == {
        "folder_id": sub,
        "path_index": 0,
        "encrypted_metadata": "sub",
        "encrypted_folder_key": "key of sub",
    }
    (listed,) = view["files_and_folders"]["files"]
    assert (listed["file_id"], listed["folder_id"], listed["file_size"]) == (file, sub, 5)
    assert (listed["type"], listed["access_level"], listed["encrypted_metadata"]) == ("file", "owner", "five")
    assert view["files_and_folders"]["folders"] == []
    assert await ann.sees(top) == {sub}
    assert await ann.sees() == {top}
    (folder,) = (await ann.view(top))["files_and_folders"]["folders"]
    assert (folder["parent_folder_id"], folder["is_root"], folder["folder_size"]) == (top, False, 5)
    (folder,) = (await ann.view())["files_and_folders"]["folders"]
    assert (folder["parent_folder_id"], folder["is_root"], folder["folder_size"]) == (None, True, 0)


@pytest.mark.parametrize("where", ["", "root", "ROOT", "null", "00000000-0000-0000-0000-000000000000"])
async def test_the_root_has_several_names(place: Town, where: str) -> None:
    folder = await place.ann.folder(where or "root")
    if where:
        assert await place.ann.sees(where) == {folder}
    view = await place.ann.ok("GET", "/drive/get_all_drive_info")
    assert [one["folder_id"] for one in view["files_and_folders"]["folders"]] == [folder]


async def test_the_folder_view_of_nothing_is_empty_and_not_an_error(place: Town) -> None:
    """The page of existing clients goes to the root on an empty path, and stays where it is on an error."""
    theirs = await place.bob.folder(name="private")
    await place.bob.file(theirs)
    for where in (str(uuid4()), theirs):
        view = await place.ann.view(where)
        assert view["files_and_folders"] == {"folders": [], "files": []}
        assert view["full_path"] == []
        assert view["drive_info"]["file_count"] == 0
    assert await place.ann.refused("GET", f"/drive/get_folder/{theirs}") == (403, "not_yours")
    assert await place.ann.refused("GET", f"/drive/get_folder/{uuid4()}") == (404, "folder_not_found")
    assert await place.ann.refused("GET", f"/drive/folder_contents/{theirs}") == (403, "not_yours")


async def test_a_new_name_is_seen_by_all(place: Town) -> None:
    ann, bob = place.ann, place.bob
    folder, file = await ann.folder(), await ann.file()
    await ann.share_folder(folder, bob, "editor")
    await ann.share_file(file, bob)
    await ann.post("/drive/rename_file", file_id=file, new_encrypted_metadata="new")
    await bob.ok("PATCH", f"/drive/folders/{folder}", json={"new_encrypted_metadata": "newer"})
    lists = (await ann.view())["files_and_folders"]
    assert [lists["folders"][0]["encrypted_metadata"], lists["files"][0]["encrypted_metadata"]] == ["newer", "new"]
    lists = (await bob.view())["files_and_folders"]
    assert [lists["folders"][0]["encrypted_metadata"], lists["files"][0]["encrypted_metadata"]] == ["newer", "new"]
    assert await ann.refused("PATCH", f"/drive/files/{file}", json={"new_encrypted_metadata": " "}) == (
        400,
        "bad_field",
    )


async def test_a_folder_cannot_come_to_lie_below_itself(place: Town) -> None:
    ann = place.ann
    top = await ann.folder()
    middle = await ann.folder(top)
    bottom = await ann.folder(middle)
    for target in (top, middle, bottom):
        given = {"folder_id": top, "new_parent_folder_id": target}
        assert await ann.refused("POST", "/drive/move_folder", json=given) == (409, "folder_cycle")
        given = {"target_folder_id": target}
        assert await ann.refused("PATCH", f"/drive/folders/{top}/move", json=given) == (409, "folder_cycle")
    assert [crumb["folder_id"] for crumb in (await ann.view(bottom))["full_path"]] == [top, middle, bottom]
    await ann.ok("PATCH", f"/drive/folders/{bottom}/move", json={"target_folder_id": None})
    await ann.post("/drive/move_folder", folder_id=top, new_parent_folder_id=bottom)
    assert [crumb["folder_id"] for crumb in (await ann.view(middle))["full_path"]] == [bottom, top, middle]


async def test_a_file_moves_and_is_in_one_place_only(place: Town) -> None:
    ann = place.ann
    one, two, file = await ann.folder(), await ann.folder(), await ann.file()
    for target, path in ((one, "PATCH"), (two, "POST"), ("root", "POST"), (one, "POST")):
        if path == "PATCH":
            await ann.ok("PATCH", f"/drive/files/{file}/move", json={"target_folder_id": target})
        else:
            await ann.post("/drive/move_file", file_id=file, new_parent_folder_id=target)
        assert {where for where in (one, two, "root") if file in await ann.sees(where)} == {target}


async def test_a_move_inside_of_something_shared_is_a_move_for_all_who_share_it(place: Town) -> None:
    ann, bob = place.ann, place.bob
    top = await ann.folder(name="shared")
    left, right = await ann.folder(top, name="left"), await ann.folder(top, name="right")
    file, sub = await ann.file(left), await ann.folder(left, name="sub")
    await ann.share_folder(top, bob, "editor")
    assert await bob.sees(left) == {file, sub}
    await bob.post("/drive/move_file", file_id=file, new_parent_folder_id=right)
    await bob.post("/drive/move_folder", folder_id=sub, new_parent_folder_id=right)
    for person in (ann, bob):
        assert (await person.sees(left), await person.sees(right)) == (set(), {file, sub})


async def test_nobody_moves_a_thing_out_of_another_ones_tree(place: Town) -> None:
    """Bob may put Ann's folder where he likes, in his tree."""
    ann, bob = place.ann, place.bob
    top = await ann.folder(name="shared")
    sub = await ann.folder(top, name="sub")
    await ann.share_folder(top, bob, "editor")
    private = await bob.folder(name="private")
    await bob.post("/drive/move_folder", folder_id=sub, new_parent_folder_id=private)
    assert sub in await bob.sees(private)
    assert await ann.sees(top) == {sub}
    await ann.post("/drive/move_folder", folder_id=sub, new_parent_folder_id="root")
    assert await ann.sees() == {top, sub}
    assert sub in await bob.sees(private)


async def test_who_follows_a_move_never_gets_a_circle(place: Town) -> None:
    """For Bob `other` lies below `moved`, for Ann beside it."""
    ann, bob = place.ann, place.bob
    top = await ann.folder(name="top")
    moved, other = await ann.folder(top, name="moved"), await ann.folder(top, name="other")
    await ann.share_folder(top, bob, "editor")
    inside = await bob.folder(name="of bob")
    await bob.post("/drive/move_folder", folder_id=other, new_parent_folder_id=inside)
    await bob.post("/drive/move_folder", folder_id=inside, new_parent_folder_id=moved)
    await ann.post("/drive/move_folder", folder_id=moved, new_parent_folder_id=other)
    assert [crumb["folder_id"] for crumb in (await ann.view(moved))["full_path"]] == [top, other, moved]
    assert [crumb["folder_id"] for crumb in (await bob.view(other))["full_path"]] == [top, moved, inside, other]


async def test_numbers_count_each_file_once(place: Town) -> None:
    ann, bob = place.ann, place.bob
    for _ in range(3):
        await ann.folder()
    folder = await ann.folder()
    await ann.file(folder, b"12345")
    await ann.file("root", b"123")
    gone = await ann.file("root", b"1234567")
    await ann.user.initialize(1000)  # unfinished: declared, not stored
    await ann.ok("DELETE", f"/drive/files/{gone}")
    await bob.file("root", b"12")
    await ann.share_folder(folder, bob, "editor")
    info = await ann.ok("GET", "/drive/get_drive_info")
    assert info == {
        "used_space": 15,
        "file_count": 2,
        "folder_count": 4,
        "storage_limit_bytes": 2**53 - 1,
        "account_tier": "free",
    }
    assert (await bob.ok("GET", "/drive/get_drive_info"))["used_space"] == 2
    assert (await ann.view("corbeille"))["corbeille_info"] == {"used_space": 7, "file_count": 1, "folder_count": 0}


async def test_the_whole_tree_is_there_for_a_zip(place: Town) -> None:
    ann, bob = place.ann, place.bob
    top = await ann.folder(name="top")
    sub = await ann.folder(top, name="sub")
    mine, deep = await ann.file(top, b"abc"), await ann.file(sub, b"defg")
    empty = await ann.file(sub, b"")
    await ann.user.initialize(3, folder_id=sub)
    aside = await ann.file("root", b"aside")
    await ann.share_folder(top, bob)
    for person in (ann, bob):
        answer = await person.ok("GET", f"/drive/folder_contents/{top}")
        assert answer["folder_id"] == top
        items = {item.get("file_id") or item["folder_id"]: item for item in answer["contents"]}
        assert set(items) == {sub, mine, deep, empty}
        assert {id: item["path"] for id, item in items.items()} == {
            sub: "",
            mine: "",
            deep: f"{sub}/",
            empty: f"{sub}/",
        }
        assert items[empty]["chunks"] == []
        assert all(items[mine][key] for key in ("encrypted_file_key", "encrypted_metadata", "mime_type"))
        for file, content in ((mine, b"abc"), (deep, b"defg")):
            (chunk,) = items[file]["chunks"]
            assert chunk["index"] == 0
            body = await person.call("GET", f"/drive/download_chunk_binary/{chunk['s3_key']}")
            assert body.body == content
    everything = await ann.ok("GET", "/drive/folder_contents/root")
    assert everything["folder_id"] is None
    files = {item["file_id"] for item in everything["contents"] if item["type"] == "file"}
    assert files == {mine, deep, empty, aside}
    theirs = (await bob.ok("GET", "/drive/folder_contents/root"))["contents"]
    assert {item.get("file_id") or item["folder_id"] for item in theirs} == {top, sub, mine, deep, empty}


async def test_long_lists_come_page_by_page_and_complete(place: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = place.ann
    top = await ann.folder()
    folders = {await ann.folder(top) for _ in range(7)}
    files = {await ann.file(top, b"x" * number) for number in range(6)}
    for page_rows, page_bytes in ((1, 10**6), (2, 10**6), (3, 10**6), (6, 10**6), (100, 1), (100, 900)):
        monkeypatch.setattr("gauzian.database.views.PAGE_ROWS", page_rows)
        monkeypatch.setattr("gauzian.database.views.PAGE_BYTES", page_bytes)
        assert await ann.sees(top) == folders | files
        listed = (await ann.view(top))["files_and_folders"]["files"]
        assert [one["file_size"] for one in listed] == list(range(6)), "in the order they came"
        assert {one["file_id"] for one in await ann.ok("GET", "/drive/files")} == files
    for most in (1, 2, 3, 100):
        monkeypatch.setattr("gauzian.database.contents.PAGE_FILES", most)
        monkeypatch.setattr("gauzian.database.contents.PAGE_FOLDERS", most)
        for most_chunks, page_bytes in ((1, 10**6), (2, 10**6), (100, 10**6), (100, 1), (2, 900)):
            monkeypatch.setattr("gauzian.database.contents.PAGE_CHUNKS", most_chunks)
            monkeypatch.setattr("gauzian.database.contents.PAGE_BYTES", page_bytes)
            contents = (await ann.ok("GET", f"/drive/folder_contents/{top}"))["contents"]
            assert len(contents) == 13
            assert {item.get("file_id") or item["folder_id"] for item in contents} == folders | files
            assert sorted(len(item["chunks"]) for item in contents if item["type"] == "file") == [0, 1, 1, 1, 1, 1]


async def test_a_page_of_contents_holds_so_many_bytes_and_at_least_one_item(
    place: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = place.ann
    top = UUID(await ann.folder())
    for _ in range(3):
        await ann.file(str(top), name="n" * 1000)
    for most, expected in ((1, 1), (2000, 2), (10**6, 3)):
        monkeypatch.setattr("gauzian.database.contents.PAGE_BYTES", most)
        async with place.service.parts.database.connection() as conn:
            page = await contents.list_files(conn, user_id=UUID(ann.id), folder_id=top, after=None)
        assert len(page) == expected
        assert page[-1].is_last is (expected == 3)


async def test_a_path_of_more_names_than_fit_begins_further_down(place: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    ann = place.ann
    folders = [await ann.folder(name="n" * 100)]
    for _ in range(5):
        folders.append(await ann.folder(folders[-1], name="n" * 100))
    monkeypatch.setattr("gauzian.database.views.PATH_BYTES", 3 * 220)
    path = (await ann.view(folders[-1]))["full_path"]
    assert [crumb["folder_id"] for crumb in path] == folders[-3:]
    assert await ann.sees(folders[-2]) == {folders[-1]}


@pytest.mark.parametrize("folder", ["corbeille", "shared_with_me", "17", "not-a-uuid"])
async def test_what_is_no_folder_takes_nothing(place: Town, folder: str) -> None:
    given = {"encrypted_metadata": "m", "parent_folder_id": folder, "encrypted_folder_key": "k"}
    assert await place.ann.refused("POST", "/drive/create_folder", json=given) == (400, "bad_field")
    given = {"encrypted_metadata": "m", "folder_id": folder, "encrypted_file_key": "k", "mime_type": "", "size": 1}
    assert await place.ann.refused("POST", "/drive/initialize_file", json=given) == (400, "bad_field")


async def test_into_strange_unknown_and_view_only_folders_nothing_goes(place: Town) -> None:
    ann, bob = place.ann, place.bob
    folder, file, own = await ann.folder(), await bob.file(), await bob.folder()
    for expected in ((403, "not_yours"), (403, "not_yours"), (403, "not_yours")):
        given = {"encrypted_metadata": "m", "parent_folder_id": folder, "encrypted_folder_key": "k"}
        assert await bob.refused("POST", "/drive/create_folder", json=given) == expected
        given = {"encrypted_metadata": "m", "folder_id": folder, "encrypted_file_key": "k", "mime_type": "", "size": 1}
        assert await bob.refused("POST", "/drive/initialize_file", json=given) == expected
        given = {"file_id": file, "new_parent_folder_id": folder}
        assert await bob.refused("POST", "/drive/move_file", json=given) == expected
        given = {"folder_id": own, "new_parent_folder_id": folder}
        assert await bob.refused("POST", "/drive/move_folder", json=given) == expected
        if folder not in await bob.sees("shared_with_me"):
            await ann.share_folder(folder, bob, "viewer", accept=False)
        else:
            await bob.ok("POST", f"/drive/folders/{folder}/accept")
    assert await ann.sees(folder) == set()
    given = {"encrypted_metadata": "m", "parent_folder_id": str(uuid4()), "encrypted_folder_key": "k"}
    assert await bob.refused("POST", "/drive/create_folder", json=given) == (404, "folder_not_found")
