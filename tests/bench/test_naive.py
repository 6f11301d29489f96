"""The naive handler speaks as ours does, or comparing them would mean nothing."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any, cast

import pytest
from minio import Minio

from gauzian.errors import ASGIApp
from tests.asgi import Answer, call
from tests.bench.naive import MOST_CHUNK_BYTES, PLACES, Naive
from tests.service import IV, running_service

pytestmark = pytest.mark.anyio
CHUNK = b"ciphertext" * 10


class Bucket:
    """As much of minio's client as the handler uses."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put_object(self, bucket: str, key: str, data: Any, length: int) -> None:
        self.objects[key] = data.read(length)

    def remove_objects(self, bucket: str, keys: list[Any]) -> list[Any]:
        for key in keys:
            del self.objects[key.name]
        return []


def naive_on(bucket: Bucket, *, asks_first: bool = False) -> Naive:
    return Naive(cast(Minio, bucket), "bucket", asks_first=asks_first)


async def upload_to(app: ASGIApp, file_id: str, token: str, body: bytes = CHUNK) -> Answer:
    path = f"/drive/upload_chunk_binary?file_id={file_id}&index=0&iv={IV}"
    return await call(app, "POST", path, headers={"Authorization": f"Bearer {token}"}, body=body)


async def signed_up(app: ASGIApp) -> tuple[str, str]:
    """A token and an open upload."""
    token = (await call(app, "POST", "/register", json={"username": "someone"})).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    answer = await call(app, "POST", "/drive/initialize_file", headers=headers, json={"size": 100})
    return token, answer.json()["file_id"]


async def test_a_chunk_is_answered_as_ours_answers_it(database_url: str, tmp_path: Path) -> None:
    bucket = Bucket()
    app = cast(ASGIApp, naive_on(bucket).app())
    token, file_id = await signed_up(app)
    naive = await upload_to(app, file_id, token)
    async with running_service(database_url, tmp_path) as service:
        user = await service.sign_up()
        ours = await user.put(await user.initialize(len(CHUNK)), 0, CHUNK)
        too_large = await user.put(await user.initialize(1), 0, bytes(MOST_CHUNK_BYTES + 1))
        unknown = await upload_to(service.app, file_id, "nobody")
    assert (naive.status, naive.json()["data_hash"]) == (ours.status, ours.json()["data_hash"])
    assert naive.json()["data_hash"] == hashlib.sha256(CHUNK).hexdigest()
    assert list(bucket.objects.values()) == [CHUNK]
    same = await upload_to(app, file_id, token, bytes(MOST_CHUNK_BYTES + 1))
    assert (same.status, same.json()["code"]) == (too_large.status, too_large.json()["code"])
    assert (await upload_to(app, file_id, "nobody")).status == unknown.status == 401


@pytest.mark.parametrize("asks_first", [False, True])
async def test_it_is_busy_with_as_many_places_and_the_same_words(asks_first: bool) -> None:
    naive = naive_on(Bucket(), asks_first=asks_first)
    app = cast(ASGIApp, naive.app())
    token, file_id = await signed_up(app)
    for _ in range(PLACES - 1):
        await naive.places.acquire()
    assert (await upload_to(app, file_id, token)).status == 200
    await naive.places.acquire()
    answer = await asyncio.wait_for(upload_to(app, file_id, token), 5)
    told = answer.json()
    assert (answer.status, told["error"], told["code"]) == (400, "Server busy, please retry", "uploads_busy")


async def test_an_aborted_upload_leaves_nothing_in_the_bucket() -> None:
    bucket = Bucket()
    app = cast(ASGIApp, naive_on(bucket).app())
    token, file_id = await signed_up(app)
    assert (await upload_to(app, file_id, token)).status == 200
    headers = {"Authorization": f"Bearer {token}"}
    assert (await call(app, "POST", "/drive/abort_upload", headers=headers, json={"file_id": file_id})).status == 200
    assert bucket.objects == {}
