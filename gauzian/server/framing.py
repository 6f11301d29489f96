"""What we change in Hypercorn's HTTP/1.1: Expect when the body is wanted, no other protocol, no copies of a body."""

from __future__ import annotations

from http import HTTPStatus
from time import time
from typing import Any, Protocol, cast
from wsgiref.handlers import format_date_time

import h11
from h11._readers import ContentLengthReader
from h11._writers import ContentLengthWriter
from hypercorn.config import Config
from hypercorn.events import Closed, Event
from hypercorn.protocol.events import Body, EndBody, Request, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.typing import TaskGroup

from gauzian.errors import ApiError
from gauzian.server.buffer import PassThrough
from gauzian.server.limits import KIB
from gauzian.server.refusals import HungUp, UnknownHttpVersion, as_answer, refusal

# A response head and a first piece up to this size leave together: one system call, one wake-up of the client.
_WORTH_JOINING = 16 * KIB

_REASONS = {int(status): status.phrase.encode() for status in HTTPStatus}


class Wire(Protocol):
    """The connection, as seen from the HTTP on it."""

    closing: bool

    @property
    def stopping(self) -> bool: ...
    async def write(self, data: bytes) -> None: ...
    def write_now(self, data: bytes) -> None: ...
    def keep_for_rest(self) -> None: ...
    async def told(self, event: Event) -> None: ...
    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Any) -> Any: ...


class HttpConfig(Config):
    """Hypercorn's settings, with a Date header that is formatted once per second instead of once per answer."""

    _date: tuple[int, list[tuple[bytes, bytes]]] = (0, [])

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        now = int(time())
        if self._date[0] != now:
            self._date = (now, [(b"date", format_date_time(now).encode("ascii"))])
        return self._date[1]


