"""Connections to PostgreSQL: borrowed, bounded, healed; driver errors become ours here.

The pool is psycopg_pool's. What we add is what it leaves open: a deadline for who has borrowed, a look without a round
trip at what we borrow, and the difference between a database that is busy and one that is gone.

Connections are in autocommit: BEGIN and COMMIT are round trips of their own, and the hot paths are single statements.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

import anyio
import psycopg
from anyio.lowlevel import checkpoint_if_cancelled
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from gauzian.database.failures import as_ours, cannot_borrow, cannot_connect
from gauzian.database.line import Line, conninfo_of
from gauzian.errors import Collided
from gauzian.metrics import Metrics

log = logging.getLogger(__name__)
# It has a line for every borrow and every attempt to connect; we say once that the database is gone, and once that it
# is back.
logging.getLogger("psycopg.pool").setLevel(logging.ERROR)

Connection = psycopg.AsyncConnection[TupleRow]
Result = TypeVar("Result")

# Of two that meet one goes on; of three one may lose twice. Each time costs PostgreSQL's deadlock_timeout, a second.
TRIES = 4

# Requests that may wait, per connection: at 1 ms a statement the last one waits 50 ms; beyond that the database is the
# bottleneck and a queue only hides it.
WAITING_PER_CONNECTION = 50
# A connection is replaced after this long, so that a fail-over or a changed server setting reaches all of them.
LONGEST_LIFE_SECONDS = 3600.0
# Of connections that nobody needed for this long, one is closed.
LONGEST_IDLE_SECONDS = 300.0
# The pool tries to connect after 0, 1, 3 and 5 seconds; then it is the next request that makes it try.
RECONNECT_SECONDS = 5.0
# How long to wait for a connection when the last attempt to make one failed, and none is there that could come back.
GONE_WAIT_SECONDS = 1.0
# How much longer than the server's own statement timeout we wait for its answer before we break the connection off.
ANSWER_GRACE_SECONDS = 5.0
# At the end an attempt to connect may still be under way; it is left to itself after this long.
CLOSE_SECONDS = 2.0


@dataclass(frozen=True)
class Statistics:
    """`size` connections are open, `idle` of them lent to nobody; `waiting` requests want one."""

    size: int
    idle: int
    waiting: int


class Database:
    """What SQL modules' callers hold: `connection()` for single statements, `transaction()` for several that belong
    together.

    Both raise DatabaseBusy when no connection was free in time, DatabaseDown when there is no database, and
    OutcomeUnknown when the connection broke while a statement ran. What the server itself refused (a constraint, a
    mistake of ours) passes through unchanged, so that the SQL modules can name it.
    """

    def __init__(
        self, url: str, *, most_connections: int, wait_seconds: float, statement_seconds: float, metrics: Metrics | None
    ) -> None:
        self._conninfo = conninfo_of(url, connect_seconds=wait_seconds)
        self._wait_seconds = wait_seconds
        self._statement_seconds = statement_seconds
        self._seconds = None if metrics is None else metrics.database_seconds
        self._lent = 0
        self._waiting = 0
        self._failure: psycopg.Error | None = None  # of the last attempt to connect
        self._loop = asyncio.get_running_loop()
        self._setup: dict[str, Any] = {"told": self._told, "statement_seconds": statement_seconds}
        self._pool = AsyncConnectionPool(
            self._conninfo,
            connection_class=Line,
            kwargs=self._setup,
            min_size=0,
            max_size=most_connections,
            open=False,
            check=self._look_at,
            max_waiting=most_connections * WAITING_PER_CONNECTION,
            max_lifetime=LONGEST_LIFE_SECONDS,
            max_idle=LONGEST_IDLE_SECONDS,
            reconnect_timeout=RECONNECT_SECONDS,
        )
        if metrics is not None:
            help = "Connections to PostgreSQL, by what they do"
            metrics.level("gauzian_database_connections", help, lambda: float(self._lent), state="lent")
            metrics.level("gauzian_database_connections", help, lambda: float(self.statistics().idle), state="idle")
            most = "Connections to PostgreSQL that may be open"
            metrics.level("gauzian_database_connections_max", most, lambda: float(most_connections))
            metrics.level("gauzian_database_waiting", "Requests waiting for a connection", lambda: float(self._waiting))

    def connection(self, *, most_seconds: float | None = None) -> Borrowed:
        """A connection in autocommit, broken off after `most_seconds` (default: statement timeout and a grace)."""
        return Borrowed(self, most_seconds, "statement")

    @asynccontextmanager
    async def transaction(self, *, most_seconds: float | None = None) -> AsyncIterator[Connection]:
        """A connection in a transaction: committed at the end, rolled back by any exception, cancellation included.

        If the connection breaks, OutcomeUnknown is raised even when COMMIT was surely not sent: callers are then only
        too careful.
        """
        async with Borrowed(self, most_seconds, "transaction") as connection, connection.transaction():
            yield connection

    async def settled(
        self, work: Callable[[Connection], Awaitable[Result]], *, most_seconds: float | None = None
    ) -> Result:
        """`work` in a transaction, and again if it met another one head-on: clients do not try such requests again.

        For transactions that lock many rows in an order of their own. `work` runs up to TRIES times.
        """
        for tries_left in reversed(range(TRIES)):
            try:
                async with self.transaction(most_seconds=most_seconds) as connection:
                    return await work(connection)
            except Collided:
                if not tries_left:
                    raise
                log.info("two transactions waited for each other: once more")
        raise AssertionError("the last try returns or raises")

    @asynccontextmanager
    async def advisory_lock(self, key: int) -> AsyncIterator[bool]:
        """True for one holder at a time in all processes on this database; False, at once, for everybody else.

        The lock lives on a connection of its own, outside of the pool: it ends with it, however we leave.
        """
        try:
            connection = await Line.connect(self._conninfo, **self._setup)
        except psycopg.Error as error:
            raise cannot_connect(error) from error
        try:
            async with await connection.execute("SELECT pg_try_advisory_lock(%s)", [key]) as cursor:
                row = await cursor.fetchone()
            mine = bool(row and row[0])
            yield mine
            if mine and not connection.closed:
                await connection.execute("SELECT pg_advisory_unlock(%s)", [key])
        except psycopg.Error as error:
            raise as_ours(error, broken=connection.closed) from error
        finally:
            connection.pgconn.finish()

    async def check(self) -> None:
        """Raise DatabaseDown or DatabaseBusy unless a statement can be run now."""
        async with self.connection(most_seconds=self._wait_seconds) as connection:
            await connection.execute("SELECT 1")

    def statistics(self) -> Statistics:
        idle = self._pool.get_stats()["pool_available"]
        return Statistics(size=self._lent + idle, idle=idle, waiting=self._waiting)

    async def _borrow(self) -> Line:
        gone = self._failure is not None and not self._lent
        task = asyncio.current_task()
        cancellations = task.cancelling() if task else 0
        self._waiting += 1
        try:
            line = await self._pool.getconn(min(self._wait_seconds, GONE_WAIT_SECONDS) if gone else self._wait_seconds)
        except (PoolTimeout, TooManyRequests, PoolClosed) as error:
            if isinstance(error, TooManyRequests) and not self._lent:
                # Who gave up stays in the pool's queue until a connection comes, and a full queue keeps it from making
                # one: after an outage it would refuse for ever. This makes it try.
                await self._pool.check()
            raise cannot_borrow(error, self._failure, lent=self._lent) from error
        finally:
            self._waiting -= 1
        if task and task.cancelling() > cancellations:
            # Until Python 3.12 asyncio.wait_for, in the pool, swallows a cancellation in the moment of the hand-over.
            await self._take_back(line)
            await checkpoint_if_cancelled()  # raises anyio's own kind, which only it can make
            raise asyncio.CancelledError
        self._lent += 1
        return line

    async def _take_back(self, line: Line) -> None:
        """The pool replaces what is broken. Inside of a transaction we break it: a roll-back could take for ever."""
        if line.pgconn.transaction_status != TransactionStatus.IDLE:
            line.pgconn.finish()
        if self._waiting:
            # Handing over to who waits can take a moment; cancelled in it the pool would lose the connection and who
            # waited for it. With nobody waiting there is no such moment, and shielding costs more than all the rest.
            await asyncio.shield(self._pool.putconn(line))
        else:
            await self._pool.putconn(line)

    async def _look_at(self, line: Line) -> None:
        """One that ended is not lent; the others most likely ended with it."""
        if line.has_ended():
            line.pgconn.finish()
            await self._pool.drain()
            raise psycopg.OperationalError("the server closed the connection")

    def _told(self, failure: psycopg.Error | None) -> None:
        if failure is not None and self._failure is None:
            log.warning("cannot connect to the database: %s", failure)
        elif failure is None and self._failure is not None:
            log.warning("connected to the database again")
        self._failure = failure


class Borrowed:
    """`async with`: one connection, from the pool and back. A class: a generator costs as much as all the rest."""

    __slots__ = ("_database", "_line", "_most_seconds", "_operation", "_since", "_timer")

    def __init__(self, database: Database, most_seconds: float | None, operation: str) -> None:
        self._database = database
        self._most_seconds = most_seconds
        self._operation = operation

    async def __aenter__(self) -> Connection:
        database = self._database
        self._line = await database._borrow()
        self._since = database._loop.time()
        seconds = self._most_seconds or database._statement_seconds + ANSWER_GRACE_SECONDS
        self._timer = database._loop.call_later(seconds, self._line.break_off)
        return self._line

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        database = self._database
        self._timer.cancel()
        if database._seconds is not None:
            seconds = database._loop.time() - self._since
            database._seconds.labels(self._operation, "ok" if error is None else "error").observe(seconds)
        broken = error is not None and self._line.closed
        database._lent -= 1
        await database._take_back(self._line)
        if isinstance(error, psycopg.Error):
            ours = as_ours(error, broken=broken)
            if ours is not error:
                raise ours from error


@asynccontextmanager
async def open_database(
    url: str,
    *,
    most_connections: int = 10,
    wait_seconds: float = 5.0,
    statement_seconds: float = 30.0,
    metrics: Metrics | None = None,
) -> AsyncIterator[Database]:
    """The pool; opens no connection before one is wanted. What is lent at the end is closed when it comes back."""
    database = Database(
        url,
        most_connections=most_connections,
        wait_seconds=wait_seconds,
        statement_seconds=statement_seconds,
        metrics=metrics,
    )
    await database._pool.open()
    try:
        yield database
    finally:
        with anyio.CancelScope(shield=True):
            await database._pool.close(timeout=CLOSE_SECONDS)
