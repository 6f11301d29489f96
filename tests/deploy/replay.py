"""A Containerfile's steps done for real where there is no container engine: every stage in a directory that stands for
its root, every RUN by a shell in it, the program as somebody without rights on a tree that nobody may write to.

What stands for / is a directory, so the paths that the file itself makes are written anew in its commands. Steps that
change the system around them (a user account) are not done: they are left in `left_out` for the test to look at.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.machine import Server
from tests.deploy.containerfile import Stage, is_ignored

# Of the file's own making; every other absolute path (the caches', the base image's) is left as it is.
_OWN = re.compile(r"(?<![\w/.])/(?=(?:opt/gauzian|data)\b)")
_NOBODY = 65534  # has a name everywhere, which initdb asks for


@dataclass(frozen=True)
class Image:
    root: Path
    stage: Stage
    left_out: list[str]

    def moved(self, words: list[str]) -> list[str]:
        return [_OWN.sub(f"{self.root}/", word) for word in words]

    @property
    def directory(self) -> Path:
        return _below(self.root, self.stage.last("WORKDIR").rest)

    def environment(self, **more: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"]} | self.stage.pairs("ENV") | more

    @property
    def entrypoint(self) -> list[str]:
        return self.stage.last("ENTRYPOINT").exec_form or []

    @property
    def command(self) -> list[str]:
        return self.stage.last("CMD").exec_form or []

    def contents(self) -> dict[str, tuple[int, int]]:
        """Every path with size and time of change."""
        found = ((path, path.lstat()) for path in self.root.rglob("*"))
        return {str(path): (status.st_size, status.st_mtime_ns) for path, status in found}

    def run(self, words: list[str], **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.moved(words),
            cwd=self.directory,
            env=self.environment(**environ),
            capture_output=True,
            text=True,
            timeout=60,
            **somebody(),
        )

    @contextmanager
    def running(self, log: Path, **environ: str) -> Iterator[Server]:
        """Process 1 as the engine would start it: no shell between, nothing in its environment but what is said."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.moved(self.entrypoint + self.command),
                cwd=self.directory,
                env=self.environment(**environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **somebody(),
            )
        server = Server(process, log)
        try:
            server.wait_until_ready()
            yield server
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(30)


def somebody() -> dict[str, Any]:
    """For subprocess: an unprivileged user; whoever we are, if we may not become another one."""
    return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def build(stages: list[Stage], scratch: Path, context: Path) -> Image:
    roots: dict[str, Path] = {}
    left_out: list[str] = []
    interpreters = scratch / "bin"
    interpreters.mkdir()
    (interpreters / "python3").symlink_to(_python_for_everybody())
    environment = {"PATH": f"{interpreters}:{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/")}
    environment |= {key: value for key, value in os.environ.items() if key.startswith(("PIP_", "SSL_"))}
    for stage in stages:
        root = roots[stage.name] = scratch / stage.name
        root.mkdir()
        directory = root
        for step in stage.instructions:
            if step.name == "WORKDIR":
                directory = _below(root, step.rest)
                directory.mkdir(parents=True, exist_ok=True)
            elif step.name == "COPY":
                _copy(step.words, directory, root, roots.get(step.flags.get("from", "")), context)
            elif step.name == "RUN" and step.rest.startswith("groupadd"):
                left_out.append(step.rest)
            elif step.name == "RUN":
                line = _OWN.sub(f"{root}/", step.rest)
                done = subprocess.run(
                    ["/bin/sh", "-c", line], cwd=directory, env=environment, capture_output=True, text=True, timeout=170
                )
                assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
    image = Image(roots[stages[-1].name], stages[-1], left_out)
    for path in [image.root, *image.root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    return image


def _python_for_everybody() -> Path:
    """What stands for the base image's python3. Ours may be one that only root gets at."""
    for path in (Path(sys._base_executable), Path("/usr/bin/python3"), Path("/usr/local/bin/python3")):  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            command = [path.resolve(), "-c", "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))"]
            if subprocess.run(command, cwd="/", env={}, capture_output=True, **somebody()).returncode == 0:
                return path.resolve()
    raise AssertionError("no Python 3.11 with venv that an unprivileged user may run: apt-get install python3-venv")


def take_away(scratch: Path) -> None:
    for path in [scratch, *scratch.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(scratch)


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _copy(words: list[str], directory: Path, root: Path, source_root: Path | None, context: Path) -> None:
    *sources, target = words
    into = _below(root, target) if target.startswith("/") else directory / target
    for source in sources:
        if source_root is not None:
            shutil.copytree(_below(source_root, source), into, symlinks=True, dirs_exist_ok=True)
            continue
        ignore_file = (context / ".dockerignore").read_text()
        found = context / source
        files = [path for path in found.rglob("*") if path.is_file()] if found.is_dir() else [found]
        for path in files:
            if not is_ignored(str(path.relative_to(context)), ignore_file):
                here = into / path.relative_to(found) if found.is_dir() else into / path.name
                here.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                shutil.copyfile(path, here)
                here.chmod(0o600)  # a checkout under umask 077: what must be readable the file itself has to make so
