"""Apply migrations/ in order: each once, each in a transaction, one process at a time.

A file that was applied must never change again; what it did is remembered with its SHA-256. A migration in the
database that this program does not know is only a warning: the program of yesterday must be able to run beside the
schema of today.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from gauzian.database.failures import as_ours, cannot_connect

log = logging.getLogger(__name__)

# "gauzian" as a number: only migrations of this program wait for each other.
LOCK_KEY = 0x6761757A69616E
# Replicas that start together wait for the first one; a migration that takes longer than this deserves a hand on it.
LONGEST_WAIT_SECONDS = 300
_NAME = re.compile(r"\d{4}_[a-z0-9_]+\.sql")
_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class MigrationError(Exception):
    """The schema cannot be brought up to date; the text says why, for the person at the terminal."""


@dataclass(frozen=True)
class Migration:
    name: str
    sql: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql).hexdigest()


async def migrate(url: str, directory: Path) -> list[str]:
    """Apply what is missing; returns the names that were applied now. Raises MigrationError, DatabaseDown."""
    migrations = await asyncio.to_thread(read_migrations, directory)
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:  # whose words may hold a piece of the password
        raise MigrationError("DATABASE_URL is not a connection URL that PostgreSQL understands") from None
    try:
        connection = await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=10)
    except psycopg.Error as error:
        log.warning("cannot connect to the database: %s", error)  # the refusal alone would not say why
        raise cannot_connect(error) from error
    try:
        await connection.execute(f"SET lock_timeout = '{LONGEST_WAIT_SECONDS}s'")
        await connection.execute("SELECT pg_advisory_lock(%s)", [LOCK_KEY])
        return await _apply_missing(connection, migrations)
    except psycopg.Error as error:
        raise as_ours(error, broken=connection.closed) from error
    finally:
        connection.pgconn.finish()  # the lock ends with the session


def read_migrations(directory: Path) -> list[Migration]:
    """All migrations in order. A file with a wrong name or a number used twice stops here and not half-way."""
    paths = sorted(path for path in directory.iterdir() if path.suffix == ".sql") if directory.is_dir() else []
    if not paths:
        raise MigrationError(f"there are no migrations in {directory}")
    for path in paths:
        if not _NAME.fullmatch(path.name):
            raise MigrationError(f"{path.name} is not named like 0001_what_it_does.sql")
    numbers = [path.name[:4] for path in paths]
    if twice := {number for number in numbers if numbers.count(number) > 1}:
        raise MigrationError(f"several migrations have the number {', '.join(sorted(twice))}")
    return [Migration(path.name, path.read_bytes()) for path in paths]


async def _apply_missing(
    connection: psycopg.AsyncConnection[tuple[object, ...]], migrations: list[Migration]
) -> list[str]:
    await connection.execute(_TABLE)
    cursor = await connection.execute("SELECT name, sha256 FROM schema_migrations ORDER BY name")
    applied = {str(name): str(sha256) for name, sha256 in await cursor.fetchall()}
    _compare(applied, migrations)
    missing = [migration for migration in migrations if migration.name not in applied]
    for migration in missing:
        try:
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "INSERT INTO schema_migrations (name, sha256) VALUES (%s, %s)", [migration.name, migration.sha256]
                )
        except psycopg.Error as error:
            if as_ours(error, broken=connection.closed) is not error:
                raise
            raise MigrationError(f"{migration.name} failed and was taken back: {error}") from error
        log.info("migration applied", extra={"migration": migration.name})
    return [migration.name for migration in missing]


def _compare(applied: dict[str, str], migrations: list[Migration]) -> None:
    ours = {migration.name: migration.sha256 for migration in migrations}
    for name, sha256 in applied.items():
        if name not in ours:
            log.warning("the database has a migration that this version does not know", extra={"migration": name})
        elif ours[name] != sha256:
            raise MigrationError(f"{name} was changed after it was applied: put the old text back and add a new file")
