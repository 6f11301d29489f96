"""deploy/push_docker_hub.sh, with programs in the place of docker and podman that write down how they are called."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gauzian import __version__
from tests.bench.load import ROOT
from tests.deploy.recorded import StandIns

SCRIPTS = [ROOT / "deploy/push_docker_hub.sh", ROOT / "deploy/kubernetes/update-max.sh"]
REPOSITORY = "docker.io/somebody/gauzian"
_GIT = "git -c user.name=nobody -c user.email=nobody@example.org -c commit.gpgsign=false"


@pytest.fixture
def machine(tmp_path: Path) -> StandIns:
    stand_ins = StandIns(tmp_path)
    stand_ins.need("git", "sed", "dirname")
    return stand_ins


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository of its own with what the script looks at, committed."""
    here = tmp_path / "checkout"
    (here / "deploy").mkdir(parents=True)
    (here / "gauzian").mkdir()
    shutil.copy2(SCRIPTS[0], here / "deploy")
    shutil.copy2(ROOT / "gauzian/__init__.py", here / "gauzian")
    shutil.copy2(ROOT / "Containerfile", here)
    for command in ("git init -q", "git add .", f"{_GIT} commit -qm all"):
        subprocess.run(command.split(), cwd=here, check=True)
    return here


def commit_of(checkout: Path) -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=checkout, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean_and_executable(script: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, "--enable=all", "--exclude=SC2250,SC2310,SC2312", script], capture_output=True)
    assert (done.returncode, done.stdout.decode()) == (0, "")
    assert script.stat().st_mode & 0o111


@pytest.mark.parametrize(("engine", "more"), [("docker", ""), ("podman", " --format docker")])
def test_it_builds_and_pushes_under_version_and_commit(
    machine: StandIns, checkout: Path, engine: str, more: str
) -> None:
    machine.add(engine)
    done = machine.run(checkout / "deploy/push_docker_hub.sh", REPOSITORY)
    assert done.returncode == 0, done.stderr
    commit = commit_of(checkout)
    image = f"{REPOSITORY}:{__version__}-{commit[:12]}"
    arguments = f"--build-arg VERSION={__version__} --build-arg REVISION={commit}{more}"
    build = f"{engine} build --file Containerfile --tag {image} {arguments} ."
    assert machine.calls == [build, f"{engine} push {image}"]
    assert done.stdout.splitlines()[-1] == image


def test_docker_comes_first_unless_told_otherwise_and_the_repository_may_be_a_variable(
    machine: StandIns, checkout: Path
) -> None:
    machine.add("docker", "podman")
    script = checkout / "deploy/push_docker_hub.sh"
    assert machine.run(script, REPOSITORY).returncode == 0
    assert {call.split()[0] for call in machine.calls} == {"docker"}
    assert machine.run(script, ENGINE="podman", IMAGE="registry.example.org:5000/gauzian").returncode == 0
    assert {call.split()[0] for call in machine.calls} == {"podman"}
    assert machine.calls[1].startswith("podman push registry.example.org:5000/gauzian:")


def test_a_dry_run_prints_the_commands_and_calls_nobody(machine: StandIns, checkout: Path) -> None:
    machine.add("docker")
    done = machine.run(checkout / "deploy/push_docker_hub.sh", "--dry-run", REPOSITORY)
    assert done.returncode == 0
    assert machine.calls == []
    assert [line.split()[:3] for line in done.stdout.splitlines()[:2]] == [
        ["+", "docker", "build"],
        ["+", "docker", "push"],
    ]


def test_a_build_that_fails_is_not_pushed(machine: StandIns, checkout: Path) -> None:
    machine.add("docker")
    machine.answers = [("docker build", "no", 3)]
    assert machine.run(checkout / "deploy/push_docker_hub.sh", REPOSITORY).returncode == 3
    assert [call.split()[1] for call in machine.calls] == ["build"]


def test_a_push_that_fails_is_a_failure(machine: StandIns, checkout: Path) -> None:
    machine.add("docker")
    machine.answers = [("docker push", "denied", 1)]
    done = machine.run(checkout / "deploy/push_docker_hub.sh", REPOSITORY)
    assert done.returncode == 1
    assert not done.stdout.splitlines()[-1].startswith(REPOSITORY)


@pytest.mark.parametrize("name", ["gauzian/__init__.py", "gauzian/new.py", "app.py"])
def test_what_no_commit_holds_is_not_pushed_under_its_name(machine: StandIns, checkout: Path, name: str) -> None:
    machine.add("docker")
    with (checkout / name).open("a") as file:
        file.write("# more\n")
    done = machine.run(checkout / "deploy/push_docker_hub.sh", REPOSITORY)
    assert done.returncode == 1
    assert name in done.stderr
    assert machine.calls == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "which repository"),
        ([f"{REPOSITORY}:latest"], "without a tag"),
        (["--push", REPOSITORY], "unknown option --push"),
    ],
)
def test_a_wrong_command_line_is_said(machine: StandIns, checkout: Path, arguments: list[str], complaint: str) -> None:
    machine.add("docker")
    done = machine.run(checkout / "deploy/push_docker_hub.sh", *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert machine.calls == []


def test_no_engine_is_said(machine: StandIns, checkout: Path) -> None:
    done = machine.run(checkout / "deploy/push_docker_hub.sh", REPOSITORY)
    assert (done.returncode, done.stderr) == (1, "push_docker_hub.sh: neither docker nor podman is there\n")
