"""How both clients move files, against the real server: nothing is lost in silence, nothing comes out twice."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import ExitStack

import anyio
import pytest

from tests.e2e.clients.base import DriveClient, Refused
from tests.e2e.clients.sealed import CHUNK_BYTES
from tests.e2e.clients.transfers import Transfers, Upload
from tests.e2e.clients.world import World, running_world
from tests.postgres import Postgres

pytestmark = pytest.mark.anyio

CLIENTS = ["a", "b"]
CONTENT = os.urandom(2 * CHUNK_BYTES + 12_345)
FILES = {"empty": b"", "tiny": b"x", "exact": CONTENT[:CHUNK_BYTES], "long": CONTENT, "longer": CONTENT[::-1]}


@pytest.fixture(scope="module")
async def world(postgres: Postgres) -> AsyncIterator[World]:
    with postgres.fresh_database() as url:
        async with running_world(url) as world:
            yield world


async def sign_up(world: World, kind: str, name: str) -> DriveClient:
    return await (world.sign_up_a(f"{name}-a") if kind == "a" else world.sign_up_b(f"{name}-b"))


@pytest.mark.parametrize("kind", CLIENTS)
async def test_files_of_any_size_go_in_side_by_side_and_come_out_whole(world: World, kind: str) -> None:
    client = await sign_up(world, kind, "sizes")
    transfers = Transfers(client)
    uploads = await transfers.upload_all(FILES, "root")
    for upload in uploads:
        assert (upload.state, upload.lost, upload.sent) == ("finished", [], upload.chunks)
        info = await client.file_info(upload.file_id)
        assert [chunk["index"] for chunk in info["chunks"]] == list(range(info["chunk_count"]))
        assert info["size"] == len(FILES[upload.name])
        assert await transfers.download(upload.file_id) == FILES[upload.name]


@pytest.mark.parametrize("kind", CLIENTS)
async def test_an_answer_lost_on_its_way_makes_no_second_chunk(world: World, kind: str) -> None:
    client, before = await sign_up(world, kind, "lost"), await world.objects()
    losses = [1, 1]

    def loses(path: str, status: int) -> bool:
        return "upload" in path and "chunk" in path and bool(losses and losses.pop())

    client.browser.loses = loses
    (upload,) = await Transfers(client).upload_all({"long": CONTENT}, "root")
    assert (upload.state, upload.lost, upload.sent) == ("finished", [], upload.chunks + 2)
    assert (await client.file_info(upload.file_id))["chunk_count"] == upload.chunks
    assert await Transfers(client).download(upload.file_id) == CONTENT
    assert len(await world.objects() - before) == upload.chunks


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_chunk_given_up_makes_no_file_with_a_hole(world: World, kind: str) -> None:
    """The client reports the upload as complete all the same; the refusal makes it abort, which cleans up."""
    client, before = await sign_up(world, kind, "hole"), await world.objects()
    gate = world.parts.upload_gate
    with ExitStack() as places:
        for _ in range(gate.places):
            places.enter_context(gate.enter())
        (upload,) = await Transfers(client).upload_all({"long": CONTENT}, "root")
    assert (upload.state, sorted(upload.lost)) == ("failed", [0, 1, 2])
    with pytest.raises(Refused) as refused:
        await client.file_info(upload.file_id)
    assert refused.value.status == 404
    assert await world.objects() == before


async def test_a_busy_answer_is_final_for_a_and_a_reason_to_wait_for_b(world: World) -> None:
    """A refusal with 400 costs client A its upload, and no more than that; B comes again until there is a place."""
    gate, sent = world.parts.upload_gate, {}
    for kind in CLIENTS:
        client = await sign_up(world, kind, "busy")
        with ExitStack() as places:
            for _ in range(gate.places):
                places.enter_context(gate.enter())

            def loses(path: str, status: int, places: ExitStack = places) -> bool:
                if status == 400:
                    places.close()  # those before us are done as soon as somebody has been refused
                return False

            client.browser.loses = loses
            (upload,) = await Transfers(client).upload_all({"tiny": b"x"}, "root")
        sent[kind] = (upload.state, upload.sent)
    assert sent == {"a": ("failed", 1), "b": ("finished", 2)}


async def test_with_503_for_busy_both_clients_come_again(postgres: Postgres) -> None:
    with postgres.fresh_database() as url:
        async with running_world(
            url, uploads_busy_status=503, max_concurrent_uploads=4, max_uploads_per_user=4
        ) as world:
            gate = world.parts.upload_gate
            for kind in CLIENTS:
                client = await sign_up(world, kind, "patient")
                refused: list[int] = []
                with ExitStack() as places:
                    for _ in range(gate.places):
                        places.enter_context(gate.enter())

                    def loses(path: str, status: int, places: ExitStack = places, refused: list[int] = refused) -> bool:
                        if status == 503:
                            refused.append(status)
                            places.close()
                        return False

                    client.browser.loses = loses
                    (upload,) = await Transfers(client).upload_all({"long": CONTENT}, "root")
                assert upload.state == "finished"
                assert refused
                assert await Transfers(client).download(upload.file_id) == CONTENT


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_cancel_is_two_requests_at_once_and_both_are_content(world: World, kind: str) -> None:
    client, before = await sign_up(world, kind, "cancel"), await world.objects()
    transfers = Transfers(client)
    upload = Upload("long", CONTENT)
    first_answer = anyio.Event()

    def loses(path: str, status: int) -> bool:
        if "chunk" in path:
            first_answer.set()
        return False

    client.browser.loses = loses
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(transfers.upload, upload, "root")
        await first_answer.wait()
        await transfers.cancel(upload)
    assert upload.state == "aborted"
    await client.finalize(upload.file_id, "aborted")  # as after an answer with 500
    await client.abort(upload.file_id)
    with pytest.raises(Refused):
        await client.file_info(upload.file_id)
    assert await world.objects() == before


@pytest.mark.parametrize("kind", CLIENTS)
async def test_the_name_of_a_view_is_no_folder_to_put_something_into(world: World, kind: str) -> None:
    """The client sends whatever view is open."""
    client = await sign_up(world, kind, "view")
    for view in ("corbeille", "shared_with_me"):
        with pytest.raises(Refused) as refused:
            await Transfers(client).upload_all({"tiny": b"x"}, view)
        assert refused.value.status == 400
        assert refused.value.fields["field"] == "folder_id"
        with pytest.raises(Refused) as refused:
            await client.create_folder("new", view)
        assert refused.value.status == 400
        assert refused.value.fields["field"] == "parent_folder_id"
