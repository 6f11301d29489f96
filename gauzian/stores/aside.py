"""One object being written aside, synced, put in its place. Plain system calls, one at a time, in a thread.

Where the file system can (`has_nameless_files`), aside is a file without a name in the directory where the object is to
be: nothing is left of it whatever happens, and neither the directory of all unfinished files nor the lock that a rename
between two directories takes stands between the threads (on ext4 a small object costs a third of the system time).
Elsewhere it is a named file in a directory of its own, and a rename.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ParamSpec, TypeVar

from gauzian.stores.files import write_all
from gauzian.stores.threads import KIB

# From here on the page cache of an object is worth a system call.
_LARGE_BYTES = 256 * KIB

P = ParamSpec("P")
T = TypeVar("T")


class Aside:
    """`commit` makes the bytes that were taken the object `place`; `abandon` takes back whatever there is.

    `temporary` is a path on the same file system that nobody else uses. `size`: how many bytes will come, if known.
    """

    def __init__(self, temporary: str, place: str, *, nameless: bool, fsync: bool, size: int | None = None) -> None:
        self._temporary = temporary
        self._place = place
        self._nameless = nameless
        self._fsync = fsync
        self._expected = size
        self._fd = -1
        self._size = 0
        self._named = ""  # what would be left: the temporary file, then the object

    def take(self, pieces: Sequence[bytes | memoryview]) -> None:
        if self._fd < 0:
            self._open()
        self._size += write_all(self._fd, pieces)

    def commit(self, pieces: Sequence[bytes]) -> None:
        """The last pieces; afterwards the object is there, durable."""
        self.take(pieces)
        self.sync()
        self.put_in_place()
        if self._fsync:
            sync_directory(self.directory)

    # -- the steps of `commit`, for several objects at a time

    @property
    def directory(self) -> str:
        """Where its name will be: to be synced when it is there."""
        return os.path.dirname(self._place)

    def begin_sync(self) -> None:
        """Let the disk begin now with what `sync` will wait for (Linux; elsewhere advice that costs nothing).

        The advice starts writing dirty pages without waiting. With 64 small files begun before the first is
        waited for, a file costs a third of the time: their inodes go to the disk together.
        """
        if self._fsync:
            _advise_unwanted(self._fd)

    def sync(self) -> None:
        """On the disk, and out of the page cache: nothing says that anybody will read it soon.

        Else a server that takes in files fills the machine's memory with them, which counts as its own wherever
        memory is limited (a container's does), and each new page costs more than one that has just become free: a
        tenth of the CPU of a large chunk.
        """
        if self._fsync:
            os.fsync(self._fd)
            if self._size >= _LARGE_BYTES:
                _advise_unwanted(self._fd)

    def put_in_place(self) -> None:
        if self._nameless:
            self._link()
            self._close()
        else:
            self._close()  # before the rename: some file systems report a failed write only here
            self._rename()

    def abandon(self) -> None:
        """Leave nothing: no descriptor, no temporary file, and no object if it had just got its name."""
        try:
            self._close()
        finally:
            if self._named:
                with suppress(FileNotFoundError):
                    os.unlink(self._named)

    def _open(self) -> None:
        if self._nameless:
            self._fd = self._in_its_directory(_open_nameless, os.path.dirname(self._place))
            self._reserve()
        else:
            self._fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._named = self._temporary

    def _reserve(self) -> None:
        """All blocks at once: less work for the file system than block after block when it writes (a thirtieth of the
        CPU of a large chunk), in one piece, and a disk that has no room for the object says so before it is here.

        Raises ENOSPC. Where the file system cannot, glibc would write zeros everywhere; those without names can.
        """
        if self._expected is not None and self._expected >= _LARGE_BYTES and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._fd, 0, self._expected)

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _link(self) -> None:
        try:
            _link_nameless(self._fd, self._place)
            self._named = self._place
        except FileExistsError:  # link() does not replace
            _link_nameless(self._fd, self._temporary)
            self._named = self._temporary
            self._rename()

    def _rename(self) -> None:
        self._in_its_directory(os.rename, self._temporary, self._place)
        self._named = self._place

    def _in_its_directory(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Most objects find the directory that an earlier one needed."""
        try:
            return call(*args, **kwargs)
        except FileNotFoundError:
            self._make_directories()
            return call(*args, **kwargs)

    def _make_directories(self) -> None:
        """Both levels. A parent is synced even if another thread has just made the entry: it may not be so far."""
        inner = os.path.dirname(self._place)
        outer = os.path.dirname(inner)
        for directory in (outer, inner):
            with suppress(FileExistsError):
                os.mkdir(directory, 0o700)
            if self._fsync:
                sync_directory(os.path.dirname(directory))


def has_nameless_files(directory: str) -> bool:
    """Can a file in `directory` be made without a name and be given one later? Not on NFS, nor without /proc."""
    name = f"{directory}/nameless"
    try:
        fd = _open_nameless(directory)
    except (AttributeError, OSError):
        return False
    try:
        _link_nameless(fd, name)
        os.unlink(name)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _advise_unwanted(fd: int) -> None:
    """Write what is dirty, without waiting; forget what is clean (Linux; elsewhere nothing)."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


def _open_nameless(directory: str) -> int:
    return os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)


def _link_nameless(fd: int, name: str) -> None:
    """open(2), O_TMPFILE. The directory means nothing beside a whole path: with one Python calls linkat(), which alone
    follows the link in /proc."""
    os.link(f"/proc/self/fd/{fd}", name, src_dir_fd=fd, follow_symlinks=True)


def sync_directory(directory: str) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
