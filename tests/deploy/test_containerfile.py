"""The image: what its Containerfile promises, and its steps done for real with the main job on the result."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gauzian.settings import Settings
from tests.bench.account import User, ask
from tests.bench.load import ROOT
from tests.bench.machine import wait_for
from tests.deploy.containerfile import is_ignored, parse
from tests.deploy.replay import Image, build, somebody, take_away
from tests.e2e.test_start_and_stop import download, processes_under

pytestmark = pytest.mark.timeout(240)

STAGES = parse((ROOT / "Containerfile").read_text())
FINAL = STAGES[-1]
CONTENT = os.urandom(100_000)


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    scratch = Path(tempfile.mkdtemp(prefix="gz-"))
    scratch.chmod(0o755)
    try:
        yield build(STAGES, scratch, ROOT)
    finally:
        take_away(scratch)


@pytest.fixture
def writable() -> Iterator[Path]:
    """The only place that may be written to: DATA_DIR and what stands for /tmp are in it."""
    with tempfile.TemporaryDirectory(prefix="gz-") as directory:
        if os.geteuid() == 0:
            os.chown(directory, 65534, 65534)
        yield Path(directory)


def test_the_reader_of_the_file_knows_continuations_comments_flags_and_variables() -> None:
    text = "ARG A=base:1\nFROM ${A} AS one\n# no\nRUN --mount=type=cache,target=/x \\\n  # no\n  a && \\\n  b\n"
    text += 'FROM ${A}\nARG V=9\nCOPY --from=one /a /b\nLABEL x="y z" \\\n  v="${V}"\nENV A=1 B=2\nCMD ["a", "b"]\n'
    one, two = parse(text)
    assert (one.base, one.name, two.base) == ("base:1", "one", "base:1")
    assert (one.instructions[0].flags, one.instructions[0].rest) == ({"mount": "type=cache,target=/x"}, "a && b")
    assert two.last("COPY").flags == {"from": "one"}
    assert two.pairs("LABEL") == {"x": "y z", "v": "9"}
    assert two.pairs("ENV") == {"A": "1", "B": "2"}
    assert two.last("CMD").exec_form == ["a", "b"]
    assert one.instructions[0].exec_form is None


def test_a_judge_of_such_files_finds_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "Containerfile"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_slim_and_pinned_and_the_same_in_both_stages() -> None:
    assert len(STAGES) == 2
    assert {stage.base for stage in STAGES} == {STAGES[0].base}
    assert re.fullmatch(r"\S+/python:3\.\d+\.\d+-slim-\w+", FINAL.base)


def test_it_runs_as_a_number_that_is_not_root_and_owns_nothing_but_the_data() -> None:
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", FINAL.last("USER").rest)
    uid, gid = FINAL.last("USER").rest.split(":")
    account = FINAL.all("RUN")[0].rest
    assert f"--uid {uid} " in account
    assert f"install -d -m 700 -o {uid} -g {gid} {FINAL.last('VOLUME').rest}" in account
    assert all("chown" not in step.flags for step in FINAL.all("COPY"))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("useradd"), reason="accounts are made by root, with useradd")
def test_its_account_is_made_with_the_name_and_the_numbers_that_are_used(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for name in ("passwd", "group", "shadow", "gshadow"):
        (tmp_path / "etc" / name).write_text("root:x:0:0::/root:/bin/sh\n" if name == "passwd" else "")
    for command in FINAL.all("RUN")[0].rest.split(" && ")[:2]:
        program, rest = command.split(None, 1)
        words = [program, "--prefix", str(tmp_path), *rest.split()]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
    uid, gid = FINAL.last("USER").rest.split(":")
    home = FINAL.last("VOLUME").rest
    account = (tmp_path / "etc/passwd").read_text().splitlines()[-1]
    assert account == f"gauzian:x:{uid}:{gid}::{home}:/usr/sbin/nologin"
    assert (tmp_path / "etc/group").read_text() == f"gauzian:x:{gid}:\n"


def test_signals_reach_the_program_and_its_settings_exist() -> None:
    for name in ("ENTRYPOINT", "CMD"):
        assert FINAL.last(name).exec_form
    assert FINAL.last("STOPSIGNAL").rest == "SIGTERM"
    environment = FINAL.pairs("ENV")
    ours = {key: value for key, value in environment.items() if not key.startswith("PYTHON")}
    assert set(ours) <= {name for name, _, _ in Settings().rows()}
    settings = Settings.from_env(ours)
    assert (settings.host, str(settings.data_dir)) == ("0.0.0.0", FINAL.last("VOLUME").rest)
    assert FINAL.last("EXPOSE").words == [str(settings.port), str(settings.probe_port)]


def test_labels_say_which_version_and_commit_it_is() -> None:
    labels = FINAL.pairs("LABEL")
    assert {"title", "description", "licenses", "version", "revision"} == {name.rpartition(".")[2] for name in labels}
    assert FINAL.pairs("ARG") == {"VERSION": "unknown", "REVISION": "unknown"}
    assert labels["org.opencontainers.image.version"] == "unknown", "filled from the argument"


def test_what_is_copied_is_not_ignored_and_everything_else_is() -> None:
    ignore_file = (ROOT / ".dockerignore").read_text()
    copied = {source for source in STAGES[0].all("COPY") for source in source.words[:-1]}
    assert copied == {"app.py", "gauzian", "migrations", "requirements.txt"}
    assert not any(is_ignored(source, ignore_file) for source in [*copied, "gauzian/server/serve.py"])
    for other in (".git", ".venv/bin/python", "data", "tests", "deploy/env", "README.md", "gauzian/__pycache__/x.pyc"):
        assert is_ignored(other, ignore_file), other


def test_the_final_stage_holds_the_program_and_nothing_to_build_or_install_with(image: Image) -> None:
    assert [step.split()[0] for step in image.left_out] == ["groupadd"], "every other step was done for real"
    assert [step.flags.get("from") for step in FINAL.all("COPY")] == [STAGES[0].name]
    assert "pip*" in image.left_out[0]
    found = image.run(["/opt/gauzian/.venv/bin/python", "-c", "import pip"])
    assert "No module named 'pip'" in found.stderr
    assert sorted(path.name for path in image.directory.iterdir()) == sorted(
        [".venv", "__pycache__", "app.py", "gauzian", "migrations", "requirements.txt"]
    )
    names = {path.name for path in image.directory.glob(".venv/lib/python3*/site-packages/*")}
    assert not names & {"pip", "setuptools", "wheel", "pytest"}
    assert not list(image.directory.glob(".venv/bin/pip*"))
    pinned = re.findall(r"^([\w-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.M)
    metadata = {name.lower().replace("-", "_") for name in names if name.endswith(".dist-info")}
    assert metadata == {f"{name}_{version}.dist_info".lower().replace("-", "_") for name, version in pinned}


def test_everything_is_compiled_because_nobody_may_write_it_later(image: Image) -> None:
    sources = list((image.directory / "gauzian").rglob("*.py"))
    assert len(sources) > 50
    for path in sources:
        assert list((path.parent / "__pycache__").glob(f"{path.stem}.cpython-*.pyc")), path


def test_it_does_the_main_job_without_rights_on_a_tree_it_may_not_write(image: Image, writable: Path) -> None:
    before = image.contents()
    probe = image.directory / "written"
    touch = subprocess.run(["touch", str(probe)], capture_output=True, **somebody())
    assert touch.returncode != 0, "or it proves nothing"
    (temporary := writable / "tmp").mkdir(mode=0o777)
    temporary.chmod(0o777)
    given = {"HOST": "127.0.0.1", "PORT": "0", "PROBE_PORT": "0", "DATA_DIR": f"{writable}/data"}
    given["TMPDIR"] = str(temporary)
    health = FINAL.last("HEALTHCHECK").rest.removeprefix("CMD ")
    check = [str(word) for word in json.loads(health)]

    with image.running(writable / "log", **given) as server:
        if os.geteuid() == 0:
            assert Path(f"/proc/{server.pid}").stat().st_uid == 65534
        probes = {"HOST": "127.0.0.1", "PROBE_PORT": str(server.probe_port)}
        assert image.run(check, **probes).returncode == 0
        user = User.register(server.port)
        file_id = user.store_file(CONTENT, 2)
        assert download(user, file_id) == CONTENT * 2
        assert ask(server.probe_port or 0, "GET", "/health/ready")[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    assert image.run(check, **probes).returncode != 0
    assert wait_for(lambda: not processes_under(writable), 10)
    assert image.contents() == before
    assert sorted(path.name for path in writable.iterdir()) == ["data", "log", "tmp"]
    assert not list(temporary.iterdir()), "left behind in /tmp"


def test_the_other_commands_are_there_too(image: Image, writable: Path) -> None:
    done = image.run([*image.entrypoint, "settings"], DATA_DIR=str(writable))
    assert done.returncode == 0
    assert "HOST=0.0.0.0" in done.stdout
