"""A soak from the server's start to the last object: settle in, work and rest by turns, stop, look at what is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.machine import Server, running_server
from tests.bench.payload import MIB
from tests.rclone import S3Address, running_s3
from tests.soak import closing
from tests.soak.crew import Crew, abort_unfinished, settle_in
from tests.soak.ledger import Ledger
from tests.soak.watch import Watch
from tests.soak.world import SETTINGS, Stock, World

BUCKET = "gauzian-soak"
MOST_BYTES = 2048 * MIB  # on the disk, all together


@dataclass(frozen=True)
class Course:
    """How long it goes, and by which turns: seconds of work, then seconds of stillness before anybody looks."""

    seconds: float
    seed: int
    work_seconds: float
    rest_seconds: float


@dataclass(frozen=True)
class Place:
    """Where a server keeps its objects: settings for it, the directory they lie in, the S3 server if there is one."""

    settings: dict[str, str]
    objects: Path | None = None
    s3: S3Address | None = None


@contextlib.contextmanager
def place_for(store: str) -> Iterator[Place]:
    if store == "disk":
        yield Place({})
        return
    with running_s3(remembering=False) as s3:  # its last sweep must find nothing
        settings = {"S3_ENDPOINT": s3.endpoint, "S3_ACCESS_KEY": s3.access_key, "S3_SECRET_KEY": s3.secret_key}
        yield Place(settings | {"S3_BUCKET": BUCKET}, s3.data_dir / BUCKET, s3)


def soak(course: Course, place: Place, work: Path) -> Watch:
    """All of it. What went wrong is in the ledger."""
    with running_server(SETTINGS | place.settings, work=work, name="soak") as server:
        world = World(server.port, Stock(course.seed))
        watch = Watch(world, server)
        asyncio.run(_live(course, watch, [work, place.objects]))
        _close(server, world, place)
    return watch


async def _live(course: Course, watch: Watch, directories: list[Path | None]) -> None:
    world = watch.world
    await settle_in(world)
    until = time.monotonic() + course.seconds
    looking = asyncio.create_task(watch.keep_looking())
    async with Crew(world, course.seed) as crew:
        while (left := until - time.monotonic()) > 0 and _may_go_on(watch, directories):
            began = time.monotonic()
            await crew.work(min(left, course.work_seconds))
            if await watch.rest(course.rest_seconds):
                _say(watch, time.monotonic() - began)
    looking.cancel()
    await asyncio.wait([looking])
    await abort_unfinished(world)


def _may_go_on(watch: Watch, directories: list[Path | None]) -> bool:
    if not watch.server.alive:
        watch.world.ledger.fail("the server has died", _tail(watch.server.log))
        return False
    used = sum(_used_bytes(directory) for directory in directories if directory is not None)
    if used > MOST_BYTES:
        watch.world.ledger.fail("too much on the disk", f"{used / MIB:.0f} MiB")
    return used <= MOST_BYTES


def _used_bytes(directory: Path) -> int:
    total = 0
    for where, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.stat(Path(where, name)).st_size
    return total


def _say(watch: Watch, seconds: float) -> None:
    when, levels = watch.rests[-1]
    print(
        f"{when:6.0f} s: {levels['memory, RSS (MiB)']:.1f} MiB, {levels['descriptors']:.0f} descriptors, "
        f"{levels['tasks']:.0f} tasks at rest; {watch.world.ledger.acts.total()} acts, "
        f"{watch.world.ledger.failures.total()} failures (a turn of {seconds:.0f} s)",
        flush=True,
    )


def _close(server: Server, world: World, place: Place) -> None:
    """Stop as an operator does, then let the service itself say what lies there."""
    if not server.alive:
        return
    environment = environment_of(server.pid)
    code = server.stop()
    if code != 0:
        world.ledger.fail("the server did not end with 0 after SIGTERM", f"{code}: {_tail(server.log)}")
    _read_log(server.log, world.ledger)
    objects = place.objects or Path(environment["DATA_DIR"], "store", "objects")
    stored = closing.Stored(world.stored_chunks, world.stored_bytes)
    print(f"stopped with {code}; {stored.objects} objects, {stored.size / MIB:.0f} MiB; scrub and sweep", flush=True)
    rclone = place.s3.process if place.s3 is not None else None
    for complaint in closing.complaints_about(environment, objects, stored, rclone=rclone):
        world.ledger.fail("after the end", complaint)


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def _read_log(log: Path, ledger: Ledger) -> None:
    """A line of level error, or a traceback, is a failure whatever the clients saw."""
    with log.open(errors="replace") as lines:
        for line in lines:
            if " level=error " in line or line.startswith("Traceback "):
                ledger.fail("an error in the server's log", line.strip())


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-400:]
