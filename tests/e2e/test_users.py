"""`app.py users` in the hands of an operator, beside the running service."""

from __future__ import annotations

from pathlib import Path

from tests.bench.account import User, ask
from tests.e2e.test_start_and_stop import data, run, started

__all__ = ["data"]


def test_users_are_listed_given_space_switched_off_and_deleted_while_the_service_runs(data: Path) -> None:
    with started(data) as server:
        user, other = User.register(server.port), User.register(server.port)
        file_id = user.store_file(b"x" * 1000, 2)
        kept = other.store_file(b"y" * 1000, 1)
        email = user.call("GET", "/info")["email"]

        listed = run("users", DATA_DIR=str(data))
        assert listed.returncode == 0, listed
        head, *rows = listed.stdout.splitlines()
        assert head.split("\t") == ["e-mail", "username", "state", "bytes used", "quota", "files"]
        assert {row.split("\t")[0]: row.split("\t")[2:] for row in rows}[email] == ["active", "2000", "default", "1"]

        assert run("users", "quota", email, "2500", DATA_DIR=str(data)).returncode == 0
        assert user.call("GET", "/drive/get_drive_info")["storage_limit_bytes"] == 2500

        hesitant = run("users", "delete", email, DATA_DIR=str(data))
        assert (hesitant.returncode, "nothing was deleted" in hesitant.stdout) == (2, True)
        assert user.call("GET", "/drive/get_drive_info")["used_space"] == 2000

        assert run("users", "deactivate", email, DATA_DIR=str(data)).returncode == 0
        assert ask(server.port, "GET", "/info", None, user.token)[0] == 401

        deleted = run("users", "delete", email, "--yes", DATA_DIR=str(data))
        assert (deleted.returncode, deleted.stdout.startswith("deleted: ")) == (0, True), deleted
        assert not [path for path in (data / "store").rglob(f"{file_id}*") if path.is_file()]
        assert ask(server.port, "GET", f"/drive/download/{kept}", None, other.token)[0] == 200
        assert run("scrub", DATA_DIR=str(data)).returncode == 0

        unknown = run("users", "delete", email, "--yes", DATA_DIR=str(data))
        assert (unknown.returncode, "there is no user" in unknown.stderr) == (1, True), unknown
        assert run("users", "quota", email, "-1", DATA_DIR=str(data)).returncode == 2
