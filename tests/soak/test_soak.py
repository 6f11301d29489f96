"""The soak itself: it runs, and its end finds what should not be there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.account import User
from tests.bench.load import ROOT
from tests.bench.machine import running_server
from tests.soak import closing
from tests.soak.levels import QUANTITIES
from tests.soak.soak import environment_of

pytestmark = pytest.mark.slow

CHUNK = b"soaked" * 500


def test_a_short_soak_passes_and_says_what_it_cannot_tell(tmp_path: Path) -> None:
    figures = tmp_path / "soak.json"
    command = [sys.executable, "-m", "tests.soak", "--smoke", "--minutes", "0.1", "--seed", "7", "--json", str(figures)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    told = json.loads(figures.read_text())
    assert {verdict["verdict"] for verdict in told["verdicts"].values()} == {"cannot tell"}
    assert set(told["verdicts"]) == {item.name for item in QUANTITIES}
    seen = set(told["answers"])
    assert {"200", "206", "400 uploads_busy", "408 upload_too_slow", "409 upload_incomplete"} <= seen


def test_the_end_finds_nothing_and_then_what_was_planted(tmp_path: Path) -> None:
    """An object no row names, a damaged one, an upload that somebody forgot."""
    with running_server({}, work=tmp_path) as server:
        user = User.register(server.port)
        user.store_file(CHUNK, 2)
        environment = environment_of(server.pid)
        forgotten = user.initialize(1)
        user.abort(forgotten)
        assert server.stop() == 0
        store = Path(environment["DATA_DIR"], "store", "objects")
        stored = closing.Stored(2, 2 * len(CHUNK))
        assert closing.complaints_about(environment, store, stored) == []

        victim = min(closing.objects_below(store))
        orphan = victim.with_name(re.sub(r"[0-9a-f]{32}$", "0" * 32, victim.name))
        shutil.copyfile(victim, orphan)
        with victim.open("r+b") as file:
            file.write(b"!")
        scrubbed, swept, counted = closing.complaints_about(environment, store, stored)
    assert "1 damaged" in scrubbed
    assert "0 unfinished uploads, 1 objects" in swept
    assert orphan.name in swept
    assert counted.startswith("3 files")


def test_the_end_finds_a_lost_object_and_a_forgotten_upload(tmp_path: Path) -> None:
    with running_server({}, work=tmp_path) as server:
        user = User.register(server.port)
        user.store_file(CHUNK, 2)
        user.initialize(1)
        environment = environment_of(server.pid)
        assert server.stop() == 0
        store = Path(environment["DATA_DIR"], "store", "objects")
        os.unlink(min(closing.objects_below(store)))
        scrubbed, swept, counted = closing.complaints_about(environment, store, closing.Stored(2, 2 * len(CHUNK)))
    assert "1 damaged" in scrubbed
    assert "1 unfinished uploads, 0 objects" in swept
    assert counted.startswith("1 files")
