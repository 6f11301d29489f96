from __future__ import annotations

from gauzian.server.memory import Allocator, Keeper


def test_the_real_allocator_takes_our_wishes() -> None:
    allocator = Allocator()
    allocator.limit_arenas()
    allocator.give_back()


class CountingAllocator(Allocator):
    def __init__(self) -> None:
        self.times = 0
        self.collected = 0

    def collect(self) -> None:
        self.collected += 1

    def give_back(self) -> None:
        self.times += 1


def test_memory_is_given_back_now_and_then_under_work_twice_after_it_and_never_when_idle() -> None:
    allocator = CountingAllocator()
    keeper = Keeper(allocator, seconds=5.0)
    story = [  # now, busy, done, times given back by then
        (100.0, False, 0, 0),  # nothing was ever done
        (100.1, True, 0, 1),
        (103.0, True, 7, 1),
        (105.2, True, 9, 2),
        (105.4, False, 12, 2),  # the end of work, but it has just been done
        (110.1, False, 12, 2),
        (110.3, False, 12, 3),
        (112.2, False, 12, 3),
        (112.4, False, 12, 4),  # what became free after the last of it had been counted
        (200.0, False, 12, 4),
        (201.0, False, 13, 5),  # a request so short that nobody saw it
        (201.5, False, 14, 5),
        (206.1, False, 14, 6),
        (207.0, True, 14, 6),
        (208.1, True, 14, 6),  # work again before the second time
        (211.2, True, 14, 7),
        (216.3, False, 15, 8),
        (218.4, False, 15, 9),
        (300.0, False, 15, 9),
    ]
    for now, busy, done, times in story:
        keeper.look(now, busy=busy, done=done)
        assert allocator.times == times, now
    assert allocator.collected == 6  # only with nothing to do: never while somebody waits for an answer
