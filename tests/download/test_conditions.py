"""If-Match and its siblings, as a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from gauzian.download.conditions import Version, is_not_modified, wanted_range
from gauzian.errors import PreconditionFailed

THIS = Version('"this"', datetime(2026, 3, 2, 9, 14, 7, 512000, tzinfo=UTC))
SAME, EARLIER, LATER = (
    f"Mon, 02 Mar 2026 09:14:{second} GMT" for second in ("07", "06", "08")
)  # the fraction of a second does not fit into a header


def headers(**values: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in values.items()]


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ({}, False),
        ({"if_none_match": '"this"'}, True),
        ({"if_none_match": 'W/"this"'}, True),
        ({"if_none_match": '"that", "this"'}, True),
        ({"if_none_match": '"a,b",W/"this"'}, True),
        ({"if_none_match": "*"}, True),
        ({"if_none_match": '"that"'}, False),
        ({"if_none_match": "this"}, False),
        ({"if_none_match": ""}, False),
        ({"if_modified_since": SAME}, True),
        ({"if_modified_since": LATER}, True),
        ({"if_modified_since": EARLIER}, False),
        ({"if_modified_since": "yesterday"}, False),
        ({"if_modified_since": "Mon, 99 Mar 2026 09:14:07 GMT"}, False),
        ({"if_none_match": '"that"', "if_modified_since": LATER}, False),
        ({"if_match": '"this"'}, False),
        ({"if_match": "*"}, False),
        ({"if_match": '"this"', "if_none_match": '"this"'}, True),
        ({"if_unmodified_since": SAME}, False),
        ({"if_unmodified_since": "nonsense"}, False),
        ({"if_match": '"this"', "if_unmodified_since": EARLIER}, False),
    ],
)
def test_a_client_that_has_it_is_told_so(given: dict[str, str], known: bool) -> None:
    assert is_not_modified(headers(**given), THIS) is known


@pytest.mark.parametrize(
    "given",
    [
        {"if_match": '"that"'},
        {"if_match": 'W/"this"'},
        {"if_match": ""},
        {"if_unmodified_since": EARLIER},
        {"if_match": '"that"', "if_none_match": '"this"'},
    ],
)
def test_a_client_that_insists_on_another_version_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(PreconditionFailed):
        is_not_modified(headers(**given), THIS)


@pytest.mark.parametrize(
    ("condition", "taken"),
    [
        (None, True),
        ('"this"', True),
        ('W/"this"', False),
        ('"that"', False),
        (SAME, True),
        (EARLIER, False),
        (LATER, False),
        ("nonsense", False),
    ],
)
def test_a_range_counts_only_for_the_version_it_was_meant_for(condition: str | None, taken: bool) -> None:
    given = headers(range="bytes=1-2") + (headers(if_range=condition) if condition is not None else [])
    assert wanted_range(given, THIS) == ("bytes=1-2" if taken else None)


def test_two_range_headers_are_several_ranges() -> None:
    assert wanted_range(headers(range="bytes=1-2") * 2, THIS) == "bytes=1-2, bytes=1-2"


def test_a_version_says_its_moment_in_gmt() -> None:
    moment = THIS.modified.astimezone(timezone(timedelta(hours=2)))
    assert (b"last-modified", SAME.encode()) in Version('"x"', moment).headers()
