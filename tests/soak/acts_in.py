"""Acts on the way in: files uploaded as they should be, and ended in every way there is."""

from __future__ import annotations

import asyncio

from tests.bench.payload import MIB
from tests.soak.chunks import BUSY, check_receipt, paced, raw_chunk, store
from tests.soak.ledger import Wrong
from tests.soak.wire import asks
from tests.soak.world import MAX_CHUNK, MOST_FILE, MOST_FILES, SMALL_FILE, Actor, StoredFile, offsets

LARGE_CHUNK = MAX_CHUNK - 64 * 1024


async def upload_file(actor: Actor) -> None:
    """Chunks in any order, some twice, some missing at first; then it is finished, or given up."""
    finishes = actor.dice.random() < 0.5 and len(actor.world.library) < MOST_FILES
    sizes = _sizes(actor, large=actor.world.may_be_large or not finishes)
    start = actor.dice.randrange(MOST_FILE)
    file_id = await actor.initialize(sum(sizes))
    try:
        await _send_all(actor, file_id, start, sizes)
        if actor.dice.random() < 0.3:
            await _check_arrived(actor, file_id, sizes)
        if finishes:
            await _finish(actor, StoredFile(file_id, actor.user, start, sizes))
    finally:
        if file_id in actor.world.unfinished and actor.dice.random() < 0.95:  # the others are forgotten
            await actor.abort(file_id)


def _sizes(actor: Actor, *, large: bool) -> tuple[int, ...]:
    """Several chunks; the explanation of a whole file needs no equal sizes when nothing is added to them."""
    most, least = (LARGE_CHUNK, MIB // 4) if large and actor.dice.random() < 0.9 else (SMALL_FILE // 4, 1)
    return tuple(actor.dice.randint(least, most) for _ in range(actor.dice.randint(1, 4)))


async def _send_all(actor: Actor, file_id: str, start: int, sizes: tuple[int, ...]) -> None:
    pieces = [(index, actor.world.stock.window(start + offset, sizes[index])) for index, offset in _indexed(sizes)]
    actor.dice.shuffle(pieces)
    hole = actor.dice.random() < 0.15
    for number, (index, content) in enumerate(pieces):
        if hole and number == len(pieces) - 1:
            await _finish_too_early(actor, file_id)
        if actor.dice.random() < 0.1:  # other bytes first: the second ones count
            await store(actor, file_id, index, actor.window(actor.dice.randint(1, SMALL_FILE)))
        await store(actor, file_id, index, content)
        if actor.dice.random() < 0.1:
            await store(actor, file_id, index, content)


def _indexed(sizes: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(enumerate(offsets(sizes)))


async def _finish_too_early(actor: Actor, file_id: str) -> None:
    path = f"/drive/finalize_upload/{file_id}/completed"
    await actor.ask(asks("POST", path, token=actor.user.token), "409 upload_incomplete")


async def _check_arrived(actor: Actor, file_id: str, sizes: tuple[int, ...]) -> None:
    answer = await actor.ask(asks("GET", f"/drive/files/{file_id}/upload", token=actor.user.token), "200")
    told = (answer.fields["received"], answer.fields["bytes"])
    if told != ([[0, len(sizes) - 1]], sum(sizes)):
        raise Wrong("what has arrived is told wrongly", f"{told} of {sizes}")


async def _finish(actor: Actor, file: StoredFile) -> None:
    request = asks("POST", f"/drive/finalize_upload/{file.file_id}/completed", token=actor.user.token)
    await actor.ask(request, "200")
    actor.world.unfinished.pop(file.file_id, None)
    actor.world.keep(file)
    if actor.dice.random() < 0.1:
        await actor.ask(request, "200")
        fields = {"file_id": file.file_id}
        await actor.ask(asks("POST", "/drive/abort_upload", fields, actor.user.token), "409 upload_closed")
        late = paced(actor, raw_chunk(file.file_id, 0, actor.window(1000)))
        await actor.ask(late, "409 upload_closed", BUSY)


async def abort_while_sending(actor: Actor) -> None:
    """Whoever comes first: the chunk is stored and removed, or refused. The sweep at the end finds what is left."""
    content = actor.window(actor.dice.randint(1, MAX_CHUNK))
    file_id = await actor.initialize(len(content))
    allowed = ("200", "404 file_not_found", "409 upload_closed", BUSY)
    sending = asyncio.create_task(actor.ask(paced(actor, raw_chunk(file_id, 0, content)), *allowed))
    try:
        await asyncio.sleep(actor.dice.uniform(0, 0.8))
        await actor.abort(file_id)
    finally:
        await asyncio.wait([sending])
    sending.result()
    await actor.abort(file_id)


async def two_at_one_index(actor: Actor) -> None:
    """One of them stays; the loser's object is gone, which the sweep at the end sees."""
    contents = [actor.window(actor.dice.randint(1, MAX_CHUNK // 2)) for _ in range(2)]
    file_id = await actor.initialize(len(contents[0]))
    try:
        requests = [paced(actor, raw_chunk(file_id, 0, content)) for content in contents]
        answers = await asyncio.gather(*(actor.ask(request, "200", BUSY) for request in requests))
        stored = [(a, c) for a, c in zip(answers, contents, strict=True) if a.status == 200]
        for answer, content in stored:
            check_receipt(answer, 0, content)
        info = await actor.ask(asks("GET", f"/drive/file/{file_id}", token=actor.user.token), "200")
        kept = [chunk["size"] for chunk in info.fields["chunks"]]
        if (kept and kept[0] not in [len(content) for _, content in stored]) or len(kept) != min(1, len(stored)):
            raise Wrong("two at one index", f"{kept} kept of {[len(content) for _, content in stored]}")
    finally:
        await actor.abort(file_id)
