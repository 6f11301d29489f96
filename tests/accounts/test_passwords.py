"""Password checks: right or wrong, a few at once, and a line that is bounded in length and time."""

from __future__ import annotations

import asyncio
import time

import anyio
import pytest

from gauzian.accounts.passwords import MEMORY_KIB, Passwords
from gauzian.errors import SignInBusy

pytestmark = pytest.mark.anyio


async def test_a_password_is_right_or_wrong_and_nobody_has_none() -> None:
    passwords = Passwords(at_once=1)
    stored = await passwords.hash("secret é")
    assert stored.startswith(f"$argon2id$v=19$m={MEMORY_KIB},t=2,p=1$")
    assert await passwords.is_right(stored, "secret é")
    assert not await passwords.is_right(stored, "secret e")
    assert not await passwords.is_right(None, "secret é")
    assert not await passwords.is_right("not a hash", "secret é")
    assert not passwords.is_outdated(stored)
    assert Passwords(at_once=1, memory_kib=64).is_outdated(stored)


async def test_an_unknown_user_takes_as_long_as_a_wrong_password() -> None:
    passwords = Passwords(at_once=1)
    stored = await passwords.hash("secret")
    wrong: list[float] = []
    unknown: list[float] = []
    for _ in range(8):
        for password_hash, times in ((stored, wrong), (None, unknown)):
            started = time.perf_counter()
            await passwords.is_right(password_hash, "guess")
            times.append(time.perf_counter() - started)
    assert 0.5 < min(unknown) / min(wrong) < 2


async def test_only_so_many_have_their_turn_and_the_loop_goes_on() -> None:
    passwords = Passwords(at_once=2, memory_kib=4096)
    inside = most = 0

    async def check() -> None:
        nonlocal inside, most
        async with passwords.turn():
            inside += 1
            most = max(most, inside)
            await passwords.hash("secret")
            inside -= 1

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(check)
    assert most == 2


async def test_a_full_line_says_busy_at_once_and_a_long_wait_too() -> None:
    passwords = Passwords(at_once=1, most_waiting=1, wait_seconds=0.1, memory_kib=64)

    async def wait() -> str:
        try:
            async with passwords.turn():
                return "turn"
        except SignInBusy:
            return "busy"

    async with passwords.turn():
        first = asyncio.create_task(wait())
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(0.05):
            assert await wait() == "busy"
        assert await first == "busy"
    assert await wait() == "turn"


async def test_cancelled_in_the_line_or_in_its_turn_it_leaves_the_place_to_others() -> None:
    passwords = Passwords(at_once=1, most_waiting=1, wait_seconds=5, memory_kib=64)

    async def wait() -> None:
        async with passwords.turn():
            await asyncio.Event().wait()

    holding = asyncio.create_task(wait())
    await anyio.wait_all_tasks_blocked()
    waiting = asyncio.create_task(wait())
    await anyio.wait_all_tasks_blocked()
    for task in (waiting, holding):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    with anyio.fail_after(1):
        async with passwords.turn():
            assert await passwords.is_right(await passwords.hash("secret"), "secret")
