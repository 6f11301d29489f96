"""Applications, named for what they do with a request."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable

from gauzian.errors import ASGIApp, Message, Receive, Scope, Send


def with_lifespan(app: ASGIApp, events: list[str] | None = None) -> ASGIApp:
    """`app`, with a startup and a shutdown that are noted in `events`."""

    async def alive(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            return await app(scope, receive, send)
        for _ in range(2):
            message = await receive()
            if events is not None:
                events.append(message["type"])
            await send({"type": message["type"] + ".complete"})
        return None

    return alive


async def answer(send: Send, status: int, body: bytes = b"", headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def read_all(receive: Receive) -> bytes | None:
    """The whole body, None if the client went away."""
    body = b""
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message["body"]
        if not message["more_body"]:
            return body


async def wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def refuses_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    await answer(send, 400, b'{"code":"busy"}')


async def refuses_after_a_wait(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(0.03)  # a look-up
    await answer(send, 401, b'{"code":"stranger"}')


async def refuses_after_part(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await answer(send, 413, b'{"code":"too_large"}')


async def raises_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("on purpose")


async def raises_after_part(scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    raise RuntimeError("on purpose")


async def never_answers(scope: Scope, receive: Receive, send: Send) -> None:
    await wait_for_disconnect(receive)


async def reads_all(scope: Scope, receive: Receive, send: Send) -> None:
    body = await read_all(receive)
    if body is not None:
        told = {"path": scope["path"], "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        await answer(send, 200, json.dumps(told).encode())
