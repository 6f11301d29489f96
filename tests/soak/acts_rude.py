"""Acts of clients that break off, dawdle, send nonsense or come as a crowd: each reads the refusal it is due."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from tests.bench.account import PASSWORD
from tests.bench.payload import MIB
from tests.soak.chunks import BUSY, digest_header, json_chunk, multipart_chunk, raw_chunk, raw_path
from tests.soak.ledger import Wrong
from tests.soak.wire import Request, Wire, asks
from tests.soak.world import IDLE_SECONDS, MAX_CHUNK, PLACES, Actor

CROWD = 2 * PLACES
NO_FILE = "00000000-0000-4000-8000-000000000000"


async def break_off(actor: Actor) -> None:
    """In the head, in the body, or after the last byte without waiting; by every route."""
    content = actor.window(actor.dice.randint(1, MAX_CHUNK))
    file_id = await actor.initialize(len(content))
    make = actor.dice.choice((raw_chunk, json_chunk, multipart_chunk))
    request = replace(make(file_id, 0, content), token=actor.user.token)
    whole = [request.head(), *request.body]
    total = sum(map(len, whole))
    left = actor.dice.choice((actor.dice.randrange(len(whole[0])), actor.dice.randrange(total), total))
    async with Wire.open(actor.world.port) as wire:
        with contextlib.suppress(OSError):  # refused, and not read: that is rude, too
            for buffer in whole:
                await wire.send(buffer[:left])
                left -= min(left, len(buffer))
    if actor.dice.random() < 0.9:
        await actor.abort(file_id)


async def fall_silent(actor: Actor) -> None:
    await _is_too_slow(actor, IDLE_SECONDS + 30, silent=True)


async def trickle(actor: Actor) -> None:
    """A few bytes now and then: never silent for long, never fast enough."""
    await _is_too_slow(actor, 30, silent=False)


async def _is_too_slow(actor: Actor, seconds: float, *, silent: bool) -> None:
    file_id = await actor.initialize(MIB)
    request = replace(raw_chunk(file_id, 0, actor.window(MIB)), token=actor.user.token)
    try:
        async with Wire.open(actor.world.port) as wire:
            await wire.send(request.head() + bytes(10))
            feeding = asyncio.create_task(_feed(wire, 0 if silent else 40))
            try:
                async with asyncio.timeout(seconds):
                    answer = await wire.read()
            except TimeoutError:
                raise Wrong("a slow client was not cut", "silent" if silent else "trickling") from None
            finally:
                feeding.cancel()
                await asyncio.wait([feeding])
        actor.world.ledger.answers[answer.label] += 1
        if answer.label not in ("408 upload_too_slow", BUSY):
            raise Wrong(f"a slow client was answered {answer.label}")
    finally:
        await actor.abort(file_id)


async def _feed(wire: Wire, times: int) -> None:
    with contextlib.suppress(OSError):
        for _ in range(times):
            await asyncio.sleep(0.5)
            await wire.send(b"slow")


async def come_as_a_crowd(actor: Actor) -> None:
    """More at once than there are places: each reads 200 or its refusal, and somebody is refused."""
    content = actor.window(256 * 1024)
    users = actor.world.users[:4]
    files = [await replace(actor, user=user).initialize(0) for user in users]
    try:
        requests = [
            replace(raw_chunk(files[n % 4], n, content), token=users[n % 4].token, rate=len(content) / 0.7)
            for n in range(CROWD)
        ]
        answers = await asyncio.gather(*(actor.ask(request, "200", BUSY) for request in requests))
        if all(answer.status == 200 for answer in answers):
            raise Wrong("nobody of a crowd was refused", f"{CROWD} at {PLACES} places")
    finally:
        for user, file_id in zip(users, files, strict=True):
            await actor.world.abort(user, file_id)


async def send_nonsense(actor: Actor) -> None:
    """One of many refusals that need an upload."""
    file_id = await actor.initialize(1000)
    content = actor.window(1000)
    token = actor.user.token
    raw = replace(raw_chunk(file_id, 0, content), token=token)
    piece = actor.window(64 * 1024)
    stranger = next(user for user in actor.world.users if user != actor.user)
    broken = Request("POST", "/drive/upload_chunk", (b'{"file_id": 1,',), ("Content-Type: application/json",), token)
    form = replace(multipart_chunk(file_id, 0, content), token=token)
    cases: list[tuple[Request, str]] = [
        (replace(raw, declared=1_000_000_000, body=(piece,) * 8), "413 chunk_too_large"),
        (replace(raw, declared=-1, body=(piece,) * (MAX_CHUNK // len(piece) + 2)), "413 chunk_too_large"),
        (replace(raw, headers=(digest_header(bytes(32)),)), "400 digest_mismatch"),
        (replace(raw, body=()), "400 empty_chunk"),
        (replace(raw, token=None, body=(piece,) * 8), "401 not_signed_in"),
        (replace(raw, token="nobody", body=(piece,) * 8), "401 invalid_token"),
        (replace(raw, token=stranger.token, body=(piece,) * 8), "403 not_yours"),
        (replace(raw, path=raw_path(NO_FILE, 0), body=(piece,) * 8), "404 file_not_found"),
        (replace(raw, path=raw_path(file_id, -1)), "400 bad_field"),
        (broken, "400 malformed_json"),
        (replace(form, body=form.body[:2]), "400 malformed_multipart"),
    ]
    try:
        for request, label in actor.dice.sample(cases, 4):
            await actor.ask(request, label, BUSY)
    finally:
        await actor.abort(file_id)


async def sign_in_and_out(actor: Actor) -> None:
    """A token works until it is given back; the wrong password never does."""
    email = actor.dice.choice(actor.world.users).email
    if actor.dice.random() < 0.2:
        wrong = asks("POST", "/login", {"email": email, "password": "not " + PASSWORD})
        await actor.ask(wrong, "401 invalid_credentials", "429 too_many_attempts")
    answer = await actor.ask(asks("POST", "/login", {"email": email, "password": PASSWORD}), "200")
    token = answer.fields["token"]
    await actor.ask(asks("GET", "/protected", token=token), "200")
    await actor.ask(asks("POST", "/logout", token=token), "200")
    await actor.ask(asks("GET", "/protected", token=token), "401 invalid_token")
    await asyncio.sleep(0 if actor.hurried else actor.dice.uniform(1, 3))
