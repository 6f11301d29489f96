"""One load test: a server of its own, k6 as a process of its own, and what is left on the server afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.load import ROOT
from tests.bench.machine import Server, running_server, wait_for
from tests.bench.proc import MemoryWatch, rss_mib
from tests.k6.scripts import Form

K6 = Path(sys.executable).with_name("k6")
CROSSED = 99  # k6's exit code when a threshold is
IDLE_SECONDS = 10.0
SCRUB_SECONDS = 120.0
_LAST_WORDS = 3000  # characters of a failed run's output that are shown


@dataclass
class Report:
    """What one load test found: `problems` is empty when all is well."""

    name: str
    seconds: float = 0.0
    exit_code: int | None = None
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)  # of k6, by metric
    output: str = ""
    peak_mib: float = 0.0  # of the server, and what it holds in the end
    after_mib: float = 0.0
    scrub: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def count(self, metric: str) -> int:
        return int(self.figures.get(metric, {}).get("count", 0))

    @property
    def crossed(self) -> list[str]:
        """The thresholds that did not hold, as in "chunks_refused: count>0"."""
        return [
            f"{metric}: {threshold}"
            for metric, figures in sorted(self.figures.items())
            for threshold, is_crossed in figures.get("thresholds", {}).items()
            if is_crossed
        ]


def run_script(script: Path, form: Form, *, work: Path) -> Report:
    """Start a server with the form's settings, run the script against it, look at what it left."""
    data = work / f"{script.stem}-data"
    with running_server(form.server | {"DATA_DIR": str(data)}, work=work, name=script.stem) as server:
        with MemoryWatch(server.pid) as memory:
            report = run_k6(script, form.script, most_seconds=form.most_seconds, work=work, port=server.port)
        report.peak_mib = memory.peak_mib
        _look_at_server(report, server)
        _scrub(report, data)
        report.after_mib = rss_mib(server.pid) if server.alive else 0.0
    return report


def run_k6(script: Path, settings: dict[str, str], *, most_seconds: float, work: Path, port: int = 0) -> Report:
    """k6 alone, bounded in time, with nobody to tell: no usage report, no control port, no configuration found."""
    report = Report(script.stem)
    summary, log = work / f"{script.stem}.json", work / f"{script.stem}.log"
    # The log is kept at errors: k6 warns of each request that the soak cuts off.
    command = [str(K6), "run", "--quiet", "--no-color", "--no-usage-report", "--address", ""]
    command += ["--summary-export", str(summary), "--log-output", f"file={log},level=error", str(script)]
    environment = {"PATH": os.environ["PATH"], "HOME": str(work), "GAUZIAN_URL": f"http://127.0.0.1:{port}"}
    began = time.monotonic()
    try:
        done = subprocess.run(
            command, env=environment | settings, capture_output=True, text=True, timeout=most_seconds, cwd=work
        )
        report.exit_code, report.output = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired:
        report.problems.append(f"k6 had not ended after {most_seconds:.0f} s")
    report.seconds = time.monotonic() - began
    report.output = (report.output + (log.read_text(errors="replace") if log.exists() else ""))[-_LAST_WORDS:]
    if summary.exists():
        report.figures = json.loads(summary.read_text())["metrics"]
    report.problems += [f"not so: {threshold}" for threshold in report.crossed]
    if report.exit_code and not report.crossed:
        report.problems.append(f"k6 ended with {report.exit_code}")
    return report


def _look_at_server(report: Report, server: Server) -> None:
    """All places free again, and no refusal that its client could not read."""
    if not server.alive:
        report.problems.append("the server has died")
        return
    places = "gauzian_upload_places_taken", "gauzian_download_places_taken"
    if not wait_for(lambda: not any(map(server.metrics().get, places)), IDLE_SECONDS):
        report.problems.append("places are still taken")
    rejected = int(server.metrics()["gauzian_rejected_uploads"])
    read, cut = report.count("chunks_refused"), report.count("chunks_cut")
    # A client that was cut off may have been refused without knowing it.
    if not read <= rejected <= read + cut:
        report.problems.append(f"{rejected} chunks were refused and {read} refusals read")


def _scrub(report: Report, data: Path) -> None:
    """`app.py scrub` beside the running service: it uses the same embedded PostgreSQL."""
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(data)}
    command = [sys.executable, "app.py", "scrub"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SCRUB_SECONDS)
    report.scrub = (done.stdout.strip().splitlines() or [""])[-1]
    if done.returncode != 0:
        report.problems.append(f"scrub: {report.scrub or done.stderr[-_LAST_WORDS:]}")
