"""The one parser of this room: fed whole, in bytes, cut short, and with what does not belong."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gauzian.stores.base import ListedObject
from gauzian.stores.s3_listing import BadListing, ListingPage

HEAD = b'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'


def contents(key: str, size: int = 7) -> bytes:
    return (
        f"<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05Z</LastModified><Size>{size}</Size>"
        "<Owner><ID>x</ID></Owner><StorageClass>STANDARD</StorageClass></Contents>"
    ).encode()


PAGE = (
    HEAD
    + b"<Name>bucket</Name><Prefix></Prefix><KeyCount>2</KeyCount><IsTruncated>true</IsTruncated>"
    + contents("a.1")
    + contents("b_2-C", 10**12)
    + b"<NextContinuationToken>to&amp;ken=</NextContinuationToken></ListBucketResult>\n"
)
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def parse(data: bytes, piece: int) -> ListingPage:
    page = ListingPage()
    for start in range(0, len(data), piece):
        page.feed(data[start : start + piece])
    page.close()
    return page


@pytest.mark.parametrize("piece", [1, 2, 7, 100, 10_000])
def test_it_does_not_matter_how_a_page_is_cut(piece: int) -> None:
    page = parse(PAGE, piece)
    assert page.objects == [ListedObject("a.1", 7, WHEN), ListedObject("b_2-C", 10**12, WHEN)]
    assert page.next_token == "to&ken="


def test_a_page_cut_short_is_no_page() -> None:
    for end in range(len(PAGE) - len(b">\n")):
        with pytest.raises(BadListing):
            parse(PAGE[:end], 100)


def test_the_last_page_names_no_other() -> None:
    assert parse(HEAD + b"<IsTruncated>false</IsTruncated></ListBucketResult>", 100).next_token is None


def test_names_that_are_not_ours_are_left_out() -> None:
    page = parse(HEAD + contents("dir/a") + contents(".x") + contents("ok") + b"</ListBucketResult>", 100)
    assert [listed.key for listed in page.objects] == ["ok"]


@pytest.mark.parametrize(
    "data",
    [
        PAGE + b"<more/>",
        b'<!DOCTYPE x [<!ENTITY a "b">]>' + PAGE,
        HEAD + b"<Contents></Contents></ListBucketResult>",
        HEAD + contents("a").replace(b"<Size>7", b"<Size>seven") + b"</ListBucketResult>",
        HEAD + contents("a").replace(b"2026-", b"someday-") + b"</ListBucketResult>",
        HEAD + contents("k" * 5000) + b"</ListBucketResult>",
        HEAD + b"<x>" * 2_000_000,
        b"\x00\xff",
        b"",
    ],
)
def test_what_is_no_listing_is_refused(data: bytes) -> None:
    with pytest.raises(BadListing):
        parse(data, 65_536)
