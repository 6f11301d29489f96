"""A directory for unfinished files that belongs to one process; what a process that died left there is removed."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from itertools import count
from pathlib import Path
from secrets import token_hex

log = logging.getLogger(__name__)


class TemporaryDirectory:
    """`<parent>/<random>`, locked (flock) while we live: the lock, not an age, says whose owner is gone.

    So two processes may share a store, and a start after kill -9 cleans up at once. Blocking: use it in a thread.
    """

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._numbers = count()

    def open(self) -> None:
        self._parent.mkdir(parents=True, exist_ok=True)
        self._remove_orphans()
        while True:
            self.path = self._parent / token_hex(8)
            self.path.mkdir(mode=0o700)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            _try_lock(self._lock)
            if self.path.exists():  # else another process took it for an orphan before it was locked
                return
            os.close(self._lock)

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)

    def next(self) -> str:
        """A path that nobody has used."""
        return f"{self.path}/{next(self._numbers)}"

    def _remove_orphans(self) -> None:
        for directory in self._parent.iterdir():
            try:
                lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                continue  # not a directory, or just removed by somebody else
            try:
                if _try_lock(lock):
                    log.info("removed unfinished files of a process that ended: %d", len(os.listdir(lock)))
                    shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(lock)


def _try_lock(fd: int) -> bool:
    """False if somebody holds it, or if the file system has no locks: then nothing is ever taken for an orphan."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
