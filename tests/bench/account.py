"""The bench as an ordinary user of the service: registers, opens uploads, finishes and aborts them."""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.bench.payload import CHUNK_BYTES, MIB
from tests.bench.plan import NUMBER, Group

IV = "AAAAAAAAAAAAAAAA"
PASSWORD = "Bench-Password-1"
BOUNDARY = "gauzian-bench"
PATIENCE_SECONDS = 60.0


class Unexpected(Exception):
    """The service answered what an ordinary client cannot go on with."""


def connect(port: int, *, seconds: float = 120.0, tls: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
    if tls is None:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    return http.client.HTTPSConnection("localhost", port, timeout=seconds, context=tls)


def ask(
    port: int,
    method: str,
    path: str,
    body: object = None,
    token: str | None = None,
    *,
    seconds: float = 120.0,
    tls: ssl.SSLContext | None = None,
) -> tuple[int, Any]:
    """One request on a connection of its own; JSON is decoded, other text is not."""
    connection = connect(port, seconds=seconds, tls=tls)
    try:
        headers = {"Content-Type": "application/json"} if isinstance(body, dict) else {}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        connection.request(method, path, data, headers)  # type: ignore[arg-type]
        answer = connection.getresponse()
        text = answer.read()
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(text)
        return answer.status, text.decode("utf-8", "replace")
    finally:
        connection.close()


@dataclass(frozen=True)
class User:
    port: int
    token: str
    tls: ssl.SSLContext | None = None

    @classmethod
    def register(cls, port: int, *, tls: ssl.SSLContext | None = None) -> User:
        """A new user; waits where the service asks for patience."""
        name = "bench-" + secrets.token_hex(8)
        fields = {"email": f"{name}@example.org", "username": name, "password": PASSWORD}
        keys = ("encrypted_private_key", "public_key", "private_key_salt", "iv", "encrypted_record_key")
        fields |= dict.fromkeys(keys, "AAAA")
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            status, answer = ask(port, "POST", "/register", fields, tls=tls)
            if status not in (429, 503) or time.monotonic() > until:
                break
            time.sleep(1)
        if status not in (200, 201) or not isinstance(answer, dict):
            raise Unexpected(f"register: {status} {answer}")
        return cls(port, answer["token"], tls)

    def call(self, method: str, path: str, body: object = None) -> Any:
        status, answer = ask(self.port, method, path, body, self.token, tls=self.tls)
        if status not in (200, 201):
            raise Unexpected(f"{method} {path.split('?')[0]}: {status} {answer}")
        return answer

    def initialize(self, size: int) -> str:
        fields = {
            "size": size,
            "encrypted_metadata": "AAAA",
            "mime_type": "application/octet-stream",
            "folder_id": "root",
        }
        answer = self.call("POST", "/drive/initialize_file", fields | {"encrypted_file_key": "AAAA"})
        return str(answer["file_id"])

    def abort(self, file_id: str) -> None:
        self.call("POST", "/drive/abort_upload", {"file_id": file_id})

    @contextlib.contextmanager
    def upload(self, size: int) -> Iterator[str]:
        """An upload that is taken back in the end: the bench does not fill the disk."""
        file_id = self.initialize(size)
        try:
            yield file_id
        finally:
            self.abort(file_id)

    def store_file(self, payload: bytes, chunks: int) -> str:
        """A finished file of so many equal chunks."""
        file_id = self.initialize(len(payload) * chunks)
        for index in range(chunks):
            self.call("POST", f"/drive/upload_chunk_binary?file_id={file_id}&index={index}&iv={IV}", payload)
        self.call("POST", f"/drive/finalize_upload/{file_id}/completed")
        return file_id

    def delete_file(self, file_id: str) -> None:
        """Into the trash, and out of it for good. Best effort: the data directory goes away anyway."""
        for _ in range(2):
            ask(self.port, "DELETE", f"/drive/files/{file_id}", None, self.token)

    @property
    def authorization(self) -> str:
        return f"Authorization: Bearer {self.token}"

    # -- what a crowd of this user's clients sends

    def raw_chunks(self, file_id: str, clients: int, *, payload: int = CHUNK_BYTES, **more: Any) -> Group:
        target = f"POST /drive/upload_chunk_binary?file_id={file_id}&index={NUMBER}&iv={IV}"
        headers = (self.authorization, "Content-Type: application/octet-stream")
        more.setdefault("check_digest", payload <= CHUNK_BYTES)
        return Group(file_id, clients, target, headers, payload=payload, **more)

    def json_chunks(self, file_id: str, clients: int) -> Group:
        return Group(
            file_id,
            clients,
            "POST /drive/upload_chunk",
            (self.authorization, "Content-Type: application/json"),
            prefix=f'{{"file_id":"{file_id}","index":{NUMBER},"iv":"{IV}","chunk_data":"',
            payload=CHUNK_BYTES,
            base64=True,
            suffix='"}',
            check_digest=True,
        )

    def multipart_chunks(self, file_id: str, clients: int) -> Group:
        def text(name: str, value: str) -> str:
            return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'

        chunk = (
            'Content-Disposition: form-data; name="chunk"; filename="blob"\r\nContent-Type: application/octet-stream'
        )
        return Group(
            file_id,
            clients,
            f"POST /drive/files/{file_id}/upload-chunk",
            (self.authorization, f"Content-Type: multipart/form-data; boundary={BOUNDARY}"),
            prefix=text("index", NUMBER) + text("iv", IV) + f"--{BOUNDARY}\r\n{chunk}\r\n\r\n",
            payload=CHUNK_BYTES,
            suffix=f"\r\n--{BOUNDARY}--\r\n",
            check_digest=True,
        )

    def downloads(self, file_id: str, clients: int, **more: Any) -> Group:
        return Group(
            file_id, clients, f"GET /drive/download/{file_id}", (self.authorization,), check_bytes=True, **more
        )


DOWNLOAD_CHUNKS = 4
DOWNLOAD_BYTES = DOWNLOAD_CHUNKS * CHUNK_BYTES
assert DOWNLOAD_BYTES == 40 * MIB
