"""Where a refusal becomes an answer: the only place that turns an exception into bytes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

from starlette.exceptions import HTTPException

from gauzian.errors import (
    ApiError,
    ASGIApp,
    ClientGone,
    DownloadsBusy,
    InternalError,
    Message,
    MethodNotAllowed,
    NotFound,
    QuotaExceeded,
    Receive,
    Scope,
    Send,
    ShuttingDown,
    SignInBusy,
    UploadsBusy,
)

log = logging.getLogger(__name__)

# Their status begins with a 5, but nothing has failed: a client could fill the log with errors at will.
_ON_PURPOSE = (QuotaExceeded, UploadsBusy, DownloadsBusy, SignInBusy, ShuttingDown)


async def say_no(error: ApiError, send: Send, *, head_only: bool = False) -> None:
    """Send `error` as the whole answer. The one place where a refusal becomes bytes."""
    body = json.dumps(error.body(), separators=(",", ":")).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.answer_status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head_only else body})


def _as_refusal(error: Exception) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException) and error.status_code in (404, 405):  # from routing
        kind = NotFound if error.status_code == 404 else MethodNotAllowed
        return kind(headers=dict(error.headers or {}))
    return InternalError()


class AnswerErrors:
    """Innermost middleware: turns what a handler raises into the answer, the log line and the count.

    After the first byte of an answer nothing honest can be said any more: the exception goes on to the server, which
    breaks the connection off, and Content-Length tells the client.
    """

    def __init__(self, app: ASGIApp, *, count: Callable[[str], None]) -> None:
        self.app = app
        self.count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            try:
                await send(message)
            except OSError as gone:  # ASGI 2.4: so a send says that the client hung up
                raise ClientGone from gone

        try:
            await self.app(scope, receive, watched_send)
        except ClientGone:
            self.count("client_gone")
            scope["gauzian.client_gone"] = True
        except Exception as error:
            refusal = _as_refusal(error)
            self.count(refusal.code)
            if refusal.answer_status >= 500 and not isinstance(refusal, _ON_PURPOSE):
                log.error(
                    "request failed",
                    extra={"code": refusal.code},
                    exc_info=None if isinstance(error, ApiError) and error.__cause__ is None else error,
                )
            if started:
                raise
            try:
                await say_no(refusal, watched_send, head_only=scope.get("method") == "HEAD")
            except ClientGone:
                scope["gauzian.client_gone"] = True
        return None
