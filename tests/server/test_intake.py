"""The reading side by itself: when it reads, and that what it holds is counted to the byte."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import permutations
from typing import Any, cast

import pytest

from gauzian.bytebudget import ByteBudget
from gauzian.server.intake import Intake

pytestmark = pytest.mark.anyio


class FakeTransport:
    """Reads, or does not."""

    def __init__(self) -> None:
        self.reading = True
        self.max_size: Any = None

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Noted:
    def __init__(self) -> None:
        self.transport = FakeTransport()
        self.budget = ByteBudget(1_000_000, least=1, most=1000, parts=1)
        self.intake = Intake(cast(asyncio.Transport, self.transport), self.budget, head_read=64)

    @property
    def held(self) -> int:
        return self.budget.held


async def starts_waiting(task: asyncio.Task[bytes]) -> bool:
    for _ in range(3):
        await asyncio.sleep(0)
    return not task.done()


async def test_little_at_a_time_is_still_a_share_of_the_budget() -> None:
    noted = Noted()
    budget = ByteBudget(300_000, least=1000, most=200_000, parts=1)
    intake = Intake(cast(asyncio.Transport, noted.transport), budget, head_read=64)
    intake.want_body(little=True)
    assert noted.transport.max_size.__index__() == 64 * 1024
    budget.held = 290_000
    assert noted.transport.max_size.__index__() == 10_000
    intake.put(b"counted all the same")
    assert budget.held == 290_020
    intake.body_ended()
    assert noted.transport.max_size == 64
    assert budget.held == 290_000


async def test_one_read_is_handled_and_one_waits_and_then_reading_pauses() -> None:
    noted = Noted()
    getting = asyncio.ensure_future(noted.intake.next())
    assert await starts_waiting(getting)
    assert noted.intake.is_idle
    noted.intake.put(b"a")
    assert noted.transport.reading
    assert await getting == b"a"
    noted.intake.put(b"bc")
    assert not noted.transport.reading
    assert len(noted.intake) == 2
    assert await noted.intake.next() == b"bc"
    assert not noted.transport.reading  # it is being handled
    getting = asyncio.ensure_future(noted.intake.next())
    assert await starts_waiting(getting)
    assert noted.transport.reading
    getting.cancel()


def read_sizes(noted: Noted) -> Iterator[int]:
    while True:
        yield int(noted.transport.max_size.__index__())


async def test_a_read_is_small_until_the_body_is_wanted_and_after_its_end() -> None:
    noted = Noted()
    sizes = read_sizes(noted)
    assert next(sizes) == 64
    noted.intake.want_body()
    assert next(sizes) == 1000
    noted.budget.held = 999_900
    assert next(sizes) == 100
    noted.budget.held = 0
    noted.intake.body_ended()
    assert next(sizes) == 64


async def test_what_came_before_the_body_was_wanted_counts_from_then_on_but_not_what_is_being_handled() -> None:
    """That one is in the mailbox already, which counts it."""
    noted = Noted()
    noted.intake.put(b"x" * 10)
    noted.intake.put(b"y" * 20)
    assert noted.held == 0
    assert len(await noted.intake.next()) == 10
    noted.intake.want_body()
    assert noted.held == 20
    noted.intake.handled()
    assert noted.held == 20
    assert len(await noted.intake.next()) == 20
    assert noted.held == 20
    noted.intake.put(b"z" * 5)
    assert noted.held == 25
    noted.intake.handled()
    assert noted.held == 5
    noted.intake.body_ended()
    assert noted.held == 0
    noted.intake.handled()
    noted.intake.put(b"next")
    assert noted.held == 0


async def test_held_off_it_reads_only_when_both_reasons_are_gone() -> None:
    noted = Noted()
    getting = asyncio.ensure_future(noted.intake.next())
    assert await starts_waiting(getting)
    noted.intake.hold_off()
    assert (noted.transport.reading, noted.intake.is_paused) == (False, True)
    noted.intake.put(b"a")  # TLS had it already
    assert await getting == b"a"
    noted.intake.put(b"b")
    noted.intake.go_on()
    assert (noted.transport.reading, noted.intake.is_paused) == (False, True)
    noted.intake.hold_off()
    assert await noted.intake.next() == b"b"
    getting = asyncio.ensure_future(noted.intake.next())
    assert await starts_waiting(getting)
    assert (noted.transport.reading, noted.intake.is_paused) == (False, True)
    noted.intake.go_on()
    assert (noted.transport.reading, noted.intake.is_paused) == (True, False)
    getting.cancel()


@pytest.mark.parametrize("order", list(permutations(["put", "next", "want"])))
async def test_in_whatever_order_it_begins_nothing_is_counted_in_the_end(order: tuple[str, ...]) -> None:
    noted = Noted()
    noted.intake.put(b"head")
    for step in order:
        if step == "put":
            noted.intake.put(b"x" * 100)
        elif step == "next":
            await noted.intake.next()
        else:
            noted.intake.want_body()
    noted.intake.handled()
    while len(noted.intake):
        assert noted.held == len(noted.intake)
        await noted.intake.next()
        noted.intake.handled()
    assert noted.held == 0
