"""A life with client B, written out: every call it makes, in the order in which people make them."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator

import pytest

from tests.e2e.clients import sealed
from tests.e2e.clients.b import ClientB
from tests.e2e.clients.base import Refused
from tests.e2e.clients.sealed import CHUNK_BYTES, TAG_BYTES
from tests.e2e.clients.transfers import Transfers, Upload
from tests.e2e.clients.views import find, members, names, path_of, tree_names
from tests.e2e.clients.world import World, running_world
from tests.postgres import Postgres

pytestmark = pytest.mark.anyio

LONG = os.urandom(2 * CHUNK_BYTES + 500)
LONG_STORED = len(LONG) + 3 * TAG_BYTES


@pytest.fixture(scope="module")
async def world(postgres: Postgres) -> AsyncIterator[World]:
    with postgres.fresh_database() as url:
        async with running_world(url) as world:
            yield world


async def refused(status: int, code: str, doing: object) -> None:
    with pytest.raises(Refused) as error:
        await doing  # type: ignore[misc]
    assert (error.value.status, error.value.fields["code"]) == (status, code), error.value


async def test_a_life_with_client_b(world: World, caplog: pytest.LogCaptureFixture) -> None:
    bob, mira = world.new_b("bob"), world.new_b("mira")
    await arrive(bob, caplog)
    await arrive(mira, caplog)
    folders = await build_a_tree(bob)
    files = await fill_it(bob, folders)
    await rearrange(bob, folders, files)
    await share(bob, mira, folders, files)
    await accept_and_reject(bob, mira, folders, files)
    await work_together(bob, mira, folders)
    await stop_sharing(bob, mira, folders, files)
    await throw_away(world, bob, folders, files)
    await change_ones_mind(world, bob)
    await leave(bob)
    called = bob.called + mira.called
    assert [row for row in ClientB.ROWS if not called[row]] == [], "rows of the reference that nobody called"


async def arrive(client: ClientB, caplog: pytest.LogCaptureFixture) -> None:
    """Without a mail server the code stands in the log."""
    assert not await client.autologin()
    await client.send_code()
    told = [line for line in (record.getMessage() for record in caplog.records) if client.email.lower() in line]
    code = re.findall(r"\b[A-Z0-9]{6}\b", told[-1])[-1]
    await refused(401, "wrong_code", client.verify_code("ABC123" if code != "ABC123" else "ABC124"))
    temp_token = await client.verify_code(f" {code.lower()} ")
    await refused(401, "email_not_proved", client.register("not-the-token"))
    await client.register(temp_token)
    assert await client.autologin()
    info = await client.drive_info()
    assert (info["used_space"], info["file_count"], info["folder_count"]) == (0, 0, 0)
    assert info["storage_limit_bytes"] == 2**53 - 1  # none, in a number that JavaScript can count with
    await client.logout()
    assert not await client.autologin()
    keys = await client.login()
    assert keys["encrypted_private_key"] == client.keys["encrypted_private_key"]


async def build_a_tree(bob: ClientB) -> dict[str, str]:
    letters = await bob.create_folder("Letters", "root")
    year = await bob.create_folder("2026", letters)
    march = await bob.create_folder("March", year)
    pictures = await bob.create_folder("Pictures", "root")
    assert tree_names(await bob.list_folders("root"), "root") == {"Letters", "Pictures"}
    assert tree_names(await bob.list_folders(letters), letters) == {"2026"}
    inside = await bob.open_folder(march)
    assert names(inside) == (set(), set())
    assert path_of(inside) == ["Letters", "2026", "March"]
    nowhere = await bob.open_folder(bob.user_id)
    assert names(nowhere) == (set(), set())
    assert nowhere["full_path"] == []
    return {"Letters": letters, "2026": year, "March": march, "Pictures": pictures}


async def fill_it(bob: ClientB, folders: dict[str, str]) -> dict[str, str]:
    transfers = Transfers(bob)
    uploads = await transfers.upload_all({"long.txt": LONG, "empty.txt": b"", "one.txt": b"1"}, folders["March"])
    uploads += await transfers.upload_all({"top.txt": b"at the root", "other.txt": b"o"}, "root")
    assert {upload.state for upload in uploads} == {"finished"}
    files = {upload.name: upload.file_id for upload in uploads}
    view = await bob.open_folder(folders["March"])
    assert names(view) == (set(), {"long.txt", "empty.txt", "one.txt"})
    assert find(view, "long.txt")["file_size"] == len(LONG)
    info = await bob.drive_info()
    assert info == view["drive_info"]
    assert (info["file_count"], info["folder_count"]) == (5, 4)
    assert info["used_space"] == LONG_STORED + (1 + 11 + 1) + 3 * TAG_BYTES
    assert await transfers.download(files["long.txt"]) == LONG
    return files


async def rearrange(bob: ClientB, folders: dict[str, str], files: dict[str, str]) -> None:
    await bob.rename("file", files["one.txt"], sealed.metadata(filename="uno.txt"))
    await bob.rename("folder", folders["Pictures"], sealed.metadata(folder_name="Photos"))
    await bob.move("file", files["one.txt"], folders["Pictures"])
    assert names(await bob.open_folder(folders["Pictures"])) == (set(), {"uno.txt"})
    await bob.move("file", files["one.txt"], "root")
    assert names(await bob.open_folder("root")) == ({"Letters", "Photos"}, {"top.txt", "other.txt", "uno.txt"})
    await bob.move("folder", folders["Pictures"], folders["Letters"])
    assert tree_names(await bob.list_folders("root"), "root") == {"Letters"}  # in one place, not in two
    assert tree_names(await bob.list_folders(folders["Letters"]), folders["Letters"]) == {"2026", "Photos"}
    await refused(409, "folder_cycle", bob.move("folder", folders["Letters"], folders["March"]))
    await bob.move("folder", folders["Pictures"], "root")
    assert await Transfers(bob).zip(folders["Letters"]) == {
        f"{folders['March']}/long.txt": LONG,
        f"{folders['March']}/empty.txt": b"",
    }
    assert await Transfers(bob).zip("root") == {
        "top.txt": b"at the root",
        "other.txt": b"o",
        "uno.txt": b"1",
        f"{folders['March']}/long.txt": LONG,
        f"{folders['March']}/empty.txt": b"",
    }


async def share(bob: ClientB, mira: ClientB, folders: dict[str, str], files: dict[str, str]) -> None:
    """Without a level, as the form sends it: viewer. What is shared waits until it is accepted."""
    contact = await bob.find_contact(mira.email)
    assert contact["user_id"] == mira.user_id
    assert contact["public_key"] == mira.keys["public_key"]
    await bob.share_file(files["top.txt"], contact["user_id"], None)
    await bob.share_file(files["other.txt"], contact["user_id"], "editor")
    await bob.share_folder(folders["Letters"], contact["user_id"], None)
    await bob.share_folder(folders["Pictures"], contact["user_id"], "read")
    assert names(await mira.open_folder("root")) == (set(), set())
    waiting = await mira.open_folder("shared_with_me")
    assert names(waiting) == ({"Letters", "Photos"}, {"top.txt", "other.txt"})  # the tops alone
    assert waiting["full_path"] == []
    assert find(waiting, "top.txt")["access_level"] == "viewer"
    info = await mira.file_info(files["top.txt"])
    await refused(403, "not_yours", mira.download_chunk(info["chunks"][0]["s3_key"]))
    assert names(await mira.open_folder(folders["Letters"])) == (set(), set())
    await refused(403, "not_yours", mira.rename("file", files["other.txt"], sealed.metadata(filename="mine")))
    assert members(await bob.info_panel("file", files["top.txt"])) == {"mira": "viewer"}


async def accept_and_reject(bob: ClientB, mira: ClientB, folders: dict[str, str], files: dict[str, str]) -> None:
    await mira.accept("file", files["top.txt"])
    await mira.accept("folder", folders["Letters"])
    await mira.reject("file", files["other.txt"])
    await mira.reject("folder", folders["Pictures"])
    assert names(await mira.open_folder("shared_with_me")) == (set(), set())
    view = await mira.open_folder("root")
    assert names(view) == ({"Letters"}, {"top.txt"})
    assert find(view, "Letters")["parent_folder_id"] is None
    assert tree_names(await mira.list_folders("root"), "root") == {"Letters"}
    assert names(await mira.open_folder("corbeille")) == (set(), set())  # what was rejected is not hers to restore
    assert path_of(await mira.open_folder(folders["March"])) == ["Letters", "2026", "March"]
    assert await Transfers(mira).download(files["long.txt"]) == LONG
    assert await Transfers(mira).zip(folders["2026"]) == {
        f"{folders['March']}/long.txt": LONG,
        f"{folders['March']}/empty.txt": b"",
    }
    await refused(403, "not_yours", mira.create_folder("Mine", folders["March"]))
    assert members(await bob.info_panel("folder", folders["Letters"])) == {"mira": "viewer"}
    assert await bob.info_panel("folder", folders["Pictures"]) == []
    assert names(await bob.open_folder("root"))[1] == {"top.txt", "other.txt", "uno.txt"}  # nothing has become of them
    await bob.share_folder(folders["Letters"], mira.user_id, "editor")
    assert members(await bob.info_panel("folder", folders["Letters"])) == {"mira": "editor"}
    assert names(await mira.open_folder("shared_with_me")) == (set(), set())


async def work_together(bob: ClientB, mira: ClientB, folders: dict[str, str]) -> None:
    """Whatever is put into a shared folder is there for its members at once: the client hands the keys around."""
    april = await bob.create_folder("April", folders["2026"])
    await Transfers(bob).upload_all({"from bob": b"hello"}, april)
    view = await mira.open_folder(april)
    assert names(view) == (set(), {"from bob"})
    assert await Transfers(mira).download(find(view, "from bob")["file_id"]) == b"hello"
    (answer,) = await Transfers(mira).upload_all({"from mira": LONG}, april)
    may = await mira.create_folder("May", april)
    assert names(await bob.open_folder(april)) == ({"May"}, {"from bob", "from mira"})
    assert tree_names(await bob.list_folders(april), april) == {"May"}
    assert await Transfers(bob).download(answer.file_id) == LONG
    assert members(await mira.info_panel("file", answer.file_id)) == {"bob": "editor"}
    await mira.move("file", find(view, "from bob")["file_id"], folders["March"])
    assert "from bob" in names(await bob.open_folder(folders["March"]))[1]  # they had it at the same place
    assert (await mira.drive_info())["used_space"] == LONG_STORED
    folders |= {"April": april, "May": may}


async def stop_sharing(bob: ClientB, mira: ClientB, folders: dict[str, str], files: dict[str, str]) -> None:
    keys = [chunk["s3_key"] for chunk in (await mira.file_info(files["long.txt"]))["chunks"]]
    await bob.revoke("file", files["top.txt"], mira.user_id)
    await bob.revoke("folder", folders["Letters"], mira.user_id)
    await refused(403, "not_yours", mira.download_chunk(keys[0]))
    await refused(403, "not_yours", mira.file_info(files["long.txt"]))
    view = await mira.open_folder("root")
    assert names(view) == ({"May"}, {"from mira"})
    assert await Transfers(mira).download(find(view, "from mira")["file_id"]) == LONG
    assert (await mira.open_folder(folders["March"]))["full_path"] == []
    assert await bob.info_panel("folder", folders["Letters"]) == []


async def throw_away(world: World, bob: ClientB, folders: dict[str, str], files: dict[str, str]) -> None:
    """The first DELETE is the trash, the second one the end."""
    await bob.delete("file", files["top.txt"])
    view = await bob.open_folder("corbeille")
    assert names(view)[1] == {"top.txt"}
    assert view["full_path"] == []
    await bob.restore("file", files["top.txt"])
    assert "top.txt" in names(await bob.open_folder("root"))[1]
    await bob.delete("file", files["top.txt"])
    objects = await world.objects()
    await bob.delete("file", files["top.txt"])
    assert len(objects - await world.objects()) == 1
    await refused(404, "file_not_found", bob.delete("file", files["top.txt"]))
    await bob.delete("folder", folders["2026"])
    assert "long.txt" in names(await bob.open_folder("corbeille"))[1]
    await bob.restore("folder", folders["2026"])
    assert names(await bob.open_folder(folders["March"])) == (set(), {"long.txt", "empty.txt", "from bob"})
    await bob.delete("folder", folders["2026"])
    used, objects = (await bob.drive_info())["used_space"], await world.objects()
    await bob.empty_trash()
    assert names(await bob.open_folder("corbeille")) == (set(), set())
    assert names(await bob.open_folder(folders["Letters"])) == (set(), set())
    assert len(objects - await world.objects()) == 3 + 1
    assert used - (await bob.drive_info())["used_space"] == LONG_STORED + 5 + TAG_BYTES


async def change_ones_mind(world: World, bob: ClientB) -> None:
    upload = Upload("never", LONG)
    upload.file_id = await bob.initialize(upload.name, upload.content, "root")
    await bob.upload_chunk(upload.file_id, 0, sealed.new_iv(), sealed.seal(LONG[:CHUNK_BYTES]))
    objects = await world.objects()
    await Transfers(bob).cancel(upload)
    assert len(objects - await world.objects()) == 1


async def leave(bob: ClientB) -> None:
    """Signed out, and out at once."""
    await bob.logout()
    await refused(401, "invalid_token", bob.open_folder("root"))


async def test_both_clients_of_one_user_see_the_same_drive(world: World) -> None:
    """An update of the client changes nothing of what is there; and with A an invitation needs no button."""
    old, friend = await world.sign_up_a("eve"), await world.sign_up_b("fay")
    new = world.new_b("eve")
    await new.login()
    folder = await old.create_folder("Letters", "root")
    (upload,) = await Transfers(old).upload_all({"long.txt": LONG}, folder)
    assert names(await new.open_folder(folder)) == (set(), {"long.txt"})
    assert await Transfers(new).download(upload.file_id) == LONG
    letters = await friend.create_folder("From Fay", "root")
    await friend.share_folder(letters, new.user_id, None)
    assert names(await new.open_folder("shared_with_me")) == ({"From Fay"}, set())
    assert names(await old.load()) == ({"Letters", "From Fay"}, set())
    assert names(await new.open_folder("root")) == ({"Letters", "From Fay"}, set())
    await new.delete("folder", folder)
    assert names(await old.open_folder("corbeille"))[1] == {"long.txt"}
    await old.restore("folder", folder)
    assert names(await new.open_folder(folder)) == (set(), {"long.txt"})
