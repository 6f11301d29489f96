"""Repeated failures slow down: whom, how much, and who is spared.

Three things are watched. A **pair** of account and address: the usual guesser. An **address**: one that tries many
accounts. An **account**: guessed at from many addresses. Every failure is a strike; strikes are forgiven with time;
beyond the free ones each further attempt has to wait, twice as long each time, up to a few minutes. An attempt that is
refused is no strike, so waiting always helps.

An owner is not locked out by strangers: from an address where the account was signed in to before, only that pair
counts. From a new address strangers cost the owner seconds, not minutes (ACCOUNT.longest_seconds). All of it is in
memory, bounded, and forgotten by a restart; several processes count separately.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from gauzian.errors import TooManyAttempts

Clock = Callable[[], float]

# Keys remembered per table; the least recently struck are forgotten first. To push one out, a guesser pays for as many
# password checks. A table of this size takes about 2 MB.
MOST_KEYS = 8192


@dataclass(frozen=True)
class Rule:
    """`free` strikes cost nothing; then `first_seconds`, doubled each time. One is forgiven per `forgive_seconds`."""

    free: int
    first_seconds: float
    longest_seconds: float
    forgive_seconds: float


PAIR = Rule(free=5, first_seconds=2, longest_seconds=300, forgive_seconds=120)
ADDRESS = Rule(free=30, first_seconds=2, longest_seconds=300, forgive_seconds=60)
ACCOUNT = Rule(free=50, first_seconds=1, longest_seconds=10, forgive_seconds=60)
REGISTRATION = Rule(free=100, first_seconds=10, longest_seconds=600, forgive_seconds=36)
# A mail to whoever a stranger names: few, and never so many that they are a nuisance by themselves.
MAIL = Rule(free=20, first_seconds=10, longest_seconds=600, forgive_seconds=60)
# Wrong codes of one address, for whatever e-mail; each e-mail has its own count in the database.
CODE = Rule(free=30, first_seconds=2, longest_seconds=300, forgive_seconds=60)


class Strikes:
    """One table of keys under one rule."""

    def __init__(self, rule: Rule, *, clock: Clock = time.monotonic, most_keys: int = MOST_KEYS) -> None:
        self._rule = rule
        self._clock = clock
        self._most_keys = most_keys
        self._struck: OrderedDict[str, tuple[float, float]] = OrderedDict()  # strikes left, and when that was

    def __len__(self) -> int:
        return len(self._struck)

    def wait_seconds(self, key: str) -> float:
        """How long this key must still wait before its next attempt; 0 or less: not at all."""
        strikes, last = self._struck.get(key, (0.0, 0.0))
        # Rounded up: what was forgiven in the blink since the last strike must not make it a free one.
        over = math.ceil(self._left(strikes, last)) - self._rule.free
        if over < 0:
            return 0.0
        # The exponent is bounded before it is used: 2.0 ** 2000 is an error.
        delay = min(self._rule.longest_seconds, math.ldexp(self._rule.first_seconds, min(over, 64)))
        return last + delay - self._clock()

    def add(self, key: str) -> None:
        strikes, last = self._struck.pop(key, (0.0, 0.0))
        self._struck[key] = (self._left(strikes, last) + 1, self._clock())
        while len(self._struck) > self._most_keys:
            self._struck.popitem(last=False)

    def forget(self, key: str) -> None:
        self._struck.pop(key, None)

    def _left(self, strikes: float, last: float) -> float:
        return max(0.0, strikes - (self._clock() - last) / self._rule.forgive_seconds)


class Throttle:
    """`require_...` raises TooManyAttempts with Retry-After; `failed` and `succeeded` are told how it went."""

    def __init__(self, *, clock: Clock = time.monotonic, most_keys: int = MOST_KEYS) -> None:
        self._pairs = Strikes(PAIR, clock=clock, most_keys=most_keys)
        self._addresses = Strikes(ADDRESS, clock=clock, most_keys=most_keys)
        self._accounts = Strikes(ACCOUNT, clock=clock, most_keys=most_keys)
        self._registrations = Strikes(REGISTRATION, clock=clock, most_keys=most_keys)
        self._mails = Strikes(MAIL, clock=clock, most_keys=most_keys)
        self._codes = Strikes(CODE, clock=clock, most_keys=most_keys)
        self._known: OrderedDict[str, None] = OrderedDict()  # pairs that signed in
        self._most_keys = most_keys

    def require_sign_in(self, *, account: str, address: str) -> None:
        pair = _pair(account, address)
        wait = self._pairs.wait_seconds(pair)
        if pair not in self._known:
            wait = max(wait, self._addresses.wait_seconds(address), self._accounts.wait_seconds(account))
        _refuse_if_early(wait)

    def failed(self, *, account: str, address: str) -> None:
        self._pairs.add(_pair(account, address))
        self._addresses.add(address)
        self._accounts.add(account)

    def succeeded(self, *, account: str, address: str) -> None:
        """The pair starts anew. Not the address: with one account of one's own it could be washed between guesses."""
        pair = _pair(account, address)
        self._pairs.forget(pair)
        self._known[pair] = None
        self._known.move_to_end(pair)
        if len(self._known) > self._most_keys:
            self._known.popitem(last=False)

    def require_registration(self, *, address: str) -> None:
        _refuse_if_early(self._registrations.wait_seconds(address))

    def registered(self, *, address: str) -> None:
        """An attempt that costs us a password hash, whatever became of it."""
        self._registrations.add(address)

    def require_mail(self, *, address: str) -> None:
        _refuse_if_early(self._mails.wait_seconds(address))

    def mailed(self, *, address: str) -> None:
        """A mail was asked for, whatever became of it."""
        self._mails.add(address)

    def require_code(self, *, address: str) -> None:
        _refuse_if_early(self._codes.wait_seconds(address))

    def wrong_code(self, *, address: str) -> None:
        self._codes.add(address)


def too_many(wait: float) -> TooManyAttempts:
    seconds = math.ceil(wait)
    return TooManyAttempts(
        f"Too many attempts, please wait {seconds} seconds",
        headers={"Retry-After": str(seconds)},
        retry_after=seconds,
    )


def _pair(account: str, address: str) -> str:
    return f"{address} {account}"


def _refuse_if_early(wait: float) -> None:
    if wait > 0:
        raise too_many(wait)
