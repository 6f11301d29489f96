"""`python -m tests.k6 [--short] [script ...]`: runs the load tests, each against a server that it starts itself.

Prints the key figures of each and exits 1 if a threshold of one does not hold. The long form takes about 15 minutes,
the short one half a minute. Of the environment it passes on to the scripts what tests/k6/lib/settings.js reads, as in

    STAGES=30s:50,1m:200 python -m tests.k6 test-upload-advanced
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.k6.run import Report, run_script
from tests.k6.scripts import FREE_BYTES, SCRIPTS, VARIABLES, Script


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.k6", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--short", action="store_true", help="the form that make test runs as well")
    parser.add_argument("scripts", nargs="*", metavar="script", help=" | ".join(script.name for script in SCRIPTS))
    given = parser.parse_args()
    names = [Path(name).stem for name in given.scripts]
    if unknown := set(names) - {script.name for script in SCRIPTS}:
        parser.error(f"no such script: {', '.join(sorted(unknown))}")
    wanted = [script for script in SCRIPTS if not names or script.name in names]
    # Asked to end, it ends what it started, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="gauzian-k6-") as work:
        if not given.short and shutil.disk_usage(work).free < FREE_BYTES:
            parser.error(f"needs {FREE_BYTES / 1e9:.0f} GB free at {work}")
        reports = [run(script, short=given.short, work=Path(work)) for script in wanted]
    failed = [report.name for report in reports if not report.ok]
    print(f"\n{len(reports) - len(failed)} of {len(reports)} load tests passed")
    return 1 if failed else 0


def run(script: Script, *, short: bool, work: Path) -> Report:
    form = script.short if short else script.long
    own = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    report = run_script(script.path, replace(form, script=form.script | own), work=work)
    print(told(report), flush=True)
    return report


def told(report: Report) -> str:
    """The key figures, and for a test that failed k6's own words."""
    files = ("whole", "damaged", "given_up", "taken_back")
    chunks = ("stored", "refused", "cut")
    lines = [
        f"{report.name}: {'ok' if report.ok else 'FAILED'} after {report.seconds:.1f} s",
        f"    files: {counted(report, 'files', files)}",
        f"    chunks: {counted(report, 'chunks', chunks)}; unexpected answers: {report.count('unexpected_answers')}",
        f"    chunk {milliseconds(report, 'chunk_duration')}; download {milliseconds(report, 'download_duration')}",
        f"    server: at most {report.peak_mib:.0f} MiB, then {report.after_mib:.0f}; scrub: {report.scrub}",
    ]
    lines += [f"    {problem}" for problem in report.problems]
    return "\n".join(lines) + ("" if report.ok else f"\n{report.output}")


def counted(report: Report, what: str, fates: tuple[str, ...]) -> str:
    return ", ".join(f"{report.count(f'{what}_{fate}')} {fate.replace('_', ' ')}" for fate in fates)


def milliseconds(report: Report, metric: str) -> str:
    figures = report.figures.get(metric, {})
    return f"{figures.get('med', 0):.0f} ms, p95 {figures.get('p(95)', 0):.0f} ms"


if __name__ == "__main__":
    sys.exit(main())
