"""Three people do what comes to their minds for a while; whatever they do, nobody loses anything and all adds up."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from tests.asgi import Answer
from tests.drive.people import Person, sign_up
from tests.postgres import Postgres
from tests.service import Service, objects_of, running_service

pytestmark = pytest.mark.anyio

STEPS, LOOK_EVERY = 80, 8
SEEDS = range(4)


@pytest.fixture(scope="module")
async def service(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    with postgres.fresh_database() as url:
        async with running_service(url, tmp_path_factory.mktemp("lives")) as service:
            yield service


@dataclass
class Lives:
    """What has been made, by whom; `gone` holds what its owner may have deleted for good."""

    people: list[Person]
    chance: random.Random
    owner: dict[str, Person] = field(default_factory=dict)
    size: dict[str, int] = field(default_factory=dict)  # files alone
    gone: set[str] = field(default_factory=set)

    def things(self, kind: str | None = None) -> list[str]:
        return [id for id in self.owner if kind is None or (id in self.size) == (kind == "file")]

    def in_order(self, ids: set[str]) -> list[str]:
        """Of their making: ids are another every time."""
        return [id for id in self.owner if id in ids]

    def some(self, kind: str, who: Person) -> str:
        """Rather something of one's own."""
        mine = [id for id in self.things(kind) if self.owner[id] is who]
        return self.chance.choice((mine if self.chance.random() < 0.6 else self.things(kind)) or ["root"])

    def another(self, who: Person) -> Person:
        """Rarely oneself."""
        others = [person for person in self.people if person is not who]
        return self.chance.choice(others) if self.chance.random() < 0.95 else who

    async def step(self) -> None:
        who = self.chance.choice(self.people)
        act = self.chance.choice(ACTS)
        answer = await act(self, who)
        assert answer is None or answer.status < 500, (act.__name__, answer.status, answer.body)


async def make_folder(lives: Lives, who: Person) -> Answer:
    parent = lives.some("folder", who)
    given = {"encrypted_metadata": "m", "parent_folder_id": parent, "encrypted_folder_key": "k"}
    answer = await who.call("POST", "/drive/create_folder", json=given)
    if answer.status == 200:
        lives.owner[answer.json()["folder_id"]] = who
        await hand_around(lives, who, "folder", answer.json()["folder_id"], parent)
    return answer


async def make_file(lives: Lives, who: Person) -> Answer:
    parent, size = lives.some("folder", who), lives.chance.randrange(4)
    given = {"size": size, "encrypted_metadata": "m", "mime_type": "", "encrypted_file_key": "k", "folder_id": parent}
    answer = await who.call("POST", "/drive/initialize_file", json=given)
    if answer.status == 200:
        file = answer.json()["file_id"]
        await hand_around(lives, who, "file", file, parent)
        if size:
            assert (await who.user.put(file, 0, bytes(size))).status == 200
        assert (await who.user.finalize(file)).status == 200
        lives.owner[file], lives.size[file] = who, size
    return answer


async def hand_around(lives: Lives, who: Person, kind: str, id: str, parent: str) -> None:
    """As clients do with whatever they put into a folder."""
    if parent == "root":
        return
    members = (await who.ok("GET", f"/drive/folder/{parent}/shared_users"))["shared_users"]
    keys = [{"user_id": one["user_id"], "encrypted_key": "k", "access_level": one["access_level"]} for one in members]
    await who.post(f"/drive/propagate_{kind}_access", **{f"{kind}_id": id, "user_keys": keys})


async def share_folder(lives: Lives, who: Person) -> Answer | None:
    folder, other = lives.some("folder", who), lives.another(who)
    contents = await who.call("GET", f"/drive/folder_contents/{folder}")
    if contents.status != 200:
        return contents
    items = contents.json()["contents"]
    given = {
        "folder_id": folder,
        "contact_id": other.id,
        "access_level": lives.chance.choice(["editor", "editor", "editor", "viewer"]),
        "folder_keys": [{"folder_id": folder, "encrypted_folder_key": "k"}]
        + [{"folder_id": one["folder_id"], "encrypted_folder_key": "k"} for one in items if one["type"] == "folder"],
        "file_keys": [{"file_id": one["file_id"], "encrypted_file_key": "k"} for one in items if one["type"] == "file"],
    }
    answer = await who.call("POST", "/drive/share_folder_batch", json=given)
    if answer.status == 200 and lives.chance.random() < 0.7:
        await other.ok("POST", f"/drive/folders/{folder}/accept")
    return answer


async def share_file(lives: Lives, who: Person) -> Answer:
    given = {"contact_id": lives.another(who).id, "encrypted_item_key": "k"}
    return await who.call("POST", f"/drive/files/{lives.some('file', who)}/share", json=given)


async def answer_invitation(lives: Lives, who: Person) -> Answer | None:
    waiting = lives.in_order(await who.sees("shared_with_me"))
    if not waiting:
        return None
    id = lives.chance.choice(waiting)
    kind = "files" if id in lives.size else "folders"
    verb = lives.chance.choice(["accept", "accept", "accept", "reject"])
    return await who.call("POST", f"/drive/{kind}/{id}/{verb}")


async def open_old_page(lives: Lives, who: Person) -> Answer:
    return await who.call("GET", "/drive/get_all_drive_info/root")


async def revoke(lives: Lives, who: Person) -> Answer:
    kind = lives.chance.choice(["file", "folder"])
    given = {"item_type": kind, "item_id": lives.some(kind, who), "contact_id": lives.another(who).id}
    return await who.call("POST", "/drive/revoke-access", json=given)


