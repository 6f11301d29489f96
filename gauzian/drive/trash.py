"""Delete, restore, empty.

Deleting what is one's own puts it into the trash, deleting what is shared with one is leaving it. What lies in the
trash is deleted for good by a second DELETE (the trash view of existing clients sends exactly that), by emptying the
trash, or by the reaper after TRASH_DAYS; repeating the older POST never does.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gauzian.access import Act, Standing, Thing
from gauzian.accounts.identity import Identity
from gauzian.database import chunks, invitations, trash
from gauzian.database.pool import Connection, Database
from gauzian.database.shares import require_stand
from gauzian.drive.naming import given_id, given_or_path_id
from gauzian.web import fields

RemoveObjects = Callable[[UUID], Awaitable[int]]

# How long one request goes on removing objects after its rows are gone; the reaper does the rest.
_MOST_SECONDS = 5.0


class Trash:
    def __init__(self, *, identity: Identity, database: Database, remove_objects: RemoveObjects) -> None:
        """`remove_objects`: of one file whose rows say that it is gone."""
        self._identity = identity
        self._database = database
        self._remove = remove_objects

    async def delete_file(self, request: Request) -> Response:
        """POST: repeated, it changes nothing any more."""
        return await self._delete(request, "file", for_good=False)

    async def delete_folder(self, request: Request) -> Response:
        return await self._delete(request, "folder", for_good=False)

    async def remove_file(self, request: Request) -> Response:
        """DELETE: of what lies in the trash already, for good."""
        return await self._delete(request, "file", for_good=True)

    async def remove_folder(self, request: Request) -> Response:
        return await self._delete(request, "folder", for_good=True)

    async def _delete(self, request: Request, thing: Thing, *, for_good: bool) -> Response:
        caller = await self._identity.require(request.scope)
        if for_good:
            given = await fields.optional_json_object(request.scope, request.receive)
            id = given_or_path_id(request.scope, given, thing)
        else:
            id = given_id(await fields.json_object(request.scope, request.receive), thing)
        remove = self._delete_file if thing == "file" else self._delete_folder

        async def work(conn: Connection) -> list[UUID]:
            await trash.lock_trash(conn, user_id=caller.user_id)
            return await remove(conn, caller.user_id, id, for_good=for_good)

        files = await self._database.settled(work)
        await self._remove_objects(files)
        return JSONResponse(f"{thing.capitalize()} deleted")

    async def _delete_file(self, conn: Connection, user_id: UUID, file_id: UUID, *, for_good: bool) -> list[UUID]:
        stand = await require_stand(conn, Act.DELETE, "file", user_id=user_id, id=file_id, lock="UPDATE")
        if stand.standing is Standing.TRASHED:
            return await trash.purge_file(conn, file_id=file_id) if for_good else []
        if stand.standing is not Standing.OWNER:
            await invitations.leave_file(conn, user_id=user_id, file_id=file_id)
            return []
        if stand.state == "uploading":  # nothing that could be restored
            await chunks.mark_aborted(conn, file_id=file_id)
            return [file_id]
        await trash.trash_file(conn, file_id=file_id)
        return []

    async def _delete_folder(self, conn: Connection, user_id: UUID, folder_id: UUID, *, for_good: bool) -> list[UUID]:
        stand = await require_stand(conn, Act.DELETE, "folder", user_id=user_id, id=folder_id, lock="UPDATE")
        if stand.standing is Standing.TRASHED:
            return await trash.purge_folder(conn, user_id=user_id, folder_id=folder_id) if for_good else []
        if stand.standing is not Standing.OWNER:
            await invitations.leave_folder(conn, user_id=user_id, folder_id=folder_id)
            return []
        await trash.trash_folder(conn, user_id=user_id, folder_id=folder_id)
        return []

    async def restore_file(self, request: Request) -> Response:
        caller = await self._identity.require(request.scope)
        file_id = given_id(await fields.json_object(request.scope, request.receive), "file")

        async def work(conn: Connection) -> None:
            await trash.lock_trash(conn, user_id=caller.user_id)
            await require_stand(conn, Act.RESTORE, "file", user_id=caller.user_id, id=file_id, lock="UPDATE")
            await trash.restore_file(conn, user_id=caller.user_id, file_id=file_id)

        await self._database.settled(work)
        return JSONResponse("File restored")

    async def restore_folder(self, request: Request) -> Response:
        caller = await self._identity.require(request.scope)
        folder_id = given_id(await fields.json_object(request.scope, request.receive), "folder")

        async def work(conn: Connection) -> None:
            await trash.lock_trash(conn, user_id=caller.user_id)
            await require_stand(conn, Act.RESTORE, "folder", user_id=caller.user_id, id=folder_id, lock="UPDATE")
            await trash.restore_folder(conn, user_id=caller.user_id, folder_id=folder_id)

        await self._database.settled(work)
        return JSONResponse("Folder restored")

    async def empty(self, request: Request) -> Response:
        caller = await self._identity.require(request.scope)

        async def work(conn: Connection) -> list[UUID]:
            await trash.lock_trash(conn, user_id=caller.user_id)
            return await trash.purge_all(conn, user_id=caller.user_id)

        files = await self._database.settled(work)
        await self._remove_objects(files)
        return JSONResponse("Trash emptied")

    async def _remove_objects(self, files: Sequence[UUID]) -> None:
        """Their rows say already that they are gone: whatever is interrupted here the reaper takes up."""
        until = time.monotonic() + _MOST_SECONDS
        for file_id in files:
            if time.monotonic() >= until:
                return
            await self._remove(file_id)
