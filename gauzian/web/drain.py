"""Middleware: when the server is stopping, new requests are told so at once; probes still get their answer."""

from __future__ import annotations

from gauzian.errors import ASGIApp, Receive, Scope, Send, ShuttingDown

_ALWAYS = ("/health/", "/metrics")


class Draining:
    """Whether the server is stopping: switched on once, never off."""

    def __init__(self) -> None:
        self.is_on = False

    def begin(self) -> None:
        self.is_on = True


class RefuseWhenDraining:
    def __init__(self, app: ASGIApp, *, draining: Draining) -> None:
        self.app = app
        self.draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.draining.is_on and scope["type"] == "http" and not scope["path"].startswith(_ALWAYS):
            raise ShuttingDown
        await self.app(scope, receive, send)
