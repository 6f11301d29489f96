"""Where the parts are joined: the table of URLs (accounts have their own) and the order of middleware. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gauzian import __version__
from gauzian.assembly.account_urls import account_paths
from gauzian.assembly.drive_urls import drive_paths
from gauzian.assembly.levels import show_parts
from gauzian.assembly.parts import Parts
from gauzian.database.downloads import FoundChunk
from gauzian.database.together import ChunkRows
from gauzian.download import formats as shapes
from gauzian.download.info import SendFileInfo
from gauzian.download.readahead import ReadAhead
from gauzian.download.routes import SendChunk, SendFile
from gauzian.errors import ASGIApp
from gauzian.server.limits import ServerLimits
from gauzian.settings import Settings
from gauzian.stores.spool import Spool
from gauzian.upload.chunk import Format, ReceiveChunk
from gauzian.upload.formats import BodyLimits, RawChunk
from gauzian.upload.json_chunk import JsonChunk
from gauzian.upload.lifecycle import Uploads
from gauzian.upload.multipart_chunk import MultipartChunk
from gauzian.web.cors import Cors
from gauzian.web.drain import RefuseWhenDraining
from gauzian.web.health import Health, Numbers
from gauzian.web.prefix import StripPrefix
from gauzian.web.refusals import AnswerErrors
from gauzian.web.watch import Watch

# Response headers that a page from another origin may read.
_EXPOSED = [
    "x-chunk-iv",
    "x-chunk-index",
    "x-request-id",
    "retry-after",
    "etag",
    "content-digest",
    "content-range",
    "content-disposition",
    "accept-ranges",
]


def server_limits(settings: Settings) -> ServerLimits:
    # 1.6: a refused chunk may be on its way in base64, with some JSON around it.
    return ServerLimits(max_connections=settings.max_connections, linger_bytes=int(1.6 * settings.max_chunk_size))


def compose(parts: Parts, settings: Settings) -> ASGIApp:
    """The application, ready for any ASGI server."""
    show_parts(parts, settings)
    middleware = [Middleware(Watch, metrics=parts.metrics)]
    if settings.cors_origins:
        middleware.append(
            Middleware(
                Cors,
                allow_origins=settings.cors_origins,
                allow_methods=["*"],
                allow_headers=["*"],
                allow_credentials=True,
                expose_headers=_EXPOSED,
            )
        )
    middleware += [
        Middleware(AnswerErrors, count=lambda code: parts.metrics.errors.labels(code).inc()),
        Middleware(RefuseWhenDraining, draining=parts.draining),
    ]
    app = _App(routes=_routes(parts, settings), middleware=middleware)
    app.router.redirect_slashes = False  # a trailing slash makes another URL: 404, as it always was
    return StripPrefix(app, prefix="/api")


class _App(Starlette):
    """Starlette with our middleware alone: AnswerErrors does what its two own layers do, and a refusal passes through
    every layer twice.
    """

    def build_middleware_stack(self) -> ASGIApp:
        app: ASGIApp = self.router
        for middleware in reversed(self.user_middleware):
            app = middleware.cls(app, *middleware.args, **middleware.kwargs)
        return app


def _routes(parts: Parts, settings: Settings) -> list[Route]:
    return [
        *_byte_paths(parts, settings),
        *_commands(parts, settings),
        *drive_paths(parts, settings),
        *account_paths(parts, settings),
        *_house(parts, settings),
    ]


def _byte_paths(parts: Parts, settings: Settings) -> list[Route]:
    """First in the table, because they are asked for most."""
    limits = BodyLimits(
        max_chunk_size=settings.max_chunk_size,
        idle_seconds=settings.upload_idle_seconds,
        min_rate=settings.upload_min_rate,
    )

    rows = ChunkRows(parts.database, quota_bytes=settings.quota_bytes)

    def receive(format: Format) -> ReceiveChunk:
        return ReceiveChunk(
            format,
            gate=parts.upload_gate,
            identity=parts.identity,
            database=parts.database,
            store=parts.store,
            metrics=parts.metrics,
            rows=rows,
            quota_bytes=settings.quota_bytes,
        )

    def new_spool() -> Spool:
        return Spool(parts.spool_dir, threads=parts.threads, most_bytes=settings.max_chunk_size)

    objects = ReadAhead(parts.store, ahead=settings.download_readahead)

    def send(shape: Callable[[FoundChunk], shapes.Format]) -> SendChunk:
        return SendChunk(
            shape,
            gate=parts.download_gate,
            identity=parts.identity,
            database=parts.database,
            objects=objects,
            metrics=parts.metrics,
            stall_seconds=settings.download_stall_seconds,
        )

    send_file = SendFile(
        gate=parts.download_gate,
        identity=parts.identity,
        database=parts.database,
        objects=objects,
        metrics=parts.metrics,
        stall_seconds=settings.download_stall_seconds,
    )
    return [
        Route("/drive/upload_chunk_binary", receive(RawChunk(limits)), methods=["POST"]),
        Route("/drive/files/{file_id}/upload-chunk", receive(MultipartChunk(limits)), methods=["POST"]),
        Route("/drive/upload_chunk", receive(JsonChunk(limits, new_spool=new_spool)), methods=["POST"]),
        Route("/drive/download_chunk_binary/{s3_key}", send(shapes.RawChunk), methods=["GET"]),
        Route("/drive/download_chunk/{s3_key}", send(shapes.JsonChunk), methods=["GET"]),
        Route("/drive/download/{file_id}", send_file, methods=["GET"]),
        Route("/drive/files/{file_id}/download", send_file, methods=["GET"]),
    ]


def _commands(parts: Parts, settings: Settings) -> list[Route]:
    uploads = Uploads(
        identity=parts.identity,
        database=parts.database,
        removal=parts.removal,
        metrics=parts.metrics,
        quota_bytes=settings.quota_bytes,
        max_chunk_size=settings.max_chunk_size,
        ttl=timedelta(hours=settings.upload_ttl_hours),
        check_bytes=settings.finalize_check == "explained",
    )
    send_info = SendFileInfo(
        identity=parts.identity,
        database=parts.database,
        metrics=parts.metrics,
        stall_seconds=settings.download_stall_seconds,
    )
    return [
        Route("/drive/initialize_file", uploads.initialize, methods=["POST"]),
        Route("/drive/files/initialize", uploads.initialize, methods=["POST"]),
        Route("/drive/files/{file_id}/upload", uploads.received, methods=["GET"]),
        Route("/drive/finalize_upload/{file_id}/{etat}", uploads.finalize, methods=["POST"]),
        Route("/drive/abort_upload", uploads.abort, methods=["POST"]),
        Route("/drive/file/{file_id}", send_info, methods=["GET"]),
        Route("/drive/files/{file_id}", send_info, methods=["GET"]),
    ]


def _house(parts: Parts, settings: Settings) -> list[Route]:
    return [Route("/", _about, methods=["GET"]), *_probes(parts, settings)]


def _probes(parts: Parts, settings: Settings) -> list[Route]:
    health = Health(checks={"database": parts.database.check, "store": parts.store.check}, draining=parts.draining)
    numbers = Numbers(parts.metrics, token=settings.metrics_token)
    return [
        Route("/health/live", health.live, methods=["GET"]),
        Route("/health/ready", health.ready, methods=["GET"]),
        Route("/metrics", numbers.metrics, methods=["GET"]),
    ]


def compose_probes(parts: Parts, settings: Settings) -> ASGIApp:
    """What operators ask, and nothing else."""
    refuse = Middleware(AnswerErrors, count=lambda code: parts.metrics.errors.labels(code).inc())
    return _App(routes=_probes(parts, settings), middleware=[refuse])


async def _about(request: Request) -> Response:
    return JSONResponse({"service": "gauzian", "version": __version__, "what": "end-to-end-encrypted drive backend"})
