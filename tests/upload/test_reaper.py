"""What nobody finished goes, what nobody names goes, and nothing else does."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from gauzian.database import care
from gauzian.errors import StoreDown
from gauzian.upload.reaper import Reaper, keep_reaping
from gauzian.upload.standing import keep_looking
from tests.bench.machine import parse_metrics
from tests.postgres import Postgres
from tests.service import Service, objects_of, running_service

pytestmark = pytest.mark.anyio

SEEN = timedelta(days=2)


def reaper_of(service: Service, **more: Any) -> Reaper:
    parts = service.parts
    given: dict[str, Any] = {"ttl": timedelta(hours=24), "orphan_grace": timedelta(hours=24)}
    return Reaper(
        database=parts.database, store=parts.store, removal=parts.removal, metrics=parts.metrics, **(given | more)
    )


async def age_everything(service: Service, tmp_path: Path) -> None:
    """As if all that is there had happened two days ago."""
    async with service.parts.database.connection() as conn:
        await conn.execute("UPDATE files SET updated_at = updated_at - %s", (SEEN,))
        await conn.execute("UPDATE chunks SET created_at = created_at - %s", (SEEN,))
    past = time.time() - SEEN.total_seconds()
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file():
            os.utime(path, (past, past))


async def add_orphan(service: Service, name: str = "12345678-1234-4234-8234-123456789abc." + "0" * 32) -> str:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"nobody names me"

    await service.parts.store.put(name, pieces(), size=15)
    return name


async def test_an_upload_nobody_finished_is_reaped_rows_objects_and_space(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path, quota_bytes=100) as service:
        user = await service.sign_up()
        done, left = await user.store(b"done"), await user.initialize(90)
        await user.put(left, 0, bytes(90))
        await age_everything(service, tmp_path)
        young = await user.initialize(3)
        await user.put(young, 0, b"abc")
        assert (await reaper_of(service).reap(sweep=False, dry_run=True)).uploads == 1
        assert (await user.received(left))["bytes"] == 90, "a dry run changes nothing"
        report = await reaper_of(service).reap(sweep=False)
        assert report.uploads == 1
        assert (await user.put(left, 1, b"late")).status == 409
        assert (await user.call("GET", f"/drive/download/{done}")).body == b"done"
        assert (await user.received(young))["received"] == [[0, 0]]
        assert len(await objects_of(service)) == 2
        assert (await user.put(young, 1, bytes(90))).status == 200, "the space is free again"


async def test_one_round_removes_everything_however_many_pages_it_fills(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gauzian.upload.reaper._BATCH", 3)
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        left = [await user.initialize(4) for _ in range(8)]
        for file_id in left:
            await user.put(file_id, 0, b"left")
        await age_everything(service, tmp_path)
        assert (await reaper_of(service).reap(sweep=False, dry_run=True)).uploads == 8
        assert (await reaper_of(service).reap(sweep=False)).uploads == 8
        assert await objects_of(service) == set()
        async with service.parts.database.connection() as conn:
            await conn.execute("UPDATE files SET updated_at = updated_at - %s", (SEEN,))
            await conn.execute("UPDATE tokens SET expires_at = now() - interval '1 second'")
            await reaper_of(service).reap(sweep=False)
            for table in ("files", "tokens"):
                cursor = await conn.execute(f"SELECT count(*) FROM {table}")
                assert await cursor.fetchone() == (0,)


async def test_an_upload_touched_since_it_was_listed_is_left_alone(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(6)
        await user.put(file_id, 0, b"abc")
        await age_everything(service, tmp_path)
        really = care.list_untouched

        async def list_and_then_a_chunk_comes(*args: Any, **more: Any) -> Any:
            listed = await really(*args, **more)
            assert (await user.put(file_id, 1, b"def")).status == 200
            return listed

        monkeypatch.setattr(care, "list_untouched", list_and_then_a_chunk_comes)
        assert (await reaper_of(service).reap(sweep=False)).uploads == 0
        assert (await user.finalize(file_id)).status == 200


async def test_an_upload_that_still_receives_chunks_is_left_alone(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        slow = await user.initialize(6)
        await user.put(slow, 0, b"abc")
        await age_everything(service, tmp_path)
        await user.put(slow, 1, b"def")
        assert (await reaper_of(service).reap(sweep=True)).uploads == 0
        assert (await user.finalize(slow)).status == 200
        assert (await user.call("GET", f"/drive/download/{slow}")).body == b"abcdef"


async def test_a_removal_that_was_interrupted_is_finished(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(9)
        for index in range(3):
            await user.put(file_id, index, b"abc")
        async with service.parts.database.connection() as conn:
            await conn.execute("UPDATE files SET state = 'aborted' WHERE id = %s", (file_id,))
        assert (await reaper_of(service).reap(sweep=False)).uploads == 1
        assert await objects_of(service) == set()


async def test_objects_without_a_row_are_swept_when_old_and_only_ours(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        reaper = reaper_of(service)
        assert await reaper.claim_store() is None
        kept = await user.store(b"kept")
        await add_orphan(service)
        foreign = await add_orphan(service, "somebody-elses.file")
        before = await objects_of(service)
        assert (await reaper.reap(sweep=True)).objects == 0, "too young: its row may be on the way"
        await age_everything(service, tmp_path)
        dry = await reaper.reap(sweep=True, dry_run=True)
        assert (dry.objects, dry.object_bytes, len(dry.examples)) == (1, 15, 1)
        assert await objects_of(service) == before
        report = await reaper.reap(sweep=True)
        assert (report.objects, report.refused) == (1, None)
        after = await objects_of(service)
        assert before - after == set(dry.examples)
        assert foreign in after
        assert (await user.call("GET", f"/drive/download/{kept}")).body == b"kept"


async def test_a_sweep_touches_no_store_of_another_database(
    database_url: str, postgres: Postgres, tmp_path: Path
) -> None:
    async with running_service(database_url, tmp_path) as service:
        assert await reaper_of(service).claim_store() is None
        user = await service.sign_up()
        await user.store(b"precious")
        await age_everything(service, tmp_path)
        before = await objects_of(service)
    with postgres.fresh_database() as other_url:
        async with running_service(other_url, tmp_path) as stranger:
            async with stranger.parts.database.connection() as conn:  # the tests' databases are copies of one
                await conn.execute("UPDATE instance SET id = gen_random_uuid()")
            report = await reaper_of(stranger).reap(sweep=True)
            assert report.refused == "the store belongs to another database"
            assert "refused" in report.line()
            assert await objects_of(stranger) == before
            await reaper_of(stranger).adopt_store()
            assert (await reaper_of(stranger).reap(sweep=True)).objects == 1, "the operator said so"


async def test_a_store_with_chunks_and_no_mark_is_not_claimed(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        await add_orphan(service)
        assert await reaper_of(service).claim_store() == "the store holds chunks but no mark of a database"


async def test_one_process_at_a_time_reaps(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as one, running_service(database_url, tmp_path) as two:
        async with one.parts.database.advisory_lock(0x6761757A) as ours:
            assert ours
            report = await reaper_of(two).reap(sweep=True)
        assert report.elsewhere
        assert "another process" in report.line()
        assert not (await reaper_of(two).reap(sweep=True)).elsewhere


@pytest.mark.parametrize("failure", [StoreDown(), RuntimeError("a mistake of ours")])
async def test_the_background_task_survives_any_failure_and_tries_again(
    database_url: str, tmp_path: Path, failure: Exception
) -> None:
    async with running_service(database_url, tmp_path) as service:
        rounds = 0
        twice = anyio.Event()

        class FailsAtFirst(Reaper):
            async def reap(self, *, sweep: bool, dry_run: bool = False) -> Any:
                nonlocal rounds
                rounds += 1
                if rounds == 1:
                    raise failure
                twice.set()
                return await super().reap(sweep=sweep, dry_run=dry_run)

        parts = service.parts
        reaper = FailsAtFirst(
            database=parts.database,
            store=parts.store,
            removal=parts.removal,
            metrics=parts.metrics,
            ttl=SEEN,
            orphan_grace=SEEN,
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(
                lambda: keep_reaping(reaper, every=timedelta(milliseconds=5), sweep_every=timedelta(hours=1))
            )
            with anyio.fail_after(10):
                await twice.wait()
            tasks.cancel_scope.cancel()


async def test_scrub_tells_missing_from_short_from_altered_and_changes_nothing(
    database_url: str, tmp_path: Path
) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        files = [await user.store(bytes([number]) * 3000) for number in range(4)]
        async with service.parts.database.connection() as conn:
            rows = await care.list_objects(conn, after=None, most=100)
        paths = {path.name: path for path in (tmp_path / "store").rglob("*") if path.is_file()}
        ruined = {
            files[1]: ("missing", Path.unlink),
            files[2]: ("999 bytes instead of 1024", lambda path: os.truncate(path, 999)),
            files[3]: ("other bytes (SHA-256 differs)", lambda path: path.write_bytes(bytes(1024))),
        }
        for file_id, (_, ruin) in ruined.items():
            row = next(row for row in rows if str(row.file_id) == file_id and row.index == 1)
            ruin(paths[row.object_key])
        found: dict[str, str] = {}
        seen: list[int] = []
        result = await service.parts.scrub.run(
            on_damage=lambda damage: found.update({str(damage.row.file_id): damage.what}),
            on_progress=lambda progress: seen.append(progress.checked),
        )
        assert found == {file_id: what for file_id, (what, _) in ruined.items()}
        assert (result.checked, result.objects, result.damaged) == (12, 12, 3)
        assert (len(seen), seen[-1]) == (12, 12)


async def numbers(service: Service) -> dict[str, float]:
    await service.parts.standing.look()
    return parse_metrics(service.parts.metrics.render().decode())


async def test_what_is_unfinished_and_what_is_overdue_is_told(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        await user.store(b"done")
        left = await user.initialize(4)
        await user.put(left, 0, b"left")
        half = await user.initialize(4)
        await user.put(half, 0, b"half")
        found = await numbers(service)
        assert (found["gauzian_unfinished_uploads"], found["gauzian_overdue_uploads"]) == (2, 0)
        assert found["gauzian_stored_bytes"] == 12
        await age_everything(service, tmp_path)
        async with service.parts.database.connection() as conn:
            await conn.execute("UPDATE files SET state = 'aborted' WHERE id = %s", (half,))
        await user.initialize(3)
        found = await numbers(service)
        assert (found["gauzian_unfinished_uploads"], found["gauzian_overdue_uploads"]) == (2, 2)
        await reaper_of(service).reap(sweep=False)
        found = await numbers(service)
        assert (found["gauzian_unfinished_uploads"], found["gauzian_overdue_uploads"]) == (1, 0)
        assert found['gauzian_reaper_rounds_total{status="success"}'] == 1


async def test_a_round_that_failed_is_counted_as_one(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_service(database_url, tmp_path) as service:

        async def fails(*args: Any, **more: Any) -> Any:
            raise StoreDown

        monkeypatch.setattr(care, "list_untouched", fails)
        with pytest.raises(StoreDown):
            await reaper_of(service).reap(sweep=False)
        found = await numbers(service)
        assert found['gauzian_reaper_rounds_total{status="failed"}'] == 1
        assert found['gauzian_reaper_rounds_total{status="success"}'] == 0


async def test_the_service_tells_what_a_scrub_of_another_process_has_found(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service, running_service(database_url, tmp_path) as other:
        user = await service.sign_up()
        await user.store(b"abc")
        await user.store(b"def")
        next(path for path in (tmp_path / "store").rglob("*") if path.is_file() and path.stat().st_size == 3).unlink()
        assert (await numbers(service))["gauzian_scrub_finished_timestamp_seconds"] == 0, "never"
        await other.parts.scrub.run(on_damage=lambda damage: None, on_progress=lambda progress: None)
        found = await numbers(service)
        assert (found["gauzian_scrub_checked_objects"], found["gauzian_scrub_damaged_objects"]) == (2, 1)
        assert abs(time.time() - found["gauzian_scrub_finished_timestamp_seconds"]) < 60


async def test_the_standing_stays_while_the_database_cannot_be_asked_and_is_looked_up_again(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        await user.initialize(3)
        assert (await numbers(service))["gauzian_unfinished_uploads"] == 1
        await user.initialize(3)
        really, failures = care.find_standing, [StoreDown(), RuntimeError("a mistake of ours")]
        seen: list[float] = []
        again = anyio.Event()

        async def fails_at_first(*args: Any, **more: Any) -> Any:
            seen.append(parse_metrics(service.parts.metrics.render().decode())["gauzian_unfinished_uploads"])
            if failures:
                raise failures.pop()
            if len(seen) > 3:
                again.set()
            return await really(*args, **more)

        monkeypatch.setattr(care, "find_standing", fails_at_first)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: keep_looking(service.parts.standing, every=timedelta(milliseconds=5)))
            with anyio.fail_after(10):
                await again.wait()
            tasks.cancel_scope.cancel()
        assert seen[:4] == [1, 1, 1, 2]


async def test_scrub_does_not_call_an_upload_damaged_that_was_aborted_while_it_read(
    database_url: str, tmp_path: Path
) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(3)
        await user.put(file_id, 0, b"abc")
        store = service.parts.store

        class AbortsFirst:
            @asynccontextmanager
            async def get(self, key: str, **more: Any) -> AsyncIterator[Any]:
                assert (await user.abort(file_id)).status == 200
                async with store.get(key, **more) as pieces:
                    yield pieces

        scrub = type(service.parts.scrub)(database=service.parts.database, store=AbortsFirst())  # type: ignore[arg-type]
        found: list[Any] = []
        result = await scrub.run(on_damage=found.append, on_progress=lambda progress: None)
        assert (result.checked, result.damaged, found) == (1, 0, [])


async def test_scrub_does_not_call_a_dead_store_damage(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        await user.store(b"abc")

        class Dead:
            def get(self, key: str, **_: Any) -> Any:
                raise StoreDown

            async def check(self) -> None:
                raise StoreDown

        scrub = type(service.parts.scrub)(database=service.parts.database, store=Dead())  # type: ignore[arg-type]
        found: list[Any] = []
        with pytest.raises(StoreDown):
            await scrub.run(on_damage=found.append, on_progress=lambda progress: None)
        assert found == []


async def test_a_round_forgets_registrations_that_nobody_finished(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        for name in ("old", "young"):
            body = {"email": f"{name}@example.org"}
            assert (await service.call("POST", "/register/send-otp", json=body)).status == 200
        async with service.parts.database.connection() as conn:
            await conn.execute("UPDATE registrations SET expires_at = now() WHERE email LIKE 'old%'")
        await reaper_of(service).reap(sweep=False)
        async with service.parts.database.connection() as conn:
            rows = await (await conn.execute("SELECT email FROM registrations")).fetchall()
        assert rows == [("young@example.org",)]
