"""The embedded PostgreSQL: a first start, a second one, one after kill -9, and nothing left after any of them."""

# ruff: noqa: ASYNC220, ASYNC240 (what is looked at or started here is small and local)

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import psycopg
import pytest

from gauzian.database import embedded_home
from gauzian.database.embedded import embedded_postgres
from gauzian.database.embedded_home import EmbeddedError, Home

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]

# Starts a server, says its URL, and waits to be killed or interrupted. Tests that run in the background are started
# with SIGINT ignored.
OWNER = """
import asyncio, signal, sys
from pathlib import Path
from gauzian.database.embedded import embedded_postgres

async def main():
    async with embedded_postgres(Path(sys.argv[1])) as url:
        print(url, flush=True)
        await asyncio.Event().wait()

signal.signal(signal.SIGINT, signal.default_int_handler)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def initialized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that was started once: initdb takes longer than everything else here."""
    directory = tmp_path_factory.mktemp("initialized")

    async def once() -> None:
        async with embedded_postgres(directory):
            pass

    asyncio.run(once())
    return directory


@pytest.fixture
def short_path(tmp_path: Path, initialized: Path) -> Path:
    """A copy of it, of the test's own."""
    subprocess.run(["cp", "-a", str(initialized), str(tmp_path / "data")], check=True)
    return tmp_path / "data"


@pytest.fixture
def new_path(tmp_path: Path) -> Path:
    """A data directory that was never started."""
    return tmp_path / "data"


def home_of(data_dir: Path) -> Home:
    return Home.prepare(data_dir)


