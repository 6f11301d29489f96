"""Two at once: whichever comes first, the tree is one afterwards in which everything can be found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.drive.people import Person, Town, town

pytestmark = pytest.mark.anyio

ROUNDS = 12


@pytest.fixture
async def place(database_url: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with town(database_url, tmp_path) as town_:
        yield town_


async def reachable(person: Person) -> set[str]:
    """Everything that listing after listing leads to, from the root, and from the trash."""
    found, ahead = set[str](), ["root", "corbeille", "shared_with_me"]
    while ahead:
        where = ahead.pop()
        lists = (await person.view(where))["files_and_folders"]
        for folder in lists["folders"]:
            assert folder["folder_id"] not in found, "listed twice, or a circle"
            found.add(folder["folder_id"])
            ahead.append(folder["folder_id"])
        found |= {file["file_id"] for file in lists["files"]}
    return found


async def test_two_moves_never_close_a_circle(place: Town) -> None:
    ann = place.ann
    for _ in range(ROUNDS):
        one, two = await ann.folder(), await ann.folder()
        await asyncio.gather(
            ann.call("POST", "/drive/move_folder", json={"folder_id": one, "new_parent_folder_id": two}),
            ann.call("POST", "/drive/move_folder", json={"folder_id": two, "new_parent_folder_id": one}),
        )
        assert {one, two} <= await reachable(ann)


async def test_what_is_put_into_a_folder_that_is_being_thrown_away_is_found(place: Town) -> None:
    ann, bob = place.ann, place.bob
    for _ in range(ROUNDS):
        top = await ann.folder()
        sub = await ann.folder(top)
        await ann.share_folder(top, bob, "editor")
        moved = await bob.file()
        new = {"encrypted_metadata": "m", "parent_folder_id": sub, "encrypted_folder_key": "k"}
        answers = await asyncio.gather(
            bob.call("POST", "/drive/create_folder", json=new),
            bob.call("POST", "/drive/move_file", json={"file_id": moved, "new_parent_folder_id": sub}),
            ann.call("DELETE", f"/drive/folders/{top}"),
            ann.call("POST", "/drive/create_folder", json=new),
        )
        assert answers[2].status == 200
        assert {answer.status for answer in answers} <= {200, 404, 409}
        theirs = {moved} | ({answers[0].json()["folder_id"]} if answers[0].status == 200 else set())
        assert theirs <= await reachable(bob)
        if answers[3].status == 200:
            # In the trash with the folder it lies in, or beside it.
            await ann.post("/drive/restore_folder", folder_id=top)
            assert answers[3].json()["folder_id"] in await reachable(ann)


async def test_what_comes_into_a_folder_that_is_being_revoked_falls_to_its_owners_root(place: Town) -> None:
    ann, bob = place.ann, place.bob
    for _ in range(ROUNDS):
        top = await ann.folder()
        await ann.share_folder(top, bob, "editor")
        moved = await bob.file()
        answers = await asyncio.gather(
            bob.call("POST", "/drive/move_file", json={"file_id": moved, "new_parent_folder_id": top}),
            ann.call(
                "POST", "/drive/revoke-access", json={"item_type": "folder", "item_id": top, "contact_id": bob.id}
            ),
        )
        assert answers[1].status == 200
        assert answers[0].status in (200, 403, 409), answers[0].body
        assert moved in await reachable(bob)
        assert top not in await reachable(bob)


async def test_delete_and_restore_at_once_leave_a_file_in_one_of_the_two_places(place: Town) -> None:
    ann = place.ann
    for _ in range(ROUNDS):
        folder = await ann.folder()
        file = await ann.file(folder)
        await ann.ok("DELETE", f"/drive/folders/{folder}")
        await asyncio.gather(
            ann.call("POST", "/drive/restore_file", json={"file_id": file}),
            ann.call("POST", "/drive/restore_folder", json={"folder_id": folder}),
            ann.call("POST", "/drive/delete_folder", json={"folder_id": folder}),
        )
        assert file in await reachable(ann)
        assert await ann.can_read(file)


async def test_emptying_the_trash_while_something_is_taken_out_of_it_keeps_or_removes_it_whole(place: Town) -> None:
    ann = place.ann
    for _ in range(ROUNDS):
        file = await ann.file(content=b"0123456789")
        await ann.ok("DELETE", f"/drive/files/{file}")
        restored, _ = await asyncio.gather(
            ann.call("POST", "/drive/restore_file", json={"file_id": file}),
            ann.call("POST", "/drive/empty_trash"),
        )
        assert restored.status in (200, 404)
        assert (file in await reachable(ann)) == (restored.status == 200)
        assert await ann.can_read(file) == (restored.status == 200)
        assert await ann.sees("corbeille") == set()


async def test_shares_and_propagation_by_many_at_once_give_each_one_row(place: Town) -> None:
    ann, bob, cat = place.ann, place.bob, place.cat
    top = await ann.folder()
    file = await ann.file(top)
    share = {"contact_id": bob.id, "encrypted_item_key": "k"}
    keys = [{"user_id": one.id, "encrypted_key": "k", "access_level": "viewer"} for one in (cat, bob)]
    answers = await asyncio.gather(
        *(ann.call("POST", f"/drive/files/{file}/share", json=share) for _ in range(5)),
        *(
            ann.call("POST", "/drive/propagate_file_access", json={"file_id": file, "user_keys": order})
            for order in (keys, keys[::-1]) * 3
        ),
    )
    assert {answer.status for answer in answers} == {200}
    assert len((await ann.ok("GET", f"/drive/file/{file}/InfoItem"))["shared_users"]) == 2
