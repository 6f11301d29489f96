"""A real S3 server for tests and benches: `rclone serve s3` over a directory of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

_START_SECONDS = 15
_ADDRESS = re.compile(r"Starting s3 server on \[(http://[^/\]]+)")


@dataclass(frozen=True)
class S3Address:
    endpoint: str
    access_key: str
    secret_key: str
    data_dir: Path
    process: subprocess.Popen[bytes]


@contextmanager
def running_s3(*, remembering: bool = True) -> Iterator[S3Address]:
    """Started and ready, on a port of the kernel's choice; ended, with everything it stored, on leaving.

    Buckets are directories of `data_dir`, objects are files in them. `remembering`: with rclone's cache of directories,
    which makes it twice as fast and lets about one in ten thousand deletes that follow their put at once answer 204
    and keep the object.
    """
    with TemporaryDirectory(prefix="gauzian-s3-") as directory:
        data_dir = Path(directory, "data")
        data_dir.mkdir()
        log = Path(directory, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    str(Path(sys.executable).with_name("rclone")),
                    *("serve", "s3", "--config", "", "--addr", "127.0.0.1:0"),
                    *("--auth-key", "gauzian-access,gauzian-secret", "--vfs-cache-mode", "off"),
                    # Else it compares each new name with all others, and a chunk costs the more the more there are.
                    "--no-unicode-normalization",
                    *("--dir-cache-time", "5m" if remembering else "0s"),
                    str(data_dir),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            endpoint = _wait_for_address(log, process)
            yield S3Address(endpoint, "gauzian-access", "gauzian-secret", data_dir, process)
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for_address(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := _ADDRESS.search(log.read_text()):
            return found[1]
        time.sleep(0.02)
    raise RuntimeError(f"rclone did not start: {log.read_text()}")
