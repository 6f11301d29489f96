"""Who may do what: every route of the drive, asked by everybody. A route without a row here fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from starlette.routing import Route

from gauzian import access
from gauzian.access import MAY, Act, Standing
from gauzian.assembly.urls import _routes
from gauzian.settings import Settings
from tests.asgi import Answer
from tests.drive.people import Person, Town, town
from tests.service import IV

pytestmark = pytest.mark.anyio

# Owner, Editor, Viewer, Pending (invited), the owner of something in the Trash, a Member of something in the trash, a
# Stranger, and anybody who asks for what is Absent.
EVERYBODY = "OEVPTMSA"
# What a refusal is to each. Nobody is told that something exists which they have thrown away with its owner.
REFUSAL = {"O": 409, "E": 403, "V": 403, "P": 403, "T": 409, "M": 404, "S": 403, "A": 404}


@dataclass(frozen=True)
class Row:
    """`may`: those who get 200. `given`: the body, in which `ID`, `CAT` and `FILE` are filled in."""

    thing: str
    may: str
    given: dict[str, Any] | None = None
    refusal: dict[str, int] | None = None


NAME = {"new_encrypted_metadata": "m"}
SHARE = {"contact_id": "CAT", "encrypted_item_key": "k", "access_level": "viewer"}
NEW_FOLDER = {"encrypted_metadata": "m", "parent_folder_id": "ID", "encrypted_folder_key": "k"}
NEW_FILE = {"encrypted_metadata": "m", "folder_id": "ID", "encrypted_file_key": "k", "mime_type": "", "size": 1}
KEYS = {"user_keys": [{"user_id": "CAT", "encrypted_key": "k", "access_level": "viewer"}]}
# Views of folders never refuse: they are empty (tests/drive/test_tree.py).
VIEW = "view"
# Restoring what is not in the trash: there is nothing of it there.
NOT_THERE = {"O": 404}

MATRIX = {
    "GET /drive/file/{file_id}": Row("file", "OEVPT"),
    "GET /drive/files/{file_id}": Row("file", "OEVPT"),
    "GET /drive/download/{file_id}": Row("file", "OEVT"),
    "GET /drive/files/{file_id}/download": Row("file", "OEVT"),
    "GET /drive/download_chunk_binary/{s3_key}": Row("chunk", "OEVT"),
    "GET /drive/download_chunk/{s3_key}": Row("chunk", "OEVT"),
    "GET /drive/file/{file_id}/InfoItem": Row("file", "OEV"),
    "GET /drive/folder/{folder_id}/InfoItem": Row("folder", "OEV"),
    "GET /drive/folder/{folder_id}/shared_users": Row("folder", "OEV"),
    "GET /drive/get_folder/{folder_id}": Row("folder", "OEV"),
    "GET /drive/folders/{folder_id}": Row("folder", "OEV"),
    "GET /drive/folder_contents/{folder_id}": Row("folder", "OEV"),
    "GET /drive/get_file_folder/{parent_id}": Row(VIEW, EVERYBODY),
    "GET /drive/get_all_drive_info/{parent_id}": Row(VIEW, EVERYBODY),
    "POST /drive/create_folder": Row("folder", "OE", NEW_FOLDER),
    "POST /drive/folders": Row("folder", "OE", NEW_FOLDER),
    "POST /drive/initialize_file": Row("folder", "OE", NEW_FILE),
    "POST /drive/files/initialize": Row("folder", "OE", NEW_FILE),
    "POST /drive/rename_file": Row("file", "OE", NAME | {"file_id": "ID"}),
    "PATCH /drive/files/{file_id}": Row("file", "OE", NAME),
    "POST /drive/rename_folder": Row("folder", "OE", NAME | {"folder_id": "ID"}),
    "PATCH /drive/folders/{folder_id}": Row("folder", "OE", NAME),
    "POST /drive/move_file": Row("file", "OE", {"file_id": "ID", "new_parent_folder_id": "root"}),
    "PATCH /drive/files/{file_id}/move": Row("file", "OE", {"target_folder_id": None}),
    "POST /drive/move_folder": Row("folder", "OE", {"folder_id": "ID", "new_parent_folder_id": "root"}),
    "PATCH /drive/folders/{folder_id}/move": Row("folder", "OE", {"target_folder_id": None}),
    "POST /drive/move_file, its target": Row("folder", "OE", {"file_id": "FILE", "new_parent_folder_id": "ID"}),
    "POST /drive/move_folder, its target": Row("folder", "OE", {"folder_id": "FOLDER", "new_parent_folder_id": "ID"}),
    "POST /drive/delete_file": Row("file", "OEVPT", {"file_id": "ID"}),
    "DELETE /drive/files/{file_id}": Row("file", "OEVPT"),
    "POST /drive/delete_folder": Row("folder", "OEVPT", {"folder_id": "ID"}),
    "DELETE /drive/folders/{folder_id}": Row("folder", "OEVPT"),
    "POST /drive/restore_file": Row("file", "T", {"file_id": "ID"}, NOT_THERE),
    "POST /drive/restore_folder": Row("folder", "T", {"folder_id": "ID"}, NOT_THERE),
    "POST /drive/share_file": Row("file", "O", SHARE | {"file_id": "ID"}),
    "POST /drive/files/{file_id}/share": Row("file", "O", SHARE),
    "POST /drive/share_folder": Row("folder", "O", SHARE | {"folder_id": "ID"}),
    "POST /drive/folders/{folder_id}/share": Row("folder", "O", SHARE),
    "POST /drive/share_folder_batch": Row("folder", "O", SHARE | {"folder_id": "ID", "folder_keys": []}),
    "POST /drive/files/{file_id}/accept": Row("file", "OEVP"),
    "POST /drive/folders/{folder_id}/accept": Row("folder", "OEVP"),
    "POST /drive/files/{file_id}/reject": Row("file", "EVP", None, {"O": 403}),
    "POST /drive/folders/{folder_id}/reject": Row("folder", "EVP", None, {"O": 403}),
    "POST /drive/propagate_file_access": Row("file", "O", KEYS | {"file_id": "ID"}),
    "POST /drive/propagate_folder_access": Row("folder", "O", KEYS | {"folder_id": "ID"}),
    "POST /drive/revoke-access": Row("shared file", "O", {"item_type": "file", "item_id": "ID", "contact_id": "CAT"}),
    "POST /drive/revoke-access, a folder": Row(
        "shared folder", "O", {"item_type": "folder", "item_id": "ID", "contact_id": "CAT"}
    ),
    "DELETE /drive/files/{file_id}/share/{user_id}": Row("shared file", "O"),
    "DELETE /drive/folders/{folder_id}/share/{user_id}": Row("shared folder", "O"),
    # Of an upload only its owner has anything; others may have been given a key already.
    "POST /drive/upload_chunk_binary": Row("upload", "O"),
    "POST /drive/upload_chunk": Row("upload", "O", {"file_id": "ID", "index": 0, "chunk_data": "AAAA", "iv": IV}),
    "POST /drive/files/{file_id}/upload-chunk": Row("upload", "O"),
    "GET /drive/files/{file_id}/upload": Row("upload", "O"),
    # What is not there is aborted already.
    "POST /drive/finalize_upload/{file_id}/{etat}": Row("upload", "OA"),
    "POST /drive/abort_upload": Row("upload", "OA", {"file_id": "ID"}),
}
# Routes that name nothing: they are about the caller.
OWN = {
    "GET /drive/files",
    "GET /drive/get_drive_info",
    "GET /drive/get_all_drive_info",
    "POST /drive/empty_trash",
}


@dataclass
class Case:
    actor: Person
    id: str


async def arrange(place: Town, thing: str, who: str) -> Case:
    """Something of Ann's, and somebody who stands so to it."""
    ann, bob = place.ann, place.bob
    if who == "A":
        return Case(ann, str(uuid4()))
    if thing == "upload":
        id = await ann.user.initialize(3)
        await ann.propagate("file", id, bob, level="editor" if who == "E" else "viewer")
        return Case({"O": ann, "S": place.cat}.get(who, bob), id)
    kind = thing.removeprefix("shared ").replace("chunk", "file").replace(VIEW, "folder")
    id = await (ann.folder() if kind == "folder" else ann.file())
    if thing.startswith("shared "):  # with Cat, who can be revoked
        await ann.post(f"/drive/{kind}s/{id}/share", contact_id=place.cat.id, encrypted_item_key="k")
    if who in "EVPM":
        level = {"V": "viewer", "P": "editor"}.get(who, "editor")
        share = ann.share_folder if kind == "folder" else ann.share_file
        await share(id, bob, level, accept=who != "P")
    if who in "TM":
        await ann.ok("DELETE", f"/drive/{kind}s/{id}")
    stranger = bob if thing.startswith("shared ") else place.cat
    return Case({"O": ann, "T": ann, "S": stranger}.get(who, bob), id)


