"""How long the store took, without the time it waited for somebody else's bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import perf_counter
from types import TracebackType
from typing import Literal

from gauzian.errors import StoreDown, StoreFull
from gauzian.metrics import Metrics
from gauzian.stores.base import ObjectMissing

Operation = Literal["put", "get", "delete", "list", "check"]


class Watch:
    """`with Watch(metrics, "put") as watch`: one observation, unless it ended for a reason that is not the store's."""

    def __init__(self, metrics: Metrics | None, operation: Operation) -> None:
        self._metrics = metrics
        self._operation = operation
        self._waited = 0.0
        self.failed = False
        """Set by who fails quietly."""

    def __enter__(self) -> Watch:
        self._started = perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._metrics is None:
            return
        if isinstance(error, StoreDown | StoreFull):
            self.failed = True
        elif error is not None and not isinstance(error, ObjectMissing):
            return  # the client vanished, the bytes were wrong: says nothing about the store
        status = "failed" if self.failed else "success"
        seconds = perf_counter() - self._started - self._waited
        self._metrics.store_seconds.labels(self._operation, status).observe(seconds)

    async def next(self, source: AsyncIterator[bytes]) -> bytes | None:
        """The next piece that is not empty, None at the end; the wait for it is not counted."""
        started = perf_counter()
        try:
            while not (piece := await anext(source)):
                pass
            return piece
        except StopAsyncIteration:
            return None
        finally:
            self._waited += perf_counter() - started
