"""Migrations: applied once, in order, whole, by one process at a time."""

from __future__ import annotations

import logging
from pathlib import Path

import anyio
import psycopg
import pytest

from gauzian.database.migrate import MigrationError, migrate
from gauzian.errors import DatabaseDown
from tests.postgres import MIGRATIONS

pytestmark = pytest.mark.anyio


def write(directory: Path, **files: str) -> Path:
    for name, sql in files.items():
        (directory / f"{name.removeprefix('m')}.sql").write_text(sql)
    return directory


def rows(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


async def test_the_real_ones_apply_to_an_empty_database_and_then_there_is_nothing_to_do(empty_url: str) -> None:
    names = sorted(path.name for path in MIGRATIONS.glob("*.sql"))
    assert await migrate(empty_url, MIGRATIONS) == names
    assert await migrate(empty_url, MIGRATIONS) == []
    assert rows(empty_url, "SELECT count(*) FROM instance") == [(1,)]


async def test_new_ones_follow_in_order_and_what_they_did_is_remembered(empty_url: str, tmp_path: Path) -> None:
    write(
        tmp_path,
        m0002_b="INSERT INTO log VALUES ('b')",
        m0001_a="CREATE TABLE log (text text); INSERT INTO log VALUES ('a')",
    )
    assert await migrate(empty_url, tmp_path) == ["0001_a.sql", "0002_b.sql"]
    write(tmp_path, m0003_c="INSERT INTO log VALUES ('c')")
    assert await migrate(empty_url, tmp_path) == ["0003_c.sql"]
    assert rows(empty_url, "SELECT string_agg(text, '') FROM log") == [("abc",)]
    assert rows(empty_url, "SELECT count(*) FROM schema_migrations WHERE length(sha256) = 64") == [(3,)]


async def test_two_that_start_at_once_apply_each_migration_once(empty_url: str, tmp_path: Path) -> None:
    write(
        tmp_path,
        m0001_slow="CREATE TABLE log (text text); SELECT pg_sleep(0.1)",
        m0002_b="INSERT INTO log VALUES ('b')",
    )
    applied: list[list[str]] = []

    async def start() -> None:
        applied.append(await migrate(empty_url, tmp_path))

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(start)
    assert sorted(applied) == [[], [], [], ["0001_slow.sql", "0002_b.sql"]]
    assert rows(empty_url, "SELECT count(*) FROM log") == [(1,)]


async def test_one_that_fails_is_taken_back_whole_and_can_be_tried_again(empty_url: str, tmp_path: Path) -> None:
    write(tmp_path, m0001_a="CREATE TABLE log (text text)", m0002_b="CREATE TABLE half (a text); SELECT nonsense")
    with pytest.raises(MigrationError, match=r"0002_b\.sql failed and was taken back: .*nonsense"):
        await migrate(empty_url, tmp_path)
    assert rows(empty_url, "SELECT to_regclass('log') IS NULL, to_regclass('half') IS NULL") == [(False, True)]
    write(tmp_path, m0002_b="CREATE TABLE half (a text)")
    assert await migrate(empty_url, tmp_path) == ["0002_b.sql"]


async def test_a_migration_and_the_memory_of_it_are_one_transaction(empty_url: str, tmp_path: Path) -> None:
    write(tmp_path, m0001_a="CREATE TABLE log AS SELECT pg_current_xact_id()::text AS number")
    await migrate(empty_url, tmp_path)
    assert rows(empty_url, "SELECT number FROM log") == rows(empty_url, "SELECT xmin::text FROM schema_migrations")


async def test_one_that_was_changed_after_it_was_applied_is_refused(empty_url: str, tmp_path: Path) -> None:
    write(tmp_path, m0001_a="CREATE TABLE log (text text)")
    await migrate(empty_url, tmp_path)
    write(tmp_path, m0001_a="CREATE TABLE log (text text, more text)", m0002_b="SELECT 1")
    with pytest.raises(MigrationError, match=r"0001_a\.sql was changed"):
        await migrate(empty_url, tmp_path)
    assert rows(empty_url, "SELECT name FROM schema_migrations") == [("0001_a.sql",)]


async def test_the_program_of_yesterday_starts_beside_the_schema_of_today(
    empty_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, m0001_a="SELECT 1", m0002_b="SELECT 2")
    await migrate(empty_url, tmp_path)
    (tmp_path / "0002_b.sql").unlink()
    with caplog.at_level(logging.WARNING):
        assert await migrate(empty_url, tmp_path) == []
    assert [record.__dict__["migration"] for record in caplog.records] == ["0002_b.sql"]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({}, "there are no migrations"),
        ({"m1_short": "SELECT 1"}, r"1_short\.sql is not named"),
        ({"m0001_a": "SELECT 1", "m0001_b": "SELECT 1"}, "several migrations have the number 0001"),
    ],
)
async def test_a_directory_that_is_not_in_order_stops_before_the_database(
    tmp_path: Path, files: dict[str, str], complaint: str
) -> None:
    write(tmp_path, **files)
    with pytest.raises(MigrationError, match=complaint):
        await migrate("postgresql://nobody@/nowhere?host=/nonexistent", tmp_path)


async def test_no_database_is_said_plainly(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DatabaseDown):
        await migrate("postgresql://nobody@/nowhere?host=/nonexistent", MIGRATIONS)
    assert "/nonexistent" in caplog.text, "why, for the operator"


@pytest.mark.parametrize(
    "url", ["postgresql://u:hunter22@h/d?bogus=1", "postgresql://u:hunter22%zz@h/d", "postgresql://u:hunter22@[::1/d"]
)
async def test_a_url_that_is_none_is_named_and_its_password_is_not(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(MigrationError, match="DATABASE_URL") as caught:
        await migrate(url, MIGRATIONS)
    assert "hunter22" not in str(caught.value) + caplog.text
