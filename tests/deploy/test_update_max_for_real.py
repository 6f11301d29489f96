"""deploy/kubernetes/update-max.sh with the real kubectl, which speaks to a cluster that is made of one Deployment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.cluster import Cluster, running_cluster
from tests.deploy.test_update_max import SCRIPT


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path) as found:
        yield found


def run(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    kubectl = Path(sys.executable).parent
    given = {"PATH": f"{kubectl}:{os.environ['PATH']}", "KUBECONFIG": str(cluster.kubeconfig), "TIMEOUT": "20s"}
    given["HOME"] = str(cluster.kubeconfig.parent)
    return subprocess.run(["bash", SCRIPT, *words], env=given, capture_output=True, text=True, timeout=60)


def test_it_is_rolled_out(cluster: Cluster) -> None:
    done = run(cluster, "--image", "gauzian:after", "120")
    assert done.returncode == 0, done.stdout + done.stderr
    assert cluster.places == "120"
    (container,) = cluster.template["spec"]["containers"]
    assert container == {"name": "backend", "image": "gauzian:after", "env": [{"name": "KEPT", "value": "1"}]}
    assert "kubectl.kubernetes.io/restartedAt" in cluster.template["metadata"]["annotations"]
    assert 'deployment "backend" successfully rolled out' in done.stdout
    assert "backend-a: Max concurrent uploads: 120\nbackend-b: Max concurrent uploads: 120\n" in done.stdout
    assert "backend-old:" not in done.stdout, "it is leaving"


def test_it_is_taken_back(cluster: Cluster) -> None:
    cluster.says = "Max concurrent uploads: 50"
    done = run(cluster, "--image", "gauzian:after", "120")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "deployment.apps/backend rolled back" in done.stderr
    assert cluster.places == "50"
    assert cluster.template["spec"]["containers"][0]["image"] == "gauzian:before"
    assert "annotations" not in cluster.template["metadata"]
    assert "have a look yourself" not in done.stderr
