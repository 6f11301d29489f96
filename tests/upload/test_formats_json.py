"""A chunk as JSON: every way to write it, every way to cut it, everything that is no such document."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gauzian.errors import (
    ApiError,
    BadField,
    ChunkTooLarge,
    DuplicateField,
    EmptyChunk,
    MalformedJson,
    MissingField,
    UnsupportedMediaType,
)
from gauzian.stores.spool import Spool
from gauzian.stores.threads import FileThreads
from gauzian.upload import json_chunk
from gauzian.upload.base64_text import Base64Text
from gauzian.upload.formats import BodyLimits
from gauzian.upload.json_chunk import JsonChunk, JsonReader
from tests.taps import CountedTap, offering
from tests.upload.feeding import FILE_ID, IV, Client, arrive, complaint, cut_at, feed, in_pieces, post

pytestmark = pytest.mark.anyio

DATA = bytes(range(256)) + b"\xfb\xff\xbf\x00" * 3 + b"end"
TEXT = base64.b64encode(DATA).decode()
WHOLE = {"file_id": FILE_ID, "index": 7, "chunk_data": TEXT, "iv": IV}


def document(**members: Any) -> bytes:
    return json.dumps({**WHOLE, **members}).encode()


def raw(template: str) -> bytes:
    """A document by hand: «name» stands for the JSON of that field."""
    return re.sub("«(.*?)»", lambda name: json.dumps(WHOLE[name[1]]), template).encode()


GOOD = {
    "as the old client sends it": document(),
    "iv and index behind the bytes": raw('{"file_id":«file_id»,"chunk_data":«chunk_data»,"index":«index»,"iv":«iv»}'),
    "the bytes first": raw('{"chunk_data":«chunk_data»,"iv":«iv»,"index":«index»,"file_id":«file_id»}'),
    "white space everywhere": raw(
        ' \t\r\n{ "file_id" :\n«file_id» , "index"\t: «index»\r\n, "chunk_data" \t\r\n : \n «chunk_data» ,"iv":«iv»}\n '
    ),
    "every slash escaped": json.dumps(WHOLE).replace("/", "\\/").encode(),
    "every letter of the bytes escaped": raw('{"file_id":«file_id»,"index":7,"iv":«iv»,"chunk_data":"')
    + "".join(f"\\u{ord(letter):04X}" for letter in TEXT).encode()
    + b'"}',
    "escaped keys": raw('{"\\u0066ile_id":«file_id»,"index":7,"iv":«iv»,"chunk\\u005fdat\\u0061":«chunk_data»}'),
    "unknown members": raw(
        '{"a":{"chunk_data":"x","index":[1,{}]},"b":"chunk_data","c":"\\"chunk_data\\":\\"","é":[[]],"":null,'
        '"file_id":«file_id»,"index":7,"iv":«iv»,"chunk_data":«chunk_data»,"z":-1.5e-3,"z":"twice","d":"«"}'
    ),
    "as deep as it may be": raw('{"deep":' + "[" * 31 + "]" * 31 + ',"file_id":«file_id»,"index":7,')
    + raw('"iv":«iv»,"chunk_data":«chunk_data»}'),
}


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD.keys())
def test_a_document_reads_the_same_however_it_is_written_and_cut(body: bytes) -> None:
    ways = [[body], list(in_pieces(body, 1)), list(in_pieces(body, 7))]
    ways += [[body[:place], body[place:]] for place in range(len(body))]
    for pieces in ways:
        fed = feed(JsonReader(), pieces)
        assert (str(fed.named.file_id), fed.named.index, fed.named.iv) == (FILE_ID, 7, IV)
        assert fed.data == DATA


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD.keys())
def test_a_document_cut_short_anywhere_is_refused(body: bytes) -> None:
    body = body.rstrip()
    for place in range(len(body)):
        with pytest.raises(ApiError) as refused:
            feed(JsonReader(), in_pieces(body[:place], 50))
        assert refused.value.code in ("malformed_json", "bad_field")


@pytest.mark.parametrize("length", range(1, 9))
def test_every_length_of_bytes_is_decoded(length: int) -> None:
    text = base64.b64encode(DATA[:length]).decode()
    assert feed(JsonReader(), in_pieces(document(chunk_data=text), 3)).data == DATA[:length]


MALFORMED = ("malformed_json", None)
BAD_DATA = ("bad_field", "chunk_data")

BAD: list[tuple[str, bytes, tuple[str, str | None]]] = [
    ("nothing", b"", MALFORMED),
    ("white space", b" \n ", MALFORMED),
    ("no object", b'"chunk_data"', MALFORMED),
    ("a list", b"[" + document() + b"]", MALFORMED),
    ("a list with members", document().replace(b"{", b"[").replace(b"}", b"]"), MALFORMED),
    ("two documents", document() + document(), MALFORMED),
    ("a tail", document() + b"x", MALFORMED),
    ("a closing brace too many", document() + b"}", MALFORMED),
    ("a comma at the end", document().replace(b"}", b",}"), MALFORMED),
    ("no comma", document().replace(b", ", b" "), MALFORMED),
    ("two colons", document().replace(b'"chunk_data":', b'"chunk_data"::'), MALFORMED),
    ("no colon", document().replace(b'"chunk_data":', b'"chunk_data" '), MALFORMED),
    ("single quotes", document().replace(b'"', b"'"), MALFORMED),
    ("a comment", document().replace(b", ", b", /* */ "), MALFORMED),
    ("a byte order mark", b"\xef\xbb\xbf" + document(), MALFORMED),
    ("UTF-16", json.dumps(WHOLE).encode("utf-16"), MALFORMED),
    ("Latin-1", json.dumps({**WHOLE, "a": "é"}, ensure_ascii=False).encode("latin-1"), MALFORMED),
    ("a raw line break in a string", document(a="?").replace(b"?", b"\n"), MALFORMED),
    ("NaN", document(a=float("nan")), MALFORMED),
    ("a number of 5000 digits", document(a="?").replace(b'"?"', b"9" * 5000), MALFORMED),
    ("too deep", document(a="?").replace(b'"?"', b"[" * 32 + b"]" * 32), MALFORMED),
    ("too deep in objects", document(a="?").replace(b'"?"', b'{"a":' * 32 + b"1" + b"}" * 32), MALFORMED),
    ("too much beside", document(a="x" * 20_000), MALFORMED),
    ("too much white space", document() + b" " * 20_000, MALFORMED),
    ("form fields", b"file_id=" + FILE_ID.encode() + b"&index=7", MALFORMED),
    ("no file_id", b'{"index":1,"chunk_data":"AAAA","iv":"x"}', ("missing_field", "file_id")),
    ("no index", raw('{"file_id":«file_id»,"chunk_data":"AAAA","iv":"x"}'), ("missing_field", "index")),
    ("no chunk_data", raw('{"file_id":«file_id»,"index":1,"iv":"x"}'), ("missing_field", "chunk_data")),
    ("no iv", raw('{"file_id":«file_id»,"index":1,"chunk_data":"AAAA"}'), ("missing_field", "iv")),
    ("an empty object", b"{}", ("missing_field", "file_id")),
    ("file_id twice", document()[:-1] + raw(',"file_id":«file_id»}'), ("duplicate_field", "file_id")),
    ("index twice, once escaped", document()[:-1] + b',"\\u0069ndex":7}', ("duplicate_field", "index")),
    ("iv twice", document()[:-1] + b',"iv":"x"}', ("duplicate_field", "iv")),
    ("chunk_data twice", document()[:-1] + raw(',"chunk_data":«chunk_data»}'), ("duplicate_field", "chunk_data")),
    ("chunk_data twice, once null", b'{"chunk_data":null,' + document()[1:], ("duplicate_field", "chunk_data")),
    ("chunk_data null", document(chunk_data=None), BAD_DATA),
    ("chunk_data a number", document(chunk_data=5), BAD_DATA),
    ("chunk_data a list", document(chunk_data=["AAAA"]), BAD_DATA),
    ("file_id junk", document(file_id="root"), ("bad_field", "file_id")),
    ("file_id null", document(file_id=None), ("bad_field", "file_id")),
    ("file_id a number", document(file_id=12), ("bad_field", "file_id")),
    ("iv null", document(iv=None), ("bad_field", "iv")),
    ("iv empty", document(iv=""), ("bad_field", "iv")),
    ("iv long", document(iv="x" * 65), ("bad_field", "iv")),
    ("iv with a line break", document(iv="a\r\nb"), ("bad_field", "iv")),
    ("iv not ASCII", document(iv="é"), ("bad_field", "iv")),
]
BAD += [
    (f"index {index!r}", document(index=index), ("bad_field", "index"))
    for index in (-1, 2**31, 10**30, 1.0, 1.5, "7", True, False, None, [7])
]
BAD += [
    (f"chunk_data {text!r}", document(chunk_data=text), BAD_DATA)
    for text in (
        *("A", "AA", "AAA", "AAAAA", "A===", "====", "=", "AA=A", "AAA=AAAA", "AA==AA==", "AAAA====", "AA=", "AAAA=="),
        *("AA-_", "AA AA", " AAAA", "AAAA\n", "AAAA\r\nAAAA", "AAA\x00", "AAAé", "AAA\\", 'AAA"', "AAA𝄞", "data:AAAA"),
    )
]
BAD += [
    ("chunk_data with a bad escape", raw('{"file_id":«file_id»,"chunk_data":"AAA\\x"}'), BAD_DATA),
    ("chunk_data with an escaped quote", document(chunk_data='AAAA"'), BAD_DATA),
    ("chunk_data with half an escape", raw('{"file_id":«file_id»,"chunk_data":"AAA\\u00"}'), BAD_DATA),
    ("chunk_data with a raw line break", document(chunk_data="AAAA?").replace(b"?", b"\n"), BAD_DATA),
    ("chunk_data with a bare \\xff", document(chunk_data="AAA?").replace(b"?", b"\xff"), BAD_DATA),
    ("chunk_data that ends in two backslashes", raw('{"file_id":«file_id»,"chunk_data":"AAAA\\\\\\\\"}'), BAD_DATA),
]


@pytest.mark.parametrize(("body", "said"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_what_is_no_such_document_is_refused_by_name(body: bytes, said: tuple[str, str | None]) -> None:
    for pieces in ([body], in_pieces(body, 1), in_pieces(body, 60)):
        with pytest.raises(ApiError) as refused:
            feed(JsonReader(), pieces)
        assert refused.value.status == 400
        assert complaint(refused.value) == said


def test_the_file_is_known_before_its_bytes_when_it_was_named_before() -> None:
    reader = JsonReader()
    reader.feed(raw('{"file_id":«file_id»,"chunk_data":'))
    assert reader.file_id is None
    reader.feed(b'"')
    assert reader.file_id == UUID(FILE_ID)


def test_a_broken_beginning_gives_no_bytes() -> None:
    with pytest.raises(MalformedJson):
        JsonReader().feed(raw('{"file_id":«file_id» "chunk_data":«chunk_data»'))


@pytest.mark.parametrize("junk", [b"[", b'{"a":', b'"', b"1,", b" ", b"\\", b"{}", b'"a":', b'"\\"', b"\xff"])
def test_megabytes_of_junk_are_refused_in_the_first_piece(junk: bytes) -> None:
    reader, body = JsonReader(), b'{"a":' + junk * (65536 // len(junk))
    with pytest.raises(MalformedJson):
        reader.feed(body)
    assert len(reader._rest) <= 16 * 1024


def test_the_bound_holds_when_chunk_data_begins_right_at_it() -> None:
    start = raw('{"file_id":«file_id»,"chunk_data":')
    reader = JsonReader()
    reader.feed(start + b" " * (16 * 1024 - 1 - len(start)) + b'"AAAA"')
    with pytest.raises(MalformedJson):
        reader.feed(b',"index":7,"iv":"x"}')


def test_ten_mebibytes_pass_without_being_held() -> None:
    text = base64.b64encode(bytes(48 * 1024))
    reader = JsonReader()
    tracemalloc.start()
    try:
        reader.feed(raw('{"file_id":«file_id»,"chunk_data":"'))
        largest, total = 0, 0
        for _ in range((10 << 20) // (48 * 1024)):
            (found,) = reader.feed(text)
            largest, total = max(largest, len(found)), total + len(found)
        reader.feed(b'AAAA","index":1,"iv":"x"}')
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (largest, total) == (48 * 1024, 213 * 48 * 1024)
    assert peak < 256 * 1024
    assert reader.finish().index == 1


# --- against json and base64 ---

BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def test_padding_is_taken_at_the_end_and_nowhere_else() -> None:
    for length in range(1, 13):
        for letters in product("A=", repeat=length):
            text = "".join(letters)
            for pieces in ([text], [text[: length // 2], text[length // 2 :]], text):
                decoder = Base64Text("chunk_data")
                try:
                    decoded = b"".join(decoder.decode(piece.encode()) for piece in pieces)
                    decoder.finish()
                except BadField:
                    assert not BASE64.fullmatch(text), text
                else:
                    assert BASE64.fullmatch(text), text
                    assert decoded == base64.b64decode(text)


HEX_GROUPS = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
UUID_FORM = re.compile(rf"(?i){HEX_GROUPS}|\{{{HEX_GROUPS}\}}")


def judge(body: bytes) -> tuple[str, int, str, bytes] | None:
    """What the document says by the standard library, or None if it is not good."""
    twice: list[str] = []

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice[:] = [name for name in WHOLE if names.count(name) > 1]  # the outermost object comes last
        return dict(pairs)

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=members, parse_constant=refuse)
        if twice or not BASE64.fullmatch(value["chunk_data"]) or type(value["index"]) is not int:
            return None
        if not 0 <= value["index"] < 2**31 or not re.fullmatch(r"[!#-&(-\[\]-~]{1,64}", value["iv"]):
            return None
        if not UUID_FORM.fullmatch(value["file_id"]):
            return None
        return str(UUID(value["file_id"])), value["index"], value["iv"], base64.b64decode(value["chunk_data"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def read(body: bytes, places: list[int]) -> tuple[str, int, str, bytes] | None:
    try:
        fed = feed(JsonReader(), cut_at(body, places))
    except (MalformedJson, BadField, MissingField, DuplicateField):
        return None
    return str(fed.named.file_id), fed.named.index, fed.named.iv, fed.data


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
spaces = st.text(" \t\r\n", max_size=3)


@st.composite
def strings(draw: st.DrawFn, value: str) -> str:
    """A JSON string for `value`, some of its letters escaped in one of the ways there are."""
    if not draw(st.booleans()):
        return json.dumps(value)
    letters = []
    for letter in value:
        if ord(letter) < 0x10000 and draw(st.integers(0, 9)) == 0:
            letters.append(f"\\u{ord(letter):04x}")
        else:
            letters.append("\\/" if letter == "/" and draw(st.booleans()) else json.dumps(letter)[1:-1])
    return '"' + "".join(letters) + '"'


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    data = draw(st.binary(max_size=60))
    members: list[tuple[str, Any]] = [
        ("file_id", FILE_ID),
        ("index", draw(st.integers(0, 2**31 - 1))),
        ("chunk_data", base64.b64encode(data).decode()),
        ("iv", IV),
    ]
    members += draw(st.lists(st.tuples(st.text(max_size=8).filter(lambda name: name not in WHOLE), values), max_size=3))
    text = draw(spaces) + "{"
    for place, (name, value) in enumerate(draw(st.permutations(members))):
        written = draw(strings(value)) if isinstance(value, str) else json.dumps(value)
        text += "," * (place > 0) + draw(spaces) + draw(strings(name)) + draw(spaces) + ":" + draw(spaces) + written
        text += draw(spaces)
    return (text + "}" + draw(spaces)).encode("utf-8", "surrogatepass")


@settings(max_examples=120, deadline=None)
@given(documents(), st.lists(st.integers(0, 2000), max_size=12))
def test_good_documents_read_as_json_and_base64_read_them(body: bytes, places: list[int]) -> None:
    expected = judge(body)
    assert expected is not None
    assert read(body, places) == expected


@settings(max_examples=200, deadline=None)
@given(
    documents(),
    st.lists(
        st.tuples(st.integers(0, 2000), st.integers(0, 3), st.sampled_from(list(b'{}[]",:\\ =A/+-_0u\x00\xff\n'))),
        min_size=1,
        max_size=3,
    ),
    st.lists(st.integers(0, 2000), max_size=12),
)
def test_damaged_documents_are_judged_as_json_and_base64_judge_them(
    body: bytes, damage: list[tuple[int, int, int]], places: list[int]
) -> None:
    broken = bytearray(body)
    for place, removed, added in damage:
        place %= len(broken) + 1
        broken[place : place + removed] = bytes([added])
    assert read(bytes(broken), places) == judge(bytes(broken))


# --- the format around the reader ---


class Shelf:
    """A spool in memory that tells what was done with it."""

    def __init__(self) -> None:
        self.opened = self.open = 0
        self.held: list[bytes] = []

    @asynccontextmanager
    async def new(self) -> AsyncIterator[Shelf]:
        self.opened += 1
        self.open += 1
        try:
            yield self
        finally:
            self.open -= 1

    async def write(self, piece: bytes) -> None:
        self.held.append(piece)

    async def finish(self) -> int:
        return sum(map(len, self.held))

    async def pieces(self) -> AsyncIterator[bytes]:
        for piece in self.held:
            yield piece


def format_with(shelf: Shelf, *, max_chunk_size: int = 1 << 20) -> JsonChunk:
    return JsonChunk(BodyLimits(max_chunk_size=max_chunk_size), new_spool=shelf.new)


def json_post(length: int | None = None, content_type: str = "application/json") -> dict[str, Any]:
    return post(length, content_type=content_type)


async def test_a_small_document_that_is_all_there_has_a_size_and_needs_no_spool() -> None:
    for name, body in GOOD.items():
        shelf = Shelf()
        arrived = await arrive(format_with(shelf), json_post(len(body)), Client([body]))
        assert (arrived.data, arrived.index, arrived.iv, arrived.size) == (DATA, 7, IV, len(DATA)), name
        assert shelf.opened == 0


LARGE = bytes(range(256)) * 800
LARGE_TEXT = base64.b64encode(LARGE).decode()


async def test_index_and_iv_cannot_be_read_before_the_bytes_even_if_they_are_known() -> None:
    body = document()
    async with format_with(Shelf()).open(json_post(len(body)), Client([body]).receive) as incoming:
        assert incoming.size == len(DATA)
        with pytest.raises(RuntimeError):
            _ = incoming.iv
        assert b"".join([piece async for piece in incoming.pieces]) == DATA
        assert incoming.iv == IV


async def test_a_large_chunk_behind_its_file_id_streams() -> None:
    shelf, body = Shelf(), document(chunk_data=LARGE_TEXT)
    client = Client(in_pieces(body, 16384))
    async with format_with(shelf).open(json_post(len(body)), client.receive) as incoming:
        assert (client.asked, incoming.size) == (1, None)
        data = b"".join([piece async for piece in incoming.pieces])
    assert (data, incoming.index, incoming.iv, shelf.opened) == (LARGE, 7, IV, 0)


async def test_a_large_chunk_before_its_file_id_goes_through_a_spool() -> None:
    shelf, body = Shelf(), json.dumps(dict(reversed({**WHOLE, "chunk_data": LARGE_TEXT}.items()))).encode()
    assert body.index(b"chunk_data") < body.index(b"file_id")
    arrived = await arrive(format_with(shelf), json_post(), Client(in_pieces(body, 16384)))
    assert (arrived.data, arrived.size, arrived.file_id, arrived.index, arrived.iv) == (
        LARGE,
        len(LARGE),
        FILE_ID,
        7,
        IV,
    )
    assert (shelf.opened, shelf.open) == (1, 0)


@pytest.mark.parametrize("first", ["file_id", "chunk_data"])
async def test_an_error_behind_the_bytes_is_found_on_both_ways_and_leaves_no_spool(first: str) -> None:
    members = {first: None, **WHOLE, "chunk_data": LARGE_TEXT, "file_id": FILE_ID}
    body = json.dumps(members).encode() + b"garbage"
    shelf = Shelf()
    with pytest.raises(MalformedJson):
        await arrive(format_with(shelf), json_post(len(body)), Client(in_pieces(body, 16384)))
    assert shelf.open == 0


@pytest.mark.parametrize("copies", [1, 2000])
async def test_the_spool_of_the_house_fits(copies: int, tmp_path: Path) -> None:
    data = DATA * copies
    body = json.dumps({"chunk_data": "", **WHOLE}).encode()
    body = body.replace(TEXT.encode(), base64.b64encode(data))
    async with FileThreads() as threads:
        form = JsonChunk(BodyLimits(max_chunk_size=1 << 20), new_spool=lambda: Spool(tmp_path, threads=threads))
        arrived = await arrive(form, json_post(), Client(in_pieces(body, 16384)))
    assert (arrived.data, arrived.size, arrived.index) == (data, len(data), 7)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("sent", [b"", document()[:60], document()[:200], raw('{"chunk_data":«chunk_data»')])
async def test_cancelled_while_it_waits_it_leaves_no_spool(sent: bytes) -> None:
    shelf, client = Shelf(), Client([sent], ends=False)
    task = asyncio.create_task(arrive(format_with(shelf), json_post(), client))
    await asyncio.wait_for(client.waiting.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert shelf.open == 0


async def test_an_error_is_not_followed_by_an_end() -> None:
    body = document(chunk_data="AAAA" * 50 + "!") + b" "
    async with format_with(Shelf()).open(json_post(len(body)), Client(in_pieces(body, 120)).receive) as incoming:
        for _ in range(3):
            with pytest.raises(ApiError) as refused:
                [piece async for piece in incoming.pieces]
            assert complaint(refused.value) == BAD_DATA


async def test_the_limit_counts_decoded_bytes() -> None:
    limited = format_with(Shelf(), max_chunk_size=len(DATA))
    assert (await arrive(limited, json_post(), Client([document()]))).data == DATA
    for pieces in ([document()], in_pieces(document(), 10)):
        with pytest.raises(ChunkTooLarge) as refused:
            await arrive(format_with(Shelf(), max_chunk_size=len(DATA) - 1), json_post(), Client(pieces))
        assert refused.value.fields == {"limit": len(DATA) - 1}


async def test_the_body_may_be_larger_by_its_encoding_and_no_more() -> None:
    limited = format_with(Shelf(), max_chunk_size=1000)
    limited.check_declared(json_post(1500 + 65536))
    with pytest.raises(ChunkTooLarge) as refused:
        limited.check_declared(json_post(1500 + 65537))
    assert refused.value.fields == {"limit": 1000}
    with pytest.raises(EmptyChunk):
        limited.check_declared(json_post(0))


async def test_an_empty_string_is_an_empty_chunk() -> None:
    with pytest.raises(EmptyChunk):
        await arrive(format_with(Shelf()), json_post(), Client([document(chunk_data="")]))


@pytest.mark.parametrize(
    ("content_type", "is_taken"),
    [
        ("application/json", True),
        ("Application/JSON ; charset=utf-8", True),
        ("application/problem+json", True),
        ("", False),
        ("text/plain", False),
        ("application/jsonp", False),
        ("application/x-www-form-urlencoded", False),
    ],
)
def test_the_content_type_must_be_json(content_type: str, is_taken: bool) -> None:
    scope = json_post(100, content_type)
    if is_taken:
        assert format_with(Shelf()).early_target(scope) is None
    else:
        with pytest.raises(UnsupportedMediaType):
            format_with(Shelf()).early_target(scope)


def test_the_bounds_are_far_above_what_clients_send() -> None:
    assert len(document(chunk_data="")) * 50 < json_chunk._MOST_BESIDE


@pytest.mark.parametrize("name", ["as the old client sends it", "the bytes first"])
@pytest.mark.parametrize("size", [len(DATA), 100])
async def test_there_is_no_tap_for_what_must_be_decoded(name: str, size: int) -> None:
    body = GOOD[name]
    scope = offering(json_post(len(body)), CountedTap())
    async with format_with(Shelf()).open(scope, Client(in_pieces(body, size)).receive) as incoming:
        assert getattr(incoming.pieces, "tap", None) is None
        assert b"".join([piece async for piece in incoming.pieces]) == DATA
