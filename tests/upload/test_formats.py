"""What the chunk formats share, and the raw one: limits, targets, digests, and the order of the three steps."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from contextlib import closing
from typing import Any
from uuid import UUID

import pytest

from gauzian.errors import ApiError, BadField, ChunkTooLarge, ClientGone, EmptyChunk, Message, UploadTooSlow
from gauzian.upload.digest import promised_sha256
from gauzian.upload.formats import BodyLimits, ChunkPieces, IncomingChunk, Named, RawChunk
from gauzian.web.body import Body
from tests.taps import CountedTap, offering
from tests.upload.feeding import FILE_ID, IV, Arrived, Client, arrive, complaint, post

pytestmark = pytest.mark.anyio

LIMITS = BodyLimits(max_chunk_size=1000)
RAW = RawChunk(LIMITS)
IV_QUERY = "q83vEjRWeJCrze8%2B"
QUERY = f"file_id={FILE_ID}&index=7&iv={IV_QUERY}"


async def test_a_raw_chunk_comes_through_as_it_is() -> None:
    client = Client([b"abc", b"", b"defg"])
    arrived = await arrive(RAW, post(7, query=QUERY), client)
    assert arrived == Arrived(FILE_ID, 7, IV, b"abcdefg", 7, None, 4)


async def test_a_raw_chunk_without_a_length_has_no_size_before_its_end() -> None:
    arrived = await arrive(RAW, post(query=QUERY), Client([b"x" * 1000]))
    assert (arrived.size, len(arrived.data)) == (None, 1000)


async def test_index_and_iv_cannot_be_read_before_the_bytes_have_ended() -> None:
    async with RAW.open(post(query=QUERY), Client([b"a", b"b"]).receive) as incoming:
        assert incoming.file_id == UUID(FILE_ID)
        assert await anext(incoming.pieces) == b"a"
        for name in ("index", "iv"):
            with pytest.raises(RuntimeError):
                getattr(incoming, name)
        assert [piece async for piece in incoming.pieces] == [b"b"]
    assert (incoming.index, incoming.iv) == (7, IV)


async def test_the_body_is_asked_for_only_when_its_bytes_are() -> None:
    client = Client([b"abc"])
    scope = post(3, query=QUERY)
    RAW.check_declared(scope)
    assert RAW.early_target(scope) == (UUID(FILE_ID), 7)
    async with RAW.open(scope, client.receive) as incoming:
        assert client.asked == 0
        assert await anext(incoming.pieces) == b"abc"


@pytest.mark.parametrize(
    ("file_id", "is_one"),
    [
        (FILE_ID, True),
        (FILE_ID.upper(), True),
        (FILE_ID.replace("-", ""), True),
        ("{" + FILE_ID + "}", True),
        ("URN:UUID:" + FILE_ID, True),
        ("", False),
        ("root", False),
        (FILE_ID[:-1], False),
        (FILE_ID + "0", False),
        (FILE_ID + "%0A", False),
        ("{" + FILE_ID, False),
        (FILE_ID.replace("-", "") + "-", False),
        ("0x" + FILE_ID.replace("-", "")[2:], False),
        (FILE_ID.replace("-", "")[:30] + "_0", False),
        ("%D9%A3" * 32, False),
        ("+" + FILE_ID.replace("-", "")[1:], False),
    ],
)
def test_a_file_id_is_a_uuid_in_a_known_form(file_id: str, is_one: bool) -> None:
    scope = post(3, query=f"file_id={file_id}&index=0&iv=x")
    if is_one:
        assert RAW.early_target(scope) == (UUID(FILE_ID), 0)
    else:
        with pytest.raises(BadField) as refused:
            RAW.early_target(scope)
        assert complaint(refused.value) == ("bad_field", "file_id")


@pytest.mark.parametrize(
    ("index", "number"),
    [("0", 0), ("007", 7), ("2147483647", 2**31 - 1), ("%37", 7)]
    + [(junk, None) for junk in ("2147483648", "9" * 11, "9" * 5000, "-1", "+1", "1.0", "1e3", "1_0", "0x1", "", "a")]
    + [(junk, None) for junk in ("%D9%A3", "1%0A", "1%00", "%201", "null")],
)
def test_an_index_is_a_whole_number_that_fits(index: str, number: int | None) -> None:
    scope = post(3, query=f"file_id={FILE_ID}&index={index}&iv=x")
    if number is not None:
        assert RAW.early_target(scope) == (UUID(FILE_ID), number)
    else:
        with pytest.raises(BadField) as refused:
            RAW.early_target(scope)
        assert complaint(refused.value) == ("bad_field", "index")


@pytest.mark.parametrize(
    ("iv", "taken"),
    [
        (IV_QUERY, IV),
        (IV, IV),  # a client that does not encode the plus in its base64
        ("test-iv_1.2:3", "test-iv_1.2:3"),
        ("!~%23", "!~#"),
        ("x" * 64, "x" * 64),
        ("ab==", "ab=="),
    ]
    + [(junk, None) for junk in ("", "x" * 65, "a%20b", "a%0D%0Ab", "a%00", "%C3%A9", "%7F", "a%22", "a'", "a%5C")],
)
async def test_an_iv_is_a_short_printable_word(iv: str, taken: str | None) -> None:
    scope = post(1, query=f"file_id={FILE_ID}&index=0&iv={iv}")
    if taken is not None:
        assert (await arrive(RAW, scope, Client([b"x"]))).iv == taken
    else:
        with pytest.raises(BadField) as refused:
            RAW.early_target(scope)
        assert complaint(refused.value) == ("bad_field", "iv")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", ("missing_field", "file_id")),
        ("index=0&iv=x", ("missing_field", "file_id")),
        (f"file_id={FILE_ID}&iv=x", ("missing_field", "index")),
        (f"file_id={FILE_ID}&index=0", ("missing_field", "iv")),
        (f"file_id={FILE_ID}&INDEX=0&iv=x", ("missing_field", "index")),
        (QUERY + "&index=7", ("duplicate_field", "index")),
        (QUERY + "&%69v=x", ("duplicate_field", "iv")),
        (QUERY + f"&file_id={FILE_ID}", ("duplicate_field", "file_id")),
        (QUERY + "&index", ("duplicate_field", "index")),
        (QUERY.replace("&", ";"), ("missing_field", "index")),
    ],
)
async def test_each_query_field_must_stand_there_once(query: str, said: tuple[str, str]) -> None:
    client = Client([b"x"])
    with pytest.raises(ApiError) as refused:
        RAW.early_target(post(1, query=query))
    assert complaint(refused.value) == said
    with pytest.raises(ApiError) as refused:
        async with RAW.open(post(1, query=query), client.receive):
            pass
    assert (complaint(refused.value), client.asked) == (said, 0)


def test_other_query_fields_are_no_concern() -> None:
    assert RAW.early_target(post(1, query=f"&&a=1&a=2&{QUERY}&%FF=%FF&=")) == (UUID(FILE_ID), 7)


def test_a_declared_length_is_judged_without_the_body() -> None:
    RAW.check_declared(post(1000))
    RAW.check_declared(post(None))
    for length, error in ((0, EmptyChunk), (1001, ChunkTooLarge), (10**9, ChunkTooLarge)):
        with pytest.raises(error):
            RAW.check_declared(post(length))
    with pytest.raises(EmptyChunk):  # HTTP/1.1 without any length: there is no body
        RAW.check_declared({"http_version": "1.1", "headers": []})


async def test_a_chunk_over_the_limit_is_refused_as_soon_as_the_count_passes_it() -> None:
    client = Client([b"x" * 600, b"x" * 400, b"x", b"x"])
    with pytest.raises(ChunkTooLarge) as refused:
        await arrive(RAW, post(query=QUERY), client)
    assert refused.value.fields == {"limit": 1000}
    assert client.asked == 3


@pytest.mark.parametrize("pieces", [[], [b"", b""]])
async def test_a_chunk_without_bytes_is_refused_and_stays_refused(pieces: list[bytes]) -> None:
    async with RAW.open(post(query=QUERY), Client(pieces).receive) as incoming:
        for _ in range(2):
            with pytest.raises(EmptyChunk):
                await anext(incoming.pieces)


async def test_a_body_shorter_than_declared_is_no_chunk() -> None:
    with pytest.raises(ClientGone):
        await arrive(RAW, post(6, query=QUERY), Client([b"abc"]))


async def test_a_client_that_stalls_is_too_slow() -> None:
    slow = RawChunk(BodyLimits(max_chunk_size=1000, idle_seconds=0.02))
    with pytest.raises(UploadTooSlow):
        await arrive(slow, post(6, query=QUERY), Client([b"abc"], ends=False))


async def test_a_client_below_the_rate_is_too_slow_long_before_it_is_silent_too_long() -> None:
    slow = RawChunk(BodyLimits(max_chunk_size=1000, idle_seconds=60, min_rate=16 * 1024, grace_seconds=0.02))
    with pytest.raises(UploadTooSlow):
        await asyncio.wait_for(arrive(slow, post(6, query=QUERY), Client([b"abc"], ends=False)), 10)


async def test_cancelled_while_it_waits_for_bytes_it_leaves_no_timer() -> None:
    client = Client([b"abc"], ends=False)
    task = asyncio.create_task(arrive(RAW, post(6, query=QUERY), client))
    await asyncio.wait_for(client.waiting.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert body_timers() == []


async def test_a_chunk_that_is_left_early_leaves_no_timer() -> None:
    async with RAW.open(post(6, query=QUERY), Client([b"abc"]).receive) as incoming:
        await anext(incoming.pieces)
        assert len(body_timers()) == 1
    assert body_timers() == []


def body_timers() -> list[Any]:
    scheduled = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    return [handle for handle in scheduled if not handle.cancelled() and "Body._look" in repr(handle)]


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "aws-chunked"])
def test_a_content_coding_is_refused(coding: str) -> None:
    with pytest.raises(ApiError) as refused:
        RAW.early_target(post(1, query=QUERY, content_encoding=coding))
    assert complaint(refused.value) == ("unsupported_media_type", None)
    assert RAW.early_target(post(1, query=QUERY, content_encoding="Identity")) == (UUID(FILE_ID), 7)


HASH = hashlib.sha256(b"abc").digest()
SEQUENCE = f":{base64.b64encode(HASH).decode()}:"


@pytest.mark.parametrize(
    ("lines", "promised"),
    [
        ([], None),
        ([f"sha-256={SEQUENCE}"], HASH),
        ([f"sha-512=:AAAA:, sha-256={SEQUENCE}"], HASH),
        ([f"unknown=:what/ever:\t,\t sha-256={SEQUENCE};q=1"], HASH),
        (["sha-512=:AAAA:", f"sha-256={SEQUENCE}"], HASH),
        ([f"SHA-256={SEQUENCE}"], HASH),
        ([f"sha-256={SEQUENCE}", f"sha-256={SEQUENCE}"], HASH),
        (["sha-512=junk"], None),
        (["junk"], None),
        ([""], None),
    ],
)
def test_a_digest_promise_is_found_among_others(lines: list[str], promised: bytes | None) -> None:
    scope = {"headers": [(b"content-digest", line.encode()) for line in lines]}
    assert promised_sha256(scope) == promised


@pytest.mark.parametrize(
    "value",
    [
        "sha-256",
        "sha-256=",
        "sha-256=::",
        "sha-256=" + SEQUENCE.strip(":"),
        "sha-256=" + SEQUENCE[:-1],
        "sha-256=:AAAA:",
        "sha-256=" + SEQUENCE.replace("=", ""),
        f'sha-256="{SEQUENCE}"',
        f"sha-256={SEQUENCE}x",
        "sha-256=:" + HASH.hex() + ":",
        "sha-256=:" + base64.urlsafe_b64encode(b"\xff" * 32).decode() + ":",
        f"sha-256={SEQUENCE}, sha-256=:{base64.b64encode(bytes(32)).decode()}:",
        "sha-256=:\xe9:",
    ],
)
async def test_a_malformed_digest_promise_is_refused_before_the_body(value: str) -> None:
    with pytest.raises(BadField) as refused:
        RAW.early_target(post(1, query=QUERY, content_digest=value))
    assert complaint(refused.value) == ("bad_field", "Content-Digest")
    client = Client([b"abc"])
    with pytest.raises(BadField):
        async with RAW.open(post(1, query=QUERY, content_digest=value), client.receive):
            pass
    assert client.asked == 0


async def test_the_promise_comes_with_the_chunk() -> None:
    scope = post(3, query=QUERY, content_digest=f"sha-256={SEQUENCE}")
    assert (await arrive(RAW, scope, Client([b"abc"]))).sha256 == HASH


async def test_a_large_raw_chunk_is_never_held() -> None:
    limits = BodyLimits(max_chunk_size=10 << 20)
    sent = 0

    async def receive() -> Message:
        nonlocal sent
        sent += 65536
        return {"type": "http.request", "body": bytes(65536), "more_body": sent < 10 << 20}

    taken = 0
    async with RawChunk(limits).open(post(10 << 20, query=QUERY), receive) as incoming:
        async for piece in incoming.pieces:
            taken += len(piece)
            assert taken == sent  # nothing was read ahead
    assert taken == 10 << 20


def pieces_of(incoming: IncomingChunk) -> ChunkPieces:
    assert isinstance(incoming.pieces, ChunkPieces)
    return incoming.pieces


async def test_the_pieces_of_a_raw_chunk_of_a_known_length_have_the_tap_of_its_body() -> None:
    tap = CountedTap()
    for scope, its in [
        (offering(post(3, query=QUERY), tap), tap),
        (offering(post(query=QUERY), tap), None),
        (post(3, query=QUERY), None),
    ]:
        async with RAW.open(scope, Client([b"abc"]).receive) as incoming:
            assert pieces_of(incoming).tap is its


async def test_what_was_taken_by_the_tap_is_of_the_chunk() -> None:
    tap = CountedTap()
    async with RAW.open(offering(post(10, query=QUERY), tap), Client([b"abc", b"z"]).receive) as incoming:
        pieces = pieces_of(incoming)
        assert await anext(pieces) == b"abc"
        tap.drawn(2)
        assert pieces.size == 5
        tap.drawn(4)
        assert (pieces.size, pieces.ended) == (9, False)
        assert [piece async for piece in pieces] == [b"z"]
        assert (pieces.size, pieces.ended, incoming.size) == (10, True, 10)
    assert (incoming.index, incoming.iv) == (7, IV)


@pytest.mark.parametrize("taken", [0, 1, 5])
async def test_a_chunk_shorter_than_declared_is_none_with_a_tap_either(taken: int) -> None:
    tap = CountedTap()
    async with RAW.open(offering(post(10, query=QUERY), tap), Client([b"abc", b"z"]).receive) as incoming:
        assert await anext(incoming.pieces) == b"abc"
        tap.drawn(taken)
        assert await anext(incoming.pieces) == b"z"
        for _ in range(2):
            with pytest.raises(ClientGone):
                await anext(incoming.pieces)
        assert not pieces_of(incoming).ended


async def test_a_chunk_is_too_large_and_not_empty_whichever_way_it_came() -> None:
    tap = CountedTap()
    async with RAW.open(offering(post(1000, query=QUERY), tap), Client([b"abc"]).receive) as incoming:
        tap.drawn(998)
        with pytest.raises(ChunkTooLarge):
            await anext(incoming.pieces)
    tap = CountedTap()
    async with RAW.open(offering(post(10, query=QUERY), tap), Client([]).receive) as incoming:
        tap.drawn(10)
        assert [piece async for piece in incoming.pieces] == []
        assert pieces_of(incoming).ended


class AsItIs:
    def feed(self, piece: bytes) -> tuple[bytes]:
        return (piece,)

    def finish(self) -> Named:
        raise AssertionError("it has no end")


async def test_the_limit_of_a_chunk_counts_both_ways_under_a_body_that_may_be_larger() -> None:
    tap = CountedTap()
    body = Body(post(5000), Client([b"abc", b"d"]).receive, most_bytes=5000)
    with closing(body), closing(ChunkPieces(body, AsItIs(), most_bytes=1000, tap=tap)) as pieces:
        assert await anext(pieces) == b"abc"
        tap.drawn(997)
        for _ in range(2):
            with pytest.raises(ChunkTooLarge):
                await anext(pieces)
