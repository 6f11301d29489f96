"""Rows about the drive: what a long listing costs, and the question whether somebody may read a chunk."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

from tests.bench.bench import Bench, Line, answers
from tests.bench.plan import Group
from tests.bench.rows_cpu import SMALL_BYTES, Round

FILES = 1_000
# As encrypted names and keys are: metadata of a few fields, a key of RSA-4096 in base64.
METADATA, KEY = "m" * 200, "k" * 684


def listing(bench: Bench) -> list[Line]:
    user = bench.users[0]
    folder = {"encrypted_metadata": METADATA, "parent_folder_id": "root", "encrypted_folder_key": KEY}
    folder_id = user.call("POST", "/drive/create_folder", folder)["folder_id"]
    file = {"size": 0, "encrypted_metadata": METADATA, "mime_type": "", "folder_id": folder_id}

    def one_more(number: int) -> None:
        file_id = user.call("POST", "/drive/initialize_file", file | {"encrypted_file_key": KEY})["file_id"]
        user.call("POST", f"/drive/finalize_upload/{file_id}/completed")

    with ThreadPoolExecutor(10) as crowd:
        list(crowd.map(one_more, range(FILES)))
    asked = Group("listing", 5, f"GET /drive/get_file_folder/{folder_id}", (user.authorization,), requests=20)
    cost, queries, one = _each(bench, asked)
    whole = one.outcome.read(200) == 100 and one.outcome.received_bytes > 100 * FILES * (len(METADATA) + len(KEY))
    note = f"{one.outcome.received_bytes / 100 / 1024:.0f} KiB each; PostgreSQL {one.database_cpu * 10:.1f} ms; "
    note += answers(one.outcome)
    return [_line(f"listing a folder of {FILES} files", cost, queries, 50, 3, whole, note, one)]


def access_check(bench: Bench) -> list[Line]:
    """The download of a chunk of few bytes, which is little else than the question."""
    user = bench.users[0]
    file_id = user.store_file(bench.payload[:SMALL_BYTES], 1)
    key = user.call("GET", f"/drive/file/{file_id}")["chunks"][0]["s3_key"]
    asked = Group("check", 5, f"GET /drive/download_chunk_binary/{key}", (user.authorization,), requests=20)
    cost, queries, one = _each(bench, asked)
    user.delete_file(file_id)
    whole = one.outcome.read(200) == 100
    note = f"PostgreSQL {one.database_cpu * 10:.2f} ms; {answers(one.outcome)}"
    return [_line("may this user read this chunk", cost, queries, 50, 1, whole, note, one)]


def _each(bench: Bench, asked: Group) -> tuple[float, float, Round]:
    """CPU of the server in ms and statements, per request of a hundred."""
    Round.run(bench, asked)  # warms up
    before = _statements(bench)
    one = Round.run(bench, asked)
    return one.cpu * 10, (_statements(bench) - before) / 100, one


def _statements(bench: Bench) -> float:
    name = "gauzian_database_operation_duration_seconds_count"
    return sum(value for sample, value in bench.server.metrics().items() if sample.startswith(name))


def _line(
    title: str, cost: float, queries: float, most_ms: float, most: int, whole: bool, note: str, one: Round
) -> Line:
    # The background looks at the database as well, now and then.
    holds = whole and cost <= most_ms and queries <= most + 0.2
    figures = {"cpu_ms": cost, "queries": queries, "outcome": asdict(one.outcome)}
    measured = f"{cost:.1f} ms CPU, {queries:.1f} queries"
    return Line(
        title, measured, f"≤ {most_ms:.0f} ms, ≤ {most} quer{'y' if most == 1 else 'ies'}", holds, note, figures
    )
