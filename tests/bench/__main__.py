"""`python -m tests.bench`: measures every row on each store, prints the table, writes .bench/bench.json.

Beside it: figures.md, the table for README, and memory.svg, the picture. Exits 1 if a row fails; a goal missed is told.

--store disk|s3     only this store                 --only WORD   only rows whose name contains it (may be given again)
--quick             fewer rounds, shorter waits     --json FILE   another file
--picture FILE      where the picture goes: memory.svg beside the JSON
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

from tests.bench.bench import Bench, Line, Record
from tests.bench.load import ROOT
from tests.bench.machine import COMMAND, running_server, store_settings
from tests.bench.payload import GB
from tests.bench.picture import draw
from tests.bench.report import closing, figures_table
from tests.bench.stages import STAGES, Entry, Stage
from tests.bench.table import heading, render

TOTAL_SECONDS = 45 * 60.0
SETTLE_SECONDS = 180.0
# The most that lies on the disk at once is one storm's accepted chunks or one round of CPU per GB; half of this.
FREE_BYTES = 8 * GB


@dataclass
class Options:
    stores: list[str]
    only: list[str]
    quick: bool
    json: Path
    picture: Path
    command: tuple[str, ...]
    work: Path
    until: float

    def wanted(self, stage: Stage, store: str) -> list[Entry]:
        entries = [entry for entry in stage.entries if store in entry.stores]
        if not self.only:
            return entries
        return [entry for entry in entries if any(word in entry.key for word in self.only)]

    @classmethod
    def parse(cls, arguments: list[str]) -> Options:
        parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__, add_help=True)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.add_argument("--store", action="append", choices=["disk", "s3"])
        parser.add_argument("--only", action="append", default=[])
        parser.add_argument("--quick", action="store_true")
        parser.add_argument("--json", type=Path, default=ROOT / ".bench" / "bench.json")
        parser.add_argument("--picture", type=Path)
        parser.add_argument("--command", type=shlex.split, default=COMMAND, help=argparse.SUPPRESS)
        given = parser.parse_args(arguments)
        given.json.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix="work-", dir=given.json.parent))
        until = time.monotonic() + TOTAL_SECONDS
        stores = given.store or ["disk", "s3"]
        picture = given.picture or given.json.with_name("memory.svg")
        picture.parent.mkdir(parents=True, exist_ok=True)
        return cls(stores, given.only, given.quick, given.json, picture, tuple(given.command), work, until)


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


def run_stage(
    stage: Stage, entries: list[Entry], store: str, settings: dict[str, str], options: Options, record: Record
) -> list[Line]:
    """All rows of one server. What keeps them from running is a verdict on each of them."""
    lines: list[Line] = []
    waiting = list(entries)
    command = stage.wrapper + options.command
    try:
        with running_server(settings | stage.settings, work=options.work, command=command, name=store) as server:
            bench = Bench(store, server, options.quick, settings, options.work, record)
            with time_limit(SETTLE_SECONDS):
                bench.settle() if stage.settles else bench.begin()
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
        record = Record()
        results = {store: run_store(store, options, record) for store in options.stores}
    finally:
        shutil.rmtree(options.work, ignore_errors=True)
    figures: dict[str, object] = {"machine": machine(), "quick": options.quick}
    figures |= {store: [asdict(line) for line in lines] for store, lines in results.items()}
    figures["curves"] = {name: asdict(curve) for name, curve in record.curves.items()}
    options.json.write_text(json.dumps(figures))
    written = [options.json, options.json.with_name("figures.md")]
    written[1].write_text(figures_table(results, machine(), quick=options.quick))
    if record.curves:
        try:
            written.append(draw(options.json, options.picture))
        except ImportError:
            print("no picture: it needs requirements-bench.txt", file=sys.stderr)
    print(f"\n{closing(results)}; written: {', '.join(map(str, written))}")
    return 1 if any(line.holds is False for lines in results.values() for line in lines) else 0


def run_store(store: str, options: Options, record: Record) -> list[Line]:
    print(heading(store, machine()), flush=True)
    lines: list[Line] = []
    with store_settings(store) as settings:
        for stage in STAGES:
            if entries := options.wanted(stage, store):
                lines += run_stage(stage, entries, store, settings, options, record)
    return lines


if __name__ == "__main__":
    sys.exit(main())
