"""deploy/compose.yaml, read as Compose reads it: with its variables filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from tests.bench.load import ROOT

DEPLOY = ROOT / "deploy"
FILE = DEPLOY / "compose.yaml"
TEMPLATE = DEPLOY / "env.template"
_VARIABLE = re.compile(r"\$\{(\w+)(?::([?-])([^}]*))?\}")


class Refused(Exception):
    """Compose would not start: a variable that must be set is not."""


def variables() -> dict[str, tuple[str, str]]:
    """Each with what stands behind it: ("?", complaint), ("-", default) or ("", "")."""
    return {name: (sign, more) for name, sign, more in _VARIABLE.findall(FILE.read_text())}


def read_compose(environ: Mapping[str, str]) -> dict[str, Any]:
    def value(match: re.Match[str]) -> str:
        name, sign, more = match.groups()
        if environ.get(name):
            return environ[name]
        if sign != "-":
            raise Refused(f"{name}: {more}")
        return str(more)

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: filled(below) for name, below in node.items()}
        if isinstance(node, list):
            return [filled(below) for below in node]
        return _VARIABLE.sub(value, node) if isinstance(node, str) else node

    found: dict[str, Any] = filled(yaml.safe_load(FILE.read_text()))
    return found


def read_env_file(text: str) -> dict[str, str]:
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return {name: value for name, _, value in (line.partition("=") for line in lines)}
