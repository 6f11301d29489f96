"""The real server as a process of its own, on a data directory of its own, and what its /metrics say."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench.account import Unexpected, ask
from tests.bench.load import ROOT
from tests.bench.proc import descendants, rss_mib

START_SECONDS = 120.0  # the first start makes a database cluster
STOP_SECONDS = 45.0
_ADDRESS = re.compile(r"https?://127\.0\.0\.1:(\d+)")
_PROBES = re.compile(r"\(probes: http://127\.0\.0\.1:(\d+)\)")
_SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*(?:\{.*\})?) (\S+)$")
# The server decides from its own defaults: nothing of the caller's environment but what a program needs to run at all.
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TMPDIR", "VIRTUAL_ENV")

COMMAND = (sys.executable, "app.py", "serve")


class Server:
    """A running server: where it listens, which process it is."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.pid = process.pid
        self.log = log
        self.port = 0
        self.probe_port: int | None = None

    def wait_until_ready(self) -> None:
        until = time.monotonic() + START_SECONDS
        while not self.port:
            told = self.log.read_text(errors="replace")
            found, probes = _ADDRESS.search(told), _PROBES.search(told)
            self.port = int(found[1]) if found and told.endswith("\n") else 0
            self.probe_port = int(probes[1]) if probes else None
            self._check_alive(until)
        while True:
            with contextlib.suppress(OSError):
                if ask(self.probe_port or self.port, "GET", "/health/ready", seconds=5)[0] == 200:
                    return
            self._check_alive(until)

    def _check_alive(self, until: float) -> None:
        if self.process.poll() is not None or time.monotonic() > until:
            tail = self.log.read_text(errors="replace")[-2000:]
            raise Unexpected(f"the server did not start; its last words:\n{tail}")
        time.sleep(0.05)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def rss_mib(self, seconds: float = 1.0) -> float:
        """The median over a moment, so that one passing piece does not count."""
        samples, until = [rss_mib(self.pid)], time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.05)
            samples.append(rss_mib(self.pid))
        return statistics.median(samples)

    def metrics(self) -> dict[str, float]:
        status, text = ask(self.probe_port or self.port, "GET", "/metrics", seconds=10)
        if status != 200:
            raise Unexpected(f"/metrics: {status}")
        return parse_metrics(str(text))

    def stop(self) -> int | None:
        """SIGTERM, patience, then SIGKILL for it and what it left behind. None when it had to be killed."""
        family = descendants(self.pid)
        if self.alive:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return None
        finally:
            for pid in family:
                with contextlib.suppress(OSError):
                    if self.process.pid != pid and f"{self.log.parent}" in Path(f"/proc/{pid}/cmdline").read_text():
                        os.kill(pid, signal.SIGQUIT)


def parse_metrics(text: str) -> dict[str, float]:
    """Sample (with its labels, as written) to value."""
    found = (_SAMPLE.match(line) for line in text.splitlines() if not line.startswith("#"))
    return {match[1]: float(match[2]) for match in found if match}


@contextlib.contextmanager
def running_server(
    settings: dict[str, str], *, work: Path, command: tuple[str, ...] = COMMAND, name: str = "server"
) -> Iterator[Server]:
    """The server, ready, on a fresh data directory below `work`; stopped and removed in the end."""
    home = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=work))
    environment = {key: os.environ[key] for key in _INHERITED if key in os.environ}
    environment |= {
        "HOST": "127.0.0.1",
        "PORT": "0",
        "DATA_DIR": str(home / "data"),
        "PYTHONUNBUFFERED": "1",
    } | settings
    log = home / "output"
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        server = Server(process, log)
        try:
            server.wait_until_ready()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def store_settings(store: str) -> Iterator[dict[str, str]]:
    """Environment that makes the server use this store; for "s3" a real S3 server runs meanwhile."""
    if store == "disk":
        yield {}
        return
    from tests.rclone import running_s3

    with running_s3() as s3:
        yield {
            "S3_ENDPOINT": s3.endpoint,
            "S3_ACCESS_KEY": s3.access_key,
            "S3_SECRET_KEY": s3.secret_key,
            "S3_BUCKET": "gauzian-bench",
        }


def wait_for(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll until it holds or the time is over; says whether it held."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
