"""The load tests in their short form pass, and they are able to fail."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.k6.run import CROSSED, run_k6, run_script
from tests.k6.scripts import HERE, SCRIPTS, Form, Script

pytestmark = pytest.mark.slow

REJECTION = HERE / "test-rejection.js"
BRIEF = {"USERS": "8", "SECONDS": "1", "CHUNK_BYTES": "100000"}


@pytest.fixture
def work() -> Iterator[Path]:
    # Not pytest's tmp_path: the embedded PostgreSQL runs as another user when we are root, and must get there.
    with tempfile.TemporaryDirectory(prefix="gz-k6-") as directory:
        yield Path(directory)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_the_short_form_passes_and_leaves_nothing_damaged(script: Script, work: Path) -> None:
    report = run_script(script.path, script.short, work=work)
    assert report.ok, f"{report.problems}\n{report.output}"
    assert report.exit_code == 0
    assert report.count("files_whole") > 0
    assert report.scrub.endswith(" 0 damaged")


def test_the_rejection_test_fails_where_nobody_is_refused(work: Path) -> None:
    report = run_script(REJECTION, Form({"MAX_CONCURRENT_UPLOADS": "50"}, BRIEF, most_seconds=60), work=work)
    assert report.exit_code == CROSSED
    assert report.problems == ["not so: chunks_refused: count>0"]


def test_the_rejection_test_fails_where_the_refusal_is_another_one(work: Path) -> None:
    server = {"MAX_CONCURRENT_UPLOADS": "1", "UPLOADS_BUSY_STATUS": "429"}
    report = run_script(REJECTION, Form(server, BRIEF, most_seconds=60), work=work)
    assert report.exit_code == CROSSED
    assert {"unexpected_answers: count==0", "chunks_refused: count>0"} <= set(report.crossed)


def test_a_damaged_file_would_be_seen(work: Path) -> None:
    settings = {"CHUNK_BYTES": "10000", "CHUNKS": "5"}
    report = run_k6(HERE / "check-payload.js", settings, most_seconds=60, work=work)
    assert report.ok, f"{report.problems}\n{report.output}"
    assert report.figures["checks"]["passes"] == 7


def test_k6_that_does_not_end_is_ended_and_said_so(work: Path) -> None:
    script = work / "endless.js"
    script.write_text("import { sleep } from 'k6'; export default function () { sleep(600); }")
    report = run_k6(script, {}, most_seconds=2, work=work)
    assert report.problems == ["k6 had not ended after 2 s"]
