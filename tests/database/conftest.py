"""A pool on a database of the test's own, and a way to talk to the server behind its back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from gauzian.database.pool import Database, open_database
from tests.postgres import Postgres


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url, most_connections=2, wait_seconds=0.5, statement_seconds=5) as database:
        yield database


@pytest.fixture
def empty_url(postgres: Postgres) -> Iterator[str]:
    """A database without a schema."""
    with postgres.fresh_database("template0") as url:
        yield url


@pytest.fixture
def behind(database_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A connection that the pool knows nothing of."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection
