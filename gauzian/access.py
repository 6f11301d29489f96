"""Who may do what with a file or a folder: the whole of it, as one table.

SQL (database/shares.py) tells how somebody stands to a thing; this page says what follows from that. Nobody else
compares access levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal
from uuid import UUID

from gauzian.errors import ApiError, FileNotThere, FolderNotThere, InTrash, NotInTrash, NotYours

Thing = Literal["file", "folder"]


class Standing(StrEnum):
    """How a user stands to a thing."""

    OWNER = "owner"
    EDITOR = "editor"
    VIEWER = "viewer"
    PENDING = "pending"  # invited, and has neither accepted nor rejected
    TRASHED = "trashed"  # the owner of something that lies in the trash
    STRANGER = "stranger"  # it exists, and is not theirs
    ABSENT = "absent"  # it does not exist; for all but its owner that is so too while it lies in the trash


class Act(StrEnum):
    READ_INFO = "read info"  # names and keys of a file, no bytes
    READ = "read"  # a file's bytes
    LIST = "list"  # what lies in a folder
    SEE_MEMBERS = "see members"
    UPLOAD = "upload"  # chunks, what has arrived, finalize, abort
    ADD = "add"  # something new into a folder
    RENAME = "rename"
    MOVE = "move"
    SHARE = "share"  # share, propagate, revoke
    ACCEPT = "accept"
    REJECT = "reject"
    DELETE = "delete"  # owner: into the trash, or for good out of it; others: leave
    RESTORE = "restore"


_O, _E, _V, _P, _T = Standing.OWNER, Standing.EDITOR, Standing.VIEWER, Standing.PENDING, Standing.TRASHED

MAY: Mapping[Act, frozenset[Standing]] = {
    Act.READ_INFO: frozenset({_O, _E, _V, _P, _T}),
    Act.READ: frozenset({_O, _E, _V, _T}),
    Act.LIST: frozenset({_O, _E, _V}),
    Act.SEE_MEMBERS: frozenset({_O, _E, _V}),
    Act.UPLOAD: frozenset({_O}),
    Act.ADD: frozenset({_O, _E}),
    Act.RENAME: frozenset({_O, _E}),
    Act.MOVE: frozenset({_O, _E}),
    Act.SHARE: frozenset({_O}),
    Act.ACCEPT: frozenset({_O, _E, _V, _P}),
    Act.REJECT: frozenset({_E, _V, _P}),
    Act.DELETE: frozenset({_O, _E, _V, _P, _T}),
    Act.RESTORE: frozenset({_T}),
}


def standing_of(*, access_level: str | None, is_accepted: bool | None, is_trashed: bool) -> Standing:
    """Of somebody to a thing that exists. `access_level` None: they have no row for it."""
    if access_level is None:
        return Standing.ABSENT if is_trashed else Standing.STRANGER
    if access_level == "owner":
        return Standing.TRASHED if is_trashed else Standing.OWNER
    if is_trashed:
        return Standing.ABSENT
    return Standing(access_level) if is_accepted else Standing.PENDING


def standing_by_owner(user_id: UUID, owner_id: UUID | None) -> Standing:
    """To a file that only its owner has to do with yet. `owner_id` None: there is no such file."""
    if owner_id is None:
        return Standing.ABSENT
    return Standing.OWNER if owner_id == user_id else Standing.STRANGER


def require(act: Act, standing: Standing, thing: Thing) -> None:
    """Raises FileNotThere or FolderNotThere, NotYours, InTrash, NotInTrash."""
    refused = refusal(act, standing, thing)
    try:
        if refused is not None:
            raise refused
    finally:
        del refused  # it knows this frame: a circle, and with it the connection of who is refused


def refusal(act: Act, standing: Standing, thing: Thing) -> ApiError | None:
    if standing in MAY[act]:
        return None
    if standing is Standing.ABSENT:
        return FileNotThere() if thing == "file" else FolderNotThere()
    if standing is Standing.TRASHED:
        return InTrash()
    if act is Act.RESTORE and standing is Standing.OWNER:
        return NotInTrash()
    return NotYours()
