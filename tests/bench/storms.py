"""A storm: many clients at once with a chunk each, two probes beside them, the server's memory meanwhile."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, dataclass, field

from tests.bench.bench import Bench
from tests.bench.curve import Curve
from tests.bench.load import Load, merged
from tests.bench.payload import CHUNK_BYTES, GB
from tests.bench.plan import Group, Outcome, Plan
from tests.bench.proc import MemoryWatch, cpu_seconds

STORM_CLIENTS = 1000
STORM_SECONDS = 60.0
PROBE_EVERY_SECONDS = 0.02
LIVE = "GET /health/live"
# Each on a connection of its own, as an operator's probe comes; and one that keeps its connection, as a proxy does.
PROBES = (
    Group("new", 100_000, LIVE, ("Connection: close",), pace_seconds=PROBE_EVERY_SECONDS),
    Group("kept", 1, LIVE, requests=100_000, every_seconds=PROBE_EVERY_SECONDS),
)
# The same as "new" on PROBE_PORT, if the server has one.
ASIDE = Group("aside", 100_000, LIVE, ("Connection: close",), pace_seconds=PROBE_EVERY_SECONDS)


class Storm:
    """One round of it. `probe` asks on a new connection each time, `kept` on one that was there before, `aside` on a
    new one to PROBE_PORT.
    """

    def __init__(self, bench: Bench, clients: int, size: int) -> None:
        with bench.uploads(clients, size) as files:
            groups = tuple(user.raw_chunks(file_id, share, payload=size) for user, file_id, share in files)
            port, pid = bench.server.port, bench.server.pid
            probes = {port: PROBES} | ({bench.server.probe_port: (ASIDE,)} if bench.server.probe_port else {})
            with contextlib.ExitStack() as stack:
                crowd = stack.enter_context(Load(Plan(port, groups, STORM_SECONDS)))
                probers = [
                    stack.enter_context(Load(Plan(where, what, STORM_SECONDS + 20, until_stopped=True)))
                    for where, what in probes.items()
                ]
                watch = stack.enter_context(MemoryWatch(pid))
                for prober in probers:
                    prober.go()
                cpu = cpu_seconds(pid)
                began = time.monotonic()
                crowd.go()
                crowd.result()
                self.when = (began, time.monotonic())
                self.cpu_seconds = round(cpu_seconds(pid) - cpu, 2) if bench.server.alive else 0.0
                for prober in probers:
                    prober.stop()
                    prober.result()
        self.seconds, self.driver_cpu_seconds = crowd.seconds, crowd.cpu_seconds
        self.outcome = merged(crowd.groups)
        self.probe, self.kept = probers[0].groups["new"], probers[0].groups["kept"]
        self.aside = probers[1].groups["aside"] if bench.server.probe_port else None
        self.peak_mib = bench.peak_over_idle(watch)
        self.rest_mib = 0.0

    @property
    def read_all(self) -> bool:
        outcome = self.outcome
        served = outcome.statuses.get("200", 0) + outcome.statuses.get("400 uploads_busy", 0)
        return outcome.answered_all and served == outcome.started and outcome.read(200) > 0

    def figures(self) -> dict[str, object]:
        return {
            "peak_mib": self.peak_mib,
            "rest_mib": self.rest_mib,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
            "driver_cpu_seconds": self.driver_cpu_seconds,
            "clients": asdict(self.outcome),
            "probe": asdict(self.probe),
            "kept_probe": asdict(self.kept),
            "aside_probe": self.aside and asdict(self.aside),
        }


@dataclass
class Storms:
    """Several rounds, and the server's memory from before the first until a while after the last."""

    rounds: list[Storm] = field(default_factory=list)
    curve: Curve = field(default_factory=Curve)
    peak_mib: float = 0.0
    later_mib: float = 0.0
    later_seconds: int = 0

    def everyone(self) -> Outcome:
        return merged({str(number): one.outcome for number, one in enumerate(self.rounds)})

    @property
    def cpu_per_gb_sent(self) -> float:
        """Seconds per GB that clients sent, refused or not."""
        sent = sum(one.outcome.sent_bytes for one in self.rounds)
        return sum(one.cpu_seconds for one in self.rounds) * GB / max(1, sent)

    @classmethod
    def run(cls, bench: Bench, *, most_mib: float | None = None) -> Storms:
        """Five rounds and a minute after them; two and ten seconds in a quick run."""
        storms = cls(later_seconds=5 if bench.quick else 30)
        pause = 3 if bench.quick else 10
        with MemoryWatch(bench.server.pid, exact=False, most_mib=most_mib) as watch:
            time.sleep(2)
            try:
                for _ in range(2 if bench.quick else 5):
                    storms.rounds.append(one := Storm(bench, STORM_CLIENTS, CHUNK_BYTES))
                    time.sleep(pause)
                    one.rest_mib = bench.over_idle()
                time.sleep(storms.later_seconds - pause - 1)
                storms.later_mib = bench.over_idle()
                time.sleep(storms.later_seconds)
            except OSError:  # who is killed answers no more, and /proc knows nothing of it
                if not watch.killed:
                    raise
        storms.curve = Curve.of(watch, [one.when for one in storms.rounds])
        storms.peak_mib = max([bench.peak_over_idle(watch), *(one.peak_mib for one in storms.rounds)])
        return storms
