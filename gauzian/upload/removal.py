"""Taking an aborted upload apart: rows first, then objects, a bounded number at a time."""

from __future__ import annotations

from uuid import UUID

from gauzian.database import chunks
from gauzian.database.pool import Database
from gauzian.stores.base import ObjectStore

# Rows taken per statement: their keys are in memory until their objects are gone.
_BATCH = 500


class Removal:
    """Shared by abort and reaper. Interrupted at any point it leaves rows for the next round or objects for the sweep,
    never a row whose object is gone.
    """

    def __init__(self, *, database: Database, store: ObjectStore) -> None:
        self._database = database
        self._store = store

    async def remove_objects(self, file_id: UUID) -> int:
        """Remove the chunks of an upload that is marked aborted. Returns how many."""
        removed = 0
        while True:
            async with self._database.connection() as conn:
                keys = await chunks.take_chunks(conn, file_id=file_id, most=_BATCH)
            if not keys:
                return removed
            await self._store.delete_quietly(keys)
            removed += len(keys)
