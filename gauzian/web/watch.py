"""Middleware: request id, access line, request metrics."""

from __future__ import annotations

import logging
import re
import secrets
import time

from gauzian.errors import ASGIApp, Message, Receive, Scope, Send
from gauzian.logs import request_id
from gauzian.metrics import Metrics
from gauzian.web.body import header

log = logging.getLogger("gauzian.access")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# An id from a proxy in front of us is taken over if it cannot break a log line.
_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{8,64}")
_QUIET = frozenset({"/health/live", "/health/ready", "/metrics"})  # probed every few seconds: counted, not logged


class Watch:
    """Around everything: each request gets an id, each answer carries it, each end is counted and logged."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics
        self.in_flight = 0
        metrics.level("gauzian_http_requests_in_flight", "Requests being answered", lambda: self.in_flight)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = header(scope, b"x-request-id")
        identity = given if given is not None and _SANE_ID.fullmatch(given) else secrets.token_hex(8).encode()
        token = request_id.set(identity.decode())
        status, started = 0, time.perf_counter()

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), (b"x-request-id", identity)]}
            await send(message)

        self.in_flight += 1
        try:
            await self.app(scope, receive, watched_send)
        finally:
            self.in_flight -= 1
            self._finished(scope, status, time.perf_counter() - started)
            request_id.reset(token)
        return None

    def _finished(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        code = "gone" if scope.get("gauzian.client_gone") or not status else str(status)
        self.metrics.http_requests.labels(method, route, code).inc()
        self.metrics.http_seconds.labels(method, route).observe(seconds)
        if route not in _QUIET and log.isEnabledFor(logging.INFO):
            log.info(
                "request", extra={"method": method, "route": route, "status": code, "ms": round(seconds * 1000, 1)}
            )
