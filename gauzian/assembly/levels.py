"""What the parts, the machine and the server tell when Prometheus asks."""

from __future__ import annotations

import asyncio
import math
import os
import platform
from functools import partial
from pathlib import Path

from gauzian import __version__, budget
from gauzian.assembly.parts import Parts, load_of
from gauzian.metrics import Metrics
from gauzian.server.serve import Server
from gauzian.settings import Settings


def show_parts(parts: Parts, settings: Settings) -> None:
    level = parts.metrics.level
    uploads, downloads = parts.upload_gate, parts.download_gate
    level("gauzian_upload_places_taken", "Chunk uploads going on", lambda: uploads.taken)
    level("gauzian_upload_places", "Chunk uploads that may go on at once", lambda: uploads.places)
    level("gauzian_download_places_taken", "Downloads going on", lambda: downloads.taken)
    level("gauzian_download_places", "Downloads that may go on at once", lambda: downloads.places)
    version, python = __version__, platform.python_version()
    level("gauzian_build_info", "Which version this is", lambda: 1, version=version, python=python)
    _show_memory(parts.metrics, settings)
    _show_disk(parts, settings)


def _show_memory(metrics: Metrics, settings: Settings) -> None:
    ceiling, limit = budget.ceiling(load_of(settings)), budget.memory_limit() or _memory_of_machine()
    metrics.level("gauzian_memory_ceiling_bytes", "What these settings can come to", lambda: ceiling)
    metrics.level("gauzian_memory_limit_bytes", "Memory limit of its cgroup, else all of the machine", lambda: limit)


def _memory_of_machine() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _show_disk(parts: Parts, settings: Settings) -> None:
    """`data`: embedded PostgreSQL and disk store; `spool`: bodies without a known length. Often the same disk."""
    level = parts.metrics.level
    for use, place in (("data", settings.data_dir), ("spool", parts.spool_dir)):
        level("gauzian_disk_free_bytes", "Free space where it writes", partial(_free_bytes, place), use=use)
        level("gauzian_disk_size_bytes", "Size of the disk where it writes", partial(_size_bytes, place), use=use)


def _free_bytes(place: Path) -> float:
    """As an unprivileged process counts: the reserve of the super-user is not free."""
    disk = _disk_of(place)
    return math.nan if disk is None else disk.f_bavail * disk.f_frsize


def _size_bytes(place: Path) -> float:
    disk = _disk_of(place)
    return math.nan if disk is None else disk.f_blocks * disk.f_frsize


def _disk_of(place: Path) -> os.statvfs_result | None:
    """None where there is no such directory: with PostgreSQL and S3 elsewhere DATA_DIR may not exist."""
    try:
        return os.statvfs(place)
    except OSError:
        return None


def show_server(metrics: Metrics, server: Server) -> None:
    """The numbers of our own server, where it is the one that serves."""
    level, total = metrics.level, metrics.total
    level("gauzian_tasks", "Tasks of the event loop", lambda: len(asyncio.all_tasks()))
    level("gauzian_connections_open", "Open connections", lambda: server.open_connections)
    level(
        "gauzian_connections_lingering",
        "Refused clients that are still sending",
        lambda: server.lingering_connections,
    )
    level("gauzian_event_loop_lag_seconds", "How late the event loop was, last look", lambda: server.loop_lag_seconds)
    level("gauzian_event_loop_worst_lag_seconds", "The worst of the last minute", lambda: server.worst_loop_lag_seconds)
    total("gauzian_connections_accepted", "Connections accepted", lambda: server.accepted_total)
    total("gauzian_accept_pauses", "Times nobody was let in: MAX_CONNECTIONS open", lambda: server.accept_pauses_total)
    total("gauzian_swallowed_bytes", "Bytes of refused bodies thrown away", lambda: server.swallowed_bytes_total)
    total("gauzian_slow_heads_cut", "Clients cut for a slow request head", lambda: server.slow_heads_total)
    total("gauzian_stalled_writes_cut", "Clients cut for not reading their answer", lambda: server.stalled_writes_total)
