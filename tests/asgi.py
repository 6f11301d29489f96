"""Call an ASGI application without a server: one request in, one whole answer out.

The client behaves: it sends its pieces when asked and then stays until it is answered. Troublesome clients are in
fakes.py.
"""

from __future__ import annotations

import asyncio
import json as json_module
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from gauzian.errors import ASGIApp, Message, Scope

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]  # names in lower case, in order, repetitions kept
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key == name.lower()), None)

    def json(self) -> Any:
        return json_module.loads(self.body)


def scope_of(
    method: str,
    path: str,
    *,
    headers: Headers = (),
    client: tuple[str, int] | None = ("203.0.113.7", 4711),
    length: int | None = None,
) -> Scope:
    """An HTTP scope as a server makes it; `path` may carry a query string. `length` becomes Content-Length."""
    raw, _, query = path.partition("?")
    pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
    names = {name.lower() for name, _ in pairs}
    if "host" not in names:
        pairs.append(("host", "drive.example"))
    if length is not None and not names & {"content-length", "transfer-encoding"}:
        pairs.append(("content-length", str(length)))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw),
        "raw_path": raw.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
        "client": client,
        "server": ("127.0.0.1", 8080),
        "extensions": {},
        "state": {},
    }


async def call(
    app: ASGIApp,
    method: str,
    path: str,
    *,
    headers: Headers = (),
    body: bytes | list[bytes] = b"",
    json: Any = None,
    client: tuple[str, int] | None = ("203.0.113.7", 4711),
) -> Answer:
    """Send one request. `json` is a body with its Content-Type; a list comes piece by piece, its length declared."""
    pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers)
    if json is not None:
        body = json_module.dumps(json).encode()
        pairs.append(("content-type", "application/json"))
    pieces = body if isinstance(body, list) else [body]
    scope = scope_of(method, path, headers=pairs, client=client, length=sum(map(len, pieces)))
    return await call_scope(app, scope, pieces)


async def call_scope(app: ASGIApp, scope: Scope, pieces: list[bytes]) -> Answer:
    """Like `call`, with a scope of one's own making."""
    coming = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces) - 1}
        for number, piece in enumerate(pieces)
    ]
    answered = asyncio.Event()
    sent: list[Message] = []

    async def receive() -> Message:
        if coming:
            return coming.pop(0)
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            answered.set()

    await app(scope, receive, send)
    assert answered.is_set(), "the application returned without a whole answer"
    start = sent[0]
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in start.get("headers", [])]
    return Answer(start["status"], headers, b"".join(message.get("body", b"") for message in sent[1:]))
