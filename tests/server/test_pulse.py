from __future__ import annotations

import asyncio
import time

import pytest

from gauzian.server.pulse import Pulse


@pytest.mark.anyio
async def test_it_beats_until_stopped_and_survives_a_beat_that_raises() -> None:
    beats: list[float] = []
    enough = asyncio.Event()
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))

    def beat(now: float) -> None:
        beats.append(now)
        if len(beats) == 1:
            raise RuntimeError("on purpose")
        if len(beats) == 3:
            enough.set()

    pulse = Pulse(beat, seconds=0.01)
    pulse.start()
    await asyncio.wait_for(enough.wait(), 5)
    pulse.stop()
    asyncio.get_running_loop().set_exception_handler(None)
    assert len(complaints) == 1


@pytest.mark.anyio
async def test_a_blocked_loop_shows_as_lag() -> None:
    came = asyncio.Event()
    pulse = Pulse(lambda now: came.set(), seconds=0.01)
    pulse.start()
    time.sleep(0.15)  # noqa: ASYNC251 - blocking the loop is what is tested
    await came.wait()
    assert pulse.lag > 0.1
    assert pulse.worst_lag == pulse.lag
    came.clear()
    await came.wait()
    pulse.stop()
    assert pulse.worst_lag > 0.1


@pytest.mark.anyio
async def test_the_worst_lag_is_forgotten_after_its_window() -> None:
    pulse = Pulse(lambda now: None, seconds=1)
    now = asyncio.get_running_loop().time()
    pulse._measure(now + 1, late=3.0)
    pulse._measure(now + 31, late=0.1)
    assert pulse.worst_lag == 3.0
    pulse._measure(now + 62, late=0.0)
    assert pulse.worst_lag == 0.1
