"""The next few objects are opened while this one is sent: in order, N fixed, nothing unverified ever completed.

Why: an object store needs some time before the first byte of an object (tens of milliseconds over a network). Opened
one after the other, a file of many chunks spends most of its time waiting; with the next two opened early, a few
megabytes before they are wanted, it comes at the speed of the line.

What it costs: an opened object holds a socket or a file and what the store buffers for it (ObjectStore.get reads as
it is asked), never a whole chunk. One download holds at most 1 + N opened objects, one piece on its way to the client
(of bytes that are passed on: what the client did not take at once) and one page of rows.

Who closes: each opened object belongs to a small task that enters and leaves the store's context manager itself.
Leaving in the task that entered is what timeouts and cancel scopes inside a store need; and when a download is
cancelled, even twice, that task has been told before anything is waited for, so the object is closed whatever becomes
of us.

What is promised about the bytes: every chunk that is touched is read to its end and compared with its row, length and
XXH3-128, also when only a part of it is wanted; and the last wanted piece of a chunk is held back until the
comparison is done (and the first one until there is a second, so that a truncated object is mostly noticed while an
honest error can still be answered). So no client ever gets all of a damaged chunk, and one that resumes with a Range
behind the point where it was cut off does not get the rest either. A range therefore costs at most two chunks of
reading more than its bytes. XXH3 and not SHA-256, because it costs a twentieth and the enemy here is the disk;
SHA-256 is checked by scrub, by the client's Content-Digest and by the cipher itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from xxhash import xxh3_128

from gauzian.database.downloads import ChunkRow
from gauzian.errors import ObjectDamaged
from gauzian.stores.base import ObjectMissing, ObjectStore, Passing

log = logging.getLogger(__name__)

# How long a download waits for its objects to close before it leaves them to themselves.
CLOSE_SECONDS = 5.0
# The next object is opened when so little of the opened ones is still to be sent: 30 ms of a gigabit line, more than a
# store takes to its first byte. Earlier it would only hold a connection and a buffer, for a slow reader for minutes.
LEAD_BYTES = 4 * 1024 * 1024
# So much of the end of a chunk always comes as pieces, of which the last one waits for the comparison.
HELD_BACK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Wanted:
    """Bytes `start` to `stop` of one chunk are to be sent."""

    row: ChunkRow
    start: int
    stop: int


class Pages(Protocol):
    """What is to be sent, a bounded number of chunks at a time."""

    async def next_page(self) -> Sequence[Wanted]:
        """Empty: that was all."""
        ...


class _Damaged(Exception):
    """What exactly is wrong with an object: for the log, never for the answer."""


class ReadAhead:
    """Reads chunks out of a store. `opened` is the number of objects open at the moment, in all downloads."""

    def __init__(self, store: ObjectStore, *, ahead: int) -> None:
        self._store = store
        self._ahead = ahead
        self._owners: set[asyncio.Task[None]] = set()

    @property
    def opened(self) -> int:
        return len(self._owners)

    async def pieces(
        self, pages: Pages, send_now: Callable[[memoryview], int] | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The wanted bytes, in order. Close it (`aclosing`) however you leave.

        `send_now`: takes bytes between two pieces, as many of the front of what it is given as it says. They are not
        among the pieces then.

        Raises ObjectDamaged for a chunk that is missing, short, long or altered, StoreDown, and what `pages` raises.
        """
        line = _Line(pages, self._open, ahead=self._ahead)
        try:
            await line.fill()
            while line.opened:
                first = line.opened[0]
                async with aclosing(first.pieces()) as pieces:
                    async for piece in pieces:
                        yield piece
                        del piece  # or it would lie here while the next one is read, and so wherever one passes by
                        if line.until_short <= 0:
                            await line.fill()
                        while (
                            send_now
                            and first.may_pass
                            and (rest := await first.pass_on(send_now, line.until_short)) is not None
                        ):
                            while rest:
                                yield rest.pop(0)
                            await line.fill()
                await _close([line.opened[0]])
                line.opened.popleft()
                await line.fill()
        finally:
            await _close(line.opened)

    def _open(self, wanted: Wanted) -> _Opened:
        opened = _Opened(self._store, wanted)
        self._owners.add(opened.owner)
        opened.owner.add_done_callback(self._owners.discard)
        return opened


