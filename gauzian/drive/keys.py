"""Lists of wrapped keys in a request, as types: many things for one user, one thing for many users."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from gauzian.access import Thing
from gauzian.database.shares import Grant, Level
from gauzian.errors import BadField, DuplicateField
from gauzian.web import fields

# `owner` is what a client reads of the folder's owner and sends back for a file it has put there: full access, but the
# file stays its maker's.
_LEVELS = {"editor": "editor", "owner": "editor", "viewer": "viewer", "read": "viewer"}


def given_keys(given: fields.Values, thing: Thing) -> dict[UUID, str]:
    """`folder_keys` or `file_keys`: the wrapped key of each. Absent or null is none."""
    found: dict[UUID, str] = {}
    for entry in _entries(given, f"{thing}_keys"):
        id = fields.uuid(entry, f"{thing}_id")
        if id in found:
            raise DuplicateField(f"{thing}_keys")
        found[id] = fields.text(entry, f"encrypted_{thing}_key", most=fields.MOST_KEY)
    return found


def given_user_keys(given: fields.Values) -> list[Grant]:
    """`user_keys`. A level that is none is left out, as it always was: clients send what they were told."""
    found: dict[UUID, Grant] = {}
    for entry in _entries(given, "user_keys"):
        user_id = fields.uuid(entry, "user_id")
        key = fields.text(entry, "encrypted_key", most=fields.MOST_KEY)
        level = _LEVELS.get(str(entry.get("access_level") or "viewer"))
        if user_id in found:
            raise DuplicateField("user_keys")
        if level is not None:
            found[user_id] = Grant(user_id, key, cast(Level, level))
    return list(found.values())


def _entries(given: fields.Values, name: str) -> list[dict[str, Any]]:
    entries = given.get(name)
    if entries is None:
        return []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadField(name, "must be a list of objects")
    return entries
