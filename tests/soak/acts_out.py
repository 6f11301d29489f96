"""Acts on the way out: whole files, ranges, single chunks; bytes compared; readers that are slow or leave."""

from __future__ import annotations

import asyncio
import base64

from tests.bench.payload import MIB
from tests.soak.ledger import Wrong
from tests.soak.wire import Request, Wire, asks
from tests.soak.world import Actor, StoredFile, offsets


def _whole(file: StoredFile, *headers: str) -> Request:
    return Request("GET", f"/drive/download/{file.file_id}", headers=headers, token=file.user.token)


def _bytes_of(actor: Actor, file: StoredFile) -> memoryview:
    return actor.world.stock.window(file.start, file.size)


async def download_whole(actor: Actor) -> None:
    if file := actor.some_file():
        answer = await actor.ask(_whole(file), "200", expected=_bytes_of(actor, file))
        if actor.dice.random() < 0.2:
            tag = next(line for line in answer.head.decode().split("\r\n") if line.lower().startswith("etag:"))
            await actor.ask(_whole(file, f"If-None-Match: {tag[5:].strip()}"), "304")


async def download_range(actor: Actor) -> None:
    if file := actor.some_file():
        first = actor.dice.randrange(file.size)
        last = actor.dice.randrange(first, file.size)
        part = _bytes_of(actor, file)[first : last + 1]
        await actor.ask(_whole(file, f"Range: bytes={first}-{last}"), "206", expected=part)
        if actor.dice.random() < 0.1:
            await actor.ask(_whole(file, f"Range: bytes={file.size}-"), "416 range_not_satisfiable")


async def download_chunk(actor: Actor) -> None:
    """By its name from the file's info, raw and as JSON."""
    file = actor.some_file()
    if file is None:
        return
    info = await actor.ask(asks("GET", f"/drive/file/{file.file_id}", token=file.user.token), "200")
    listed = info.fields["chunks"]
    if [chunk["size"] for chunk in listed] != list(file.sizes):
        raise Wrong("file info tells other chunks", f"{len(listed)} of {len(file.sizes)}")
    index, start = actor.dice.choice(list(enumerate(offsets(file.sizes))))
    content = _bytes_of(actor, file)[start : start + file.sizes[index]]
    key = listed[index]["s3_key"]
    await actor.ask(asks("GET", f"/drive/download_chunk_binary/{key}", token=file.user.token), "200", expected=content)
    if len(content) < 32 * 1024:
        answer = await actor.ask(asks("GET", f"/drive/download_chunk/{key}", token=file.user.token), "200")
        if base64.b64decode(answer.fields["data"]) != content:
            raise Wrong("wrong bytes: /drive/download_chunk/…", key)


async def read_slowly(actor: Actor) -> None:
    if file := actor.some_file(least=MIB):
        rate = file.size / actor.dice.uniform(1, 6)
        answer = await actor.world.exchange(_whole(file), _bytes_of(actor, file), rate)
        if answer.status != 200 or not answer.matches:
            raise Wrong("a slow reader got something else", answer.label)


async def leave_while_reading(actor: Actor) -> None:
    """After some bytes, or after some silence: the server sees a closed connection, or a full one."""
    file = actor.some_file(least=MIB)
    if file is None:
        return
    async with Wire.open(actor.world.port) as wire:
        await wire.send_request(_whole(file))
        answer = await wire.read(rate=2e6, stop_after=actor.dice.randrange(file.size))
        actor.world.ledger.answers[f"{answer.label}, left"] += 1
        if answer.status != 200:
            raise Wrong("a download that was left", answer.label)
        if not actor.hurried and actor.dice.random() < 0.5:
            await asyncio.sleep(actor.dice.uniform(0, 2))


async def look_around(actor: Actor) -> None:
    """What probes and people without rights ask for."""
    await actor.ask(Request("GET", "/health/live"), "200")
    await actor.ask(Request("GET", "/health/ready"), "200")
    await actor.ask(Request("GET", "/nothing/of/this/name"), "404 not_found")
    if file := actor.some_file():
        stranger = next(user for user in actor.world.users if user != file.user)
        path = f"/drive/download/{file.file_id}"
        await actor.ask(Request("GET", path, token=stranger.token), "403 not_yours")
        await actor.ask(Request("GET", path), "401 not_signed_in")
