"""The four rules as a table."""

from __future__ import annotations

import pytest

from gauzian.upload.completeness import Facts, find_missing


def facts(**given: object) -> Facts:
    usual: dict[str, object] = {
        "size": 250, "declared_chunks": set(), "count": 3, "highest": 2, "stored_bytes": 250 + 3 * 16,
        "first_size": 116, "holes": [],
    }  # fmt: skip
    return Facts(**(usual | given))  # type: ignore[arg-type]


COMPLETE = [
    ("tags of 16 bytes", facts()),
    ("no overhead", facts(stored_bytes=250)),
    ("IV and tag", facts(stored_bytes=250 + 3 * 28)),
    ("an empty file without chunks", facts(size=0, count=0, highest=-1, stored_bytes=0, first_size=0)),
    (
        "an empty file with one encrypted chunk of nothing",
        facts(size=0, count=1, highest=0, stored_bytes=16, first_size=16),
    ),
    ("the declared number", facts(declared_chunks={3})),
]

INCOMPLETE = [
    ("a hole", facts(count=2, holes=[(1, 1)]), "indices", [(1, 1)]),
    (
        "a hole and a tail that was declared",
        facts(count=2, holes=[(1, 1)], declared_chunks={5}),
        "indices",
        [(1, 1), (3, 4)],
    ),
    ("fewer than declared", facts(declared_chunks={5}), "total_chunks", [(3, 4)]),
    ("more than declared", facts(declared_chunks={2}), "total_chunks", []),
    ("two declarations that differ", facts(declared_chunks={3, 4}), "total_chunks", [(3, 3)]),
    (
        "declared but nothing there",
        facts(count=0, highest=-1, stored_bytes=0, first_size=0, declared_chunks={2}),
        "total_chunks",
        [(0, 1)],
    ),
    ("bytes declared but nothing there", facts(count=0, highest=-1, stored_bytes=0, first_size=0), "empty", [(0, 0)]),
    ("the last chunk never came", facts(count=2, highest=1, stored_bytes=232), "size", [(2, 2)]),
    ("one byte too few", facts(stored_bytes=297), "size", []),
    ("one byte too many", facts(stored_bytes=299), "size", []),
    ("an overhead nobody uses", facts(stored_bytes=250 + 3 * 12), "size", []),
]


@pytest.mark.parametrize(("case", "given"), COMPLETE)
def test_what_is_complete_is_called_complete(case: str, given: Facts) -> None:
    assert find_missing(given, check_bytes=True) is None


@pytest.mark.parametrize(("case", "given", "rule", "missing"), INCOMPLETE)
def test_what_is_missing_is_named(case: str, given: Facts, rule: str, missing: list[tuple[int, int]]) -> None:
    assert find_missing(given, check_bytes=True) == (rule, missing)


def test_the_byte_rule_can_be_switched_off_and_only_that() -> None:
    assert find_missing(facts(stored_bytes=1), check_bytes=False) is None
    assert find_missing(facts(stored_bytes=1, holes=[(0, 0)]), check_bytes=False) is not None