class Http1(H11Protocol):
    """One connection's HTTP/1.1: parsed and framed by Hypercorn and h11, one request at a time."""

    connection: h11.Connection

    def __init__(self, wire: Wire, *, small_body_bytes: int, **hypercorn: Any) -> None:
        # Of a task group Hypercorn's HTTP uses spawn_app alone.
        super().__init__(task_group=cast(TaskGroup, wire), send=wire.told, **hypercorn)
        self.wire = wire
        self.connection._receive_buffer = PassThrough()
        self._small_body_bytes = small_body_bytes
        self._expects = False
        self._refused = False
        self._surplus = False
        self._head = b""

    # -- what the connection asks

    async def feed(self, data: bytes) -> None:
        self.connection.receive_data(data)
        self.set_surplus_aside()
        await self._handle_events()

    def passes_by(self, data: bytes) -> bool:
        """Is this the middle of a body whose length is known? Then it has been counted and need not be fed."""
        if len(data) > self.middle():
            return False
        self.count_past(len(data))
        return True

    def middle(self) -> int:
        """How many bytes of a body whose length is known may come before its last one, which is h11's affair."""
        reader = self.connection._reader
        if type(reader) is not ContentLengthReader or not self.body_is_coming or self.connection._receive_buffer:
            return 0
        remaining: int = reader._remaining
        return remaining - 1

    def count_past(self, size: int) -> None:
        """So many bytes of the middle have gone another way."""
        cast(ContentLengthReader, self.connection._reader)._remaining -= size

    def passes_out(self, data: bytes) -> bool:
        """Is this the middle of an answer whose length is known, behind its head? Then it has been counted and can go
        to the wire as it is: through Hypercorn and h11 it would come out the same."""
        if not 0 < len(data) <= self.middle_out():
            return False
        self.count_out(len(data))
        return True

    def middle_out(self) -> int:
        """How many bytes of an answer whose length is known may go out, behind its head, before its last one: its end,
        and what is too much, are h11's affair."""
        writer = self.connection._writer
        if type(writer) is not ContentLengthWriter or self.connection.our_state is not h11.SEND_BODY or self._head:
            return 0
        length: int = writer._length
        return max(0, length - 1)

    def count_out(self, size: int) -> None:
        """So many bytes of the middle go out another way."""
        if size:
            cast(ContentLengthWriter, self.connection._writer)._length -= size

    def set_surplus_aside(self) -> None:
        """Bytes behind a request that was said to be the last (old clients end a body with one more CRLF): h11 would
        answer them with 400 in the place of the application's answer."""
        if self.connection.their_state is h11.MUST_CLOSE and self.connection._receive_buffer:
            self.connection._receive_buffer = PassThrough()
            self._surplus = True

    @property
    def body_is_coming(self) -> bool:
        return self.connection.their_state is h11.SEND_BODY

    @property
    def answer_is_missing(self) -> bool:
        return self.connection.our_state is h11.SEND_RESPONSE

    @property
    def answer_is_incomplete(self) -> bool:
        """Begun and not ended, or ended in a way that h11 refused: it must not look complete to the client."""
        return self.connection.our_state in (h11.SEND_BODY, h11.ERROR)

    @property
    def is_between_requests(self) -> bool:
        """What comes next is the beginning of a request."""
        return self.connection.their_state is h11.IDLE and not self.connection._receive_buffer

    @property
    def head_is_incomplete(self) -> bool:
        """The beginning of a next request is here."""
        return self.connection.their_state is h11.IDLE and bool(self.connection._receive_buffer)

    def rest(self) -> int | None:
        """How many bytes the client still means to send: none after a clean end, None if that cannot be known."""
        if self.connection.their_state is h11.SEND_BODY:
            remaining: int | None = getattr(self.connection._reader, "_remaining", None)
            return None if remaining is None else max(0, remaining - len(self.connection._receive_buffer))
        surprise = self._surplus or bool(self.connection._receive_buffer)
        if surprise or self.connection.their_state is h11.ERROR or self._we_end_it():
            return None
        return 0

    def go_on(self) -> None:
        """The body is wanted and nothing of it has come: tell a client that asked before sending."""
        if self._expects:
            self._expects = False
            self.wire.write_now(self.connection.send(h11.InformationalResponse(status_code=100, headers=[])))

    def refuse(self, error: ApiError) -> None:
        """Answer without any application. For errors of the protocol; the connection is to be closed after it."""
        headers, body = as_answer(error)
        headers += self.config.response_headers("h11")
        answer = [
            self.connection.send(
                h11.Response(status_code=error.status, headers=headers, reason=_REASONS[error.status])
            ),
            self.connection.send(h11.Data(data=body)),
            self.connection.send(h11.EndOfMessage()),
        ]
        self.wire.write_now(b"".join(answer))

    # -- Hypercorn's: on the way in

    async def _check_protocol(self, request: h11.Request) -> None:
        error: ApiError | None = None
        if not request.http_version.startswith(b"1."):
            error = UnknownHttpVersion()
        elif _size_of(request) > self.config.h11_max_incomplete_size:
            error = refusal(431)  # h11 counts only what is incomplete: the last read may have brought the end
        if error is not None:
            self._refused = True
            self.refuse(error)
            await self.send(Closed())

    async def _create_stream(self, request: h11.Request) -> None:
        if self._refused:
            return
        self._expects = self.connection.they_are_waiting_for_100_continue
        # Else Hypercorn would answer it, before the application has run.
        self.connection.client_is_waiting_for_100_continue = False
        self.stream = HTTPStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        self.keep_alive_requests += 1
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=list(request.headers),
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )

    async def _send_error_response(self, status_code: int) -> None:
        self.refuse(refusal(status_code))

    # -- Hypercorn's: on the way out

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, StreamClosed):
            await self._maybe_recycle()
        elif self.wire.closing:
            raise HungUp
        elif isinstance(event, Response):
            self._head = self.connection.send(self._response(event))
        elif isinstance(event, Body):
            await self._write(self.connection.send(h11.Data(data=event.data)))
        elif isinstance(event, EndBody):
            await self._write(self.connection.send(h11.EndOfMessage()))

    def _response(self, event: Response) -> h11.Response:
        headers = event.headers + self.config.response_headers("h11")
        if self._we_end_it() or not self._may_read_off():
            headers.append((b"connection", b"close"))
        return h11.Response(headers=headers, status_code=event.status_code, reason=_REASONS.get(event.status_code, b""))

    def _we_end_it(self) -> bool:
        return self.wire.stopping or self.keep_alive_requests >= self.config.keep_alive_max_requests

    def _may_read_off(self) -> bool:
        """Is what is still unread of the body so little that reading it is cheaper than a new connection?

        Not while the client waits for our 100: whether it sends the body after a final answer is its free choice.
        """
        if not self.body_is_coming:
            return True
        rest = self.rest()
        return rest is not None and rest <= self._small_body_bytes and not self._expects

    async def _write(self, data: bytes) -> None:
        head, self._head = self._head, b""
        if head and len(data) > _WORTH_JOINING:
            await self.wire.write(head)
        elif head:
            data = head + data
        if data:
            await self.wire.write(data)

    async def _maybe_recycle(self) -> None:
        if self.connection.our_state is h11.DONE and self.body_is_coming and self._may_read_off():
            await self._close_stream()
            self.stream = cast(HTTPStream, _ReadOff(super()._maybe_recycle))
            self.wire.keep_for_rest()
        else:
            await super()._maybe_recycle()


def _size_of(request: h11.Request) -> int:
    """Bytes of the head as it was sent, but for white space that h11 has dropped."""
    line = len(request.method) + len(request.target) + len(b"  HTTP/1.1\r\n\r\n")
    return line + sum(len(name) + len(value) + 4 for name, value in request.headers)


class _ReadOff:
    """In the place of a stream: the small rest of a body whose request was answered without it."""

    def __init__(self, recycle: Any) -> None:
        self._recycle = recycle

    async def handle(self, event: StreamEvent) -> None:
        if isinstance(event, EndBody):
            await self._recycle()
