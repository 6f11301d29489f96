"""One TCP connection: small reads until the body is wanted; who is idle, who is gone."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

from hypercorn.events import Closed, Event, Updated
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from gauzian.server.answerspout import offer_spout, short_way
from gauzian.server.bodytap import BodyTap, offer_tap
from gauzian.server.call import call_application
from gauzian.server.framing import Http1
from gauzian.server.intake import Intake
from gauzian.server.linger import unwind
from gauzian.server.mailbox import Mailbox
from gauzian.server.outbox import Outbox
from gauzian.server.refusals import HeadTooSlow, HungUp
from gauzian.server.shared import Shared

log = logging.getLogger(__name__)

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Connection(asyncio.Protocol):
    """Between asyncio's transport and Hypercorn's HTTP. One task reads; each request runs in one more.

    `lost` is called once, when the transport is gone.
    """

    transport: asyncio.Transport
    http: Http1
    intake: Intake
    outbox: Outbox

    def __init__(self, shared: Shared, lost: Callable[[], None]) -> None:
        self.closing = False  # nothing will be read or begun here any more
        self.below: asyncio.Transport | None = None  # the socket's own transport when this one is TLS on it
        self._shared = shared
        self._limits = shared.limits
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._reader: asyncio.Task[None] | None = None
        self._mailbox: Mailbox | None = None
        self._tap: BodyTap | None = None
        self._head_begun = False
        self._deadline = math.inf

    # -- told by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._shared.connections.add(self)
        self.intake = Intake(self.transport, self._shared.reading, head_read=self._limits.head_read)
        self.outbox = Outbox(self.transport, self._limits, below=self.below or self.transport)
        # Told as soon as anything waits there: the kernel's buffer behind it is deep enough to keep the line busy.
        self.transport.set_write_buffer_limits(high=1)
        peer, sock = transport.get_extra_info("peername"), transport.get_extra_info("socket")
        if peer is None:  # gone before we looked
            self.closing = True
            return self.transport.abort()
        secure = transport.get_extra_info("ssl_object") is not None
        if secure:
            # What came encrypted and is not wanted yet stays in the kernel; by default 256 KiB of it are taken.
            cast(Any, transport).set_read_buffer_limits(high=1)
        self._deadline = self._loop.time() + self._limits.header_seconds
        self.http = Http1(
            self,
            small_body_bytes=self._limits.small_body_bytes,
            app=cast(Any, self._shared.app),
            config=self._shared.config,
            context=self._shared.context,
            connection_state=ConnectionState(cast(Any, self._shared.state)),
            ssl=secure,
            client=parse_socket_addr(sock.family, peer),
            server=parse_socket_addr(sock.family, transport.get_extra_info("sockname")),
        )
        self._reader = self._shared.start(self._read())
        return None

    def data_received(self, data: bytes) -> None:
        if self.closing or self._passed_by(data):
            return
        if not self._head_begun:
            self._head_begun = True
            if self.http.keep_alive_requests:  # else the time has been running since the client connected
                self._deadline = self._loop.time() + self._limits.header_seconds
        self.intake.put(data)

    def eof_received(self) -> None:
        """The client has hung up, or at least sends no more. An answer that is complete still goes out."""
        if not self.closing:
            self._end()
            if self.http.answer_is_missing or self.http.answer_is_incomplete:
                self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end()
        unwind(self.transport)
        self._shared.connections.discard(self)
        self._lost()

    def pause_writing(self) -> None:
        self.outbox.pause()

    def resume_writing(self) -> None:
        self.outbox.resume()

    # -- told by the server

    @property
    def stopping(self) -> bool:
        return self._shared.stopping

    @property
    def is_idle(self) -> bool:
        """Between two requests. A fresh connection is not: its client has come with one."""
        return not (self.closing or self._reader is None or self._head_begun) and self.http.keep_alive_requests > 0

    def look(self, now: float) -> None:
        """A few times per second: is something overdue?"""
        if now >= self._deadline:
            if self.http.head_is_incomplete:
                self._shared.slow_heads += 1
                self.http.refuse(HeadTooSlow())
            self.close(linger=False)
        elif self.outbox.is_stuck(now):
            self._shared.stalled_writes += 1
            self.break_off()

    def break_off(self) -> None:
        """A reset, not the end of a stream: nobody can take what was sent for complete."""
        self._end()
        with contextlib.suppress(OSError):
            sock = self.transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()

    def close(self, *, linger: bool = True) -> None:
        """End it so that the client can read its answer, whatever it is still sending."""
        if self.closing:
            return None
        self._end()
        if self.http.answer_is_incomplete:
            return self.break_off()
        if self.http.answer_is_missing:
            return self.transport.abort()
        rest = self.http.rest()
        if not linger or (rest == 0 and not len(self.intake)):
            return self.transport.close()
        self._shared.connections.discard(self)
        self._shared.lingerers.take(self.transport, rest=rest and max(0, rest - len(self.intake)), lost=self._lost)
        return None

    # -- told by the HTTP

    async def told(self, event: Event) -> None:
        if self.closing:
            return
        if isinstance(event, Closed):
            self.close()
        elif isinstance(event, Updated) and event.idle:
            self._between_requests()
        elif isinstance(event, Updated):
            self._deadline = math.inf  # from here on time is the application's affair

    def keep_for_rest(self) -> None:
        """The small rest of a body is read off, but not for ever."""
        self._deadline = self._loop.time() + self._limits.linger_idle_seconds
        if self._tap is not None:
            self._tap.release()

    async def write(self, data: bytes) -> None:
        await self.outbox.write(data)

    def write_now(self, data: bytes) -> None:
        self.outbox.write_now(data)

    async def spawn_app(self, app: Any, config: Any, scope: Any, send: Any) -> Any:
        """Hypercorn's words for: here is a request; start the application and say where its messages go."""
        stream = cast(HTTPStream, self.http.stream)
        mailbox = self._mailbox = Mailbox(
            budget=self._shared.reading,
            least_bytes=self._limits.head_read,
            most_bytes=self._limits.mailbox_bytes,
            wanted=self._body_wanted,
            ended=self._body_ended,
            roomy=self.intake.go_on,
        )
        self._tap = None if self.below else offer_tap(scope, self.transport, self.http, self.intake, mailbox)
        spout = None if self.below else offer_spout(scope, self.http, self.outbox)
        self._shared.start_request(
            call_application(
                app,
                scope,
                mailbox.get,
                short_way(send, self.http, spout),
                is_unanswered=lambda: not self.closing and stream.state is ASGIHTTPState.REQUEST,
                close=self.close,
            )
        )
        return mailbox.put

    # -- inside

    async def _read(self) -> None:
        try:
            while not self.closing:
                data = await self.intake.next()
                if self.http.is_between_requests:
                    self._deadline = math.inf  # standing in our line is not the client's slowness
                    await self._shared.turns.come(data)
                    self._deadline = self._loop.time() + self._limits.header_seconds
                await self.http.feed(data)
                self.intake.handled()
                del data  # an idle connection would keep the last piece of its last body: up to 512 KiB each
        except (HungUp, asyncio.CancelledError):
            # Nobody waits for this task; let out, the exception would keep all frames and with them the connection.
            pass
        except Exception:
            log.exception("a connection failed")
        finally:
            await self.http.handle(Closed())  # tells the application; waits for nobody
            self.close()
            # They know us and we know them: without this a thousand refused uploads wait for the garbage collector.
            del self.http
            self._mailbox = self._tap = None

    def _passed_by(self, data: bytes) -> bool:
        """The middle of a body goes straight to who waits for it, if nothing is in front of it: through the reader,
        h11 and Hypercorn it would come out as it is, ten times later."""
        mailbox = self._mailbox
        if mailbox is None or not mailbox.has_room or not self.intake.is_idle or not self.http.passes_by(data):
            return False
        if not mailbox.put_now(data):
            # Not yet: who waits for this piece takes it before the socket is read again, nearly always.
            self._loop.call_soon(self._hold_off, mailbox)
        return True

    def _hold_off(self, mailbox: Mailbox) -> None:
        if mailbox.is_still_full():
            self.intake.hold_off()  # what comes while the disk is slower than the line waits in the kernel

    def _body_wanted(self, something_is_here: bool) -> None:
        if self.closing or not self.http.body_is_coming:
            return
        if not something_is_here:
            self.http.go_on()
        self.intake.want_body(little=self._tap is not None and self._tap.is_used)

    def _body_ended(self) -> None:
        self.http.set_surplus_aside()
        self.intake.body_ended()

    def _between_requests(self) -> None:
        if self._shared.stopping:
            return self.close()
        self._head_begun = self.http.head_is_incomplete or bool(len(self.intake))
        patience = self._limits.header_seconds if self._head_begun else self._limits.keep_alive_seconds
        self._deadline = self._loop.time() + patience
        return None

    def _end(self) -> None:
        if self.closing and self.outbox.closed:
            return
        self.closing = True
        self._deadline = math.inf
        self.intake.body_ended()
        self.outbox.shut()
        for side in (self._mailbox, self._tap):
            if side is not None:
                side.close()
        # It may wait for something that never comes now. If it is the reader that ends it, it is on its way out.
        if self._reader is not None and self._reader is not asyncio.current_task():
            self._reader.cancel()
