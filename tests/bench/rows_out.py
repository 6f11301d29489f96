"""Rows about memory on the way out: readers that are slow, that stop, that vanish."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from tests.bench.account import DOWNLOAD_BYTES, DOWNLOAD_CHUNKS
from tests.bench.bench import Bench, Line, answers, plus
from tests.bench.machine import wait_for
from tests.bench.payload import MIB
from tests.bench.plan import Group, Outcome
from tests.bench.proc import MemoryWatch


@contextlib.contextmanager
def forty_mib_file(bench: Bench) -> Iterator[str]:
    file_id = bench.users[0].store_file(bench.payload, DOWNLOAD_CHUNKS)
    try:
        yield file_id
    finally:
        bench.users[0].delete_file(file_id)


def slow_readers(bench: Bench) -> list[Line]:
    clients = 50
    # In a quick run they take a quarter and go: what is held for a reader does not depend on how long it reads.
    more: dict[str, Any] = {"read_at_most": DOWNLOAD_BYTES // 4} if bench.quick else {}
    peak, outcome = _downloads(bench, clients, read_rate=MIB, **more)
    whole = outcome.left == clients or outcome.received_bytes == clients * DOWNLOAD_BYTES
    holds = peak <= 64 and whole and outcome.answered_all and outcome.read(200) == clients
    note = f"{answers(outcome)} in {outcome.seconds:.1f} s, every byte compared"
    return [_line("50 downloads of 40 MiB at 1 MiB/s", 64, peak, holds, note, outcome)]


def stalled_readers(bench: Bench) -> list[Line]:
    clients = 20
    seconds = 5 if bench.quick else 15
    peak, outcome = _downloads(bench, clients, read_at_most=MIB, then="hold", hold_seconds=seconds)
    holds = peak <= 16 and outcome.left == clients
    note = f"{outcome.left} read 1 MiB and then nothing for {seconds} s"
    return [_line("20 downloads that stop reading", 16, peak, holds, note, outcome)]


def vanishing_readers(bench: Bench) -> list[Line]:
    clients = 50
    peak, outcome = _downloads(bench, clients, read_at_most=5 * MIB)
    back = wait_for(lambda: bench.over_idle(0.2) <= 16, 10)
    later = bench.over_idle()
    holds = back and later <= 16 and outcome.left == clients
    note = f"peak {plus(peak)}; {outcome.left} went away after 5 MiB, at most 10 s before"
    title, measured = "50 downloads that vanish", f"back to {plus(later)}"
    return [Line(title, measured, "≤ +16 MiB", holds, note, {"peak_mib": peak, "after_mib": later, **asdict(outcome)})]


def _downloads(bench: Bench, clients: int, **behaviour: Any) -> tuple[float, Outcome]:
    with forty_mib_file(bench) as file_id:
        bench.rest()
        group: Group = bench.users[0].downloads(file_id, clients, **behaviour)
        with MemoryWatch(bench.server.pid, every_seconds=0.05) as watch:
            outcome = bench.run(group, deadline_seconds=120)
    return bench.peak_over_idle(watch), outcome


def _line(title: str, most_mib: float, peak: float, holds: bool, note: str, outcome: Outcome) -> Line:
    return Line(title, f"peak {plus(peak)}", f"≤ {plus(most_mib)}", holds, note, {"peak_mib": peak, **asdict(outcome)})
