from __future__ import annotations

import asyncio

import pytest

from gauzian.bytebudget import ByteBudget
from gauzian.server.mailbox import MESSAGE_COST, Mailbox


class Noted:
    """A mailbox and what it told its connection."""

    def __init__(self, most_bytes: int = 1000, *, wanted_bytes: int | None = None, total: int = 1_000_000) -> None:
        self.wanted: list[bool] = []
        self.ended = self.roomy = 0
        self.budget = ByteBudget(total, least=1, most=1_000_000, parts=1)
        self.box = Mailbox(
            budget=self.budget,
            least_bytes=most_bytes,
            most_bytes=most_bytes if wanted_bytes is None else wanted_bytes,
            wanted=self.wanted.append,
            ended=self.end,
            roomy=self.has_room_again,
        )

    def end(self) -> None:
        self.ended += 1

    def has_room_again(self) -> None:
        self.roomy += 1


def piece(body: bytes, more: bool = True) -> dict[str, object]:
    return {"type": "http.request", "body": body, "more_body": more}


END = piece(b"", more=False)
DISCONNECT = {"type": "http.disconnect"}


async def starts_waiting(task: asyncio.Task[object]) -> bool:
    """True if the task, given several turns of the loop, is still not done."""
    for _ in range(5):
        await asyncio.sleep(0)
    return not task.done()


@pytest.mark.anyio
async def test_messages_come_out_in_order_and_the_end_rides_on_the_last_piece() -> None:
    noted = Noted()
    await noted.box.put(piece(b"a"))
    await noted.box.put(piece(b"b"))
    await noted.box.put(dict(END))
    assert await noted.box.get() == piece(b"a")
    assert await noted.box.get() == piece(b"b", more=False)
    assert (noted.wanted, noted.ended) == ([True], 1)
    assert noted.box.held == 0


@pytest.mark.anyio
async def test_an_end_that_comes_after_the_last_piece_was_taken_is_a_message_of_its_own() -> None:
    noted = Noted()
    await noted.box.put(piece(b"a"))
    await noted.box.get()
    await noted.box.put(dict(END))
    assert await noted.box.get() == END


@pytest.mark.anyio
async def test_the_first_get_says_that_the_body_is_wanted_and_whether_any_is_here() -> None:
    noted = Noted()
    getting = asyncio.ensure_future(noted.box.get())
    assert await starts_waiting(getting)
    assert noted.wanted == [False]
    await noted.box.put(piece(b"a"))
    assert await getting == piece(b"a")


@pytest.mark.anyio
async def test_put_waits_while_the_box_is_full_and_goes_on_when_there_is_room() -> None:
    noted = Noted(most_bytes=MESSAGE_COST + 10)
    await noted.box.put(piece(b"12345"))
    putting = asyncio.ensure_future(noted.box.put(piece(b"678")))
    assert await starts_waiting(putting)
    assert noted.box.held == 2 * MESSAGE_COST + 8  # taken all the same: most_bytes and one message
    await noted.box.get()
    await putting


@pytest.mark.anyio
async def test_tiny_pieces_count_what_they_cost() -> None:
    noted = Noted(most_bytes=64 * 1024)
    putting = asyncio.ensure_future(put_many(noted.box))
    assert await starts_waiting(putting)
    assert noted.box.held <= 64 * 1024 + MESSAGE_COST + 1
    noted.box.close()
    await putting


async def put_many(box: Mailbox) -> None:
    for _ in range(100_000):
        if box.closed:
            return
        await box.put(piece(b"x"))


@pytest.mark.anyio
async def test_the_last_message_never_waits_so_that_a_hang_up_is_noticed() -> None:
    noted = Noted(most_bytes=1)
    first = asyncio.ensure_future(noted.box.put(piece(b"a")))
    assert await starts_waiting(first)
    await noted.box.put(piece(b"b", more=False))
    noted.box.close()
    await first


@pytest.mark.anyio
async def test_the_disconnect_never_waits_and_frees_a_waiting_writer() -> None:
    noted = Noted(most_bytes=1)
    putting = asyncio.ensure_future(noted.box.put(piece(b"a")))
    assert await starts_waiting(putting)
    await asyncio.wait_for(noted.box.put(dict(DISCONNECT)), 1)
    await asyncio.wait_for(putting, 1)
    assert await noted.box.get() == piece(b"a")  # what had come is still given
    assert await noted.box.get() == DISCONNECT
    assert await noted.box.get() == DISCONNECT


@pytest.mark.anyio
async def test_after_the_end_get_waits_for_the_disconnect() -> None:
    noted = Noted()
    await noted.box.put(dict(END))
    await noted.box.get()
    getting = asyncio.ensure_future(noted.box.get())
    assert await starts_waiting(getting)
    noted.box.close()
    assert await getting == DISCONNECT


@pytest.mark.anyio
async def test_two_readers_both_hear_of_the_disconnect() -> None:
    noted = Noted()
    readers = [asyncio.ensure_future(noted.box.get()) for _ in range(2)]
    assert await starts_waiting(readers[1])
    noted.box.close()
    assert await asyncio.gather(*readers) == [DISCONNECT, DISCONNECT]


