"""Share, accept, reject, propagate, revoke, who sees this."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.drive.people import Town, town

pytestmark = pytest.mark.anyio


@pytest.fixture
async def place(database_url: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with town(database_url, tmp_path) as town_:
        yield town_


async def test_a_share_is_an_invitation_until_it_is_accepted(place: Town) -> None:
    ann, bob = place.ann, place.bob
    file = await ann.file()
    await ann.share_file(file, bob, accept=False)
    assert await bob.sees() == set()
    assert await bob.sees("shared_with_me") == await bob.sees("shared-with-me") == {file}
    assert (await bob.ok("GET", f"/drive/file/{file}"))["encrypted_file_key"] == "their key"
    assert not await bob.can_read(file)
    await bob.ok("POST", f"/drive/files/{file}/accept")
    await bob.ok("POST", f"/drive/files/{file}/accept")
    assert (await bob.sees(), await bob.sees("shared_with_me")) == ({file}, set())
    assert await bob.can_read(file)


async def test_a_rejected_invitation_is_gone_and_not_in_anybodys_trash(place: Town) -> None:
    ann, bob = place.ann, place.bob
    file, folder = await ann.file(), await ann.folder()
    inside = await ann.file(folder)
    await ann.share_file(file, bob, accept=False)
    await ann.share_folder(folder, bob, accept=False)
    await bob.ok("POST", f"/drive/files/{file}/reject")
    await bob.ok("POST", f"/drive/folders/{folder}/reject")
    for where in ("root", "shared_with_me", "corbeille"):
        assert await bob.sees(where) == set(), where
    assert await bob.refused("POST", f"/drive/files/{file}/accept") == (403, "not_yours")
    assert await bob.refused("GET", f"/drive/file/{inside}") == (403, "not_yours")
    assert await ann.sees() == {file, folder}
    await ann.share_file(file, bob)
    assert await bob.sees() == {file}


async def test_a_folder_is_shared_with_all_below_it_and_accepted_as_one(place: Town) -> None:
    ann, bob = place.ann, place.bob
    above = await ann.folder()
    top = await ann.folder(above)
    sub = await ann.folder(top)
    one, two = await ann.file(top), await ann.file(sub)
    await ann.share_folder(top, bob, accept=False)
    assert await bob.sees("shared_with_me") == {top}
    (listed,) = (await bob.view("shared_with_me"))["files_and_folders"]["folders"]
    assert (listed["parent_folder_id"], listed["encrypted_folder_key"]) == (None, "their key")
    assert await bob.sees() == set()
    await bob.ok("POST", f"/drive/folders/{top}/accept")
    assert (await bob.sees(), await bob.sees(top), await bob.sees(sub)) == ({top}, {one, sub}, {two})
    (listed,) = (await bob.ok("GET", "/drive/get_folder/root"))["folder_contents"]
    assert listed["parent_folder_id"] is None, "the tree of existing clients shows only what says so"
    assert [crumb["folder_id"] for crumb in (await bob.view(sub))["full_path"]] == [top, sub]


async def test_clients_that_know_no_invitations_find_what_is_shared_with_them(place: Town) -> None:
    """The first generation has no accept call; it asks for this when its page is opened."""
    ann, bob = place.ann, place.bob
    top, file = await ann.folder(), await ann.file()
    inside = await ann.file(top)
    await ann.share_folder(top, bob, accept=False)
    await ann.share_file(file, bob, accept=False)
    view = await bob.ok("GET", "/drive/get_all_drive_info/root")
    assert view["user_info"]["id"] == bob.id
    assert await bob.sees() == {top, file}
    assert await bob.sees(top) == {inside}
    assert await bob.sees("shared_with_me") == set()


async def test_names_of_both_generations_and_what_their_selectors_send(place: Town) -> None:
    ann, bob = place.ann, place.bob
    for given, level in (
        ({"contact_id": bob.id, "encrypted_item_key": "k", "access_level": "read"}, "viewer"),
        ({"recipient_user_id": bob.id, "encrypted_file_key": "k"}, "viewer"),
        ({"contact_id": bob.id, "encrypted_item_key": "k", "access_level": "editor"}, "editor"),
        ({"contact_id": bob.id, "encrypted_item_key": "k", "access_level": None}, "viewer"),
    ):
        file = await ann.file()
        await ann.ok("POST", f"/drive/files/{file}/share", json=given)
        shown = (await ann.ok("GET", f"/drive/file/{file}/InfoItem"))["shared_users"]
        assert [(one["user_id"], one["permission"]) for one in shown] == [(bob.id, level)]
        assert set(shown[0]) == {"user_id", "username", "permission", "public_key"}


@pytest.mark.parametrize("level", ["owner", "admin", "", 7])
async def test_nobody_is_made_an_owner(place: Town, level: object) -> None:
    file = await place.ann.file()
    given = {"contact_id": place.bob.id, "encrypted_item_key": "k", "access_level": level}
    if level == "":
        await place.ann.ok("POST", f"/drive/files/{file}/share", json=given)
        return
    refused = await place.ann.refused("POST", f"/drive/files/{file}/share", json=given)
    assert refused == (400, "bad_field")
    assert await place.bob.sees("shared_with_me") == set()


async def test_whose_thing_it_is_comes_before_anything_else(place: Town) -> None:
    """Sharing a stranger's thing with oneself is 403 and not 400."""
    ann, bob = place.ann, place.bob
    file, folder = await ann.file(), await ann.folder()
    for path in (f"/drive/files/{file}/share", f"/drive/folders/{folder}/share"):
        given = {"contact_id": bob.id, "encrypted_item_key": "k", "access_level": "nonsense"}
        assert await bob.refused("POST", path, json=given) == (403, "not_yours")
        assert await ann.refused("POST", path, json=given | {"contact_id": ann.id}) == (400, "bad_field")
        assert await ann.refused("POST", path, json=given | {"contact_id": str(uuid4())}) == (404, "user_not_found")
    assert await bob.refused("POST", f"/drive/files/{uuid4()}/share", json={}) == (404, "file_not_found")


