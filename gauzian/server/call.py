"""One call of the application: whatever it does, the request gets an end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from h11 import LocalProtocolError

from gauzian.errors import ApiError, ASGIApp, ClientGone, InternalError, Receive, Scope, ShuttingDown
from gauzian.server.refusals import HungUp, as_answer

log = logging.getLogger(__name__)


async def call_application(
    app: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Any,  # Hypercorn's: ASGI's, and None at the end
    *,
    is_unanswered: Callable[[], bool],
    close: Callable[[], None],
) -> None:
    """Run it. `send(None)` says that nothing more will come: an answer begun and not ended is then broken off."""
    excuse: type[ApiError] = InternalError
    try:
        await app(scope, receive, send)
        if is_unanswered():
            log.error("the application ended without an answer")
    except ClientGone:
        pass
    except asyncio.CancelledError:
        excuse = ShuttingDown  # nobody else cancels a request
        raise
    except Exception:
        log.exception("the application failed")
    finally:
        try:
            if is_unanswered():
                headers, body = as_answer(excuse())
                await send({"type": "http.response.start", "status": excuse.status, "headers": headers})
                await send({"type": "http.response.body", "body": body})
            await send(None)
        except (HungUp, LocalProtocolError):
            close()