@pytest.mark.anyio
async def test_a_cancelled_reader_loses_nothing_for_the_next() -> None:
    noted = Noted()
    for _ in range(3):
        reader = asyncio.ensure_future(noted.box.get())
        assert await starts_waiting(reader)
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
    await noted.box.put(piece(b"a"))
    assert await noted.box.get() == piece(b"a")
    assert noted.box._readers == []


@pytest.mark.anyio
async def test_a_cancelled_writer_leaves_the_box_usable() -> None:
    noted = Noted(most_bytes=1)
    putting = asyncio.ensure_future(noted.box.put(piece(b"a")))
    assert await starts_waiting(putting)
    putting.cancel()
    await asyncio.gather(putting, return_exceptions=True)
    assert await noted.box.get() == piece(b"a")
    await noted.box.put(dict(END))
    assert await noted.box.get() == END


@pytest.mark.anyio
async def test_a_closed_box_takes_nothing_more() -> None:
    noted = Noted(most_bytes=1)
    noted.box.close()
    await noted.box.put(piece(b"a"))
    assert noted.box.held == 0
    assert await noted.box.get() == DISCONNECT


@pytest.mark.anyio
async def test_a_body_counts_in_the_budget_from_when_it_is_wanted_until_it_is_taken_or_the_box_is_closed() -> None:
    noted = Noted(wanted_bytes=10_000)
    await noted.box.put(piece(b"a" * 100))
    await noted.box.put(piece(b"b" * 50))
    assert noted.budget.held == 0  # nobody wants it yet: that is bounded by itself
    await noted.box.get()
    assert noted.budget.held == noted.box.held == MESSAGE_COST + 50
    await noted.box.put(piece(b"c" * 10))
    assert noted.budget.held == 2 * MESSAGE_COST + 60
    noted.box.close()
    noted.box.close()
    assert noted.budget.held == 0
    assert (await noted.box.get())["body"] == b"b" * 50  # what is here can still be taken, and counts no more
    assert noted.budget.held == 0


@pytest.mark.anyio
async def test_a_box_that_was_closed_before_its_body_was_wanted_never_counts() -> None:
    noted = Noted()
    await noted.box.put(piece(b"a"))
    noted.box.close()
    await noted.box.get()
    assert await noted.box.get() == DISCONNECT
    assert noted.budget.held == 0


@pytest.mark.anyio
async def test_a_wanted_body_waits_as_soon_as_others_have_used_the_budget_up() -> None:
    noted = Noted(wanted_bytes=100_000, total=100_000)
    getting = asyncio.ensure_future(noted.box.get())
    assert await starts_waiting(getting)
    await noted.box.put(piece(b"x" * 5000))
    await getting
    assert noted.box.has_room
    noted.budget.held += 99_990  # of somebody else
    assert noted.box.has_room
    putting = asyncio.ensure_future(noted.box.put(piece(b"y" * 20)))
    assert await starts_waiting(putting)
    assert not noted.box.has_room
    assert (await noted.box.get())["body"] == b"y" * 20
    await putting


@pytest.mark.anyio
async def test_a_piece_put_at_once_comes_in_its_turn_and_wakes_who_waits() -> None:
    noted = Noted(wanted_bytes=10_000)
    assert not noted.box.has_room  # not wanted yet
    getting = asyncio.ensure_future(noted.box.get())
    assert await starts_waiting(getting)
    assert noted.box.put_now(b"a")
    assert await getting == piece(b"a")
    assert noted.box.put_now(b"b")
    await noted.box.put(dict(END))
    assert await noted.box.get() == piece(b"b", more=False)
    assert noted.roomy == 0


@pytest.mark.anyio
@pytest.mark.parametrize("emptied", [True, False])
async def test_a_box_that_is_still_full_some_time_after_a_piece_put_at_once_says_when_there_is_room(
    emptied: bool,
) -> None:
    noted = Noted(wanted_bytes=2 * MESSAGE_COST)
    getting = asyncio.ensure_future(noted.box.get())
    assert await starts_waiting(getting)
    assert noted.box.put_now(b"a")
    await getting
    assert noted.box.put_now(b"b")
    assert not noted.box.put_now(b"c")
    assert (noted.box.has_room, noted.box.is_still_full(), noted.roomy) == (False, True, 0)
    if emptied:
        await noted.box.get()
        await noted.box.get()
    else:
        noted.box.close()
    assert noted.roomy == 1  # and only once
    assert not noted.box.is_still_full()


@pytest.mark.anyio
@pytest.mark.parametrize("emptied", [True, False])
async def test_a_box_that_was_full_for_a_moment_says_nothing(emptied: bool) -> None:
    noted = Noted(wanted_bytes=MESSAGE_COST)
    getting = asyncio.ensure_future(noted.box.get())
    assert await starts_waiting(getting)
    assert not noted.box.put_now(b"a")
    if emptied:
        await getting
    else:
        noted.box.close()
    assert not noted.box.is_still_full()
    assert noted.roomy == 0
    getting.cancel()
