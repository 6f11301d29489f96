"""Range headers and the planner, against tables and against slicing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gauzian.download.ranges import ByteRange, parse_range, plan
from gauzian.errors import RangeNotSatisfiable

SIZE = 1000


@pytest.mark.parametrize(
    ("value", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-499", 0, 500),
        ("bytes=500-999", 500, 1000),
        ("bytes=500-", 500, 1000),
        ("bytes=999-", 999, 1000),
        ("bytes=-1", 999, 1000),
        ("bytes=-1000", 0, 1000),
        ("bytes=-5000", 0, 1000),
        ("bytes=990-5000", 990, 1000),
        ("bytes=0-" + "9" * 99, 0, 1000),
        ("Bytes=1-2", 1, 3),
        ("bytes= 1-2 ", 1, 3),
        ("bytes=00000000000000000000000001-2", 1, 3),
    ],
)
def test_a_single_range_is_taken(value: str, start: int, stop: int) -> None:
    assert parse_range(value, SIZE) == ByteRange(start, stop)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-2",
        "bytes=0-1,5-6",
        "bytes=0-1,",
        "bytes=a-b",
        "bytes=0-1x",
        "bytes=--1",
        "bytes=1--2",
        "bytes=+1-2",
        "bytes=1 - 2",
        "bytes=0x1-2",
        "bytes=١-٢",
        "bytes=0-" + "9" * 101,
        "bytes=" + "9" * 10_000 + "-",
        "lines=0-1",
        "bytes 0-1",
        "bytes=0-1\n",
    ],
)
def test_what_is_no_single_byte_range_means_everything(value: str | None) -> None:
    assert parse_range(value, SIZE) is None


@pytest.mark.parametrize("value", ["bytes=1000-", "bytes=1000-1001", "bytes=-0", "bytes=" + "9" * 50 + "-"])
def test_a_range_outside_is_refused_with_the_size(value: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as refused:
        parse_range(value, SIZE)
    assert refused.value.headers["Content-Range"] == "bytes */1000"


@pytest.mark.parametrize("value", ["bytes=0-", "bytes=-5", "bytes=0-0"])
def test_an_empty_file_is_sent_whole_whatever_range_is_asked(value: str) -> None:
    assert parse_range(value, 0) is None


@given(
    first=st.integers(0, 30), last=st.integers(0, 40), size=st.integers(1, 30), form=st.sampled_from(["ab", "a", "n"])
)
def test_ranges_mean_what_slices_mean(first: int, last: int, size: int, form: str) -> None:
    content = bytes(range(size))
    value, expected = {
        "ab": (f"bytes={first}-{last}", content[first : last + 1]),
        "a": (f"bytes={first}-", content[first:]),
        "n": (f"bytes=-{last}", content[max(0, size - last) :]),
    }[form]
    try:
        part = parse_range(value, size)
    except RangeNotSatisfiable:
        assert not expected
        return
    if part is None:
        assert form == "ab"
        assert last < first
    else:
        assert content[part.start : part.stop] == expected


@given(
    sizes=st.lists(st.integers(0, 9), max_size=12),
    start=st.integers(0, 60),
    length=st.integers(0, 60),
    page=st.integers(1, 5),
)
def test_the_plan_is_the_slice(sizes: list[int], start: int, length: int, page: int) -> None:
    chunks, count = [], 0
    for size in sizes:
        chunks.append(bytes(range(count, count + size)))
        count += size
    whole, stop = b"".join(chunks), start + length

    planned = list(plan(start, stop, sizes))
    assert b"".join(chunks[part.position][part.start : part.stop] for part in planned) == whole[start:stop]
    assert all(0 <= part.start < part.stop <= sizes[part.position] for part in planned)

    paged, offset = b"", 0
    for first in range(0, len(sizes), page):
        for part in plan(start, stop, sizes[first : first + page], offset=offset):
            paged += chunks[first + part.position][part.start : part.stop]
        offset += sum(sizes[first : first + page])
    assert paged == whole[start:stop]
