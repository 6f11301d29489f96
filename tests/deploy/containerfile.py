"""A Containerfile, read: stages of instructions, with their flags apart and their variables filled in."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_FLAG = re.compile(r"--([a-z-]+)(?:=(\S+))?\s+")


@dataclass(frozen=True)
class Instruction:
    name: str
    flags: dict[str, str]
    rest: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.rest)

    @property
    def exec_form(self) -> list[str] | None:
        """None in the shell form, in which a shell is process 1 and keeps signals to itself."""
        return [str(word) for word in json.loads(self.rest)] if self.rest.startswith("[") else None


@dataclass
class Stage:
    base: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        return [found for found in self.instructions if found.name == name]

    def last(self, name: str) -> Instruction:
        return self.all(name)[-1]

    def pairs(self, name: str) -> dict[str, str]:
        """What ENV, LABEL and ARG set."""
        found = (word.partition("=") for instruction in self.all(name) for word in instruction.words)
        return {key: value for key, _, value in found}


def parse(text: str) -> list[Stage]:
    stages: list[Stage] = []
    arguments: dict[str, str] = {}
    for name, rest in _lines(text):
        if name == "ARG" and not stages:
            key, _, value = rest.partition("=")
            arguments[key] = value
        elif name == "FROM":
            base, _, stage = rest.partition(" AS ")
            stages.append(Stage(_filled(base, arguments), stage or str(len(stages))))
        else:
            flags, rest = _without_flags(rest)
            stages[-1].instructions.append(Instruction(name, flags, _filled(rest, stages[-1].pairs("ARG"))))
    return stages


def _lines(text: str) -> Iterator[tuple[str, str]]:
    """Instructions, each on one line, without comments."""
    kept = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in re.sub(r"\\\n\s*", "", "\n".join(kept)).splitlines():
        name, rest = line.split(None, 1)
        yield name.upper(), rest.strip()


def _without_flags(rest: str) -> tuple[dict[str, str], str]:
    flags = {}
    while match := _FLAG.match(rest):
        flags[match[1]] = match[2] or ""
        rest = rest[match.end() :]
    return flags, rest


def _filled(text: str, variables: dict[str, str]) -> str:
    return _VARIABLE.sub(lambda match: variables.get(match[1], match[0]), text)


def is_ignored(path: str, ignore_file: str) -> bool:
    """What .dockerignore says of a path: the last line that fits it or a directory above it decides."""
    ignored = False
    parts = path.split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
    for line in ignore_file.splitlines():
        pattern = line.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        tail = pattern.removeprefix("**/")
        names = [
            name for whole in above for name in ([whole, whole.rpartition("/")[2]] if tail != pattern else [whole])
        ]
        if any(fnmatch(name, tail) for name in names):
            ignored = not line.strip().startswith("!")
    return ignored
