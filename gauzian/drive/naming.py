"""Which file or folder, which user and which level a request means, under the names of both generations of clients."""

from __future__ import annotations

from typing import cast
from uuid import UUID

from gauzian.access import Thing
from gauzian.database.shares import Level
from gauzian.errors import BadField, MissingField, Scope
from gauzian.web import fields

# First the name we document, then those that clients send.
CONTACT = ("contact_id", "recipient_user_id", "user_id")


def given_id(given: fields.Values, thing: Thing) -> UUID:
    return fields.uuid(given, f"{thing}_id")


def given_or_path_id(scope: Scope, given: fields.Values, thing: Thing) -> UUID:
    """The one in the path, if there is one; a body that names another is a mistake that must not hit either."""
    name = f"{thing}_id"
    if name not in scope["path_params"]:
        return given_id(given, thing)
    id = fields.path_uuid(scope, name)
    if given.get(name) is not None and given_id(given, thing) != id:
        raise BadField(name, "is another one than in the URL")
    return id


def contact(given: fields.Values) -> UUID:
    return fields.uuid(given, _first(given, CONTACT))


def wrapped_key(given: fields.Values, thing: Thing) -> str:
    name = _first(given, ("encrypted_item_key", f"encrypted_{thing}_key", "encrypted_key"))
    return fields.text(given, name, most=fields.MOST_KEY)


def level(given: fields.Values) -> Level:
    """Missing or `read`, which the selectors of existing clients send, is viewer. Nobody is made an owner."""
    value = given.get("access_level")
    if value is None or value in ("read", ""):
        return "viewer"
    if value not in ("editor", "viewer"):
        raise BadField("access_level", "must be editor or viewer")
    return cast(Level, value)


def _first(given: fields.Values, names: tuple[str, ...]) -> str:
    for name in names:
        if given.get(name) is not None:
            return name
    raise MissingField(names[0])
