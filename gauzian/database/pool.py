"""Connections to PostgreSQL: borrowed, bounded, healed; driver errors become ours here.

A pool of our own and not psycopg_pool, because of what happens when the database is gone and comes back: a request is
told so at once instead of waiting for a background worker to give up, and the first request after the return succeeds.
A connection is made by whoever needs it, and a dead one is noticed before it is lent (its socket is readable: the
server said goodbye), without a round trip. A borrow costs half of what psycopg_pool's costs without that look.

Connections are in autocommit: BEGIN and COMMIT are round trips of their own, and the hot paths are single statements.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from gauzian.database.failures import as_ours, cannot_connect
from gauzian.errors import DatabaseBusy, DatabaseDown
from gauzian.metrics import Metrics

log = logging.getLogger(__name__)

Connection = psycopg.AsyncConnection[TupleRow]

# Requests that may wait, per connection: at 1 ms a statement the last one waits 50 ms; beyond that the database is the
# bottleneck and a queue only hides it.
WAITING_PER_CONNECTION = 50
# A connection is replaced after this long, so that a fail-over or a changed server setting reaches all of them.
LONGEST_LIFE_SECONDS = 3600.0
# How much longer than the server's own statement timeout we wait for its answer before we break the connection off.
ANSWER_GRACE_SECONDS = 5.0
# A peer that vanished without a word is noticed by the kernel after this long, also in the middle of a statement.
_KEEPALIVE = {"keepalives_idle": "15", "keepalives_interval": "5", "keepalives_count": "3", "tcp_user_timeout": "30000"}


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
        given = conninfo_to_dict(url)
        defaults = {"connect_timeout": str(max(2, int(wait_seconds))), "application_name": "gauzian", **_KEEPALIVE}
        self._conninfo = make_conninfo(url, **{key: value for key, value in defaults.items() if key not in given})
        self._most = most_connections
        self._wait_seconds = wait_seconds
        self._statement_seconds = statement_seconds
        self._seconds = None if metrics is None else metrics.database_seconds
        self._idle: list[_Line] = []  # the last returned is lent first
        self._taken = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._loop = asyncio.get_running_loop()
        if metrics is not None:
            help = "Connections to PostgreSQL, by what they do"
            metrics.level("gauzian_database_connections", help, lambda: float(self._taken), state="lent")
            metrics.level("gauzian_database_connections", help, lambda: float(len(self._idle)), state="idle")
            metrics.level(
                "gauzian_database_waiting", "Requests waiting for a connection", lambda: float(len(self._waiting))
            )

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

    @asynccontextmanager
    async def advisory_lock(self, key: int) -> AsyncIterator[bool]:
        """True for one holder at a time in all processes on this database; False, at once, for everybody else.

        The lock lives on a connection of its own, outside of the pool: it ends with it, however we leave.
        """
        connection = await self._connect()
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
        return Statistics(size=self._taken + len(self._idle), idle=len(self._idle), waiting=len(self._waiting))

    def close(self) -> None:
        """No new connections; idle ones are closed now, lent ones when they come back."""
        self._closed = True
        for line in self._idle:
            line.connection.pgconn.finish()
        self._idle.clear()

    async def _borrow(self) -> _Line:
        await self._take_place()
        try:
            while self._idle:
                line = self._idle.pop()
                if not line.poller.poll(0):
                    return line
                line.connection.pgconn.finish()
            return _Line(await self._connect(), self._loop.time())
        except BaseException:
            self._leave_place()
            raise

    def _give_back(self, line: _Line) -> None:
        """Without an await: no cancellation can come in between."""
        usable = line.connection.pgconn.transaction_status == TransactionStatus.IDLE
        if usable and not self._closed and self._loop.time() - line.made < LONGEST_LIFE_SECONDS:
            self._idle.append(line)
        else:
            line.connection.pgconn.finish()
        self._leave_place()

    async def _take_place(self) -> None:
        if self._closed:
            raise DatabaseDown("The database connections are closed")
        if self._taken < self._most:
            self._taken += 1
            return
        if len(self._waiting) >= self._most * WAITING_PER_CONNECTION:
            raise DatabaseBusy
        waiter = self._loop.create_future()
        self._waiting.append(waiter)
        timer = self._loop.call_later(self._wait_seconds, _give_up, waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._leave_place()  # it was handed to us in the very moment we were cancelled
            raise
        finally:
            timer.cancel()
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _leave_place(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)  # the place goes over: nobody can take it in between
                return
        self._taken -= 1

    async def _connect(self) -> Connection:
        milliseconds = int(self._statement_seconds * 1000)
        connection: Connection | None = None
        try:
            connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
            await connection.execute(
                f"SET statement_timeout = {milliseconds}; SET idle_in_transaction_session_timeout = {milliseconds};"
                " SET timezone = 'UTC'"
            )
        except BaseException as error:
            if connection is not None:
                connection.pgconn.finish()
            if isinstance(error, psycopg.Error):
                raise cannot_connect(error) from error
            raise
        return connection


class _Line:
    """A connection with the time it was made, and the question whether its server spoke while it was idle.

    A server never speaks first except to say goodbye: then the connection is dead.
    """

    __slots__ = ("connection", "made", "poller")

    def __init__(self, connection: Connection, made: float) -> None:
        self.connection = connection
        self.made = made
        self.poller = select.poll()
        self.poller.register(connection.pgconn.socket, select.POLLIN)


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
        self._timer = database._loop.call_later(seconds, _break_off, self._line.connection)
        return self._line.connection

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        database = self._database
        self._timer.cancel()
        broken = error is not None and self._line.connection.closed
        database._give_back(self._line)
        if database._seconds is not None:
            seconds = database._loop.time() - self._since
            database._seconds.labels(self._operation, "ok" if error is None else "error").observe(seconds)
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
    """The pool, closed at the end. Opens no connection before the first one is wanted."""
    database = Database(
        url,
        most_connections=most_connections,
        wait_seconds=wait_seconds,
        statement_seconds=statement_seconds,
        metrics=metrics,
    )
    try:
        yield database
    finally:
        database.close()


def _give_up(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(DatabaseBusy())


def _break_off(connection: Connection) -> None:
    """Nobody answers: end both directions, so that who waits on it wakes and fails; closing it wakes nobody."""
    if connection.closed:
        return
    log.warning("a database connection was lent for too long and is broken off")
    with socket.socket(fileno=os.dup(connection.pgconn.socket)) as twin:
        try:
            twin.shutdown(socket.SHUT_RDWR)
        except OSError:
            log.debug("the connection was gone already", exc_info=True)
