"""Who was let in a moment ago: the next chunk of the same file need not ask the database before its body as well.

This is no second truth. It only spares a first look: the statement that writes the row asks for the token, the owner
and the open upload again, and a chunk that slipped in behind a sign-out or a finalize is refused there and leaves
nothing. Users with a quota are not remembered: for them the first look spares a body that does not fit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

from gauzian.database.chunks import Target

# Longer than a client takes from one chunk to the next, shorter than anybody takes to wonder why a refusal comes late.
SECONDS = 2.0
# Uploads that send chunks within those seconds; beyond that the oldest is forgotten, and asks again.
MOST = 1024


class Admissions:
    """`find` gives what `remember` was told about this token and file, for `seconds`."""

    def __init__(
        self, *, seconds: float = SECONDS, most: int = MOST, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._most = most
        self._now = now
        self._known: dict[tuple[bytes, UUID], tuple[float, Target]] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._known)

    def find(self, token_sha256: bytes, file_id: UUID) -> Target | None:
        since, target = self._known.get((token_sha256, file_id), (0.0, None))
        if target is None or self._now() - since < self._seconds:
            return target
        del self._known[token_sha256, file_id]
        return None

    def remember(self, token_sha256: bytes, file_id: UUID, target: Target) -> None:
        """Only who may: their own open upload, and no quota to watch."""
        if target.state != "uploading" or target.owner_id != target.user_id or target.quota_bytes is not None:
            return
        self._known.pop((token_sha256, file_id), None)
        self._known[token_sha256, file_id] = self._now(), target
        if len(self._known) > self._most:
            del self._known[next(iter(self._known))]

    def forget(self, token_sha256: bytes, file_id: UUID) -> None:
        self._known.pop((token_sha256, file_id), None)
