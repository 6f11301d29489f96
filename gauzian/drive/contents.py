"""Everything below a folder with all that a client needs to make a ZIP file of it: names, keys, chunks, and a path.

Names are encrypted, so the server cannot say paths that people would recognise; what it says keeps files of one name
apart: `""` for what lies in the folder itself, else the id of the folder it lies in and a slash.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

from gauzian.access import Act
from gauzian.accounts.identity import Identity
from gauzian.database import contents
from gauzian.database.contents import Listed, ListedChunk
from gauzian.database.pool import Database
from gauzian.database.shares import require_stand
from gauzian.drive.views import HEADERS, MOST_STALL_SECONDS, Turns
from gauzian.errors import Receive, Scope, Send
from gauzian.metrics import Metrics
from gauzian.web import fields
from gauzian.web.outlet import Outlet, send_at_once


class SendContents:
    """`GET /drive/folder_contents/{folder_id}`."""

    def __init__(
        self, *, identity: Identity, database: Database, turns: Turns, metrics: Metrics, stall_seconds: float
    ) -> None:
        self._identity = identity
        self._database = database
        self._turns = turns
        self._count_slow = metrics.slow_clients.labels("list").inc
        self._stall_seconds = min(stall_seconds, MOST_STALL_SECONDS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = await self._identity.require(scope)
        folder_id = fields.path_folder(scope, "folder_id")
        if folder_id is not None:
            async with self._database.connection() as conn:
                await require_stand(conn, Act.LIST, "folder", user_id=caller.user_id, id=folder_id)
        if scope["method"] == "HEAD":
            return await send_at_once(send, 200, HEADERS)
        async with (
            self._turns.one(caller.user_id),
            Outlet(receive, send, stall_seconds=self._stall_seconds, count_slow=self._count_slow) as outlet,
            aclosing(self._pieces(caller.user_id, folder_id)) as pieces,
        ):
            opening = "null" if folder_id is None else f'"{folder_id}"'
            first = await anext(pieces)
            await outlet.start(200, HEADERS)
            await outlet.write(f'{{"folder_id":{opening},"contents":['.encode())
            await outlet.write(first)
            async for piece in pieces:
                await outlet.write(piece)
            await outlet.finish(b"]}")
        return None

    async def _pieces(self, user_id: UUID, folder_id: UUID | None) -> AsyncGenerator[bytes, None]:
        """The items and the commas between them; at least one piece, which may be white space."""
        separator = " "
        after: UUID | None = None
        while True:
            async with self._database.connection() as conn:
                folders = await contents.list_folders(conn, user_id=user_id, folder_id=folder_id, after=after)
            if folders:
                yield (separator + ",".join(folder.text for folder in folders)).encode()
                separator, after = ",", folders[-1].id
            if not folders or folders[-1].is_last:
                break
        after = None
        while True:
            async with self._database.connection() as conn:
                files = await contents.list_files(conn, user_id=user_id, folder_id=folder_id, after=after)
            async for piece in self._with_chunks(files):
                yield (separator + piece).encode()
                separator = ""
            if not files or files[-1].is_last:
                break
            after, separator = files[-1].id, ","
        yield b" "

    async def _with_chunks(self, files: list[Listed]) -> AsyncGenerator[str, None]:
        """The files of a page, each with its list of chunks; both come in the order of the files' ids."""
        if not files:
            return
        ids = [file.id for file in files]
        number = -1  # of the file whose chunks are being written
        text = ""
        last: ListedChunk | None = None
        while True:
            after = (last.file_id, last.index) if last else None
            async with self._database.connection() as conn:
                chunks = await contents.list_chunks(conn, file_ids=ids, after=after)
            for chunk in chunks:
                separator = "" if number < 0 or ids[number] != chunk.file_id else ","
                while number < 0 or ids[number] != chunk.file_id:
                    number += 1
                    text += _opening(files, number)
                text += separator + chunk.text
                last = chunk
            if len(chunks) < contents.PAGE_CHUNKS:
                break
            yield text
            text = ""
        while number < len(files) - 1:  # files without chunks are empty ones
            number += 1
            text += _opening(files, number)
        yield text + "]}"


def _opening(files: list[Listed], number: int) -> str:
    """Ends the file before, begins this one, up to its list of chunks."""
    return ("]}," if number else "") + files[number].text[:-1] + ', "chunks":['
