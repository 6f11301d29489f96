"""Who has to wait after failures, how long, and who is spared."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gauzian.accounts.throttle import Rule, Strikes, Throttle
from gauzian.errors import TooManyAttempts
from tests.accounts.conftest import Clock

RULE = Rule(free=3, first_seconds=2, longest_seconds=60, forgive_seconds=100)


def waits(strikes: Strikes, clock: Clock, count: int) -> Iterator[float]:
    """The wait after each of `count` strikes, each made as soon as allowed."""
    for _ in range(count):
        clock.now += max(0.0, strikes.wait_seconds("x"))
        strikes.add("x")
        yield strikes.wait_seconds("x")


def test_free_strikes_then_doubling_up_to_the_longest() -> None:
    clock = Clock()
    assert list(waits(Strikes(RULE, clock=clock), clock, 9)) == [0, 0, 2, 4, 8, 16, 32, 60, 60]


def test_no_number_of_strikes_is_too_many_to_compute() -> None:
    clock = Clock()
    strikes = Strikes(RULE, clock=clock)
    for _ in range(5000):
        strikes.add("x")
    assert strikes.wait_seconds("x") == 60


def test_strikes_are_forgiven_one_by_one() -> None:
    clock = Clock()
    strikes = Strikes(RULE, clock=clock)
    for _ in range(4):
        strikes.add("x")
    clock.now += 200
    assert strikes.wait_seconds("x") == 0
    strikes.add("x")
    assert strikes.wait_seconds("x") == 2
    strikes.forget("x")
    assert strikes.wait_seconds("x") == 0


def test_keys_do_not_know_each_other_and_are_bounded_in_number() -> None:
    strikes = Strikes(RULE, clock=Clock(), most_keys=100)
    for number in range(1000):
        strikes.add(f"{number}")
        strikes.add("often")
    assert len(strikes) == 100
    assert strikes.wait_seconds("often") > 0
    assert strikes.wait_seconds("0") == 0


def is_refused(throttle: Throttle, account: str, address: str) -> int | None:
    """Seconds to wait, or None."""
    try:
        throttle.require_sign_in(account=account, address=address)
    except TooManyAttempts as refusal:
        return int(refusal.headers["Retry-After"])
    return None


def test_an_address_that_tries_many_accounts_waits_for_all_but_those_it_signed_in_to() -> None:
    throttle = Throttle(clock=Clock())
    throttle.succeeded(account="own", address="here")
    for number in range(30):
        throttle.failed(account=f"{number}", address="here")
    assert is_refused(throttle, "another", "here") == 2
    assert is_refused(throttle, "another", "elsewhere") is None
    assert is_refused(throttle, "own", "here") is None


def test_one_account_of_ones_own_does_not_wash_the_address() -> None:
    throttle = Throttle(clock=Clock())
    for number in range(30):
        throttle.failed(account=f"{number}", address="here")
        throttle.succeeded(account="own", address="here")
    assert is_refused(throttle, "another", "here") is not None


def test_a_known_address_is_spared_the_guesses_of_others_but_not_its_own() -> None:
    throttle = Throttle(clock=Clock())
    throttle.succeeded(account="ada", address="home")
    for number in range(1000):
        throttle.failed(account="ada", address=f"bot {number}")
    assert is_refused(throttle, "ada", "home") is None
    assert is_refused(throttle, "ada", "new") == 10
    for _ in range(5):
        throttle.failed(account="ada", address="home")
    assert is_refused(throttle, "ada", "home") == 2


def test_what_is_remembered_of_successes_is_bounded_too() -> None:
    throttle = Throttle(clock=Clock(), most_keys=10)
    for number in range(100):
        throttle.succeeded(account=f"{number}", address="home")
    assert len(throttle._known) == 10


def test_nobody_ever_waits_longer_than_minutes() -> None:
    throttle = Throttle(clock=Clock())
    for _ in range(1000):
        throttle.failed(account="ada", address="here")
        throttle.registered(address="here")
    wait = is_refused(throttle, "ada", "here")
    assert wait is not None
    assert wait <= 300
    with pytest.raises(TooManyAttempts) as refused:
        throttle.require_registration(address="here")
    assert int(refused.value.headers["Retry-After"]) <= 600
