"""deploy/kubernetes/update-max.sh, with a program in the place of kubectl that writes down how it is called."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.bench.load import ROOT
from tests.deploy.recorded import StandIns

SCRIPT = ROOT / "deploy/kubernetes/update-max.sh"
K = "kubectl --namespace gauzian "
SAYS = 'ts=1 level=info logger=gauzian msg="Max concurrent uploads: {}"'
BEFORE = [
    (K + "get deployment backend", "7", 0),
    (K + "get configmap backend", "50", 0),
]
PODS = [
    (K + "get pods --selector app=backend --output go-template", "backend-a\nbackend-b", 0),
    (K + "get pods --selector app=backend --output wide", "NAME READY STATUS", 0),
]
UNDO = [
    'patch configmap backend --type merge --patch {"data":{"MAX_CONCURRENT_UPLOADS":"50"}}',
    "rollout undo deployment/backend --to-revision 7",
    "rollout status deployment/backend --timeout 300s",
]


@pytest.fixture
def cluster(tmp_path: Path) -> StandIns:
    stand_ins = StandIns(tmp_path)
    stand_ins.need("date", "grep")
    stand_ins.add("kubectl")
    stand_ins.answers = [*BEFORE, *PODS, (K + "logs", SAYS.format(120), 0)]
    return stand_ins


def done_to(cluster: StandIns) -> list[str]:
    """Calls that change or wait, without the namespace."""
    short = [call.removeprefix(K) for call in cluster.calls]
    return [call for call in short if call.split()[0] in ("patch", "rollout")]


def patch_of(call: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(call.partition(" --patch ")[2])
    return found


def test_a_number_is_rolled_out_and_waited_for_and_what_the_pods_say_is_shown(cluster: StandIns) -> None:
    done = cluster.run(SCRIPT, "120")
    assert done.returncode == 0, done.stderr
    config, deployment, status = done_to(cluster)
    assert config == 'patch configmap backend --type merge --patch {"data":{"MAX_CONCURRENT_UPLOADS":"120"}}'
    assert deployment.startswith("patch deployment backend --patch ")
    assert "restartedAt" in str(patch_of(deployment))
    assert "image" not in str(patch_of(deployment))
    assert status == "rollout status deployment/backend --timeout 300s"
    lines = done.stdout.splitlines()
    assert "NAME READY STATUS" in lines
    assert "backend-a: Max concurrent uploads: 120" in lines
    assert "backend-b: Max concurrent uploads: 120" in lines
    assert "the next kubectl apply puts 50 back" in lines[-1]


def test_an_image_and_a_number_are_one_revision(cluster: StandIns) -> None:
    done = cluster.run(SCRIPT, "--image", "docker.io/somebody/gauzian:0.1.0-abc", "auto")
    assert done.returncode == 0, done.stderr
    deployments = [call for call in done_to(cluster) if call.startswith("patch deployment")]
    assert len(deployments) == 1
    spec = patch_of(deployments[0])["spec"]["template"]["spec"]  # type: ignore[index]
    assert spec == {"containers": [{"name": "backend", "image": "docker.io/somebody/gauzian:0.1.0-abc"}]}
    assert 'UPLOADS":"auto"' in done_to(cluster)[0]


def test_without_a_number_pods_are_only_started_anew(cluster: StandIns) -> None:
    assert cluster.run(SCRIPT).returncode == 0
    assert [call.split()[1] for call in done_to(cluster)] == ["deployment", "status"]


def test_pods_that_do_not_become_ready_are_taken_back_with_their_number(cluster: StandIns) -> None:
    status = K + "rollout status"
    cluster.answers += [(status, "error: timed out", 1), (status, "rolled out", 0)]
    done = cluster.run(SCRIPT, "120")
    assert done.returncode == 1
    assert done_to(cluster)[-3:] == UNDO
    assert "back to what was there (revision 7)" in done.stderr
    assert "backend-a:" not in done.stdout


def test_pods_that_say_another_number_are_taken_back(cluster: StandIns) -> None:
    cluster.answers[-1:] = [(K + "logs backend-a", SAYS.format(120), 0), (K + "logs backend-b", SAYS.format(50), 0)]
    done = cluster.run(SCRIPT, "120")
    assert done.returncode == 1
    assert "backend-b: Max concurrent uploads: 50" in done.stdout
    assert done_to(cluster)[-3:] == UNDO


def test_pods_that_say_nothing_are_shown_but_no_reason_to_go_back(cluster: StandIns) -> None:
    cluster.answers[-1] = (K + "logs", "level=warning msg=x", 0)
    done = cluster.run(SCRIPT, "120")
    assert done.returncode == 0
    assert "backend-a: says nothing" in done.stdout


def test_a_patch_that_is_refused_is_taken_back_too(cluster: StandIns) -> None:
    cluster.answers.append((K + "patch deployment", "forbidden", 1))
    done = cluster.run(SCRIPT, "120")
    assert done.returncode == 1
    assert done_to(cluster)[-3:] == UNDO


def test_where_going_back_fails_too_a_person_is_called(cluster: StandIns) -> None:
    cluster.answers += [(K + "rollout", "error", 1)]
    done = cluster.run(SCRIPT)
    assert done.returncode == 1
    assert "have a look yourself" in done.stderr


def test_nothing_is_touched_where_nothing_of_ours_is(cluster: StandIns) -> None:
    cluster.answers = [(K + "get deployment", "not found", 1)]
    assert cluster.run(SCRIPT, "120").returncode == 1
    assert done_to(cluster) == []


def test_a_dry_run_prints_the_commands_and_calls_nobody(cluster: StandIns) -> None:
    done = cluster.run(SCRIPT, "--dry-run", "--image", "gauzian:1", "120")
    assert done.returncode == 0
    assert cluster.calls == []
    commands = [shlex.split(line) for line in done.stdout.splitlines()]
    assert [command[4:6] for command in commands] == [
        ["patch", "configmap"],
        ["patch", "deployment"],
        ["rollout", "status"],
        ["get", "pods"],
    ]
    assert json.loads(commands[0][-1]) == {"data": {"MAX_CONCURRENT_UPLOADS": "120"}}, "as it can be pasted"


@pytest.mark.parametrize("words", [["0"], ["10001"], ["ten"], ["--force"], ["--image"], ["--image", 'x"}'], ["-1"]])
def test_a_wrong_command_line_touches_nothing(cluster: StandIns, words: list[str]) -> None:
    done = cluster.run(SCRIPT, *words)
    assert done.returncode == 2
    assert cluster.calls == []


def test_namespace_and_patience_are_variables(cluster: StandIns) -> None:
    cluster.answers = [(text.replace("gauzian ", "other "), said, code) for text, said, code in cluster.answers]
    assert cluster.run(SCRIPT, "120", NAMESPACE="other", TIMEOUT="9s").returncode == 0
    assert all(call.startswith("kubectl --namespace other ") for call in cluster.calls)
    assert any(call.endswith("--timeout 9s") for call in cluster.calls)
