"""Rows about memory on the way in: at rest, a full house, bodies that are too large."""

from __future__ import annotations

import time
from dataclasses import asdict

from tests.bench.account import User
from tests.bench.bench import Bench, Line, answers, plus
from tests.bench.payload import GB, MIB
from tests.bench.plan import Group, Outcome
from tests.bench.proc import MemoryWatch

FULL_HOUSE = 50
CROWD = 200


def idle(bench: Bench) -> list[Line]:
    figures = {"idle_mib": bench.idle_mib, "used_mib": bench.used_mib}
    note = "before the first request: the zero of all rows; "
    note += f"{plus(bench.used_mib - bench.idle_mib)} at rest after everything was used once"
    return [Line("idle", f"{bench.idle_mib:.1f} MiB", "≤ 72 MiB", bench.idle_mib <= 72, note, figures)]


def raw(bench: Bench) -> list[Line]:
    return _full_house(bench, "50 × 10 MiB at once, raw", bench.pick(disk=36, s3=24), User.raw_chunks)


def json_base64(bench: Bench) -> list[Line]:
    return _full_house(bench, "50 × 10 MiB at once, JSON/base64", 56, User.json_chunks)


def multipart(bench: Bench) -> list[Line]:
    return _full_house(bench, "50 × 10 MiB at once, multipart", 56, User.multipart_chunks)


def _full_house(bench: Bench, title: str, most_mib: float, chunks: object) -> list[Line]:
    assert callable(chunks)
    with bench.uploads(FULL_HOUSE) as files:
        groups: list[Group] = [chunks(user, file_id, clients) for user, file_id, clients in files]
        with MemoryWatch(bench.server.pid, every_seconds=0.05) as watch:
            outcome = bench.run(*groups, deadline_seconds=90)
        time.sleep(3)
        later = bench.over_idle(0.3)
    peak = bench.peak_over_idle(watch)
    holds = peak <= most_mib and outcome.answered_all and outcome.read(200) == FULL_HOUSE
    note = f"{plus(later)} after 3 s; {answers(outcome)} in {outcome.seconds:.1f} s"
    figures = {"peak_mib": peak, "after_3s_mib": later, **asdict(outcome)}
    return [Line(title, f"peak {plus(peak)}", f"≤ {plus(most_mib)}", holds, note, figures)]


# -- too large


def declared_giants(bench: Bench) -> list[Line]:
    """Clients with 1 GB to send that stop as soon as they see the answer."""
    with bench.uploads(CROWD, GB) as files:
        groups = [
            user.raw_chunks(file_id, clients, payload=GB, declared=GB, watch=True) for user, file_id, clients in files
        ]
        return _refused(bench, f"{CROWD} × declared 1 GB, watching for the answer", groups)


def endless_chunked(bench: Bench) -> list[Line]:
    """Clients that do not say how much comes, and send 20 MiB before they look."""
    size = 20 * MIB
    with bench.uploads(CROWD, size) as files:
        groups = [user.raw_chunks(file_id, clients, payload=size, chunked=True) for user, file_id, clients in files]
        return _refused(bench, f"{CROWD} × 20 MiB without a length, all sent first", groups, "each has a place; ")


def _refused(bench: Bench, title: str, groups: list[Group], note: str = "") -> list[Line]:
    with MemoryWatch(bench.server.pid, every_seconds=0.05) as watch:
        outcome: Outcome = bench.run(*groups, deadline_seconds=90)
    peak = bench.peak_over_idle(watch)
    count = outcome.read(413)
    note += f"{answers(outcome)} in {outcome.seconds:.1f} s, {outcome.sent_bytes / GB:.2f} GB sent"
    holds = count == CROWD and outcome.answered_all and peak <= 32
    measured = f"{count} × 413, peak {plus(peak)}"
    return [Line(title, measured, f"{CROWD} × 413, ≤ +32 MiB", holds, note, {"peak_mib": peak, **asdict(outcome)})]
