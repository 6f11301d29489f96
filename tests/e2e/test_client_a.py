"""A life with client A, written out: every call it makes, in the order in which people make them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import pytest

from tests.e2e.clients import sealed
from tests.e2e.clients.a import ClientA
from tests.e2e.clients.base import Refused
from tests.e2e.clients.sealed import CHUNK_BYTES, TAG_BYTES
from tests.e2e.clients.transfers import Transfers, Upload
from tests.e2e.clients.views import find, members, names, path_of
from tests.e2e.clients.world import World, running_world
from tests.postgres import Postgres

pytestmark = pytest.mark.anyio

LONG = os.urandom(2 * CHUNK_BYTES + 500)
LONG_STORED = len(LONG) + 3 * TAG_BYTES


@pytest.fixture(scope="module")
async def world(postgres: Postgres) -> AsyncIterator[World]:
    with postgres.fresh_database() as url:
        async with running_world(url, quota_bytes=1 << 30) as world:
            yield world


async def refused(status: int, code: str, doing: object) -> None:
    with pytest.raises(Refused) as error:
        await doing  # type: ignore[misc]
    assert (error.value.status, error.value.fields["code"]) == (status, code), error.value


async def test_a_life_with_client_a(world: World) -> None:
    ada, mira = world.new_a("ada"), world.new_a("mira")
    await arrive(ada)
    await mira.register()
    folders = await build_a_tree(ada)
    files = await fill_it(ada, folders)
    await rearrange(ada, folders, files)
    await share(ada, mira, folders, files)
    await work_together(ada, mira, folders)
    await stop_sharing(ada, mira, folders, files)
    await throw_away(world, ada, folders, files)
    await change_ones_mind(world, ada)
    called = ada.called + mira.called
    assert [row for row in ClientA.ROWS if not called[row]] == [], "rows of the reference that nobody called"


async def arrive(ada: ClientA) -> None:
    """Unknown, registered, and on a second device: the keys must come with the sign-in."""
    assert not await ada.autologin()
    await ada.register()
    assert await ada.autologin()
    info = await ada.info()
    assert info["username"] == "ada"
    assert {key: info[key] for key in info.keys() & ada.keys.keys()} == {
        key: value for key, value in ada.keys.items() if key != "encrypted_record_key"
    }
    assert info.keys().isdisjoint({"password_hash", "auth_salt"})
    ada.browser.cookies.clear()
    assert not await ada.autologin()
    keys = await ada.login()
    assert keys["encrypted_private_key"] == ada.keys["encrypted_private_key"]
    assert await ada.autologin()
    empty = await ada.load()
    assert names(empty) == (set(), set())
    assert empty["full_path"] == []
    drive = empty["drive_info"]
    assert (drive["used_space"], drive["file_count"], drive["folder_count"]) == (0, 0, 0)
    assert drive["storage_limit_bytes"] == 1 << 30
    assert empty["user_info"] == {"id": ada.user_id, "username": "ada", "email": ada.email}


async def build_a_tree(ada: ClientA) -> dict[str, str]:
    """Letters / 2026 / March, and Pictures."""
    letters = await ada.create_folder("Letters", "root")
    year = await ada.create_folder("2026", letters)
    march = await ada.create_folder("March", year)
    pictures = await ada.create_folder("Pictures", "root")
    assert names(await ada.open_folder("root")) == ({"Letters", "Pictures"}, set())
    inside = await ada.open_folder(march)
    assert names(inside) == (set(), set())
    assert path_of(inside) == ["Letters", "2026", "March"]
    assert [crumb["folder_id"] for crumb in inside["full_path"]] == [letters, year, march]
    assert [folder["folder_id"] for folder in await ada.list_folders(letters)] == [year]
    assert {folder["folder_id"] for folder in await ada.list_folders("root")} == {letters, pictures}
    assert find(await ada.open_folder("root"), "Letters")["is_root"] is True
    assert find(await ada.open_folder(letters), "2026")["parent_folder_id"] == letters
    nowhere = await ada.open_folder(ada.user_id)
    assert names(nowhere) == (set(), set())
    assert nowhere["full_path"] == []  # which sends the client back to the root
    assert (await ada.load(march))["drive_info"]["folder_count"] == 4
    return {"Letters": letters, "2026": year, "March": march, "Pictures": pictures}


async def fill_it(ada: ClientA, folders: dict[str, str]) -> dict[str, str]:
    transfers = Transfers(ada)
    uploads = await transfers.upload_all({"long.txt": LONG, "empty.txt": b"", "one.txt": b"1"}, folders["March"])
    uploads += await transfers.upload_all({"top.txt": b"at the root"}, "root")
    assert {upload.state for upload in uploads} == {"finished"}
    files = {upload.name: upload.file_id for upload in uploads}
    view = await ada.open_folder(folders["March"])
    assert names(view) == (set(), {"long.txt", "empty.txt", "one.txt"})
    item = find(view, "long.txt")
    assert (item["file_id"], item["folder_id"], item["access_level"]) == (
        files["long.txt"],
        folders["March"],
        "owner",
    )
    assert (item["file_size"], item["mime_type"]) == (len(LONG), "text/plain")
    assert len(LONG) + 1 <= find(await ada.open_folder(folders["2026"]), "March")["folder_size"] <= LONG_STORED + 17
    assert find(await ada.load(), "top.txt")["folder_id"] is None
    drive = view["drive_info"]
    assert (drive["file_count"], drive["folder_count"]) == (4, 4)
    assert drive["used_space"] == LONG_STORED + (1 + TAG_BYTES) + (11 + TAG_BYTES)
    assert await transfers.download(files["long.txt"]) == LONG
    return files


async def rearrange(ada: ClientA, folders: dict[str, str], files: dict[str, str]) -> None:
    await ada.rename("file", files["one.txt"], sealed.metadata(filename="uno.txt"))
    await ada.rename("folder", folders["Pictures"], sealed.metadata(folder_name="Photos"))
    assert "Photos" in names(await ada.open_folder("root"))[0]
    await ada.move("file", files["one.txt"], folders["Pictures"])
    assert names(await ada.open_folder(folders["Pictures"])) == (set(), {"uno.txt"})
    await ada.move("file", files["one.txt"], "root")
    assert names(await ada.open_folder("root")) == ({"Letters", "Photos"}, {"top.txt", "uno.txt"})
    await ada.move("folder", folders["Pictures"], folders["Letters"])
    assert path_of(await ada.open_folder(folders["Pictures"])) == ["Letters", "Photos"]
    await refused(409, "folder_cycle", ada.move("folder", folders["Letters"], folders["March"]))
    await ada.move("folder", folders["Pictures"], "root")
    assert names(await ada.open_folder(folders["Letters"])) == ({"2026"}, set())
    archive = await Transfers(ada).zip(folders["Letters"])
    assert archive == {f"{folders['March']}/long.txt": LONG, f"{folders['March']}/empty.txt": b""}
    assert await Transfers(ada).zip(folders["March"]) == {"long.txt": LONG, "empty.txt": b""}


async def share(ada: ClientA, mira: ClientA, folders: dict[str, str], files: dict[str, str]) -> None:
    """With the level that the form begins with, `read`; the contact is who `id` says."""
    await refused(404, "user_not_found", ada.find_contact("nobody@example.org"))
    contact = await ada.find_contact(mira.email.upper())
    assert contact["id"] == mira.user_id
    assert contact["public_key"] == mira.keys["public_key"]
    await ada.share_file(files["top.txt"], contact["id"], "read")
    await ada.share_folder(folders["Letters"], contact["id"], "read")
    view = await mira.load()
    assert names(view) == ({"Letters"}, {"top.txt"})
    assert find(view, "top.txt")["access_level"] == "viewer"
    assert find(view, "Letters")["parent_folder_id"] is None
    assert view["drive_info"]["used_space"] == 0  # it is Ada's space
    assert path_of(await mira.open_folder(folders["March"])) == ["Letters", "2026", "March"]
    assert await Transfers(mira).download(files["long.txt"]) == LONG
    assert await Transfers(mira).zip(folders["2026"]) == {
        f"{folders['March']}/long.txt": LONG,
        f"{folders['March']}/empty.txt": b"",
    }
    await refused(403, "not_yours", mira.rename("file", files["top.txt"], sealed.metadata(filename="mine")))
    await refused(403, "not_yours", mira.create_folder("Mine", folders["March"]))
    await refused(403, "not_yours", mira.share_file(files["top.txt"], ada.user_id, "editor"))
    assert members(await ada.info_panel("file", files["top.txt"])) == {"mira": "viewer"}
    assert members(await ada.info_panel("folder", folders["Letters"])) == {"mira": "viewer"}
    await ada.share_folder(folders["Letters"], contact["id"], "editor")
    assert members(await ada.info_panel("folder", folders["Letters"])) == {"mira": "editor"}


async def work_together(ada: ClientA, mira: ClientA, folders: dict[str, str]) -> None:
    """Whatever is put into a shared folder is there for its members at once: the client hands the keys around."""
    april = await ada.create_folder("April", folders["2026"])
    await Transfers(ada).upload_all({"from ada": b"hello"}, april)
    view = await mira.open_folder(april)
    assert names(view) == (set(), {"from ada"})
    assert await Transfers(mira).download(find(view, "from ada")["file_id"]) == b"hello"
    (answer,) = await Transfers(mira).upload_all({"from mira": LONG}, april)
    may = await mira.create_folder("May", april)
    assert names(await ada.open_folder(april)) == ({"May"}, {"from ada", "from mira"})
    assert await Transfers(ada).download(answer.file_id) == LONG
    assert members(await mira.info_panel("file", answer.file_id)) == {"ada": "editor"}
    assert names(await mira.load(april)) == ({"May"}, {"from ada", "from mira"})
    await mira.rename("folder", april, sealed.metadata(folder_name="Spring"))
    assert path_of(await ada.open_folder(may)) == ["Letters", "2026", "Spring", "May"]
    used = (await mira.load())["drive_info"]["used_space"]
    assert used == LONG_STORED  # what she has brought
    folders |= {"Spring": april, "May": may}


async def stop_sharing(ada: ClientA, mira: ClientA, folders: dict[str, str], files: dict[str, str]) -> None:
    keys = [chunk["s3_key"] for chunk in (await mira.file_info(files["long.txt"]))["chunks"]]
    await refused(403, "not_yours", mira.revoke("file", files["top.txt"], ada.user_id))
    await ada.revoke("file", files["top.txt"], mira.user_id)
    await ada.revoke("folder", folders["Letters"], mira.user_id)
    await refused(403, "not_yours", mira.download_chunk(keys[0]))
    await refused(403, "not_yours", mira.file_info(files["long.txt"]))
    view = await mira.load()
    assert names(view) == ({"May"}, {"from mira"})  # her own things are at her root now
    assert await Transfers(mira).download(find(view, "from mira")["file_id"]) == LONG
    for name in ("Letters", "March"):
        gone = await mira.open_folder(folders[name])
        assert names(gone) == (set(), set())
        assert gone["full_path"] == []
    assert await ada.info_panel("folder", folders["Letters"]) == []


async def throw_away(world: World, ada: ClientA, folders: dict[str, str], files: dict[str, str]) -> None:
    """Once: in the trash. A second time by this client: nothing. Emptied: gone with every object."""
    await ada.delete("file", files["top.txt"])
    await ada.delete("file", files["top.txt"])
    view = await ada.open_folder("corbeille")
    assert names(view)[1] == {"top.txt"}
    assert view["corbeille_info"]["file_count"] == 1
    await ada.restore("file", files["top.txt"])
    assert "top.txt" in names(await ada.open_folder("root"))[1]
    await refused(404, "not_in_trash", ada.restore("file", files["top.txt"]))
    await ada.delete("folder", folders["2026"])
    assert names(await ada.open_folder(folders["Letters"])) == (set(), set())
    assert {"long.txt", "empty.txt", "from ada"} <= names(await ada.open_folder("corbeille"))[1]
    await ada.restore("folder", folders["2026"])
    assert names(await ada.open_folder(folders["March"])) == (set(), {"long.txt", "empty.txt"})
    assert names(await ada.open_folder("corbeille")) == (set(), set())
    await ada.delete("folder", folders["2026"])
    used, objects = (await ada.load())["drive_info"]["used_space"], await world.objects()
    await ada.empty_trash()
    assert names(await ada.open_folder("corbeille")) == (set(), set())
    await refused(404, "file_not_found", ada.file_info(files["long.txt"]))
    assert len(objects - await world.objects()) == 3 + 1  # long.txt and "from ada"; not the one that is Mira's
    assert used - (await ada.load())["drive_info"]["used_space"] == LONG_STORED + 5 + TAG_BYTES


async def change_ones_mind(world: World, ada: ClientA) -> None:
    """An upload cancelled before its first chunk, and once more although it is gone."""
    upload = Upload("never", LONG)
    upload.file_id = await ada.initialize(upload.name, upload.content, "root")
    await ada.upload_chunk(upload.file_id, 0, sealed.new_iv(), sealed.seal(LONG[:CHUNK_BYTES]))
    objects = await world.objects()
    await Transfers(ada).cancel(upload)
    await ada.finalize(upload.file_id, "aborted")
    assert len(objects - await world.objects()) == 1
    assert "never" not in names(await ada.load())[1]
