"""What S3's answers and silences mean in our words. Its own words go to the log, never to a client."""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import aiohttp

from gauzian.errors import ApiError, StoreDown, StoreFull

log = logging.getLogger(__name__)

T = TypeVar("T")

# An error document is a few hundred bytes. What is longer is not one.
_MOST_ERROR_BYTES = 16 * 1024
_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,64})</Code>")
_FULL = {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"}
_MAY_PASS = {429, 500, 502, 503, 504}

# Somebody is waiting for the answer: a store that takes longer than this to fail is not asked again.
_RETRIES = 2
_RETRY_WITHIN_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and, for a refusal, the S3 error code in its body ("" if it names none)."""

    status: int
    code: str = ""

    @property
    def is_absence(self) -> bool:
        return self.status == 404 and self.code != "NoSuchBucket"

    @property
    def may_pass(self) -> bool:
        return self.status in _MAY_PASS

    def as_error(self, operation: str) -> ApiError:
        log.warning("object store refused: operation=%s status=%d code=%s", operation, self.status, self.code or "-")
        return StoreFull() if self.status == 507 or self.code in _FULL else StoreDown()


async def read_answer(response: aiohttp.ClientResponse) -> Answer:
    if response.status < 300:
        return Answer(response.status)
    body = b""
    while len(body) < _MOST_ERROR_BYTES and (piece := await response.content.read(_MOST_ERROR_BYTES)):
        body += piece
    found = _CODE.search(body)
    return Answer(response.status, found[1].decode("ascii") if found else "")


def unanswered(operation: str, error: BaseException) -> StoreDown:
    """Refused, timed out, broken off: `error` as one of ours."""
    log.warning("object store failed: operation=%s error=%s", operation, type(error).__name__)
    failure = StoreDown()
    failure.__cause__ = error
    return failure


# What aiohttp and sockets raise.
FOREIGN = (aiohttp.ClientError, TimeoutError, OSError)


@contextmanager
def seam(operation: str) -> Iterator[None]:
    """Foreign errors end here."""
    try:
        yield
    except FOREIGN as error:
        raise unanswered(operation, error) from error


class Tries:
    """How often to ask: `while True: ... if not await tries.again(): raise`."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._made = 0

    async def again(self) -> bool:
        """Whether to ask once more; waits a little first, unevenly so that many do not come back together."""
        if self._made >= _RETRIES or self._loop.time() - self._since > _RETRY_WITHIN_SECONDS:
            return False
        self._made += 1
        await asyncio.sleep(0.05 * 3**self._made * random.uniform(0.3, 1.0))  # noqa: S311 (no secret)
        return True


async def ask_patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """What `ask` gives, asked again when the store fails or says something that may pass. Raises StoreDown."""
    tries = Tries()
    while True:
        try:
            answer = await ask()
        except StoreDown:
            if await tries.again():
                continue
            raise
        if not (isinstance(answer, Answer) and answer.may_pass and await tries.again()):
            return answer