def ask(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


async def start_owner(data_dir: Path) -> tuple[asyncio.subprocess.Process, str]:
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(data_dir), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert owner.stdout is not None
    with anyio.fail_after(30):
        url = (await owner.stdout.readline()).decode().strip()
    return owner, url


async def test_a_life_first_start_second_start_and_nothing_left_behind(new_path: Path) -> None:
    async with embedded_postgres(new_path) as url:
        ask(url, "CREATE TABLE notes AS SELECT 'kept' AS text")
        settings = {str(name): value for name, value in ask(url, "SELECT name, setting FROM pg_settings")}
        assert settings["listen_addresses"] == ""
        assert (settings["fsync"], settings["synchronous_commit"], settings["full_page_writes"]) == ("on", "on", "on")
        assert ask(url, "SELECT lower('ÉÄ'), current_database()::text") == [("éä", "gauzian")]
        home = home_of(new_path)
        assert home.processes()
        assert (home.root.stat().st_mode & 0o777, (home.root / "run").stat().st_mode & 0o777) == (0o700, 0o700)
    assert home.processes() == set()
    assert home.read_postmaster() is None

    started = time.monotonic()
    async with embedded_postgres(new_path) as again:
        assert time.monotonic() - started < 3
        assert again == url
        assert ask(again, "SELECT text FROM notes") == [("kept",)]
    assert home.processes() == set()


async def test_after_kill_9_of_its_owner_the_next_start_takes_over_and_loses_nothing(short_path: Path) -> None:
    owner, url = await start_owner(short_path)
    ask(url, "CREATE TABLE notes AS SELECT 'acknowledged' AS text")
    left = home_of(short_path).read_postmaster()
    assert left is not None
    owner.kill()
    await owner.wait()
    os.kill(left.pid, 0)  # it is still running

    async with embedded_postgres(short_path) as again:
        assert ask(again, "SELECT text FROM notes") == [("acknowledged",)]
        now = home_of(short_path).read_postmaster()
        assert now is not None
        assert now.pid != left.pid
    assert home_of(short_path).processes() == set()


async def test_after_a_power_cut_the_stale_pid_file_is_no_obstacle_even_if_its_number_is_taken(
    short_path: Path,
) -> None:
    owner, url = await start_owner(short_path)
    ask(url, "CREATE TABLE notes AS SELECT 'acknowledged' AS text")
    home = home_of(short_path)
    for process in [owner.pid, *home.processes()]:
        with contextlib.suppress(ProcessLookupError):  # children follow their postmaster by themselves
            os.kill(process, signal.SIGKILL)
    await owner.wait()
    pid_file = home.data / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    # Alive, of PostgreSQL's own user, and nothing to do with it: PostgreSQL alone would refuse to start.
    stranger = subprocess.Popen(["/bin/sleep", "60"], user=None if home.account is None else home.account[0])
    lines[0] = str(stranger.pid)
    pid_file.write_text("\n".join(lines) + "\n")
    try:
        async with embedded_postgres(short_path) as again:
            assert ask(again, "SELECT text FROM notes") == [("acknowledged",)]
        assert home.processes() == set()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


async def test_who_comes_second_joins_and_does_not_stop_it(short_path: Path) -> None:
    owner, url = await start_owner(short_path)
    try:
        async with embedded_postgres(short_path) as joined:
            assert joined == url
            assert ask(joined, "SELECT 1") == [(1,)]
        assert ask(url, "SELECT 2") == [(2,)]
    finally:
        owner.send_signal(signal.SIGINT)
        with anyio.fail_after(20):
            await owner.communicate()
    assert home_of(short_path).processes() == set()


async def test_cancelled_it_stops_the_server(short_path: Path) -> None:
    ready = asyncio.Event()

    async def run() -> None:
        async with embedded_postgres(short_path):
            ready.set()
            await asyncio.Event().wait()

    running = asyncio.create_task(run())
    await ready.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert home_of(short_path).processes() == set()


@pytest.mark.parametrize(
    ("fixture", "seconds"), [("new_path", 0.2), ("short_path", 0.0), ("short_path", 0.02), ("short_path", 0.05)]
)
async def test_cancelled_while_it_starts_nothing_runs_and_the_next_start_works(
    request: pytest.FixtureRequest, fixture: str, seconds: float
) -> None:
    data_dir: Path = request.getfixturevalue(fixture)
    with anyio.move_on_after(seconds):
        async with embedded_postgres(data_dir):
            pass
    assert home_of(data_dir).processes() == set()
    async with embedded_postgres(data_dir) as url:
        assert ask(url, "SELECT 1") == [(1,)]


async def test_a_long_path_gets_its_socket_elsewhere(short_path: Path) -> None:
    async with embedded_postgres(short_path.rename(short_path.with_name("deep" * 25))) as url:
        assert ask(url, "SELECT 1") == [(1,)]
        sockets = Path(str(ask(url, "SHOW unix_socket_directories")[0][0]))
        assert sockets.stat().st_mode & 0o777 == 0o700
    assert not sockets.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can close a directory to the user PostgreSQL runs as")
async def test_started_by_root_it_is_not_root_and_passes_through_directories_of_root(
    short_path: Path,
) -> None:
    closed = short_path.with_name("closed")
    closed.mkdir(mode=0o700)
    short_path.rename(closed / "data")
    async with embedded_postgres(closed / "data") as url:
        postmaster = home_of(closed / "data").read_postmaster()
        assert postmaster is not None
        assert Path(f"/proc/{postmaster.pid}").stat().st_uid != 0
        assert ask(url, "SELECT 1") == [(1,)]


async def test_data_of_another_version_is_refused_with_the_way_out(new_path: Path) -> None:
    home = home_of(new_path)
    home.data.mkdir()
    (home.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 12, but this is PostgreSQL \d+: .*dump"):
        async with embedded_postgres(new_path):
            pass


async def test_a_server_that_does_not_start_says_why(short_path: Path) -> None:
    with pytest.raises(EmbeddedError, match="shared_buffers"):
        async with embedded_postgres(short_path, settings={"shared_buffers": "many"}):
            pass


async def test_an_interrupted_initialization_is_begun_anew(new_path: Path) -> None:
    unfinished = home_of(new_path).root / "unfinished-1"
    unfinished.mkdir()
    (unfinished / "PG_VERSION").write_text("half")
    async with embedded_postgres(new_path) as url:
        assert ask(url, "SELECT 1") == [(1,)]
    assert not unfinished.exists()


def test_an_initialization_that_outlived_its_owner_is_removed_as_often_as_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = home_of(tmp_path)
    unfinished = home.root / "unfinished-1"
    unfinished.mkdir()
    (unfinished / "base").mkdir()
    really, writes = os.rmdir, 2

    def it_has_just_written(path: str, **more: int | None) -> None:
        nonlocal writes
        if writes and os.fspath(path).endswith("base"):
            writes -= 1
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        really(path, **more)

    monkeypatch.setattr(os, "rmdir", it_has_just_written)
    assert [home.remove_unfinished() for _ in range(3)] == [False, False, True]
    assert not unfinished.exists()


async def test_without_the_wheel_it_says_what_to_do(new_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_home, "find_spec", lambda name: None)
    with pytest.raises(EmbeddedError, match="set DATABASE_URL"):
        async with embedded_postgres(new_path):
            pass
