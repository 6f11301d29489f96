"""What both generations have in common; every call stands in the client's own table, with what it reads."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, ClassVar
from urllib.parse import quote

from tests.e2e.clients import sealed, shapes
from tests.e2e.clients.browser import Browser, Reply
from tests.e2e.clients.shapes import Shape

Rows = dict[str, Shape]


class Refused(Exception):
    """fetch() was answered, but not with 2xx."""

    def __init__(self, call: str, reply: Reply) -> None:
        super().__init__(f"{call}: {reply.status} {reply.body[:300]!r}")
        self.status = reply.status
        self.fields: dict[str, Any] = reply.json()  # clients read .error: it must be JSON
        shapes.check(self.fields, {"error": str, "code": str})


def encoded(value: str) -> str:
    """encodeURIComponent."""
    return quote(value, safe="!'()*~")


class DriveClient:
    """One page of the web client. `called` counts the answered calls by row of `ROWS`; no other call is possible."""

    ROWS: ClassVar[Rows] = {}
    COOKIES: ClassVar[bool]

    def __init__(self, browser: Browser, *, name: str) -> None:
        self.browser = browser
        self.name = name
        self.email = f"{name}@Example.org"
        self.user_id = ""
        self.keys: dict[str, str] = {}
        self.called: Counter[str] = Counter()

    async def call(
        self,
        row: str,
        *path: str,
        fields: dict[str, Any] | None = None,
        query: str = "",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        reads: Shape = None,
    ) -> Any:
        """`row` is a key of the table; `path` fills its braces. Returns the JSON, checked; raises Refused."""
        reply = await self.fetch(row, *path, fields=fields, query=query, body=body, headers=headers)
        if not reply.ok:
            raise Refused(row, reply)
        answer = reply.json()
        shapes.check(answer, self.ROWS[row] if reads is None else reads, row)
        self.called[row] += 1
        return answer

    async def fetch(
        self,
        row: str,
        *path: str,
        fields: dict[str, Any] | None = None,
        query: str = "",
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        assert row in self.ROWS, f"this client never calls {row}"
        method, template = row.split(" ", 1)
        pieces = template.split("{}")
        assert len(pieces) == len(path) + 1, row
        url = pieces[0] + "".join(encoded(value) + piece for value, piece in zip(path, pieces[1:], strict=True))
        given = self.headers_for(fields is not None) | (headers or {})
        if fields is not None:
            body = json.dumps(fields).encode()
        return await self.browser.fetch(method, url + query, headers=given, body=body, credentials=self.COOKIES)

    def headers_for(self, has_json: bool) -> dict[str, str]:
        return {"Content-Type": "application/json"} if has_json else {}

    # -- what both send in the same words

    async def login(self) -> dict[str, Any]:
        answer: dict[str, Any] = await self.call(
            "POST /login", fields={"email": self.email, "password": sealed.PASSWORD}
        )
        return answer

    async def autologin(self) -> bool:
        reply = await self.fetch("GET /autologin")
        if reply.ok:
            self.called["GET /autologin"] += 1
        return reply.ok

    async def open_folder(self, folder_id: str) -> dict[str, Any]:
        reads = shapes.TRASH if folder_id == "corbeille" else shapes.VIEW
        answer: dict[str, Any] = await self.call("GET /drive/get_file_folder/{}", folder_id, reads=reads)
        return answer

    async def list_folders(self, folder_id: str) -> list[dict[str, Any]]:
        """The tree at the left: one level of it."""
        answer = await self.call("GET /drive/get_folder/{}", folder_id)
        return list(answer["folder_contents"])

    async def contents(self, folder_id: str) -> list[dict[str, Any]]:
        return list((await self.call("GET /drive/folder_contents/{}", folder_id))["contents"])

    async def create_folder(self, name: str, parent_id: str) -> str:
        """And at once its key to everybody who sees the parent."""
        fields = {
            "encrypted_metadata": sealed.metadata(folder_name=name),
            "parent_folder_id": parent_id,  # verbatim: whatever view is open
            "encrypted_folder_key": sealed.wrapped_key(),
        }
        folder_id = str((await self.call("POST /drive/create_folder", fields=fields))["folder_id"])
        await self._share_with_members(parent_id, "POST /drive/propagate_folder_access", "folder_id", folder_id)
        return folder_id

    async def initialize(self, name: str, content: bytes, folder_id: str) -> str:
        fields = {
            "size": len(content),  # of the plaintext
            "encrypted_metadata": sealed.metadata(
                filename=name, size=len(content), mime_type="text/plain", last_modified=1772442847512
            ),
            "mime_type": "text/plain",
            "folder_id": folder_id,
            "encrypted_file_key": sealed.wrapped_key(),
        }
        file_id = str((await self.call("POST /drive/initialize_file", fields=fields))["file_id"])
        await self._share_with_members(folder_id, "POST /drive/propagate_file_access", "file_id", file_id)
        return file_id

    async def _share_with_members(self, parent_id: str, row: str, field: str, item_id: str) -> None:
        if not shapes.uuid(parent_id):
            return
        members = (await self.call("GET /drive/folder/{}/shared_users", parent_id))["shared_users"]
        if members:
            keys = [
                {
                    "user_id": member["user_id"],
                    "encrypted_key": sealed.wrapped_key(),
                    "access_level": member["access_level"],
                }
                for member in members
            ]
            await self.call(row, fields={field: item_id, "user_keys": keys})

    async def upload_chunk(self, file_id: str, index: int, iv: str, stored: bytes) -> None:
        raise NotImplementedError

    def retries(self, error: Exception) -> bool:
        """Whether a chunk is tried again after this."""
        raise NotImplementedError

    async def finalize(self, file_id: str, outcome: str) -> None:
        await self.call("POST /drive/finalize_upload/{}/{}", file_id, outcome)

    async def abort(self, file_id: str) -> None:
        await self.call("POST /drive/abort_upload", fields={"file_id": file_id})

    async def file_info(self, file_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = await self.call("GET /drive/file/{}", file_id)
        return answer

    async def download_chunk(self, s3_key: str) -> bytes:
        """The plaintext of one chunk."""
        row = "GET /drive/download_chunk_binary/{}"
        reply = await self.fetch(row, s3_key)
        if not reply.ok:
            raise Refused(row, reply)
        iv = reply.headers.get("x-chunk-iv", "")
        assert shapes.base64_text(iv), "without its iv a chunk cannot be decrypted"
        self.called[row] += 1
        return sealed.unseal(reply.body)

    async def restore(self, kind: str, item_id: str) -> None:
        await self.call(f"POST /drive/restore_{kind}", fields={f"{kind}_id": item_id})

    async def empty_trash(self) -> None:
        await self.call("POST /drive/empty_trash")

    async def find_contact(self, email: str) -> dict[str, Any]:
        answer: dict[str, Any] = await self.call("GET /contacts/get_public_key/{}", email)
        return answer

    async def share_folder(self, folder_id: str, contact_id: str, access_level: str | None) -> None:
        """The folder and everything in it, as the contents say, each with its key wrapped anew."""
        items = await self.contents(folder_id)
        folders = [folder_id] + [item["folder_id"] for item in items if item["type"] == "folder"]
        files = [item["file_id"] for item in items if item["type"] == "file"]
        fields = {
            "folder_id": folder_id,
            "contact_id": contact_id,
            "folder_keys": [{"folder_id": id, "encrypted_folder_key": sealed.wrapped_key()} for id in folders],
            "file_keys": [{"file_id": id, "encrypted_file_key": sealed.wrapped_key()} for id in files],
        }
        if access_level is not None:
            fields["access_level"] = access_level
        await self.call("POST /drive/share_folder_batch", fields=fields)

    async def info_panel(self, kind: str, item_id: str) -> list[dict[str, Any]]:
        return list((await self.call(f"GET /drive/{kind}/{{}}/InfoItem", item_id))["shared_users"])

    async def revoke(self, kind: str, item_id: str, contact_id: str) -> None:
        fields = {"item_type": kind, "item_id": item_id, "contact_id": contact_id}
        await self.call("POST /drive/revoke-access", fields=fields)
