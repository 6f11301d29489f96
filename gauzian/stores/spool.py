"""Bytes laid down until somebody knows what to do with them: in a file without a name, in memory while they are few."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType

from gauzian.errors import BodyTooLarge
from gauzian.stores.files import Batch, FilePieces, file_work, write_all
from gauzian.stores.threads import KIB, FairShare, FileThreads, Strand

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
        self._share: FairShare | None = None
        self.size = 0

    async def __aenter__(self) -> Spool:
        self._take_share(self._threads.writing)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._take_share(None)
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
        self._take_share(self._threads.reading)
        return self.size

    async def pieces(self) -> AsyncIterator[bytes]:
        """What was written, from the beginning."""
        if not self._strand.begun:
            for piece in self._batch.pieces:
                yield piece
            return
        async for piece in FilePieces(self._fd, 0, self.size, threads=self._threads, strand=self._strand):
            yield piece

    async def _flush(self) -> None:
        await file_work(self._strand.run(self._append, self._batch.take()))

    def _append(self, pieces: list[bytes]) -> None:
        if self._fd < 0:
            self._fd = _open_nameless(self._directory)
        write_all(self._fd, pieces)

    def _take_share(self, share: FairShare | None) -> None:
        """One budget at a time. Held by the spool, not by who reads: a dropped iterator ends nobody knows when."""
        if self._share is not None:
            self._share.__exit__()
        self._share = share
        if share is not None:
            share.__enter__()

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
