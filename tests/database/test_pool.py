"""The pool: what a borrow gives, what it refuses, and how it gets over a database that is gone."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import psycopg
import pytest

from gauzian.database.embedded import embedded_postgres
from gauzian.database.failures import as_ours
from gauzian.database.pool import TRIES, WAITING_PER_CONNECTION, Connection, Database, Statistics, open_database
from gauzian.errors import Collided, DatabaseBusy, DatabaseDown, OutcomeUnknown
from gauzian.metrics import Metrics

pytestmark = pytest.mark.anyio

Behind = psycopg.Connection[tuple[object, ...]]


async def pid_of(connection: Connection) -> int:
    return connection.info.backend_pid


async def until(condition: object, seconds: float = 5.0) -> None:
    """Poll a condition; fail when it does not come true."""
    assert callable(condition)
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.005)


def lent(database: Database) -> int:
    """What is idle besides is the pool's business: it replaces in the background what it threw away."""
    statistics = database.statistics()
    assert statistics.waiting == 0
    return statistics.size - statistics.idle


def sessions(behind: Behind, state: str = "%") -> int:
    row = behind.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        " AND application_name = 'gauzian' AND state LIKE %s",
        [state],
    ).fetchone()
    assert row is not None
    return int(str(row[0]))


def end_sessions(behind: Behind) -> None:
    behind.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()"
    )


async def test_a_connection_is_used_again_and_commits_each_statement(database: Database, behind: Behind) -> None:
    async with database.connection() as first:
        await first.execute("CREATE TABLE notes (text text)")
        await first.execute("INSERT INTO notes VALUES ('kept')")
        assert behind.execute("SELECT text FROM notes").fetchall() == [("kept",)]
    async with database.connection() as second:
        assert second is first
    assert database.statistics() == Statistics(size=1, idle=1, waiting=0)


async def test_sessions_have_their_time_limits_and_utc(database: Database) -> None:
    async with database.connection() as connection:
        for name, expected in {
            "statement_timeout": "5s",
            "TimeZone": "UTC",
            "idle_in_transaction_session_timeout": "5s",
        }.items():
            assert await (await connection.execute(f"SHOW {name}")).fetchone() == (expected,)


async def test_a_transaction_is_kept_whole_or_not_at_all(database: Database, behind: Behind) -> None:
    behind.execute("CREATE TABLE notes (text text)")
    async with database.transaction() as connection:
        await connection.execute("INSERT INTO notes VALUES ('kept')")
        assert behind.execute("SELECT count(*) FROM notes").fetchone() == (0,)
    with pytest.raises(KeyError):
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO notes VALUES ('lost')")
            raise KeyError
    assert behind.execute("SELECT text FROM notes").fetchall() == [("kept",)]
    assert database.statistics() == Statistics(size=1, idle=1, waiting=0)


async def test_what_the_server_refuses_passes_through_and_the_connection_stays(database: Database) -> None:
    for statement, error in {
        "SELECT * FROM nowhere": psycopg.errors.UndefinedTable,
        "INSERT INTO instance DEFAULT VALUES": psycopg.errors.UniqueViolation,
    }.items():
        with pytest.raises(error):
            async with database.connection() as connection:
                await connection.execute(statement)
    assert database.statistics() == Statistics(size=1, idle=1, waiting=0)


@pytest.mark.parametrize(
    ("state", "broken", "expected"),
    [
        ("08006", False, OutcomeUnknown),
        ("57P01", False, OutcomeUnknown),
        ("57P03", False, OutcomeUnknown),
        ("23505", True, OutcomeUnknown),
        ("57014", False, DatabaseBusy),
        ("40P01", False, Collided),
        ("53100", False, DatabaseDown),
        ("25006", False, DatabaseDown),
        ("23505", False, psycopg.errors.UniqueViolation),
    ],
)
def test_an_sqlstate_says_whether_the_outcome_is_known(state: str, broken: bool, expected: type[Exception]) -> None:
    assert type(as_ours(psycopg.errors.lookup(state)(), broken=broken)) is expected


async def test_a_statement_that_takes_too_long_was_surely_taken_back(database_url: str, behind: Behind) -> None:
    behind.execute("CREATE TABLE notes (text text)")
    async with open_database(database_url, statement_seconds=0.05) as database:
        with pytest.raises(DatabaseBusy):
            async with database.connection() as connection:
                await connection.execute("WITH late AS (SELECT pg_sleep(5)) INSERT INTO notes SELECT 'lost' FROM late")
        assert behind.execute("SELECT count(*) FROM notes").fetchone() == (0,)
        await database.check()


