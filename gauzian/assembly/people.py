"""What `python app.py users` does: list, give space, switch off and on, delete. It may run beside the service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from gauzian.assembly.parts import migrated_database, open_parts
from gauzian.database import people
from gauzian.database.people import Person
from gauzian.database.pool import Connection, Database, open_database
from gauzian.errors import StoreDown, UserNotThere
from gauzian.settings import Settings
from gauzian.stores.base import ObjectStore

_PAGE = 500
_BATCH = 500
# For a transaction with millions of rows.
_MOST_SECONDS = 6 * 3600.0


class People:
    """`store` is only asked for when somebody is deleted."""

    def __init__(self, database: Database, store: ObjectStore | None = None) -> None:
        self._database = database
        self._store = store

    async def list(self) -> AsyncIterator[Person]:
        after = ""
        while True:
            async with self._database.connection() as conn:
                page = await people.list_page(conn, after=after, most=_PAGE)
            for person in page:
                yield person
            if len(page) < _PAGE:
                return
            after = page[-1].email

    async def find(self, email: str) -> Person:
        async with self._database.connection() as conn:
            person = await people.find_person(conn, email=email.strip())
        if person is None:
            raise UserNotThere(f"there is no user {email.strip()}")
        return person

    async def set_quota(self, email: str, quota_bytes: int | None) -> Person:
        person = await self.find(email)
        async with self._database.connection() as conn:
            await people.set_quota(conn, user_id=person.id, quota_bytes=quota_bytes)
        return await self.find(email)

    async def set_active(self, email: str, *, is_active: bool) -> Person:
        person = await self.find(email)
        async with self._database.transaction() as conn:
            await people.set_active(conn, user_id=person.id, is_active=is_active)
        return await self.find(email)

    async def delete(self, email: str) -> tuple[Person, bool]:
        """Rows first, in one transaction; then objects. False: not all of those could be removed, which leaves them to
        the sweep. Raises StoreDown before anything has happened; whatever fails later leaves a user who is switched off
        and can be deleted once more.
        """
        assert self._store is not None  # noqa: S101 - opened_people has opened it
        await self._store.check()
        person = await self.find(email)
        # Out first: requests of theirs lock the same rows in another order, and would go on coming.
        await self.set_active(email, is_active=False)

        async def forget(conn: Connection) -> Sequence[UUID]:
            return await people.forget_person(conn, user_id=person.id)

        files = await self._database.settled(forget, most_seconds=_MOST_SECONDS)
        return person, await self._remove_objects(self._store, files)

    async def _remove_objects(self, store: ObjectStore, files: Sequence[UUID]) -> bool:
        is_clean = True
        try:
            for file_id in files:
                keys = [item.key async for item in store.list(f"{file_id}.")]
                for start in range(0, len(keys), _BATCH):
                    batch = keys[start : start + _BATCH]
                    is_clean &= await store.delete_quietly(batch) == len(batch)
        except StoreDown:
            return False
        return is_clean


@asynccontextmanager
async def opened_people(settings: Settings, *, migrations: Path, with_store: bool = False) -> AsyncIterator[People]:
    """On connections of its own; an embedded PostgreSQL is joined, or started if no service runs."""
    if with_store:
        async with open_parts(settings, migrations=migrations, background=False) as parts:
            yield People(parts.database, parts.store)
        return
    async with (
        migrated_database(settings, migrations=migrations) as (url, _),
        open_database(url, most_connections=1, wait_seconds=settings.database_wait_seconds) as database,
    ):
        yield People(database)


async def manage(
    settings: Settings,
    *,
    migrations: Path,
    action: str,
    email: str = "",
    quota_bytes: int | None = None,
    is_meant: bool = False,
) -> int:
    """One command; prints what it has done. Exit codes as everywhere."""
    async with opened_people(settings, migrations=migrations, with_store=action == "delete" and is_meant) as them:
        if action == "list":
            print(line("e-mail", "username", "state", "bytes used", "quota", "files"))
            async for person in them.list():
                print(told(person))
        elif action == "quota":
            print(told(await them.set_quota(email, quota_bytes)))
        elif action in ("activate", "deactivate"):
            print(told(await them.set_active(email, is_active=action == "activate")))
        elif not is_meant:
            print(told(await them.find(email)))
            print("nothing was deleted: --yes deletes this user, all files and folders and their objects, for good")
            return 2
        else:
            person, is_clean = await them.delete(email)
            print(f"deleted: {told(person)}")
            if not is_clean:
                print("some objects could not be removed: the next sweep does (`python app.py reap`, after a day)")
    return 0


def told(person: Person) -> str:
    quota = "default" if person.quota_bytes is None else str(person.quota_bytes)
    state = "active" if person.is_active else "inactive"
    return line(person.email, person.username, state, str(person.used_bytes), quota, str(person.files))


def line(*words: str) -> str:
    """With tabs between: names hold neither those nor line ends, so it can be cut and sorted."""
    return "\t".join(words)
