"""Probes, metrics, request ids, access lines, the drain: what every request passes through."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from gauzian.errors import StoreDown
from gauzian.logs import logging_to
from gauzian.web.drain import Draining
from gauzian.web.health import Health
from tests.asgi import Answer
from tests.bench.machine import parse_metrics
from tests.service import NO_FILE, running_service

pytestmark = pytest.mark.anyio


async def well() -> None:
    return None


async def ill() -> None:
    raise StoreDown


async def breaks() -> None:
    raise RuntimeError("a mistake of ours")


async def hangs() -> None:
    await anyio.sleep_forever()


async def ask(health: Health) -> tuple[int, str]:
    response = await health.ready(None)  # type: ignore[arg-type]
    return response.status_code, bytes(response.body).decode()


async def test_ready_is_exactly_ok_when_all_parts_are_well() -> None:
    assert await ask(Health(checks={"a": well, "b": well}, draining=Draining())) == (200, "OK")


async def test_each_failing_part_has_a_json_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gauzian.web.health._CHECK_SECONDS", 0.05)
    status, body = await ask(
        Health(checks={"store": ill, "database": hangs, "disk": breaks, "other": well}, draining=Draining())
    )
    assert status == 503
    assert sorted((json.loads(line)["part"], json.loads(line)["code"]) for line in body.splitlines()) == [
        ("database", "timeout"),
        ("disk", "internal_error"),
        ("store", "store_unavailable"),
    ]


async def test_many_who_ask_cause_one_look() -> None:
    looks = 0

    async def count() -> None:
        nonlocal looks
        looks += 1
        await anyio.lowlevel.checkpoint()

    health = Health(checks={"a": count}, draining=Draining())
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(ask, health)
    assert looks == 1


async def test_while_draining_probes_answer_and_everything_else_is_refused(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        service.parts.draining.begin()
        assert (await service.call("GET", "/health/live")).status == 200
        assert (await service.call("GET", "/health/ready")).status == 503
        assert (await service.call("GET", "/metrics")).status == 200
        for method, path in (("GET", "/info"), ("POST", "/drive/initialize_file"), ("GET", "/nowhere")):
            answer = await user.call(method, path)
            assert (answer.status, answer.json()["code"]) == (503, "shutting_down")


async def test_metrics_need_their_token_and_have_the_founding_names(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path, metrics_token="let-me-see") as service:
        user = await service.sign_up()
        await user.store(b"abc")
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {user.token}"}):
            assert (await service.call("GET", "/metrics", headers=headers)).status == 401
        answer = await service.call("GET", "/metrics", headers={"Authorization": "Bearer let-me-see"})
        text = answer.body.decode()
        assert answer.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
        for sample in (
            'gauzian_chunk_upload_duration_seconds_count{status="success"} 1.0',
            'gauzian_file_uploads_total{status="success"} 1.0',
            "gauzian_rejected_uploads 0.0",
            "gauzian_upload_places 50.0",
            "gauzian_upload_places_taken 0.0",
            "gauzian_upload_bytes_total 3.0",
        ):
            assert f"\n{sample}\n" in text


async def test_the_founding_series_are_there_before_anything_has_happened(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        text = (await service.call("GET", "/metrics")).body.decode()
        for sample in (
            'gauzian_chunk_upload_duration_seconds_count{status="failed"} 0.0',
            'gauzian_file_uploads_total{status="success"} 0.0',
            "gauzian_rejected_uploads 0.0",
        ):
            assert f"\n{sample}\n" in text


async def test_whatever_can_go_wrong_is_there_as_zero_before_it_does(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        text = (await service.call("GET", "/metrics")).body.decode()
        for sample in (
            'gauzian_errors_total{code="store_unavailable"}',
            'gauzian_errors_total{code="database_unavailable"}',
            'gauzian_errors_total{code="chunk_damaged"}',
            'gauzian_errors_total{code="internal_error"}',
            'gauzian_errors_total{code="client_gone"}',
            'gauzian_upload_rejections_total{reason="places"}',
            'gauzian_upload_rejections_total{reason="user_share"}',
            'gauzian_download_rejections_total{reason="places"}',
            'gauzian_slow_clients_cut_total{direction="upload"}',
            'gauzian_store_operation_duration_seconds_count{operation="get",status="failed"}',
            'gauzian_database_operation_duration_seconds_count{operation="statement",status="error"}',
            'gauzian_reaper_rounds_total{status="failed"}',
            "gauzian_scrub_damaged_objects",
            "gauzian_overdue_uploads",
        ):
            assert f"\n{sample} 0.0\n" in text, sample


async def test_memory_and_disk_are_told_with_their_limits(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        found = parse_metrics((await service.call("GET", "/metrics")).body.decode())
        assert found["gauzian_memory_ceiling_bytes"] > 0
        assert found["gauzian_memory_limit_bytes"] > 0
        disk = os.statvfs(tmp_path)
        for use in ("data", "spool"):
            size, free = (found[f'gauzian_disk_{what}_bytes{{use="{use}"}}'] for what in ("size", "free"))
            assert size == disk.f_blocks * disk.f_frsize
            assert 0 < free <= size
        assert any(name.startswith("gauzian_build_info{") and "version=" in name for name in found)


async def test_a_directory_that_is_not_there_has_no_free_space_to_tell(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path / "data", spool_dir=tmp_path / "spool") as service:
        (tmp_path / "spool").rmdir()
        found = parse_metrics((await service.call("GET", "/metrics")).body.decode())
        assert math.isnan(found['gauzian_disk_free_bytes{use="spool"}'])
        assert found['gauzian_disk_free_bytes{use="data"}'] > 0


async def test_labels_are_route_templates_and_known_words(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        await user.call("GET", f"/drive/file/{NO_FILE}")
        await user.call("GET", f"/contacts/get_public_key/{user.email}")
        await user.call("GET", "/secret/path/of/mine")
        await user.call("BREW", "/coffee")
        text = service.parts.metrics.render().decode()
        assert 'route="/drive/file/{file_id}"' in text
        assert 'method="OTHER"' in text
        assert 'route="unmatched"' in text
        for leaked in (NO_FILE, "example.org", "secret", "BREW", "coffee"):
            assert leaked not in text


async def test_old_dashboards_find_their_names_when_switched_on(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path, metrics_legacy_names=True) as service:
        user = await service.sign_up()
        await user.store(b"abc")
        text = (await service.call("GET", "/metrics")).body.decode()
        for name in ("http_requests_total{", "file_uploads_total{", "chunk_upload_duration_seconds_count{"):
            assert f"\n{name}" in text
            assert f"\ngauzian_{name}" in text
        for name in ("active 0.0", "idle 1.0", "max 10.0"):
            assert f"\ndb_pool_connections_{name}\n" in text


async def test_every_answer_carries_a_request_id_and_a_sane_one_is_taken_over(
    database_url: str, tmp_path: Path
) -> None:
    async with running_service(database_url, tmp_path) as service:

        async def id_for(given: str | None) -> str | None:
            answer: Answer = await service.call("GET", "/nowhere", headers={"X-Request-ID": given} if given else {})
            return answer.header("x-request-id")

        assert await id_for("from-the-proxy-1") == "from-the-proxy-1"
        for given in (None, "short", "has a space in it", "x" * 65, 'quo"te-quote'):
            assert re.fullmatch(r"[0-9a-f]{16}", str(await id_for(given)))


async def test_a_page_from_a_configured_origin_may_read_the_headers_it_needs(database_url: str, tmp_path: Path) -> None:
    origin = "https://drive.example.org"
    async with running_service(database_url, tmp_path, cors_origins=(origin,)) as service:
        preflight = await service.call(
            "OPTIONS", "/drive/upload_chunk_binary", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}
        )
        assert (preflight.status, preflight.header("access-control-allow-origin")) == (200, origin)
        refused = await service.call("GET", "/info", headers={"Origin": origin})
        assert refused.status == 401
        assert refused.header("access-control-allow-origin") == origin
        assert "x-chunk-iv" in str(refused.header("access-control-expose-headers"))
        other = await service.call("GET", "/info", headers={"Origin": "https://evil.example"})
        assert other.header("access-control-allow-origin") is None


async def test_a_preflight_of_another_origin_is_refused_in_our_shape(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path, cors_origins=("https://drive.example.org",)) as service:
        refused = await service.call(
            "OPTIONS", "/login", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        )
        assert (refused.status, refused.json()["code"]) == (403, "origin_not_allowed")
        assert refused.header("content-type") == "application/json"
        assert refused.header("x-request-id")
        assert "Origin" in str(refused.header("vary"))
        for name in ("access-control-allow-origin", "access-control-allow-credentials"):
            assert refused.header(name) is None


LINES: list[tuple[str, dict[str, Any], str]] = [
    ("plain", {}, "msg=plain"),
    ("two words", {"status": 200}, 'msg="two words" status=200'),
    ('say "hi"\nfake=line', {}, 'msg="say \\"hi\\"\\nfake=line"'),
    ("", {}, 'msg=""'),
]


@pytest.mark.parametrize(("message", "extra", "line"), LINES)
def test_a_log_line_is_one_line_whatever_is_in_it(message: str, extra: dict[str, Any], line: str) -> None:
    out = io.StringIO()
    with logging_to(out):
        logging.getLogger("test").warning(message, extra=extra)
    assert out.getvalue().count("\n") == 1
    assert line in out.getvalue()
    assert "level=warning logger=test" in out.getvalue()


def test_json_lines_are_json_and_carry_the_error() -> None:
    out = io.StringIO()
    with logging_to(out, format="json"):
        try:
            raise ValueError("deep down")
        except ValueError:
            logging.getLogger("test").exception("it failed")
    record = json.loads(out.getvalue())
    assert (record["msg"], record["level"]) == ("it failed", "error")
    assert "deep down" in record["error"]


def test_a_standard_error_that_nobody_empties_drops_lines_and_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gauzian.logs._MOST_WAITING", 100)
    go_on = threading.Event()

    class Stuck(io.StringIO):
        def write(self, text: str) -> int:
            go_on.wait(10)
            return super().write(text)

    out = Stuck()
    with logging_to(out):
        for number in range(500):
            logging.getLogger("test").warning("line %d", number)
        go_on.set()
    written = out.getvalue().count("msg=")
    assert 100 <= written <= 200, "those that wait, and those the writer had in hand"
    assert f"{500 - written} log lines dropped" in out.getvalue()


async def test_a_foreign_call_is_answered_in_our_shape_even_for_a_broken_body(
    database_url: str, tmp_path: Path
) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        for body in (b"", b"{", b"[]", b"nonsense", b"[" * 60_000, b'{"size": 1e999}', b'{"a": "\xff"}'):
            answer = await user.call(
                "POST", "/drive/initialize_file", body=body, headers={"Content-Type": "application/json"}
            )
            assert answer.status == 400, body[:20]
            assert answer.json()["code"] in {"malformed_json", "bad_field", "missing_field"}