async def test_a_full_pool_makes_wait_and_hands_over_in_order(database: Database) -> None:
    order: list[int] = []

    async def ask(number: int) -> None:
        async with database.connection():
            order.append(number)

    async with anyio.create_task_group() as tasks, database.connection(), database.connection():
        for number in range(5):
            tasks.start_soon(ask, number)
            await until(lambda number=number: database.statistics().waiting == number + 1)
        assert order == []
    assert order == [0, 1, 2, 3, 4]
    assert database.statistics() == Statistics(size=2, idle=2, waiting=0)


async def test_who_waits_too_long_is_told_busy(database: Database) -> None:
    async with database.connection(), database.connection():
        started = time.monotonic()
        with pytest.raises(DatabaseBusy):
            await database.check()
        assert 0.4 < time.monotonic() - started < 2
        assert database.statistics().waiting == 0
    await database.check()


async def test_the_line_is_bounded_and_says_busy_at_once(database: Database) -> None:
    async def ask() -> None:
        async with database.connection():
            pass

    async with anyio.create_task_group() as tasks, database.connection(), database.connection():
        for _ in range(2 * WAITING_PER_CONNECTION):
            tasks.start_soon(ask)
        await until(lambda: database.statistics().waiting == 2 * WAITING_PER_CONNECTION)
        started = time.monotonic()
        with pytest.raises(DatabaseBusy):
            await database.check()
        assert time.monotonic() - started < 0.2
        tasks.cancel_scope.cancel()
    assert database.statistics().waiting == 0
    await database.check()