async def test_a_batch_cannot_name_what_one_does_not_see(place: Town) -> None:
    """Or an accomplice would be given any level on a stranger's folder."""
    ann, bob, cat = place.ann, place.bob, place.cat
    secret, secret_file = await ann.folder(), await ann.file()
    own = await bob.folder()
    for keys in (
        {"folder_keys": [{"folder_id": secret, "encrypted_folder_key": "k"}]},
        {"file_keys": [{"file_id": secret_file, "encrypted_file_key": "k"}]},
    ):
        mine = {"folder_id": own, "encrypted_folder_key": "k"}
        given = {"folder_id": own, "contact_id": cat.id, "access_level": "editor", "folder_keys": [mine]} | keys
        assert await bob.refused("POST", "/drive/share_folder_batch", json=given) == (403, "not_yours")
    assert await cat.sees("shared_with_me") == set()
    assert not await cat.can_read(secret_file)


async def test_a_batch_leaves_out_what_is_seen_but_not_owned(place: Town) -> None:
    ann, bob, cat = place.ann, place.bob, place.cat
    top = await ann.folder()
    await ann.share_folder(top, bob, "editor")
    theirs, mine = await bob.file(top), await ann.file(top)
    await bob.propagate("file", theirs, ann)
    await ann.share_folder(top, cat)
    assert await cat.sees(top) == {mine}


