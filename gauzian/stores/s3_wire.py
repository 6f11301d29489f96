"""Single requests to S3, each asked once: signed, sent, answered, and their connections given back or cut."""

from __future__ import annotations

import asyncio
import re

import aiohttp

from gauzian.bytebudget import ByteBudget
from gauzian.stores.s3_answers import FOREIGN, Answer, read_answer, seam, unanswered
from gauzian.stores.s3_body import SentBody
from gauzian.stores.s3_listing import BadListing, ListingPage
from gauzian.stores.s3_received import ReceivedPieces, received
from gauzian.stores.s3_signing import Signer
from gauzian.stores.sharedbuffer import SharedBuffer
from gauzian.stores.threads import KIB, outlast

_PIECE_BYTES = 256 * KIB
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/")
# A place is held meanwhile, and a client waits.
_TAKE_BACK_SECONDS = 5.0


class S3Wire:
    """`reading`: what the pieces of all objects that are being read may hold together. `read_seconds`: the longest
    silence of the store.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        signer: Signer,
        *,
        reading: ByteBudget,
        buffer: SharedBuffer,
        read_seconds: float,
    ) -> None:
        self._session = session
        self._signer = signer
        self._reading = reading
        self._buffer = buffer
        self._read_seconds = read_seconds

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
                    return received(response, self._reading, self._buffer, read_seconds=self._read_seconds)
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
        if body.call_off():
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


def _is_span(response: aiohttp.ClientResponse, span: str | None) -> bool:
    """Content-Range says which bytes are coming; the status does not (rclone says 200 where others say 206)."""
    found = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
    if span is None or found is None:
        return span is None and found is None
    first, _, last = span.partition("-")
    return found[1] == first and (not last or int(found[2]) <= int(last))