async def move(lives: Lives, who: Person) -> Answer:
    kind, target = lives.chance.choice(["file", "folder"]), lives.some("folder", who)
    target_id = None if target == "root" or lives.chance.random() < 0.3 else target
    return await who.call("PATCH", f"/drive/{kind}s/{lives.some(kind, who)}/move", json={"target_folder_id": target_id})


async def throw_away(lives: Lives, who: Person) -> Answer:
    kind = lives.chance.choice(["file", "folder", "folder"])
    return await who.call("POST", f"/drive/delete_{kind}", json={f"{kind}_id": lives.some(kind, who)})


async def restore(lives: Lives, who: Person) -> Answer:
    thrown = lives.in_order(await who.sees("corbeille"))
    id = lives.chance.choice(thrown or [lives.some("file", who)])
    kind = "file" if id in lives.size else "folder"
    return await who.call("POST", f"/drive/restore_{kind}", json={f"{kind}_id": id})


async def delete_for_good(lives: Lives, who: Person) -> Answer | None:
    thrown = lives.in_order(await who.sees("corbeille"))
    if not thrown:
        return None
    id = lives.chance.choice(thrown)
    answer = await who.call("DELETE", f"/drive/{'files' if id in lives.size else 'folders'}/{id}")
    await forget(lives, who)
    return answer


async def empty_trash(lives: Lives, who: Person) -> Answer:
    answer = await who.call("POST", "/drive/empty_trash")
    await forget(lives, who)
    assert await who.sees("corbeille") == set()
    return answer


async def forget(lives: Lives, who: Person) -> None:
    """What is neither in the tree nor in the trash of its owner was deleted for good just now."""
    there = await tree_of(who) | await who.sees("corbeille")
    for id in [id for id in lives.things("file") if lives.owner[id] is who and id not in there]:
        assert (await who.call("GET", f"/drive/file/{id}")).status == 404, "hidden from its owner, and not deleted"
        del lives.owner[id], lives.size[id]
        lives.gone.add(id)
    for id in [id for id in lives.things("folder") if lives.owner[id] is who]:
        if (await who.call("PATCH", f"/drive/folders/{id}", json={"new_encrypted_metadata": "m"})).status == 404:
            del lives.owner[id]
            lives.gone.add(id)


ACTS: list[Callable[[Lives, Person], Awaitable[Answer | None]]] = [
    *[make_folder] * 4,
    *[make_file] * 6,
    *[share_folder] * 3,
    *[share_file] * 1,
    *[answer_invitation] * 4,
    *[revoke] * 2,
    *[move] * 5,
    *[throw_away] * 5,
    *[restore] * 2,
    *[delete_for_good] * 1,
    open_old_page,
    empty_trash,
]


async def tree_of(who: Person) -> set[str]:
    """All that a user finds by opening folder after folder; each thing once, and the whole list says the same."""
    found: list[str] = []
    waiting = ["root"]
    while waiting:
        folder = waiting.pop()
        lists = (await who.view(folder))["files_and_folders"]
        for item in lists["folders"]:
            assert item["parent_folder_id"] == (None if folder == "root" else folder)
            found.append(item["folder_id"])
            waiting.append(item["folder_id"])
            assert len(found) < 1000, "a circle"
        found += [item["file_id"] for item in lists["files"]]
    assert len(set(found)) == len(found), "something is in two places"
    contents = (await who.ok("GET", "/drive/folder_contents/root"))["contents"]
    assert {item.get("file_id") or item["folder_id"] for item in contents} == set(found)
    return set(found)


async def everything_adds_up(lives: Lives) -> None:
    for who in lives.people:
        tree, trash, waiting = await tree_of(who), await who.sees("corbeille"), await who.sees("shared_with_me")
        assert not tree & trash
        assert not tree & waiting
        assert not (tree | trash | waiting) & lives.gone
        mine = {id for id in lives.things("file") if lives.owner[id] is who}
        assert mine <= tree | trash, "a file of theirs is nowhere"
        info = await who.ok("GET", "/drive/get_drive_info")
        assert info["used_space"] == sum(lives.size[id] for id in mine)
        assert info["file_count"] == len(mine & tree)
        assert info["folder_count"] == len({id for id in lives.things("folder") if lives.owner[id] is who} & tree)
        for id in lives.things("file"):
            assert await who.can_read(id) == (id in tree or (id in trash and lives.owner[id] is who)), id


async def move_in_together(lives: Lives) -> None:
    """One folder of each, with one of each inside, where all may do what they like."""
    for who in lives.people:
        top = await who.folder()
        lives.owner[top] = who
        for other in lives.people:
            if other is not who:
                await who.share_folder(top, other, "editor")
        for other in lives.people:
            inside = await other.folder(top)
            lives.owner[inside] = other
            await hand_around(lives, other, "folder", inside, top)


@pytest.mark.parametrize("seed", SEEDS)
async def test_whatever_people_do_nothing_is_lost_and_all_adds_up(service: Service, seed: int) -> None:
    lives = Lives([await sign_up(service) for _ in range(3)], random.Random(seed))
    await move_in_together(lives)
    await everything_adds_up(lives)
    for number in range(1, STEPS + 1):
        await lives.step()
        if number % LOOK_EVERY == 0:
            await everything_adds_up(lives)
    stored = {key.split(".")[0] for key in await objects_of(service)}
    assert {id for id in lives.things("file") if lives.size[id]} <= stored
    assert not stored & lives.gone
