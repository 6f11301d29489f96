"""Conditional requests (RFC 9110 section 13) against one version of one thing: no I/O."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime

from gauzian.errors import PreconditionFailed

Headers = Sequence[tuple[bytes, bytes]]

_TAG = re.compile(r'(W/)?"[\x21\x23-\x7e\x80-\xff]*"')


@dataclass(frozen=True, slots=True)
class Version:
    """What a client may hold a copy of. `etag` is strong, with its quotes; `modified` is when it came to be."""

    etag: str
    modified: datetime

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Said with every answer about this version, 304 included. The client may keep a copy but must ask us before
        it uses it.
        """
        return [
            (b"etag", self.etag.encode("latin-1")),
            (b"last-modified", format_datetime(_whole_second(self.modified), usegmt=True).encode("latin-1")),
            (b"cache-control", b"private, no-cache"),
        ]


def is_not_modified(headers: Headers, version: Version) -> bool:
    """True: the client has it already (304). Raises PreconditionFailed when it insists on another version."""
    wanted = find(headers, b"if-match")
    if wanted is not None:
        if not _names(wanted, version, weak=False):
            raise PreconditionFailed
    else:
        since = _date(find(headers, b"if-unmodified-since"))
        if since is not None and _whole_second(version.modified) > since:
            raise PreconditionFailed
    known = find(headers, b"if-none-match")
    if known is not None:
        return _names(known, version, weak=True)
    since = _date(find(headers, b"if-modified-since"))
    return since is not None and _whole_second(version.modified) <= since


def wanted_range(headers: Headers, version: Version) -> str | None:
    """The Range header, unless If-Range says that it was meant for another version.

    A date must match to the second. That is strong enough here: what is sent never changes once it is there.
    """
    value = find(headers, b"range")
    expected = find(headers, b"if-range")
    if value is None or expected is None or expected == version.etag:
        return value
    return value if _date(expected) == _whole_second(version.modified) else None


def find(headers: Headers, name: bytes) -> str | None:
    """The values of all headers of that lower-case name as one list (RFC 9110 5.3), None if there is none."""
    values = [value.decode("latin-1").strip() for key, value in headers if key.lower() == name]
    return ", ".join(values) if values else None


def _names(value: str, version: Version, *, weak: bool) -> bool:
    """Whether the list `value` of entity tags names this version; a weak comparison takes W/"x" for "x"."""
    if value == "*":
        return True
    tags = [match.group() for match in _TAG.finditer(value)]
    return version.etag in ([tag.removeprefix("W/") for tag in tags] if weak else tags)


def _date(value: str | None) -> datetime | None:
    """An HTTP date, None for anything else: a malformed date is as good as none (RFC 9110 13.1)."""
    if value is None:
        return None
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)


def _whole_second(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)
