"""A chunk as each of the three routes wants it, and sending it as a good client does: refused, it comes again."""

from __future__ import annotations

import asyncio
import base64
import hashlib

from tests.bench.account import BOUNDARY, IV
from tests.soak.ledger import Wrong
from tests.soak.wire import Answer, Request
from tests.soak.world import Actor

ROUTES = ("raw", "json", "multipart")
BUSY = "400 uploads_busy"
MOST_TRIES = 60
AGAIN_SECONDS = (0.2, 0.8)


def raw_path(file_id: str, index: int) -> str:
    return f"/drive/upload_chunk_binary?file_id={file_id}&index={index}&iv={IV}"


def raw_chunk(file_id: str, index: int, content: memoryview, *, digest: bool = False) -> Request:
    checked = (digest_header(hashlib.sha256(content).digest()),) if digest else ()
    return Request("POST", raw_path(file_id, index), (content,), ("Content-Type: application/octet-stream", *checked))


def json_chunk(file_id: str, index: int, content: memoryview) -> Request:
    first = f'{{"file_id":"{file_id}","index":{index},"iv":"{IV}","chunk_data":"'.encode()
    body = (first, base64.b64encode(content), b'"}')
    return Request("POST", "/drive/upload_chunk", body, ("Content-Type: application/json",))


def multipart_chunk(file_id: str, index: int, content: memoryview) -> Request:
    def part(disposition: str) -> str:
        return f"--{BOUNDARY}\r\nContent-Disposition: form-data; name={disposition}\r\n\r\n"

    first = part('"index"') + f"{index}\r\n" + part('"iv"') + f"{IV}\r\n" + part('"chunk"; filename="blob"')
    body = (first.encode(), content, f"\r\n--{BOUNDARY}--\r\n".encode())
    kind = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
    return Request("POST", f"/drive/files/{file_id}/upload-chunk", body, (kind,))


def digest_header(sha256: bytes) -> str:
    return f"Content-Digest: sha-256=:{base64.b64encode(sha256).decode()}:"


def some_chunk(actor: Actor, file_id: str, index: int, content: memoryview) -> Request:
    """By a route of the dice's choice, signed, at the pace of an ordinary line."""
    route = actor.dice.choices(ROUTES, (6, 2, 2))[0]
    if route == "raw":
        request = raw_chunk(file_id, index, content, digest=actor.dice.random() < 0.3)
    else:
        request = (json_chunk if route == "json" else multipart_chunk)(file_id, index, content)
    return paced(actor, request)


def paced(actor: Actor, request: Request) -> Request:
    rate = 0.0 if actor.hurried else actor.dice.uniform(0.7, 2.0) * 1_000_000
    return Request(request.method, request.path, request.body, request.headers, actor.user.token, rate=rate)


async def store(actor: Actor, file_id: str, index: int, content: memoryview) -> None:
    """Until it is stored: a refusal means to come again a little later."""
    for _ in range(MOST_TRIES):
        request = some_chunk(actor, file_id, index, content)
        answer = await actor.ask(request, "200", BUSY)
        if answer.status == 200:
            return check_receipt(answer, index, content)
        await asyncio.sleep(actor.dice.uniform(*AGAIN_SECONDS))
    raise Wrong("refused without an end", f"{MOST_TRIES} times")


def check_receipt(answer: Answer, index: int, content: memoryview) -> None:
    expected = {"index": str(index), "data_hash": hashlib.sha256(content).hexdigest()}
    told = {name: answer.fields.get(name) for name in expected}
    if told != expected:
        raise Wrong("a chunk's receipt is wrong", f"{told}, not {expected}")
