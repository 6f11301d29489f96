"""Many holders, one budget."""

from __future__ import annotations

import operator

import pytest

from gauzian.bytebudget import ByteBudget, Held

KIB = 1024


@pytest.mark.parametrize(
    ("held", "share"), [(0, 128), (128, 112), (512, 64), (768, 32), (896, 16), (1000, 16), (1024, 16), (5000, 16)]
)
def test_one_read_brings_a_part_of_what_is_left_of_the_budget_within_bounds(held: int, share: int) -> None:
    budget = ByteBudget(1024 * KIB, least=16 * KIB, most=128 * KIB, parts=8)
    budget.held = held * KIB
    assert budget.share // KIB == share
    assert operator.index(budget) == budget.share


def test_however_many_read_at_once_the_budget_is_passed_only_by_the_least_for_each() -> None:
    budget = ByteBudget(1024 * KIB, least=4 * KIB, most=128 * KIB, parts=4)
    for _ in range(300):
        budget.held += budget.share
    assert budget.held <= 1024 * KIB + 300 * 4 * KIB


def test_a_budget_gives_way_to_the_one_beside_it_and_both_stay_below_the_larger_total() -> None:
    storing = ByteBudget(800, least=1, most=800, parts=1)
    reading = ByteBudget(500, least=10, most=500, parts=1, beside=storing)
    assert reading.share == 500
    storing.held = 200
    assert reading.share == 500  # 800 have room for both
    storing.held = 600
    assert reading.share == 200
    reading.held = 150
    assert (reading.share, storing.share) == (50, 200)  # what is read comes to be stored: that does not give way
    storing.held = 900
    assert reading.share == 10


def test_who_holds_counts_up_and_down_and_never_gives_back_more_than_it_has() -> None:
    budget = ByteBudget(1000, least=1, most=1000, parts=1)
    one, other = Held(budget), Held(budget)
    one.hold(300)
    other.hold(500)
    assert (budget.held, budget.share) == (800, 200)
    one.drop(100)
    one.drop(1000)
    assert (one.size, budget.held) == (0, 500)
    other.drop()
    other.drop()
    assert (other.size, budget.held) == (0, 0)
