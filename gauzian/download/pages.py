"""The chunks of one file, a page of rows at a time, checked for holes as they come.

A page is small because each download holds one; and no database connection is held between two pages.
"""

from __future__ import annotations

from gauzian.database.downloads import ChunkRow, FileRow, find_chunk_at, list_chunks
from gauzian.database.pool import Database
from gauzian.download.ranges import ByteRange, plan
from gauzian.download.readahead import Wanted
from gauzian.errors import ObjectDamaged

# About 64 KB of Python objects, and one statement per 64 to 640 MiB.
PAGE_ROWS = 64


class FilePages:
    """Bytes `wanted` of a complete file, as parts of its chunks."""

    def __init__(self, database: Database, file: FileRow, wanted: ByteRange, *, rows: int = PAGE_ROWS) -> None:
        self._database = database
        self._file = file
        self._wanted = wanted
        self._rows = rows
        self._index = 0
        self._offset = 0  # of the first byte of chunk `_index`
        self._located = wanted.start == 0

    async def next_page(self) -> list[Wanted]:
        """Raises ObjectDamaged when the rows do not add up to what the file is said to be: a short answer must not
        look complete.
        """
        if self._offset >= self._wanted.stop:
            return []
        async with self._database.connection() as conn:
            if not self._located:
                at = await find_chunk_at(conn, file_id=self._file.file_id, byte=self._wanted.start)
                if at is None:
                    raise ObjectDamaged
                self._index, self._offset = at
                self._located = True
            rows = await list_chunks(conn, file_id=self._file.file_id, first=self._index, most=self._rows)
        parts = plan(self._wanted.start, self._wanted.stop, [row.size for row in rows], offset=self._offset)
        page = [Wanted(rows[part.position], part.start, part.stop) for part in parts]
        self._advance([wanted.row for wanted in page])
        return page

    def _advance(self, rows: list[ChunkRow]) -> None:
        if not rows or [row.index for row in rows] != list(range(self._index, self._index + len(rows))):
            raise ObjectDamaged
        self._index += len(rows)
        self._offset += sum(row.size for row in rows)
        at_the_end = self._wanted.stop == self._file.stored_bytes and self._offset >= self._wanted.stop
        if at_the_end and (self._index, self._offset) != (self._file.chunk_count, self._file.stored_bytes):
            raise ObjectDamaged


class OneChunk:
    """A single chunk, whole."""

    def __init__(self, row: ChunkRow) -> None:
        self._rest = [Wanted(row, 0, row.size)]

    async def next_page(self) -> list[Wanted]:
        page, self._rest = self._rest, []
        return page