def filled(given: Any, names: dict[str, str]) -> Any:
    if isinstance(given, dict):
        return {key: filled(value, names) for key, value in given.items()}
    if isinstance(given, list):
        return [filled(value, names) for value in given]
    return names.get(given, given) if isinstance(given, str) else given


async def ask(place: Town, route: str, row: Row, case: Case, key: str) -> Answer:
    method, path = route.split(",")[0].split(" ")
    path = re.sub(r"\{(file_id|folder_id|parent_id)\}", case.id, path)
    path = path.replace("{s3_key}", key).replace("{user_id}", place.cat.id).replace("{etat}", "aborted")
    if path == "/drive/upload_chunk_binary":
        return await case.actor.user.put(case.id, 0, b"abc")
    if path.endswith("/upload-chunk"):
        return await case.actor.user.put_multipart(case.id, 0, b"abc")
    names = {"ID": case.id, "CAT": place.cat.id}
    if "target" in route:
        names |= {"FILE": await case.actor.file(), "FOLDER": await case.actor.folder()}
    given = {} if row.given is None else {"json": filled(row.given, names)}
    return await case.actor.call(method, path, **given)


async def key_of(place: Town, case: Case, who: str) -> str:
    if who == "A":
        return f"{uuid4()}.{uuid4().hex}"
    return str((await place.ann.ok("GET", f"/drive/file/{case.id}"))["chunks"][0]["s3_key"])