async def test_what_is_new_in_a_shared_folder_is_propagated_to_its_members(place: Town) -> None:
    ann, bob, cat = place.ann, place.bob, place.cat
    top = await ann.folder()
    await ann.share_folder(top, bob, "editor")
    await ann.share_folder(top, cat, accept=False)
    members = (await bob.ok("GET", f"/drive/folder/{top}/shared_users"))["shared_users"]
    assert {one["user_id"]: one["access_level"] for one in members} == {ann.id: "owner"}, (
        "invited is the owner's to know"
    )
    members = (await ann.ok("GET", f"/drive/folder/{top}/shared_users"))["shared_users"]
    assert {one["user_id"] for one in members} == {bob.id, cat.id}
    uploading = await bob.user.initialize(3, folder_id=top)
    await bob.propagate("file", uploading, ann, level="owner")
    assert await ann.sees(top) == set(), "not before it is whole"
    await bob.user.put(uploading, 0, b"abc")
    await bob.user.finalize(uploading)
    assert await ann.sees(top) == {uploading}
    rename = {"file_id": uploading, "new_encrypted_metadata": "by ann"}
    await ann.ok("POST", "/drive/rename_file", json=rename)  # the folder's owner got all but the ownership
    new = await ann.file(top)
    await ann.propagate("file", new, bob, cat)
    assert await bob.sees(top) == {uploading, new}
    assert await cat.sees(top) == set(), "an invitation is not accepted by somebody else"
    assert await cat.sees("shared_with_me") == {top}
    assert not await cat.can_read(new)
    await cat.ok("POST", f"/drive/folders/{top}/accept")
    assert await cat.sees(top) == {new}


async def test_propagating_to_strangers_is_inviting_them_and_to_nobody_is_refused(place: Town) -> None:
    ann, bob = place.ann, place.bob
    file, folder = await ann.file(), await ann.folder()  # in the root, which has no members
    await ann.propagate("file", file, bob, ann)
    await ann.propagate("folder", folder, bob)
    assert (await bob.sees(), await bob.sees("shared_with_me")) == (set(), {file, folder})
    given = {
        "file_id": file,
        "user_keys": [{"user_id": str(uuid4()), "encrypted_key": "k", "access_level": "viewer"}],
    }
    assert await ann.refused("POST", "/drive/propagate_file_access", json=given) == (404, "user_not_found")
    given["user_keys"] = [{"user_id": ann.id, "encrypted_key": "overwritten", "access_level": "viewer"}]
    await ann.ok("POST", "/drive/propagate_file_access", json=given)
    assert (await ann.ok("GET", f"/drive/file/{file}"))["encrypted_file_key"] == "a2V5"
    assert await bob.refused("POST", "/drive/propagate_file_access", json=given) == (403, "not_yours")


async def test_who_is_revoked_loses_chunks_at_once_and_keeps_what_is_theirs(place: Town) -> None:
    ann, bob, cat = place.ann, place.bob, place.cat
    top = await ann.folder()
    sub = await ann.folder(top)
    file = await ann.file(sub)
    for other in (bob, cat):
        await ann.share_folder(top, other, "editor")
    own = await bob.file(sub)
    await bob.propagate("file", own, ann, cat)
    info = await bob.ok("GET", f"/drive/file/{file}")
    chunk = f"/drive/download_chunk_binary/{info['chunks'][0]['s3_key']}"
    assert (await bob.call("GET", chunk)).status == 200
    await ann.post("/drive/revoke-access", item_type="folder", item_id=top, contact_id=bob.id)
    assert (await bob.call("GET", chunk)).status == 403
    assert not await bob.can_read(file)
    assert await bob.sees() == {own}
    assert await bob.can_read(own)
    assert await ann.sees(sub) == await cat.sees(sub) == {file, own}
    given = {"item_type": "folder", "item_id": top, "contact_id": bob.id}
    assert await ann.refused("POST", "/drive/revoke-access", json=given) == (404, "share_not_found")
    assert await ann.refused("POST", "/drive/revoke-access", json=given | {"contact_id": ann.id}) == (400, "bad_field")


async def test_the_forms_of_revoking(place: Town) -> None:
    ann, bob = place.ann, place.bob
    for thing in ("file", "folder"):
        id = await (ann.file() if thing == "file" else ann.folder())
        for method, path, given in (
            ("POST", "/drive/revoke-access", {"item_type": thing, "item_id": id, "user_id": bob.id}),
            ("DELETE", f"/drive/{thing}s/{id}/share/{bob.id}", None),
        ):
            if thing == "file":
                await ann.share_file(id, bob)
            else:
                await ann.share_folder(id, bob)
            assert await bob.sees() == {id}
            await ann.ok(method, path, json=given)
            assert await bob.sees() == set()
    given = {"item_type": "planet", "item_id": id, "contact_id": bob.id}
    assert await ann.refused("POST", "/drive/revoke-access", json=given) == (400, "bad_field")


