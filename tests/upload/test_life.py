"""The life of an upload, told through the routes: in any order, at will, to the end or not."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from uuid import UUID, uuid4

import anyio
import pytest

from tests.service import IV, NO_FILE, objects_of, running_service

pytestmark = pytest.mark.anyio


async def test_a_file_goes_in_through_three_doors_and_comes_out_whole(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        chunks = [b"first " * 50, b"second " * 60, b"third " * 70]
        content = b"".join(chunks)
        file_id = await user.initialize(len(content), total_chunks=3)
        answers = [
            await user.put_multipart(file_id, 2, chunks[2]),
            await user.put_json(file_id, 1, chunks[1]),
            await user.put(file_id, 0, chunks[0]),
        ]
        for answer, chunk, index in zip(answers, reversed(chunks), ("2", "1", "0"), strict=True):
            assert answer.status == 200, answer.body
            told = answer.json()
            assert set(told) == {"s3_record_id", "s3_id", "index", "date_upload", "data_hash"}
            assert (told["index"], told["data_hash"]) == (index, hashlib.sha256(chunk).hexdigest())
        assert (await user.finalize(file_id)).status == 200
        whole = await user.call("GET", f"/drive/download/{file_id}")
        assert (whole.status, whole.body) == (200, content)
        info = (await user.call("GET", f"/drive/file/{file_id}")).json()
        assert [chunk["size"] for chunk in info["chunks"]] == [len(chunk) for chunk in chunks]
        one = await user.call("GET", f"/drive/download_chunk_binary/{info['chunks'][1]['s3_key']}")
        assert (one.body, one.header("x-chunk-iv"), one.header("x-chunk-index")) == (chunks[1], IV, "1")
        as_json = (await user.call("GET", f"/drive/download_chunk/{info['chunks'][2]['s3_key']}")).json()
        assert as_json == {"data": base64.b64encode(chunks[2]).decode(), "iv": IV, "index": "2"}


async def test_every_route_is_there_under_api_too(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.store(b"hello")
        assert (await user.call("GET", f"/api/drive/download/{file_id}")).body == b"hello"
        assert (await service.call("GET", "/api/health/ready")).body == b"OK"
        assert (await service.call("GET", "/apiary")).status == 404


async def test_finalize_refuses_holes_names_them_and_accepts_after_they_are_filled(
    database_url: str, tmp_path: Path
) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(5)
        for index in (0, 1, 4):
            await user.put(file_id, index, b"x")
        assert (await user.received(file_id))["received"] == [[0, 1], [4, 4]]
        refused = await user.finalize(file_id)
        assert (refused.status, refused.json()["code"]) == (409, "upload_incomplete")
        assert refused.json()["missing"] == [[2, 3]]
        for index in (2, 3):
            await user.put(file_id, index, b"x")
        for _ in range(3):
            assert (await user.finalize(file_id)).status == 200
        text = service.parts.metrics.render().decode()
        assert 'gauzian_file_uploads_total{status="success"} 1.0' in text


async def test_however_many_holes_there_are_an_answer_names_only_so_many_and_the_next_one_the_others(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gauzian.upload.lifecycle._MOST_RANGES", 2)
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(7)
        for index in (0, 2, 4, 6):
            await user.put(file_id, index, b"x")
        assert (await user.received(file_id))["received"] == [[0, 0], [2, 2]]
        assert (await user.finalize(file_id)).json()["missing"] == [[1, 1], [3, 3]]
        for index in (1, 3):
            await user.put(file_id, index, b"x")
        assert (await user.finalize(file_id)).json()["missing"] == [[5, 5]]
        await user.put(file_id, 5, b"x")
        assert (await user.finalize(file_id)).status == 200


@pytest.mark.parametrize(
    ("size", "chunks", "query", "status"),
    [
        (0, [], "", 200),
        (1, [], "", 409),
        (20, [26, 26], "", 200),
        (24, [40], "", 200),
        (24, [52], "", 200),
        (24, [24], "", 200),
        (24, [41], "", 409),
        (48, [24], "", 409),
        (48, [24, 24], "?total_chunks=2", 200),
        (48, [24, 24], "?total_chunks=3", 409),
    ],
)
async def test_complete_is_what_the_declared_size_explains(
    database_url: str, tmp_path: Path, size: int, chunks: list[int], query: str, status: int
) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(size)
        for index, length in enumerate(chunks):
            await user.put(file_id, index, bytes(length))
        answer = await user.call("POST", f"/drive/finalize_upload/{file_id}/completed{query}")
        assert answer.status == status, answer.body


@pytest.mark.parametrize(("total_chunks", "status"), [(1, 409), (2, 200), (3, 409)])
async def test_the_number_of_chunks_named_at_the_beginning_counts(
    database_url: str, tmp_path: Path, total_chunks: int, status: int
) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(2, total_chunks=total_chunks)
        for index in range(2):
            assert (await user.put(file_id, index, b"x")).status == 200
        answer = await user.finalize(file_id)
        assert answer.status == status
        assert status == 200 or answer.json()["rule"] == "total_chunks"
        assert (await user.received(file_id))["total_chunks"] == total_chunks


async def test_the_byte_rule_can_be_switched_off(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path, finalize_check="contiguous") as service:
        user = await service.sign_up()
        file_id = await user.initialize(12345)
        await user.put(file_id, 0, b"made up")
        assert (await user.finalize(file_id)).status == 200


async def test_a_retry_keeps_one_object_and_a_replacement_removes_the_old_one(
    database_url: str, tmp_path: Path
) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(3)
        first = (await user.put(file_id, 0, b"abc")).json()
        again = (await user.put(file_id, 0, b"abc")).json()
        assert again == first
        assert await objects_of(service) == {first["s3_id"]}
        other = (await user.put(file_id, 0, b"xyz")).json()
        assert await objects_of(service) == {other["s3_id"]} != {first["s3_id"]}


async def test_ten_at_once_on_one_index_leave_one_object(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(10)

        async def send(number: int) -> None:
            assert (await user.put(file_id, 0, bytes([number]) * 10)).status == 200

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(send, number)
        assert (await user.received(file_id))["bytes"] == 10
        assert len(await objects_of(service)) == 1
        assert (await user.finalize(file_id)).status == 200
        body = (await user.call("GET", f"/drive/download/{file_id}")).body
        assert len(body) == 10
        assert len(set(body)) == 1


async def test_an_aborted_upload_is_gone_and_stays_gone(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(3)
        await user.put(file_id, 0, b"abc")
        for answer in (await user.abort(file_id), await user.finalize(file_id, "aborted"), await user.abort(NO_FILE)):
            assert answer.status == 200
        assert await objects_of(service) == set()
        late = await user.put(file_id, 1, b"late")
        assert (late.status, late.json()["code"]) == (409, "upload_closed")
        assert (await user.finalize(file_id)).status == 409
        assert (await user.call("GET", f"/drive/file/{file_id}")).status == 404
        assert await objects_of(service) == set()


async def test_a_finalized_file_takes_no_chunk_and_cannot_be_aborted(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.store(b"abc")
        assert (await user.put(file_id, 0, b"xyz")).status == 409
        assert (await user.put(file_id, 1, b"xyz")).status == 409
        assert (await user.abort(file_id)).status == 409
        assert (await user.finalize(file_id, "aborted")).status == 409
        assert (await user.call("GET", f"/drive/download/{file_id}")).body == b"abc"
        assert len(await objects_of(service)) == 1


async def test_a_stranger_gets_403_everywhere_and_changes_nothing(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        owner, stranger = await service.sign_up(), await service.sign_up()
        open_file, done = await owner.initialize(3), await owner.store(b"done")
        key = (await owner.call("GET", f"/drive/file/{done}")).json()["chunks"][0]["s3_key"]
        await owner.put(open_file, 0, b"abc")
        before = await objects_of(service)
        for answer in [
            await stranger.put(open_file, 1, b"mine"),
            await stranger.put_json(open_file, 1, b"mine"),
            await stranger.put_multipart(open_file, 1, b"mine"),
            await stranger.finalize(open_file),
            await stranger.finalize(open_file, "aborted"),
            await stranger.abort(open_file),
            await stranger.call("GET", f"/drive/files/{open_file}/upload"),
            await stranger.call("GET", f"/drive/file/{done}"),
            await stranger.call("GET", f"/drive/download/{done}"),
            await stranger.call("GET", f"/drive/download_chunk_binary/{key}"),
        ]:
            assert (answer.status, answer.json()["code"]) == (403, "not_yours")
        assert await objects_of(service) == before


TOKENS = [
    ({}, "not_signed_in"),
    ({"Authorization": "Bearer nonsense"}, "invalid_token"),
    ({"Authorization": "Basic dTpw"}, "not_signed_in"),
    ({"Cookie": "auth_token=nonsense", "Sec-Fetch-Site": "same-origin"}, "invalid_token"),
]


@pytest.mark.parametrize(("headers", "code"), TOKENS)
async def test_without_a_good_token_every_door_is_401_before_anything_else(
    database_url: str, tmp_path: Path, headers: dict[str, str], code: str
) -> None:
    async with running_service(database_url, tmp_path) as service:
        for method, path in [
            ("POST", "/drive/upload_chunk_binary?file_id=junk&index=-1"),
            ("POST", f"/drive/upload_chunk_binary?file_id={NO_FILE}&index=0&iv={IV}"),
            ("POST", "/drive/upload_chunk"),
            ("POST", "/drive/files/junk/upload-chunk"),
            ("POST", "/drive/initialize_file"),
            ("POST", "/drive/abort_upload"),
            ("POST", f"/drive/finalize_upload/{NO_FILE}/completed"),
            ("GET", "/drive/files/junk/upload"),
            ("GET", f"/drive/file/{NO_FILE}"),
            ("GET", f"/drive/download/{NO_FILE}"),
            ("GET", "/drive/download_chunk/nothing"),
        ]:
            answer = await service.call(method, path, headers=headers, body=b"{}" if method == "POST" else b"")
            assert (answer.status, answer.json()["code"]) == (401, code), path
        assert service.parts.upload_gate.taken == 0


@pytest.mark.parametrize("how", ["signed out", "expired"])
async def test_a_token_that_was_good_opens_no_door_any_more(database_url: str, tmp_path: Path, how: str) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(3)
        key = (await user.put(file_id, 0, b"abc")).json()["s3_id"]
        if how == "expired":
            async with service.parts.database.connection() as conn:
                await conn.execute("UPDATE tokens SET expires_at = now()")
        else:
            assert (await user.call("POST", "/logout")).status == 200
        answers = [
            await user.put(file_id, 1, b"abc"),
            await user.put_json(file_id, 1, b"abc"),
            await user.put_multipart(file_id, 1, b"abc"),
            await user.finalize(file_id),
            await user.abort(file_id),
            await user.call("GET", f"/drive/files/{file_id}/upload"),
            await user.call("GET", f"/drive/file/{file_id}"),
            await user.call("GET", f"/drive/download/{file_id}"),
            await user.call("GET", f"/drive/download_chunk_binary/{key}"),
            await user.call("POST", "/logout"),
        ]
        assert [(answer.status, answer.json()["code"]) for answer in answers] == [(401, "invalid_token")] * len(answers)
        assert await objects_of(service) == {key}


BAD_CHUNKS = [
    ("file_id=junk&index=0&iv=aa", 400, "bad_field"),
    ("index=0&iv=aa", 400, "missing_field"),
    ("file_id={id}&iv=aa", 400, "missing_field"),
    ("file_id={id}&index=0", 400, "missing_field"),
    ("file_id={id}&index=-1&iv=aa", 400, "bad_field"),
    ("file_id={id}&index=2147483648&iv=aa", 400, "bad_field"),
    ("file_id={id}&index=99999999999999999999&iv=aa", 400, "bad_field"),
    ("file_id={id}&index=one&iv=aa", 400, "bad_field"),
    ("file_id={id}&index=0&index=1&iv=aa", 400, "duplicate_field"),
    ("file_id={id}&index=0&iv=", 400, None),
    ("file_id={id}&index=0&iv=%0d%0aevil", 400, "bad_field"),
    ("file_id=" + NO_FILE + "&index=0&iv=aa", 404, "file_not_found"),
]


@pytest.mark.parametrize(("query", "status", "code"), BAD_CHUNKS)
async def test_junk_in_the_query_is_named_and_stores_nothing(
    database_url: str, tmp_path: Path, query: str, status: int, code: str | None
) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(3)
        answer = await user.call("POST", "/drive/upload_chunk_binary?" + query.replace("{id}", file_id), body=b"abc")
        assert answer.status == status, answer.body
        if code is not None:
            assert answer.json()["code"] == code
        assert await objects_of(service) == set()
        assert service.parts.upload_gate.taken == 0


async def test_the_size_limit_is_kept_to_the_byte_at_every_door(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path, max_chunk_size=1000) as service:
        user = await service.sign_up()
        file_id = await user.initialize(3000)
        for index, put in enumerate((user.put, user.put_json, user.put_multipart)):
            assert (await put(file_id, index, bytes(1000))).status == 200
            refused = await put(file_id, index, bytes(1001))
            assert (refused.status, refused.json()["code"], refused.json()["limit"]) == (413, "chunk_too_large", 1000)
            empty = await put(file_id, index, b"")
            assert (empty.status, empty.json()["code"]) == (400, "empty_chunk")
        assert (await user.received(file_id))["bytes"] == 3000
        assert len(await objects_of(service)) == 3


async def test_a_digest_is_checked_and_a_wrong_one_keeps_nothing(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(3)
        right = base64.b64encode(hashlib.sha256(b"abc").digest()).decode()
        for digest, status in ((right, 200), (base64.b64encode(bytes(32)).decode(), 400), ("junk", 400)):
            answer = await user.put(
                file_id, 0 if status == 200 else 1, b"abc", headers={"Content-Digest": f"sha-256=:{digest}:"}
            )
            assert answer.status == status, answer.body
        assert len(await objects_of(service)) == 1
        assert (await user.received(file_id))["received"] == [[0, 0]]


@pytest.mark.parametrize("door", ["put", "put_json", "put_multipart"])
async def test_a_digest_is_about_the_decoded_bytes_at_every_door(database_url: str, tmp_path: Path, door: str) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(3)
        for content, status in ((b"abc", 200), (b"abd", 400)):
            digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
            answer = await getattr(user, door)(file_id, 0, b"abc", headers={"Content-Digest": f"sha-256=:{digest}:"})
            assert answer.status == status
            assert status == 200 or answer.json()["code"] == "digest_mismatch"
        assert len(await objects_of(service)) == 1


async def test_the_quota_holds_to_the_byte_under_a_hundred_parallel_chunks(database_url: str, tmp_path: Path) -> None:
    async with running_service(
        database_url, tmp_path, quota_bytes=1000, max_concurrent_uploads=100, max_uploads_per_user=100
    ) as service:
        user = await service.sign_up()
        file_id = await user.initialize(1000)
        statuses: list[int] = []

        async def send(index: int) -> None:
            statuses.append((await user.put(file_id, index, bytes(15))).status)

        async with anyio.create_task_group() as tasks:
            for index in range(100):
                tasks.start_soon(send, index)
        assert sorted(set(statuses)) == [200, 507]
        assert statuses.count(200) == 66
        assert len(await objects_of(service)) == 66
        too_much = {"size": 11, "encrypted_metadata": "m", "mime_type": "", "folder_id": "", "encrypted_file_key": "k"}
        assert (await user.call("POST", "/drive/initialize_file", json=too_much)).status == 507
        await user.abort(file_id)
        assert (await user.put(await user.initialize(1000), 0, bytes(1000))).status == 200


async def test_the_last_chunk_of_a_full_quota_can_be_retried(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path, quota_bytes=100) as service:
        user = await service.sign_up()
        file_id = await user.initialize(100)
        for _ in range(3):
            assert (await user.put(file_id, 0, bytes(100))).status == 200
        assert (await user.put(file_id, 1, b"x")).status == 507


BAD_INITIALIZE = [
    ({"size": -1}, 400),
    ({"size": "12"}, 400),
    ({"size": True}, 400),
    ({"size": 1.5}, 400),
    ({"size": 2**63}, 400),
    ({"total_chunks": -1}, 400),
    ({"folder_id": "corbeille"}, 400),
    ({"folder_id": str(uuid4())}, 404),
    ({"folder_id": 5}, 400),
    ({"encrypted_metadata": "a\x00b"}, 400),
    ({"encrypted_metadata": None}, 400),
    ({"mime_type": "x" * 5000}, 400),
    ({"folder_id": "ROOT", "unknown": [1, 2]}, 200),
    ({"folder_id": "00000000-0000-0000-0000-000000000000"}, 200),
    ({"mime_type": "", "folder_id": " null "}, 200),
]


@pytest.mark.parametrize(("fields", "status"), BAD_INITIALIZE)
async def test_initialize_takes_what_clients_send_and_refuses_junk(
    database_url: str, tmp_path: Path, fields: dict[str, object], status: int
) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        given = {
            "size": 3,
            "encrypted_metadata": "m",
            "mime_type": "text/plain",
            "folder_id": "root",
            "encrypted_file_key": "k",
        }
        answer = await user.call("POST", "/drive/initialize_file", json=given | fields)
        assert answer.status == status, answer.body


async def test_chunks_racing_with_finalize_are_all_counted_or_refused(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path, finalize_check="contiguous") as service:
        user = await service.sign_up()
        file_id = await user.initialize(0)
        statuses: dict[int, int] = {}

        async def send(index: int) -> None:
            statuses[index] = (await user.put(file_id, index, b"x")).status

        async with anyio.create_task_group() as tasks:
            for index in range(12):
                tasks.start_soon(send, index)
            await anyio.lowlevel.checkpoint()
            while (await user.finalize(file_id)).status != 200:
                await anyio.lowlevel.checkpoint()
        accepted = [index for index, status in statuses.items() if status == 200]
        assert set(statuses.values()) <= {200, 409}
        info = (await user.call("GET", f"/drive/file/{file_id}")).json()
        assert [chunk["index"] for chunk in info["chunks"]] == sorted(accepted)
        assert len(await objects_of(service)) == len(accepted)


async def test_chunks_racing_with_abort_leave_nothing(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        for _ in range(5):
            file_id = await user.initialize(0)
            async with anyio.create_task_group() as tasks:
                for index in range(8):
                    tasks.start_soon(user.put, file_id, index, b"x")
                await anyio.lowlevel.checkpoint()
                tasks.start_soon(user.abort, file_id)
                tasks.start_soon(user.finalize, file_id, "aborted")
            assert await objects_of(service) == set()


async def test_places_are_refused_with_the_founding_words_and_come_back(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path, max_concurrent_uploads=2) as service:
        user = await service.sign_up()
        file_id = await user.initialize(3)
        with service.parts.upload_gate.enter(), service.parts.upload_gate.enter():
            for put in (user.put, user.put_json, user.put_multipart):
                busy = await put(file_id, 0, b"abc")
                assert busy.status == 400
                assert busy.json() == {"error": "Server busy, please retry", "code": "uploads_busy"}
                assert busy.header("retry-after") in {"1", "2", "3"}
        assert (await user.put(file_id, 0, b"abc")).status == 200


@pytest.mark.parametrize("door", ["put", "put_json", "put_multipart"])
async def test_one_user_holds_no_more_than_a_share_at_any_door(database_url: str, tmp_path: Path, door: str) -> None:
    async with running_service(database_url, tmp_path, max_concurrent_uploads=4, max_uploads_per_user=1) as service:
        greedy, other = await service.sign_up(), await service.sign_up()
        info = (await greedy.call("GET", "/info")).json()
        with service.parts.upload_gate.enter() as place:
            place.claim_for(UUID(info["id"]))
            busy = await getattr(greedy, door)(await greedy.initialize(3), 0, b"abc")
            assert (busy.status, busy.json()["code"]) == (400, "uploads_busy")
            assert (await getattr(other, door)(await other.initialize(3), 0, b"abc")).status == 200
        assert (await getattr(greedy, door)(await greedy.initialize(3), 0, b"abc")).status == 200


async def test_what_routing_refuses_has_our_shape(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        for method, path, status, code in [
            ("GET", "/nowhere", 404, "not_found"),
            ("GET", "/drive/download/", 404, "not_found"),
            ("GET", "/login", 405, "method_not_allowed"),
            ("PUT", "/drive/upload_chunk_binary", 405, "method_not_allowed"),
        ]:
            answer = await service.call(method, path)
            assert (answer.status, answer.json()["code"]) == (status, code)
            assert answer.header("x-request-id")
            assert set(answer.json()) == {"error", "code"}


async def test_the_front_page_says_in_one_line_what_this_is(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        answer = await service.call("GET", "/")
        assert answer.status == 200
        assert json.loads(answer.body)["service"] == "gauzian"
        assert b"\n" not in answer.body
