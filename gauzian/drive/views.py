"""What a user sees: a folder, the root, the trash, the invitations, everything; and the numbers beside them.

A list is written page by page as it is read, so that a folder of a hundred thousand files costs what a page costs. A
page is held while its client reads it, so only so many lists are on their way at once; the others wait their turn.

A folder that is unknown or not (any more) the caller's is an empty one, not an error: the page of existing clients goes
back to the root on an empty path, and stays where it is for ever on an error.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import anyio
from starlette.requests import Request
from starlette.responses import Response

from gauzian.access import Act
from gauzian.accounts.identity import Identity
from gauzian.database import invitations, views
from gauzian.database.pool import Database
from gauzian.database.shares import require_stand
from gauzian.database.views import Head, Item, Kind, Where
from gauzian.errors import InvalidToken, ListsBusy, Receive, Scope, Send
from gauzian.metrics import Metrics
from gauzian.web import fields
from gauzian.web.outlet import Headers, Outlet, send_at_once

HEADERS: Headers = [(b"content-type", b"application/json"), (b"cache-control", b"private, no-store")]

# A page and its bytes are some 5 MiB at most, for names as long as they may be, and 60 KiB for a folder of fifty files.
MOST_LISTS = 6
MOST_LISTS_PER_USER = 2  # or one who does not read would keep everybody from listing
_MOST_WAIT_SECONDS = 10.0
# A list is small beside a file: who takes nothing of it for so long is gone.
MOST_STALL_SECONDS = 60.0

_TRASH = ("corbeille",)
_INVITATIONS = ("shared_with_me", "shared-with-me")


class Turns:
    """At most MOST_LISTS answers of pages at once, and a share of them per user; ListsBusy for who waited too long."""

    def __init__(self) -> None:
        self._all = anyio.CapacityLimiter(MOST_LISTS)
        self._shares: dict[UUID, anyio.CapacityLimiter] = {}  # of those who list or wait to

    @asynccontextmanager
    async def one(self, user_id: UUID) -> AsyncIterator[None]:
        share = self._shares.setdefault(user_id, anyio.CapacityLimiter(MOST_LISTS_PER_USER))
        try:
            async with AsyncExitStack() as held:
                with anyio.move_on_after(_MOST_WAIT_SECONDS) as waiting:
                    await held.enter_async_context(share)
                    await held.enter_async_context(self._all)
                if waiting.cancelled_caught:
                    raise ListsBusy
                yield
        finally:
            if not share.borrowed_tokens and not share.statistics().tasks_waiting:
                self._shares.pop(user_id, None)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a path names: a folder or the root, or one of the lists that look like folders."""

    where: Where
    folder_id: UUID | None


@dataclass(frozen=True, slots=True)
class Shape:
    """How a view wraps its lists: opening, (name of list, kind) in order, closing; all JSON."""

    opening: str
    lists: Sequence[tuple[str, Kind]]
    closing: str


