"""The real server on a real socket with a database of its own, and browsers that visit it."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gauzian.assembly.parts import Parts, open_parts
from gauzian.assembly.urls import compose, server_limits
from gauzian.server.serve import Server
from gauzian.settings import Settings
from tests.e2e.clients.a import ClientA
from tests.e2e.clients.b import ClientB
from tests.e2e.clients.browser import Browser
from tests.postgres import MIGRATIONS

# Clear HTTP on the loopback, through a proxy on the same machine.
AS_DEPLOYED: dict[str, Any] = {"cookie_secure": False, "trusted_proxies": ("127.0.0.1",)}


@dataclass
class World:
    address: tuple[str, int]
    parts: Parts
    browsers: list[Browser] = field(default_factory=list)

    def new_browser(self) -> Browser:
        """Each has an address of its own."""
        browser = Browser(self.address, ip=f"198.51.100.{len(self.browsers) + 1}")
        self.browsers.append(browser)
        return browser

    def new_a(self, name: str) -> ClientA:
        return ClientA(self.new_browser(), name=name)

    def new_b(self, name: str) -> ClientB:
        return ClientB(self.new_browser(), name=name)

    async def sign_up_a(self, name: str) -> ClientA:
        client = self.new_a(name)
        await client.register()
        return client

    async def sign_up_b(self, name: str) -> ClientB:
        """An account that the first generation has made, used with the second: what an update of the client is."""
        await self.sign_up_a(name)
        client = self.new_b(name)
        await client.login()
        return client

    async def objects(self) -> set[str]:
        return {item.key async for item in self.parts.store.list()}


@asynccontextmanager
async def running_world(database_url: str, **settings: Any) -> AsyncIterator[World]:
    """Everything as in production but the reaper, and ended in order."""
    with tempfile.TemporaryDirectory(prefix="gz-") as directory:
        given = Settings(database_url=database_url, data_dir=Path(directory), **AS_DEPLOYED, **settings)
        async with open_parts(given, migrations=MIGRATIONS, background=False) as parts:
            listening: asyncio.Future[list[tuple[str, int]]] = asyncio.get_running_loop().create_future()
            server = Server(
                compose(parts, given),
                host="127.0.0.1",
                port=0,
                limits=server_limits(given),
                grace_seconds=5,
                on_listening=listening.set_result,
            )
            stop = asyncio.Event()
            task = asyncio.ensure_future(server.serve(stop))
            await asyncio.wait([task, listening], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            world = World(listening.result()[0], parts)
            try:
                yield world
            finally:
                for browser in world.browsers:
                    await browser.close()
                stop.set()
                await asyncio.wait([task], timeout=10)
            task.result()
