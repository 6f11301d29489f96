"""Small programs in the place of those that a runbook needs a whole machine for: systemctl, runuser, and pip's part of
`make install`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.bench.load import ROOT

# Starts and stops the real service: environment from $CONF alone, as the unit does it; returns when it has ended.
_SYSTEMCTL = """#!{python}
import os, pathlib, signal, subprocess, sys, time
home = pathlib.Path("{home}")
pid_file = home / "pid"

def runs(pid):
    try:
        return pathlib.Path(f"/proc/{{pid}}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False

def stop():
    if pid_file.exists():
        pid = int(pid_file.read_text())
        pid_file.unlink()
        if runs(pid):
            os.kill(pid, signal.SIGTERM)
        until = time.monotonic() + 60
        while runs(pid):
            assert time.monotonic() < until, "it does not stop"
            time.sleep(0.02)

def start():
    lines = pathlib.Path(os.environ["CONF"]).read_text().split()
    environment = dict(line.split("=", 1) for line in lines) | {{"PATH": os.environ["PATH"]}}
    command = [os.environ["GAUZIAN"] + "/.venv/bin/python", "app.py", "serve"]
    with open(home / "log", "ab") as log:
        process = subprocess.Popen(command, cwd=os.environ["GAUZIAN"], env=environment, stdin=subprocess.DEVNULL,
                                   stdout=log, stderr=log, start_new_session=True)
    pid_file.write_text(str(process.pid))

verb, unit = sys.argv[1:]
assert unit == "gauzian" and verb in ("start", "stop", "restart"), sys.argv
if verb in ("stop", "restart"):
    stop()
if verb in ("start", "restart"):
    start()
"""

_RUNUSER = """#!/bin/sh
[ "$1 $2 $3" = "-u gauzian --" ] || exit 64
shift 3
exec "$@"
"""


@dataclass(frozen=True)
class Machine:
    """A directory that looks like a machine on which GAUZIAN is installed."""

    home: Path
    environment: dict[str, str]

    @property
    def program(self) -> Path:
        return Path(self.environment["GAUZIAN"])

    @property
    def settings(self) -> Path:
        return Path(self.environment["CONF"])

    def log(self) -> str:
        return (self.home / "log").read_text()

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-euo", "pipefail", "-c", script]
        return subprocess.run(command, env=self.environment, cwd=self.home, capture_output=True, text=True, timeout=120)


def set_up_machine(home: Path, *, port: int) -> Machine:
    """The program as a git repository of its own with one tag, v1; its requirements are those installed here."""
    programs = home / "bin"
    programs.mkdir()
    for name, text in (("systemctl", _SYSTEMCTL.format(python=sys.executable, home=home)), ("runuser", _RUNUSER)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    program = home / "program"
    program.mkdir()
    for name in ("app.py", "gauzian", "migrations", "Makefile", "requirements.txt", ".gitignore"):
        here = ROOT / name
        if here.is_dir():
            shutil.copytree(here, program / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(here, program / name)
    (program / ".venv").mkdir()
    for entry in Path(sys.prefix).iterdir():
        if not entry.name.startswith(".installed"):
            (program / ".venv" / entry.name).symlink_to(entry)
    (program / ".venv" / ".installed").touch()
    settings = home / "gauzian.env"
    settings.write_text(f"DATA_DIR={home}/data\nPORT={port}\n")
    named = {
        "GAUZIAN": str(program),
        "CONF": str(settings),
        "DATA_DIR": f"{home}/data",
        "BACKUP": f"{home}/backup",
        "URL": f"http://127.0.0.1:{port}",
    }
    machine = Machine(home, {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(home), "LANG": "C.UTF-8"} | named)
    machine.run("git -C $GAUZIAN init -q").check_returncode()
    commit(machine, "v1")
    return machine


def commit(machine: Machine, tag: str) -> None:
    who = "-c user.name=nobody -c user.email=nobody@example.org -c commit.gpgsign=false"
    git = f"git -C $GAUZIAN {who}"
    machine.run(f"{git} add -A; {git} commit -qm {tag}; {git} tag -a -m {tag} {tag}").check_returncode()
