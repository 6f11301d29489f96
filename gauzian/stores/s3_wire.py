"""Single requests to S3, each asked once: signed, sent, answered, and their connections given back or cut."""

from __future__ import annotations

import asyncio
import re
from typing import Any, SupportsIndex

import aiohttp
from aiohttp.connector import Connection

from gauzian.bytebudget import ByteBudget, Held
from gauzian.stores.s3_answers import FOREIGN, Answer, read_answer, seam, unanswered
from gauzian.stores.s3_body import SentBody
from gauzian.stores.s3_listing import BadListing, ListingPage
from gauzian.stores.s3_signing import Signer
from gauzian.stores.threads import KIB, outlast

_PIECE_BYTES = 256 * KIB
_FIRST_READ_BYTES = 8 * KIB
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/")
# A place is held meanwhile, and a client waits.
_TAKE_BACK_SECONDS = 5.0


class SmallFirstReads(aiohttp.TCPConnector):
    """An answer that nobody reads yet takes up little: asyncio would read 256 KiB of each object opened ahead."""

    async def connect(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> Connection:
        connection = await super().connect(req, traces, timeout)
        _read_at_most(connection, _FIRST_READ_BYTES)
        return connection


def _read_at_most(connection: Connection, size: SupportsIndex) -> None:
    if connection.transport is not None:
        connection.transport.max_size = size  # type: ignore[attr-defined]  # the selector transport's; elsewhere unused


class S3Wire:
    """`reading`: what the pieces of all objects that are being read may hold together."""

    def __init__(self, session: aiohttp.ClientSession, signer: Signer, *, reading: ByteBudget) -> None:
        self._session = session
        self._signer = signer
        self._reading = reading

    async def ask(self, operation: str, method: str, key: str = "", body: bytes | None = None) -> Answer:
        """A request whose answer is its status."""
        url = self._signer.url(method, key)
        with seam(operation):
            async with self._session.request(method, url, data=body, allow_redirects=False) as response:
                return await read_answer(response)

    async def page(self, **query: str) -> ListingPage | Answer:
        """One page of the bucket's listing, or the refusal."""
        url = self._signer.url("GET", **query)
        page = ListingPage()
        with seam("list"):
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    return await read_answer(response)
                try:
                    while piece := await response.content.read(_PIECE_BYTES):
                        page.feed(piece)
                    page.close()
                except BadListing:
                    return Answer(response.status, "BadListing")
        return page

    async def open(self, key: str, span: str | None) -> ReceivedPieces | Answer:
        """The object, or the span `first-last` of it, on its way; close what you get. Else the refusal."""
        url = self._signer.url("GET", key)
        headers = {} if span is None else {"Range": f"bytes={span}"}
        with seam("get"):
            response = await self._session.get(url, headers=headers, allow_redirects=False)
            try:
                if response.status in (200, 206) and _is_span(response, span):
                    return ReceivedPieces(response, self._reading)
                answer = Answer(response.status, "WrongRange") if response.ok else await read_answer(response)
            except BaseException:
                response.close()
                raise
            response.close()
            return answer

    async def put(self, key: str, body: SentBody) -> None:
        """Send `body` as object `key`; raises StoreDown, StoreFull, or what `body` found wrong.

        In a task of its own: after the last byte was handed over nobody can say whether the object is there until the
        store has answered. Whoever is cancelled then waits for that answer, bounded, and removes the object.
        """
        request = asyncio.create_task(self._put(key, body))
        try:
            await asyncio.shield(request)
        except asyncio.CancelledError:
            await outlast(self._call_off(key, body, request), seconds=_TAKE_BACK_SECONDS)
            raise
        finally:
            del request  # it knows the exception, which knows this frame: a circle, with the body in it

    async def _call_off(self, key: str, body: SentBody, request: asyncio.Task[None]) -> None:
        if not body.committed:
            request.cancel()
        try:
            await asyncio.wait([request])
        finally:
            request.cancel()  # out of patience: cut it, and let it end by itself
            request.add_done_callback(_look_at)
        if not request.cancelled() and request.exception() is None:
            await self.ask("delete", "DELETE", key)

    async def _put(self, key: str, body: SentBody) -> None:
        failure: BaseException
        try:
            url = self._signer.url("PUT", key)
            async with self._session.put(url, data=body, allow_redirects=False) as response:
                if response.status == 200 and body.committed:
                    return
                failure = (await read_answer(response)).as_error("put")
        except FOREIGN as error:
            failure = error if body.has_failed else unanswered("put", error)
        except asyncio.CancelledError as error:
            failure = error
        await outlast(self._clear_up(key, body), seconds=_TAKE_BACK_SECONDS)
        try:
            raise body.take_error() or failure
        finally:
            # An exception knows the frames it comes through: a name in one of them would be a circle.
            del failure

    async def _clear_up(self, key: str, body: SentBody) -> None:
        """After a failure: nobody reads the client's pieces any more, and no object is there."""
        await body.settled()
        if body.committed:
            await self.ask("delete", "DELETE", key)


def _look_at(request: asyncio.Task[None]) -> None:
    """Else asyncio complains about an exception that nobody asked for."""
    if not request.cancelled():
        request.exception()


class ReceivedPieces:
    """The bytes of an answer as they come, one piece per `__anext__`; what is not asked for waits in the store."""

    def __init__(self, response: aiohttp.ClientResponse, budget: ByteBudget) -> None:
        self._response = response
        self._held = Held(budget)

    def close(self) -> None:
        """Frees everything at once: a connection with bytes still to come is closed, not read to its end."""
        self._held.drop()
        self._response.close()

    def __aiter__(self) -> ReceivedPieces:
        return self

    async def __anext__(self) -> bytes:
        self._held.drop()
        try:
            self._read(True)
            # As it lies there: read(n) would raise what aiohttp may hold to twice n, for good.
            piece = await self._response.content.readany()
            self._read(False)
        except (*FOREIGN, RuntimeError) as error:  # RuntimeError: what aiohttp calls a connection that has just gone
            raise unanswered("get", error) from error
        if not piece:
            raise StopAsyncIteration
        self._held.hold(len(piece))
        return piece

    def _read(self, on: bool) -> None:
        """While a piece is on its way to the client the next one waits in the kernel and not in aiohttp's buffer."""
        connection = self._response.connection
        if connection is None or connection.protocol is None:  # all of it has come
            return
        if on:
            _read_at_most(connection, self._held.budget)
            connection.protocol.resume_reading()
        else:
            connection.protocol.pause_reading()


def _is_span(response: aiohttp.ClientResponse, span: str | None) -> bool:
    """Content-Range says which bytes are coming; the status does not (rclone says 200 where others say 206)."""
    found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if span is None or found is None:
        return span is None and found is None
    first, _, last = span.partition("-")
    return found[1] == first and (not last or int(found[2]) <= int(last))
