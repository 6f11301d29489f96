"""Every URL that a client of any generation knows is there, at / and at /api/, and no handler stands outside."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.routing import Route

import gauzian
from tests.postgres import Postgres
from tests.service import Service, User, running_service

pytestmark = pytest.mark.anyio

# "A B I": which generation of clients or which suite written for a build in between asks for it; "+": our own.
ROUTES = """
A B    POST    /login
A      POST    /register
B      POST    /register/send-otp
B      POST    /register/verify-otp
B      POST    /register/finalize
A B    POST    /logout
A B    GET     /autologin
A      GET     /protected
A B    GET     /info
A B    GET     /contacts/get_public_key/{email}
A B    POST    /drive/initialize_file
I      POST    /drive/files/initialize
A I    POST    /drive/upload_chunk
A I    POST    /drive/upload_chunk_binary
B I    POST    /drive/files/{file_id}/upload-chunk
A B    POST    /drive/finalize_upload/{file_id}/{etat}
A B    POST    /drive/abort_upload
+      GET     /drive/files/{file_id}/upload
A B    GET     /drive/file/{file_id}
B I    GET     /drive/files/{file_id}
A I    GET     /drive/download/{file_id}
I      GET     /drive/files/{file_id}/download
A I    GET     /drive/download_chunk/{s3_key}
A B    GET     /drive/download_chunk_binary/{s3_key}
A      POST    /drive/delete_file
B I    DELETE  /drive/files/{file_id}
A      POST    /drive/rename_file
B I    PATCH   /drive/files/{file_id}
A      POST    /drive/move_file
B I    PATCH   /drive/files/{file_id}/move
A B    POST    /drive/restore_file
I      GET     /drive/files
A B    POST    /drive/create_folder
I      POST    /drive/folders
A B    GET     /drive/get_folder/{folder_id}
B I    GET     /drive/folders/{folder_id}
A B    GET     /drive/folder_contents/{folder_id}
A      POST    /drive/delete_folder
B I    DELETE  /drive/folders/{folder_id}
A      POST    /drive/rename_folder
B I    PATCH   /drive/folders/{folder_id}
A      POST    /drive/move_folder
B I    PATCH   /drive/folders/{folder_id}/move
A B    POST    /drive/restore_folder
A B    POST    /drive/empty_trash
A      POST    /drive/share_file
B I    POST    /drive/files/{file_id}/share
A      POST    /drive/share_folder
I      POST    /drive/folders/{folder_id}/share
A B    POST    /drive/share_folder_batch
B I    POST    /drive/files/{file_id}/accept
B I    POST    /drive/folders/{folder_id}/accept
B I    POST    /drive/files/{file_id}/reject
B I    POST    /drive/folders/{folder_id}/reject
A B    GET     /drive/folder/{folder_id}/shared_users
A B    GET     /drive/folder/{folder_id}/InfoItem
A B    GET     /drive/file/{file_id}/InfoItem
A B    POST    /drive/propagate_file_access
A B    POST    /drive/propagate_folder_access
A B    POST    /drive/revoke-access
I      DELETE  /drive/files/{file_id}/share/{user_id}
I      DELETE  /drive/folders/{folder_id}/share/{user_id}
A B    GET     /drive/get_file_folder/{parent_id}
A I    GET     /drive/get_all_drive_info/{parent_id}
I      GET     /drive/get_all_drive_info
B      GET     /drive/get_drive_info
B I    GET     /
A B    GET     /health/ready
+      GET     /health/live
A B    GET     /metrics
"""
TABLE = [tuple(line.split()[-2:]) for line in ROUTES.strip().splitlines()]
NOBODY = "11111111-2222-4333-8444-555555555555"
ROUTING = {"not_found", "method_not_allowed"}


@pytest.fixture(scope="module")
async def user(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[User]:
    with postgres.fresh_database() as url:
        async with running_service(url, tmp_path_factory.mktemp("routes")) as service:
            yield await service.sign_up()


def filled(path: str) -> str:
    path = path.replace("{etat}", "aborted").replace("{email}", "nobody%40example.org")
    for name in ("file_id", "folder_id", "parent_id", "user_id", "s3_key"):
        path = path.replace("{" + name + "}", NOBODY)
    return path


@pytest.mark.parametrize("prefix", ["", "/api"])
@pytest.mark.parametrize(("method", "path"), TABLE, ids=lambda value: value)
async def test_a_route_of_the_reference_is_there(user: User, prefix: str, method: str, path: str) -> None:
    if path == "/logout":  # it would end the session of the others
        user = await user.service.sign_up()
    answer = await user.call(method, prefix + filled(path), json={} if method in ("POST", "PATCH") else None)
    assert answer.status < 500, answer.body
    if answer.status >= 400:
        assert answer.json()["code"] not in ROUTING, answer.body


async def test_what_is_no_route_is_told_apart(user: User) -> None:
    for method, path in (("GET", "/drive/nothing"), ("GET", "/drive/empty_trash"), ("GET", "/login/")):
        assert (await user.call(method, path)).json()["code"] in ROUTING


def routed(service: Service) -> list[Route]:
    app: Any = service.app
    while not hasattr(app, "router"):
        app = app.app
    return [route for route in app.router.routes if isinstance(route, Route)]


async def test_the_table_is_whole(user: User) -> None:
    """A route that is new must be written down here, and with that be looked at."""
    there = {(method, route.path) for route in routed(user.service) for method in (route.methods or set()) - {"HEAD"}}
    # A path in the table and in the program may call its parts differently.
    assert {(method, _anonymous(path)) for method, path in there} == {
        (method, _anonymous(path)) for method, path in TABLE
    }
    assert len(set(TABLE)) == len(TABLE)


def _anonymous(path: str) -> str:
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


async def test_every_handler_is_routed(user: User) -> None:
    served = set()
    for route in routed(user.service):
        endpoint = route.endpoint
        while hasattr(endpoint, "func"):  # a partial
            endpoint = endpoint.func
        served.add(getattr(endpoint, "__qualname__", type(endpoint).__qualname__))
    handlers = set(_handlers())
    assert len(handlers) > 10
    assert handlers - served == set(), "nobody can call these"


def _handlers() -> Iterator[str]:
    """Methods that take a Request, and raw ASGI applications of the rooms that answer users."""
    for module in pkgutil.walk_packages(gauzian.__path__, "gauzian."):
        for name, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if kind.__module__ != module.name:
                continue
            for method_name, method in inspect.getmembers(kind, inspect.isfunction):
                if not method_name.startswith("_") and _takes_a_request(method):
                    yield method.__qualname__
            room = module.name.split(".")[1]
            # A class with classes of its own is only what they have in common.
            if room in ("upload", "download", "drive") and not kind.__subclasses__() and _is_asgi(kind):
                yield name


def _takes_a_request(method: object) -> bool:
    if not inspect.iscoroutinefunction(method):
        return False
    names = list(inspect.signature(method).parameters.values())
    return len(names) == 2 and names[1].annotation in ("Request", Request)


def _is_asgi(kind: type) -> bool:
    call = kind.__dict__.get("__call__")
    return call is not None and list(inspect.signature(call).parameters) == ["self", "scope", "receive", "send"]
