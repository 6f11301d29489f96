"""Programs that are not here, stood in for: each writes down how it was called and answers from a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

# answers: for each program a list of [words its command line begins with, what it prints, exit code]; the first that
# fits counts. Each is used once if a later one fits as well: so the same question can be answered in two ways.
_PROGRAM = """#!{python}
import json, pathlib, sys
home = pathlib.Path({home!r})
name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
with open(home / "calls", "a") as calls:
    calls.write(json.dumps([name, *words]) + "\\n")
answers = json.loads((home / "answers").read_text())
fitting = [answer for answer in answers if " ".join([name, *words]).startswith(answer[0])]
if fitting:
    if len(fitting) > 1:
        answers.remove(fitting[0])
        (home / "answers").write_text(json.dumps(answers))
    print(fitting[0][1])
    sys.exit(fitting[0][2])
"""


@dataclass
class StandIns:
    home: Path
    answers: list[tuple[str, str, int]] = field(default_factory=list)

    def add(self, *names: str) -> None:
        (self.home / "bin").mkdir(exist_ok=True)
        for name in names:
            program = self.home / "bin" / name
            program.write_text(_PROGRAM.format(python=sys.executable, home=str(self.home)))
            program.chmod(0o755)

    def run(self, script: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Ours before all others, and of these only what every machine has."""
        (self.home / "answers").write_text(json.dumps(self.answers))
        (self.home / "calls").unlink(missing_ok=True)
        given = {"PATH": f"{self.home}/bin:{self.home}/tools", "HOME": str(self.home)} | environ
        return subprocess.run(
            ["/bin/bash", str(script), *arguments], env=given, capture_output=True, text=True, timeout=60
        )

    def need(self, *names: str) -> None:
        """Links to what the scripts use themselves: a docker that happens to be on this machine must not be called."""
        (self.home / "tools").mkdir(exist_ok=True)
        for name in names:
            found = next(path for folder in os.get_exec_path() if (path := Path(folder, name)).exists())
            (self.home / "tools" / name).symlink_to(found)

    @property
    def calls(self) -> list[str]:
        record = self.home / "calls"
        return [" ".join(json.loads(line)) for line in record.read_text().splitlines()] if record.exists() else []
