"""The example for nginx, in front of the real server: everything passes, streamed, and every refusal is read."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gauzian.settings import Settings
from tests.bench.account import IV, User, ask, connect
from tests.bench.machine import Server, running_server, wait_for
from tests.bench.payload import MIB
from tests.deploy.nginx import EXAMPLE, Nginx, require_nginx, running_nginx

pytestmark = pytest.mark.timeout(120)

CONTENT = os.urandom(300_000)
CLIENTS = 20
REFUSED = 10 * MIB
PLACES = 2


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    require_nginx()
    # Not pytest's tmp_path: the embedded PostgreSQL runs as another user when we are root, and must get there.
    with tempfile.TemporaryDirectory(prefix="gz-") as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def server(work: Path) -> Iterator[Server]:
    places = {"MAX_CONCURRENT_UPLOADS": str(PLACES), "MAX_UPLOADS_PER_USER": str(PLACES)}
    with running_server(places | {"TRUSTED_PROXIES": "127.0.0.1"}, work=work) as server:
        yield server


@pytest.fixture(scope="module")
def nginx(work: Path, server: Server, certificate: Path) -> Iterator[Nginx]:
    home = work / "nginx"
    home.mkdir()
    with running_nginx(home, service=server.port, certificate=certificate) as nginx:
        yield nginx


@pytest.fixture(scope="module")
def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


@pytest.fixture(params=["plain", "tls"])
def user(request: pytest.FixtureRequest, server: Server, nginx: Nginx, trusting: ssl.SSLContext) -> User:
    """Somebody who comes through nginx."""
    user = User.register(server.port)
    if request.param == "tls":
        return replace(user, port=nginx.tls_port, tls=trusting)
    return replace(user, port=nginx.port)


def begin_chunk(user: User, file_id: str, length: int) -> http.client.HTTPConnection:
    connection = connect(user.port, seconds=30, tls=user.tls)
    connection.putrequest("POST", f"/api/drive/upload_chunk_binary?file_id={file_id}&index=0&iv={IV}")
    connection.putheader("Authorization", f"Bearer {user.token}")
    connection.putheader("Content-Length", str(length))
    connection.endheaders()
    return connection


def send_all_then_read(user: User, file_id: str, length: int) -> tuple[int, str]:
    with contextlib.closing(begin_chunk(user, file_id, length)) as connection:
        piece = bytes(64 * 1024)
        for start in range(0, length, len(piece)):
            connection.send(piece[: length - start])
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())["code"]


def all_at_once(user: User, file_id: str, length: int) -> list[tuple[int, str]]:
    with ThreadPoolExecutor(CLIENTS) as clients:
        return list(clients.map(lambda _: send_all_then_read(user, file_id, length), range(CLIENTS)))


@contextlib.contextmanager
def places_taken(server: Server, user: User, file_id: str) -> Iterator[None]:
    with contextlib.ExitStack() as holders:
        for _ in range(PLACES):
            holders.enter_context(contextlib.closing(begin_chunk(user, file_id, REFUSED))).send(bytes(1000))
        assert wait_for(lambda: server.metrics()["gauzian_upload_places_taken"] == PLACES, 10)
        yield
    assert wait_for(lambda: server.metrics()["gauzian_upload_places_taken"] == 0, 10)


def test_the_main_job_passes_and_files_come_back_whole_in_part_and_as_a_head(user: User) -> None:
    file_id = user.store_file(CONTENT, 3)
    authorization = {"Authorization": f"Bearer {user.token}"}
    with contextlib.closing(connect(user.port, tls=user.tls)) as connection:
        connection.request("GET", f"/api/drive/download/{file_id}", headers=authorization)
        assert connection.getresponse().read() == CONTENT * 3
        connection.request(
            "GET", f"/drive/download/{file_id}", headers=authorization | {"Range": "bytes=299999-300000"}
        )
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (206, CONTENT[-1:] + CONTENT[:1])
        assert answer.headers["Content-Range"] == "bytes 299999-300000/900000"
        connection.request("HEAD", f"/drive/download/{file_id}", headers=authorization)
        answer = connection.getresponse()
        assert (answer.status, answer.read(), answer.headers["Content-Length"]) == (200, b"", "900000")


def test_a_body_reaches_the_service_while_it_is_still_being_sent(server: Server, user: User) -> None:
    file_id = user.initialize(REFUSED)
    with places_taken(server, user, file_id):  # nginx would hold them back if it collected bodies
        pass


@pytest.mark.parametrize("length", [REFUSED + 1, 20 * MIB], ids=["by the service", "by nginx"])
def test_everyone_who_sends_too_much_before_looking_reads_413(user: User, length: int) -> None:
    assert all_at_once(user, user.initialize(10), length) == [(413, "chunk_too_large")] * CLIENTS


def test_everyone_who_comes_when_places_are_taken_and_sends_before_looking_reads_busy(
    server: Server, user: User
) -> None:
    file_id = user.initialize(REFUSED)
    with places_taken(server, user, file_id):
        assert all_at_once(user, file_id, REFUSED) == [(400, "uploads_busy")] * CLIENTS


def test_over_http_2_everyone_reads_busy_too(server: Server, nginx: Nginx, certificate: Path, tmp_path: Path) -> None:
    curl = shutil.which("curl")
    if curl is None or "HTTP2" not in subprocess.check_output([curl, "--version"], text=True):
        pytest.skip("curl with HTTP/2 is needed")
    user = User.register(server.port)
    file_id = user.initialize(REFUSED)
    (tmp_path / "body").write_bytes(bytes(REFUSED))
    options = ["--cacert", str(certificate), "--http2", "-H", user.authorization, "-H", "Expect:"]
    body = ["--data-binary", f"@{tmp_path / 'body'}", "-w", "\n%{http_version} %{http_code}"]
    url = f"https://localhost:{nginx.tls_port}/drive/upload_chunk_binary?file_id={file_id}&index=0&iv={IV}"

    def refused(_: int) -> tuple[str, str]:
        done = subprocess.run([curl, "-sS", *options, *body, url], capture_output=True, text=True, timeout=60)
        text, _, end = done.stdout.rpartition("\n")
        return json.loads(text)["code"], end

    with places_taken(server, user, file_id), ThreadPoolExecutor(CLIENTS) as clients:
        assert list(clients.map(refused, range(CLIENTS))) == [("uploads_busy", "2 400")] * CLIENTS


def test_what_a_reader_does_not_take_is_not_fetched_for_it(server: Server, user: User) -> None:
    """Else a slow reader's file would pile up in nginx, in memory and then on the disk."""
    piece = os.urandom(10 * MIB)
    file_id = user.store_file(piece, 10)
    before = server.metrics()["gauzian_download_bytes_total"]
    with contextlib.closing(connect(user.port, seconds=30, tls=user.tls)) as connection:
        connection.request("GET", f"/drive/download/{file_id}", headers={"Authorization": f"Bearer {user.token}"})
        answer = connection.getresponse()
        seen = -1.0
        while seen != (seen := server.metrics()["gauzian_download_bytes_total"] - before):
            time.sleep(0.5)  # two looks that see the same: nobody moves any more
        assert seen < 80 * MIB  # sockets hold some, twice: tcp_rmem may let each grow to 32 MiB
        assert answer.read() == piece * 10


