"""The naive handler: what many would write first, as something to compare with. Nobody should run it as a service.

Starlette on stock Hypercorn with its defaults, one process. The body is read whole, `put_object` of minio sends it
from a thread, rows live in a dict. Its limits are ours: 10 MiB a chunk, 50 places, more get 400 "Server busy". It asks
for a place where frameworks lead one to: `body: bytes` as a handler's argument is read before the handler's first
line. NAIVE_ASKS=first is the more careful form: the place before the body.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import secrets
import uuid
from urllib.parse import urlsplit

from hypercorn.asyncio import serve
from hypercorn.config import Config
from hypercorn.typing import ASGIFramework
from minio import Minio
from minio.deleteobjects import DeleteObject
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

MOST_CHUNK_BYTES = 10 * 1024 * 1024
PLACES = 50


class Naive:
    """All of it: users, files and their chunks in dicts, one client for the object store, fifty places."""

    def __init__(self, client: Minio, bucket: str, *, asks_first: bool = False) -> None:
        self.client, self.bucket, self.asks_first = client, bucket, asks_first
        self.places = asyncio.Semaphore(PLACES)
        self.users: dict[str, str] = {}  # token: name
        self.files: dict[str, dict[int, str]] = {}  # file: index: key

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/register", self.register, methods=["POST"]),
                Route("/drive/initialize_file", self.initialize, methods=["POST"]),
                Route("/drive/upload_chunk_binary", self.upload, methods=["POST"]),
                Route("/drive/abort_upload", self.abort, methods=["POST"]),
                Route("/health/live", self.health),
                Route("/health/ready", self.health),
            ]
        )

    async def upload(self, request: Request) -> Response:
        if not self.is_known(request):
            return failed(401, "unauthorized")
        if int(request.headers.get("content-length", 0)) > MOST_CHUNK_BYTES:
            return failed(413, "chunk_too_large")
        if self.asks_first:
            if self.places.locked():
                return busy()
            async with self.places:
                return await self.store(request, await request.body())
        body = await request.body()
        if self.places.locked():
            return busy()
        async with self.places:
            return await self.store(request, body)

    async def store(self, request: Request, body: bytes) -> Response:
        file_id, index = request.query_params["file_id"], int(request.query_params["index"])
        if file_id not in self.files:
            return failed(404, "file_not_found")
        if len(body) > MOST_CHUNK_BYTES:
            return failed(413, "chunk_too_large")
        key = f"{file_id}/{index}"
        digest = await run_in_threadpool(self.put, key, body)
        self.files[file_id][index] = key
        return JSONResponse({"s3_id": key, "index": str(index), "data_hash": digest})

    def put(self, key: str, body: bytes) -> str:
        self.client.put_object(self.bucket, key, io.BytesIO(body), len(body))
        return hashlib.sha256(body).hexdigest()

    # -- what the bench needs beside it

    def is_known(self, request: Request) -> bool:
        return request.headers.get("authorization", "").removeprefix("Bearer ") in self.users

    async def register(self, request: Request) -> Response:
        token = secrets.token_urlsafe(32)
        self.users[token] = (await request.json())["username"]
        return JSONResponse({"token": token})

    async def initialize(self, request: Request) -> Response:
        if not self.is_known(request):
            return failed(401, "unauthorized")
        file_id = str(uuid.uuid4())
        self.files[file_id] = {}
        return JSONResponse({"file_id": file_id})

    async def abort(self, request: Request) -> Response:
        if not self.is_known(request):
            return failed(401, "unauthorized")
        chunks = self.files.pop((await request.json())["file_id"], {})
        await run_in_threadpool(self.remove, list(chunks.values()))
        return JSONResponse({"status": "aborted"})

    def remove(self, keys: list[str]) -> None:
        for error in self.client.remove_objects(self.bucket, [DeleteObject(key) for key in keys]):
            print(f"not removed: {error}", flush=True)

    async def health(self, request: Request) -> Response:
        return PlainTextResponse("OK")


def busy() -> Response:
    return failed(400, "uploads_busy", "Server busy, please retry")


def failed(status: int, code: str, text: str = "") -> Response:
    return JSONResponse({"error": text or code, "code": code}, status)


def main() -> None:
    address = urlsplit(os.environ["S3_ENDPOINT"]).netloc
    key, secret = os.environ["S3_ACCESS_KEY"], os.environ["S3_SECRET_KEY"]
    client = Minio(address, access_key=key, secret_key=secret, region="us-east-1", secure=False)
    bucket = os.environ["S3_BUCKET"] + "-naive"
    if not client.bucket_exists(bucket):
        client.make_bucket(bucket)
    config = Config()
    config.bind = [f"127.0.0.1:{os.environ.get('PORT', '0')}"]

    async def run() -> None:
        naive = Naive(client, bucket, asks_first=os.environ.get("NAIVE_ASKS") == "first")
        app: ASGIFramework = naive.app()  # type: ignore[assignment]
        await serve(app, config)

    asyncio.run(run())


if __name__ == "__main__":
    main()
