"""Bytes laid down until somebody knows what to do with them: in a file without a name, in memory while they are few."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType

from gauzian.bytebudget import Held
from gauzian.errors import BodyTooLarge
from gauzian.stores.files import Batch, FilePieces, file_work, write_all
from gauzian.stores.threads import KIB, FileThreads, Strand

# So few bytes never see the disk: a small chunk costs no file.
_MOST_IN_MEMORY = 64 * KIB


class Spool:
    """`async with Spool(...) as spool`: `await write(piece)` ..., `await finish()`, then `pieces()` as often as wanted.

    The file has no name from its first moment: whatever happens, nothing is left. Raises StoreFull, StoreDown, and
    BodyTooLarge when more than `most_bytes` are written. One task at a time.
    """

    def __init__(self, directory: Path, *, threads: FileThreads, most_bytes: int | None = None) -> None:
        self._directory = directory
        self._threads = threads
        self._most_bytes = most_bytes
        self._batch = Batch(threads.writing)
        self._strand = Strand(threads)
        self._fd = -1
        self._reading = Held(threads.reading)
        self.size = 0

    async def __aenter__(self) -> Spool:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._batch.drop()
        self._reading.drop()
        if self._strand.begun:
            await self._strand.end(self._close)  # in a thread: closing frees the blocks

    async def write(self, piece: bytes) -> None:
        self.size += len(piece)
        if self._most_bytes is not None and self.size > self._most_bytes:
            raise BodyTooLarge(self._most_bytes)
        if self._batch.full:
            await self._flush()
        self._batch.add(piece)

    async def finish(self) -> int:
        """No more will be written; how many bytes there are."""
        if self._strand.begun or self._batch.size > _MOST_IN_MEMORY:
            await self._flush()
        return self.size

    async def pieces(self) -> AsyncIterator[bytes]:
        """What was written, from the beginning."""
        if not self._strand.begun:
            for piece in self._batch.pieces:
                yield piece
            return
        file = FilePieces(self._fd, 0, self.size, held=self._reading, threads=self._threads, strand=self._strand)
        async for piece in file:
            yield piece

    async def _flush(self) -> None:
        await self._batch.hand_over(lambda pieces: file_work(self._strand.run(self._append, pieces)))

    def _append(self, pieces: list[bytes]) -> None:
        if self._fd < 0:
            self._fd = _open_nameless(self._directory)
        write_all(self._fd, pieces)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _open_nameless(directory: Path) -> int:
    """O_TMPFILE where the file system knows it, else a file unlinked at once."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except (AttributeError, OSError):
        fd, name = tempfile.mkstemp(dir=directory)
        os.unlink(name)
        return fd
