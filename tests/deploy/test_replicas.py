"""Several of the service on one database and one store: started at the same time, and two versions side by side."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.bench.account import User, ask
from tests.bench.load import ROOT
from tests.bench.machine import Server, running_server
from tests.e2e.test_start_and_stop import download
from tests.postgres import MIGRATIONS, Postgres, url_of
from tests.rclone import running_s3

CONTENT = os.urandom(100_000)
# What a later version might do that keeps the rule: the version before must be able to live with it.
LATER = "ALTER TABLE files ADD COLUMN of_tomorrow text NOT NULL DEFAULT 'x'; CREATE TABLE tomorrow (a int);"


@pytest.fixture
def shared(postgres: Postgres) -> Iterator[dict[str, str]]:
    """An empty database and an empty store: the first start of all."""
    with postgres.fresh_database("template0") as url, running_s3() as s3:
        yield {
            "DATABASE_URL": url_of(url),
            "S3_ENDPOINT": s3.endpoint,
            "S3_ACCESS_KEY": s3.access_key,
            "S3_SECRET_KEY": s3.secret_key,
        }


@pytest.fixture
def version_of_tomorrow(tmp_path: Path) -> Path:
    """This program with one more migration."""
    home = tmp_path / "tomorrow"
    shutil.copytree(MIGRATIONS, home / "migrations")
    (home / "migrations" / "9999_of_tomorrow.sql").write_text(LATER)
    shutil.copy2(ROOT / "app.py", home)
    (home / "gauzian").symlink_to(ROOT / "gauzian")
    return home / "app.py"


def applied(shared: dict[str, str]) -> list[str]:
    with psycopg.connect(shared["DATABASE_URL"]) as connection:
        rows = connection.execute("SELECT name FROM schema_migrations ORDER BY name").fetchall()
    return [str(name) for (name,) in rows]


def ours() -> list[str]:
    return sorted(path.name for path in MIGRATIONS.glob("*.sql"))


def work_through(one: Server, other: Server, user: User | None = None) -> User:
    """A file sent half to the one and half to the other, read from both."""
    here = user or User.register(one.port)
    here, there = User(one.port, here.token), User(other.port, here.token)
    file_id = here.initialize(2 * len(CONTENT))
    for index, at in enumerate((here, there)):
        path = f"/drive/upload_chunk_binary?file_id={file_id}&index={index}&iv=AAAA"
        assert ask(at.port, "POST", path, CONTENT, at.token)[0] == 200
    there.call("POST", f"/drive/finalize_upload/{file_id}/completed")
    assert download(here, file_id) == download(there, file_id) == CONTENT * 2
    return here


def test_migrations_that_start_at_once_are_applied_once(shared: dict[str, str]) -> None:
    environment = {"PATH": os.environ["PATH"]} | shared
    command = [sys.executable, "app.py", "migrate"]
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True) for _ in range(3)
    ]
    done = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], done
    said = sorted(output.strip() for output, _ in done)
    assert said == ["\n".join(ours()), "the schema is up to date", "the schema is up to date"]
    assert applied(shared) == ours()


def test_two_replicas_start_at_once_on_nothing_and_are_one_service(shared: dict[str, str], tmp_path: Path) -> None:
    logs = [tmp_path / "one", tmp_path / "other"]
    with contextlib.ExitStack() as stack:
        servers = []
        for log in logs:
            environment = {"PATH": os.environ["PATH"], "PORT": "0", "DATA_DIR": f"{log}-data"} | shared
            output = stack.enter_context(log.open("wb"))
            process = subprocess.Popen(
                [sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=output, stderr=output
            )
            servers.append(Server(process, log))
            stack.callback(servers[-1].stop)
        for server in servers:
            server.wait_until_ready()
        work_through(*servers)
        assert applied(shared) == ours()
        assert [server.stop() for server in servers] == [0, 0]


def test_the_version_before_goes_on_beside_the_next_one_and_can_come_back(
    shared: dict[str, str], version_of_tomorrow: Path, tmp_path: Path
) -> None:
    tomorrow = (sys.executable, str(version_of_tomorrow), "serve")
    with running_server(shared, work=tmp_path) as old:
        user = work_through(old, old)
        with running_server(shared, work=tmp_path, command=tomorrow) as new:
            assert applied(shared) == [*ours(), "9999_of_tomorrow.sql"]
            work_through(old, new, user)
            work_through(new, old, user)
            # The step back: the version before starts on the schema of the next one.
            with running_server(shared, work=tmp_path) as again:
                assert "9999_of_tomorrow.sql" in again.log.read_text(), "it says so"
                work_through(again, new, user)
