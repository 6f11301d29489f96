"""Both stores, each with a look behind it; after every test nothing of it may be left: descriptors, tasks, files."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from blockbuster import blockbuster_ctx

from gauzian.metrics import Metrics
from gauzian.stores.base import ObjectStore
from gauzian.stores.disk import DiskStore, open_disk
from gauzian.stores.s3 import open_s3
from gauzian.stores.threads import FileThreads
from tests.rclone import S3Address, running_s3
from tests.stores.patience import until

_numbers = count()


@dataclass
class Room:
    """A store and what lies behind it."""

    kind: str
    store: ObjectStore
    metrics: Metrics
    threads: FileThreads
    files: Callable[[], list[str]]
    """Every file behind the store, objects and left-overs."""


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Address]:
    with running_s3() as address:
        yield address


@pytest.fixture
def bucket() -> str:
    return f"bucket-{next(_numbers)}"


@pytest.fixture
async def nothing_left(anyio_backend: str) -> AsyncIterator[None]:
    """The event loop is never blocked meanwhile, and afterwards there are as many descriptors and tasks as before."""
    descriptors = set(os.listdir("/proc/self/fd"))
    tasks = len(asyncio.all_tasks())
    with blockbuster_ctx("gauzian"):
        yield
    await until(lambda: len(asyncio.all_tasks()) <= tasks, "tasks end")
    await until(lambda: len(os.listdir("/proc/self/fd")) <= len(descriptors), "descriptors are closed")


@pytest.fixture
async def threads(nothing_left: None) -> AsyncIterator[FileThreads]:
    async with FileThreads(4) as threads:
        yield threads
        assert threads.writing.held == 0
        assert threads.reading.held == 0


@pytest.fixture
async def store(tmp_path: Path, threads: FileThreads, unfinished: str) -> AsyncIterator[DiskStore]:
    async with open_disk(tmp_path, threads=threads) as store:
        yield store


@pytest.fixture(params=["disk", "disk-named", "s3"])
async def room(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    threads: FileThreads,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Room]:
    """`disk-named` is a file system that cannot make files without a name."""
    metrics = Metrics()
    if request.param == "disk-named":
        monkeypatch.setattr("gauzian.stores.disk.has_nameless_files", lambda directory: False)
    if request.param != "s3":
        async with open_disk(tmp_path / "store", threads=threads, metrics=metrics) as store:
            yield Room("disk", store, metrics, threads, lambda: _files(tmp_path))
        return
    server: S3Address = request.getfixturevalue("s3_server")
    async with open_s3(
        endpoint=server.endpoint,
        access_key=server.access_key,
        secret_key=server.secret_key,
        bucket=bucket,
        region="eu-central-1",
        spool_dir=tmp_path / "spool",
        threads=threads,
        metrics=metrics,
    ) as store:
        yield Room("s3", store, metrics, threads, lambda: _files(tmp_path) + _files(server.data_dir / bucket))


@pytest.fixture(params=["nameless", "named"])
def unfinished(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the file system lets an unfinished object lie: without a name, or (NFS) under a temporary one."""
    kind: str = request.param
    if kind == "named":
        monkeypatch.setattr("gauzian.stores.disk.has_nameless_files", lambda directory: False)
    return kind


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 4 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def _files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())
