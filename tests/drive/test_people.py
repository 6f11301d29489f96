"""What an operator does to users: space, off and on, away; what becomes of what they share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gauzian.assembly.people import People
from gauzian.errors import UserNotThere
from tests.drive.people import Town, town
from tests.service import PASSWORD, objects_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def place(database_url: str, tmp_path: Path) -> AsyncIterator[Town]:
    async with town(database_url, tmp_path) as town_:
        yield town_


def people_of(place: Town) -> People:
    return People(place.service.parts.database, place.service.parts.store)


async def test_everybody_is_listed_with_what_they_take(place: Town) -> None:
    await place.ann.file(content=b"12345")
    await place.ann.ok("DELETE", f"/drive/files/{await place.ann.file(content=b'123')}")
    unfinished = await place.ann.user.initialize(2)
    await place.ann.user.put(unfinished, 0, b"12")
    listed = {str(one.id): one async for one in people_of(place).list()}
    assert set(listed) == {place.ann.id, place.bob.id, place.cat.id}
    ann, bob = listed[place.ann.id], listed[place.bob.id]
    assert (ann.used_bytes, ann.files, ann.quota_bytes, ann.is_active) == (10, 2, None, True)
    assert (bob.used_bytes, bob.files) == (0, 0)


async def test_a_long_list_comes_page_by_page(place: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 2, 3):
        monkeypatch.setattr("gauzian.assembly.people._PAGE", size)
        assert len([one async for one in people_of(place).list()]) == 3


async def test_a_quota_of_ones_own_holds_at_once_and_the_default_comes_back(place: Town) -> None:
    ann = place.ann
    await ann.file(content=b"12345")
    await people_of(place).set_quota(ann.user.email.upper(), 8)
    info = await ann.ok("GET", "/drive/get_drive_info")
    assert (info["storage_limit_bytes"], info["account_tier"]) == (8, "custom")
    given = {"size": 4, "encrypted_metadata": "m", "mime_type": "", "folder_id": "root", "encrypted_file_key": "k"}
    assert await ann.refused("POST", "/drive/initialize_file", json=given) == (507, "quota_exceeded")
    await people_of(place).set_quota(ann.user.email, None)
    await ann.file(content=b"1234")


async def test_who_is_switched_off_is_out_and_whoever_they_share_with_is_not(place: Town) -> None:
    ann, bob = place.ann, place.bob
    file = await ann.file()
    await ann.share_file(file, bob)
    await people_of(place).set_active(ann.user.email, is_active=False)
    assert await ann.refused("GET", "/drive/get_drive_info") == (401, "invalid_token")
    sign_in = {"email": ann.user.email, "password": PASSWORD}
    assert (await place.service.call("POST", "/login", json=sign_in)).status == 401
    assert await bob.can_read(file)
    await people_of(place).set_active(ann.user.email, is_active=True)
    assert await ann.refused("GET", "/drive/get_drive_info") == (401, "invalid_token"), "that sign-in is over"
    assert (await place.service.call("POST", "/login", json=sign_in)).status == 200


async def test_who_is_deleted_takes_what_is_theirs_along_and_nothing_of_others(place: Town) -> None:
    ann, bob, cat = place.ann, place.bob, place.cat
    top = await ann.folder()
    sub = await ann.folder(top)
    file, trashed = await ann.file(sub), await ann.file()
    await ann.ok("DELETE", f"/drive/files/{trashed}")
    unfinished = await ann.user.initialize(10, folder_id=top)
    await ann.user.put(unfinished, 0, b"12345")
    for other in (bob, cat):
        await ann.share_folder(top, other, "editor")
    theirs, folder = await bob.file(sub), await bob.folder(sub)
    inside = await bob.file(folder)
    for kind, id in (("file", theirs), ("folder", folder), ("file", inside)):
        await bob.propagate(kind, id, ann, cat)
    kept = await cat.file()
    await cat.share_file(kept, ann)

    person, is_clean = await people_of(place).delete(ann.user.email)
    assert (str(person.id), is_clean) == (ann.id, True)
    assert await bob.sees() == {theirs, folder}
    assert await cat.sees() == {theirs, folder, kept}
    assert await bob.sees(folder) == await cat.sees(folder) == {inside}
    for id in (theirs, inside):
        assert await bob.can_read(id)
        assert await cat.can_read(id)
    assert await bob.refused("GET", f"/drive/file/{file}") == (404, "file_not_found")
    objects = {key.split(".")[0] for key in await objects_of(place.service) if not key.startswith("instance.")}
    assert objects == {theirs, inside, kept}
    report = await place.service.parts.reaper.reap(sweep=True)
    assert (report.uploads, report.objects) == (0, 0)
    assert (
        await place.service.call("POST", "/login", json={"email": ann.user.email, "password": PASSWORD})
    ).status == 401
    with pytest.raises(UserNotThere):
        await people_of(place).delete(ann.user.email)
