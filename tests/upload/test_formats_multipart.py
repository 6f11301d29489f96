"""A chunk as multipart/form-data: parts in any order, boundaries cut anywhere, everything that is no such form."""

from __future__ import annotations

import asyncio
import email
import tracemalloc
from typing import Any
from uuid import UUID

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gauzian.errors import (
    ApiError,
    BadField,
    ChunkTooLarge,
    DuplicateField,
    EmptyChunk,
    MalformedMultipart,
    MissingField,
    UnsupportedMediaType,
)
from gauzian.upload.formats import BodyLimits
from gauzian.upload.multipart_chunk import MultipartChunk, MultipartReader
from gauzian.upload.part_headers import boundary_of
from tests.taps import CountedTap, offering
from tests.upload.feeding import FILE_ID, IV, Client, Fed, arrive, complaint, cut_at, feed, in_pieces, post

pytestmark = pytest.mark.anyio

BOUNDARY = "----geckoformboundary1f"
# Bytes that look like a boundary again and again, and never are one.
DATA = b"\r\n--" + BOUNDARY.encode()[:-1] + b"\r\n\r\r\n-\r\n--\r\n----gecko" + bytes(range(256)) + b"\r"


def part(name: str, content: bytes, *lines: str) -> bytes:
    head = [f'Content-Disposition: form-data; name="{name}"', *lines]
    return f"--{BOUNDARY}\r\n".encode() + "\r\n".join(head).encode() + b"\r\n\r\n" + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
CHUNK, INDEX, IV_PART = part("chunk", DATA, "Content-Type: x/y"), part("chunk_index", b"7"), part("iv", IV.encode())
WHOLE = CHUNK + INDEX + IV_PART + END


def reader(boundary: str = BOUNDARY) -> MultipartReader:
    return MultipartReader(boundary.encode(), UUID(FILE_ID))


def seen(fed: Fed) -> tuple[str, int, str, bytes]:
    return str(fed.named.file_id), fed.named.index, fed.named.iv, fed.data


GOOD = {
    "as the browser sends it": WHOLE,
    "the bytes last": INDEX + IV_PART + CHUNK + END,
    "the bytes between": IV_PART + CHUNK + part("index", b"007") + END,
    "unknown parts": part("a", b"1") + INDEX + part("a", DATA) + IV_PART + part("", b"") + CHUNK + part("z", b"") + END,
    "something before and behind": b"Hello\r\nthere\r\n" + WHOLE + b"and bye\r\n--" + BOUNDARY.encode() + b"\r\nmore",
    "nothing behind the last dash": WHOLE[:-2],
    "padding behind the boundaries": WHOLE.replace(b"1f\r\n", b"1f \t \r\n"),
    "headers written otherwise": WHOLE.replace(
        b'Content-Disposition: form-data; name="', b'content-DISPOSITION:form-data ;NAME = "'
    ),
    "names without quotes": WHOLE.replace(b'"chunk"', b"chunk").replace(b'"iv"', b"iv;"),
    "names with escapes": WHOLE.replace(b'"chunk"', b'"\\c\\hunk"'),
    "file names with traps": WHOLE.replace(
        b'"chunk"', b'"chunk"; filename="a; name=\\"iv\\";\xc3\xa9"; filename*=UTF-8\'\'a%3B'
    ),
    "a harmless encoding": WHOLE.replace(b"Content-Type: x/y", b"Content-Transfer-Encoding: Binary"),
}


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD.keys())
def test_a_form_reads_the_same_however_it_is_written_and_cut(body: bytes) -> None:
    ways = [[body], list(in_pieces(body, 1)), list(in_pieces(body, 7))]
    ways += [[body[:place], body[place:]] for place in range(len(body))]
    for pieces in ways:
        assert seen(feed(reader(), pieces)) == (FILE_ID, 7, IV, DATA)


