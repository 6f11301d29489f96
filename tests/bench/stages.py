"""Which rows are measured, on which server, and how long each may take."""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench import (
    rows_after,
    rows_cpu,
    rows_drive,
    rows_growth,
    rows_limit,
    rows_memory,
    rows_naive,
    rows_out,
    rows_storm,
)
from tests.bench.bench import Row


@dataclass(frozen=True)
class Entry:
    """A row, and the longest it may take before it counts as failed."""

    key: str
    measure: Row
    seconds: float
    stores: tuple[str, ...] = ("disk", "s3")


@dataclass(frozen=True)
class Stage:
    """Rows that share one server; `wrapper` comes before its command."""

    name: str
    settings: dict[str, str]
    entries: tuple[Entry, ...]
    wrapper: tuple[str, ...] = ()
    settles: bool = True  # use everything once before the first row


AFTER = Entry("after", rows_after.after_everything, 90)
STAGES = (
    Stage(
        "defaults",
        {},
        (
            Entry("idle", rows_memory.idle, 30),
            Entry("raw", rows_memory.raw, 150),
            Entry("json", rows_memory.json_base64, 150),
            Entry("multipart", rows_memory.multipart, 150),
            Entry("storm", rows_storm.storm, 600),
            Entry("declared", rows_memory.declared_giants, 150),
            Entry("slow-readers", rows_out.slow_readers, 180),
            Entry("stalled-readers", rows_out.stalled_readers, 180),
            Entry("vanishing-readers", rows_out.vanishing_readers, 180),
            Entry("cpu-in", rows_cpu.bytes_in, 400),
            Entry("cpu-out", rows_cpu.bytes_out, 400),
            Entry("small", rows_cpu.small_chunks, 400),
            Entry("listing", rows_drive.listing, 120),
            Entry("access", rows_drive.access_check, 60),
            Entry("naive", rows_naive.naive, 900, ("s3",)),
            AFTER,
        ),
    ),
    # Only a chunk that has a place is read until it proves too large: this crowd gets a place each.
    Stage(
        "200 places",
        rows_growth.SETTINGS,
        (
            Entry("unsized", rows_memory.endless_chunked, 180),
            Entry("growth-uploads", rows_growth.uploads, 240),
            AFTER,
        ),
    ),
    *(
        Stage(name, rows_growth.SETTINGS, (Entry("growth-connections", row, 120), AFTER))
        for name, row in (
            ("idle connections", rows_growth.idle_connections),
            ("unfinished heads", rows_growth.unfinished_connections),
            ("refused connections", rows_growth.refused_connections),
        )
    ),
    # A server of its own: what a crowd of five thousand leaves behind is no zero for other rows.
    Stage("5000 connections", {"PROBE_PORT": "0"}, (Entry("five-thousand", rows_storm.five_thousand, 150), AFTER)),
    Stage("256 MiB", {}, (Entry("limit", rows_limit.storm_within_limit, 180),), rows_limit.WRAPPER, settles=False),
)
