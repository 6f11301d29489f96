"""A real Prometheus with the shipped configuration, only faster: it scrapes a server of ours twice a second."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from tests.deploy.debian import require_program
from tests.deploy.watching import PROMETHEUS, read_yaml

START_SECONDS = 20.0
_EVERY = "500ms"
_ADDRESS = re.compile(r'msg="Listening on" address=127\.0\.0\.1:(\d+)')


@dataclass(frozen=True)
class Prometheus:
    port: int

    def query(self, expression: str) -> list[float]:
        """The values that it gives now, without those that are no number."""
        vector = self.ask("query", query=expression)["result"]
        return [value for sample in vector if not isnan(value := float(sample["value"][1]))]

    def ask(self, what: str, **parameters: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", f"/api/v1/{what}?{urlencode(parameters)}")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert answer["status"] == "success", (parameters, answer)
        return answer["data"]

    def wait_for(self, expression: str, *, until: float) -> list[float]:
        """What it gives as soon as that is anything; empty when the time is over."""
        while not (values := self.query(expression)) and time.monotonic() < until:
            time.sleep(0.1)
        return values


@contextmanager
def running_prometheus(work: Path, *, target: str) -> Iterator[Prometheus]:
    """Ended, and everything it stored removed with `work`, on leaving."""
    program = require_program("prometheus", package="prometheus")
    config = read_yaml(PROMETHEUS / "prometheus.yml")
    config["global"] = dict.fromkeys(config["global"], _EVERY)
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    (work / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(PROMETHEUS / "rules.yml", work)
    log = work / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                program,
                *("--config.file", str(work / "prometheus.yml"), "--storage.tsdb.path", str(work / "series")),
                *("--web.listen-address", "127.0.0.1:0"),
            ],
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Prometheus(_port_of(process, log))
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port_of(process: subprocess.Popen[bytes], log: Path) -> int:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        told = log.read_text(errors="replace")
        found = _ADDRESS.search(told)
        if found and "Server is ready to receive web requests" in told:
            return int(found[1])
        time.sleep(0.05)
    raise RuntimeError(f"Prometheus did not start: {log.read_text(errors='replace')[-2000:]}")
