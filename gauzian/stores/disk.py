"""Objects as files: written aside, synced, put in their place, in directories named after the beginning of their keys.

<root>/objects/<2>/<2>/<key>      <root>/tmp/<process>/<number>      two levels of shards; unfinished files
"""

from __future__ import annotations

import builtins
import logging
import os
import stat
from collections.abc import AsyncIterable, AsyncIterator, Generator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from gauzian.bytebudget import Held
from gauzian.errors import StoreDown
from gauzian.metrics import Metrics
from gauzian.stores.aside import Aside, has_nameless_files, sync_directory
from gauzian.stores.base import ListedObject, ObjectMissing, StoredObject
from gauzian.stores.commits import MOST_BYTES, Commits
from gauzian.stores.files import Batch, FilePieces, file_work
from gauzian.stores.keys import is_key, require_key, shard
from gauzian.stores.siphon import Siphon, Siphons
from gauzian.stores.tally import Tally
from gauzian.stores.threads import MIB, FileThreads, Strand
from gauzian.stores.tmpdir import TemporaryDirectory
from gauzian.stores.watching import Watch
from gauzian.tap import Tap

log = logging.getLogger(__name__)

# How many names one hop looks at or removes: bounds memory, and how long others wait for the thread.
_NAMES_PER_HOP = 500


@asynccontextmanager
async def open_disk(
    root: Path,
    *,
    threads: FileThreads,
    fsync: bool = True,
    least_free_bytes: int = 64 * MIB,
    metrics: Metrics | None = None,
) -> AsyncIterator[DiskStore]:
    """The store under `root`, which is made if absent. Raises StoreDown if that cannot be done."""
    store = DiskStore(root, threads=threads, fsync=fsync, least_free_bytes=least_free_bytes, metrics=metrics)
    strand = Strand(threads)
    await file_work(strand.run(store.prepare))
    try:
        yield store
    finally:
        await strand.end(store.temporary.close)


class DiskStore:
    """ObjectStore (base.py) on a file system. Made by `open_disk`.

    `fsync=False` is for tests on slow disks: an answer then no longer promises anything.
    """

    def __init__(
        self, root: Path, *, threads: FileThreads, fsync: bool, least_free_bytes: int, metrics: Metrics | None
    ) -> None:
        self.temporary = TemporaryDirectory(root / "tmp")
        self._objects = str(root / "objects")  # text, not Path: every put, get and delete makes names from it
        self._threads = threads
        self._commits = Commits(threads, fsync=fsync)
        self._siphons = Siphons()
        self._fsync = fsync
        self._least_free_bytes = least_free_bytes
        self._metrics = metrics
        self._nameless = False

    def prepare(self) -> None:
        """Blocking, once, at the start."""
        os.makedirs(self._objects, mode=0o700, exist_ok=True)
        self.temporary.open()
        self._nameless = has_nameless_files(str(self.temporary.path))
        if self._fsync:
            sync_directory(os.path.dirname(self._objects))
            sync_directory(os.path.dirname(os.path.dirname(self._objects)))

    async def put(
        self, key: str, pieces: AsyncIterable[bytes], *, size: int | None, sha256: bytes | None = None
    ) -> StoredObject:
        aside = Aside(self.temporary.next(), self._place(key), nameless=self._nameless, fsync=self._fsync, size=size)
        strand = Strand(self._threads)
        tally = Tally(size=size, sha256=sha256)
        batch = Batch(self._threads.writing)
        tap: Tap | None = getattr(pieces, "tap", None)
        siphon = Siphon(tap, aside, tally, strand=strand, siphons=self._siphons)
        with Watch(self._metrics, "put") as watch:
            try:
                source = aiter(pieces)
                await siphon.run(batch)
                while (piece := await watch.next(source)) is not None:
                    tally.add(piece)
                    if batch.full:  # asked late, so that the last pieces go with the commit
                        await batch.hand_over(lambda pieces: file_work(strand.run(aside.take, pieces)))
                    batch.add(piece)
                    await siphon.run(batch)
                stored = tally.finish()
                if strand.begun or stored.size > MOST_BYTES:
                    await batch.hand_over(lambda pieces: file_work(strand.run(aside.commit, pieces)))
                else:  # all of it is still here
                    await batch.hand_over(lambda pieces: file_work(self._commits.commit(aside, pieces)))
                siphon.close()
                return stored
            except BaseException:
                batch.drop()
                if strand.begun:
                    await strand.end(siphon.abandon)
                else:
                    siphon.close()
                raise
            finally:
                siphon.end()

    @asynccontextmanager
    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        file = _OpenFile(self._place(key))
        strand = Strand(self._threads)
        held = Held(self._threads.reading)
        try:
            with Watch(self._metrics, "get"):
                try:
                    await file_work(strand.run(file.open))
                except StoreDown as error:
                    if isinstance(error.__cause__, FileNotFoundError):
                        raise ObjectMissing(key) from None
                    raise
            end = file.size if length is None else min(file.size, start + length)
            yield FilePieces(file.fd, start, end, held=held, threads=self._threads, strand=strand)
        finally:
            held.drop()
            if strand.idle:
                file.close()
            else:
                await strand.end(file.close)

    async def delete_quietly(self, keys: Sequence[str]) -> int:
        removed = 0
        with Watch(self._metrics, "delete") as watch:
            for first in range(0, len(keys), _NAMES_PER_HOP):
                places = [self._place(key) for key in keys[first : first + _NAMES_PER_HOP]]
                removed += await self._threads.run(_unlink_all, places)
            watch.failed = removed < len(keys)
        if watch.failed:
            log.warning("objects not removed: %d", len(keys) - removed)
        return removed

    async def list(self, prefix: str = "") -> AsyncIterator[ListedObject]:
        walk = _walk(self._objects, prefix)
        strand = Strand(self._threads)
        try:
            while found := await file_work(strand.run(_some, walk)):
                for listed in found:
                    yield listed
        finally:
            await strand.end(walk.close)

    async def check(self) -> None:
        with Watch(self._metrics, "check"):
            await file_work(self._threads.run(self._probe))

    def _probe(self) -> None:
        disk = os.statvfs(self._objects)
        if disk.f_bavail * disk.f_frsize < self._least_free_bytes:
            log.warning("the disk is full: %d MiB free", disk.f_bavail * disk.f_frsize // MIB)
            raise StoreDown
        probe = Path(self.temporary.next())
        try:
            probe.write_bytes(b"may we write here?")
        finally:
            with suppress(FileNotFoundError):
                probe.unlink()

    def _place(self, key: str) -> str:
        return f"{self._objects}/{shard(require_key(key))}/{key}"


class _OpenFile:
    """An object opened for reading: in a thread; closed at once when nothing reads it."""

    def __init__(self, place: str) -> None:
        self._place = place
        self.fd = -1
        self.size = 0

    def open(self) -> None:
        self.fd = os.open(self._place, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self.fd).st_size

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def _unlink_all(places: Sequence[str]) -> int:
    removed = 0
    for place in places:
        try:
            with suppress(FileNotFoundError):
                os.unlink(place)
            removed += 1
        except OSError as error:
            log.warning("an object could not be removed: %s", error.strerror)
    return removed


def _some(walk: Iterator[ListedObject]) -> builtins.list[ListedObject]:
    return list(islice(walk, _NAMES_PER_HOP))


def _walk(objects: str, prefix: str) -> Generator[ListedObject]:
    """Lazily; a generator, so closing it closes the directory it is in."""
    for directory in _shards(objects, prefix):
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.startswith(prefix) and is_key(entry.name):
                    with suppress(FileNotFoundError):  # removed since
                        yield _listed(entry)


def _listed(entry: os.DirEntry[str]) -> ListedObject:
    status = entry.stat()
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError
    return ListedObject(entry.name, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _shards(objects: str, prefix: str) -> Iterator[str]:
    if len(prefix) >= 4:
        yield f"{objects}/{shard(prefix)}"
        return
    for outer in os.listdir(objects):
        with suppress(NotADirectoryError):
            for inner in os.listdir(f"{objects}/{outer}"):
                yield f"{objects}/{outer}/{inner}"
