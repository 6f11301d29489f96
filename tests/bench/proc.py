"""What the kernel says about a process: memory, CPU, descriptors, sockets, threads, children."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.bench.payload import MIB

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def rss_mib(pid: int) -> float:
    """Resident memory of the process alone, in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / MIB


def available_mib() -> float:
    """What the machine could give to a process now without swapping."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1024
    return 0.0


def parse_stat(text: str) -> tuple[int, float]:
    """Parent and CPU seconds (user + system) of one /proc/<pid>/stat line; the name may hold spaces and brackets."""
    fields = text[text.rindex(")") + 2 :].split()
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICKS


def cpu_seconds(pid: int) -> float:
    return parse_stat(Path(f"/proc/{pid}/stat").read_text())[1]


def descendants(pid: int) -> list[int]:
    """All processes below this one, nearest first."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                parent, _ = parse_stat(Path(f"/proc/{entry}/stat").read_text())
                children.setdefault(parent, []).append(int(entry))
    found = [pid]
    for known in found:
        found.extend(children.get(known, []))
    return found[1:]


def family_cpu_seconds(pid: int) -> float:
    """CPU of everything below the process that still lives: for the server that is its PostgreSQL."""
    total = 0.0
    for child in descendants(pid):
        with contextlib.suppress(OSError):
            total += cpu_seconds(child)
    return total


def is_backend(pid: int) -> bool:
    """Is this a PostgreSQL process that serves one connection? ("postgres: user database [local] idle")"""
    with contextlib.suppress(OSError):
        title = Path(f"/proc/{pid}/cmdline").read_bytes()
        return title.startswith(b"postgres: ") and any(where in title for where in (b"[local]", b"127.0.0.1", b"::1"))
    return False


@dataclass(frozen=True)
class Holdings:
    """What a process holds on to; database connections are counted at their other end, in a PostgreSQL below it."""

    descriptors: int
    sockets: int
    threads: int
    database_connections: int

    @classmethod
    def of(cls, pid: int) -> Holdings:
        links = []
        for entry in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                links.append(os.readlink(f"/proc/{pid}/fd/{entry}"))
        sockets = sum(link.startswith("socket:") for link in links)
        return cls(len(links), sockets, len(os.listdir(f"/proc/{pid}/task")), sum(map(is_backend, descendants(pid))))


class MemoryWatch:
    """Samples a process's resident memory until it is left; `peak_mib` sees between two samples as well.

    `exact=False` leaves the kernel's high-water mark to a watch inside this one. Over `most_mib` the process is killed.
    """

    def __init__(
        self, pid: int, *, every_seconds: float = 0.1, exact: bool = True, most_mib: float | None = None
    ) -> None:
        self.pid = pid
        self.series: list[tuple[float, float]] = []  # seconds since the start, MiB
        self.began = 0.0
        self.killed = False
        self._every = every_seconds
        self._exact = exact
        self._most_mib = most_mib
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory-watch", daemon=True)
        self._can_reset = False
        self._high_water = 0.0

    def __enter__(self) -> MemoryWatch:
        # "5" makes the kernel forget the high-water mark, so that VmHWM becomes the exact peak from now on.
        with contextlib.suppress(OSError):
            if self._exact:
                Path(f"/proc/{self.pid}/clear_refs").write_text("5")
                self._can_reset = True
        self.began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._read_high_water()

    @property
    def peak_mib(self) -> float:
        return max([self._high_water, *(mib for _, mib in self.series)])

    def _sample(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                now = rss_mib(self.pid)
                self.series.append((round(time.monotonic() - self.began, 2), round(now, 2)))
                if self._most_mib is not None and now > self._most_mib:
                    self.killed = True
                    os.kill(self.pid, signal.SIGKILL)
                    return
                if self._stop.wait(self._every):
                    return

    def _read_high_water(self) -> None:
        if self._can_reset:
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        self._high_water = int(line.split()[1]) / 1024
