"""Who does what during a soak, and the rests between: work, everybody comes to an end, look, go on."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.soak import acts_in, acts_out, acts_rude
from tests.soak.ledger import Wrong
from tests.soak.world import Actor, World

Act = Callable[[Actor], Awaitable[None]]

USERS = 4
ACT_SECONDS = 90.0  # no act may take longer, whatever the server does
WIND_DOWN_SECONDS = 60.0


@dataclass(frozen=True)
class Turn:
    """An act, how often it is chosen among its trade's, and the time it needs before the next rest."""

    act: Act
    weight: int = 1
    seconds: float = 0.0


@dataclass(frozen=True)
class Trade:
    """So many actors who do nothing but these; `pause`: at most so many seconds between two acts."""

    name: str
    actors: int
    turns: tuple[Turn, ...]
    pause: float = 0.0


TRADES = (
    # An uploader holds a place nearly all the time: with what the others hold, about half of the places.
    Trade("uploaders", 7, (Turn(acts_in.upload_file),)),
    Trade(
        "readers",
        5,
        (
            Turn(acts_out.download_whole, 5),
            Turn(acts_out.download_range, 5),
            Turn(acts_out.download_chunk, 3),
            Turn(acts_out.read_slowly, 2, 7),
            Turn(acts_out.leave_while_reading, 3, 3),
        ),
        0.5,
    ),
    Trade(
        "rude",
        3,
        (
            Turn(acts_rude.break_off, 6),
            Turn(acts_rude.send_nonsense, 4),
            Turn(acts_in.abort_while_sending, 3),
            Turn(acts_in.two_at_one_index, 2),
        ),
        0.5,
    ),
    Trade("slow", 2, (Turn(acts_rude.fall_silent, 2, 3.5), Turn(acts_rude.trickle, 1, 12.5)), 0.5),
    Trade("crowds", 1, (Turn(acts_rude.come_as_a_crowd, 1, 3),), 8),
    Trade("signers", 1, (Turn(acts_rude.sign_in_and_out, 3), Turn(acts_out.look_around, 2)), 1),
)


class Crew:
    """All actors as tasks, from entering to leaving."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.working = 0
        self._seed = seed
        self._idle = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Crew:
        numbered = [(trade, number) for trade in TRADES for number in range(trade.actors)]
        for place, (trade, number) in enumerate(numbered):
            user = self.world.users[place % USERS]
            actor = Actor(self.world, random.Random(f"{self._seed} {trade.name} {number}"), user)
            self._tasks.append(asyncio.create_task(self._work(trade, actor)))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def work(self, seconds: float) -> None:
        """Everybody works for so long and then comes to an end."""
        self.world.closes_at = time.monotonic() + seconds
        self.world.open.set()
        await asyncio.sleep(seconds)
        self.world.open.clear()
        try:
            async with asyncio.timeout(WIND_DOWN_SECONDS):
                while self.working:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            self.world.ledger.fail("did not come to an end", f"{self.working} acts after {WIND_DOWN_SECONDS:.0f} s")

    async def _work(self, trade: Trade, actor: Actor) -> None:
        while True:
            await self.world.open.wait()
            turns = [turn for turn in trade.turns if turn.seconds < actor.seconds_left]
            if not turns:
                await asyncio.sleep(0.2)  # the rest begins soon
                continue
            turn = actor.dice.choices(turns, [turn.weight for turn in turns])[0]
            self.working += 1
            try:
                await self._perform(turn.act, actor)
            finally:
                self.working -= 1
                self._idle.set()
            await asyncio.sleep(actor.dice.uniform(0, trade.pause))

    async def _perform(self, act: Act, actor: Actor) -> None:
        ledger = self.world.ledger
        name = getattr(act, "__name__", str(act))
        try:
            async with asyncio.timeout(ACT_SECONDS):
                await act(actor)
            ledger.acts[name] += 1
        except Wrong as wrong:
            ledger.fail(wrong.kind, f"{name}: {wrong.detail}")
        except TimeoutError:
            ledger.fail("an act took too long", name)
        except Exception as error:
            ledger.fail(f"{type(error).__name__} in an act", f"{name}: {error}")
            await asyncio.sleep(0.5)  # a server that is gone fails every act at once


async def settle_in(world: World) -> None:
    """Users, each signed in once (later sign-ins come from a known address), and files to read."""
    for _ in range(USERS):
        await world.register()
    for number, user in enumerate(world.users):
        actor = Actor(world, random.Random(number), user)
        await acts_rude.sign_in_and_out(actor)
    for number in range(100):
        if len(world.library) >= 8:
            return
        await acts_in.upload_file(Actor(world, random.Random(number), world.users[number % USERS]))


async def abort_unfinished(world: World) -> None:
    """What was forgotten and left half done."""
    for file_id, user in list(world.unfinished.items()):
        try:
            await world.abort(user, file_id)
        except Wrong as wrong:
            world.ledger.fail(wrong.kind, wrong.detail)
