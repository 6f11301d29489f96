"""One page of an S3 listing, read as it comes: a parser that takes nothing a listing does not need."""

from __future__ import annotations

from datetime import UTC, datetime
from xml.parsers import expat

from gauzian.stores.base import ListedObject
from gauzian.stores.keys import is_key

# A page has 1000 keys of at most 1024 bytes each.
_MOST_BYTES = 4 * 1024 * 1024
_MOST_TEXT = 4096
_MOST_DEPTH = 8
_FIELDS = {"Key", "Size", "LastModified", "NextContinuationToken"}


class BadListing(Exception):
    """Not a listing, or more than a page of it."""


class ListingPage:
    """`feed` pieces, then `close`: `objects`, and in `next_token` whether there is another page.

    Objects whose names are not ours to give are left out: they belong to somebody else.
    """

    def __init__(self) -> None:
        self.next_token: str | None = None
        self.objects: list[ListedObject] = []
        self._read = 0
        self._depth = 0
        self._field = ""
        self._text: list[str] = []
        self._text_size = 0
        self._values: dict[str, str] = {}
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = self._doctype

    def feed(self, piece: bytes) -> None:
        self._read += len(piece)
        if self._read > _MOST_BYTES:
            raise BadListing("too long")
        self._parse(piece, False)

    def close(self) -> None:
        self._parse(b"", True)

    def _parse(self, piece: bytes, final: bool) -> None:
        try:
            self._parser.Parse(piece, final)
        except (expat.ExpatError, ValueError, KeyError) as error:
            raise BadListing(str(error)) from error

    def _doctype(self, *_: object) -> None:
        raise BadListing("a document type: entities could grow without bound")

    def _start(self, name: str, _: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise BadListing("nested too deep")
        self._field = name if name in _FIELDS else ""
        self._text, self._text_size = [], 0
        if name == "Contents":
            self._values = {}

    def _characters(self, text: str) -> None:
        if self._field:
            self._text_size += len(text)
            if self._text_size > _MOST_TEXT:
                raise BadListing("a field too long")
            self._text.append(text)

    def _end(self, name: str) -> None:
        if name == "Contents":
            self._add()
        elif name == "NextContinuationToken":
            self.next_token = "".join(self._text)
        elif name == self._field:
            self._values[name] = "".join(self._text)
        self._field = ""
        self._depth -= 1

    def _add(self) -> None:
        key = self._values["Key"]
        if is_key(key):
            modified = datetime.fromisoformat(self._values["LastModified"]).astimezone(UTC)
            self.objects.append(ListedObject(key, int(self._values["Size"]), modified))
