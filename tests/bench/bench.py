"""What every row of the table works with: the server, its users, its memory at rest, and the verdicts so far."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.account import User
from tests.bench.curve import Curve
from tests.bench.load import Load, merged
from tests.bench.machine import Server, wait_for
from tests.bench.payload import CHUNK_BYTES, MIB, make_payload
from tests.bench.plan import Group, Outcome, Plan
from tests.bench.proc import Holdings, MemoryWatch

USERS = 4
# Unwanted memory goes back to the system every five seconds: a row starts from rest, not from its neighbour's leavings.
REST_SECONDS = 6.0
# Connections to the object store are kept this long after their last use, and a little more.
KEPT_CONNECTION_SECONDS = 25.0


@dataclass
class Line:
    """One line of the table. `holds` is None when there is nothing to decide, `reached` when there is no goal."""

    row: str
    measured: str
    must: str
    holds: bool | None
    note: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    goal: str = ""  # stricter than `must`: what we want, not what fails the run
    reached: bool | None = None
    seconds: float = 0.0  # that the row took, with its waits


@dataclass
class Record:
    """What rows of one run tell each other, and the picture: figures to compare with, curves to draw."""

    figures: dict[str, float] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)


@dataclass
class Bench:
    """One store, one server. `settings` and `work` are for rows that start another server beside it."""

    store: str
    server: Server
    quick: bool
    settings: dict[str, str] = field(default_factory=dict, repr=False)
    work: Path = Path()
    record: Record = field(default_factory=Record)
    payload: bytes = field(default_factory=make_payload, repr=False)
    users: list[User] = field(default_factory=list)
    idle_mib: float = 0.0  # after the start, before the first request: the zero of all rows
    used_mib: float = 0.0  # at rest after everything was used once
    before: Holdings | None = None
    levels: dict[str, float] = field(default_factory=dict)

    def pick(self, *, disk: float, s3: float) -> float:
        return s3 if self.store == "s3" else disk

    def begin(self) -> None:
        """Take the zero of all rows; then some uploads, for pools and threads to be as large as they get."""
        time.sleep(2)
        self.idle_mib = self.server.rss_mib()
        self.users = [User.register(self.server.port) for _ in range(USERS)]
        with self.uploads(50) as files:
            self.run(*(user.raw_chunks(file_id, n, payload=MIB) for user, file_id, n in files), deadline_seconds=60)

    def settle(self) -> None:
        """Begin, and use everything else once."""
        self.begin()
        stored = self.users[0].store_file(self.payload, 1)
        self.users[0].call("GET", f"/drive/file/{stored}")
        self.run(self.users[0].downloads(stored, 10), deadline_seconds=60)
        self.users[0].delete_file(stored)
        time.sleep(KEPT_CONNECTION_SECONDS if self.store == "s3" else REST_SECONDS)
        self.used_mib = self.server.rss_mib()
        self.before = Holdings.of(self.server.pid)
        self.levels = self.server.metrics()

    def rest(self) -> None:
        """Wait until the server is as it was, or for as long as it takes memory to go back."""
        wait_for(lambda: self.over_idle(0.0) < 2, 2 if self.quick else REST_SECONDS)

    def over_idle(self, seconds: float = 1.0) -> float:
        return round(self.server.rss_mib(seconds) - self.idle_mib, 1)

    def peak_over_idle(self, watch: MemoryWatch) -> float:
        return round(watch.peak_mib - self.idle_mib, 1)

    @contextlib.contextmanager
    def uploads(self, clients: int, size: int = CHUNK_BYTES) -> Iterator[list[tuple[User, str, int]]]:
        """An open upload for each user, and how many of the clients are theirs; aborted in the end."""
        shares = [clients // USERS + (number < clients % USERS) for number in range(USERS)]
        with contextlib.ExitStack() as stack:
            yield [
                (user, stack.enter_context(user.upload(share * size)), share)
                for user, share in zip(self.users, shares, strict=True)
            ]

    def run(self, *groups: Group, deadline_seconds: float) -> Outcome:
        return merged(self.load(*groups, deadline_seconds=deadline_seconds).groups)

    def load(self, *groups: Group, deadline_seconds: float) -> Load:
        with Load(Plan(self.server.port, groups, deadline_seconds)) as load:
            load.go()
            return load.result()


Row = Callable[[Bench], list[Line]]


def answers(outcome: Outcome) -> str:
    """Counts in words: what was answered, then what was not."""
    parts = [f"{count} × {text.replace('uploads_busy', 'busy')}" for text, count in sorted(outcome.statuses.items())]
    parts += [f"{count} UNREAD ({reason})" for reason, count in sorted(outcome.unread.items())]
    parts += [f"{outcome.cut} CUT SHORT"] * bool(outcome.cut) + [f"{outcome.wrong} WRONG BYTES"] * bool(outcome.wrong)
    return ", ".join(parts) or "nothing"


def plus(mib: float) -> str:
    return f"{mib:+.1f} MiB".replace(".0 ", " ")