async def test_cancelled_while_waiting_it_leaves_the_line_and_the_pool_stays_whole(database: Database) -> None:
    async with database.connection(), database.connection():
        waiting = asyncio.create_task(database.check())
        await until(lambda: database.statistics().waiting == 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert database.statistics().waiting == 0
    await database.check()
    assert database.statistics() == Statistics(size=2, idle=2, waiting=0)


@pytest.mark.parametrize("kind", ["task", "scope"])
@pytest.mark.parametrize("steps", range(8))
async def test_cancelled_in_the_moment_of_the_hand_over_it_ends_and_the_place_is_not_lost(
    database_url: str, kind: str, steps: int
) -> None:
    scope = anyio.CancelScope()

    async def ask(database: Database) -> None:
        with scope:
            async with database.connection():
                await asyncio.Event().wait()

    async def cancel() -> None:
        for _ in range(steps):  # the hand-over takes some of the loop's turns
            await asyncio.sleep(0)
        if kind == "task":
            waiting.cancel()
        else:
            scope.cancel()

    async with open_database(database_url, most_connections=1, wait_seconds=2) as database:
        async with database.connection():
            waiting = asyncio.create_task(ask(database))
            await until(lambda: database.statistics().waiting == 1)
            cancelling = asyncio.create_task(cancel())
        await asyncio.wait([waiting, cancelling], timeout=2)
        assert waiting.done(), "the cancellation was lost"
        assert waiting.cancelled() == (kind == "task")
        assert scope.cancelled_caught == (kind == "scope")
        await until(lambda: database.statistics() == Statistics(size=1, idle=1, waiting=0))


async def test_cancelled_while_it_hands_over_neither_the_connection_nor_who_waits_is_lost(database_url: str) -> None:
    async with open_database(database_url, most_connections=1, wait_seconds=2) as database:
        inside, leave = asyncio.Event(), asyncio.Event()

        async def hold() -> None:
            async with database.connection():
                inside.set()
                await leave.wait()

        holding = asyncio.create_task(hold())
        await inside.wait()
        waiting = asyncio.create_task(database.check())
        leave.set()
        await asyncio.sleep(0)  # both have made one step: one is entering the line, the other is at its door
        assert database.statistics().waiting == 1
        holding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holding
        await waiting
        await until(lambda: database.statistics() == Statistics(size=1, idle=1, waiting=0))


@pytest.mark.parametrize("kind", ["task", "scope"])
async def test_cancelled_while_a_statement_runs_nothing_is_left_behind(
    database: Database, behind: Behind, kind: str
) -> None:
    async def sleep(scope: anyio.CancelScope) -> None:
        with scope:
            async with database.connection() as connection:
                await connection.execute("SELECT pg_sleep(60)")

    scope = anyio.CancelScope()
    running = asyncio.create_task(sleep(scope))
    await until(lambda: sessions(behind, "active") == 1)
    if kind == "task":
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    else:
        scope.cancel()
        await running
    assert database.statistics().size <= 1
    await database.check()
    await until(lambda: sessions(behind, "active") == 0, seconds=10)


async def test_cancelled_in_a_transaction_it_is_rolled_back(database: Database, behind: Behind) -> None:
    behind.execute("CREATE TABLE notes (text text)")
    inside = asyncio.Event()

    async def write() -> None:
        async with database.transaction() as connection:
            await connection.execute("INSERT INTO notes VALUES ('lost')")
            inside.set()
            await asyncio.Event().wait()

    writing = asyncio.create_task(write())
    await inside.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert behind.execute("SELECT count(*) FROM notes").fetchone() == (0,)
    await until(lambda: sessions(behind, "idle in transaction") == 0)
    await database.check()


async def test_a_connection_given_back_inside_a_transaction_is_thrown_away(database: Database, behind: Behind) -> None:
    async with database.connection() as connection:
        first = await pid_of(connection)
        await connection.execute("BEGIN")
    assert connection.closed
    async with database.connection() as connection:
        assert await pid_of(connection) != first
    assert sessions(behind, "idle in transaction") == 0


async def test_idle_connections_that_died_are_not_lent(database: Database, behind: Behind) -> None:
    async with database.connection(), database.connection():
        pass
    end_sessions(behind)
    await until(lambda: sessions(behind) == 0)
    await database.check()  # the very first one after it
    await until(lambda: database.statistics() == Statistics(size=2, idle=2, waiting=0))


async def test_a_session_ended_in_the_middle_of_a_statement_leaves_the_outcome_unknown(
    database: Database, behind: Behind
) -> None:
    async def sleep() -> None:
        async with database.connection() as connection:
            await connection.execute("SELECT pg_sleep(60)")

    running = asyncio.create_task(sleep())
    await until(lambda: sessions(behind, "active") == 1)
    end_sessions(behind)
    with pytest.raises(OutcomeUnknown):
        await running
    assert lent(database) == 0
    await database.check()


async def test_a_server_that_does_not_answer_is_broken_off(database: Database, behind: Behind) -> None:
    started = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        async with database.connection(most_seconds=0.2) as connection:
            await connection.execute("SELECT pg_sleep(60)")
    assert time.monotonic() - started < 3
    assert lent(database) == 0
    await database.check()


async def test_an_old_connection_is_replaced(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gauzian.database.pool.LONGEST_LIFE_SECONDS", 0.0)
    async with open_database(database_url) as database:
        async with database.connection() as first:
            pass
        assert first.closed
        async with database.connection() as second:
            assert second is not first


async def test_nobody_there_is_said_in_time_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gauzian.database.pool.GONE_WAIT_SECONDS", 0.1)
    url = f"postgresql://gauzian@/gauzian?host={tmp_path}"
    async with open_database(url, most_connections=1, wait_seconds=1) as database:
        for most_seconds in [1.5, 0.5, 0.5]:  # once it is known, nobody waits long
            started = time.monotonic()
            with pytest.raises(DatabaseDown) as raised:
                await database.check()
            assert not isinstance(raised.value, OutcomeUnknown)
            assert time.monotonic() - started < most_seconds
        with pytest.raises(DatabaseDown):
            async with database.advisory_lock(1):
                pass
        assert database.statistics() == Statistics(size=0, idle=0, waiting=0)
    assert [record.name for record in caplog.records if record.levelname != "DEBUG"] == ["gauzian.database.pool"]


async def test_more_gave_up_than_may_wait_and_it_heals_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gauzian.database.pool.WAITING_PER_CONNECTION", 2)
    monkeypatch.setattr("gauzian.database.pool.RECONNECT_SECONDS", 0.0)
    async with AsyncExitStack() as server:
        url = await server.enter_async_context(embedded_postgres(tmp_path, settings={"fsync": "off"}))
        await server.aclose()
        async with open_database(url, most_connections=1, wait_seconds=0.05) as database:
            for _ in range(5):
                with pytest.raises(DatabaseDown):
                    await database.check()
            async with embedded_postgres(tmp_path, settings={"fsync": "off"}):
                with anyio.fail_after(5):
                    while True:
                        try:
                            await database.check()
                            break
                        except DatabaseDown:
                            await anyio.sleep(0.02)


async def test_a_closed_database_takes_its_lent_connections_back_and_lends_none(
    database_url: str, behind: Behind
) -> None:
    async with open_database(database_url) as database:
        await database.check()
        lent = database.connection()
        await lent.__aenter__()
    await lent.__aexit__(None, None, None)
    with pytest.raises(DatabaseDown):
        await database.check()
    await until(lambda: sessions(behind) == 0)


async def test_an_advisory_lock_has_one_holder_and_ends_with_it(database: Database, database_url: str) -> None:
    async with open_database(database_url) as other:
        async with database.advisory_lock(7) as mine:
            assert mine
            assert database.statistics().size == 0  # its connection is none of the pool's
            async with other.advisory_lock(7) as theirs:
                assert not theirs
            async with other.advisory_lock(8) as another:
                assert another
        async with other.advisory_lock(7) as theirs:
            assert theirs


async def test_an_advisory_lock_ends_when_its_holder_is_cancelled(database: Database, database_url: str) -> None:
    held = asyncio.Event()

    async def hold() -> None:
        async with database.advisory_lock(7):
            held.set()
            await asyncio.Event().wait()

    holding = asyncio.create_task(hold())
    await held.wait()
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    async with open_database(database_url) as other:
        with anyio.fail_after(5):
            while True:
                async with other.advisory_lock(7) as theirs:
                    if theirs:
                        return
                await anyio.sleep(0.005)


async def test_an_error_of_the_holder_is_not_taken_for_one_of_the_lock(database: Database) -> None:
    with pytest.raises(KeyError):
        async with database.advisory_lock(7):
            raise KeyError


async def test_levels_and_durations_are_exported(database_url: str) -> None:
    metrics = Metrics()
    async with open_database(database_url, metrics=metrics) as database:
        async with database.connection():
            text = metrics.render().decode()
            assert 'gauzian_database_connections{state="lent"} 1.0' in text
        async with database.transaction():
            pass
        with pytest.raises(psycopg.errors.UndefinedTable):
            async with database.connection() as connection:
                await connection.execute("SELECT * FROM nowhere")
    text = metrics.render().decode()
    for operation, status in [("statement", "ok"), ("transaction", "ok"), ("statement", "error")]:
        assert f'operation="{operation}",status="{status}"}} 1.0' in text


@asynccontextmanager
async def steady_requests(database: Database) -> AsyncIterator[list[str]]:
    """Somebody who asks all the time; the list grows by what each one was told."""
    told: list[str] = []

    async def ask() -> None:
        while True:
            try:
                with anyio.fail_after(2):
                    await database.check()
                told.append("ok")
            except DatabaseDown:
                told.append("down")
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(ask)
        yield told
        tasks.cancel_scope.cancel()


async def test_the_database_goes_and_comes_back_and_the_pool_heals_by_itself(tmp_path: Path) -> None:
    server = AsyncExitStack()
    url = await server.enter_async_context(embedded_postgres(tmp_path, settings={"fsync": "off"}))
    async with open_database(url, most_connections=3, wait_seconds=1) as database, steady_requests(database) as told:
        await until(lambda: told.count("ok") > 10)
        await server.aclose()
        told.clear()
        await until(lambda: told.count("down") > 10)
        assert "ok" not in told
        async with embedded_postgres(tmp_path, settings={"fsync": "off"}) as again:
            assert again == url
            await until(lambda: "ok" in told)
            told.clear()
            await until(lambda: told.count("ok") > 10)
            assert "down" not in told
        await until(lambda: told[-1] == "down")
    assert database.statistics() == Statistics(size=0, idle=0, waiting=0)


async def test_two_that_wait_for_each_other_are_both_done_in_the_end(database: Database) -> None:
    """Each holds what the other wants; PostgreSQL takes one of them back, which is tried again."""
    arrived, both = 0, asyncio.Event()
    tries = Counter[int]()

    async def take(first: int, second: int) -> int:
        async def work(connection: Connection) -> int:
            tries[first] += 1
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", [first])
            nonlocal arrived
            arrived += 1
            if arrived == 2:
                both.set()
            await both.wait()
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", [second])
            return first

        return await database.settled(work)

    assert await asyncio.gather(take(1, 2), take(2, 1)) == [1, 2]
    assert sorted(tries.values()) == [1, 2]


async def test_who_meets_others_again_and_again_is_told_so(database: Database) -> None:
    tries = 0

    async def work(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        raise Collided

    with pytest.raises(DatabaseBusy):
        await database.settled(work)
    assert tries == TRIES
