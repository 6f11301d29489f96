"""`python -m tests.bench`: measures every row on each store, prints the table, writes .bench/bench.json.

Exits 1 if a row fails.

--store disk|s3     only this store                 --only WORD   only rows whose name contains it (may be given again)
--quick             fewer rounds, shorter waits     --json FILE   another file
    --command "..."     another server with the same routes, to compare with
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from tests.bench import rows_after, rows_cpu, rows_memory, rows_out
from tests.bench.bench import Bench, Line, Row
from tests.bench.load import ROOT
from tests.bench.machine import COMMAND, running_server, store_settings
from tests.bench.payload import GB
from tests.bench.table import heading, render

TOTAL_SECONDS = 45 * 60.0
SETTLE_SECONDS = 180.0
# The most that lies on the disk at once is one storm's accepted chunks or one round of CPU per GB; half of this.
FREE_BYTES = 8 * GB


@dataclass(frozen=True)
class Entry:
    """A row, and the longest it may take before it counts as failed."""

    key: str
    measure: Row
    seconds: float


@dataclass(frozen=True)
class Stage:
    """Rows that share one server."""

    name: str
    settings: dict[str, str]
    entries: tuple[Entry, ...]


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
            Entry("storm", rows_memory.storm, 600),
            Entry("declared", rows_memory.declared_giants, 150),
            Entry("slow-readers", rows_out.slow_readers, 180),
            Entry("stalled-readers", rows_out.stalled_readers, 180),
            Entry("vanishing-readers", rows_out.vanishing_readers, 180),
            Entry("cpu-in", rows_cpu.bytes_in, 400),
            Entry("cpu-out", rows_cpu.bytes_out, 400),
            Entry("small", rows_cpu.small_chunks, 400),
            AFTER,
        ),
    ),
    # Only a chunk that has a place is read until it proves too large: this crowd gets a place each.
    Stage(
        "200 places",
        {"MAX_CONCURRENT_UPLOADS": "200", "MAX_UPLOADS_PER_USER": "200"},
        (Entry("unsized", rows_memory.endless_chunked, 180), AFTER),
    ),
)


@dataclass
class Options:
    stores: list[str]
    only: list[str]
    quick: bool
    json: Path
    command: tuple[str, ...]
    work: Path
    until: float

    def wanted(self, stage: Stage) -> list[Entry]:
        if not self.only:
            return list(stage.entries)
        return [entry for entry in stage.entries if any(word in entry.key for word in self.only)]

    @classmethod
    def parse(cls, arguments: list[str]) -> Options:
        parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__, add_help=True)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.add_argument("--store", action="append", choices=["disk", "s3"])
        parser.add_argument("--only", action="append", default=[])
        parser.add_argument("--quick", action="store_true")
        parser.add_argument("--json", type=Path, default=ROOT / ".bench" / "bench.json")
        parser.add_argument("--command", type=shlex.split, default=COMMAND, help=argparse.SUPPRESS)
        given = parser.parse_args(arguments)
        given.json.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix="work-", dir=given.json.parent))
        until = time.monotonic() + TOTAL_SECONDS
        stores = given.store or ["disk", "s3"]
        return cls(stores, given.only, given.quick, given.json, tuple(given.command), work, until)


class TooLong(Exception):
    """A row did not end in its time."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def over(number: int, frame: FrameType | None) -> None:
        raise TooLong(f"not done after {seconds:.0f} s")

    previous = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def measure(bench: Bench, entry: Entry, until: float) -> list[Line]:
    """The lines of one row; what goes wrong is a verdict as well."""
    began = time.monotonic()
    try:
        with time_limit(min(until - began, entry.seconds)):
            bench.rest()
            lines = entry.measure(bench)
    except Exception as error:
        traceback.print_exc()
        died = "" if bench.server.alive else " (the server has died)"
        lines = [Line(entry.key, f"failed{died}", "", False, f"{type(error).__name__}: {error}")]
    for line in lines:
        line.seconds = round(time.monotonic() - began, 1)
    return lines


def run_stage(stage: Stage, entries: list[Entry], store: str, settings: dict[str, str], options: Options) -> list[Line]:
    """All rows of one server. What keeps them from running is a verdict on each of them."""
    lines: list[Line] = []
    waiting = list(entries)
    try:
        with running_server(
            settings | stage.settings, work=options.work, command=options.command, name=store
        ) as server:
            bench = Bench(store, server, options.quick)
            with time_limit(SETTLE_SECONDS):
                bench.settle()
            while waiting and server.alive and time.monotonic() < options.until:
                lines += told(measure(bench, waiting.pop(0), options.until), stage)
            why = "out of time" if server.alive else "the server has died"
    except Exception as error:
        traceback.print_exc()
        why = f"{type(error).__name__}: {error}"
    return lines + told([Line(entry.key, "not run", "", False, why) for entry in waiting], stage)


def told(lines: list[Line], stage: Stage) -> list[Line]:
    for line in lines:
        line.row += "" if stage is STAGES[0] else f" ({stage.name})"
        print(render(line), flush=True)
    return lines


def machine() -> str:
    """Where the figures come from; a machine that was busy before we began measures something else."""
    kernel, python, busy = platform.release(), platform.python_version(), os.getloadavg()[0]
    return f"{os.cpu_count()} CPUs, {platform.machine()}, Linux {kernel}, Python {python}, load before {busy:.1f}"


def main() -> int:
    options = Options.parse(sys.argv[1:])
    # Asked to end, it ends what it started, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if shutil.disk_usage(options.work).free < FREE_BYTES:
            print(f"needs {FREE_BYTES / GB:.0f} GB free at {options.work}", file=sys.stderr)
            return 2
        results = {store: run_store(store, options) for store in options.stores}
    finally:
        shutil.rmtree(options.work, ignore_errors=True)
    figures: dict[str, object] = {"machine": machine(), "quick": options.quick}
    figures |= {store: [asdict(line) for line in lines] for store, lines in results.items()}
    options.json.write_text(json.dumps(figures, indent=1))
    failed = [line.row for lines in results.values() for line in lines if line.holds is False]
    print(f"\n{len(failed)} of {sum(map(len, results.values()))} lines fail; figures in {options.json}")
    return 1 if failed else 0


def run_store(store: str, options: Options) -> list[Line]:
    print(heading(store, machine()), flush=True)
    lines: list[Line] = []
    with store_settings(store) as settings:
        for stage in STAGES:
            if entries := options.wanted(stage):
                lines += run_stage(stage, entries, store, settings, options)
    return lines


if __name__ == "__main__":
    sys.exit(main())