def test_a_form_cut_short_anywhere_is_refused() -> None:
    for place in range(len(WHOLE) - 2):
        with pytest.raises(MalformedMultipart):
            feed(reader(), in_pieces(WHOLE[:place], 50))


def test_two_parts_may_not_mean_the_same() -> None:
    for twice in (CHUNK, INDEX, IV_PART, part("index", b"7")):
        with pytest.raises(DuplicateField):
            feed(reader(), [twice + WHOLE])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (END, ("missing_field", "chunk")),
        (INDEX + IV_PART + END, ("missing_field", "chunk")),
        (CHUNK + IV_PART + END, ("missing_field", "chunk_index")),
        (CHUNK + INDEX + END, ("missing_field", "iv")),
        (WHOLE.replace(b'"chunk"', b'"Chunk"'), ("missing_field", "chunk")),
        *[
            (CHUNK + IV_PART + part("index", junk) + END, ("bad_field", "chunk_index"))
            for junk in (b"", b"-1", b"2147483648", b"1.0", b" 1", b"1\r\n", b"\xd9\xa3", b"null")
        ],
        (CHUNK + IV_PART + part("index", b"1" * 300) + END, ("bad_field", "index")),
        *[
            (CHUNK + INDEX + part("iv", junk) + END, ("bad_field", "iv"))
            for junk in (b"", b"x" * 65, b"x" * 300, b"a b", b"a\r\nb", b"\xe9", b'"')
        ],
    ],
)
def test_a_missing_or_bad_field_is_named(body: bytes, said: tuple[str, str]) -> None:
    for pieces in ([body], in_pieces(body, 1)):
        with pytest.raises(ApiError) as refused:
            feed(reader(), pieces)
        assert complaint(refused.value) == said


