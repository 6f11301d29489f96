"""Lists that are on their way at once: so many, a share of them per user, and nobody waits for ever."""

from __future__ import annotations

from uuid import uuid4

import anyio
import pytest

from gauzian.drive import views
from gauzian.drive.views import MOST_LISTS, MOST_LISTS_PER_USER, Turns
from gauzian.errors import ListsBusy

pytestmark = pytest.mark.anyio


async def hold(turns: Turns, user: object, *, task_status: anyio.abc.TaskStatus[None]) -> None:
    async with turns.one(user):  # type: ignore[arg-type]
        task_status.started()
        await anyio.sleep_forever()


async def test_one_user_takes_their_share_and_leaves_the_others_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    turns, greedy = Turns(), uuid4()
    async with anyio.create_task_group() as group:
        for _ in range(MOST_LISTS_PER_USER):
            await group.start(hold, turns, greedy)
        with monkeypatch.context() as patch:
            patch.setattr(views, "_MOST_WAIT_SECONDS", 0.02)
            with pytest.raises(ListsBusy):
                async with turns.one(greedy):
                    pass
        async with turns.one(uuid4()):
            pass
        for _ in range(MOST_LISTS - MOST_LISTS_PER_USER):
            await group.start(hold, turns, uuid4())
        monkeypatch.setattr(views, "_MOST_WAIT_SECONDS", 0.02)
        with pytest.raises(ListsBusy):
            async with turns.one(uuid4()):
                pass
        group.cancel_scope.cancel()
    assert turns._shares == {}
    async with turns.one(greedy):
        pass


async def test_who_is_cancelled_while_waiting_leaves_nothing_behind() -> None:
    turns, user = Turns(), uuid4()
    async with anyio.create_task_group() as holders:
        for _ in range(MOST_LISTS):
            await holders.start(hold, turns, uuid4())
        async with anyio.create_task_group() as waiting:
            waiting.start_soon(lambda: hold(turns, user, task_status=anyio.TASK_STATUS_IGNORED))
            await anyio.wait_all_tasks_blocked()
            waiting.cancel_scope.cancel()
        assert user not in turns._shares
        holders.cancel_scope.cancel()
    for _ in range(MOST_LISTS):
        async with turns.one(user):
            pass
