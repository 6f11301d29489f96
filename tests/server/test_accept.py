from __future__ import annotations

import asyncio
import errno
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from gauzian.server import accept
from gauzian.server.accept import bind, raise_file_limit
from gauzian.server.limits import ServerLimits
from tests.server import apps
from tests.server.client import head, post, until
from tests.server.conftest import Run


@pytest.mark.anyio
async def test_when_the_house_is_full_the_others_wait_outside_until_somebody_leaves(serving: Run, both: bool) -> None:
    limits = ServerLimits(max_connections=3, linger_idle_seconds=0.3)
    async with serving(apps.reads_all, tls=both, limits=limits) as running:
        inside = [await running.connect() for _ in range(3)]
        for client in inside:
            await client.send(post("/", b""))
            assert (await client.answer("POST")).status == 200
        outside = [asyncio.ensure_future(running.connect()) for _ in range(4)]
        await until(lambda: running.server.accept_pauses_total > 0)
        assert running.server.open_connections == 3
        assert running.server.accepted_total == 3
        for number, client in enumerate(inside):
            await client.close()
            await until(lambda number=number: running.server.accepted_total == 4 + number)  # type: ignore[misc]
        done, _ = await asyncio.wait(outside[:3], timeout=5)
        for one in done:
            client = one.result()
            await client.send(post("/", b""))
            assert (await client.answer("POST")).status == 200
            await client.close()
        last = await asyncio.wait_for(outside[3], 5)
        await last.send(post("/", b""))
        assert (await last.answer("POST")).status == 200


@pytest.mark.anyio
async def test_who_lingers_counts_as_inside(serving: Run) -> None:
    limits = ServerLimits(max_connections=1, linger_idle_seconds=0.3)
    async with serving(apps.refuses_at_once, limits=limits) as running:
        first = await running.connect()
        await first.send(head("POST", "/", "Content-Length: 1000000"))
        assert (await first.answer("POST")).status == 400
        second = await running.connect()
        await second.send(head("GET", "/"))
        assert (running.server.lingering_connections, running.server.accepted_total) == (1, 1)
        assert (await second.answer()).status == 400  # when the first one's silence has lasted long enough


@pytest.mark.anyio
async def test_hundreds_of_newcomers_at_once_are_all_served(serving: Run) -> None:
    async with serving(apps.reads_all) as running:

        async def one() -> int:
            client = await running.connect()
            await client.send(post("/", b"x"))
            status = (await client.answer("POST")).status
            await client.close()
            return status

        assert await asyncio.gather(*[one() for _ in range(300)]) == [200] * 300


@pytest.mark.anyio
async def test_a_tls_handshake_that_does_not_come_is_cut(serving: Run) -> None:
    async with serving(apps.reads_all, tls=True, limits=ServerLimits(header_seconds=0.3)) as running:
        _, silent = await asyncio.open_connection(*running.address)
        _, talking = await asyncio.open_connection(*running.address)
        talking.write(b"GET / HTTP/1.1\r\n\r\n" * 10)
        await until(lambda: running.server.accepted_total == 2)
        await until(lambda: running.server.open_connections == 0)
        silent.close()
        talking.close()


@pytest.mark.anyio
async def test_an_unfinished_tls_handshake_does_not_hold_up_the_end(serving: Run) -> None:
    async with serving(apps.reads_all, tls=True, grace_seconds=0.1) as running:
        _, writer = await asyncio.open_connection(*running.address)
        await until(lambda: running.server.open_connections == 1)
        running.stop.set()
        await asyncio.wait_for(running.task, 5)
        writer.close()


class BrokenListener:
    """A listening socket whose accept fails as if no file could be opened, a few times."""

    def __init__(self, real: socket.socket, failures: int) -> None:
        self.real, self.failures = real, failures

    def accept(self) -> Any:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self.real.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@pytest.mark.anyio
async def test_without_file_descriptors_it_waits_a_moment_instead_of_spinning(
    serving: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept, "_RETRY_SECONDS", 0.1)
    real_bind = accept.bind
    listeners: list[BrokenListener] = []

    async def broken_bind(host: str, port: int) -> Any:
        listeners.extend(BrokenListener(sock, 2) for sock in await real_bind(host, port))
        return listeners

    monkeypatch.setattr("gauzian.server.serve.bind", broken_bind)
    async with serving(apps.reads_all) as running:
        client = await running.connect()
        await client.send(post("/", b""))
        assert (await client.answer("POST")).status == 200
        assert running.server.accept_pauses_total == 2
        assert listeners[0].failures == 0


@pytest.mark.anyio
async def test_a_name_is_bound_on_all_its_addresses_and_one_port() -> None:
    sockets = await bind("localhost", 0)
    try:
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
    finally:
        for sock in sockets:
            sock.close()


@pytest.mark.anyio
async def test_an_address_in_use_is_an_error_and_leaves_no_socket() -> None:
    (taken,) = await bind("127.0.0.1", 0)
    taken.listen()
    try:
        with pytest.raises(OSError, match="in use"):
            await bind("127.0.0.1", taken.getsockname()[1])
    finally:
        taken.close()


@pytest.fixture
def file_limit() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_file_limit_is_raised_towards_four_per_connection(
    file_limit: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    hard = file_limit[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    raise_file_limit(200)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 800
    raise_file_limit(100)
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 800  # never lowered
    assert not caplog.records
    if hard != resource.RLIM_INFINITY:
        raise_file_limit(hard)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
        assert "may be open at once" in caplog.text
