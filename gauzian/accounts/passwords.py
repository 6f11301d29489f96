"""Passwords: Argon2id, off the event loop, a few at once.

Each check takes MEMORY_KIB for some 30 ms, so how many run at once is part of the memory budget. The others wait a
little in a line of bounded length, which costs next to nothing, and beyond that are told SignInBusy.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio import to_thread
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from gauzian.errors import SignInBusy

log = logging.getLogger(__name__)

# OWASP's smallest recommended setting: a GPU is held back by the memory, a small server can still afford it. glibc
# returns it to the system at once only while its mmap threshold is below it (mallopt); else each thread's arena keeps
# it.
MEMORY_KIB = 19 * 1024
ROUNDS = 2
LANES = 1

# Longer ones cost time to hash and protect nobody better.
MOST_PASSWORD_BYTES = 1024

# With two at once and 30 ms each, the last of these waits about four seconds.
MOST_WAITING = 256
WAIT_SECONDS = 10.0


class Passwords:
    """`at_once` checks at the same time; stronger parameters than before are applied as users sign in."""

    def __init__(
        self,
        *,
        at_once: int,
        most_waiting: int = MOST_WAITING,
        wait_seconds: float = WAIT_SECONDS,
        memory_kib: int = MEMORY_KIB,
    ) -> None:
        self._hasher = PasswordHasher(time_cost=ROUNDS, memory_cost=memory_kib, parallelism=LANES)
        self._places = anyio.CapacityLimiter(at_once)
        self._threads = anyio.CapacityLimiter(at_once)
        self._most_waiting = most_waiting
        self._wait_seconds = wait_seconds
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a place; raises SignInBusy. `hash` and `is_right` are to be called inside, one at a time."""
        if self._waiting >= self._most_waiting:
            raise SignInBusy
        place = object()  # not the task: it is the request that holds it
        self._waiting += 1
        try:
            with anyio.fail_after(self._wait_seconds):
                await self._places.acquire_on_behalf_of(place)
        except TimeoutError:
            raise SignInBusy from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release_on_behalf_of(place)

    async def hash(self, password: str) -> str:
        return await to_thread.run_sync(self._hasher.hash, password, limiter=self._threads)

    async def is_right(self, password_hash: str | None, password: str) -> bool:
        """None: there is no such user, which takes as long to say as that the password is wrong."""
        return await to_thread.run_sync(self._compare, password_hash, password, limiter=self._threads)

    def is_outdated(self, password_hash: str) -> bool:
        """Whether it was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(password_hash)

    def _compare(self, password_hash: str | None, password: str) -> bool:
        if password_hash is None:
            self._hasher.hash(password)
            return False
        try:
            return self._hasher.verify(password_hash, password)
        except VerifyMismatchError:
            return False
        except (VerificationError, InvalidHashError):
            log.exception("a stored password hash cannot be read")
            return False
