"""Files and folders: create, rename, move."""

from __future__ import annotations

from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gauzian.access import Act, Thing
from gauzian.accounts.identity import Identity
from gauzian.database import tree
from gauzian.database.pool import Connection, Database
from gauzian.database.shares import require_stand
from gauzian.drive.naming import given_id, given_or_path_id
from gauzian.errors import BadField, FolderCycle
from gauzian.web import fields


class Tree:
    """The JSON commands that change the tree. Each thing is checked and held in the transaction that changes it."""

    def __init__(self, *, identity: Identity, database: Database) -> None:
        self._identity = identity
        self._database = database

    async def create_folder(self, request: Request) -> Response:
        caller = await self._identity.require(request.scope)
        given = await fields.json_object(request.scope, request.receive)
        metadata = fields.text(given, "encrypted_metadata", most=fields.MOST_METADATA)
        key = fields.text(given, "encrypted_folder_key", most=fields.MOST_KEY)
        parent = fields.folder(given, "parent_folder_id")
        async with self._database.transaction() as conn:
            if parent is not None:
                await require_stand(conn, Act.ADD, "folder", user_id=caller.user_id, id=parent, lock="SHARE")
            folder_id = await tree.create_folder(
                conn,
                owner_id=caller.user_id,
                parent_id=parent,
                encrypted_metadata=metadata,
                encrypted_folder_key=key,
            )
        return JSONResponse({"folder_id": str(folder_id)})

    async def rename_file(self, request: Request) -> Response:
        return await self._rename(request, "file")

    async def rename_folder(self, request: Request) -> Response:
        return await self._rename(request, "folder")

    async def _rename(self, request: Request, thing: Thing) -> Response:
        caller = await self._identity.require(request.scope)
        given = await fields.json_object(request.scope, request.receive)
        id = given_or_path_id(request.scope, given, thing)
        async with self._database.transaction() as conn:
            await require_stand(conn, Act.RENAME, thing, user_id=caller.user_id, id=id, lock="UPDATE")
            # Only now: whose thing it is comes before what is wrong with the rest of the request.
            name = "new_encrypted_metadata" if "new_encrypted_metadata" in given else "encrypted_metadata"
            metadata = fields.text(given, name, most=fields.MOST_METADATA)
            if not metadata.strip():
                raise BadField(name, "must not be blank")
            await tree.rename(conn, thing, id=id, encrypted_metadata=metadata)
        return JSONResponse(f"{thing.capitalize()} renamed")

    async def move_file(self, request: Request) -> Response:
        """POST: `file_id` and `new_parent_folder_id`, in which the root has several names."""
        caller = await self._identity.require(request.scope)
        given = await fields.json_object(request.scope, request.receive)
        target = fields.folder(given, "new_parent_folder_id")
        return await self._move_file(given_id(given, "file"), target, caller.user_id)

    async def move_file_to(self, request: Request) -> Response:
        """PATCH: the file in the path and `target_folder_id`, null or absent for the root."""
        caller = await self._identity.require(request.scope)
        given = await fields.json_object(request.scope, request.receive)
        id = given_or_path_id(request.scope, given, "file")
        return await self._move_file(id, _target(given), caller.user_id)

    async def move_folder(self, request: Request) -> Response:
        caller = await self._identity.require(request.scope)
        given = await fields.json_object(request.scope, request.receive)
        target = fields.folder(given, "new_parent_folder_id")
        return await self._move_folder(given_id(given, "folder"), target, caller.user_id)

    async def move_folder_to(self, request: Request) -> Response:
        caller = await self._identity.require(request.scope)
        given = await fields.json_object(request.scope, request.receive)
        id = given_or_path_id(request.scope, given, "folder")
        return await self._move_folder(id, _target(given), caller.user_id)

    async def _move_file(self, file_id: UUID, target: UUID | None, user_id: UUID) -> Response:
        async def work(conn: Connection) -> None:
            if target is not None:
                await require_stand(conn, Act.ADD, "folder", user_id=user_id, id=target, lock="SHARE")
            stand = await require_stand(conn, Act.MOVE, "file", user_id=user_id, id=file_id, lock="SHARE")
            await tree.move_file(conn, user_id=user_id, file_id=file_id, old=stand.place, new=target)

        await self._database.settled(work)
        return JSONResponse("File moved")

    async def _move_folder(self, folder_id: UUID, target: UUID | None, user_id: UUID) -> Response:
        async def work(conn: Connection) -> None:
            await require_stand(conn, Act.MOVE, "folder", user_id=user_id, id=folder_id, lock="SHARE")
            if target is not None:
                await require_stand(conn, Act.ADD, "folder", user_id=user_id, id=target, lock="SHARE")
            if not await tree.move_folder(conn, user_id=user_id, folder_id=folder_id, parent_id=target):
                raise FolderCycle

        await self._database.settled(work)
        return JSONResponse("Folder moved")


def _target(given: fields.Values) -> UUID | None:
    """Clients of either generation may ask: null, absent and every name of the root are the root."""
    return None if given.get("target_folder_id") is None else fields.folder(given, "target_folder_id")
