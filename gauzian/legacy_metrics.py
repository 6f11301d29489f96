"""The unprefixed metric names that existing dashboards ask for, made from ours at scrape time."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

# ours -> (theirs, labels renamed). What is not here has never been exported under another name.
_NAMES: dict[str, tuple[str, dict[str, str]]] = {
    "gauzian_http_requests": ("http_requests", {"route": "endpoint"}),
    "gauzian_http_request_duration_seconds": ("http_request_duration_seconds", {"route": "endpoint"}),
    "gauzian_connections_open": ("http_connections_active", {}),
    "gauzian_file_uploads": ("file_uploads", {}),
    "gauzian_upload_bytes": ("file_upload_bytes", {}),
    "gauzian_file_downloads": ("file_downloads", {}),
    "gauzian_chunk_upload_duration_seconds": ("chunk_upload_duration_seconds", {}),
    "gauzian_chunk_download_duration_seconds": ("chunk_download_duration_seconds", {}),
    "gauzian_auth_attempts": ("auth_attempts", {}),
    "gauzian_store_operation_duration_seconds": ("s3_operation_duration_seconds", {}),
    "gauzian_database_operation_duration_seconds": ("db_query_duration_seconds", {"operation": "query_type"}),
    "gauzian_database_connections_max": ("db_pool_connections_max", {}),
}
# What is one family of ours with a label was several of theirs.
_BY_STATE = {"lent": "db_pool_connections_active", "idle": "db_pool_connections_idle"}


class LegacyNames(Collector):
    """Give this to a registry of its own and render it after ours."""

    def __init__(self, ours: CollectorRegistry) -> None:
        self._ours = ours

    def collect(self) -> Iterator[Metric]:
        for family in self._ours.collect():
            if family.name == "gauzian_database_connections":
                yield from _split(family)
            if family.name not in _NAMES:
                continue
            name, labels = _NAMES[family.name]
            copy = Metric(name, family.documentation, family.type)
            for sample in family.samples:
                renamed = {labels.get(key, key): value for key, value in sample.labels.items()}
                copy.add_sample(name + sample.name.removeprefix(family.name), renamed, sample.value)
            yield copy


def _split(family: Metric) -> Iterator[Metric]:
    for sample in family.samples:
        name = _BY_STATE[sample.labels["state"]]
        copy = Metric(name, family.documentation, family.type)
        copy.add_sample(name, {}, sample.value)
        yield copy
