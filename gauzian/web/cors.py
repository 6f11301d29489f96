"""Middleware: pages of other origins may call us if they are configured; any other is told no in our own shape."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from gauzian.errors import OriginNotAllowed


class Cors(CORSMiddleware):
    def preflight_response(self, request_headers: Headers) -> Response:
        """Starlette refuses in plain text, and this is outside of what turns exceptions into answers."""
        response = super().preflight_response(request_headers)
        if response.status_code < 400:
            return response
        refusal = OriginNotAllowed()
        return JSONResponse(
            refusal.body(), status_code=refusal.answer_status, headers={"Vary": response.headers.get("vary", "Origin")}
        )
