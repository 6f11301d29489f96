"""What rises is found, what does not passes, and what cannot be told is said."""

from __future__ import annotations

import math
import random

import pytest

from tests.soak.levels import COUNT, MEMORY
from tests.soak.slope import LEAST_SAMPLES, Judgement, Rule, Verdict, judge, slope_of

EVERY = 50.0  # seconds between two samples
TWENTY_MINUTES = 24


def at_rest(*levels: float, every: float = EVERY) -> list[tuple[float, float]]:
    return [(number * every, level) for number, level in enumerate(levels)]


def noisy(seed: int, per_minute: float, *, count: int = TWENTY_MINUTES, every: float = EVERY) -> Judgement:
    """Memory of 70 MiB that wanders by half a MiB (a real server's by a tenth), jumps once in a while, and rises."""
    dice = random.Random(seed)
    levels = (
        70 + per_minute * number * every / 60 + dice.gauss(0, 0.5) + (8 if dice.random() < 0.1 else 0)
        for number in range(count)
    )
    return judge(at_rest(*levels, every=every), MEMORY)


def test_a_straight_rise_has_its_slope_and_no_doubt() -> None:
    slope = slope_of(at_rest(*(number * 5.0 for number in range(12))))
    assert slope.estimate == slope.low == slope.high == pytest.approx(360)


def test_one_outlier_does_not_move_the_slope() -> None:
    levels = [7.0] * 12
    levels[5] = 500.0
    assert slope_of(at_rest(*levels)).estimate == 0


@pytest.mark.parametrize("seed", range(20))
def test_a_leak_of_a_mebibyte_per_minute_is_found_in_the_noise(seed: int) -> None:
    assert noisy(seed, 1.0).verdict is Verdict.RISES


@pytest.mark.parametrize("seed", range(20))
def test_noise_alone_passes(seed: int) -> None:
    assert noisy(seed, 0.0).verdict is Verdict.FLAT


@pytest.mark.parametrize("seed", range(20))
def test_a_leak_is_never_called_flat_in_a_run_of_six_minutes(seed: int) -> None:
    assert noisy(seed, 1.0, count=12, every=30).verdict is not Verdict.FLAT


def test_one_descriptor_per_minute_is_found() -> None:
    judgement = judge(at_rest(*(40 + math.floor(number * EVERY / 60) for number in range(TWENTY_MINUTES))), COUNT)
    assert judgement.verdict is Verdict.RISES
    assert judgement.slope is not None
    assert judgement.slope.estimate == pytest.approx(60, abs=8)


def test_a_constant_count_passes() -> None:
    judgement = judge(at_rest(*[40.0] * TWENTY_MINUTES), COUNT)
    assert (judgement.verdict, judgement.first, judgement.last) == (Verdict.FLAT, 40, 40)


def test_a_saw_tooth_passes() -> None:
    assert judge(at_rest(*(60 + number % 5 for number in range(TWENTY_MINUTES))), MEMORY).verdict is Verdict.FLAT


def test_a_step_in_the_warm_up_passes() -> None:
    levels = [50.0] * 4 + [75.0] * (TWENTY_MINUTES - 4)
    assert judge(at_rest(*levels), MEMORY).verdict is Verdict.FLAT


def test_one_small_step_later_passes() -> None:
    levels = [70.0] * (TWENTY_MINUTES // 2) + [71.5] * (TWENTY_MINUTES // 2)
    assert judge(at_rest(*levels), MEMORY).verdict is Verdict.FLAT


def test_a_pool_that_takes_one_more_passes() -> None:
    levels = [9.0] * (TWENTY_MINUTES // 2) + [10.0] * (TWENTY_MINUTES // 2)
    assert judge(at_rest(*levels), COUNT).verdict is Verdict.FLAT


def test_a_level_that_falls_passes() -> None:
    assert judge(at_rest(*(90 - number for number in range(TWENTY_MINUTES))), MEMORY).verdict is Verdict.FLAT


@pytest.mark.parametrize("count", range(LEAST_SAMPLES + 1))
def test_few_samples_cannot_tell(count: int) -> None:
    assert judge(at_rest(*[40.0] * count), COUNT).verdict is Verdict.UNSURE


def test_few_samples_cannot_tell_even_when_they_rise() -> None:
    assert judge(at_rest(1, 100, 200, 300), COUNT).verdict is Verdict.UNSURE


def test_samples_of_one_moment_cannot_tell() -> None:
    assert judge([(5.0, 40.0)] * 20, COUNT).verdict is Verdict.UNSURE


def test_a_run_too_short_for_what_must_be_found_cannot_tell() -> None:
    assert judge(at_rest(*[70.0] * 12, every=5), MEMORY).verdict is Verdict.UNSURE


def test_noise_that_could_hide_a_leak_cannot_tell() -> None:
    levels = (100 + 80 * math.sin(2.4 * number) for number in range(TWENTY_MINUTES))
    assert judge(at_rest(*levels), MEMORY).verdict is Verdict.UNSURE


def test_a_steep_rise_is_found_in_a_short_run() -> None:
    assert judge(at_rest(*(70 + 5 * number for number in range(9)), every=20), MEMORY).verdict is Verdict.RISES


def test_noise_weighs_less_the_longer_the_run() -> None:
    rule = Rule(noise_per_hour=10, step=2, find_per_hour=60)
    assert (rule.allowed(0.1), rule.allowed(1)) == (20, 10)
