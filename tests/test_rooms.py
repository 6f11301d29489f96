"""The map of the house is true: imports go down, seams are imported in one place, rooms stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ROOT / "gauzian"
MODULES = sorted(path for path in HOUSE.rglob("*.py") if path.name != "__init__.py")

FLOORS = [
    {"assembly"},
    {"upload", "download", "drive"},
    {"accounts"},
    {"server", "web", "stores", "database"},
    {
        "settings",
        "budget",
        "bytebudget",
        "errors",
        "registration_errors",
        "access",
        "metrics",
        "logs",
        "values",
        "legacy_metrics",
        "tap",
        "spout",
    },
]
ONLY_IN = {
    "gauzian.settings": {"assembly"},
    "gauzian.budget": {"assembly"},
    "psycopg": {"database"},
    "psycopg_pool": {"database"},
    "minio": {"stores"},
    "aiohttp": {"stores"},
    "hypercorn": {"server"},
    "h11": {"server"},
    "argon2": {"accounts"},
    "aiosmtplib": {"accounts"},
    "prometheus_client": {"metrics", "legacy_metrics"},
}
GROUND = FLOORS[-1]
MOST_LINES = 300


def room_of(path: Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def floor_of(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            module = node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_room_imports_only_itself_and_lower_floors(path: Path) -> None:
    room = room_of(path)
    for name in imports_of(path):
        if not name.startswith("gauzian.") or name == "gauzian.__version__":
            continue
        other = name.split(".")[1]
        allowed = other == room or floor_of(other) > floor_of(room) or {other, room} <= GROUND
        assert allowed, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_seam_is_imported_in_one_place(path: Path) -> None:
    room = room_of(path)
    for name in imports_of(path):
        for seam, rooms in ONLY_IN.items():
            if name == seam or name.startswith(seam + "."):
                assert room in rooms | {seam.removeprefix("gauzian.")}, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(HOUSE)))
def test_a_module_has_a_sign_on_the_door_and_is_small(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), f"{path.relative_to(ROOT)} has no docstring"
    assert len(text.splitlines()) <= MOST_LINES, f"{path.relative_to(ROOT)} is too long"


def test_the_environment_is_read_by_nobody_in_the_house() -> None:
    for path in MODULES:
        text = path.read_text()
        assert "os.environ" not in text, path
        assert "os.getenv" not in text, path


def test_every_room_stands_on_a_floor() -> None:
    rooms = {room_of(path) for path in MODULES}
    assert rooms <= set().union(*FLOORS)
