"""What all actors of a soak share: the server's address, users, bytes to send, finished files to read again."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.bench.account import PASSWORD
from tests.bench.payload import MIB
from tests.soak.ledger import Ledger, Wrong
from tests.soak.wire import Answer, Request, asks, measured_exchange

MAX_CHUNK = 2 * MIB
MOST_FILE = 8 * MIB
PLACES = 20
IDLE_SECONDS = 2.0
SETTINGS = {
    "MAX_CONCURRENT_UPLOADS": str(PLACES),
    "MAX_CHUNK_SIZE": str(MAX_CHUNK),
    "UPLOAD_IDLE_SECONDS": f"{IDLE_SECONDS:g}",
    "MAX_CONCURRENT_DOWNLOADS": str(PLACES),
    # The reaper works meanwhile, too; everything is too young for it.
    "REAP_INTERVAL_SECONDS": "20",
}
# Finished files cannot be deleted: large ones up to here, then only small ones, and of those a bounded number.
LARGE_BYTES = 384 * MIB
SMALL_FILE = 16 * 1024
MOST_FILES = 20_000


class Stock:
    """Bytes that nothing can compress; a file is a window on them, so that what comes back can be compared."""

    def __init__(self, seed: int) -> None:
        block = random.Random(seed).randbytes(MOST_FILE)
        self._bytes = memoryview(block + block)

    def window(self, start: int, size: int) -> memoryview:
        return self._bytes[start : start + size]


@dataclass(frozen=True)
class User:
    email: str
    token: str


@dataclass(frozen=True)
class StoredFile:
    """A finished file: whose it is, where in the stock its bytes are, and how they were cut."""

    file_id: str
    user: User
    start: int
    sizes: tuple[int, ...]

    @property
    def size(self) -> int:
        return sum(self.sizes)


@dataclass
class World:
    port: int
    stock: Stock
    ledger: Ledger = field(default_factory=Ledger)
    users: list[User] = field(default_factory=list)
    library: list[StoredFile] = field(default_factory=list)
    unfinished: dict[str, User] = field(default_factory=dict)
    open: asyncio.Event = field(default_factory=asyncio.Event)  # cleared: everybody comes to an end and waits
    closes_at: float = 0.0
    stored_chunks: int = 0
    stored_bytes: int = 0

    @property
    def may_be_large(self) -> bool:
        return self.stored_bytes < LARGE_BYTES

    def keep(self, file: StoredFile) -> None:
        self.library.append(file)
        self.stored_chunks += len(file.sizes)
        self.stored_bytes += file.size

    async def exchange(self, request: Request, expected: memoryview | None = None, read_rate: float = 0.0) -> Answer:
        """One request and its answer, counted."""
        answer, wire = await measured_exchange(self.port, request, expected, read_rate)
        self.ledger.answers[answer.label] += 1
        self.ledger.sent_bytes += wire.sent
        self.ledger.received_bytes += wire.received
        return answer

    async def ask(self, request: Request, *labels: str, expected: memoryview | None = None) -> Answer:
        """The answer, which must be one of these ("200", "400 uploads_busy")."""
        answer = await self.exchange(request, expected)
        if answer.label not in labels:
            raise unexpected(request, answer, labels)
        if answer.matches is False:
            raise Wrong(f"wrong bytes: {template(request.path)}", request.path)
        return answer

    async def register(self) -> User:
        name = "soak-" + secrets.token_hex(8)
        fields = {"email": f"{name}@example.org", "username": name, "password": PASSWORD}
        keys = ("encrypted_private_key", "public_key", "private_key_salt", "iv", "encrypted_record_key")
        answer = await self.ask(asks("POST", "/register", fields | dict.fromkeys(keys, "AAAA")), "200", "201")
        user = User(fields["email"], answer.fields["token"])
        self.users.append(user)
        return user

    async def abort(self, user: User, file_id: str) -> None:
        await self.ask(asks("POST", "/drive/abort_upload", {"file_id": file_id}, user.token), "200")
        self.unfinished.pop(file_id, None)


@dataclass
class Actor:
    """One of those who do something: with dice of its own, so that a seed means the same acts again."""

    world: World
    dice: random.Random
    user: User

    @property
    def hurried(self) -> bool:
        return not self.world.open.is_set()

    @property
    def seconds_left(self) -> float:
        return self.world.closes_at - time.monotonic()

    async def ask(self, request: Request, *labels: str, expected: memoryview | None = None) -> Answer:
        return await self.world.ask(request, *labels, expected=expected)

    async def initialize(self, size: int) -> str:
        """A new upload. Whoever does not finish it aborts it, or the end of the soak does."""
        fields = {"size": size, "encrypted_metadata": "AAAA", "mime_type": "", "folder_id": "root"}
        fields |= {"encrypted_file_key": "AAAA"}
        answer = await self.ask(asks("POST", "/drive/initialize_file", fields, self.user.token), "200")
        file_id = str(answer.fields["file_id"])
        self.world.unfinished[file_id] = self.user
        return file_id

    async def abort(self, file_id: str) -> None:
        await self.world.abort(self.user, file_id)

    def some_file(self, *, least: int = 0) -> StoredFile | None:
        """A finished file, of that size at least if there is one."""
        some = self.dice.choices(self.world.library, k=20) if self.world.library else []
        return max((file for file in some if file.size >= least), key=lambda file: self.dice.random(), default=None)

    def window(self, size: int) -> memoryview:
        return self.world.stock.window(self.dice.randrange(MOST_FILE), size)


def unexpected(request: Request, answer: Answer, labels: tuple[str, ...]) -> Wrong:
    kind = f"{request.method} {template(request.path)} answered {answer.label}, not {' or '.join(labels)}"
    return Wrong(kind, answer.body[:200].decode("utf-8", "replace"))


def template(path: str) -> str:
    """The path without what differs from request to request."""
    return "/".join("…" if len(part) >= 32 else part for part in path.split("?")[0].split("/"))


def offsets(sizes: tuple[int, ...]) -> Iterator[int]:
    total = 0
    for size in sizes:
        yield total
        total += size