@pytest.mark.parametrize("route", MATRIX, ids=lambda route: route.replace("/drive/", ""))
async def test_those_who_may_do_it_and_those_who_may_not(database_url: str, tmp_path: Path, route: str) -> None:
    row = MATRIX[route]
    async with town(database_url, tmp_path) as place:
        for who in "OEVSA" if row.thing == "upload" else EVERYBODY:
            case = await arrange(place, row.thing, who)
            key = await key_of(place, case, who) if row.thing == "chunk" else ""
            answer = await ask(place, route, row, case, key)
            expected = 200 if who in row.may else (row.refusal or {}).get(who, REFUSAL[who])
            assert answer.status == expected, (who, answer.body)
            if row.thing == VIEW:
                accepts = "all_drive_info" in route and who == "P"
                assert (answer.json()["full_path"] != []) == (who in "OEV" or accepts), who


def drive_routes(settings: Settings) -> set[str]:
    class Anything:
        def __getattr__(self, name: str) -> Any:
            return Anything()

        def __call__(self, *args: Any, **more: Any) -> Any:
            return Anything()

    make: Callable[..., list[Route]] = _routes
    found = set()
    for route in make(Anything(), settings):
        methods = (route.methods or set()) - {"HEAD"}
        found |= {f"{method} {route.path}" for method in methods if route.path.startswith("/drive/")}
    return found


def test_every_route_of_the_drive_stands_in_the_matrix() -> None:
    rows = {route.split(",")[0] for route in MATRIX}
    assert drive_routes(Settings()) == rows | OWN


def test_every_act_is_decided_by_the_one_table() -> None:
    assert set(MAY) == set(Act)
    for act, standings in MAY.items():
        assert Standing.ABSENT not in standings, act
        assert Standing.STRANGER not in standings, act
        for standing in set(Standing) - standings:
            for thing in ("file", "folder"):
                assert access.refusal(act, standing, thing) is not None, (act, standing)  # type: ignore[arg-type]
