"""Is the process alive, is it ready, what are its numbers."""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable

import anyio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gauzian import metrics
from gauzian.errors import ApiError, NotSignedIn
from gauzian.web.drain import Draining

log = logging.getLogger(__name__)

Check = Callable[[], Awaitable[None]]

_CHECK_SECONDS = 5.0  # a part that needs longer to say that it is well is not
_REMEMBER_SECONDS = 1.0  # anybody may ask: this is all the work that asking can cause


class Health:
    """`checks`: name of a part -> returns if it is well, raises ApiError if not."""

    def __init__(self, *, checks: dict[str, Check], draining: Draining) -> None:
        self._checks = checks
        self._draining = draining
        self._lock = anyio.Lock()
        self._failing: dict[str, str] = {}
        self._asked_at = -_REMEMBER_SECONDS

    async def live(self, request: Request) -> Response:
        return PlainTextResponse("OK")

    async def ready(self, request: Request) -> Response:
        """200 `OK`, or 503 with one JSON line per part that is not well."""
        failing = {"server": "shutting_down"} if self._draining.is_on else await self._ask()
        if not failing:
            return PlainTextResponse("OK")
        lines = "".join(json.dumps({"part": part, "code": code}) + "\n" for part, code in failing.items())
        return Response(lines, status_code=503, media_type="application/x-ndjson")

    async def _ask(self) -> dict[str, str]:
        async with self._lock:
            if time.monotonic() - self._asked_at >= _REMEMBER_SECONDS:
                failing: dict[str, str] = {}
                async with anyio.create_task_group() as tasks:
                    for part, check in self._checks.items():
                        tasks.start_soon(self._ask_one, part, check, failing)
                self._failing, self._asked_at = failing, time.monotonic()
            return self._failing

    async def _ask_one(self, part: str, check: Check, failing: dict[str, str]) -> None:
        try:
            with anyio.fail_after(_CHECK_SECONDS):
                await check()
        except ApiError as error:
            failing[part] = error.code
        except TimeoutError:
            failing[part] = "timeout"
        except Exception:  # whatever it is, this part is not well, and the others still have their lines
            log.exception("a part could not be asked", extra={"part": part})
            failing[part] = ApiError.code


class Numbers:
    """GET /metrics, behind a Bearer token if there is one."""

    def __init__(self, numbers: metrics.Metrics, *, token: str | None) -> None:
        self._numbers = numbers
        self._token = token

    async def metrics(self, request: Request) -> Response:
        if self._token is not None:
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
                raise NotSignedIn
        return Response(self._numbers.render(), headers={"Content-Type": metrics.CONTENT_TYPE})
