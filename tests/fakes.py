"""Stores that bring trouble, each named for it; around a real store, so that everything else is as in production."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio

from gauzian.errors import StoreDown, StoreFull
from gauzian.stores.base import ListedObject, ObjectStore, StoredObject


class AroundStore:
    """Passes everything on."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner

    async def put(
        self, key: str, pieces: AsyncIterable[bytes], *, size: int | None, sha256: bytes | None = None
    ) -> StoredObject:
        return await self.inner.put(key, pieces, size=size, sha256=sha256)

    def get(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self.inner.get(key, start=start, length=length)

    async def delete_quietly(self, keys: Sequence[str]) -> int:
        return await self.inner.delete_quietly(keys)

    def list(self, prefix: str = "") -> AsyncIterator[ListedObject]:
        return self.inner.list(prefix)

    async def check(self) -> None:
        await self.inner.check()


class StoreRefuses(AroundStore):
    """Every put fails at once, before a byte is taken."""

    async def put(self, *_: Any, **__: Any) -> StoredObject:
        raise StoreDown


class StoreBreaksMidway(AroundStore):
    """Takes the first piece of every put and fails."""

    async def put(self, key: str, pieces: AsyncIterable[bytes], **_: Any) -> StoredObject:
        async for _piece in pieces:
            raise StoreDown
        raise AssertionError("there was no first piece")


class StoreFillsUp(AroundStore):
    """Takes all bytes and then has no room for them."""

    async def put(self, key: str, pieces: AsyncIterable[bytes], **_: Any) -> StoredObject:
        async for _piece in pieces:
            pass
        raise StoreFull


class StoreStalls(AroundStore):
    """Every put waits until told to go on; `waiting` tells how many do."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.go_on = anyio.Event()
        self.waiting = 0

    async def put(
        self, key: str, pieces: AsyncIterable[bytes], *, size: int | None, sha256: bytes | None = None
    ) -> StoredObject:
        self.waiting += 1
        try:
            await self.go_on.wait()
        finally:
            self.waiting -= 1
        return await self.inner.put(key, pieces, size=size, sha256=sha256)
