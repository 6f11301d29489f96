"""Where the parts are opened: everything that does I/O, in order, closed in reverse."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import anyio

from gauzian import budget
from gauzian.accounts.identity import Identity
from gauzian.accounts.passwords import Passwords
from gauzian.database.embedded import embedded_postgres
from gauzian.database.migrate import migrate
from gauzian.database.pool import Database, open_database
from gauzian.download.gate import DownloadGate
from gauzian.metrics import Metrics
from gauzian.settings import Settings
from gauzian.stores.base import ObjectStore
from gauzian.stores.disk import open_disk
from gauzian.stores.threads import FileThreads
from gauzian.upload.gate import UploadGate
from gauzian.upload.reaper import Reaper, keep_reaping
from gauzian.upload.removal import Removal
from gauzian.upload.scrub import Scrub
from gauzian.upload.standing import Standing, keep_looking
from gauzian.web.drain import Draining

log = logging.getLogger(__name__)

# A cancelled round gives its connection back and shields at most one removal of objects.
_REAPER_STOPS_SECONDS = 10.0
# One statement that reads an index and a row per user: cheap, and numbers for alerts that wait for minutes anyway.
_LOOK_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What `open_parts` has opened; `compose` (urls.py) joins it."""

    metrics: Metrics
    database: Database
    store: ObjectStore
    threads: FileThreads
    spool_dir: Path
    identity: Identity
    passwords: Passwords
    upload_gate: UploadGate
    download_gate: DownloadGate
    removal: Removal
    reaper: Reaper
    scrub: Scrub
    standing: Standing
    draining: Draining


def load_of(settings: Settings) -> budget.Load:
    """As much of everything as these settings allow at once."""
    uploads = settings.max_concurrent_uploads
    tls = settings.tls_cert is not None
    if not isinstance(uploads, int):
        uploads = budget.places_within(
            budget.memory_limit(),
            downloads=settings.max_concurrent_downloads,
            connections=settings.max_connections,
            password_checks=settings.password_checks,
            tls=tls,
        )
    return budget.Load(
        uploads, settings.max_concurrent_downloads, settings.max_connections, settings.password_checks, tls
    )


@asynccontextmanager
async def migrated_database(settings: Settings, *, migrations: Path) -> AsyncIterator[tuple[str, list[str]]]:
    """The URL of a database whose schema is up to date, and the migrations applied just now."""
    async with AsyncExitStack() as stack:
        url = settings.database_url
        if url is None:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
            url = await stack.enter_async_context(embedded_postgres(settings.data_dir))
        yield url, await migrate(url, migrations)


@asynccontextmanager
async def open_parts(settings: Settings, *, migrations: Path, background: bool = True) -> AsyncIterator[Parts]:
    """Open everything; `background`: reap while it is open, as the service does."""
    metrics = Metrics(legacy_names=settings.metrics_legacy_names)
    load = load_of(settings)
    log.info("memory ceiling: %s", budget.told(load))
    if (words := budget.misfit(load, budget.memory_limit())) is not None:
        log.warning("%s", words)
    async with AsyncExitStack() as stack:
        url, _ = await stack.enter_async_context(migrated_database(settings, migrations=migrations))
        database = await stack.enter_async_context(
            open_database(
                url,
                most_connections=settings.database_connections,
                wait_seconds=settings.database_wait_seconds,
                metrics=metrics,
            )
        )
        threads = await stack.enter_async_context(FileThreads(settings.store_threads))
        spool_dir = settings.spool_dir or settings.data_dir / "tmp"
        await anyio.Path(spool_dir).mkdir(parents=True, exist_ok=True)
        store = await stack.enter_async_context(_open_store(settings, threads, spool_dir, metrics))
        parts = _make_parts(settings, load, metrics, database, store, threads, spool_dir)
        if background:
            await stack.enter_async_context(_caring(parts, settings))
        yield parts


def _make_parts(
    settings: Settings,
    load: budget.Load,
    metrics: Metrics,
    database: Database,
    store: ObjectStore,
    threads: FileThreads,
    spool_dir: Path,
) -> Parts:
    removal = Removal(database=database, store=store)
    return Parts(
        metrics=metrics,
        database=database,
        store=store,
        threads=threads,
        spool_dir=spool_dir,
        identity=Identity(database, cookie_auth=settings.cookie_auth, allowed_origins=settings.cors_origins),
        passwords=Passwords(at_once=settings.password_checks),
        upload_gate=UploadGate(
            places=load.uploads,
            per_user=settings.max_uploads_per_user or max(1, load.uploads // 2),
            busy_status=settings.uploads_busy_status,
            metrics=metrics,
        ),
        download_gate=DownloadGate(places=load.downloads, metrics=metrics),
        removal=removal,
        reaper=Reaper(
            database=database,
            store=store,
            removal=removal,
            metrics=metrics,
            ttl=timedelta(hours=settings.upload_ttl_hours),
            trash_ttl=timedelta(days=settings.trash_days) if settings.trash_days else None,
            orphan_grace=timedelta(hours=settings.orphan_grace_hours),
        ),
        scrub=Scrub(database=database, store=store),
        standing=Standing(
            database=database,
            metrics=metrics,
            # Its time, and two rounds of the reaper to notice it.
            overdue=timedelta(hours=settings.upload_ttl_hours, seconds=2 * settings.reap_interval_seconds),
        ),
        draining=Draining(),
    )


def _open_store(
    settings: Settings, threads: FileThreads, spool_dir: Path, metrics: Metrics
) -> AbstractAsyncContextManager[ObjectStore]:
    if settings.s3_endpoint is None:
        return open_disk(settings.data_dir / "store", threads=threads, metrics=metrics)
    # Here and not above: aiohttp and what it needs are 19 MiB that a service on a disk never uses.
    from gauzian.stores.s3 import open_s3

    return open_s3(
        endpoint=settings.s3_endpoint,
        access_key=settings.s3_access_key or "",
        secret_key=settings.s3_secret_key or "",
        bucket=settings.s3_bucket,
        region=settings.s3_region,
        spool_dir=spool_dir,
        threads=threads,
        connect_seconds=settings.s3_connect_seconds,
        read_seconds=settings.s3_read_seconds,
        metrics=metrics,
    )


@asynccontextmanager
async def _caring(parts: Parts, settings: Settings) -> AsyncIterator[None]:
    """What goes on in the background: reaping, and looking up what operators ask."""
    refused = await parts.reaper.claim_store()
    if refused is not None:
        log.error("%s: nothing in it will be swept; `python app.py reap --adopt-store` if that is meant", refused)
    every, sweep_every = (
        timedelta(seconds=settings.reap_interval_seconds),
        timedelta(hours=settings.sweep_interval_hours),
    )
    # Tasks and not a task group: that would put whatever ends the service into an ExceptionGroup.
    tasks = [
        asyncio.create_task(keep_reaping(parts.reaper, every=every, sweep_every=sweep_every)),
        asyncio.create_task(keep_looking(parts.standing, every=_LOOK_EVERY)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_REAPER_STOPS_SECONDS)
