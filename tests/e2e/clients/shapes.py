"""Answers as clients read them: the keys they dereference, and what must be behind each."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import datetime
from types import UnionType
from typing import Any

Shape = Any
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class NotAsRead(AssertionError):
    """The client would have failed on this answer."""


def check(value: Any, shape: Shape, where: str = "answer") -> None:
    """A dict names the keys that must be there, a list of one shape is about every item, a tuple means one of these."""
    if isinstance(shape, dict):
        _must(isinstance(value, dict), where, value, "an object")
        for key, inner in shape.items():
            _must(key in value, f"{where}.{key}", value, "there")
            check(value[key], inner, f"{where}.{key}")
    elif isinstance(shape, list):
        _must(isinstance(value, list), where, value, "an array")
        for number, item in enumerate(value):
            check(item, shape[0], f"{where}[{number}]")
    elif isinstance(shape, tuple):
        _must(any(_fits(value, inner) for inner in shape), where, value, f"one of {shape}")
    elif isinstance(shape, type | UnionType):
        _must(isinstance(value, shape) and not isinstance(value, bool), where, value, str(shape))
    elif callable(shape):
        _must(shape(value), where, value, shape.__name__)
    else:
        _must(value == shape, where, value, repr(shape))


def _fits(value: Any, shape: Shape) -> bool:
    try:
        check(value, shape)
    except NotAsRead:
        return False
    return True


def _must(is_so: bool, where: str, value: Any, what: str) -> None:
    if not is_so:
        raise NotAsRead(f"{where} is {value!r}, not {what}")


def uuid(value: Any) -> bool:
    """As they are emitted: lower case, with hyphens."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def moment(value: Any) -> bool:
    """What `new Date()` understands; null is a date unknown."""
    if value is None:
        return True
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False


def count(value: Any) -> bool:
    return type(value) is int and value >= 0


def base64_text(value: Any) -> bool:
    """What the clients' decoder takes: standard alphabet, padded, not empty."""
    try:
        return bool(value) and len(base64.b64decode(value, validate=True)) > 0
    except (TypeError, ValueError):
        return False


def level(value: Any) -> bool:
    return value in ("owner", "editor", "viewer")


def nullable(shape: Callable[[Any], bool] | type) -> tuple[Any, Any]:
    return (None, shape)


CHUNK_OF_FILE = {"s3_key": str, "index": count}
FOLDER = {
    "type": "folder",
    "folder_id": uuid,
    "parent_folder_id": nullable(uuid),
    "is_root": (True, False),
    "encrypted_metadata": base64_text,
    "encrypted_folder_key": base64_text,
    "folder_size": count,
    "created_at": moment,
    "updated_at": moment,
}
FILE = {
    "type": "file",
    "file_id": uuid,
    "folder_id": nullable(uuid),
    "access_level": level,
    "encrypted_metadata": base64_text,
    "encrypted_file_key": base64_text,
    "file_size": count,
    "mime_type": str,
    "created_at": moment,
    "updated_at": moment,
}
DRIVE_INFO = {
    "used_space": count,
    "file_count": count,
    "folder_count": count,
    "storage_limit_bytes": count,
    "account_tier": str,
}
CRUMB = {
    "folder_id": uuid,
    "path_index": count,
    "encrypted_metadata": base64_text,
    "encrypted_folder_key": nullable(base64_text),
}
VIEW = {
    "files_and_folders": {"folders": [FOLDER], "files": [FILE]},
    "full_path": [CRUMB],
    "drive_info": DRIVE_INFO,
}
TRASH = {
    "files_and_folders": {"files": [FILE]},
    "corbeille_info": {"used_space": count, "file_count": count, "folder_count": count},
    "full_path": [CRUMB],
    "drive_info": DRIVE_INFO,
}
CONTENTS = {
    "folder_id": nullable(uuid),
    "contents": [
        (
            {"type": "folder", "folder_id": uuid, "encrypted_folder_key": base64_text},
            {
                "type": "file",
                "file_id": uuid,
                "encrypted_file_key": base64_text,
                "encrypted_metadata": base64_text,
                "mime_type": str,
                "path": str,
                "chunks": [CHUNK_OF_FILE],
            },
        )
    ],
}
FOLDERS = {
    "folder_contents": [
        {
            "type": "folder",
            "folder_id": uuid,
            "parent_folder_id": nullable(uuid),
            "encrypted_metadata": base64_text,
            "encrypted_folder_key": base64_text,
        }
    ]
}
FILE_INFO = {
    "file_id": uuid,
    "encrypted_metadata": base64_text,
    "encrypted_file_key": base64_text,
    "size": count,
    "mime_type": str,
    "created_at": moment,
    "updated_at": moment,
    "chunk_count": count,
    "chunks": [{**CHUNK_OF_FILE, "chunk_id": uuid}],
}
MEMBERS = {"shared_users": [{"user_id": uuid, "username": str, "public_key": str, "access_level": level}]}
INFO_ITEM = {"shared_users": [{"user_id": uuid, "username": str, "public_key": str, "permission": level}]}
SIGNED_IN = {
    "token": str,
    "user_id": uuid,
    "encrypted_private_key": base64_text,
    "private_key_salt": base64_text,
    "iv": base64_text,
    "public_key": str,
}
STORED_CHUNK = {"s3_record_id": uuid, "index": str, "date_upload": moment, "data_hash": str}
