"""The life cycle of uploads as a state machine against a model: put, retry, reorder, abort, finalize, expire."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gauzian.upload.reaper import Reaper
from tests.postgres import Postgres
from tests.service import Service, User, objects_of, running_service

CHUNK = 20  # stored bytes of a whole chunk; 4 of plaintext and a tag
OVERHEAD = 16


@dataclass
class Model:
    """What must be true of one upload."""

    size: int
    state: str = "uploading"
    chunks: dict[int, bytes] = field(default_factory=dict)

    @property
    def refusal(self) -> int:
        """What is said about a chunk or a finalize that cannot be."""
        return 404 if self.state == "forgotten" else 409

    @property
    def is_complete(self) -> bool:
        stored = sum(map(len, self.chunks.values()))
        contiguous = set(self.chunks) == set(range(len(self.chunks)))
        explained = stored - self.size in {len(self.chunks) * overhead for overhead in (0, 16, 28)}
        return contiguous and explained and (self.size == 0 or bool(self.chunks))

    def ranges(self) -> list[list[int]]:
        found: list[list[int]] = []
        for index in sorted(self.chunks):
            if found and found[-1][1] == index - 1:
                found[-1][1] = index
            else:
                found.append([index, index])
        return found


class Uploads(RuleBasedStateMachine):
    portal: ClassVar[BlockingPortal]
    service: ClassVar[Service]
    user: ClassVar[User]

    files = Bundle("files")

    def __init__(self) -> None:
        super().__init__()
        self.models: dict[str, Model] = {}

    def do(self, func: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        return self.portal.call(func, *args)

    @rule(target=files, chunks=st.integers(0, 3), rest=st.integers(0, 3))
    def initialize(self, chunks: int, rest: int) -> str:
        size = chunks * (CHUNK - OVERHEAD) + rest
        file_id: str = self.do(self.user.initialize, size)
        self.models[file_id] = Model(size)
        return file_id

    @rule(file_id=files, index=st.integers(0, 4), rest=st.integers(0, 4), letter=st.sampled_from([b"a", b"b"]))
    def put(self, file_id: str, index: int, rest: int, letter: bytes) -> None:
        model = self.models[file_id]
        content = letter * (OVERHEAD + rest)
        answer = self.do(self.user.put, file_id, index, content)
        if model.state == "uploading":
            assert answer.status == 200
            model.chunks[index] = content
        else:
            assert answer.status == model.refusal

    @rule(file_id=files)
    def retry_all_in_reverse(self, file_id: str) -> None:
        model = self.models[file_id]
        for index in sorted(model.chunks, reverse=True):
            answer = self.do(self.user.put, file_id, index, model.chunks[index])
            assert answer.status == (200 if model.state == "uploading" else model.refusal)

    @rule(file_id=files)
    def finalize(self, file_id: str) -> None:
        model = self.models[file_id]
        answer = self.do(self.user.finalize, file_id)
        if model.state == "uploading" and model.is_complete:
            model.state = "complete"
        assert answer.status == (200 if model.state == "complete" else model.refusal), answer.body
        if model.state == "uploading" and answer.json()["rule"] == "indices":
            highest = max(model.chunks)
            holes = {index for first, last in answer.json()["missing"] for index in range(first, last + 1)}
            assert holes == set(range(highest)) - set(model.chunks)

    @rule(file_id=files, how=st.sampled_from(["abort", "finalize"]))
    def abort(self, file_id: str, how: str) -> None:
        model = self.models[file_id]
        answer = (
            self.do(self.user.abort, file_id) if how == "abort" else self.do(self.user.finalize, file_id, "aborted")
        )
        if model.state == "complete":
            assert answer.status == 409
        else:
            assert answer.status == 200
            if model.state == "uploading":
                model.state, model.chunks = "aborted", {}

    @rule(file_id=files)
    def expire(self, file_id: str) -> None:
        model = self.models[file_id]
        self.do(self._expire, file_id)
        if model.state == "uploading":
            model.state, model.chunks = "aborted", {}
        elif model.state == "aborted":
            model.state = "forgotten"  # its tombstone was old too

    async def _expire(self, file_id: str) -> None:
        parts, age = self.service.parts, timedelta(days=2)
        async with parts.database.connection() as conn:
            await conn.execute("UPDATE files SET updated_at = updated_at - %s WHERE id = %s", (age, file_id))
            await conn.execute("UPDATE chunks SET created_at = created_at - %s WHERE file_id = %s", (age, file_id))
        day = timedelta(days=1)
        reaper = Reaper(
            database=parts.database,
            store=parts.store,
            removal=parts.removal,
            metrics=parts.metrics,
            ttl=day,
            orphan_grace=day,
        )
        await reaper.reap(sweep=False)

    @rule(file_id=files)
    def look(self, file_id: str) -> None:
        model = self.models[file_id]
        whole = self.do(self.user.call, "GET", f"/drive/download/{file_id}")
        if model.state == "complete":
            assert whole.body == b"".join(model.chunks[index] for index in sorted(model.chunks))
        else:
            assert whole.status in (404, 409)
        if model.state == "uploading":
            assert self.do(self.user.received, file_id)["received"] == model.ranges()

    @invariant()
    def the_store_holds_what_rows_name_and_nothing_else(self) -> None:
        counts: dict[str, int] = {}
        for key in self.do(objects_of, self.service):
            counts[key.split(".")[0]] = counts.get(key.split(".")[0], 0) + 1
        for file_id, model in self.models.items():
            assert counts.get(file_id, 0) == len(model.chunks)

    def teardown(self) -> None:
        for file_id, model in self.models.items():
            if model.state == "uploading":
                self.do(self.user.abort, file_id)


@pytest.fixture(scope="module")
def machine(postgres: Postgres) -> Iterator[type[Uploads]]:
    with ExitStack() as stack:
        url = stack.enter_context(postgres.fresh_database())
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        portal = stack.enter_context(start_blocking_portal())
        service = stack.enter_context(portal.wrap_async_context_manager(running_service(url, Path(directory))))
        Uploads.portal, Uploads.service, Uploads.user = portal, service, portal.call(service.sign_up)
        yield Uploads


@pytest.mark.timeout(180)
def test_uploads_do_what_the_model_says(machine: type[Uploads]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=15,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
        ),
    )
