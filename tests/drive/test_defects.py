"""The 48 defects that earlier backends of this drive had, one by one, and why each cannot come back.

Either it is tried here (`test_defect_<number>_...`), or ELSEWHERE names the tests that try it, or CANNOT says why this
design has no place for it. `test_every_defect_is_dealt_with` looks after the three.
"""

from __future__ import annotations

import ast
import logging
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import psycopg
import pytest

from gauzian.accounts.identity import sha256_of
from gauzian.database.migrate import migrate
from tests.asgi import scope_of
from tests.drive.people import Person, Town, sign_up
from tests.postgres import MIGRATIONS, Postgres
from tests.service import Service, objects_of, running_service

pytestmark = pytest.mark.anyio
TESTS = Path(__file__).parent.parent

ELSEWHERE = {
    1: """upload/test_life.py::test_finalize_refuses_holes_names_them_and_accepts_after_they_are_filled
          e2e/test_transfers.py::test_a_chunk_given_up_makes_no_file_with_a_hole""",
    2: """upload/test_life.py::test_ten_at_once_on_one_index_leave_one_object
          e2e/test_transfers.py::test_an_answer_lost_on_its_way_makes_no_second_chunk""",
    3: """download/test_routes.py::test_the_whole_file_comes_in_order_with_its_length
          download/test_readahead.py::test_the_bytes_come_in_order_whatever_time_everything_takes
          download/test_readahead.py::test_a_bad_chunk_ends_the_download_before_its_last_byte""",
    # 400 is what the founding document says; it costs client A the upload and never a hole. UPLOADS_BUSY_STATUS=503.
    4: """e2e/test_transfers.py::test_a_busy_answer_is_final_for_a_and_a_reason_to_wait_for_b
          e2e/test_transfers.py::test_with_503_for_busy_both_clients_come_again""",
    5: "upload/test_chunk.py::test_a_busy_answer_touches_neither_body_nor_database_nor_store",
    6: """upload/test_chunk.py::test_a_client_too_slow_gives_its_place_back
          stores/test_s3_faults.py::test_a_put_that_fails_says_so_and_is_not_repeated""",
    7: """upload/test_chunk.py::test_the_object_is_taken_back_only_when_surely_no_row_was_written
          upload/test_reaper.py::test_objects_without_a_row_are_swept_when_old_and_only_ours""",
    11: "upload/test_life.py::test_a_finalized_file_takes_no_chunk_and_cannot_be_aborted",
    12: """drive/test_trash.py::test_other_peoples_things_in_a_folder_survive_whatever_its_owner_does
           drive/test_trash.py::test_deleting_what_is_shared_with_one_is_leaving_it
           drive/test_sharing.py::test_who_is_revoked_loses_chunks_at_once_and_keeps_what_is_theirs""",
    16: "drive/test_sharing.py::test_a_batch_cannot_name_what_one_does_not_see",
    17: "drive/test_tree.py::test_into_strange_unknown_and_view_only_folders_nothing_goes",
    18: "drive/test_tree.py::test_into_strange_unknown_and_view_only_folders_nothing_goes",
    21: "drive/test_tree.py::test_numbers_count_each_file_once",
    22: """upload/test_life.py::test_the_quota_holds_to_the_byte_under_a_hundred_parallel_chunks
           upload/test_life.py::test_the_last_chunk_of_a_full_quota_can_be_retried
           upload/test_life.py::test_initialize_takes_what_clients_send_and_refuses_junk
           drive/test_tree.py::test_numbers_count_each_file_once""",
    27: "drive/test_tree.py::test_the_whole_tree_is_there_for_a_zip",
    30: """stores/test_contract.py::test_an_object_that_is_not_there_is_missing
           download/test_routes.py::test_trouble_before_the_first_byte_is_an_honest_answer""",
    31: """upload/test_formats.py::test_a_large_raw_chunk_is_never_held
           upload/test_formats_json.py::test_ten_mebibytes_pass_without_being_held
           stores/test_s3_faults.py::test_a_put_that_fails_says_so_and_is_not_repeated""",
    33: """web/test_house.py::test_metrics_need_their_token_and_have_the_founding_names
           web/test_house.py::test_labels_are_route_templates_and_known_words
           accounts/test_routes.py::test_the_public_key_of_a_contact_is_for_those_who_are_signed_in""",
    36: """accounts/test_passwords.py::test_an_unknown_user_takes_as_long_as_a_wrong_password
           accounts/test_routes.py::test_a_stranger_does_not_lock_the_owner_out
           accounts/test_throttle.py::test_an_address_that_tries_many_accounts_waits_for_all_but_those_it_signed_in_to""",
    37: "accounts/test_routes.py::test_e_mails_are_the_same_in_any_case",
    38: """accounts/test_address.py::test_without_trusted_proxies_the_header_is_hearsay
           accounts/test_registration.py::test_finalizing_counts_as_registering_does
           accounts/test_routes.py::test_registrations_from_one_address_are_limited_and_resume""",
    39: """accounts/test_passwords.py::test_only_so_many_have_their_turn_and_the_loop_goes_on
           accounts/test_mail.py::test_a_server_that_says_nothing_costs_bounded_time_places_and_no_connection""",
    40: """web/test_house.py::test_each_failing_part_has_a_json_line
           e2e/test_outages.py::test_the_database_goes_and_comes_back
           e2e/test_outages.py::test_the_store_falls_silent_and_comes_back""",
    43: "drive/test_sharing.py::test_a_rejected_invitation_is_gone_and_not_in_anybodys_trash",
    44: """drive/test_sharing.py::test_who_is_revoked_loses_chunks_at_once_and_keeps_what_is_theirs
           drive/test_sharing.py::test_the_forms_of_revoking""",
    47: "drive/test_sharing.py::test_whose_thing_it_is_comes_before_anything_else",
    48: "drive/test_routes.py::test_the_table_is_whole",
}
CANNOT: dict[int, str] = {}


