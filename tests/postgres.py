"""A real PostgreSQL for the tests: one server per session, one database per test.

Creating a database copies some 300 files. So a test's database is emptied afterwards (a few milliseconds) and given to
a later test, unless this one changed its tables: then it is dropped.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
from anyio.from_thread import start_blocking_portal
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from gauzian.database.embedded import embedded_postgres
from gauzian.database.migrate import migrate

MIGRATIONS = Path(__file__).parent.parent / "migrations"

# Fast and forgetful; many tests may each open a pool.
_FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "log_min_messages": "log",
}


class Postgres:
    """A running server, by the URL of its maintenance database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._free: list[str] = []
        self._tables: set[str] = set()

    def prepare(self) -> None:
        """Make the template `migrated`."""
        url = self.create_database("migrated")
        asyncio.run(migrate(url, MIGRATIONS))
        with psycopg.connect(url, autocommit=True) as connection:
            self._tables = _tables(connection)

    def create_database(self, name: str, template: str = "template0") -> str:
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
        return make_conninfo(self.url, dbname=name)

    def drop_database(self, name: str) -> None:
        self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    @contextmanager
    def fresh_database(self, template: str = "migrated") -> Iterator[str]:
        """The URL of a database of one's own; `template="template0"` for an empty one."""
        if template == "migrated" and self._free:
            name = self._free.pop()
            url = make_conninfo(self.url, dbname=name)
        else:
            name = f"test_{uuid.uuid4().hex}"
            url = self.create_database(name, template)
        yield url
        if template == "migrated" and self._emptied(url):
            self._free.append(name)
        else:
            self.drop_database(name)

    def _emptied(self, url: str) -> bool:
        """Whether nobody is connected any more, and the tables are the migrated ones, without rows."""
        with psycopg.connect(url, autocommit=True) as connection:
            deadline = time.monotonic() + 5
            while connection.execute(_END_OTHERS).fetchall():
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.002)
            if _tables(connection) != self._tables:
                return False
            connection.execute("SET session_replication_role = replica")  # no foreign key asks for an order
            for name in self._tables - {"schema_migrations"}:
                connection.execute(f"DELETE FROM {name}")
            connection.execute("INSERT INTO instance DEFAULT VALUES")
        return True

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)


def url_of(conninfo: str) -> str:
    """The same as DATABASE_URL wants it: for a server that is a process of its own."""
    words = conninfo_to_dict(conninfo)
    return f"postgresql://{words['user']}@/{words['dbname']}?host={quote(str(words['host']), safe='')}"


_END_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


def _tables(connection: psycopg.Connection[tuple[object, ...]]) -> set[str]:
    rows = connection.execute(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
    )
    return {str(name) for (name,) in rows}


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server in a temporary directory and prepare the template. Its loop runs in its own thread."""
    with (
        tempfile.TemporaryDirectory(prefix="gz-") as directory,
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(embedded_postgres(Path(directory), settings=_FAST)) as url,
    ):
        postgres = Postgres(url)
        postgres.prepare()
        yield postgres
