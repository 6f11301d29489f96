"""One object being written beside its place: aside, synced, renamed. Plain system calls, one at a time, in a thread."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256 as new_sha256

from xxhash import xxh3_128

from gauzian.errors import DigestMismatch
from gauzian.stores.base import StoredObject
from gauzian.stores.files import write_all


class Aside:
    """Bytes go to `temporary` until `commit` makes them the object `place`; `abandon` takes back whatever there is.

    The bytes are hashed here because they are here anyway: it frees the event loop and costs no hop of its own.
    """

    def __init__(self, temporary: str, place: str, *, fsync: bool) -> None:
        self._temporary = temporary
        self._place = place
        self._fsync = fsync
        self._fd = -1
        self._renamed = False
        self._size = 0
        self._sha256 = new_sha256()
        self._xxh3 = xxh3_128()

    def take(self, pieces: Sequence[bytes]) -> None:
        if self._fd < 0:
            self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        write_all(self._fd, pieces)
        for piece in pieces:
            self._size += len(piece)
            self._sha256.update(piece)
            self._xxh3.update(piece)

    def commit(self, pieces: Sequence[bytes], *, size: int | None, sha256: bytes | None) -> StoredObject:
        """The last pieces; afterwards the object is there, durable. All in one hop: a tiny object has no other."""
        self.take(pieces)
        stored = StoredObject(self._size, self._sha256.digest(), self._xxh3.digest())
        if size is not None and stored.size != size:
            raise ValueError(f"{stored.size} bytes came instead of {size}")
        if sha256 is not None and stored.sha256 != sha256:
            raise DigestMismatch
        if self._fsync:
            os.fsync(self._fd)
        self._close()  # before the rename: some file systems report a failed write only here
        self._rename()
        return stored

    def abandon(self) -> None:
        """Leave nothing: no descriptor, no temporary file, and no object if it had just been renamed."""
        try:
            self._close()
        finally:
            with suppress(FileNotFoundError):
                os.unlink(self._place if self._renamed else self._temporary)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _rename(self) -> None:
        try:
            os.rename(self._temporary, self._place)
        except FileNotFoundError:
            self._make_directories()
            os.rename(self._temporary, self._place)
        self._renamed = True
        if self._fsync:
            sync_directory(os.path.dirname(self._place))

    def _make_directories(self) -> None:
        """Both levels. A parent is synced even if another thread has just made the entry: it may not be so far."""
        inner = os.path.dirname(self._place)
        outer = os.path.dirname(inner)
        for directory in (outer, inner):
            with suppress(FileExistsError):
                os.mkdir(directory, 0o700)
            if self._fsync:
                sync_directory(os.path.dirname(directory))


def sync_directory(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
