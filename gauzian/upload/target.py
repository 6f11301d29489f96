"""Which chunk is meant: file id, index and iv as types, or an error naming the field."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes
from uuid import UUID

from gauzian.errors import BadField, DuplicateField, MissingField, Scope

_MOST_INDEX = 2**31 - 1

# uuid.UUID takes far more than UUIDs: "0x", underscores, hyphens anywhere. These are the forms servers took so far.
_UUID = re.compile(
    r"(?:urn:uuid:)?(?:[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
    r"|\{[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\}",
    re.IGNORECASE,
)
_INDEX = re.compile(r"[0-9]{1,10}")

# The iv comes back in a header and in JSON: printable ASCII without space, quotes and backslash can break neither.
# Clients send base64 of 12 bytes; load scripts send any short word.
_IV = re.compile(r"[!#-&(-\[\]-~]{1,64}")


def file_id_of(value: object) -> UUID:
    if isinstance(value, UUID):
        return value
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise BadField("file_id", "not a UUID")
    return UUID(value.lower())


def index_of_text(value: str, field: str = "index") -> int:
    if not _INDEX.fullmatch(value):
        raise BadField(field, f"not a whole number from 0 to {_MOST_INDEX}")
    return index_of_number(int(value), field)


def index_of_number(value: object, field: str = "index") -> int:
    if type(value) is not int or not 0 <= value <= _MOST_INDEX:  # bool is an int, too
        raise BadField(field, f"not a whole number from 0 to {_MOST_INDEX}")
    return value


def iv_of(value: object) -> str:
    if not isinstance(value, str) or not _IV.fullmatch(value):
        raise BadField("iv", "not 1 to 64 printable ASCII characters without spaces, quotes and backslashes")
    return value


def only_once(pairs: Iterable[tuple[str, object]], names: Iterable[str]) -> dict[str, object]:
    """The pairs of these names; the others may be anything and may repeat."""
    wanted, found = frozenset(names), dict[str, object]()
    for name, value in pairs:
        if name not in wanted:
            continue
        if name in found:
            raise DuplicateField(name)
        found[name] = value
    return found


def require(found: dict[str, object], name: str) -> object:
    if name not in found:
        raise MissingField(name)
    return found[name]


def query_fields(scope: Scope, *names: str) -> dict[str, str]:
    """These fields of the query, each exactly once.

    Only percent-encoding is undone: none of our fields may hold a space, so a plus is a plus, even from a client that
    did not encode the ones in its base64.
    """
    pairs = []
    for part in bytes(scope.get("query_string", b"")).split(b"&"):
        name, _, value = part.partition(b"=")
        pairs.append((_plain(name), _plain(value)))
    found = only_once(pairs, names)
    return {name: str(require(found, name)) for name in names}


def _plain(value: bytes) -> str:
    return (unquote_to_bytes(value) if b"%" in value else value).decode("latin-1")
