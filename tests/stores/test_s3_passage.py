"""What goes from a client's socket to the store's without being a piece: in its order, to the byte, and bounded."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import aiohttp
import pytest
import xxhash

from gauzian.errors import ClientGone, DigestMismatch, StoreDown, StoreFull
from gauzian.stores.base import ObjectMissing, StoredObject
from gauzian.stores.s3 import S3Store, open_s3
from gauzian.stores.s3_passage import Passage, Passages
from gauzian.stores.s3_signing import Signer
from gauzian.stores.sharedbuffer import SharedBuffer
from gauzian.stores.tally import Tally
from gauzian.stores.threads import FileThreads
from tests.rclone import S3Address
from tests.stores.faulty import OK, Call, answer, faulty_s3, s3_error
from tests.stores.patience import until
from tests.stores.tapped import DATA, KIB, MIB, Body, sending

pytestmark = pytest.mark.anyio

KEY = "file.0.x"


class Opener:
    def __init__(self, threads: FileThreads, spool_dir: Path, bucket: str) -> None:
        self._threads = threads
        self._spool_dir = spool_dir
        self._bucket = bucket

    @asynccontextmanager
    async def __call__(self, endpoint: str) -> AsyncIterator[S3Store]:
        async with open_s3(
            endpoint=endpoint,
            access_key="gauzian-access",
            secret_key="gauzian-secret",
            bucket=self._bucket,
            region="us-east-1",
            spool_dir=self._spool_dir,
            threads=self._threads,
        ) as store:
            yield store
            assert (store._passages.left.held, store._passages.buffer.users) == (0, 0)


@pytest.fixture
def opened(threads: FileThreads, tmp_path: Path, bucket: str) -> Opener:
    return Opener(threads, tmp_path, bucket)


@pytest.fixture
async def store(opened: Opener, s3_server: S3Address) -> AsyncIterator[S3Store]:
    """A real one."""
    async with opened(s3_server.endpoint) as store:
        yield store


async def read(store: S3Store) -> bytes:
    async with store.get(KEY) as pieces:
        return b"".join([piece async for piece in pieces])


def stored(data: bytes) -> StoredObject:
    return StoredObject(len(data), hashlib.sha256(data).digest(), xxhash.xxh3_128(data).digest())


class Transport:
    """Of a real socket; a test says how much waits in front of it."""

    def __init__(self, sock: socket.socket) -> None:
        self.waiting = 0
        self._sock = sock

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def get_extra_info(self, name: str) -> socket.socket | None:
        return self._sock if name == "socket" else None


async def test_what_waits_in_front_of_the_socket_is_not_overtaken_and_a_rest_counts_until_the_next_move() -> None:
    loop, passages = asyncio.get_running_loop(), Passages(SharedBuffer())
    ours, stores = socket.socketpair()
    async with sending(DATA) as client:
        with ours, stores:
            ours.setblocking(False)
            stores.setblocking(False)
            transport = Transport(ours)
            passage = Passage(client.body, Tally(size=len(DATA), sha256=None), passages)
            passage.begin()
            transport.waiting = 1
            rest = passage.move(transport)  # type: ignore[arg-type]
            assert rest
            assert rest == DATA[: len(rest)]
            assert passages.left.held == len(rest)
            transport.waiting = 0
            given, came = bytearray(rest), bytearray(rest)
            while len(given) < 4 * MIB:
                await until(lambda: client.body.waiting >= 64 * KIB, "something waits")
                before = client.body.taken
                rest = passage.move(transport)  # type: ignore[arg-type]
                assert rest is not None
                assert passages.left.held == len(rest)
                given += DATA[before : client.body.taken]
                sent = client.body.taken - before - len(rest)
                while sent and (piece := await loop.sock_recv(stores, sent)):
                    came += piece
                    sent -= len(piece)
                came += rest
            assert came == given
            passage.end()
            assert passages.left.held == 0
            assert passage.move(transport) is not None  # type: ignore[arg-type]
            passage.end()


async def is_silent(call: Call) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("known", [True, False], ids=["size-known", "size-unknown"])
@pytest.mark.parametrize("size", [128 * KIB + 1, MIB, 3 * MIB + 7, 10 * MIB])
async def test_an_object_is_what_was_sent_whichever_way_its_bytes_came(store: S3Store, size: int, known: bool) -> None:
    """Bytes whose number nobody knows are spooled, as pieces."""
    data = DATA[:size]
    async with sending(data) as client:
        put = store.put(KEY, client.body, size=size if known else None, sha256=hashlib.sha256(data).digest())
        assert await put == stored(data)
        assert (client.body.taken > 0) == known
        assert client.body.left == 0
        assert not client.body.held
    assert await read(store) == data


@pytest.mark.parametrize("ahead", [[1], [5, 1, 70_000], [600 * KIB, 700 * KIB, 800 * KIB]])
async def test_what_came_as_pieces_stands_before_what_passes_by(store: S3Store, ahead: list[int]) -> None:
    edges = [sum(ahead[:number]) for number in range(len(ahead) + 1)]
    pieces = [DATA[start:end] for start, end in pairwise(edges)]
    data = DATA[: edges[-1] + 2 * MIB]
    async with sending(data[edges[-1] :], ahead=pieces) as client:
        assert await store.put(KEY, client.body, size=len(data)) == stored(data)
        assert client.body.taken > 0
    assert await read(store) == data


async def test_what_stands_behind_the_body_stays_where_it_is(store: S3Store) -> None:
    async with sending(DATA[: 2 * MIB + 1000], size=2 * MIB) as client:
        assert await store.put(KEY, client.body, size=2 * MIB) == stored(DATA[: 2 * MIB])
        assert client.body.taken > 0
        assert await client.rest() == DATA[2 * MIB : 2 * MIB + 1000]


async def test_the_wrong_digest_keeps_nothing_of_what_passed_by(store: S3Store) -> None:
    async with sending(DATA[: 3 * MIB]) as client:
        with pytest.raises(DigestMismatch):
            await store.put(KEY, client.body, size=3 * MIB, sha256=bytes(32))
        assert client.body.taken > 0
        assert not client.body.held
    with pytest.raises(ObjectMissing):
        await read(store)


@pytest.mark.parametrize("at_once", [1000, 64 * KIB])
async def test_a_store_that_takes_little_at_a_time_gets_all_of_it_in_order(opened: Opener, at_once: int) -> None:
    came = bytearray()

    async def nibbles(call: Call) -> None:
        while len(came) < len(DATA):
            came.extend(await call.reader.read(at_once))
            await asyncio.sleep(0)
        await call.say(OK)

    async with faulty_s3(PUT=nibbles) as faulty, opened(faulty.endpoint) as store, sending(DATA) as client:
        assert await store.put(KEY, client.body, size=len(DATA)) == stored(DATA)
        assert client.body.taken > 0
        assert not client.body.held
    assert bytes(came) == DATA


async def takes_some_and_cuts(call: Call) -> None:
    await call.reader.readexactly(3 * MIB)
    raise ConnectionResetError


async def takes_some_and_refuses(call: Call) -> None:
    await call.reader.readexactly(3 * MIB)
    await call.say(s3_error(503, "SlowDown"))


async def takes_some_and_is_full(call: Call) -> None:
    await call.reader.readexactly(3 * MIB)
    await call.say(answer(507))


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [(takes_some_and_cuts, StoreDown), (takes_some_and_refuses, StoreDown), (takes_some_and_is_full, StoreFull)],
)
async def test_a_store_that_fails_meanwhile_ends_the_put_and_the_tap_knows_how_far_it_came(
    opened: Opener, behaviour: object, error: type[Exception]
) -> None:
    async with (
        faulty_s3(PUT=behaviour) as faulty,  # type: ignore[arg-type]
        opened(faulty.endpoint) as store,
        sending(DATA) as client,
    ):
        with pytest.raises(error):
            await store.put(KEY, client.body, size=len(DATA))
        assert faulty.calls.count("PUT") == 1
        assert client.body.taken > 0
        assert not client.body.held
        assert await client.rest() == DATA[len(DATA) - client.body.left :]


async def stalls(body: Body) -> None:
    """Until a store that takes nothing keeps this body from going on."""
    told = -1
    while told != len(body.told) or not body.told:
        told = len(body.told)
        for _ in range(20):
            await asyncio.sleep(0)


async def test_cancelled_while_the_store_takes_nothing_it_leaves_nothing(opened: Opener) -> None:
    async with faulty_s3(PUT=is_silent) as faulty, opened(faulty.endpoint) as store, sending(DATA * 2) as client:
        put = asyncio.create_task(store.put(KEY, client.body, size=len(DATA) * 2))
        await stalls(client.body)
        assert store._passages.left.held > 0
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        assert store._passages.left.held == 0
        assert not client.body.held
        assert await client.rest() == (DATA * 2)[2 * len(DATA) - client.body.left :]


async def test_many_whose_store_takes_nothing_hold_little_together(opened: Opener) -> None:
    """The first get large pieces, those who come later small ones."""
    crowd = 12
    async with AsyncExitStack() as stack:
        faulty = await stack.enter_async_context(faulty_s3(PUT=is_silent))
        store = await stack.enter_async_context(opened(faulty.endpoint))
        clients = [await stack.enter_async_context(sending(DATA)) for _ in range(crowd)]
        puts = [asyncio.create_task(store.put(KEY, client.body, size=len(DATA))) for client in clients]
        for client in clients:
            await stalls(client.body)
        left = store._passages.left
        assert 0 < left.held <= left.total + crowd * left.least
        for put in puts:
            put.cancel()
        await asyncio.gather(*puts, return_exceptions=True)
        assert left.held == 0


async def test_a_client_that_is_gone_is_what_its_pieces_say(store: S3Store) -> None:
    async with sending(DATA[: 2 * MIB], size=4 * MIB) as client:
        hanging_up = asyncio.create_task(client.reset())
        with pytest.raises(ClientGone):
            await store.put(KEY, client.body, size=4 * MIB)
        await hanging_up
        assert not client.body.held
    with pytest.raises(ObjectMissing):
        await read(store)


async def test_others_have_their_turn_between_two_moves(store: S3Store) -> None:
    async with sending(DATA, most=MIB) as client:
        put = asyncio.create_task(store.put(KEY, client.body, size=len(DATA)))
        turns: list[int] = []
        while not put.done():
            turns.append(client.body.taken)
            await asyncio.sleep(0)
        await put
        assert max(after - before for before, after in pairwise(turns)) <= MIB


@pytest.mark.parametrize(
    ("users", "size"), [(0, MIB), (1, MIB), (8, MIB), (16, MIB // 2), (64, MIB // 8), (999, 64 * KIB)]
)
async def test_of_many_each_moves_less_at_a_time(users: int, size: int) -> None:
    passages = Passages(SharedBuffer())
    passages.buffer.users = users
    assert len(passages.buffer.share(passages.left.share)) == size
    passages.left.held = passages.left.total  # stores that take nothing
    assert len(passages.buffer.share(passages.left.share)) == passages.left.least


async def test_a_store_behind_tls_gets_it_too(opened: Opener, certificate: Path) -> None:
    came = b""

    async def takes(call: Call) -> None:
        nonlocal came
        came = await call.body()
        await call.say(OK)

    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(certificate)
    async with (
        faulty_s3() as plain,  # asked at the start only
        faulty_s3(tls=theirs, PUT=takes) as faulty,
        opened(plain.endpoint) as store,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=certificate))
        ) as session,
        sending(DATA) as client,
    ):
        signer = Signer(
            endpoint=faulty.endpoint, access_key="key", secret_key="secret", bucket="bucket", region="us-east-1"
        )
        store._wire._session, store._wire._signer = session, signer
        assert await store.put(KEY, client.body, size=len(DATA)) == stored(DATA)
        assert client.body.taken > 0
    assert came == DATA
