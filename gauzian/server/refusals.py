"""What the server itself says no to, before any application has seen a request."""

from __future__ import annotations

import json
from uuid import uuid4

from gauzian.errors import ApiError, ClientGone


class HungUp(ClientGone, ConnectionResetError):
    """Raised by `send` once the client is gone: an OSError as ASGI asks for, so that send loops end by themselves; a
    ClientGone, so that nobody logs it."""


class BadRequest(ApiError):
    status, code, text = 400, "bad_request", "This is not a valid HTTP request"


class HeadTooSlow(ApiError):
    status, code, text = 408, "request_timeout", "The request head did not arrive in time"


class HeadTooLarge(ApiError):
    status, code, text = 431, "headers_too_large", "The request head is too large"


class UnknownTransferEncoding(ApiError):
    status, code, text = 501, "transfer_encoding_unsupported", "The only transfer encoding taken here is chunked"


class UnknownHttpVersion(ApiError):
    status, code, text = 505, "http_version_unsupported", "Only HTTP/1.1 and HTTP/1.0 are spoken here"


_BY_STATUS: dict[int, type[ApiError]] = {
    kind.status: kind for kind in (BadRequest, HeadTooSlow, HeadTooLarge, UnknownTransferEncoding, UnknownHttpVersion)
}


def refusal(status: int) -> ApiError:
    """The refusal for a status that the HTTP parser suggests."""
    return _BY_STATUS.get(status, BadRequest)()


def as_answer(error: ApiError) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body in the shape of all our errors; no middleware has given this request an id yet."""
    body = json.dumps(error.body(), separators=(",", ":")).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
        (b"x-request-id", uuid4().hex.encode()),
    ]
    return headers, body
