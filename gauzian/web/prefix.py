"""Middleware: the same routes under /api, for the browser client and proxies that do not strip the prefix."""

from __future__ import annotations

from gauzian.errors import ASGIApp, Receive, Scope, Send


class StripPrefix:
    def __init__(self, app: ASGIApp, *, prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if path.startswith(self.prefix + "/"):
                raw = scope.get("raw_path")
                scope = {**scope, "path": path[len(self.prefix) :]}
                if raw:
                    scope["raw_path"] = raw[len(self.prefix) :]
        await self.app(scope, receive, send)
