"""Every number exported, in one object with its own registry; levels are read at scrape time, not by a timer.

Labels are bounded: route templates, codes from errors.py, fixed words. Never an id, a path, a host or an e-mail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, UnknownMetricFamily
from prometheus_client.registry import Collector

from gauzian.errors import ApiError
from gauzian.legacy_metrics import LegacyNames

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# From 1 ms (a small look-up) to 60 s (a large chunk over a slow line).
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

Reading = Callable[[], float]


class _Levels(Collector):
    """Numbers that belong to somebody else: asked for when Prometheus asks us."""

    def __init__(self) -> None:
        self.families: dict[str, tuple[type[Metric], str, list[tuple[dict[str, str], Reading]]]] = {}

    def add(self, kind: type[Metric], name: str, help: str, labels: dict[str, str], read: Reading) -> None:
        family = self.families.setdefault(name, (kind, help, []))
        family[2].append((labels, read))

    def collect(self) -> Iterator[Metric]:
        for name, (kind, help, readings) in self.families.items():
            family = kind(name, help)  # type: ignore[call-arg]
            for labels, read in readings:
                sample = name + ("_total" if kind is CounterMetricFamily else "")
                family.add_sample(sample, labels, float(read()))
            yield family


class Metrics:
    """All families. Parts count into the attributes; `level` and `total` register numbers read at scrape time."""

    def __init__(self, *, legacy_names: bool = False) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second sample per series that nobody asks for
        self.registry = CollectorRegistry()
        ProcessCollector(namespace="gauzian", registry=self.registry)  # memory, CPU, file descriptors
        self._legacy = CollectorRegistry()
        if legacy_names:
            self._legacy.register(LegacyNames(self.registry))
        self._levels = _Levels()
        self.registry.register(self._levels)

        self.chunk_upload_seconds = self._histogram(
            "gauzian_chunk_upload_duration_seconds", "Time from taking a place to the answer, per chunk", ["status"]
        )
        self.chunk_download_seconds = self._histogram(
            "gauzian_chunk_download_duration_seconds", "Time to send one chunk", ["status"]
        )
        self.file_uploads = self._counter(
            "gauzian_file_uploads", "Files finalized, aborted or refused at finalize", ["status"]
        )
        self.file_downloads = self._counter("gauzian_file_downloads", "Whole files sent", ["status"])
        self.upload_rejections = self._counter(
            "gauzian_upload_rejections", "Chunk uploads refused, by error code", ["reason"]
        )
        self.download_rejections = self._counter(
            "gauzian_download_rejections", "Downloads refused for want of a place", ["reason"]
        )
        self.bytes_in = self._counter("gauzian_upload_bytes", "Chunk bytes received", [])
        self.bytes_out = self._counter("gauzian_download_bytes", "Chunk bytes sent", [])
        self.slow_clients = self._counter(
            "gauzian_slow_clients_cut", "Requests cut because the client was too slow", ["direction"]
        )
        self.errors = self._counter("gauzian_errors", "Refusals and failures, by error code", ["code"])
        self.store_seconds = self._histogram(
            "gauzian_store_operation_duration_seconds", "Time of one object store operation", ["operation", "status"]
        )
        self.database_seconds = self._histogram(
            "gauzian_database_operation_duration_seconds",
            "Time a database connection was borrowed",
            ["operation", "status"],
        )
        self.reaper_rounds = self._counter("gauzian_reaper_rounds", "Rounds of the reaper", ["status"])
        self.reaped_uploads = self._counter("gauzian_reaped_uploads", "Unfinished uploads removed after their time", [])
        self.reaped_objects = self._counter("gauzian_reaped_objects", "Objects removed that no row named", [])
        self.sign_in_attempts = self._counter("gauzian_auth_attempts", "Sign-ins and registrations", ["type", "status"])
        self.http_requests = self._counter("gauzian_http_requests", "Requests answered", ["method", "route", "status"])
        self.http_seconds = self._histogram(
            "gauzian_http_request_duration_seconds", "Time to answer", ["method", "route"]
        )

        self._begin_at_zero()
        self._rejected_uploads = 0
        # The founding alert reads a sample of exactly this name; a Counter would be called ..._total.
        self._levels.add(
            UnknownMetricFamily,
            "gauzian_rejected_uploads",
            "Chunk uploads refused because no place was free (only ever grows)",
            {},
            lambda: self._rejected_uploads,
        )

    def count_rejected_upload(self, reason: str) -> None:
        """One more upload refused for want of a place; `reason` is "places" or "user_share"."""
        self._rejected_uploads += 1
        self.upload_rejections.labels(reason).inc()

    def level(self, name: str, help: str, read: Reading, **labels: str) -> None:
        """Register a gauge whose value `read` gives at scrape time."""
        self._levels.add(GaugeMetricFamily, name, help, labels, read)

    def total(self, name: str, help: str, read: Reading, **labels: str) -> None:
        """Register a counter that somebody else keeps; `name` without _total."""
        self._levels.add(CounterMetricFamily, name, help, labels, read)

    def render(self) -> bytes:
        return generate_latest(self.registry) + generate_latest(self._legacy)

    def _begin_at_zero(self) -> None:
        """What has not happened yet is there as 0 from the first scrape: an alert on a series that does not exist never
        fires, and `rate` does not see the step with which a series appears.
        """
        ends = ("success", "failed", "aborted")
        stores = product(("put", "get", "delete", "list", "check"), ("success", "failed"))
        known: list[tuple[Counter | Histogram, list[tuple[str, ...]]]] = [
            (self.chunk_upload_seconds, _one_by_one("success", "failed")),
            (self.chunk_download_seconds, _one_by_one(*ends)),
            (self.file_uploads, _one_by_one("success", "incomplete", "aborted")),
            (self.file_downloads, _one_by_one(*ends, "partial")),
            (self.upload_rejections, _one_by_one("places", "user_share")),
            (self.download_rejections, _one_by_one("places")),
            (self.slow_clients, _one_by_one("upload", "download", "list")),
            (self.reaper_rounds, _one_by_one("success", "failed")),
            (self.errors, _one_by_one("client_gone", *_codes_below(ApiError))),
            (self.store_seconds, list(stores)),
            (self.database_seconds, list(product(("statement", "transaction"), ("ok", "error")))),
            (
                self.sign_in_attempts,
                list(product(("login", "register", "send_code", "verify_code"), ("success", "failed", "throttled"))),
            ),
        ]
        for family, labels in known:
            for words in labels:
                family.labels(*words)

    def _counter(self, name: str, help: str, labels: list[str]) -> Counter:
        return Counter(name, help, labels, registry=self.registry)

    def _histogram(self, name: str, help: str, labels: list[str]) -> Histogram:
        return Histogram(name, help, labels, buckets=_SECONDS, registry=self.registry)


def _one_by_one(*words: str) -> list[tuple[str, ...]]:
    return [(word,) for word in words]


def _codes_below(kind: type[ApiError]) -> set[str]:
    return {kind.code}.union(*(_codes_below(narrower) for narrower in kind.__subclasses__()))