@pytest.fixture(scope="module")
async def service(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    with postgres.fresh_database() as url:
        async with running_service(url, tmp_path_factory.mktemp("defects")) as service:
            yield service


@pytest.fixture
async def place(service: Service) -> Town:
    """Three people who have not met those of the other tests."""
    return Town(service, await sign_up(service), await sign_up(service), await sign_up(service))


async def objects_of_file(place: Town, file_id: str) -> set[str]:
    return {key for key in await objects_of(place.service) if key.startswith(file_id)}


def keys_of(person: Person, level: str, key: str = "a key") -> dict[str, Any]:
    return {"user_keys": [{"user_id": person.id, "encrypted_key": key, "access_level": level}]}


def test_every_defect_is_dealt_with() -> None:
    here = [int(name.split("_")[2]) for name in functions_of(Path(__file__)) if re.match(r"test_defect_\d\d_", name)]
    assert sorted({*here, *ELSEWHERE, *CANNOT}) == list(range(1, 49))
    assert len(here) + len(ELSEWHERE) + len(CANNOT) == 48, "one is dealt with in two ways"


@pytest.mark.parametrize("number", ELSEWHERE)
def test_what_is_tried_elsewhere_is_still_tried_there(number: int) -> None:
    for place in ELSEWHERE[number].split():
        path, _, name = place.partition("::")
        assert name in functions_of(TESTS / path), place


def functions_of(path: Path) -> list[str]:
    tree = ast.parse(path.read_text())
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


async def test_defect_08_an_upload_that_others_may_see_already_is_aborted_for_all(place: Town) -> None:
    """Clients hand the keys around right after initialize."""
    ann, bob = place.ann, place.bob
    folder = await ann.folder()
    await ann.share_folder(folder, bob)
    file = await ann.user.initialize(6, folder_id=folder)
    await ann.propagate("file", file, bob)
    assert (await ann.user.put(file, 0, b"abc")).status == 200
    assert (await ann.user.abort(file)).status == 200
    assert await objects_of_file(place, file) == set()
    for person in (ann, bob):
        assert await person.refused("GET", f"/drive/file/{file}") == (404, "file_not_found")
    assert (await ann.ok("GET", "/drive/get_drive_info"))["used_space"] == 0


@pytest.mark.parametrize("how", ["abort", "delete", "empty"])
async def test_defect_09_an_object_goes_only_after_its_row_is_gone_for_good(
    place: Town, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, database, store = place.ann, place.service.parts.database, place.service.parts.store
    removed: list[str] = []
    delete = store.delete_quietly

    async def watched(keys: Sequence[str]) -> int:
        async with database.connection() as conn:  # another session: it sees what was committed
            cursor = await conn.execute("SELECT object_key FROM chunks WHERE object_key = ANY (%s)", (list(keys),))
            assert await cursor.fetchall() == [], "a row still names the object"
        removed.extend(keys)
        return await delete(keys)

    monkeypatch.setattr(store, "delete_quietly", watched)
    if how == "abort":
        file = await ann.user.initialize(6)
        await ann.user.put(file, 0, b"abc")
        await ann.user.abort(file)
    else:
        file = await ann.file()
        await ann.ok("DELETE", f"/drive/files/{file}")
        await (ann.ok("DELETE", f"/drive/files/{file}") if how == "delete" else ann.ok("POST", "/drive/empty_trash"))
    assert [key for key in removed if key.startswith(file)]
    assert await objects_of_file(place, file) == set()


async def test_defect_10_only_the_owner_and_only_in_the_trash_deletes_for_good(place: Town) -> None:
    """A repeated request of the first generation, or of somebody with whom it is shared, destroys nothing."""
    ann, bob = place.ann, place.bob
    file = await ann.file()
    await ann.share_file(file, bob, "editor")
    await bob.ok("DELETE", f"/drive/files/{file}")
    assert await bob.refused("DELETE", f"/drive/files/{file}") == (403, "not_yours")
    assert await ann.can_read(file)
    for _ in range(3):
        await ann.post("/drive/delete_file", file_id=file)
    await ann.post("/drive/restore_file", file_id=file)
    assert await ann.can_read(file)


async def test_defect_13_emptying_the_trash_takes_no_folder_of_others_along(place: Town) -> None:
    ann, bob = place.ann, place.bob
    top = await ann.folder()
    await ann.share_folder(top, bob, "editor")
    theirs = await bob.folder(top)
    await bob.propagate("folder", theirs, ann)
    inside = await bob.file(theirs)
    brought = await bob.folder()
    deep = await bob.file(brought)
    await bob.post("/drive/move_folder", folder_id=brought, new_parent_folder_id=theirs)
    await ann.ok("DELETE", f"/drive/folders/{top}")
    await ann.ok("POST", "/drive/empty_trash")
    assert await bob.sees() == {theirs}
    assert await bob.sees(theirs) == {inside, brought}
    assert await bob.sees(brought) == {deep}
    assert await bob.can_read(deep)


async def test_defect_14_what_one_has_left_is_not_in_ones_trash(place: Town) -> None:
    ann, bob = place.ann, place.bob
    file, folder = await ann.file(), await ann.folder()
    await ann.share_file(file, bob, "editor")
    await ann.share_folder(folder, bob, "editor")
    await bob.post("/drive/delete_file", file_id=file)
    await bob.post("/drive/delete_folder", folder_id=folder)
    assert await bob.sees("corbeille") == set()
    await bob.ok("POST", "/drive/empty_trash")
    assert await ann.sees() == {file, folder}
    assert await ann.can_read(file)


async def test_defect_15_files_from_before_folders_are_all_there_afterwards(postgres: Postgres, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    for path in sorted(MIGRATIONS.glob("000[123]_*.sql")):
        shutil.copy(path, earlier)
    with postgres.fresh_database("template0") as url:
        await migrate(url, earlier)
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in BEFORE_FOLDERS:
                connection.execute(statement, {"token": sha256_of("ada")})
        async with running_service(url, tmp_path / "data") as service:
            headers = {"Authorization": "Bearer ada"}
            view = (await service.call("GET", "/drive/get_file_folder/root", headers=headers)).json()
            (item,) = view["files_and_folders"]["files"]
            assert (item["access_level"], item["folder_id"], item["file_size"]) == ("owner", None, 3)
            assert view["drive_info"]["file_count"] == 1
            info = (await service.call("GET", f"/drive/file/{item['file_id']}", headers=headers)).json()
            path = f"/drive/download_chunk_binary/{info['chunks'][0]['s3_key']}"
            # The object is not there, but nobody says any more that it is not hers.
            assert (await service.call("GET", path, headers=headers)).json()["code"] == "chunk_damaged"


BEFORE_FOLDERS = [
    "INSERT INTO users (email, username, password_hash, public_key, encrypted_private_key, private_key_salt, iv,"
    " encrypted_record_key) VALUES ('ada@example.org', 'ada', '', '', '', '', '', '')",
    "INSERT INTO tokens (sha256, user_id, expires_at) SELECT %(token)s, id, now() + interval '1 day' FROM users",
    "INSERT INTO files (owner_id, encrypted_metadata, mime_type, size, state, stored_bytes, chunk_count, finalized_at)"
    " SELECT id, 'bWV0YQ==', 'text/plain', 3, 'complete', 3, 1, now() FROM users",
    "INSERT INTO file_access (file_id, user_id, encrypted_file_key, access_level)"
    " SELECT id, owner_id, 'a2V5', 'owner' FROM files",
    "INSERT INTO chunks (file_id, index, object_key, size, sha256, xxh3, iv)"
    " SELECT id, 0, id::text || '.0', 3, sha256('abc'), '\\x00112233445566778899aabbccddeeff', 'iv' FROM files",
]


async def test_defect_19_a_path_shows_no_folder_that_is_not_shared(place: Town) -> None:
    ann, bob = place.ann, place.bob
    above = await ann.folder(name="secret above")
    top = await ann.folder(above, name="shared")
    sub = await ann.folder(top, name="below")
    await ann.share_folder(top, bob)
    assert [crumb["encrypted_metadata"] for crumb in (await bob.view(sub))["full_path"]] == ["shared", "below"]
    for where in (top, sub, above):
        for route in ("get_file_folder", "get_all_drive_info"):
            answer = await bob.call("GET", f"/drive/{route}/{where}")
            assert b"secret above" not in answer.body
    assert (await bob.view(above))["full_path"] == []


@pytest.mark.parametrize("state", ["pending", "trashed", "revoked", "left"])
async def test_defect_20_what_is_not_accepted_or_thrown_away_opens_no_door(place: Town, state: str) -> None:
    ann, bob, cat = place.ann, place.bob, place.cat
    folder = await ann.folder()
    file = await ann.file(folder)
    await ann.share_folder(folder, bob, "editor", accept=state != "pending")
    chunk = (await ann.ok("GET", f"/drive/file/{file}"))["chunks"][0]["s3_key"]
    if state == "trashed":
        await ann.ok("DELETE", f"/drive/folders/{folder}")
    elif state == "revoked":
        await ann.post("/drive/revoke-access", item_type="folder", item_id=folder, contact_id=bob.id)
    elif state == "left":
        await bob.ok("DELETE", f"/drive/folders/{folder}")
    target = await bob.folder()
    new = {"encrypted_metadata": "m", "encrypted_folder_key": "k", "parent_folder_id": folder}
    upload = {"size": 1, "encrypted_metadata": "m", "mime_type": "", "encrypted_file_key": "k", "folder_id": folder}
    share = {"contact_id": cat.id, "encrypted_item_key": "k"}
    uploads: list[tuple[str, str, dict[str, Any] | None]] = [
        ("POST", "/drive/upload_chunk", {"file_id": file, "index": 0, "chunk_data": "AAAA", "iv": "iv"}),
        ("POST", f"/drive/finalize_upload/{file}/completed", None),
    ]
    doors: list[tuple[str, str, dict[str, Any] | None]] = [
        ("GET", f"/drive/download_chunk_binary/{chunk}", None),
        ("GET", f"/drive/download_chunk/{chunk}", None),
        ("GET", f"/drive/download/{file}", None),
        ("GET", f"/drive/get_folder/{folder}", None),
        ("GET", f"/drive/folder_contents/{folder}", None),
        ("GET", f"/drive/folder/{folder}/shared_users", None),
        ("GET", f"/drive/folder/{folder}/InfoItem", None),
        ("GET", f"/drive/file/{file}/InfoItem", None),
        ("PATCH", f"/drive/files/{file}", {"new_encrypted_metadata": "by bob"}),
        ("PATCH", f"/drive/folders/{folder}", {"new_encrypted_metadata": "by bob"}),
        ("PATCH", f"/drive/files/{file}/move", {"target_folder_id": target}),
        ("PATCH", f"/drive/folders/{folder}/move", {"target_folder_id": target}),
        ("POST", f"/drive/files/{file}/share", share),
        ("POST", f"/drive/folders/{folder}/share", share),
        ("POST", "/drive/propagate_file_access", {"file_id": file} | keys_of(cat, "editor")),
        ("POST", "/drive/create_folder", new),
        ("POST", "/drive/initialize_file", upload),
        ("POST", "/drive/restore_file", {"file_id": file}),
        ("POST", "/drive/restore_folder", {"folder_id": folder}),
    ]
    answers = {(method, path): await bob.refused(method, path, json=given) for method, path, given in doors}
    wrong = {door: answer for door, answer in answers.items() if not is_right(state, *answer)}
    assert wrong == {}
    for method, path, given in uploads:  # which ask whose upload it is, and nothing else
        assert await bob.refused(method, path, json=given) == (403, "not_yours")
    listed = await bob.view(folder)
    assert (listed["files_and_folders"], listed["full_path"]) == ({"folders": [], "files": []}, [])
    assert await bob.sees() == {target}


def is_right(state: str, status: int, code: str) -> bool:
    """For all but its owner what lies in the trash does not exist."""
    return (
        (status == 404 and code.endswith("_not_found")) if state == "trashed" else (status, code) == (403, "not_yours")
    )


async def test_defect_23_nobody_becomes_a_second_owner_by_any_door(place: Town) -> None:
    ann, bob = place.ann, place.bob
    folder = await ann.folder()
    file = await ann.file(folder)
    await ann.share_folder(folder, bob, "editor")
    await ann.propagate("file", file, bob, level="owner")
    await ann.propagate("folder", folder, bob, level="owner")
    for kind, thing in (("file", file), ("folder", folder)):
        (member,) = (await ann.ok("GET", f"/drive/{kind}/{thing}/InfoItem"))["shared_users"]
        assert member["permission"] == "editor"
        given = {"item_type": kind, "item_id": thing, "contact_id": ann.id}
        assert await bob.refused("POST", "/drive/revoke-access", json=given) == (403, "not_yours")
    for method, path in (("POST", "/drive/share_file"), ("POST", f"/drive/files/{file}/share")):
        given = {"file_id": file, "contact_id": bob.id, "encrypted_item_key": "k", "access_level": "owner"}
        assert await ann.refused(method, path, json=given) == (400, "bad_field")
    assert await bob.refused("POST", "/drive/share_file", json=given) == (403, "not_yours")


async def test_defect_24_a_folder_made_at_the_root_and_moved_is_in_one_place(place: Town) -> None:
    ann, bob = place.ann, place.bob
    target, moved = await ann.folder(), await ann.folder()
    await ann.ok("PATCH", f"/drive/folders/{moved}/move", json={"target_folder_id": target})
    assert (await ann.sees(), await ann.sees(target)) == ({target}, {moved})
    listed = (await ann.ok("GET", "/drive/get_folder/root"))["folder_contents"]
    assert [item["folder_id"] for item in listed] == [target]
    await ann.share_folder(moved, bob, "editor")
    place_of_bob = await bob.folder()
    await bob.ok("PATCH", f"/drive/folders/{moved}/move", json={"target_folder_id": place_of_bob})
    assert (await bob.sees(), await bob.sees(place_of_bob)) == ({place_of_bob}, {moved})
    assert await ann.sees(target) == {moved}, "an editor's order is not the owner's"


async def test_defect_25_files_at_the_root_can_be_propagated_and_shared_in_a_batch(place: Town) -> None:
    ann, bob = place.ann, place.bob
    folder, at_root = await ann.folder(), await ann.file()
    await ann.propagate("file", at_root, bob)
    await ann.post(
        "/drive/share_folder_batch",
        folder_id=folder,
        contact_id=bob.id,
        access_level="viewer",
        folder_keys=[{"folder_id": folder, "encrypted_folder_key": "k"}],
        file_keys=[{"file_id": at_root, "encrypted_file_key": "k"}],
    )
    assert await bob.sees("shared_with_me") == {folder, at_root}


async def test_defect_26_the_trash_lists_folders_and_nothing_unfinished(place: Town) -> None:
    ann = place.ann
    folder = await ann.folder()
    file = await ann.file(folder)
    unfinished = await ann.user.initialize(6, folder_id=folder)
    await ann.ok("DELETE", f"/drive/folders/{folder}")
    lists = (await ann.view("corbeille"))["files_and_folders"]
    assert [item["folder_id"] for item in lists["folders"]] == [folder]
    assert [item["file_id"] for item in lists["files"]] == [file]
    assert unfinished not in await ann.sees()
    await ann.post("/drive/restore_folder", folder_id=lists["folders"][0]["folder_id"])
    assert await ann.sees(folder) == {file}


async def test_defect_28_a_cancelled_upload_that_is_gone_is_no_error(place: Town) -> None:
    ann = place.ann
    for file in (str(uuid4()), await ann.user.initialize(6)):
        for _ in range(2):
            assert (await ann.user.finalize(file, "aborted")).status == 200
            assert (await ann.user.abort(file)).status == 200


async def test_defect_29_no_hot_path_reads_a_whole_table(postgres: Postgres, tmp_path: Path) -> None:
    """Asked of the database's own counters, after everything that is done all the time was done beside many others."""
    with postgres.fresh_database() as url:
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in A_CROWD:
                connection.execute(statement)
        async with running_service(url, tmp_path) as service:
            ann, bob = await sign_up(service), await sign_up(service)
            before = read_by_scanning(url)
            folder = await ann.folder()
            sub = await ann.folder(folder)
            file = await ann.file(sub)
            await ann.share_folder(folder, bob, "editor")
            assert await ann.can_read(file)
            assert await bob.can_read(file)
            for person in (ann, bob):
                for path in (f"get_file_folder/{sub}", "get_all_drive_info/root", f"folder_contents/{folder}", "files"):
                    await person.ok("GET", f"/drive/{path}")
            await ann.ok("PATCH", f"/drive/folders/{sub}/move", json={"target_folder_id": None})
            await ann.post("/drive/revoke-access", item_type="folder", item_id=folder, contact_id=bob.id)
            await ann.ok("DELETE", f"/drive/folders/{folder}")
            await ann.view("corbeille")
            await ann.ok("POST", "/drive/empty_trash")
        # The service's sessions have ended, and with that told what they did.
        assert read_by_scanning(url) == before


A_CROWD = [
    "INSERT INTO users (email, username, password_hash, public_key, encrypted_private_key, private_key_salt, iv,"
    " encrypted_record_key) SELECT n || '@example.net', n, '', '', '', '', '', '' FROM generate_series(1, 1000) n",
    "INSERT INTO folders (owner_id, encrypted_metadata) SELECT id, '' FROM users, generate_series(1, 5)",
    "INSERT INTO folder_access (folder_id, user_id, encrypted_folder_key, access_level)"
    " SELECT id, owner_id, '', 'owner' FROM folders",
    "INSERT INTO files (owner_id, encrypted_metadata, mime_type, size, state, stored_bytes, chunk_count)"
    " SELECT id, '', '', 1, 'complete', 1, 1 FROM users, generate_series(1, 10)",
    "INSERT INTO file_access (file_id, user_id, encrypted_file_key, access_level)"
    " SELECT id, owner_id, '', 'owner' FROM files",
    "INSERT INTO chunks (file_id, index, object_key, size, sha256, xxh3, iv)"
    " SELECT id, 0, id::text, 1, sha256(''), '\\x00112233445566778899aabbccddeeff', '' FROM files",
    "ANALYZE",
]


def read_by_scanning(url: str) -> dict[str, int]:
    """Rows that were read because a whole table was."""
    tables = ["users", "folders", "folder_access", "files", "file_access", "chunks"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        rows = connection.execute(
            "SELECT relname::text, seq_tup_read::bigint FROM pg_stat_user_tables WHERE relname = ANY (%s)", (tables,)
        ).fetchall()
    assert len(rows) == len(tables)
    return {str(name): int(count) for name, count in rows}


async def test_defect_32_info_tells_nothing_but_what_it_promises(place: Town) -> None:
    info = await place.ann.ok("GET", "/info")
    promised = {"id", "email", "username", "encrypted_private_key", "private_key_salt", "iv", "public_key"}
    assert info.keys() == promised


async def test_defect_34_who_hangs_up_is_not_counted_for_ever(place: Town) -> None:
    """In the middle of a body, and while an answer is on its way."""
    ann, app = place.ann, place.service.app
    file = await ann.user.initialize(100)
    metric = "gauzian_http_requests_in_flight"
    at_rest = await sample(place, metric)
    headers = {"Authorization": f"Bearer {ann.user.token}"}
    scope = scope_of("POST", f"/drive/upload_chunk_binary?file_id={file}&index=0&iv=iv", headers=headers, length=100)
    messages = [{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}]
    seen: list[float] = []

    async def receive() -> dict[str, Any]:
        seen.append(await sample(place, metric))
        await anyio.lowlevel.checkpoint()
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise OSError("gone")

    await app(scope, receive, send)
    assert max(seen) == at_rest + 1
    await app(scope_of("GET", "/info", headers=headers), receive, send)
    assert await sample(place, metric) == at_rest


async def sample(place: Town, name: str) -> float:
    text = (await place.service.call("GET", "/metrics")).body.decode()
    (line,) = [line for line in text.splitlines() if line.startswith(name + " ")]
    return float(line.split()[-1])


async def test_defect_35_names_from_clients_make_no_headers(place: Town) -> None:
    ann = place.ann
    file = await ann.file(name='x"\r\nSet-Cookie: a=b\x01\N{SNOWMAN}')
    for path in (f"/drive/download/{file}", f"/drive/files/{file}/download"):
        answer = await ann.call("GET", path)
        assert answer.status == 200
        assert answer.header("content-disposition") == f'attachment; filename="{file}"'
        assert answer.header("set-cookie") is None
    upload = await ann.user.initialize(6)
    for iv in ("a%0D%0AX-Evil:%20b", "%01", "%E2%98%83", ""):
        assert (await ann.user.put(upload, 0, b"abc", iv=iv)).status == 400


async def test_defect_41_no_name_and_no_key_is_logged(place: Town, caplog: pytest.LogCaptureFixture) -> None:
    ann, bob = place.ann, place.bob
    with caplog.at_level(logging.DEBUG):
        folder = await ann.folder(name="private-name-of-folder")
        file = await ann.file(folder, name="private-name-of-file")
        await ann.share_folder(folder, bob)
        for person in (ann, bob):
            await person.view(folder)
            await person.ok("GET", f"/drive/folder_contents/{folder}")
            await person.ok("GET", f"/drive/file/{file}")
        await ann.ok("DELETE", f"/drive/folders/{folder}")
    written = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    assert "request" in written
    for secret in ("private-name", "their key", "key of", ann.user.token, ann.user.email):
        assert secret not in written


async def test_defect_42_members_are_told_to_members_and_invitations_to_the_owner(place: Town) -> None:
    ann, bob, cat = place.ann, place.bob, place.cat
    folder = await ann.folder()
    file = await ann.file(folder)
    await ann.share_folder(folder, bob)
    await ann.share_folder(folder, cat, accept=False)
    for path in (f"folder/{folder}/shared_users", f"folder/{folder}/InfoItem", f"file/{file}/InfoItem"):
        of_owner = (await ann.ok("GET", f"/drive/{path}"))["shared_users"]
        assert {member["user_id"] for member in of_owner} == {bob.id, cat.id}
        of_member = (await bob.ok("GET", f"/drive/{path}"))["shared_users"]
        assert {member["user_id"] for member in of_member} == {ann.id}
        assert await cat.refused("GET", f"/drive/{path}") == (403, "not_yours")
    await bob.ok("DELETE", f"/drive/folders/{folder}")
    assert await bob.refused("GET", f"/drive/folder/{folder}/shared_users") == (403, "not_yours")


async def test_defect_45_propagating_makes_nobody_a_member_and_changes_nobody_s_own_row(place: Town) -> None:
    ann, bob, cat = place.ann, place.bob, place.cat
    folder = await ann.folder()
    await ann.share_folder(folder, bob, accept=False)
    file = await ann.file(folder)
    await ann.propagate("file", file, bob, cat)
    for person in (bob, cat):
        assert await person.sees() == set(), "accepted by somebody else"
        assert not await person.can_read(file)
    key = (await ann.ok("GET", f"/drive/file/{file}"))["encrypted_file_key"]
    await ann.ok("POST", "/drive/propagate_file_access", json={"file_id": file} | keys_of(ann, "viewer", "other"))
    info = await ann.ok("GET", f"/drive/file/{file}")
    assert info["encrypted_file_key"] == key
    await ann.ok("PATCH", f"/drive/files/{file}", json={"new_encrypted_metadata": "still the owner"})
    nobody = {"user_id": str(uuid4()), "encrypted_key": "k", "access_level": "viewer"}
    given = {"file_id": file, "user_keys": [*keys_of(bob, "editor", "new")["user_keys"], nobody]}
    assert await ann.refused("POST", "/drive/propagate_file_access", json=given) == (404, "user_not_found")
    assert (await bob.ok("GET", f"/drive/file/{file}"))["encrypted_file_key"] == "their key"


async def test_defect_46_a_repeated_finalize_counts_once(place: Town) -> None:
    ann = place.ann
    metric = 'gauzian_file_uploads_total{status="success"}'
    file = await ann.user.initialize(3)
    await ann.user.put(file, 0, b"abc")
    before = await sample(place, metric)
    for _ in range(3):
        assert (await ann.user.finalize(file)).status == 200
    assert await sample(place, metric) == before + 1
