"""Client A, of the first generation: signed in by the cookie, a POST for everything that changes something."""

from __future__ import annotations

from typing import Any, ClassVar

from tests.e2e.clients import sealed, shapes
from tests.e2e.clients.base import DriveClient, Refused, Rows, encoded
from tests.e2e.clients.browser import NetworkError

_ANY: Any = object  # only that it was answered is read


class ClientA(DriveClient):
    COOKIES = True
    ROWS: ClassVar[Rows] = {
        "GET /autologin": _ANY,
        "POST /login": {name: shape for name, shape in shapes.SIGNED_IN.items() if name != "token"},
        "POST /register": _ANY,
        "GET /info": {
            "id": shapes.uuid,
            "username": str,
            "public_key": str,
            "encrypted_private_key": shapes.base64_text,
            "iv": shapes.base64_text,
            "private_key_salt": shapes.base64_text,
        },
        "GET /drive/get_all_drive_info/{}": shapes.VIEW,
        "GET /drive/get_file_folder/{}": shapes.VIEW,
        "GET /drive/get_folder/{}": shapes.FOLDERS,
        "POST /drive/create_folder": {"folder_id": shapes.uuid},
        "POST /drive/delete_file": _ANY,
        "POST /drive/delete_folder": _ANY,
        "POST /drive/rename_file": _ANY,
        "POST /drive/rename_folder": _ANY,
        "POST /drive/move_file": _ANY,
        "POST /drive/move_folder": _ANY,
        "POST /drive/restore_file": _ANY,
        "POST /drive/restore_folder": _ANY,
        "POST /drive/empty_trash": _ANY,
        "GET /drive/folder_contents/{}": shapes.CONTENTS,
        "GET /contacts/get_public_key/{}": {"id": shapes.uuid, "public_key": str},
        "POST /drive/share_file": _ANY,
        "POST /drive/share_folder_batch": _ANY,
        "GET /drive/file/{}/InfoItem": shapes.INFO_ITEM,
        "GET /drive/folder/{}/InfoItem": shapes.INFO_ITEM,
        "POST /drive/revoke-access": _ANY,
        "GET /drive/folder/{}/shared_users": shapes.MEMBERS,
        "POST /drive/propagate_file_access": _ANY,
        "POST /drive/propagate_folder_access": _ANY,
        "POST /drive/initialize_file": {"file_id": shapes.uuid},
        "POST /drive/upload_chunk_binary": shapes.STORED_CHUNK,
        "POST /drive/finalize_upload/{}/{}": _ANY,
        "POST /drive/abort_upload": _ANY,
        "GET /drive/file/{}": shapes.FILE_INFO,
        "GET /drive/download_chunk_binary/{}": _ANY,
    }

    async def register(self) -> None:
        self.keys = sealed.keyring()
        fields = {"email": self.email, "username": self.name, "password": sealed.PASSWORD}
        await self.call("POST /register", fields=fields | self.keys)
        self.user_id = str((await self.info())["id"])

    async def info(self) -> dict[str, Any]:
        answer: dict[str, Any] = await self.call("GET /info")
        return answer

    async def load(self, folder_id: str = "root") -> dict[str, Any]:
        """The first view after the page was opened."""
        answer: dict[str, Any] = await self.call("GET /drive/get_all_drive_info/{}", folder_id)
        return answer

    async def delete(self, kind: str, item_id: str) -> None:
        await self.call(f"POST /drive/delete_{kind}", fields={f"{kind}_id": item_id})

    async def rename(self, kind: str, item_id: str, encrypted: str) -> None:
        fields = {f"{kind}_id": item_id, "new_encrypted_metadata": encrypted}
        await self.call(f"POST /drive/rename_{kind}", fields=fields)

    async def move(self, kind: str, item_id: str, folder_id: str) -> None:
        fields = {f"{kind}_id": item_id, "new_parent_folder_id": folder_id}
        await self.call(f"POST /drive/move_{kind}", fields=fields)

    async def share_file(self, file_id: str, contact_id: str, access_level: str) -> None:
        fields = {
            "file_id": file_id,
            "contact_id": contact_id,
            "encrypted_item_key": sealed.wrapped_key(),
            "access_level": access_level,
        }
        await self.call("POST /drive/share_file", fields=fields)

    async def upload_chunk(self, file_id: str, index: int, iv: str, stored: bytes) -> None:
        query = f"?file_id={file_id}&index={index}&iv={encoded(iv)}"
        headers = {"Content-Type": "application/octet-stream"}
        await self.call("POST /drive/upload_chunk_binary", query=query, body=stored, headers=headers)

    def retries(self, error: Exception) -> bool:
        return isinstance(error, NetworkError) or (isinstance(error, Refused) and error.status >= 500)