MALFORMED = {
    "nothing": b"",
    "no boundary at all": b"x" * 1000,
    "no final boundary": WHOLE.removesuffix(END),
    "half a final boundary": WHOLE.removesuffix(b"-\r\n"),
    "another boundary": WHOLE.replace(b"boundary1f", b"boundary2f"),
    "line feeds only": WHOLE.replace(b"\r\n", b"\n"),
    "line feeds between headers": WHOLE.replace(b"\r\nContent-Type", b"\nContent-Type"),
    "a boundary that goes on": WHOLE.replace(b"1f\r\n", b"1f0\r\n", 1),
    "a boundary with one dash": WHOLE.replace(b"1f\r\n", b"1f-\r\n", 1),
    "a boundary with endless padding": b"--" + BOUNDARY.encode() + b" " * 100 + b"\r\n",
    "a part without headers": WHOLE.replace(END, f"--{BOUNDARY}\r\n\r\nx\r\n".encode() + END),
    "a part without a name": WHOLE.replace(b'; name="iv"', b""),
    "a part with two names": WHOLE.replace(b'; name="iv"', b'; name="iv"; name="chunk"'),
    "a part with two dispositions": WHOLE.replace(b"Content-Type: x/y", b'Content-Disposition: form-data; name="iv"'),
    "an attachment": WHOLE.replace(b"form-data", b"attachment"),
    "an open quote": WHOLE.replace(b'name="iv"', b'name="iv'),
    "junk behind a name": WHOLE.replace(b'name="iv"', b'name="iv" x'),
    "a header without a colon": WHOLE.replace(b"Content-Type: x/y", b"Content-Type"),
    "a header with a space in its name": WHOLE.replace(b"Content-Type: x/y", b"Content-Type : x/y"),
    "a bare CR in a header": WHOLE.replace(b' name="iv"', b'\rname="iv"'),
    "a bare LF in a header": WHOLE.replace(b' name="iv"', b'\nname="iv"'),
    "a NUL in a header": WHOLE.replace(b"x/y", b"x\x00y"),
    "a folded header": WHOLE.replace(b"Content-Type: x/y", b"X: y\r\n z: 1"),
    "an encoding that was not undone": WHOLE.replace(b"Content-Type: x/y", b"Content-Transfer-Encoding: base64"),
    "huge headers": WHOLE.replace(b"x/y", b"x" * 9000),
    "headers without end": WHOLE[:80] + b"X: " + b"x" * 100_000,
    "too many parts": part("a", b"") * 30 + WHOLE,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_such_form_is_refused(body: bytes) -> None:
    for pieces in ([body], in_pieces(body, 1), in_pieces(body, 100)):
        with pytest.raises(MalformedMultipart):
            feed(reader(), pieces)


@pytest.mark.parametrize("begun", [WHOLE[:80], f"--{BOUNDARY}".encode()], ids=["headers", "padding"])
def test_what_does_not_end_is_refused_before_it_piles_up(begun: bytes) -> None:
    form = reader()
    with pytest.raises(MalformedMultipart):
        for _ in range(200):
            form.feed(begun)
            begun = b" " * 100
    assert len(form._window) <= 8 * 1024


def test_headers_may_be_large_within_reason() -> None:
    body = WHOLE.replace(b"x/y", b"x" * 8000)
    assert seen(feed(reader(), in_pieces(body, 13))) == (FILE_ID, 7, IV, DATA)


@pytest.mark.parametrize("boundary", ["x", "'()+_,-./:=?", "a b", "x" * 70])
def test_every_boundary_the_standard_allows_is_found(boundary: str) -> None:
    scope = post(1, content_type=f'multipart/form-data; boundary="{boundary}"')
    assert boundary_of(scope) == boundary.encode()
    body = WHOLE.replace(BOUNDARY.encode(), boundary.encode()).replace(DATA, b"data")
    for size in (1, 1000):
        assert feed(MultipartReader(boundary_of(scope), UUID(FILE_ID)), in_pieces(body, size)).data[-4:] == b"data"


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ("Multipart/Form-Data;BOUNDARY=abc;charset=utf-8", b"abc"),
        ('multipart/form-data; charset="utf-8"; boundary="abc"', b"abc"),
        ("multipart/form-data; boundary=a/b=c:d", b"a/b=c:d"),
        ("multipart/form-data", MalformedMultipart),
        ("multipart/form-data; boundary", MalformedMultipart),
        ("multipart/form-data; boundary=", MalformedMultipart),
        ('multipart/form-data; boundary=""', MalformedMultipart),
        ('multipart/form-data; boundary="a', MalformedMultipart),
        ('multipart/form-data; boundary="a "', MalformedMultipart),
        ("multipart/form-data; boundary=" + "x" * 71, MalformedMultipart),
        ("multipart/form-data; boundary=a; boundary=b", MalformedMultipart),
        ("multipart/form-data; boundary=é", MalformedMultipart),
        ("multipart/form-data boundary=abc", UnsupportedMediaType),
        ("multipart/mixed; boundary=abc", UnsupportedMediaType),
        ("application/octet-stream", UnsupportedMediaType),
        ("", UnsupportedMediaType),
    ],
)
def test_the_boundary_stands_in_the_content_type(content_type: str, boundary: bytes | type[ApiError]) -> None:
    scope = post(1, content_type=content_type)
    form = MultipartChunk(BodyLimits(max_chunk_size=1000))
    if isinstance(boundary, bytes):
        assert boundary_of(scope) == boundary
        assert form.early_target(scope) == (UUID(FILE_ID), None)
    else:
        with pytest.raises(boundary):
            form.early_target(scope)


