"""The end of a soak: the server stops as asked, every stored byte is right, and no object is left that no row names."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.load import ROOT

COMMAND_SECONDS = 300.0
# The grace of the sweep cannot be set below an hour: so the objects are made old instead, and none escapes it.
AGED_SECONDS = 7 * 24 * 3600.0
# The shortest time there is until an upload that somebody forgot is removed: so long the sweep waits.
TTL_HOURS = "0.001"
TTL_SECONDS = 3.7
_SCRUBBED = re.compile(r"^(\d+) objects checked \((\d+) bytes\), (\d+) damaged$", re.MULTILINE)
_REAPED = re.compile(r"^would remove: (\d+) unfinished uploads, (\d+) objects \((\d+) bytes\)", re.MULTILINE)


@dataclass(frozen=True)
class Stored:
    """What must be there, no more and no less."""

    objects: int
    size: int


def complaints_about(
    environment: dict[str, str], store: Path, stored: Stored, *, rclone: subprocess.Popen[bytes] | None = None
) -> list[str]:
    """Run `scrub` and `reap --dry-run` on a server's data after it has stopped. `store`: the objects' directory;
    `rclone`: the S3 server over it.
    """
    stopped = time.monotonic()
    aged = age(objects_below(store))
    if rclone is not None:
        # It keeps what it knows of its files for minutes; this makes it look again.
        rclone.send_signal(signal.SIGHUP)
    found = list(_scrub(environment, stored))
    time.sleep(max(0.0, stopped + TTL_SECONDS - time.monotonic()))
    return [*found, *_sweep(environment), *_count(aged, stored)]


def objects_below(store: Path) -> Iterator[Path]:
    """Every chunk's file; the mark of the database is none."""
    for directory, _, names in os.walk(store):
        yield from (Path(directory, name) for name in names if not name.startswith("instance."))


def age(files: Iterable[Path]) -> int:
    """As if written a week ago. Says how many there were."""
    count, moment = 0, time.time() - AGED_SECONDS
    for file in files:
        os.utime(file, (moment, moment))
        count += 1
    return count


def _scrub(environment: dict[str, str], stored: Stored) -> Iterator[str]:
    code, output = run(environment, "scrub")
    found = _SCRUBBED.search(output)
    if code or found is None:
        yield f"scrub: exit code {code}: {output[-600:]}"
    elif (int(found[1]), int(found[2])) != (stored.objects, stored.size):
        yield f"scrub: {found[0]}, but {stored.objects} objects ({stored.size} bytes) were stored"


def _sweep(environment: dict[str, str]) -> Iterator[str]:
    code, output = run(environment, "reap", "--dry-run")
    found = _REAPED.search(output)
    if code or found is None:
        yield f"reap --dry-run: exit code {code}: {output[-600:]}"
    elif int(found[1]) or int(found[2]):
        yield f"reap --dry-run: {output[output.index(found[0]) :].strip()}"


def _count(aged: int, stored: Stored) -> Iterator[str]:
    """The sweep lists what the store lists; the disk itself must not hold more."""
    if aged != stored.objects:
        yield f"{aged} files in the store's directory, {stored.objects} chunks of finished files"


def run(environment: dict[str, str], *command: str) -> tuple[int, str]:
    settings = environment | {"UPLOAD_TTL_HOURS": TTL_HOURS, "ORPHAN_GRACE_HOURS": "1"}
    ended = subprocess.run(
        [sys.executable, "app.py", *command],
        cwd=ROOT,
        env=settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    return ended.returncode, ended.stdout
