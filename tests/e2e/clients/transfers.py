"""How both clients move files: what is cut, what goes in parallel, what is tried again, and what follows a failure."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass, field

from tests.e2e.clients import sealed
from tests.e2e.clients.base import DriveClient, Refused
from tests.e2e.clients.browser import NetworkError

FILES_AT_ONCE = 3
CHUNKS_AT_ONCE = 3  # of one file
ATTEMPTS = 3


@dataclass
class Upload:
    name: str
    content: bytes
    file_id: str = ""
    state: str = "waiting"  # uploading, then finished, failed or aborted
    lost: list[int] = field(default_factory=list)  # chunks given up
    sent: int = 0  # requests for chunks

    @property
    def chunks(self) -> int:
        return math.ceil(len(self.content) / sealed.CHUNK_BYTES)


class Transfers:
    """`pace` is how long the client's pauses are here: 1.0 in the browser, next to nothing in a test."""

    def __init__(self, client: DriveClient, *, pace: float = 0.001) -> None:
        self._client = client
        self._pace = pace

    async def upload_all(self, files: dict[str, bytes], folder_id: str) -> list[Upload]:
        """Three at a time. One that cannot be initialized raises: the client has no better idea."""
        uploads = [Upload(name, content) for name, content in files.items()]
        places = asyncio.Semaphore(FILES_AT_ONCE)

        async def one(upload: Upload) -> None:
            async with places:
                await self.upload(upload, folder_id)

        await asyncio.gather(*(one(upload) for upload in uploads))
        return uploads

    async def upload(self, upload: Upload, folder_id: str) -> None:
        upload.file_id = await self._client.initialize(upload.name, upload.content, folder_id)
        upload.state = "uploading"
        waiting = list(range(upload.chunks))

        async def worker() -> None:
            while waiting and upload.state == "uploading":
                index = waiting.pop(0)
                try:
                    await self._send_chunk(upload, index)
                    await asyncio.sleep(0.05 * self._pace)
                except (Refused, NetworkError):
                    upload.lost.append(index)  # logged, and on to the next one

        await asyncio.gather(*(worker() for _ in range(CHUNKS_AT_ONCE)))
        if upload.state == "uploading":
            await self._finalize(upload)

    async def cancel(self, upload: Upload) -> None:
        """Both ways to abort, at the same time, and the first one again if it does not like it."""
        upload.state = "aborted"
        await asyncio.gather(self._client.abort(upload.file_id), self._client.finalize(upload.file_id, "aborted"))

    async def download(self, file_id: str) -> bytes:
        """One chunk after the other, in the order of the list, glued together unseen."""
        info = await self._client.file_info(file_id)
        return b"".join([await self._fetch_chunk(chunk["s3_key"]) for chunk in info["chunks"]])

    async def zip(self, folder_id: str) -> dict[str, bytes]:
        """Path and name to content, for every file that can be put into the archive."""
        archive = {}
        for item in await self._client.contents(folder_id):
            if item["type"] == "file":
                name = item["path"] + sealed.name_in(item["encrypted_metadata"])
                assert name not in archive, f"{name} would be overwritten"
                archive[name] = b"".join([await self._fetch_chunk(chunk["s3_key"]) for chunk in item["chunks"]])
        return archive

    async def _send_chunk(self, upload: Upload, index: int) -> None:
        """Encrypted once: the same bytes under the same iv in every attempt."""
        start = index * sealed.CHUNK_BYTES
        stored, iv = sealed.seal(upload.content[start : start + sealed.CHUNK_BYTES]), sealed.new_iv()
        for attempt in range(ATTEMPTS):
            upload.sent += 1
            try:
                await self._client.upload_chunk(upload.file_id, index, iv, stored)
                return
            except (Refused, NetworkError) as error:
                if attempt == ATTEMPTS - 1 or not self._client.retries(error):
                    raise
                await self._back_off(attempt)

    async def _fetch_chunk(self, s3_key: str) -> bytes:
        attempt = 0
        while True:
            try:
                return await self._client.download_chunk(s3_key)
            except (Refused, NetworkError) as error:
                attempt += 1
                if attempt == ATTEMPTS or not self._client.retries(error):
                    raise
                await self._back_off(attempt - 1)

    async def _finalize(self, upload: Upload) -> None:
        """Once. Whatever is said against it makes the client abort, without a word to the user."""
        try:
            await self._client.finalize(upload.file_id, "completed")
            upload.state = "finished"
        except (Refused, NetworkError):
            upload.state = "failed"
            await self._client.finalize(upload.file_id, "aborted")

    async def _back_off(self, attempt: int) -> None:
        await asyncio.sleep((2**attempt + random.random() / 2) * self._pace)
