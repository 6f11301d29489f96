"""deploy/kubernetes/, rendered by kubectl's own kustomize.

python -m tests.deploy.kubernetes    writes monitoring/prometheusrule.yaml anew from prometheus/rules.yml
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import indent
from typing import Any

import yaml

from tests.bench.load import ROOT

HOME = ROOT / "deploy" / "kubernetes"
RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
RULE = HOME / "monitoring" / "prometheusrule.yaml"

_HEAD = """# Made from deploy/prometheus/rules.yml by `python -m tests.deploy.kubernetes`; change that one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: backend
  labels:
    app: backend
    release: prometheus # what the operator looks for; often the name of its Helm release
spec:
  groups:
"""


def render(directory: str) -> list[dict[str, Any]]:
    """The objects that `kubectl apply -k` would send."""
    kubectl = Path(sys.executable).with_name("kubectl")
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent"}
    done = subprocess.run(
        [kubectl, "kustomize", HOME / directory], capture_output=True, text=True, timeout=60, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def prometheus_rule() -> str:
    groups = RULES.read_text().split("\ngroups:\n", 1)[1]
    return _HEAD + indent(groups, "  ")


if __name__ == "__main__":
    RULE.write_text(prometheus_rule())