class _Line:
    """The opened objects of one download, in order: the one that is being sent and those ahead of it."""

    def __init__(self, pages: Pages, open: Callable[[Wanted], _Opened], *, ahead: int) -> None:
        self.opened: deque[_Opened] = deque()
        self._pages = pages
        self._open = open
        self._ahead = ahead
        self._rest: deque[Wanted] = deque()  # of the last page
        self._ended = False

    @property
    def until_short(self) -> int:
        """How many bytes may be sent before it is time to open the next object; 0 or less: it is."""
        left = sum(one.left for one in self.opened)
        if self._ended or len(self.opened) > self._ahead:
            return max(1, left)
        return left - LEAD_BYTES + 1 if self.opened else 0

    async def fill(self) -> None:
        while self.until_short <= 0:
            if not self._rest:
                self._rest.extend(await self._pages.next_page())
                self._ended = not self._rest
                continue
            wanted = self._rest.popleft()
            self.opened.append(self._open(wanted))


class _Opened:
    """One object, from the moment somebody began to open it until it is closed."""

    __slots__ = ("_checksum", "_passing", "_pieces", "_position", "_released", "_wanted", "left", "owner")

    def __init__(self, store: ObjectStore, wanted: Wanted) -> None:
        loop = asyncio.get_running_loop()
        self._wanted = wanted
        self.left = wanted.stop - wanted.start  # still to be given out
        self._position = 0
        self._checksum = xxh3_128()
        self._passing: Passing | None = None  # once the first piece is out: behind it none waits for another
        self._pieces: asyncio.Future[AsyncIterator[bytes]] = loop.create_future()
        self._released: asyncio.Future[None] = loop.create_future()
        self.owner = loop.create_task(self._own(store))

    async def _own(self, store: ObjectStore) -> None:
        try:
            async with store.get(self._wanted.row.object_key) as pieces:
                if not self._pieces.done():
                    self._pieces.set_result(pieces)
                await self._released
        except Exception as error:
            if self._pieces.done():
                log.warning("closing an object failed", exc_info=error)
            else:
                self._pieces.set_exception(error)
                self._pieces.exception()  # seen: a download that ends before its turn comes never looks at it

    def let_go(self) -> None:
        """Let the owner close the object. Only the opening is cancelled, never the closing."""
        if not self._pieces.done() or self._pieces.cancelled():
            self.owner.cancel()
        elif not self._released.done():
            self._released.set_result(None)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The wanted bytes of this chunk, the last of them only when the whole chunk has been found to be right."""
        row, start, stop = self._wanted.row, self._wanted.start, self._wanted.stop
        held = b""  # the first piece until a second has come, the last one until all has been compared
        try:
            arriving = await self._pieces
        except ObjectMissing as error:
            raise ObjectDamaged from error
        passing = arriving if isinstance(arriving, Passing) else None
        async for piece in arriving:
            begin = self._position
            position = self._count(piece)
            if begin < stop:  # the rest is only read in order to compare
                if held:
                    self.left -= len(held)
                    yield held
                    held = b""
                if begin < start or position > stop:
                    piece = piece[max(0, start - begin) : stop - begin]
                if position >= stop or begin == 0:
                    held = piece
                elif piece:
                    self.left -= len(piece)
                    self._passing = passing
                    yield piece
            del piece
        if self._position != row.size:
            raise ObjectDamaged from _Damaged(f"{row.object_key} has {self._position} bytes, its row says {row.size}")
        if self._checksum.digest() != row.xxh3:
            raise ObjectDamaged from _Damaged(f"{row.object_key} does not match its checksum")
        if held:
            self.left -= len(held)
            yield held

    @property
    def may_pass(self) -> bool:
        return self._passing is not None

    async def pass_on(self, send_now: Callable[[memoryview], int], most: int) -> list[bytes] | None:
        """The middle of the wanted bytes, behind a piece, without becoming pieces: as Passing says. Never so much that
        nothing would be held back."""
        room = self._wanted.stop - HELD_BACK_BYTES - self._position
        if self._passing is None or room <= 0:
            return None

        def sink(view: memoryview) -> int:
            self._count(view)
            self.left -= len(view)
            return send_now(view)

        return await self._passing.pass_on(sink, min(most, room))

    def _count(self, piece: bytes | memoryview) -> int:
        """The position behind it."""
        self._checksum.update(piece)
        self._position += len(piece)
        return self._position


async def _close(opened: Iterable[_Opened]) -> None:
    """Let go of all of them first and wait then: a cancellation that comes while we wait leaves nothing open."""
    owners = {one.owner for one in opened if not one.owner.done()}
    for one in opened:
        one.let_go()
    if owners:
        _, late = await asyncio.wait(owners, timeout=CLOSE_SECONDS)
        for owner in late:
            log.warning("an object takes long to close")
            owner.cancel()
