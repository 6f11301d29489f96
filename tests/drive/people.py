"""What the drive's tests say and do, in the words of its users."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.asgi import Answer
from tests.service import Service, User, running_service


@dataclass(frozen=True)
class Person:
    """A signed-in user with an id of their own."""

    user: User
    id: str

    async def call(self, method: str, path: str, **more: Any) -> Answer:
        return await self.user.call(method, path, **more)

    async def ok(self, method: str, path: str, **more: Any) -> Any:
        answer = await self.call(method, path, **more)
        assert answer.status == 200, (method, path, answer.status, answer.body)
        return answer.json()

    async def post(self, path: str, **given: Any) -> Any:
        return await self.ok("POST", path, json=given)

    async def refused(self, method: str, path: str, **more: Any) -> tuple[int, str]:
        answer = await self.call(method, path, **more)
        assert answer.status >= 400, (method, path, answer.body)
        return answer.status, answer.json()["code"]

    async def folder(self, parent: str = "root", name: str = "folder") -> str:
        given = {"encrypted_metadata": name, "parent_folder_id": parent, "encrypted_folder_key": f"key of {name}"}
        return str((await self.post("/drive/create_folder", **given))["folder_id"])

    async def file(self, folder: str = "root", content: bytes = b"content", name: str = "file") -> str:
        file_id = await self.user.initialize(len(content), folder_id=folder, encrypted_metadata=name)
        if content:
            assert (await self.user.put(file_id, 0, content)).status == 200
        assert (await self.user.finalize(file_id)).status == 200
        return file_id

    async def view(self, where: str = "root") -> Any:
        return await self.ok("GET", f"/drive/get_file_folder/{where}")

    async def sees(self, where: str = "root") -> set[str]:
        """Ids of what is listed there."""
        lists = (await self.view(where))["files_and_folders"]
        found = [item["folder_id"] for item in lists["folders"]] + [item["file_id"] for item in lists["files"]]
        assert len(found) == len(set(found)), "something is listed twice"
        return set(found)

    async def share_file(self, file_id: str, other: Person, level: str = "viewer", *, accept: bool = True) -> None:
        given = {"contact_id": other.id, "encrypted_item_key": "their key", "access_level": level}
        await self.post(f"/drive/files/{file_id}/share", **given)
        if accept:
            await other.ok("POST", f"/drive/files/{file_id}/accept")

    async def share_folder(
        self, folder_id: str, other: Person, level: str = "viewer", *, accept: bool = True, with_contents: bool = True
    ) -> None:
        """As clients do it: with a key for everything below it."""
        contents = (await self.ok("GET", f"/drive/folder_contents/{folder_id}"))["contents"] if with_contents else []
        await self.post(
            "/drive/share_folder_batch",
            folder_id=folder_id,
            contact_id=other.id,
            access_level=level,
            folder_keys=[{"folder_id": folder_id, "encrypted_folder_key": "their key"}]
            + [
                {"folder_id": item["folder_id"], "encrypted_folder_key": "their key"}
                for item in contents
                if item["type"] == "folder"
            ],
            file_keys=[
                {"file_id": item["file_id"], "encrypted_file_key": "their key"}
                for item in contents
                if item["type"] == "file"
            ],
        )
        if accept:
            await other.ok("POST", f"/drive/folders/{folder_id}/accept")

    async def propagate(self, thing: str, id: str, *others: Person, level: str = "viewer") -> None:
        keys = [{"user_id": other.id, "encrypted_key": "their key", "access_level": level} for other in others]
        await self.post(f"/drive/propagate_{thing}_access", **{f"{thing}_id": id, "user_keys": keys})

    async def can_read(self, file_id: str) -> bool:
        """Whether its bytes come, chunk by chunk and whole; both or none."""
        whole = await self.call("GET", f"/drive/files/{file_id}/download")
        info = await self.call("GET", f"/drive/file/{file_id}")
        if info.status != 200:
            assert whole.status in (403, 404), whole.body
            return False
        keys = [chunk["s3_key"] for chunk in info.json()["chunks"]]
        chunks = {(await self.call("GET", f"/drive/download_chunk_binary/{key}")).status for key in keys}
        assert chunks <= ({200} if whole.status == 200 else {403, 404}), (whole.status, chunks)
        return whole.status == 200


async def sign_up(service: Service) -> Person:
    user = await service.sign_up()
    info = (await user.call("GET", "/info")).json()
    return Person(user, info["id"])


@dataclass(frozen=True)
class Town:
    service: Service
    ann: Person
    bob: Person
    cat: Person


@asynccontextmanager
async def town(database_url: str, data_dir: Path, **settings: Any) -> AsyncIterator[Town]:
    """Three people who share nothing yet."""
    async with running_service(database_url, data_dir, **settings) as service:
        yield Town(service, await sign_up(service), await sign_up(service), await sign_up(service))
