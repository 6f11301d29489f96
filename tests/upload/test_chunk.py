"""The corridor under trouble: whatever fails, whoever leaves, wherever it is cancelled, nothing stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest

from gauzian.assembly.urls import compose
from gauzian.database import chunks
from gauzian.errors import DatabaseBusy, DatabaseDown, Message, OutcomeUnknown
from gauzian.settings import Settings
from tests.asgi import scope_of
from tests.fakes import AroundStore, StoreBreaksMidway, StoreFillsUp, StoreRefuses, StoreStalls
from tests.service import IV, Service, User, objects_of, running_service

pytestmark = pytest.mark.anyio

CONTENT = bytes(range(256)) * 40


def with_store(service: Service, store: AroundStore, **settings: Any) -> Service:
    """The same service, in trouble."""
    parts = replace(service.parts, store=store)
    return Service(compose(parts, Settings(**settings)), parts)


def settled(service: Service) -> None:
    """All places free, no connection lent, nobody waiting."""
    parts = service.parts
    assert (parts.upload_gate.taken, parts.upload_gate._of_user) == (0, {})
    statistics = parts.database.statistics()
    assert (statistics.size - statistics.idle, statistics.waiting) == (0, 0)


@pytest.mark.parametrize(
    ("trouble", "status", "code"),
    [
        (StoreRefuses, 503, "store_unavailable"),
        (StoreBreaksMidway, 503, "store_unavailable"),
        (StoreFillsUp, 507, "store_full"),
    ],
)
async def test_a_store_in_trouble_is_said_and_leaves_neither_row_nor_object(
    database_url: str, tmp_path: Path, trouble: Callable[[Any], AroundStore], status: int, code: str
) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(len(CONTENT))
        broken = User(with_store(service, trouble(service.parts.store)), user.token, user.email)
        for put in (broken.put, broken.put_json, broken.put_multipart):
            answer = await put(file_id, 0, CONTENT)
            assert (answer.status, answer.json()["code"]) == (status, code)
            assert (answer.header("retry-after") is not None) == (status == 503)
        assert await objects_of(service) == set()
        assert (await user.received(file_id))["received"] == []
        settled(service)
        assert (await user.put(file_id, 0, CONTENT)).status == 200


@pytest.mark.parametrize(
    ("error", "status", "stays"),
    [
        (DatabaseBusy(), 503, False),
        (DatabaseDown(), 503, False),
        (OutcomeUnknown(), 503, True),
        (psycopg.ProgrammingError(), 500, False),
        (ValueError(), 503, True),  # whatever it was, it was perhaps behind the commit
    ],
)
async def test_the_object_is_taken_back_only_when_surely_no_row_was_written(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, stays: bool
) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(len(CONTENT))

        async def fails(*_: Any, **__: Any) -> dict[str, chunks.StoredChunk]:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(chunks, "put_new_chunks", fails)
            assert (await user.put(file_id, 0, CONTENT)).status == status
        assert len(await objects_of(service)) == (1 if stays else 0)
        settled(service)


class Client:
    """Sends what it is told to, then stays silent, hangs up, or goes on."""

    def __init__(self, *messages: Message) -> None:
        self.messages = list(messages)
        self.silent = anyio.Event()
        self.answers: list[Message] = []

    async def receive(self) -> Message:
        if self.messages:
            return self.messages.pop(0)
        self.silent.set()
        await anyio.sleep_forever()
        raise AssertionError

    async def send(self, message: Message) -> None:
        self.answers.append(message)


def part(content: bytes) -> Message:
    return {"type": "http.request", "body": content, "more_body": True}


GONE: Message = {"type": "http.disconnect"}


def upload_scope(user: User, file_id: str) -> Any:
    path = f"/drive/upload_chunk_binary?file_id={file_id}&index=0&iv={IV}"
    return scope_of("POST", path, headers={"Authorization": f"Bearer {user.token}"}, length=len(CONTENT))


@pytest.mark.parametrize("sent", [0, 1, 5000, len(CONTENT) - 1])
async def test_a_client_that_vanishes_at_any_point_leaves_nothing(database_url: str, tmp_path: Path, sent: int) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(len(CONTENT))
        client = Client(*([part(CONTENT[:sent])] if sent else []), GONE)
        with anyio.fail_after(10):
            await service.app(upload_scope(user, file_id), client.receive, client.send)
        assert client.answers == []
        assert await objects_of(service) == set()
        settled(service)


@pytest.mark.parametrize("sent", [0, 1, 5000, len(CONTENT) - 1])
async def test_cancelled_while_it_waits_for_the_body_it_leaves_nothing(
    database_url: str, tmp_path: Path, sent: int
) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(len(CONTENT))
        client = Client(*([part(CONTENT[:sent])] if sent else []))
        task = asyncio.ensure_future(service.app(upload_scope(user, file_id), client.receive, client.send))
        with anyio.fail_after(10):
            await client.silent.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await objects_of(service) == set()
        settled(service)


async def test_cancelled_while_the_store_works_it_leaves_nothing(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(len(CONTENT))
        store = StoreStalls(service.parts.store)
        stalling = with_store(service, store)
        client = Client(part(CONTENT))
        task = asyncio.ensure_future(stalling.app(upload_scope(user, file_id), client.receive, client.send))
        with anyio.fail_after(10):
            while not store.waiting:
                await anyio.sleep(0.001)
        assert service.parts.upload_gate.taken == 1
        statistics = service.parts.database.statistics()
        assert statistics.size == statistics.idle, "no connection is held while the store works"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await objects_of(service) == set()
        settled(service)


@pytest.mark.parametrize("how", ["scope", "task"])
async def test_cancelled_while_the_row_is_written_the_row_is_written(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(len(CONTENT))
        writing, go_on = anyio.Event(), anyio.Event()
        really = chunks.put_new_chunks

        async def slow(*args: Any, **more: Any) -> dict[str, chunks.StoredChunk]:
            writing.set()
            await go_on.wait()
            return await really(*args, **more)

        monkeypatch.setattr(chunks, "put_new_chunks", slow)

        scope = anyio.CancelScope()

        async def send() -> None:
            with scope:
                await user.put(file_id, 0, CONTENT)

        sending = asyncio.create_task(send())
        with anyio.fail_after(10):
            await writing.wait()
        scope.cancel() if how == "scope" else sending.cancel()
        asyncio.get_running_loop().call_soon(go_on.set)  # after the cancellation has arrived
        await asyncio.wait([sending])
        assert scope.cancelled_caught if how == "scope" else sending.cancelled()
        assert len(await objects_of(service)) == 1
        assert (await user.received(file_id))["received"] == [[0, 0]]
        settled(service)


async def test_no_connection_is_held_while_a_client_is_slow(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path, database_connections=2) as service:
        user = await service.sign_up()
        file_id = await user.initialize(len(CONTENT))
        clients = [Client(part(CONTENT[:10])) for _ in range(8)]
        async with anyio.create_task_group() as tasks:
            for client in clients:
                tasks.start_soon(service.app, upload_scope(user, file_id), client.receive, client.send)
            with anyio.fail_after(10):
                for client in clients:
                    await client.silent.wait()
            assert service.parts.upload_gate.taken == 8
            statistics = service.parts.database.statistics()
            assert statistics.size == statistics.idle
            assert (await user.received(file_id))["received"] == []
            tasks.cancel_scope.cancel()
        settled(service)


async def test_a_client_too_slow_gives_its_place_back(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path, upload_idle_seconds=0.1) as service:
        user = await service.sign_up()
        file_id = await user.initialize(len(CONTENT))
        client = Client(part(CONTENT[:100]))
        with anyio.fail_after(10):
            await service.app(upload_scope(user, file_id), client.receive, client.send)
        assert client.answers[0]["status"] == 408
        assert b"upload_too_slow" in client.answers[1]["body"]
        assert await objects_of(service) == set()
        settled(service)
        assert 'gauzian_slow_clients_cut_total{direction="upload"} 1.0' in service.parts.metrics.render().decode()


async def test_an_exhausted_pool_is_503_and_not_a_hang(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path, database_connections=2, database_wait_seconds=0.2) as service:
        user = await service.sign_up()
        file_id = await user.initialize(len(CONTENT))

        @asynccontextmanager
        async def all_lent() -> Any:
            async with service.parts.database.connection(), service.parts.database.connection():
                yield

        async with all_lent():
            with anyio.fail_after(10):
                answer = await user.put(file_id, 0, CONTENT)
            assert (answer.status, answer.json()["code"]) == (503, "database_busy")
            assert answer.header("retry-after")
        assert (await user.put(file_id, 0, CONTENT)).status == 200
        settled(service)


async def test_a_chunk_that_cannot_fit_is_refused_unread(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path, quota_bytes=len(CONTENT)) as service:
        user = await service.sign_up()
        file_id = await user.initialize(len(CONTENT))
        assert (await user.put(file_id, 1, b"one byte too many"[:1])).status == 200

        async def never_asked() -> Message:
            raise AssertionError("the body was asked for")

        client = Client()
        await service.app(upload_scope(user, file_id), never_asked, client.send)
        assert client.answers[0]["status"] == 507
        assert b"quota_exceeded" in client.answers[1]["body"]
        settled(service)


async def test_a_busy_answer_touches_neither_body_nor_database_nor_store(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path, max_concurrent_uploads=1) as service:
        user = await service.sign_up()
        file_id = await user.initialize(len(CONTENT))

        class NeverAsked(Client):
            async def receive(self) -> Message:
                raise AssertionError("the body was asked for")

        client = NeverAsked()
        async with service.parts.database.connection():
            with service.parts.upload_gate.enter():
                await service.app(upload_scope(user, file_id), client.receive, client.send)
        assert client.answers[0]["status"] == 400
        settled(service)
