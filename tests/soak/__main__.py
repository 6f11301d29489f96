"""`python -m tests.soak`: half load for a long time; fails if anything of the server grows, or any answer is wrong.

--minutes 20        how long          --store disk|s3     which store
--seed N            the same acts     --json FILE         all samples and verdicts
--smoke             a run too short for slopes: what cannot be told does not fail it
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import signal
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tests.bench.load import ROOT
from tests.bench.payload import MIB
from tests.soak import report
from tests.soak.slope import Judgement, Verdict
from tests.soak.soak import Course, place_for, soak
from tests.soak.watch import Watch

FREE_BYTES = 4096 * MIB
# Beyond the minutes asked for: start, closing, and patience with a server that hangs.
GRACE_SECONDS = 240.0
REST_SECONDS = 6.0
TURN_REST = REST_SECONDS + 4.0  # with the end of all work before it, and the looking
TURNS = 14
SHORTEST_TURN, LONGEST_TURN = 20.0, 50.0
SMOKE_WORK_SECONDS = 5.0  # enough for a silent client to be cut, and for a crowd


@dataclass(frozen=True)
class Options:
    minutes: float
    store: str
    seed: int
    json: Path | None
    smoke: bool

    @classmethod
    def parse(cls, arguments: list[str]) -> Options:
        parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        parser.add_argument("--minutes", type=float, default=20.0)
        parser.add_argument("--store", choices=["disk", "s3"], default="disk")
        parser.add_argument("--seed", type=int, default=None)
        parser.add_argument("--json", type=Path)
        parser.add_argument("--smoke", action="store_true")
        given = parser.parse_args(arguments)
        seed = random.randrange(10_000) if given.seed is None else given.seed
        return cls(given.minutes, given.store, seed, given.json, given.smoke)

    @property
    def course(self) -> Course:
        """Rests enough for a slope in a short run, work enough in a long one. The server gives memory back every five
        seconds: a rest lasts longer.
        """
        seconds = self.minutes * 60
        if self.smoke:
            return Course(seconds, self.seed, SMOKE_WORK_SECONDS, 0.2)
        turn = min(LONGEST_TURN, max(SHORTEST_TURN, seconds / TURNS))
        return Course(seconds, self.seed, turn - TURN_REST, REST_SECONDS)


def main() -> int:
    options = Options.parse(sys.argv[1:])
    # Asked to end, or out of time, it ends what it started, too.
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGALRM, _end)
    signal.setitimer(signal.ITIMER_REAL, options.minutes * 60 + GRACE_SECONDS)
    home = ROOT / ".bench"
    home.mkdir(exist_ok=True)
    if shutil.disk_usage(home).free < FREE_BYTES:
        print(f"needs {FREE_BYTES / MIB:.0f} MiB free at {home}", file=sys.stderr)
        return 2
    print(f"{options.minutes:g} minutes on {options.store}, seed {options.seed}", flush=True)
    work = Path(tempfile.mkdtemp(prefix="soak-", dir=home))
    try:
        with place_for(options.store) as place:
            watch = soak(options.course, place, work)
        if watch.world.ledger.failures:
            print(f"the server's log: {shutil.copy(watch.server.log, home / 'soak.log')}")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return tell(watch, options)


def tell(watch: Watch, options: Options) -> int:
    """Print what there is to say; 0 only when nothing rises and nothing went wrong."""
    judgements = watch.judgements()
    ledger = watch.world.ledger
    print("\n".join(["", *report.work_done(ledger, watch), "", *report.table(judgements), *report.failures(ledger)]))
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(_figures(watch, judgements, options), indent=1))
    accepted = {Verdict.FLAT, Verdict.UNSURE} if options.smoke else {Verdict.FLAT}
    bad = [name for name, judgement in judgements.items() if judgement.verdict not in accepted]
    failed = bool(bad) or bool(ledger.failures)
    levels = f"{len(bad)} of {len(judgements)} levels fail" + (f" ({', '.join(bad)})" if bad else "")
    print(f"\n{'FAILED' if failed else 'ok'}: {levels}, {ledger.failures.total()} failures; seed {options.seed}")
    return 1 if failed else 0


def _figures(watch: Watch, judgements: dict[str, Judgement], options: Options) -> dict[str, Any]:
    ledger = watch.world.ledger
    verdicts = {name: asdict(told) | {"verdict": told.verdict.value} for name, told in judgements.items()}
    figures = {
        "options": {"minutes": options.minutes, "store": options.store, "seed": options.seed},
        "verdicts": verdicts,
        "acts": ledger.acts,
        "answers": ledger.answers,
        "failures": ledger.failures,
        "examples": ledger.examples,
        "rests": watch.rests,
        "loaded": watch.loaded,
    }
    finite: dict[str, Any] = _finite(figures)
    return finite


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _end(number: int, frame: FrameType | None) -> None:
    print(f"ended by {signal.Signals(number).name}", file=sys.stderr)
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