def test_ten_mebibytes_pass_without_being_held() -> None:
    piece = b"\r" * 65535 + b"x"
    form = reader()
    tracemalloc.start()
    try:
        form.feed(part("chunk", b"")[:-2])
        largest, total = 0, 0
        for _ in range(160):
            found = form.feed(piece)
            largest, total = max(largest, *map(len, found)), total + sum(map(len, found))
        total += sum(map(len, form.feed(b"\r\n" + INDEX + IV_PART + END)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 160 * 65536
    assert largest < 65536 + 100
    assert peak < 300 * 1024
    assert form.finish().index == 7


@pytest.mark.parametrize("size", [1, 30, 65536])
def test_nothing_is_held_back_that_cannot_begin_a_boundary(size: int) -> None:
    form = reader()
    form.feed(part("chunk", b"")[:-2])
    for _ in range(20):
        assert form.feed(b"x" * size) == [b"x" * size]
        assert len(form._window) == 0


# --- against a reader that has everything in memory ---


def judge(body: bytes, boundary: bytes) -> dict[str, list[bytes]] | None:
    """The contents of the parts by name, or None if the body is no form. No limits, no pity with memory."""
    _, found, rest = (b"\r\n" + body).partition(b"\r\n--" + boundary)
    parts: dict[str, list[bytes]] = {}
    while found and not rest.startswith(b"--"):
        head, _, rest = rest.partition(b"\r\n\r\n")
        padding, _, head = head.partition(b"\r\n")
        if padding.strip(b" \t"):
            return None
        name = email.message_from_bytes(head + b"\r\n\r\n").get_param("name", header="content-disposition")
        content, found, rest = rest.partition(b"\r\n--" + boundary)
        parts.setdefault(str(name), []).append(content)
    return parts if found else None


def read(body: bytes, boundary: str, places: list[int]) -> Fed | None:
    try:
        return feed(reader(boundary), cut_at(body, places))
    except (MalformedMultipart, BadField, MissingField, DuplicateField):
        return None


boundaries = st.sampled_from(["x", "-x", "a-a", BOUNDARY])
# Content made of what boundaries are made of.
contents = st.lists(
    st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n", b"\r\n--", b"x", b"a", b"\x00\xff"]), max_size=12
)
cuts = st.lists(st.integers(0, 3000), max_size=12)


@st.composite
def forms(draw: st.DrawFn, boundary: str) -> bytes:
    def content() -> bytes:
        drawn = b"".join(draw(contents))
        assume(b"--" + boundary.encode() not in drawn)
        return drawn

    index = draw(st.sampled_from(["index", "chunk_index"]))
    parts = [("chunk", content()), (index, b"%d" % draw(st.integers(0, 2**31 - 1))), ("iv", IV.encode())]
    parts += [(name, content()) for name in draw(st.lists(st.sampled_from(["a", "b"]), max_size=3))]
    written = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + text + b"\r\n"
        for name, text in draw(st.permutations(parts))
    )
    return content() + b"\r\n" + written + f"--{boundary}--".encode() + b"".join(draw(contents))


@settings(max_examples=120, deadline=None)
@given(st.data(), boundaries, cuts)
def test_forms_read_as_the_simple_reader_reads_them(data: st.DataObject, boundary: str, places: list[int]) -> None:
    body = data.draw(forms(boundary))
    expected, fed = judge(body, boundary.encode()), read(body, boundary, places)
    assert fed is not None
    assert expected is not None
    assert expected["chunk"] == [fed.data]
    assert expected["iv"] == [fed.named.iv.encode()]
    assert expected.get("index", []) + expected.get("chunk_index", []) == [b"%d" % fed.named.index]


@settings(max_examples=120, deadline=None)
@given(
    st.data(),
    st.lists(
        st.tuples(st.integers(0, 3000), st.integers(0, 3), st.sampled_from(list(b'\r\n-x":; '))), min_size=1, max_size=3
    ),
    cuts,
)
def test_a_damaged_form_is_refused_or_read_as_the_simple_reader_reads_it(
    data: st.DataObject, damage: list[tuple[int, int, int]], places: list[int]
) -> None:
    broken = bytearray(data.draw(forms(BOUNDARY)))
    for place, removed, added in damage:
        place %= len(broken) + 1
        broken[place : place + removed] = bytes([added])
    expected, fed = judge(bytes(broken), BOUNDARY.encode()), read(bytes(broken), BOUNDARY, places)
    if fed is not None:
        assert expected is not None
        assert expected["chunk"] == [fed.data]
        assert expected["iv"] == [fed.named.iv.encode()]


# --- the format around the reader ---


def form_post(length: int | None = None, **more: str) -> dict[str, Any]:
    return post(length, content_type=f"multipart/form-data; boundary={BOUNDARY}", **more)


def format_of(max_chunk_size: int = 1 << 20) -> MultipartChunk:
    return MultipartChunk(BodyLimits(max_chunk_size=max_chunk_size))


async def test_a_small_form_that_is_all_there_has_a_size() -> None:
    arrived = await arrive(format_of(), form_post(len(WHOLE)), Client([WHOLE]))
    assert (arrived.file_id, arrived.index, arrived.iv, arrived.data) == (FILE_ID, 7, IV, DATA)
    assert arrived.size == len(DATA)


async def test_a_large_form_streams_with_the_index_behind_the_bytes() -> None:
    large = DATA * 1000
    body = part("chunk", large) + INDEX + IV_PART + END
    client = Client(in_pieces(body, 16384))
    async with format_of().open(form_post(len(body)), client.receive) as incoming:
        assert (client.asked, incoming.size) == (1, None)
        await anext(incoming.pieces)
        with pytest.raises(RuntimeError):
            _ = incoming.index
        assert sum([len(piece) async for piece in incoming.pieces]) > len(large) - 16384
    assert (incoming.index, incoming.iv) == (7, IV)


@pytest.mark.parametrize("sent", [0, 60, 300])
async def test_cancelled_while_it_waits_it_goes(sent: int) -> None:
    client = Client([WHOLE[:sent]], ends=False)
    task = asyncio.create_task(arrive(format_of(), form_post(len(WHOLE)), client))
    await asyncio.wait_for(client.waiting.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_path_names_the_file_and_junk_is_refused_before_the_body() -> None:
    client = Client([WHOLE])
    for junk in ("root", "", FILE_ID[1:]):
        with pytest.raises(BadField) as refused:
            format_of().early_target(form_post(5, file_id=junk))
        assert complaint(refused.value) == ("bad_field", "file_id")
        with pytest.raises(BadField):
            await arrive(format_of(), form_post(5, file_id=junk), client)
    assert client.asked == 0


async def test_the_limit_counts_the_bytes_of_the_chunk() -> None:
    assert (await arrive(format_of(len(DATA)), form_post(), Client(in_pieces(WHOLE, 20)))).data == DATA
    for pieces in ([WHOLE], in_pieces(WHOLE, 20)):
        with pytest.raises(ChunkTooLarge) as refused:
            await arrive(format_of(len(DATA) - 1), form_post(), Client(pieces))
        assert refused.value.fields == {"limit": len(DATA) - 1}


async def test_parts_nobody_wants_count_against_the_body() -> None:
    stuffed = [part("a", b"x" * 40_000), part("b", b"x" * 40_000), WHOLE]
    with pytest.raises(ChunkTooLarge):
        await arrive(format_of(1000), form_post(), Client(stuffed))
    with pytest.raises(ChunkTooLarge):
        format_of(1000).check_declared(form_post(1500 + 65537))


async def test_a_part_without_bytes_is_an_empty_chunk() -> None:
    with pytest.raises(EmptyChunk):
        await arrive(format_of(), form_post(), Client([part("chunk", b"") + INDEX + IV_PART + END]))


@pytest.mark.parametrize("size", [len(WHOLE), 100])
async def test_there_is_no_tap_for_what_stands_between_boundaries(size: int) -> None:
    scope = offering(form_post(len(WHOLE)), CountedTap())
    async with format_of().open(scope, Client(in_pieces(WHOLE, size)).receive) as incoming:
        assert getattr(incoming.pieces, "tap", None) is None
        assert b"".join([piece async for piece in incoming.pieces]) == DATA