class SendView:
    """The answer is one object with lists in it; subclasses say which."""

    def __init__(
        self,
        *,
        identity: Identity,
        database: Database,
        turns: Turns,
        metrics: Metrics,
        quota_bytes: int | None,
        stall_seconds: float,
    ) -> None:
        self._identity = identity
        self._database = database
        self._turns = turns
        self._count_slow = metrics.slow_clients.labels("list").inc
        self._quota_bytes = quota_bytes
        self._stall_seconds = min(stall_seconds, MOST_STALL_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = self._identity.require_token(scope)
        asked = self.asked(scope)
        head = await self._head(token, asked)
        shape = self.shape(asked, head)
        if scope["method"] == "HEAD":
            return await send_at_once(send, 200, HEADERS)
        async with (
            self._turns.one(head.user_id),
            Outlet(receive, send, stall_seconds=self._stall_seconds, count_slow=self._count_slow) as outlet,
            aclosing(self._pages(shape, asked, head)) as pages,
        ):
            # The first page before the first byte: what goes wrong by then is an error and not half an answer.
            piece, is_last = await anext(pages)
            length = [(b"content-length", str(len(piece)).encode())] if is_last else []
            await outlet.start(200, HEADERS + length)
            while not is_last:
                await outlet.write(piece)
                piece, is_last = await anext(pages)
            await outlet.finish(piece)
        return None

    def asked(self, scope: Scope) -> Asked:
        raise NotImplementedError

    def shape(self, asked: Asked, head: Head) -> Shape:
        raise NotImplementedError

    async def _head(self, token: bytes, asked: Asked) -> Head:
        return await self._find_head(token, asked)

    async def _find_head(self, token: bytes, asked: Asked) -> Head:
        async with self._database.connection() as conn:
            head = await views.find_head(
                conn,
                token_sha256=token,
                folder_id=asked.folder_id,
                quota_bytes=self._quota_bytes,
                with_trash=asked.where == "trash",
            )
        if head is None:
            raise InvalidToken
        return head

    async def _pages(self, shape: Shape, asked: Asked, head: Head) -> AsyncGenerator[tuple[bytes, bool], None]:
        """The answer in pieces of a page, and whether it is the last one."""
        text = shape.opening
        for name, kind in shape.lists:
            text += f'"{name}":[' if name else "["
            after: Item | None = None
            is_last = not head.is_there
            while not is_last:
                page = await self._page(kind, asked, head, after)
                is_last = views.is_last(page)
                text += ("," if after and page else "") + ",".join(item.text for item in page)
                after = page[-1] if page else after
                del page  # not held while a slow client takes its time
                if not is_last:
                    yield text.encode(), False
                    text = ""
            text += "]," if (name, kind) != shape.lists[-1] else "]"
        yield (text + shape.closing).encode(), True

    async def _page(self, kind: Kind, asked: Asked, head: Head, after: Item | None) -> list[Item]:
        async with self._database.connection() as conn:
            return await views.list_items(
                conn, kind, asked.where, user_id=head.user_id, folder_id=asked.folder_id, after=after
            )


class SendFolderView(SendView):
    """`GET /drive/get_file_folder/{parent_id}`: folders and files, the path to here, the numbers."""

    with_user = False

    def asked(self, scope: Scope) -> Asked:
        if "parent_id" not in scope["path_params"]:
            return Asked("place", None)
        given = scope["path_params"]["parent_id"].strip().lower()
        if given in _TRASH:
            return Asked("trash", None)
        if given in _INVITATIONS:
            return Asked("invitations", None)
        return Asked("place", fields.path_folder(scope, "parent_id"))

    def shape(self, asked: Asked, head: Head) -> Shape:
        closing = f'}},"full_path":{head.full_path},"drive_info":{head.drive_info}'
        if asked.where == "trash":
            closing += f',"corbeille_info":{head.trash_info}'
        if self.with_user:
            closing += f',"user_info":{head.user_info}'
        return Shape('{"files_and_folders":{', [("folders", "folder"), ("files", "file")], closing + "}")


class SendWholeView(SendFolderView):
    """`GET /drive/get_all_drive_info/{parent_id}`: the same with who is asking, for clients of the first generation.

    They know no invitations and ask for this when their page is opened: what is pending is accepted here, or
    nothing that is shared would ever appear to them.
    """

    with_user = True

    async def _head(self, token: bytes, asked: Asked) -> Head:
        head = await self._find_head(token, asked)
        async with self._database.connection() as conn:
            if not await invitations.has_invitations(conn, user_id=head.user_id):
                return head
        await self._database.settled(lambda conn: invitations.accept_all(conn, user_id=head.user_id))
        return await self._find_head(token, asked)


class SendFolders(SendView):
    """`GET /drive/get_folder/{folder_id}`: the folders in a folder, for the tree beside the page. Errors are errors."""

    def asked(self, scope: Scope) -> Asked:
        return Asked("place", fields.path_folder(scope, "folder_id"))

    async def _head(self, token: bytes, asked: Asked) -> Head:
        head = await self._find_head(token, asked)
        if not head.is_there and asked.folder_id is not None:
            async with self._database.connection() as conn:
                await require_stand(conn, Act.LIST, "folder", user_id=head.user_id, id=asked.folder_id)
        return head

    def shape(self, asked: Asked, head: Head) -> Shape:
        return Shape("{", [("folder_contents", "folder")], "}")


class SendFiles(SendView):
    """`GET /drive/files`: all files, wherever they lie."""

    def asked(self, scope: Scope) -> Asked:
        return Asked("all", None)

    def shape(self, asked: Asked, head: Head) -> Shape:
        return Shape("", [("", "file")], "")


class Numbers:
    """`GET /drive/get_drive_info`."""

    def __init__(self, *, identity: Identity, database: Database, quota_bytes: int | None) -> None:
        self._identity = identity
        self._database = database
        self._quota_bytes = quota_bytes

    async def drive_info(self, request: Request) -> Response:
        token = self._identity.require_token(request.scope)
        async with self._database.connection() as conn:
            head = await views.find_head(conn, token_sha256=token, folder_id=None, quota_bytes=self._quota_bytes)
        if head is None:
            raise InvalidToken
        return Response(head.drive_info, media_type="application/json", headers={"cache-control": "private, no-store"})
