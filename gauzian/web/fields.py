"""Path, query and JSON values as types, or an error that names the field.

What comes out of here can be stored: no NUL (PostgreSQL's text refuses it), no half of a surrogate pair (no UTF-8 for
it), no NaN, numbers inside of stated bounds. Unknown fields are ignored; the same field twice is refused, because
choosing one would be a guess.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes
from uuid import UUID

from gauzian.errors import (
    BadField,
    DuplicateField,
    MalformedJson,
    MissingField,
    Receive,
    Scope,
    UnsupportedMediaType,
)
from gauzian.web.body import Body, header

Values = Mapping[str, Any]

INT32 = 2**31 - 1
INT64 = 2**63 - 1

# An encrypted name with its MIME type and thumbnail hints; a wrapped key (RSA-4096 in base64 is 684 bytes).
MOST_METADATA = 64 * 1024
MOST_KEY = 16 * 1024

# The largest JSON commands: a registration with its five keys, an upload with its metadata; each with room for escapes.
MOST_JSON = 128 * 1024
# A field's name comes back in the error: enough to recognise it.
_MOST_NAME = 64

_JSON_TYPE = re.compile(rb"\s*application/(?:[\w.-]+\+)?json\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)
_UUID = re.compile(
    r"(?:urn:uuid:)?(?:\{[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|[0-9a-f]{32})",
    re.IGNORECASE,
)
# At most as many digits as INT64 has: int() of more is work for nothing.
_INTEGER = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_ROOT = ("", "null", "root")


async def json_object(scope: Scope, receive: Receive, *, most_bytes: int = MOST_JSON) -> dict[str, Any]:
    """The JSON object in the body. 415 unless it says so, 413 when larger, 400 when it is anything else."""
    if not _JSON_TYPE.fullmatch(header(scope, b"content-type") or b""):
        raise UnsupportedMediaType("The Content-Type must be application/json")
    return parse_object(await Body(scope, receive, most_bytes=most_bytes).read())


async def optional_json_object(scope: Scope, receive: Receive, *, most_bytes: int = MOST_JSON) -> dict[str, Any]:
    """The same where a body is allowed and nobody needs one: nothing, or nothing of JSON, is an object without fields.
    Clients declare JSON on every request, with a body or not.
    """
    if not _JSON_TYPE.fullmatch(header(scope, b"content-type") or b""):
        return {}
    body = await Body(scope, receive, most_bytes=most_bytes).read()
    return parse_object(body) if body.strip() else {}


def parse_object(body: bytes) -> dict[str, Any]:
    """The parser alone. Nesting ends at the recursion limit: that is an answer and not an accident."""
    try:
        value = json.loads(
            body.decode(), object_pairs_hook=_without_twins, parse_constant=_refuse_constant, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise MalformedJson from error
    if not isinstance(value, dict):
        raise MalformedJson("The body must be a JSON object")
    return value


def text(given: Values, name: str, *, most: int, allow_empty: bool = False) -> str:
    """`most` bytes of UTF-8, any characters but NUL."""
    value = _required(given, name)
    if not isinstance(value, str):
        raise BadField(name, "must be a string")
    if not value and not allow_empty:
        raise BadField(name, "must not be empty")
    return storable(name, value, most=most)


def optional_text(given: Values, name: str, *, most: int) -> str | None:
    """None when absent or null."""
    return None if given.get(name) is None else text(given, name, most=most, allow_empty=True)


def integer(given: Values, name: str, *, least: int = 0, most: int = INT64) -> int:
    """A JSON number without fraction; true and "7" are none."""
    value = _required(given, name)
    if type(value) is not int:
        raise BadField(name, "must be an integer")
    return _within(name, value, least, most)


def optional_integer(given: Values, name: str, *, least: int = 0, most: int = INT64) -> int | None:
    return None if given.get(name) is None else integer(given, name, least=least, most=most)


def uuid(given: Values, name: str) -> UUID:
    return to_uuid(name, _required(given, name))


def optional_uuid(given: Values, name: str) -> UUID | None:
    return None if given.get(name) is None else uuid(given, name)


def folder(given: Values, name: str) -> UUID | None:
    """A folder, or None for the root, which clients call "", null, root or the nil UUID."""
    return to_folder(name, _required(given, name))


def path_uuid(scope: Scope, name: str) -> UUID:
    return to_uuid(name, scope["path_params"][name])


def path_folder(scope: Scope, name: str) -> UUID | None:
    return to_folder(name, scope["path_params"][name])


def query(scope: Scope, name: str) -> str | None:
    """The one value of a query field, or None. A plus is a plus: base64 holds them, our fields hold no space."""
    found = None
    for pair in bytes(scope.get("query_string", b"")).split(b"&"):
        key, _, value = pair.partition(b"=")
        if unquote_to_bytes(key) == name.encode():
            if found is not None:
                raise DuplicateField(name)
            found = value
    if found is None:
        return None
    try:
        return unquote_to_bytes(found).decode()
    except UnicodeDecodeError as error:
        raise BadField(name, "must be UTF-8") from error


def query_text(scope: Scope, name: str, *, most: int) -> str:
    value = _required_query(scope, name)
    if not value:
        raise BadField(name, "must not be empty")
    return storable(name, value, most=most)


def query_uuid(scope: Scope, name: str) -> UUID:
    return to_uuid(name, _required_query(scope, name))


def query_integer(scope: Scope, name: str, *, least: int = 0, most: int = INT32) -> int:
    return to_integer(name, _required_query(scope, name), least=least, most=most)


def optional_query_integer(scope: Scope, name: str, *, least: int = 0, most: int = INT32) -> int | None:
    value = query(scope, name)
    return None if value is None else to_integer(name, value, least=least, most=most)


def storable(name: str, value: str, *, most: int) -> str:
    """`value`, if PostgreSQL can keep it and it is not longer than `most` bytes."""
    if "\0" in value:
        raise BadField(name, "must not contain NUL characters")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise BadField(name, "must be well-formed Unicode") from error
    if size > most:
        raise BadField(name, f"must be at most {most} bytes")
    return value


def to_integer(name: str, value: str, *, least: int, most: int) -> int:
    if not _INTEGER.fullmatch(value):
        raise BadField(name, f"must be an integer from {least} to {most}")
    return _within(name, int(value), least, most)


def to_uuid(name: str, value: object) -> UUID:
    """Hyphenated, simple, braced or urn form; UUID() alone would take hyphens anywhere."""
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise BadField(name, "must be a UUID")
    return UUID(value)


def to_folder(name: str, value: object) -> UUID | None:
    if not isinstance(value, str):
        raise BadField(name, "must be a string")
    plain = value.strip().lower()
    if plain in _ROOT:
        return None
    found = to_uuid(name, plain)
    return found if found.int else None


def _required(given: Values, name: str) -> Any:
    if name not in given:
        raise MissingField(name)
    return given[name]


def _required_query(scope: Scope, name: str) -> str:
    value = query(scope, name)
    if value is None:
        raise MissingField(name)
    return value


def _within(name: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise BadField(name, f"must be an integer from {least} to {most}")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise DuplicateField(name[:_MOST_NAME])
            seen.add(name)
    return found


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("a number too large")
    return value