class Tells(BaseHTTPRequestHandler):
    """Answers with what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        told = json.dumps({"version": self.request_version, "path": self.path} | dict(self.headers)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_: object) -> None:
        pass


def test_the_service_sees_who_asks_and_under_which_name_and_nobody_can_pretend(
    tmp_path: Path, certificate: Path
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Tells) as upstream:
        threading.Thread(target=upstream.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        with (
            running_nginx(tmp_path, service=upstream.server_port, certificate=certificate) as nginx,
            contextlib.closing(connect(nginx.port)) as connection,
        ):
            connection.request("GET", "/api/x%2Fy?a=%20", headers={"X-Forwarded-For": "6.6.6.6", "Connection": "close"})
            told = json.loads(connection.getresponse().read())
        upstream.shutdown()
    assert told == {
        "version": "HTTP/1.1",
        "path": "/api/x%2Fy?a=%20",
        "Host": f"127.0.0.1:{nginx.port}",
        "X-Forwarded-For": "127.0.0.1",
        "X-Forwarded-Proto": "http",
        "Accept-Encoding": "identity",
    }


def test_pages_for_operators_are_not_for_the_world(nginx: Nginx) -> None:
    paths = ("/health/ready", "/metrics", "/api/metrics")
    assert [ask(nginx.port, "GET", path)[0] for path in paths] == [200, 404, 404]


def test_the_largest_body_of_the_example_is_1_6_times_the_largest_chunk() -> None:
    found = re.search(r"client_max_body_size (\d+)m;", EXAMPLE.read_text())
    assert found is not None
    assert int(found[1]) * MIB == 1.6 * Settings().max_chunk_size