async def test_the_root_is_shared_with_nobody_and_asking_is_no_error(place: Town) -> None:
    for route in ("shared_users", "InfoItem"):
        assert await place.ann.ok("GET", f"/drive/folder/root/{route}") == {"shared_users": []}


async def test_a_second_share_changes_level_and_key_and_nothing_else(place: Town) -> None:
    ann, bob = place.ann, place.bob
    folder, own = await ann.folder(), await bob.folder()
    await ann.share_folder(folder, bob, "viewer")
    await bob.call("POST", "/drive/move_folder", json={"folder_id": folder, "new_parent_folder_id": own})
    await ann.share_folder(folder, bob, "editor", accept=False)
    assert folder in await bob.sees(), "not an invitation again"
    await bob.ok("PATCH", f"/drive/folders/{folder}", json={"new_encrypted_metadata": "by bob"})
    await ann.share_folder(folder, bob, "viewer", accept=False)
    given = {"new_encrypted_metadata": "by bob"}
    assert await bob.refused("PATCH", f"/drive/folders/{folder}", json=given) == (403, "not_yours")


@pytest.mark.parametrize("kind", ["file", "folder"])
async def test_revoking_a_folder_takes_nothing_that_its_owner_has_shared_elsewhere(place: Town, kind: str) -> None:
    ann, bob, cat = place.ann, place.bob, place.cat
    thing = await (cat.file() if kind == "file" else cat.folder())
    for other in (ann, bob):
        await (cat.share_file if kind == "file" else cat.share_folder)(thing, other, "editor")
    folder = await ann.folder()
    await ann.share_folder(folder, bob)
    await ann.post(f"/drive/move_{kind}", **{f"{kind}_id": thing, "new_parent_folder_id": folder})
    await ann.post("/drive/revoke-access", item_type="folder", item_id=folder, contact_id=bob.id)
    assert await bob.sees() == {thing}


async def test_large_shares_take_turns_and_none_is_larger_than_we_have_memory_for(
    place: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = place.ann, place.bob
    folder = await ann.folder()
    given = {"folder_id": folder, "contact_id": bob.id, "padding": "x" * 200_000}  # more than other commands may be
    await ann.ok("POST", "/drive/share_folder_batch", json=given)
    too_large = given | {"padding": "x" * (4 * 1024 * 1024)}
    assert await ann.refused("POST", "/drive/share_folder_batch", json=too_large) == (413, "body_too_large")
    await asyncio.gather(*(ann.ok("POST", "/drive/share_folder_batch", json=given) for _ in range(6)))
    with monkeypatch.context() as patch:
        patch.setattr("gauzian.drive.sharing._MOST_WAIT_SECONDS", 0.0)
        assert await ann.refused("POST", "/drive/share_folder_batch", json=given) == (503, "lists_busy")
    await ann.ok("POST", "/drive/share_folder_batch", json=given)


async def test_a_thing_is_shared_with_so_many_and_no_more(place: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob, cat = place.ann, place.bob, place.cat
    monkeypatch.setattr("gauzian.database.shares.MOST_MEMBERS", 2)  # its owner is one
    file, folder = await ann.file(), await ann.folder()
    await ann.share_file(file, bob)
    await ann.share_folder(folder, bob)
    share = {"contact_id": cat.id, "encrypted_item_key": "k"}
    batch = {
        "folder_id": folder,
        "contact_id": cat.id,
        "folder_keys": [{"folder_id": folder, "encrypted_folder_key": "k"}],
    }
    keys = {"file_id": file, "user_keys": [{"user_id": cat.id, "encrypted_key": "k", "access_level": "viewer"}]}
    for path, given in (
        (f"/drive/files/{file}/share", share),
        (f"/drive/folders/{folder}/share", share),
        ("/drive/share_folder_batch", batch),
        ("/drive/propagate_file_access", keys),
    ):
        assert await ann.refused("POST", path, json=given) == (409, "too_many_members"), path
    assert await cat.sees("shared_with_me") == set()
    await ann.share_file(file, bob, "editor", accept=False)  # who has it already may be given another level
