"""The bench's end of a load driver: start it, let it go, stop it, read what it counted."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.bench.plan import Group, Outcome, Plan

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0
# Beyond the plan's own deadline, which the driver keeps by itself.
GRACE_SECONDS = 15.0


class Load:
    """One driver process, prepared on entry and certainly gone on exit."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.groups: dict[str, Outcome] = {}

    def __enter__(self) -> Load:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.driver"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._say(self.plan.to_json())
        if self._line(START_SECONDS) != b"ready\n":
            raise RuntimeError("the load driver did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def go(self) -> None:
        self._began = time.monotonic()
        self._say("go")

    def stop(self) -> None:
        """Enough for groups that run until they are stopped; what is on its way is still counted."""
        self._say("stop")

    def result(self) -> Load:
        """Wait for the end and read the numbers."""
        line = self._line(self.plan.deadline_seconds + GRACE_SECONDS)
        if not line:
            raise RuntimeError("the load driver gave no result")
        told: dict[str, Any] = json.loads(line)
        self.seconds, self.cpu_seconds = told["seconds"], told["cpu_seconds"]
        self.groups = {name: Outcome(**fields) for name, fields in told["groups"].items()}
        return self

    def _say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode() + b"\n")

    def _line(self, seconds: float) -> bytes:
        assert self._process.stdout is not None
        line, until = b"", time.monotonic() + seconds
        while not line.endswith(b"\n"):
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            piece = self._process.stdout.read(65536) if readable else b""
            if not piece:
                return b""
            line += piece
        return line


def merged(outcomes: dict[str, Outcome]) -> Outcome:
    """Several groups as one: counts are added, times are the worst."""
    total = Outcome()
    for outcome in outcomes.values():
        for counts, more in ((total.statuses, outcome.statuses), (total.unread, outcome.unread)):
            for key, count in more.items():
                counts[key] = counts.get(key, 0) + count
        for name in ("started", "cut", "wrong", "left", "reconnects", "sent_bytes", "received_bytes"):
            setattr(total, name, getattr(total, name) + getattr(outcome, name))
        for name in ("seconds", "p50_ms", "p90_ms", "p99_ms", "max_ms"):
            setattr(total, name, max(getattr(total, name), getattr(outcome, name)))
    return total


def drive(port: int, *groups: Group, deadline_seconds: float) -> Load:
    """Run these groups to their end."""
    with Load(Plan(port, groups, deadline_seconds)) as load:
        load.go()
        return load.result()
