"""A look-up remembered for a moment: it spares a question and decides nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from gauzian.database import chunks
from gauzian.database.chunks import Target
from gauzian.upload.admissions import Admissions
from tests.service import objects_of, running_service

USER, FILE = uuid4(), uuid4()
TOKEN = bytes(32)
MAY = Target(user_id=USER, owner_id=USER, state="uploading", replaces=None, used_bytes=5, quota_bytes=None)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_is_remembered_for_its_time_and_for_this_token_and_file_alone() -> None:
    clock = Clock()
    admissions = Admissions(seconds=2, now=clock)
    admissions.remember(TOKEN, FILE, MAY)
    clock.now += 1.9
    assert admissions.find(TOKEN, FILE) is MAY
    assert admissions.find(b"other", FILE) is None
    assert admissions.find(TOKEN, uuid4()) is None
    clock.now += 0.2
    assert admissions.find(TOKEN, FILE) is None
    assert len(admissions) == 0


@pytest.mark.parametrize(
    "target",
    [
        replace(MAY, owner_id=uuid4()),
        replace(MAY, owner_id=None, state=None),
        replace(MAY, state="complete"),
        replace(MAY, quota_bytes=10),
    ],
)
def test_only_who_may_and_has_no_quota_to_watch_is_remembered(target: Target) -> None:
    admissions = Admissions()
    admissions.remember(TOKEN, FILE, target)
    assert admissions.find(TOKEN, FILE) is None


def test_so_many_are_remembered_and_no_more_the_oldest_is_forgotten() -> None:
    admissions = Admissions(most=3)
    files = [uuid4() for _ in range(5)]
    for file_id in [*files, files[2]]:
        admissions.remember(TOKEN, file_id, MAY)
    admissions.remember(TOKEN, files[0], MAY)
    assert [admissions.find(TOKEN, file_id) is not None for file_id in files] == [True, False, True, False, True]
    admissions.forget(TOKEN, files[2])
    admissions.forget(TOKEN, files[2])
    assert len(admissions) == 2


@pytest.mark.anyio
async def test_after_the_first_chunk_the_next_ones_ask_once_and_a_sign_out_counts_at_once(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = 0
    really = chunks.find_target

    async def counting(*given: object, **more: object) -> Target | None:
        nonlocal looked_up
        looked_up += 1
        return await really(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(chunks, "find_target", counting)
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(30)
        for index in range(3):
            assert (await user.put(file_id, index, b"0123456789")).status == 200
        assert looked_up == 1
        kept = await objects_of(service)
        assert (await user.call("POST", "/logout")).status == 200
        for _ in range(2):
            answer = await user.put(file_id, 3, b"0123456789")
            assert (answer.status, answer.json()["code"]) == (401, "invalid_token")
        assert await objects_of(service) == kept


@pytest.mark.anyio
@pytest.mark.parametrize("end", ["completed", "aborted"])
async def test_a_chunk_behind_a_finalize_or_an_abort_is_refused_although_the_look_up_is_remembered(
    database_url: str, tmp_path: Path, end: str
) -> None:
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        file_id = await user.initialize(10)
        assert (await user.put(file_id, 0, b"0123456789")).status == 200
        assert (await user.finalize(file_id, end)).status == 200
        kept = await objects_of(service)
        for index in (0, 1):
            answer = await user.put(file_id, index, b"another 10")
            assert (answer.status, answer.json()["code"]) == (409, "upload_closed")
        assert await objects_of(service) == kept


@pytest.mark.anyio
async def test_a_remembered_stranger_is_none(database_url: str, tmp_path: Path) -> None:
    async with running_service(database_url, tmp_path) as service:
        user, stranger = await service.sign_up(), await service.sign_up()
        file_id = await user.initialize(20)
        assert (await user.put(file_id, 0, b"0123456789")).status == 200
        for _ in range(2):
            assert (await stranger.put(file_id, 1, b"0123456789")).status == 403
