"""The runbook's commands do what it says: each block marked `run` is run, in the order of a bad day."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from gauzian import budget
from gauzian.settings import Settings
from tests.bench.account import IV, User, ask
from tests.bench.load import ROOT
from tests.bench.machine import parse_metrics
from tests.bench.payload import MIB
from tests.deploy.stand_ins import Machine, commit, set_up_machine

pytestmark = pytest.mark.timeout(180)

RUNBOOK = ROOT / "deploy" / "README.md"
UNIT = ROOT / "deploy" / "gauzian.service"
BLOCKS = dict(re.findall(r"^```sh run=(\S+)\n(.*?)^```", RUNBOOK.read_text(), re.DOTALL | re.MULTILINE))
CONTENT = os.urandom(300_000)


@pytest.fixture
def machine() -> Iterator[Machine]:
    # Not pytest's tmp_path: the embedded PostgreSQL runs as another user when we are root, and must get there.
    with tempfile.TemporaryDirectory(prefix="gz-") as directory:
        with socket.create_server(("127.0.0.1", 0)) as sock:
            port = sock.getsockname()[1]
        machine = set_up_machine(Path(directory), port=port)
        try:
            yield machine
        finally:
            machine.run("systemctl stop gauzian")


def follow(machine: Machine, *names: str, first: str = "") -> str:
    """What the blocks say, run one after the other by one shell; all of them must end well."""
    script = "\n".join([BLOCKS["tools"], first, *[BLOCKS[name] for name in names]])
    done = machine.run(script)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{machine.log()[-2000:]}"
    return done.stdout


def port_of(machine: Machine) -> int:
    return int(machine.environment["URL"].rpartition(":")[2])


def downloaded(user: User, file_id: str) -> int:
    return ask(user.port, "GET", f"/drive/download/{file_id}", None, user.token)[0]


def test_what_was_backed_up_while_the_service_ran_comes_back_and_scrub_finds_it_whole(machine: Machine) -> None:
    follow(machine, first="systemctl start gauzian; is_ready")
    user = User.register(port_of(machine))
    kept, deleted = user.store_file(CONTENT, 3), user.initialize(10)
    user.call("POST", f"/drive/upload_chunk_binary?file_id={deleted}&index=0&iv={IV}", b"0123456789")
    follow(machine, "backup")
    assert sorted(path.name for path in (machine.home / "backup").iterdir()) == [
        *("gauzian.dump", "gauzian.env", "objects.tar")
    ]
    late = user.store_file(CONTENT, 1)
    user.abort(deleted)
    assert downloaded(user, late) == 200

    told = follow(machine, "restore")
    assert told.splitlines()[-1] == f"4 objects checked ({3 * len(CONTENT) + 10} bytes), 0 damaged"
    assert "ORPHAN_GRACE_HOURS=8760" in machine.settings.read_text()
    assert (downloaded(user, kept), downloaded(user, late)) == (200, 404)
    assert user.call("GET", f"/drive/files/{deleted}/upload")["received"] == [[0, 0]]
    assert user.call("GET", "/info")

    told = follow(machine, "restored", first="")
    assert not (machine.home / "data.before").exists()
    assert "ORPHAN_GRACE_HOURS=24" in machine.settings.read_text()
    # The store is known as this database's: sweeps go on.
    assert "refused" not in follow(machine, first="is_ready; gauzian reap --dry-run")


def test_the_roll_back_goes_through_its_three_steps(machine: Machine) -> None:
    follow(machine, "check", first="systemctl start gauzian")
    user = User.register(port_of(machine))
    kept = user.store_file(CONTENT, 2)

    follow(machine, "raise-limit")
    assert parse_metrics(str(ask(user.port, "GET", "/metrics")[1]))["gauzian_upload_places"] == 100
    assert "Max concurrent uploads: 100" in machine.log()

    large = user.initialize(11 * MIB)
    path = f"/drive/upload_chunk_binary?file_id={large}&index=0&iv={IV}"
    assert ask(user.port, "POST", path, bytes(11 * MIB), user.token)[0] == 413
    follow(machine, "raise-chunk")
    assert ask(user.port, "POST", path, bytes(11 * MIB), user.token)[0] == 200

    init = machine.program / "gauzian" / "__init__.py"
    init.write_text(init.read_text().replace('__version__ = "', '__version__ = "9'))
    commit(machine, "v2")
    machine.run("git -C $GAUZIAN checkout -q v1").check_returncode()
    old = ask(user.port, "GET", "/")[1]["version"]
    follow(machine, "upgrade", first="mkdir -p $BACKUP; NEW=v2")
    assert ask(user.port, "GET", "/")[1]["version"] == "9" + old
    told = follow(machine, "go-back")
    assert ask(user.port, "GET", "/")[1]["version"] == old
    assert told.splitlines()[-1].endswith("0 damaged")
    assert downloaded(user, kept) == 200


def test_the_rows_are_backed_up_before_the_objects_that_they_name_and_restored_after_them() -> None:
    assert BLOCKS["backup"].index("pg_dump") < BLOCKS["backup"].index("tar -C")
    assert BLOCKS["restore"].index("tar -C") < BLOCKS["restore"].index("pg_restore")


def test_every_block_that_can_be_run_is_run() -> None:
    followed = set(re.findall(r'"([a-z-]+)"', Path(__file__).read_text()))
    assert set(BLOCKS) <= followed
    assert len(BLOCKS) >= 8


def test_every_setting_that_it_names_exists() -> None:
    text = RUNBOOK.read_text() + UNIT.read_text()
    ours = {item.name.upper() for item in fields(Settings)}
    theirs = {"CAP_NET_BIND_SERVICE", "NAME", "GAUZIAN", "CONF", "BACKUP", "URL", "NEW", "PG", "DB", "END"}
    named = set(re.findall(r"\b(?!AF_)[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", text)) | set(
        re.findall(r"^([A-Z]+)=", text, re.M)
    )
    assert named - theirs <= ours
    assert {"MAX_CONCURRENT_UPLOADS", "TLS_CERT", "PORT"} <= named


def test_every_file_of_ours_that_it_names_exists() -> None:
    named = set(re.findall(r"\b(?:deploy|proxy)/[\w./-]*\w", RUNBOOK.read_text()))
    assert {"proxy/nginx.conf", "deploy/gauzian.service"} <= named
    missing = {name for name in named if not ((ROOT / name).exists() or (ROOT / "deploy" / name).exists())}
    assert missing <= {"deploy/.env"}, "made from the template"


def test_it_prints_the_sizing_table_of_the_budget() -> None:
    printed = re.search(r"<!-- sizing -->\n(.*?)\n<!-- /sizing -->", RUNBOOK.read_text(), re.DOTALL)
    assert printed is not None
    assert printed[1] == budget.table(), "run: python -m gauzian.budget"


def test_systemd_understands_the_unit_and_finds_little_to_fear(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is needed")
    text = UNIT.read_text().replace("/opt/gauzian/.venv/bin/python", "/bin/true")
    unit = tmp_path / "gauzian.service"
    unit.write_text(text)
    done = subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "gauzian" in line]) == (0, [])
    command = [analyze, "security", "--offline=true", "--threshold=25", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_the_unit_gives_the_service_more_time_to_stop_than_it_takes() -> None:
    found = re.search(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.MULTILINE)
    assert found is not None
    assert int(found[1]) > Settings().shutdown_grace_seconds + 30 + 2 * 5
