"""The row about a process that may have no more than 256 MiB: the storm, and an orderly end after it."""

from __future__ import annotations

import contextlib
import re
import sys

from tests.bench.bench import Bench, Line, answers, plus
from tests.bench.limit import CGROUPS
from tests.bench.load import merged
from tests.bench.payload import CHUNK_BYTES
from tests.bench.storms import STORM_CLIENTS, Storm

LIMIT_MIB = 256
WRAPPER = (sys.executable, "-m", "tests.bench.limit", str(LIMIT_MIB))


def storm_within_limit(bench: Bench) -> list[Line]:
    """It stops the server: what an orderly end says is its exit code."""
    rounds = [Storm(bench, STORM_CLIENTS, CHUNK_BYTES) for _ in range(2)]
    code = bench.server.stop()
    with contextlib.suppress(OSError):
        (CGROUPS / f"gauzian-{bench.server.pid}").rmdir()
    log = bench.server.log.read_text(errors="replace")
    kind = re.search(r"limit: (.*)", log)
    everyone = merged({str(number): one.outcome for number, one in enumerate(rounds)})
    peak = max(one.peak_mib for one in rounds)
    errors = log.count("MemoryError") + log.count("Traceback")
    return [
        Line(
            f"storm: {STORM_CLIENTS} × 10 MiB within {LIMIT_MIB} MiB",
            f"{everyone.read()} of {everyone.started} read, exit {code}",
            "all: 200 or 400 busy, exit 0",
            all(one.read_all for one in rounds) and code == 0 and kind is not None and not errors,
            f"{kind[1] if kind else 'NO LIMIT'}; {len(rounds)} rounds: {answers(everyone)}; "
            f"peak {plus(peak)} over {bench.idle_mib:.0f} MiB; {errors} tracebacks in the log",
            {"rounds": [one.figures() for one in rounds], "exit": code},
        )
    ]
