"""Reads every object and compares it with its row: what is damaged, what is missing. Changes nothing, but notes when
it ended and how many it found, for the service's numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import anyio

from gauzian.database import care
from gauzian.database.pool import Database
from gauzian.errors import StoreDown
from gauzian.stores.base import ObjectMissing, ObjectStore

_PAGE = 500
_AT_ONCE = 4  # objects read at the same time: enough to keep a store busy, little enough beside a running service


@dataclass(frozen=True, slots=True)
class Damage:
    row: care.ObjectRow
    what: str


@dataclass(slots=True)
class Progress:
    """Where a scrub is; `objects` and `bytes` are totals at its start, uploads go on meanwhile."""

    objects: int
    bytes: int
    checked: int = 0
    checked_bytes: int = 0
    damaged: int = 0


class Scrub:
    def __init__(self, *, database: Database, store: ObjectStore) -> None:
        self._database = database
        self._store = store

    async def run(self, *, on_damage: Callable[[Damage], None], on_progress: Callable[[Progress], None]) -> Progress:
        """Check everything once. Raises StoreDown or DatabaseDown when it cannot go on: that is no damage."""
        async with self._database.connection() as conn:
            progress = Progress(*await care.count_objects(conn))
        limiter = anyio.CapacityLimiter(_AT_ONCE)

        async def check(row: care.ObjectRow) -> None:
            async with limiter:
                what = await self._check(row)
            progress.checked += 1
            progress.checked_bytes += row.size
            if what is not None and await self._is_current(row):
                progress.damaged += 1
                on_damage(Damage(row, what))
            on_progress(progress)

        after = None
        while True:
            async with self._database.connection() as conn:
                page = await care.list_objects(conn, after=after, most=_PAGE)
            if not page:
                break
            try:
                async with anyio.create_task_group() as tasks:
                    for row in page:
                        tasks.start_soon(check, row)
            except ExceptionGroup as several:  # at most a few, and of one kind: the store or the database is gone
                raise several.exceptions[0] from several
            after = (page[-1].file_id, page[-1].index)
        async with self._database.connection() as conn:
            await care.note_scrub(conn, checked=progress.checked, damaged=progress.damaged)
        return progress

    async def _check(self, row: care.ObjectRow) -> str | None:
        digest, size = hashlib.sha256(), 0
        try:
            async with self._store.get(row.object_key) as pieces:
                async for piece in pieces:
                    digest.update(piece)
                    size += len(piece)
                    await anyio.lowlevel.checkpoint()
        except ObjectMissing:
            return "missing"
        except StoreDown:
            await self._store.check()  # the store is gone: no verdict on its objects; else this one cannot be read
            return "unreadable"
        if size != row.size:
            return f"{size} bytes instead of {row.size}"
        return None if digest.digest() == row.sha256 else "other bytes (SHA-256 differs)"

    async def _is_current(self, row: care.ObjectRow) -> bool:
        """Aborted or replaced while we read: then its object is rightly gone."""
        async with self._database.connection() as conn:
            return bool(await care.find_named(conn, object_keys=[row.object_key]))
