"""A storm against a process that may have 256 MiB and no more: it answers everybody and ends in order."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.bench.account import User
from tests.bench.load import ROOT, drive, merged
from tests.bench.machine import COMMAND, running_server
from tests.bench.payload import MIB
from tests.bench.rows_limit import LIMIT_MIB, WRAPPER

pytestmark = pytest.mark.timeout(120)
CLIENTS, SIZE = 300, 4 * MIB


@pytest.mark.slow
def test_a_storm_within_256_mib_is_answered_and_nothing_breaks() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="gz-") as directory,
        running_server({}, work=Path(directory), command=WRAPPER + COMMAND) as server,
    ):
        users = [User.register(server.port) for _ in range(2)]
        uploads = [user.initialize(CLIENTS // 2 * SIZE) for user in users]
        groups = [
            user.raw_chunks(file_id, CLIENTS // 2, payload=SIZE) for user, file_id in zip(users, uploads, strict=True)
        ]
        outcome = merged(drive(server.port, *groups, deadline_seconds=60).groups)
        assert outcome.answered_all, outcome
        assert outcome.statuses.keys() == {"200", "400 uploads_busy"}
        assert outcome.statuses["200"] >= 50
        assert sum(outcome.statuses.values()) == CLIENTS
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
        log = server.log.read_text()
    assert f"{LIMIT_MIB} MiB" in log
    assert "Traceback" not in log
    assert "MemoryError" not in log


def test_the_limit_is_one_that_the_process_cannot_pass() -> None:
    greedy = [*WRAPPER, sys.executable, "-c", f"b'x' * ({LIMIT_MIB} << 20)"]
    assert subprocess.run(greedy, cwd=ROOT, capture_output=True, timeout=30).returncode != 0
