"""Which names an object may have, and where a name lies on a disk."""

from __future__ import annotations

import re

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


def is_key(name: str) -> bool:
    """Could it be one of ours? Any other name belongs to somebody else, and is never listed, never swept."""
    return _KEY.fullmatch(name) is not None


def require_key(key: str) -> str:
    """A bad key is a mistake in this program, not in a request: nobody outside chooses keys."""
    if not is_key(key):
        raise ValueError("not an object key")
    return key


def shard(key: str) -> str:
    """The directories an object lies in, two levels: from the key's beginning, so that a file's chunks lie together.

    Dots are replaced: "..", as the name of a directory, would lead out of the store.
    """
    start = key[:4].replace(".", "_").ljust(4, "_")
    return f"{start[:2]}/{start[2:]}"
