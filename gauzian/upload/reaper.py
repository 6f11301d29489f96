"""Uploads nobody finished, objects nobody names.

A round removes uploads that were not touched for their time, finishes removals that were interrupted, and forgets old
tombstones, tokens and registrations. A sweep lists the whole store and removes what no row names. One process at a
time does either, by an advisory lock.

A sweep deletes what the database does not know: run against the wrong database it would delete everything. So each
database marks the store it belongs to with an object named after itself, and a sweep touches no store without that
mark.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import anyio

from gauzian.database import accounts, care, chunks, registrations, trash
from gauzian.database.pool import Database
from gauzian.errors import ApiError
from gauzian.metrics import Metrics
from gauzian.stores.base import ListedObject, ObjectStore
from gauzian.upload.removal import Removal

log = logging.getLogger(__name__)

_LOCK = 0x6761757A  # "gauz": any number no other program uses on this database
_BATCH = 500
_MARK = "instance."
_OUR_KEY = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\.[0-9a-f]{32}")


@dataclass(slots=True)
class Report:
    """What a round or a sweep has done, or would have done."""

    elsewhere: bool = False  # another process is at it
    uploads: int = 0  # unfinished ones, and files that were removed while nobody saw to their objects
    trashed: int = 0  # files and folders out of the trash
    objects: int = 0
    object_bytes: int = 0
    refused: str | None = None  # why the sweep touched nothing
    examples: list[str] = field(default_factory=list)  # the first few keys

    def line(self) -> str:
        if self.elsewhere:
            return "another process is reaping"
        swept = (
            f"sweep refused: {self.refused}"
            if self.refused
            else f"{self.objects} objects ({self.object_bytes} bytes) without a row"
        )
        trashed = f", {self.trashed} things from the trash" if self.trashed else ""
        return f"{self.uploads} unfinished uploads, {swept}{trashed}"


class Reaper:
    def __init__(
        self,
        *,
        database: Database,
        store: ObjectStore,
        removal: Removal,
        metrics: Metrics,
        ttl: timedelta,
        orphan_grace: timedelta,
        trash_ttl: timedelta | None = None,
    ) -> None:
        """`trash_ttl` None: what lies in the trash stays there."""
        self._database = database
        self._store = store
        self._removal = removal
        self._metrics = metrics
        self._ttl = ttl
        self._orphan_grace = orphan_grace
        self._trash_ttl = trash_ttl

    async def reap(self, *, sweep: bool, dry_run: bool = False) -> Report:
        """One round, and the sweep if asked for. `dry_run` only counts."""
        report, status = Report(), "failed"
        try:
            async with self._database.advisory_lock(_LOCK) as ours:
                if ours:
                    await self._round(report, dry_run=dry_run)
                    if sweep:
                        await self._sweep(report, dry_run=dry_run)
                else:
                    report.elsewhere = True
            status = "success"
        finally:
            self._metrics.reaper_rounds.labels(status).inc()
        return report

    async def claim_store(self) -> str | None:
        """Mark an empty store as this database's. Returns why it is not ours, None if it is."""
        async with self._database.connection() as conn:
            instance = await care.find_instance(conn)
        marks = [item.key async for item in self._store.list(_MARK)]
        if marks:
            return None if marks == [f"{_MARK}{instance}"] else "the store belongs to another database"
        async for item in self._store.list():
            if _OUR_KEY.fullmatch(item.key):
                return "the store holds chunks but no mark of a database"
        await self._store.put(f"{_MARK}{instance}", _one_piece(str(instance).encode()), size=36)
        return None

    async def adopt_store(self) -> None:
        """Mark the store as this database's whatever it says: for an operator who has restored a back-up and knows."""
        async with self._database.connection() as conn:
            instance = await care.find_instance(conn)
        await self._store.delete_quietly([item.key async for item in self._store.list(_MARK)])
        await self._store.put(f"{_MARK}{instance}", _one_piece(str(instance).encode()), size=36)

    async def _round(self, report: Report, *, dry_run: bool) -> None:
        """To the end, page by page: clients may leave more behind than one page per round would ever take away."""
        if dry_run:
            async with self._database.connection() as conn:
                report.uploads += await care.count_removable(conn, ttl=self._ttl)
                if self._trash_ttl is not None:
                    report.trashed += await trash.count_expired(conn, ttl=self._trash_ttl)
            return
        await self._expire_trash(report)
        while await self._remove_page(report):
            pass
        async with self._database.connection() as conn:
            while await care.remove_tombstones(conn, ttl=self._ttl, most=_BATCH) >= _BATCH:
                pass
            while await accounts.remove_expired_tokens(conn, limit=_BATCH) >= _BATCH:
                pass
            while await registrations.remove_expired(conn, limit=_BATCH) >= _BATCH:
                pass

    async def _expire_trash(self, report: Report) -> None:
        """Its files are aborted uploads from here on: the pages that follow remove their chunks."""
        if self._trash_ttl is None:
            return
        removed = _BATCH
        while removed >= _BATCH:
            async with self._database.transaction() as conn:
                removed = await trash.purge_expired(conn, ttl=self._trash_ttl, most=_BATCH)
            report.trashed += removed

    async def _remove_page(self, report: Report) -> bool:
        """Whether there may be another: this one was full, and something could be removed, so the next is another."""
        async with self._database.connection() as conn:
            untouched = await care.list_untouched(conn, ttl=self._ttl, most=_BATCH)
            halves = await care.list_half_removed(conn, most=_BATCH)
        before = report.uploads
        for file_id in untouched:
            if await self._expire(file_id):
                report.uploads += 1
                self._metrics.reaped_uploads.inc()
                await self._removal.remove_objects(file_id)
        for file_id in halves:
            report.uploads += 1
            await self._removal.remove_objects(file_id)
        return report.uploads > before and _BATCH in (len(untouched), len(halves))

    async def _expire(self, file_id: UUID) -> bool:
        """Abort one upload unless something has happened to it since we asked."""
        async with self._database.transaction() as conn:
            upload = await chunks.lock_upload(conn, file_id=file_id)
            if upload is None or upload.state != "uploading" or upload.last_activity > datetime.now(UTC) - self._ttl:
                return False
            await chunks.mark_aborted(conn, file_id=file_id)
        log.info("unfinished upload removed", extra={"file_id": str(file_id)})
        return True

    async def _sweep(self, report: Report, *, dry_run: bool) -> None:
        report.refused = await self.claim_store()
        if report.refused:
            log.error("sweep refused: %s", report.refused)
            return
        youngest = datetime.now(UTC) - self._orphan_grace
        batch: list[ListedObject] = []
        async for item in self._store.list():
            # A key that is not of our making is not ours to remove, whoever shares the bucket with us.
            if _OUR_KEY.fullmatch(item.key) and item.modified < youngest:
                batch.append(item)
            if len(batch) >= _BATCH:
                await self._sweep_batch(batch, report, dry_run=dry_run)
                batch.clear()
        await self._sweep_batch(batch, report, dry_run=dry_run)

    async def _sweep_batch(self, batch: list[ListedObject], report: Report, *, dry_run: bool) -> None:
        if not batch:
            return
        async with self._database.connection() as conn:
            named = await care.find_named(conn, object_keys=[item.key for item in batch])
        orphans = [item for item in batch if item.key not in named]
        report.objects += len(orphans)
        report.object_bytes += sum(item.size for item in orphans)
        report.examples += [item.key for item in orphans[: 5 - len(report.examples)]]
        if orphans and not dry_run:
            removed = await self._store.delete_quietly([item.key for item in orphans])
            self._metrics.reaped_objects.inc(removed)


async def _one_piece(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


async def keep_reaping(reaper: Reaper, *, every: timedelta, sweep_every: timedelta) -> None:
    """Reap for ever, as a background task of the service. The first sweep comes with the first round: a service that is
    restarted every day would never sweep otherwise.
    """
    next_sweep = anyio.current_time()
    while True:
        # Jitter, so that replicas started together do not ask at the same moment.
        await anyio.sleep(every.total_seconds() * random.uniform(0.8, 1.2))  # noqa: S311
        sweep = anyio.current_time() >= next_sweep
        try:
            report = await reaper.reap(sweep=sweep)
        except ApiError as error:
            log.warning("reaping failed, trying again next time: %s", error)
            continue
        except Exception:  # nobody waits for this task: it would be gone without a word, and litter stay for ever
            log.exception("reaping failed, trying again next time")
            continue
        if sweep and not report.elsewhere:
            next_sweep = anyio.current_time() + sweep_every.total_seconds()
        if report.uploads or report.trashed or report.objects:
            log.info("reaped: %s", report.line())
