"""A place or "busy", never a queue.

A request without a place must not wait: while it waits its body is half read, and that is memory no place counts.
"""

from __future__ import annotations

import logging
import random
from types import TracebackType
from uuid import UUID

from gauzian.errors import ShuttingDown, UploadsBusy
from gauzian.metrics import Metrics

log = logging.getLogger(__name__)


class UploadGate:
    """`places` uploads at once in this process, at most `per_user` of them by one user; `busy_status` is what the
    refused are told.
    """

    def __init__(self, *, places: int, per_user: int, busy_status: int, metrics: Metrics) -> None:
        self.places = places
        self.per_user = per_user
        self.taken = 0
        self._busy_status = busy_status
        self._metrics = metrics
        self._of_user: dict[UUID, int] = {}  # never more entries than places
        self._closed = False
        log.info("Max concurrent uploads: %d", places)

    def enter(self) -> Place:
        """Take a place for the length of a `with` block. Raises UploadsBusy without waiting, ShuttingDown after
        `close`.
        """
        if self._closed:
            raise ShuttingDown
        if self.taken >= self.places:
            raise self._busy("places")
        self.taken += 1
        return Place(self)

    def close(self) -> None:
        """No new uploads from now on; those that have a place keep it."""
        self._closed = True

    def claim(self, user_id: UUID) -> None:
        held = self._of_user.get(user_id, 0)
        if held >= self.per_user:
            raise self._busy("user_share")
        self._of_user[user_id] = held + 1

    def leave(self, user_id: UUID | None) -> None:
        self.taken -= 1
        if user_id is not None:
            held = self._of_user.pop(user_id) - 1
            if held:
                self._of_user[user_id] = held

    def _busy(self, reason: str) -> UploadsBusy:
        self._metrics.count_rejected_upload(reason)
        log.warning("Upload rejected: too many concurrent uploads", extra={"reason": reason})
        # Jitter, so that a refused crowd does not come back as a crowd.
        return UploadsBusy(status=self._busy_status, headers={"Retry-After": str(random.randint(1, 3))})  # noqa: S311


class Place:
    """One place at the gate, held for one request."""

    __slots__ = ("_gate", "_user_id")

    def __init__(self, gate: UploadGate) -> None:
        self._gate = gate
        self._user_id: UUID | None = None

    def claim_for(self, user_id: UUID) -> None:
        """Count this place against the user's share; raises UploadsBusy when the share is used up."""
        self._gate.claim(user_id)
        self._user_id = user_id

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gate.leave(self._user_id)
