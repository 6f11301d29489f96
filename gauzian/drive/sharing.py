"""Share, accept, reject, propagate, revoke, who sees this.

Only an owner shares, and only what is theirs: each folder and file that a request names is looked at, not just the
first. What is shared is an invitation until it is accepted. Whose thing it is comes before anything else that may be
wrong.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import anyio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gauzian.access import Act, Standing, Thing, require
from gauzian.accounts.identity import Identity
from gauzian.database import invitations, shares
from gauzian.database.pool import Connection, Database
from gauzian.database.shares import Grant, Stand, require_stand
from gauzian.drive import naming
from gauzian.drive.keys import given_keys, given_user_keys
from gauzian.errors import BadField, ListsBusy, NotYours, ShareNotThere, UserNotThere
from gauzian.web import fields

# A folder with all that lies below it: 684 bytes of key and some 80 of JSON for each, so 5000 things; twice what
# clients were allowed so far. Read, decoded and parsed it is some 20 MiB for a moment: so few are in memory at once.
MOST_BATCH_JSON = 4 * 1024 * 1024
_BATCHES_AT_ONCE = 2
# One key for each member.
MOST_MEMBERS_JSON = 512 * 1024
_MOST_WAIT_SECONDS = 10.0


class Sharing:
    def __init__(self, *, identity: Identity, database: Database) -> None:
        self._identity = identity
        self._database = database
        self._batches = anyio.CapacityLimiter(_BATCHES_AT_ONCE)

    async def share_file(self, request: Request) -> Response:
        return await self._share(request, "file")

    async def share_folder(self, request: Request) -> Response:
        """That folder only, without what lies in it."""
        return await self._share(request, "folder")

    async def _share(self, request: Request, thing: Thing) -> Response:
        caller = await self._identity.require(request.scope)
        given = await fields.json_object(request.scope, request.receive)
        id = naming.given_or_path_id(request.scope, given, thing)
        async with self._database.transaction() as conn:
            await require_stand(conn, Act.SHARE, thing, user_id=caller.user_id, id=id, lock="SHARE")
            contact = await _contact(conn, given, caller.user_id)
            one = Grant(contact, naming.wrapped_key(given, thing), naming.level(given))
            await shares.grant(conn, thing, id=id, grants=[one])
            await shares.require_few_members(conn, thing, ids=[id])
        return JSONResponse(f"{thing.capitalize()} shared")

    async def share_folder_batch(self, request: Request) -> Response:
        """A folder with what lies below it. What the caller sees but does not own is left out, as clients expect that
        name all they see; what they do not even see makes the whole request fail.
        """
        caller = await self._identity.require(request.scope)
        async with self._batch():
            given = await fields.json_object(request.scope, request.receive, most_bytes=MOST_BATCH_JSON)
            await self._share_batch(given, caller.user_id)
        return JSONResponse("Folder shared")

    async def _share_batch(self, given: fields.Values, user_id: UUID) -> None:
        top = naming.given_id(given, "folder")

        async def work(conn: Connection) -> None:
            await require_stand(conn, Act.SHARE, "folder", user_id=user_id, id=top)
            contact = await _contact(conn, given, user_id)
            folders, files = given_keys(given, "folder"), given_keys(given, "file")
            level = naming.level(given)
            own_folders = await _own(conn, "folder", user_id, folders)
            own_files = await _own(conn, "file", user_id, files)
            fresh = await shares.grant_many(conn, "folder", user_id=contact, keys=own_folders, level=level)
            # The folder that is shared stands alone, whether or not the other has the one above it.
            below = sorted(fresh - {top})
            await shares.place_like(conn, "folder", ids=below, user_id=contact, like=user_id)
            fresh = await shares.grant_many(conn, "file", user_id=contact, keys=own_files, level=level)
            await shares.place_like(conn, "file", ids=sorted(fresh), user_id=contact, like=user_id)
            await shares.require_few_members(conn, "folder", ids=list(own_folders))
            await shares.require_few_members(conn, "file", ids=list(own_files))

        await self._database.settled(work)

    @asynccontextmanager
    async def _batch(self) -> AsyncIterator[None]:
        """A turn for a large body. Waited for briefly: clients do not try again."""
        with anyio.move_on_after(_MOST_WAIT_SECONDS) as waiting:
            await self._batches.acquire()
        if waiting.cancelled_caught:
            raise ListsBusy
        try:
            yield
        finally:
            self._batches.release()

    async def accept_file(self, request: Request) -> Response:
        return await self._answer(request, "file", Act.ACCEPT)

    async def accept_folder(self, request: Request) -> Response:
        return await self._answer(request, "folder", Act.ACCEPT)

    async def reject_file(self, request: Request) -> Response:
        return await self._answer(request, "file", Act.REJECT)

    async def reject_folder(self, request: Request) -> Response:
        return await self._answer(request, "folder", Act.REJECT)

    async def _answer(self, request: Request, thing: Thing, act: Act) -> Response:
        caller = await self._identity.require(request.scope)
        id = fields.path_uuid(request.scope, f"{thing}_id")

        async def work(conn: Connection) -> None:
            await require_stand(conn, act, thing, user_id=caller.user_id, id=id, lock="SHARE")
            if act is Act.ACCEPT and thing == "file":
                await invitations.accept_file(conn, user_id=caller.user_id, file_id=id)
            elif act is Act.ACCEPT:
                await invitations.accept_folder(conn, user_id=caller.user_id, folder_id=id)
            elif thing == "file":
                await invitations.leave_file(conn, user_id=caller.user_id, file_id=id)
            else:
                await invitations.leave_folder(conn, user_id=caller.user_id, folder_id=id)

        await self._database.settled(work)
        return JSONResponse(f"{thing.capitalize()} {act}ed")

    async def propagate_file(self, request: Request) -> Response:
        return await self._propagate(request, "file")

    async def propagate_folder(self, request: Request) -> Response:
        return await self._propagate(request, "folder")

    async def _propagate(self, request: Request, thing: Thing) -> Response:
        """What is new in a shared folder, to its members: clients send it right after they have made it."""
        caller = await self._identity.require(request.scope)
        given = await fields.json_object(request.scope, request.receive, most_bytes=MOST_MEMBERS_JSON)
        id = naming.given_id(given, thing)

        async def work(conn: Connection) -> None:
            stand = await require_stand(conn, Act.SHARE, thing, user_id=caller.user_id, id=id, lock="SHARE")
            grants = [one for one in given_user_keys(given) if one.user_id != caller.user_id]
            await _require_users(conn, [one.user_id for one in grants])
            await _grant_where_it_lies(conn, thing, stand, grants)
            await shares.require_few_members(conn, thing, ids=[id])

        await self._database.settled(work)
        return JSONResponse("Access propagated")

    async def revoke(self, request: Request) -> Response:
        caller = await self._identity.require(request.scope)
        given = await fields.json_object(request.scope, request.receive)
        thing = given.get("item_type")
        if thing not in ("file", "folder"):
            raise BadField("item_type", "must be file or folder")
        contact = naming.contact(given)
        return await self._revoke(thing, fields.uuid(given, "item_id"), contact, caller.user_id)

    async def unshare_file(self, request: Request) -> Response:
        return await self._unshare(request, "file")

    async def unshare_folder(self, request: Request) -> Response:
        return await self._unshare(request, "folder")

    async def _unshare(self, request: Request, thing: Thing) -> Response:
        caller = await self._identity.require(request.scope)
        id = fields.path_uuid(request.scope, f"{thing}_id")
        return await self._revoke(thing, id, fields.path_uuid(request.scope, "user_id"), caller.user_id)

    async def _revoke(self, thing: Thing, id: UUID, contact: UUID, user_id: UUID) -> Response:
        async def work(conn: Connection) -> None:
            await require_stand(conn, Act.SHARE, thing, user_id=user_id, id=id, lock="SHARE")
            if contact == user_id:
                raise BadField("contact_id", "must be somebody else")
            if thing == "file":
                had = await invitations.leave_file(conn, user_id=contact, file_id=id)
            else:
                had = await invitations.revoke_folder(conn, owner_id=user_id, folder_id=id, user_id=contact)
            if not had:
                raise ShareNotThere

        await self._database.settled(work)
        return JSONResponse("Access revoked")

    async def file_members(self, request: Request) -> Response:
        return JSONResponse({"shared_users": await self._members(request, "file", "permission")})

    async def folder_members(self, request: Request) -> Response:
        return JSONResponse({"shared_users": await self._members(request, "folder", "permission")})

    async def shared_users(self, request: Request) -> Response:
        return JSONResponse({"shared_users": await self._members(request, "folder", "access_level")})

    async def _members(self, request: Request, thing: Thing, level_name: str) -> list[dict[str, str]]:
        """The others. The root is nobody's but one's own; who is invited is the owner's to know."""
        caller = await self._identity.require(request.scope)
        if thing == "folder":
            id = fields.path_folder(request.scope, "folder_id")
            if id is None:
                return []
        else:
            id = fields.path_uuid(request.scope, "file_id")
        async with self._database.connection() as conn:
            stand = await require_stand(conn, Act.SEE_MEMBERS, thing, user_id=caller.user_id, id=id)
            invited_too = stand.standing is Standing.OWNER
            members = await shares.list_members(conn, thing, id=id, but=caller.user_id, invited_too=invited_too)
        return [
            {
                "user_id": str(one.user_id),
                "username": one.username,
                "public_key": one.public_key,
                level_name: one.access_level,
            }
            for one in members
        ]


