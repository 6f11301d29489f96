"""One connection to PostgreSQL: made ready for us, looked at without a round trip, broken off when nobody answers."""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Callable
from typing import Self

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

log = logging.getLogger(__name__)

# A peer that vanished without a word is noticed by the kernel after this long, also in the middle of a statement.
_KEEPALIVE = {"keepalives_idle": "15", "keepalives_interval": "5", "keepalives_count": "3", "tcp_user_timeout": "30000"}


def conninfo_of(url: str, *, connect_seconds: float) -> str:
    """The URL with what it leaves open; what it says itself goes first."""
    defaults = {"connect_timeout": str(max(2, int(connect_seconds))), "application_name": "gauzian", **_KEEPALIVE}
    return make_conninfo(url, **{**defaults, **conninfo_to_dict(url)})


class Line(psycopg.AsyncConnection[TupleRow]):
    """A connection in autocommit, with its time limits."""

    _poller: select.poll

    @classmethod
    async def connect(  # type: ignore[override]  # only the pool calls it, with what pool.py gives it
        cls, conninfo: str, *, told: Callable[[psycopg.Error | None], None], statement_seconds: float
    ) -> Self:
        """`told` hears how the attempt went: psycopg_pool, which makes them in the background, would only log it."""
        milliseconds = int(statement_seconds * 1000)
        try:
            line = await super().connect(conninfo, autocommit=True)
            try:
                await line.execute(
                    f"SET statement_timeout = {milliseconds}; SET idle_in_transaction_session_timeout = {milliseconds};"
                    " SET timezone = 'UTC'; SET jit = off"  # our statements are over before it has compiled anything
                )
            except BaseException:
                line.pgconn.finish()
                raise
        except psycopg.Error as error:
            told(error)
            raise
        line._poller = select.poll()
        line._poller.register(line.pgconn.socket, select.POLLIN)
        told(None)
        return line

    def has_ended(self) -> bool:
        """For one that is idle: a server never speaks first except to say goodbye."""
        return bool(self._poller.poll(0))

    def break_off(self) -> None:
        """Nobody answers: end both directions, so that who waits on it wakes and fails; closing it wakes nobody."""
        if self.closed:
            return
        log.warning("a database connection was lent for too long and is broken off")
        with socket.socket(fileno=os.dup(self.pgconn.socket)) as twin:
            try:
                twin.shutdown(socket.SHUT_RDWR)
            except OSError:
                log.debug("the connection was gone already", exc_info=True)
