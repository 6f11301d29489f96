"""Values from path, query and JSON: what is taken, and which error names which field."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings, strategies
from hypothesis import given as drawn

from gauzian.errors import (
    ApiError,
    BadField,
    BodyTooLarge,
    DuplicateField,
    MalformedJson,
    Message,
    MissingField,
    UnsupportedMediaType,
)
from gauzian.web import fields
from tests.asgi import scope_of

ID = "0f7c2a0e-4d0b-4a55-9a0c-2f1d3a5b7c9e"


def with_query(text: str) -> Any:
    return scope_of("POST", f"/drive/upload_chunk_binary?{text}")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", {}),
        (b' {"a": 1, "b": "x", "c": null, "d": [true]} \n', {"a": 1, "b": "x", "c": None, "d": [True]}),
        ('{"é": "\\u00e9 \\ud83d\\ude00"}'.encode(), {"é": "é 😀"}),
        (b'{"a": 1.5e3}', {"a": 1500.0}),
        (b'{"a": {"b": 1}, "c": {"b": 2}}', {"a": {"b": 1}, "c": {"b": 2}}),
    ],
)
def test_an_object_is_read(body: bytes, expected: dict[str, Any]) -> None:
    assert fields.parse_object(body) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a": 1',
        b'{"a": 1} x',
        b"[]",
        b"null",
        b'"text"',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        b'{"a": "line\nbreak"}',
        b"{'a': 1}",
        b"[" * 65_536,
        b'{"a":' * 13_000,
        b'{"a": ' + b"1" * 60_000 + b"}",
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_object_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedJson):
        fields.parse_object(body)


@pytest.mark.parametrize("body", [b'{"a": 1, "a": 1}', b'{"b": [{"a": 1, "a": 2}]}', b'{"a": 1, "\\u0061": 2}'])
def test_the_same_key_twice_is_refused_by_name(body: bytes) -> None:
    with pytest.raises(DuplicateField) as raised:
        fields.parse_object(body)
    assert raised.value.fields == {"field": "a"}


def test_a_huge_twin_is_named_in_brief() -> None:
    key = "x" * 10_000
    with pytest.raises(DuplicateField) as raised:
        fields.parse_object(f'{{"{key}": 1, "{key}": 2}}'.encode())
    assert len(raised.value.fields["field"]) < 100


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@drawn(strategies.dictionaries(strategies.text(), strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers(-(2**80), 2**80) | strategies.text()
    | strategies.floats(allow_nan=False, allow_infinity=False),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner), max_leaves=10,
)))  # fmt: skip
def test_whatever_json_writes_is_read_back(value: dict[str, Any]) -> None:
    assert fields.parse_object(json.dumps(value).encode()) == value


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@drawn(strategies.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_refusal(body: bytes) -> None:
    with contextlib.suppress(MalformedJson, DuplicateField):
        assert isinstance(fields.parse_object(body), dict)


async def read(
    pieces: list[bytes], *, content_type: str | None = "application/json", most_bytes: int = 100
) -> dict[str, Any]:
    headers = {} if content_type is None else {"Content-Type": content_type}
    scope = scope_of("POST", "/login", headers=headers, length=sum(map(len, pieces)))
    coming = list(pieces)

    async def receive() -> Message:
        piece = coming.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(coming)}

    return await fields.json_object(scope, receive, most_bytes=most_bytes)


BODY = '{"name": "é\\u00e9"}'.encode()


@pytest.mark.anyio
@pytest.mark.parametrize("pieces", [[BODY], [bytes([byte]) for byte in BODY], [b"", BODY[:12], b"", BODY[12:]]])
async def test_a_body_is_read_in_whatever_pieces_it_comes(pieces: list[bytes]) -> None:
    assert await read(pieces) == {"name": "éé"}


@pytest.mark.anyio
async def test_every_way_to_cut_a_body_short_is_malformed() -> None:
    for length in range(len(BODY)):
        with pytest.raises(MalformedJson):
            await read([BODY[:length]])
    with pytest.raises(MalformedJson):
        await read([BODY, b"}"])


@pytest.mark.anyio
@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        " application/json ;x",
        "application/problem+json",
    ],
)
async def test_json_by_any_of_its_names_is_taken(content_type: str) -> None:
    assert await read([b"{}"], content_type=content_type) == {}


@pytest.mark.anyio
@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "xapplication/json"],
)
async def test_another_content_type_or_none_is_415_because_a_form_could_send_it(content_type: str | None) -> None:
    with pytest.raises(UnsupportedMediaType):
        await read([b"{}"], content_type=content_type)


@pytest.mark.anyio
async def test_a_body_over_the_limit_is_413() -> None:
    with pytest.raises(BodyTooLarge):
        await read([b" " * 101])


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("x" * 11, BadField),
        ("é" * 6, BadField),
        ("", BadField),
        ("a\0b", BadField),
        ("\ud800", BadField),
        (7, BadField),
        (True, BadField),
        (None, BadField),
        (["x"], BadField),
    ],
)
def test_a_text_that_could_not_be_stored_is_refused(value: object, error: type[ApiError]) -> None:
    with pytest.raises(error) as raised:
        fields.text({"name": value}, "name", most=10)
    assert raised.value.fields == {"field": "name"}


def test_texts_that_are_taken() -> None:
    assert fields.text({"name": "é" * 5}, "name", most=10) == "é" * 5
    assert fields.text({"name": ""}, "name", most=10, allow_empty=True) == ""
    assert fields.optional_text({}, "name", most=10) is None
    assert fields.optional_text({"name": None}, "name", most=10) is None
    assert fields.optional_text({"name": "x"}, "name", most=10) == "x"


@pytest.mark.parametrize("value", [True, False, "7", 7.0, None, [7], -1, 11, 2**200])
def test_what_is_no_integer_in_bounds_is_refused(value: object) -> None:
    with pytest.raises(BadField):
        fields.integer({"size": value}, "size", least=0, most=10)


def test_integers_that_are_taken() -> None:
    assert [fields.integer({"size": value}, "size", least=-1, most=10) for value in (-1, 0, 10)] == [-1, 0, 10]
    assert fields.integer({"size": 2**63 - 1}, "size") == 2**63 - 1
    assert fields.optional_integer({"size": None}, "size") is None
    assert fields.optional_integer({}, "size") is None
    with pytest.raises(BadField):
        fields.optional_integer({"size": 2**63}, "size")


@pytest.mark.parametrize("value", [ID, ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}"])
def test_a_uuid_is_taken_in_every_form_existing_servers_take(value: str) -> None:
    assert fields.uuid({"id": value}, "id") == UUID(ID)
    assert fields.optional_uuid({"id": value}, "id") == UUID(ID)


@pytest.mark.parametrize(
    "value", ["", "x", ID[:-1], ID + "0", f" {ID}", f"{ID}\n", ID.replace("-", "", 1), "{" + ID, 7, None, "０" * 32]
)
def test_what_is_no_uuid_is_refused(value: object) -> None:
    with pytest.raises(BadField):
        fields.uuid({"id": value}, "id")


@pytest.mark.parametrize("value", ["", " ", "null", "NULL", "root", " Root ", str(UUID(int=0)), UUID(int=0).hex])
def test_the_root_has_many_names(value: str) -> None:
    assert fields.folder({"folder_id": value}, "folder_id") is None
    assert fields.path_folder({"path_params": {"folder_id": value}}, "folder_id") is None


def test_any_other_folder_is_a_uuid() -> None:
    assert fields.folder({"folder_id": f" {ID.upper()} "}, "folder_id") == UUID(ID)
    for value in ("corbeille", "shared_with_me", None, 0, "rootx"):
        with pytest.raises(BadField):
            fields.folder({"folder_id": value}, "folder_id")
    with pytest.raises(MissingField):
        fields.folder({}, "folder_id")


def test_a_path_holds_a_uuid_or_the_field_is_named() -> None:
    assert fields.path_uuid({"path_params": {"file_id": ID}}, "file_id") == UUID(ID)
    with pytest.raises(BadField) as raised:
        fields.path_uuid({"path_params": {"file_id": "junk"}}, "file_id")
    assert raised.value.fields == {"field": "file_id"}


GETTERS: list[Callable[[Any], object]] = [
    lambda scope: fields.query_uuid(scope, "file_id"),
    lambda scope: fields.query_integer(scope, "file_id"),
    lambda scope: fields.query_text(scope, "file_id", most=10),
]


@pytest.mark.parametrize("getter", GETTERS)
def test_a_query_field_must_be_there_once(getter: Callable[[Any], object]) -> None:
    with pytest.raises(MissingField):
        getter(with_query("other=1"))
    with pytest.raises(MissingField):
        getter(with_query(""))
    with pytest.raises(DuplicateField):
        getter(with_query("file_id=1&x=2&file_id=1"))
    with pytest.raises(DuplicateField):
        getter(with_query("file_id=1&file%5Fid=1"))


@pytest.mark.parametrize(
    "value",
    ["", "-1", "+1", "1.0", "1e3", "0x1", " 1", "1_0", "x", "2147483648", "9" * 30, "%EF%BC%91", "1%00", "true", "-"],
)
def test_junk_is_no_index(value: str) -> None:
    with pytest.raises(BadField):
        fields.query_integer(with_query(f"index={value}"), "index")
    with pytest.raises(BadField):
        fields.optional_query_integer(with_query(f"index={value}"), "index")


def test_query_values_that_are_taken() -> None:
    scope = with_query(f"file_id={ID}&index=2147483647&iv=aB+/%3D%2B&&flag&other=x&other=y")
    assert fields.query_uuid(scope, "file_id") == UUID(ID)
    assert fields.query_integer(scope, "index") == 2**31 - 1
    assert fields.query_text(scope, "iv", most=10) == "aB+/=+"
    assert fields.query(scope, "flag") == ""
    assert fields.optional_query_integer(scope, "nothing") is None


@pytest.mark.parametrize("value", ["", "a%00b", "%FF", "%ED%A0%80", "x" * 11])
def test_query_text_that_could_not_be_stored_is_refused(value: str) -> None:
    with pytest.raises(BadField) as raised:
        fields.query_text(with_query(f"iv={value}"), "iv", most=10)
    assert raised.value.fields == {"field": "iv"}
