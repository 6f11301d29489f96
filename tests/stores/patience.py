"""Waiting for what will be so, pieces that come as a test wants them, and calls that stand still."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

_SECONDS = 8.0


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + _SECONDS
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"in vain: {what}")
        await asyncio.sleep(0.005)


async def cut(data: bytes, piece: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), piece):
        yield data[start : start + piece]


class Halting:
    """Gives `data` in pieces, then stands still (`reached` is set) until `go` is set; then ends, or raises `error`."""

    def __init__(self, data: bytes = b"", *, error: BaseException | None = None, piece: int = 65_536) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled = False
        self.given = 0
        self._data = data
        self._error = error
        self._piece = piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in cut(self._data, self._piece):
            self.given += len(piece)
            yield piece
        self.reached.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self._error is not None:
            raise self._error


class Stuck:
    """A system call that stands still in its thread until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.inside = threading.Event()
        self.go = threading.Event()
        self.calls = 0
        lock = threading.Lock()
        real = getattr(os, name)

        def stand_still(*args: Any, **kwargs: Any) -> Any:
            with lock:
                self.calls += 1
            self.inside.set()
            assert self.go.wait(20)
            return real(*args, **kwargs)

        monkeypatch.setattr(os, name, stand_still)
