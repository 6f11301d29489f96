"""What is written for Prometheus, Grafana and operators, read: rules, and every query that stands anywhere."""

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
# gauzian_upload_places, gauzian:upload_places_used:ratio; not gauzian:8080.
_METRIC = re.compile(r"\bgauzian_[a-z0-9_]+|\bgauzian:[a-z0-9_]+:[a-z0-9_]+")
_COMPARISON = re.compile(r" (>=|<=|==|!=|>|<) ")
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


def rule_queries() -> list[str]:
    """Alerts say 0 or 1 here, instead of nothing as long as nothing is wrong."""
    return [_COMPARISON.sub(r" \1 bool ", rule["expr"]) if "alert" in rule else rule["expr"] for rule in rules()]


def runbook_sections() -> dict[str, str]:
    """Heading of the third level to what stands below it."""
    parts = re.split(r"^### (.+)$", RUNBOOK.read_text().split("\n## Alerts\n")[1].split("\n## ")[0], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def queries_in(text: str) -> list[str]:
    """Its blocks of PromQL."""
    return [block.strip() for block in _BLOCK.findall(text)]


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


def texts_that_name_metrics() -> Iterator[Path]:
    yield ROOT / "README.md"
    for path in sorted((ROOT / "deploy").rglob("*")):
        is_text = path.suffix in {".md", ".yml", ".yaml", ".json"} and path.name != "CHANGES.md"
        if is_text and (path.suffix == ".md" or path.is_relative_to(PROMETHEUS) or path.is_relative_to(GRAFANA)):
            yield path