async def _contact(conn: Connection, given: fields.Values, user_id: UUID) -> UUID:
    contact = naming.contact(given)
    if contact == user_id:
        raise BadField("contact_id", "must be somebody else")
    await _require_users(conn, [contact])
    return contact


async def _require_users(conn: Connection, ids: Sequence[UUID]) -> None:
    if set(ids) - await shares.find_users(conn, ids=ids):
        raise UserNotThere


async def _own(conn: Connection, thing: Thing, user_id: UUID, keys: Mapping[UUID, str]) -> dict[UUID, str]:
    """Those of `keys` whose thing is the user's. Raises if the user cannot even see one of them."""
    stands = await shares.find_stands(conn, thing, user_id=user_id, ids=list(keys), lock="SHARE")
    for id in keys:
        require(Act.READ_INFO, stands[id].standing if id in stands else Standing.ABSENT, thing)
        if stands[id].standing is Standing.TRASHED:
            raise NotYours
    return {id: key for id, key in keys.items() if stands[id].standing is Standing.OWNER}


async def _grant_where_it_lies(conn: Connection, thing: Thing, stand: Stand, grants: Sequence[Grant]) -> None:
    if stand.place is None:
        await shares.grant(conn, thing, id=stand.id, grants=grants)
    else:
        await shares.grant_in_place(conn, thing, id=stand.id, place=stand.place, grants=grants)
