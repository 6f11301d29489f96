"""Reads that never wait: what lies in the page cache, taken on the event loop."""

from __future__ import annotations

import errno
import os

_NOWAIT: int | None = getattr(os, "RWF_NOWAIT", None)
_UNKNOWN_HERE = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}


class CachedReads:
    """One buffer serves all readers: filled and copied out without giving way in between, it stays in the cache."""

    def __init__(self, most: int) -> None:
        self._buffer = memoryview(bytearray(most))
        self.supported = _NOWAIT is not None

    def read(self, fd: int, want: int, at: int) -> bytes | None:
        """Bytes at `at` (fewer if the cache holds fewer, none at the end of the file); None if reading would wait."""
        if not self.supported or _NOWAIT is None:
            return None
        view = self._buffer[:want]
        try:
            return bytes(view[: os.preadv(fd, [view], at, _NOWAIT)])
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in _UNKNOWN_HERE:
                self.supported = False  # this file system or kernel does not know it
            return None  # the read in a thread meets a real error again, and reports it
