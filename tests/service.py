"""The whole application in this process, on a database and a store of its own, and a client that speaks to it without a
server.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gauzian.assembly.parts import Parts, open_parts
from gauzian.assembly.urls import compose
from gauzian.errors import ASGIApp
from gauzian.settings import Settings
from tests.asgi import Answer, call
from tests.postgres import MIGRATIONS

PASSWORD = "Correct-Horse-42"
IV = base64.b64encode(bytes(12)).decode()
NO_FILE = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True)
class Service:
    app: ASGIApp
    parts: Parts

    async def call(self, method: str, path: str, **more: Any) -> Answer:
        return await call(self.app, method, path, **more)

    async def sign_up(self) -> User:
        name = "u" + secrets.token_hex(6)
        keys = ("encrypted_private_key", "public_key", "private_key_salt", "iv", "encrypted_record_key")
        answer = await self.call(
            "POST",
            "/register",
            json={"email": f"{name}@example.org", "username": name, "password": PASSWORD} | dict.fromkeys(keys, "AAAA"),
            client=(f"10.{secrets.randbelow(255)}.{secrets.randbelow(255)}.{secrets.randbelow(255)}", 4711),
        )
        assert answer.status in (200, 201), answer.body
        return User(self, answer.json()["token"], f"{name}@example.org")


@dataclass(frozen=True)
class User:
    """A signed-in client."""

    service: Service
    token: str
    email: str

    async def call(self, method: str, path: str, *, headers: dict[str, str] | None = None, **more: Any) -> Answer:
        given = {"Authorization": f"Bearer {self.token}"} | (headers or {})
        return await self.service.call(method, path, headers=given, **more)

    async def initialize(self, size: int, **more: Any) -> str:
        fields = {
            "size": size,
            "encrypted_metadata": "bWV0YQ==",
            "mime_type": "text/plain",
            "folder_id": "root",
            "encrypted_file_key": "a2V5",
        }
        answer = await self.call("POST", "/drive/initialize_file", json=fields | more)
        assert answer.status == 200, answer.body
        return str(answer.json()["file_id"])

    async def put(self, file_id: str, index: int, content: bytes, *, iv: str = IV, **more: Any) -> Answer:
        path = f"/drive/upload_chunk_binary?file_id={file_id}&index={index}&iv={iv}"
        return await self.call("POST", path, body=content, **more)

    async def put_json(self, file_id: str, index: int, content: bytes, **more: Any) -> Answer:
        fields = {"index": index, "chunk_data": base64.b64encode(content).decode(), "file_id": file_id, "iv": IV}
        return await self.call("POST", "/drive/upload_chunk", json=fields, **more)

    async def put_multipart(
        self, file_id: str, index: int, content: bytes, *, headers: dict[str, str] | None = None
    ) -> Answer:
        parts = [
            ('name="chunk"; filename="blob"\r\nContent-Type: application/octet-stream', content),
            ('name="chunk_index"', str(index).encode()),
            ('name="iv"', IV.encode()),
        ]
        body = b"".join(
            b"--frontier\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + data + b"\r\n"
            for head, data in parts
        )
        given = {"Content-Type": "multipart/form-data; boundary=frontier"} | (headers or {})
        return await self.call(
            "POST", f"/drive/files/{file_id}/upload-chunk", headers=given, body=body + b"--frontier--\r\n"
        )

    async def finalize(self, file_id: str, state: str = "completed") -> Answer:
        return await self.call("POST", f"/drive/finalize_upload/{file_id}/{state}")

    async def abort(self, file_id: str) -> Answer:
        return await self.call("POST", "/drive/abort_upload", json={"file_id": file_id})

    async def received(self, file_id: str) -> Any:
        answer = await self.call("GET", f"/drive/files/{file_id}/upload")
        assert answer.status == 200, answer.body
        return answer.json()

    async def store(self, content: bytes, *, chunk: int = 1024) -> str:
        """A whole file, finalized."""
        file_id = await self.initialize(len(content))
        for index, start in enumerate(range(0, len(content), chunk)):
            answer = await self.put(file_id, index, content[start : start + chunk])
            assert answer.status == 200, answer.body
            assert answer.json()["data_hash"] == hashlib.sha256(content[start : start + chunk]).hexdigest()
        assert (await self.finalize(file_id)).status == 200
        return file_id


@asynccontextmanager
async def running_service(database_url: str, data_dir: Path, **settings: Any) -> AsyncIterator[Service]:
    """No server, no reaping in the background, everything else as in production."""
    given = Settings(database_url=database_url, data_dir=data_dir, **settings)
    async with open_parts(given, migrations=MIGRATIONS, background=False) as parts:
        yield Service(compose(parts, given), parts)


async def objects_of(service: Service) -> set[str]:
    """The keys of all objects in the store."""
    return {item.key async for item in service.parts.store.list()}
