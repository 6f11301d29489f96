"""A place or "busy", never a queue: how many downloads may run at the same time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

from gauzian.errors import DownloadsBusy, ShuttingDown
from gauzian.metrics import Metrics


class DownloadGate:
    """`places` downloads at once in this process; `taken` of them are held at the moment."""

    def __init__(self, *, places: int, metrics: Metrics) -> None:
        self.places = places
        self.taken = 0
        self._metrics = metrics
        self._closed = False

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Hold a place for the length of a `with` block. Raises DownloadsBusy without waiting, ShuttingDown after
        `close`.
        """
        if self._closed:
            raise ShuttingDown
        if self.taken >= self.places:
            self._metrics.download_rejections.labels("places").inc()
            # Jitter, so that a refused crowd does not come back as a crowd.
            raise DownloadsBusy(headers={"Retry-After": str(random.randint(1, 3))})  # noqa: S311
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    def close(self) -> None:
        """No new downloads from now on; those that have a place keep it."""
        self._closed = True
