"""The database goes and comes back, the store goes and comes back: said at once, healed by itself, nothing lost."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.postgres import Postgres
from tests.rclone import running_s3
from tests.service import Service, objects_of, running_service

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

CONTENT = os.urandom(50_000)


def let_in(postgres: Postgres, url: str, allowed: bool) -> None:
    """Whether the database takes connections; if not, those there are end."""
    name = conninfo_to_dict(url)["dbname"]
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS {allowed}")
        if not allowed:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))


async def becomes_ready(service: Service) -> None:
    with anyio.fail_after(30):
        while (await service.call("GET", "/health/ready")).status != 200:
            await anyio.sleep(0.1)


async def test_the_database_goes_and_comes_back(postgres: Postgres, database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path, database_wait_seconds=1.0) as service:
        user = await service.sign_up()
        file_id = await user.initialize(2 * len(CONTENT))
        assert (await user.put(file_id, 0, CONTENT)).status == 200
        let_in(postgres, database_url, False)
        try:
            for _ in range(3):
                with anyio.fail_after(15):
                    answer = await user.put(file_id, 1, CONTENT)
                assert answer.status == 503
                assert answer.json()["code"] in {"database_unavailable", "database_busy"}
                assert answer.header("retry-after")
            assert (await service.call("GET", "/health/live")).status == 200
            ready = await service.call("GET", "/health/ready")
            assert ready.status == 503
            assert b'"part": "database"' in ready.body
            assert b'"part": "store"' not in ready.body
        finally:
            let_in(postgres, database_url, True)
        await becomes_ready(service)
        assert service.parts.upload_gate.taken == 0
        assert (await user.put(file_id, 1, CONTENT)).status == 200
        assert (await user.finalize(file_id)).status == 200
        assert (await user.call("GET", f"/drive/download/{file_id}")).body == CONTENT * 2
        assert len(await objects_of(service)) == 2


async def test_the_store_falls_silent_and_comes_back(database_url: str, tmp_path: Path) -> None:
    with running_s3() as s3:
        async with running_service(
            database_url,
            tmp_path,
            s3_endpoint=s3.endpoint,
            s3_access_key=s3.access_key,
            s3_secret_key=s3.secret_key,
            s3_read_seconds=0.5,
            s3_connect_seconds=0.5,
        ) as service:
            user = await service.sign_up()
            file_id = await user.initialize(2 * len(CONTENT))
            assert (await user.put(file_id, 0, CONTENT)).status == 200
            s3.process.send_signal(signal.SIGSTOP)
            try:
                with anyio.fail_after(30):
                    answer = await user.put(file_id, 1, CONTENT)
                assert (answer.status, answer.json()["code"]) == (503, "store_unavailable")
                ready = await service.call("GET", "/health/ready")
                assert ready.status == 503
                assert b'"part": "store"' in ready.body
            finally:
                s3.process.send_signal(signal.SIGCONT)
            await becomes_ready(service)
            assert service.parts.upload_gate.taken == 0
            assert (await user.received(file_id))["received"] == [[0, 0]]
            assert (await user.put(file_id, 1, CONTENT)).status == 200
            assert (await user.finalize(file_id)).status == 200
            assert (await user.call("GET", f"/drive/download/{file_id}")).body == CONTENT * 2
