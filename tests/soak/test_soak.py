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
from tests.bench.machine import Server, running_server
from tests.soak import closing
from tests.soak.levels import QUANTITIES
from tests.soak.soak import environment_of, place_for

pytestmark = pytest.mark.slow

CHUNK = b"soaked" * 500
STORED = closing.Stored(2, 2 * len(CHUNK))


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
    """An object no row names, and a damaged one."""
    with running_server({}, work=tmp_path) as server:
        environment = stopped_after_one_file(server)
        store = Path(environment["DATA_DIR"], "store", "objects")
        assert closing.complaints_about(environment, store, STORED) == []

        victim = min(closing.objects_below(store))
        orphan = plant_orphan_beside(victim)
        with victim.open("r+b") as file:
            file.write(b"!")
        scrubbed, swept, counted = closing.complaints_about(environment, store, STORED)
    assert "1 damaged" in scrubbed
    assert "0 unfinished uploads, 1 objects" in swept
    assert orphan.name in swept
    assert counted.startswith("3 files")


def test_the_end_finds_what_was_lost_and_what_was_forgotten_on_s3(tmp_path: Path) -> None:
    """An object that is gone, one no row names, and an upload nobody finished."""
    with place_for("s3") as place, running_server(place.settings, work=tmp_path) as server:
        assert place.objects is not None
        assert place.s3 is not None
        environment = stopped_after_one_file(server, forgets=True)
        victim = min(closing.objects_below(place.objects))
        orphan = plant_orphan_beside(victim)
        os.unlink(victim)
        scrubbed, swept = closing.complaints_about(environment, place.objects, STORED, rclone=place.s3.process)
    assert "1 damaged" in scrubbed
    assert "1 unfinished uploads, 1 objects" in swept
    assert orphan.name in swept


def stopped_after_one_file(server: Server, *, forgets: bool = False) -> dict[str, str]:
    """A finished file of two chunks lies there. The server's environment."""
    user = User.register(server.port)
    user.store_file(CHUNK, 2)
    if forgets:
        user.initialize(1)
    environment = environment_of(server.pid)
    assert server.stop() == 0
    return environment


def plant_orphan_beside(file: Path) -> Path:
    orphan = file.with_name(re.sub(r"[0-9a-f]{32}$", "0" * 32, file.name))
    shutil.copyfile(file, orphan)
    return orphan
