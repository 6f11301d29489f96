"""What a client sees of a download: whole file, range, single chunk; and what it sees when something is wrong."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import random
import uuid

import pytest

from gauzian.database.downloads import list_chunks
from gauzian.errors import DatabaseDown, ObjectDamaged
from tests.download.conftest import IV, House
from tests.download.fakes import Client, until

pytestmark = pytest.mark.anyio

# Pieces of the store are 1000 bytes: chunks of several pieces, of exactly one, of less.
CONTENTS = [random.Random(number).randbytes(size) for number, size in enumerate((2500, 1000, 3, 3000, 1))]
WHOLE = b"".join(CONTENTS)


@pytest.fixture
async def ada(house: House) -> uuid.UUID:
    return await house.add_user("ada")


@pytest.fixture
async def file_id(house: House, ada: uuid.UUID) -> uuid.UUID:
    return await house.add_file(ada, CONTENTS)


async def test_the_whole_file_comes_in_order_with_its_length(house: House, file_id: uuid.UUID) -> None:
    answer = await house.get(f"/drive/download/{file_id}")
    assert answer.status == 200
    assert answer.body == WHOLE
    assert answer.header("content-length") == str(len(WHOLE))
    assert answer.header("content-type") == "application/octet-stream"
    assert answer.header("accept-ranges") == "bytes"
    assert answer.header("content-disposition") == f'attachment; filename="{file_id}"'
    assert house.sample('gauzian_file_downloads_total{status="success"}') == 1
    assert house.sample("gauzian_download_bytes_total") == len(WHOLE)


async def test_a_file_of_many_pages_comes_whole_and_by_any_range(house: House, ada: uuid.UUID) -> None:
    contents = [bytes([index % 251]) * (1 + index % 3) for index in range(150)]
    whole = b"".join(contents)
    path = f"/drive/download/{await house.add_file(ada, contents)}"
    assert (await house.get(path)).body == whole
    for start, stop in [(0, 1), (5, 6), (200, 299), (130, len(whole)), (len(whole) - 1, len(whole))]:
        answer = await house.get(path, range=f"bytes={start}-{stop - 1}")
        assert answer.status == 206
        assert answer.body == whole[start:stop]


async def test_an_empty_file_is_an_empty_answer(house: House, ada: uuid.UUID) -> None:
    answer = await house.get(f"/drive/download/{await house.add_file(ada, [])}", range="bytes=0-")
    assert (answer.status, answer.body, answer.header("content-length")) == (200, b"", "0")


@pytest.mark.parametrize(
    ("value", "start", "stop"),
    [("bytes=0-0", 0, 1), ("bytes=2499-2500", 2499, 2501), ("bytes=-1", -1, None), ("bytes=3000-", 3000, None)],
)
async def test_a_range_is_that_part(house: House, file_id: uuid.UUID, value: str, start: int, stop: int | None) -> None:
    answer = await house.get(f"/drive/download/{file_id}", range=value)
    expected = WHOLE[start:stop]
    first = start % len(WHOLE)
    assert answer.status == 206
    assert answer.body == expected
    assert answer.header("content-length") == str(len(expected))
    assert answer.header("content-range") == f"bytes {first}-{first + len(expected) - 1}/{len(WHOLE)}"
    assert house.sample('gauzian_file_downloads_total{status="partial"}') == 1


async def test_a_range_outside_is_416_with_the_size(house: House, file_id: uuid.UUID) -> None:
    answer = await house.get(f"/drive/download/{file_id}", range="bytes=99999-")
    assert answer.status == 416
    assert answer.json()["code"] == "range_not_satisfiable"
    assert answer.header("content-range") == f"bytes */{len(WHOLE)}"


async def test_several_ranges_are_answered_with_everything(house: House, file_id: uuid.UUID) -> None:
    answer = await house.get(f"/drive/download/{file_id}", range="bytes=0-1,5-6")
    assert (answer.status, answer.body) == (200, WHOLE)


async def test_a_copy_is_asked_about_by_its_tag(house: House, file_id: uuid.UUID) -> None:
    path = f"/drive/download/{file_id}"
    first = await house.get(path)
    tag, modified = first.header("etag") or "", first.header("last-modified") or ""
    assert tag.startswith('"')
    for condition in ({"if_none_match": tag}, {"if_modified_since": modified}):
        answer = await house.get(path, **condition)
        assert (answer.status, answer.body, answer.header("etag")) == (304, b"", tag)
    assert (await house.get(path, if_none_match='"other"')).status == 200
    refused = await house.get(path, if_match='"other"')
    assert (refused.status, refused.json()["code"]) == (412, "precondition_failed")
    assert (await house.get(path, range="bytes=0-0", if_range=tag)).status == 206
    assert (await house.get(path, range="bytes=0-0", if_range=modified)).status == 206
    assert (await house.get(path, range="bytes=0-0", if_range='"other"')).status == 200


async def test_head_says_the_same_without_a_byte_and_without_the_store(house: House, file_id: uuid.UUID) -> None:
    for path in (
        f"/drive/download/{file_id}",
        f"/drive/file/{file_id}",
        f"/drive/download_chunk_binary/{file_id}.0",
        f"/drive/download_chunk/{file_id}.0",
    ):
        whole = await house.get(path)
        house.store.opened.clear()
        head = await house.get(path, method="HEAD", range="bytes=0-0")
        assert (head.status, head.headers, head.body) == (200, whole.headers, b"")
        assert not house.store.opened


async def test_a_raw_chunk_brings_what_belongs_to_it(house: House, file_id: uuid.UUID) -> None:
    answer = await house.get(f"/drive/download_chunk_binary/{file_id}.3")
    assert (answer.status, answer.body) == (200, CONTENTS[3])
    assert answer.header("content-type") == "application/octet-stream"
    assert answer.header("content-length") == "3000"
    assert answer.header("x-chunk-iv") == IV
    assert answer.header("x-chunk-index") == "3"
    digest = base64.b64encode(hashlib.sha256(CONTENTS[3]).digest()).decode()
    assert answer.header("content-digest") == f"sha-256=:{digest}:"
    known = await house.get(f"/drive/download_chunk_binary/{file_id}.3", if_none_match=answer.header("etag") or "")
    assert (known.status, known.body) == (304, b"")
    assert house.sample('gauzian_chunk_download_duration_seconds_count{status="success"}') == 1


@pytest.mark.parametrize("piece", [1, 2, 3, 4, 1000])
async def test_a_json_chunk_is_the_same_in_base64(house: House, file_id: uuid.UUID, piece: int) -> None:
    house.store.piece = piece
    for index, content in enumerate(CONTENTS):
        answer = await house.get(f"/drive/download_chunk/{file_id}.{index}")
        assert answer.status == 200
        assert list(answer.json()) == ["data", "iv", "index"]
        assert base64.b64decode(answer.json()["data"], validate=True) == content
        assert (answer.json()["iv"], answer.json()["index"]) == (IV, str(index))
        assert answer.header("content-length") == str(len(answer.body))


async def test_an_odd_iv_cannot_write_headers_of_its_own(house: House, file_id: uuid.UUID) -> None:
    odd = 'a\r\nset-cookie: x="é"'
    await house.execute("UPDATE chunks SET iv = %s WHERE index = 0", odd)
    raw = await house.get(f"/drive/download_chunk_binary/{file_id}.0")
    assert raw.header("x-chunk-iv") == 'a%0D%0Aset-cookie: x="%C3%A9"'
    json = await house.get(f"/drive/download_chunk/{file_id}.0")
    assert json.json()["iv"] == odd
    assert json.header("content-length") == str(len(json.body))


async def test_info_lists_every_chunk_whatever_their_number(house: House, ada: uuid.UUID) -> None:
    for count in (0, 1, 3, 4, 5, 8, 9):  # pages of four
        contents = [bytes([65 + index]) for index in range(count)]
        file_id = await house.add_file(ada, contents, state="uploading" if count == 5 else "complete")
        info = await house.get(f"/drive/file/{file_id}")
        given = info.json()
        assert info.status == 200
        assert given["chunk_count"] == count
        assert [chunk["s3_key"] for chunk in given["chunks"]] == [f"{file_id}.{index}" for index in range(count)]
        for index, chunk in enumerate(given["chunks"]):
            assert uuid.UUID(chunk["chunk_id"])
            assert (chunk["index"], chunk["size"], chunk["iv"]) == (index, 1, IV)
            assert chunk["sha256"] == hashlib.sha256(contents[index]).hexdigest()
        assert {
            key: given[key] for key in ("file_id", "encrypted_metadata", "encrypted_file_key", "size", "mime_type")
        } == {
            "file_id": str(file_id),
            "encrypted_metadata": "bWV0YQ==",
            "encrypted_file_key": "a2V5",
            "size": 12,
            "mime_type": "text/plain",
        }
        assert given["created_at"] <= given["updated_at"]


async def test_info_that_breaks_off_half_way_does_not_look_complete(
    house: House, ada: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_id = await house.add_file(ada, [b"x"] * 9)
    client = Client()
    asked = 0

    async def failing_list(*args: object, **kwargs: object) -> object:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise DatabaseDown
        return await list_chunks(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("gauzian.download.info.list_chunks", failing_list)
    with pytest.raises(DatabaseDown):
        await house.get_as(client, f"/drive/file/{file_id}")
    assert client.status == 200
    assert not client.done.is_set()


async def test_who_may_not_is_told_why(house: House, file_id: uuid.UUID, ada: uuid.UUID) -> None:
    await house.add_user("bob")
    unfinished = await house.add_file(ada, [b"half"], state="uploading")
    aborted = await house.add_file(ada, [b"gone"], state="aborted")
    nobody = uuid.uuid4()
    table = [
        (f"/drive/file/{file_id}", None, 401, "not_signed_in"),
        (f"/drive/download/{file_id}", "mallory", 401, "invalid_token"),
        ("/drive/download/junk", None, 401, "not_signed_in"),
        (f"/drive/file/{file_id}", "bob", 403, "not_yours"),
        (f"/drive/download/{file_id}", "bob", 403, "not_yours"),
        (f"/drive/download_chunk/{file_id}.0", "bob", 403, "not_yours"),
        (f"/drive/download_chunk_binary/{unfinished}.0", "bob", 403, "not_yours"),
        (f"/drive/file/{nobody}", "ada", 404, "file_not_found"),
        (f"/drive/download/{nobody}", "ada", 404, "file_not_found"),
        (f"/drive/file/{aborted}", "ada", 404, "file_not_found"),
        (f"/drive/download/{aborted}", "ada", 404, "file_not_found"),
        (f"/drive/download_chunk/{aborted}.0", "ada", 404, "chunk_not_found"),
        (f"/drive/download_chunk_binary/{file_id}.99", "ada", 404, "chunk_not_found"),
        ("/drive/download_chunk_binary/..%00", "ada", 404, "chunk_not_found"),
        ("/drive/download_chunk_binary/" + "a" * 201, "ada", 404, "chunk_not_found"),
        ("/drive/download_chunk_binary/%C3%A9", "ada", 404, "chunk_not_found"),
        ("/drive/file/junk", "ada", 400, "bad_field"),
        ("/drive/download/6b1d2f40-8a5e-4c0f-9d0e-1f2a3b4c5d6", "ada", 400, "bad_field"),
        (f"/drive/download/{unfinished}", "ada", 409, "upload_incomplete"),
    ]
    for path, user, status, code in table:
        answer = await house.get(path, user=user)
        assert (answer.status, answer.json()["code"]) == (status, code), path
        head = await house.get(path, user=user, method="HEAD")
        assert (head.status, head.body) == (status, b""), path
    assert not house.store.opened
    assert house.sample('gauzian_file_downloads_total{status="failed"}') == 0


async def test_a_file_shared_with_a_user_is_theirs_to_read(house: House, file_id: uuid.UUID) -> None:
    bob = await house.add_user("bob")
    await house.execute(
        "INSERT INTO file_access (file_id, user_id, encrypted_file_key, access_level)"
        " VALUES (%s, %s, 'Ym9i', 'viewer')",
        file_id,
        bob,
    )
    assert (await house.get(f"/drive/file/{file_id}", user="bob")).json()["encrypted_file_key"] == "Ym9i"
    assert (await house.get(f"/drive/download/{file_id}", user="bob")).body == WHOLE
    assert (await house.get(f"/drive/download_chunk_binary/{file_id}.2", user="bob")).body == CONTENTS[2]


async def test_the_owner_reads_the_chunks_of_an_upload_that_goes_on(house: House, ada: uuid.UUID) -> None:
    unfinished = await house.add_file(ada, [b"half"], state="uploading")
    assert (await house.get(f"/drive/download_chunk_binary/{unfinished}.0")).body == b"half"


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        ("missing", 502, "chunk_damaged"),
        ("short", 502, "chunk_damaged"),
        ("long", 502, "chunk_damaged"),
        ("flipped", 502, "chunk_damaged"),
        ("refused", 503, "store_unavailable"),
    ],
)
async def test_trouble_before_the_first_byte_is_an_honest_answer(
    house: House, ada: uuid.UUID, trouble: str, status: int, code: str
) -> None:
    file_id = await house.add_file(ada, [b"small", b"next"])
    house.store.trouble[f"{file_id}.0"] = trouble
    for path in (
        f"/drive/download/{file_id}",
        f"/drive/download_chunk_binary/{file_id}.0",
        f"/drive/download_chunk/{file_id}.0",
    ):
        answer = await house.get(path)
        assert (answer.status, answer.json()["code"]) == (status, code)
    assert house.sample('gauzian_file_downloads_total{status="failed"}') == 1
    assert house.sample('gauzian_chunk_download_duration_seconds_count{status="failed"}') == 2


@pytest.mark.parametrize(
    ("trouble", "at"),
    [
        *((trouble, 0) for trouble in ("short", "long", "flipped", "fails")),
        *((trouble, 3) for trouble in ("missing", "short", "long", "flipped", "refused", "fails")),
    ],
)
async def test_trouble_after_the_first_byte_breaks_the_answer_off(
    house: House, file_id: uuid.UUID, trouble: str, at: int
) -> None:
    house.store.trouble[f"{file_id}.{at}"] = trouble
    client = Client()
    with pytest.raises(Exception) as broken:  # noqa: PT011 - the server sees it and breaks the connection off
        await house.get_as(client, f"/drive/download/{file_id}")
    assert broken.value.answer_status in {502, 503}  # type: ignore[attr-defined]
    assert client.status == 200
    assert not client.done.is_set()
    complete = sum(map(len, CONTENTS[: at + 1]))
    assert len(client.body) < complete
    assert WHOLE.startswith(client.body)


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM chunks WHERE index = 4",
        "DELETE FROM chunks WHERE index = 2",
        "DELETE FROM chunks WHERE index = 0",
        "UPDATE files SET stored_bytes = stored_bytes + 1",
        "UPDATE files SET stored_bytes = stored_bytes - 1",
        "UPDATE files SET chunk_count = chunk_count + 1",
        "UPDATE chunks SET index = index + 10",
    ],
)
async def test_rows_that_do_not_add_up_are_never_a_complete_answer(house: House, file_id: uuid.UUID, harm: str) -> None:
    await house.execute(harm)
    client = Client()
    with contextlib.suppress(ObjectDamaged):
        await house.get_as(client, f"/drive/download/{file_id}")
    assert client.status == 502 or not client.done.is_set()


async def test_a_full_house_says_busy_at_once_and_asks_nobody(house: House, file_id: uuid.UUID) -> None:
    stalled = [Client(stalls_after=1) for _ in range(house.gate.places)]
    tasks = [asyncio.create_task(house.get_as(client, f"/drive/download/{file_id}")) for client in stalled]
    for client in stalled:
        await client.stalled.wait()
    answer = await house.get(f"/drive/download/{file_id}", user=None)
    assert (answer.status, answer.json()["code"]) == (503, "downloads_busy")
    assert answer.header("retry-after") in {"1", "2", "3"}
    for client in stalled:
        client.gone.set()
    await asyncio.gather(*tasks)
    await until(house.is_quiet)
    assert (await house.get(f"/drive/download/{file_id}")).body == WHOLE


@pytest.mark.parametrize("swallowed", [False, True])
@pytest.mark.parametrize("pieces", [1, 2, 4])
async def test_a_client_that_leaves_frees_everything(
    house: House, file_id: uuid.UUID, swallowed: bool, pieces: int
) -> None:
    await house.get_as(Client(leaves_after=pieces, swallowed=swallowed), f"/drive/download/{file_id}")
    await until(house.is_quiet)
    assert house.sample('gauzian_file_downloads_total{status="aborted"}') == 1
    assert house.sample('gauzian_errors_total{code="client_gone"}') == 1


@pytest.mark.parametrize("trouble", ["stalls", "stalls_opening"])
async def test_a_client_that_leaves_while_the_store_stalls_frees_everything(
    house: House, file_id: uuid.UUID, trouble: str
) -> None:
    house.store.trouble[f"{file_id}.0"] = trouble
    client = Client()
    download = asyncio.create_task(house.get_as(client, f"/drive/download/{file_id}"))
    await house.store.stalling.wait()
    client.gone.set()
    await download
    await until(house.is_quiet)


async def test_a_client_that_stops_reading_is_cut_and_its_place_is_free(house: House, file_id: uuid.UUID) -> None:
    impatient = House(house.database, stall_seconds=0.05)
    impatient.store.objects = house.store.objects
    await impatient.get_as(Client(stalls_after=2), f"/drive/download/{file_id}")
    await until(impatient.is_quiet)
    assert impatient.sample('gauzian_slow_clients_cut_total{direction="download"}') == 1


async def test_no_connection_is_held_while_a_client_is_slow(house: House, file_id: uuid.UUID) -> None:
    client = Client(stalls_after=1)
    download = asyncio.create_task(house.get_as(client, f"/drive/download/{file_id}"))
    await client.stalled.wait()
    lent = house.database.statistics()
    assert lent.size == lent.idle
    client.gone.set()
    await download


@pytest.mark.parametrize("path", ["/drive/download/{}", "/drive/download_chunk/{}.0", "/drive/file/{}"])
async def test_a_server_that_stops_at_any_await_leaves_nothing_behind(
    house: House, file_id: uuid.UUID, path: str
) -> None:
    turns, finished = 0, False
    while not finished:
        turns += 3
        client = Client()
        download = asyncio.create_task(house.get_as(client, path.format(file_id)))
        for _ in range(turns):
            await asyncio.sleep(0)
        finished = download.done()
        download.cancel()
        await asyncio.wait([download])
        assert download.cancelled() or (download.done() and download.exception() is None)
        await until(house.is_quiet)
