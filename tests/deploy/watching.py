"""What is written for Prometheus and Grafana, read: alerts and their tests, and every query that stands anywhere."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
RUNBOOK = ROOT / "deploy" / "README.md"

_BLOCK = re.compile(r"^```promql\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_METRIC = re.compile(r"\bgauzian[_:][a-z0-9_:]+")
_RATE_INTERVAL = "$__rate_interval"  # Grafana's word for a window that holds a few scrapes


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def rules() -> list[dict[str, Any]]:
    return [rule for group in read_yaml(PROMETHEUS / "rules.yml")["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((GRAFANA / "gauzian.json").read_text())
    return loaded


def panels() -> list[dict[str, Any]]:
    """Those that show something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def runbook_queries() -> list[str]:
    return [block.strip() for block in _BLOCK.findall(RUNBOOK.read_text())]


def dashboard_queries() -> list[str]:
    """As Grafana would send them, for all instances."""
    variables = {item["name"]: item["query"] for item in dashboard()["templating"]["list"] if item["type"] == "query"}
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [
        re.sub(r"\$(\w+)", lambda word: ".*" if word[1] in variables else word[0], expr.replace(_RATE_INTERVAL, "5m"))
        for expr in found
    ]


def metrics_named_in(text: str) -> set[str]:
    return set(_METRIC.findall(text))


def texts() -> Iterator[Path]:
    """Everything in which a metric may be named."""
    yield ROOT / "README.md"
    for path in sorted((ROOT / "deploy").rglob("*")):
        if path.suffix in {".md", ".yml", ".yaml", ".json"} and path.name != "CHANGES.md":
            yield path
