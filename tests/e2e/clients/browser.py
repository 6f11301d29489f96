"""What a browser does below the page: a few connections kept alive, cookies, and the headers that say where a request
comes from.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.server.client import Answer, Client

# Browsers open no more connections to one host (HTTP/1.1).
CONNECTIONS = 6
PATIENCE_SECONDS = 20.0


class NetworkError(Exception):
    """fetch() has failed: no answer came."""


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        return json.loads(self.body)


class Browser:
    """One browser at one drive, through a proxy that adds X-Forwarded-For and takes no prefix away."""

    def __init__(self, address: tuple[str, int], *, ip: str, base: str = "/api") -> None:
        self._address = address
        self._base = base
        self._ip = ip
        self._idle: list[Client] = []
        self._places = asyncio.Semaphore(CONNECTIONS)
        self.cookies: dict[str, str] = {}
        self.loses: Callable[[str, int], bool] = lambda path, status: False

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        credentials: bool = False,
    ) -> Reply:
        """One request and its whole answer. Raises NetworkError, also for an answer that `loses` loses on the way."""
        request = self._head(method, path, headers or {}, body, credentials) + (body or b"")
        async with self._places:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    answer = await self._exchange(method, request)
            except (OSError, EOFError, TimeoutError) as error:
                raise NetworkError(f"{method} {path}: {type(error).__name__}") from error
        if not answer.complete or self.loses(path, answer.status):
            raise NetworkError(f"{method} {path}: the answer did not arrive")
        if credentials:
            self._keep_cookie(answer.headers.get("set-cookie", ""))
        return Reply(answer.status, answer.headers, answer.body)

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def _exchange(self, method: str, request: bytes) -> Answer:
        while self._idle:  # one that the server has closed meanwhile is noticed before anything is sent on it
            connection = self._idle.pop()
            if not connection.reader.at_eof():
                break
            connection.vanish()
        else:
            connection = await Client.connect(self._address)
        sending = asyncio.ensure_future(connection.send(request))
        is_free = False
        try:
            answer = await connection.answer(method)
            # An answer that comes before the whole body was taken ends the connection.
            is_free = sending.done() and answer.complete and answer.headers.get("connection") != "close"
            return answer
        finally:
            sending.cancel()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await sending
            if is_free:
                self._idle.append(connection)
            else:
                connection.vanish()

    def _head(self, method: str, path: str, headers: dict[str, str], body: bytes | None, credentials: bool) -> bytes:
        host = f"{self._address[0]}:{self._address[1]}"
        lines = [f"{method} {self._base}{path} HTTP/1.1", f"Host: {host}", "Accept: */*", "Sec-Fetch-Site: same-origin"]
        lines += ["Sec-Fetch-Mode: cors", f"X-Forwarded-For: {self._ip}"]
        if method not in ("GET", "HEAD"):
            lines += [f"Origin: http://{host}", f"Content-Length: {len(body or b'')}"]
        if credentials and self.cookies:
            lines.append("Cookie: " + "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode()

    def _keep_cookie(self, line: str) -> None:
        name, separator, value = line.partition(";")[0].partition("=")
        if separator and "max-age=0" in line.lower().replace(" ", ""):
            self.cookies.pop(name, None)
        elif separator:
            self.cookies[name] = value
