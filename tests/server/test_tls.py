"""The program with TLS_CERT and TLS_KEY: the same promises over HTTPS, without a proxy."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gauzian.assembly.tls import Certificate
from gauzian.settings import SettingsError
from tests.bench.account import IV, User, ask, connect
from tests.bench.load import ROOT
from tests.bench.machine import Server, running_server, wait_for
from tests.bench.payload import MIB

pytestmark = pytest.mark.timeout(120)

CONTENT = os.urandom(300_000)
CLIENTS = 20
REFUSED = 10 * MIB
PLACES = 2
CONNECTIONS = 40

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    # Not pytest's tmp_path: the embedded PostgreSQL runs as another user when we are root, and must get there.
    with tempfile.TemporaryDirectory(prefix="gz-") as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def settings(certificate: Path) -> dict[str, str]:
    return {
        "TLS_CERT": str(certificate),
        "TLS_KEY": str(certificate),
        "PROBE_PORT": "0",
        "MAX_CONCURRENT_UPLOADS": str(PLACES),
        "MAX_UPLOADS_PER_USER": str(PLACES),
        "MAX_CONNECTIONS": str(CONNECTIONS),
    }


@pytest.fixture(scope="module")
def server(work: Path, settings: dict[str, str]) -> Iterator[Server]:
    with running_server(settings, work=work) as server:
        yield server


@pytest.fixture
def user(server: Server, trusting: ssl.SSLContext) -> User:
    return User.register(server.port, tls=trusting)


def chunk_path(file_id: str) -> str:
    return f"/drive/upload_chunk_binary?file_id={file_id}&index=0&iv={IV}"


def begin_chunk(user: User, file_id: str, length: int, *more: tuple[str, str]) -> http.client.HTTPConnection:
    connection = connect(user.port, seconds=30, tls=user.tls)
    connection.putrequest("POST", chunk_path(file_id))
    for name, value in (("Authorization", f"Bearer {user.token}"), ("Content-Length", str(length)), *more):
        connection.putheader(name, value)
    connection.endheaders()
    return connection


def send_all_then_read(user: User, file_id: str, length: int) -> tuple[int, str]:
    """As the most stubborn client does: not one look at the answer before everything is sent."""
    with contextlib.closing(begin_chunk(user, file_id, length)) as connection:
        piece = bytes(64 * 1024)
        for start in range(0, length, len(piece)):
            connection.send(piece[: length - start])
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())["code"]


def test_the_start_says_https_and_probes_stay_plain(server: Server) -> None:
    told = server.log.read_text()
    assert f"GAUZIAN is ready: https://127.0.0.1:{server.port} (probes: http://127.0.0.1:{server.probe_port})" in told
    assert server.probe_port is not None
    assert ask(server.probe_port, "GET", "/health/ready")[0] == 200


def test_a_file_goes_up_and_comes_back_whole_and_in_part(user: User) -> None:
    file_id = user.store_file(CONTENT, 3)
    with contextlib.closing(connect(user.port, tls=user.tls)) as connection:
        authorization = {"Authorization": f"Bearer {user.token}"}
        connection.request("GET", f"/drive/download/{file_id}", headers=authorization)
        assert connection.getresponse().read() == CONTENT * 3
        connection.request(
            "GET", f"/drive/download/{file_id}", headers=authorization | {"Range": "bytes=299999-300000"}
        )
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (206, CONTENT[-1:] + CONTENT[:1])


def test_http_1_1_is_what_both_sides_agree_on(server: Server, certificate: Path) -> None:
    context = ssl.create_default_context(cafile=certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", server.port)) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        assert secured.selected_alpn_protocol() == "http/1.1"


def test_everyone_who_sends_too_much_before_looking_reads_413(user: User) -> None:
    file_id = user.initialize(10)
    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = list(clients.map(lambda _: send_all_then_read(user, file_id, REFUSED + 1), range(CLIENTS)))
    assert answers == [(413, "chunk_too_large")] * CLIENTS


def test_everyone_who_comes_when_places_are_taken_and_sends_before_looking_reads_busy(
    server: Server, user: User
) -> None:
    file_id = user.initialize(10)
    with contextlib.ExitStack() as holders:
        for _ in range(PLACES):
            holder = holders.enter_context(contextlib.closing(begin_chunk(user, file_id, REFUSED)))
            holder.send(b"x")
        assert wait_for(lambda: server.metrics()["gauzian_upload_places_taken"] == PLACES, 10)
        with ThreadPoolExecutor(CLIENTS) as clients:
            answers = list(clients.map(lambda _: send_all_then_read(user, file_id, REFUSED), range(CLIENTS)))
    assert answers == [(400, "uploads_busy")] * CLIENTS
    assert wait_for(lambda: server.metrics()["gauzian_upload_places_taken"] == 0, 10)


@pytest.mark.parametrize(("length", "status"), [(1000, 100), (REFUSED + 1, 413)])
def test_a_body_is_asked_for_when_it_is_wanted_and_only_then(user: User, length: int, status: int) -> None:
    file_id = user.initialize(1000)
    with contextlib.closing(begin_chunk(user, file_id, length, ("Expect", "100-continue"))) as connection:
        assert connection.sock is not None
        first = connection.sock.recv(4096)
        assert first.startswith(b"HTTP/1.1 %d " % status)
        if status == 100:
            connection.send(CONTENT[:length])
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["index"]) == (200, "0")


def test_who_speaks_plain_http_is_cut(server: Server) -> None:
    """Who says nothing: test_accept.py, where that need not take 15 seconds."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
        plain.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in until_the_end(plain)


def until_the_end(sock: socket.socket) -> bytes:
    told = b""
    with contextlib.suppress(ConnectionError):
        while data := sock.recv(4096):
            told += data
    return told


def test_no_more_connections_are_open_than_may_be_and_who_waits_is_served(server: Server, user: User) -> None:
    with contextlib.ExitStack() as crowd:
        for _ in range(CONNECTIONS + 10):
            crowd.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        assert wait_for(lambda: server.metrics()["gauzian_connections_open"] == CONNECTIONS, 10)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ask, server.port, "GET", "/", tls=user.tls)
            assert wait_for(lambda: server.metrics()["gauzian_accept_pauses_total"] >= 1, 10)
            assert server.metrics()["gauzian_connections_open"] == CONNECTIONS
            crowd.close()
            assert waiting.result(20)[0] == 200


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Certificates of the test's own."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is needed to make a certificate")

    def make(name: str, *, passphrase: str | None = None) -> Path:
        path = tmp_path / name
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2 -subj /CN=localhost"
        protection = ["-passout", f"pass:{passphrase}"] if passphrase else ["-nodes"]
        files = ["-keyout", f"{path}.key", "-out", f"{path}.crt"]
        subprocess.run([*command.split(), *protection, *files], check=True, capture_output=True)
        return path

    return make


def test_files_that_are_no_pair_are_told_by_the_variable_that_names_them(make: Make, tmp_path: Path) -> None:
    one, other, locked = make("one"), make("other"), make("locked", passphrase="hunter22")
    (tmp_path / "junk").write_text("junk")
    absent, junk = tmp_path / "absent", tmp_path / "junk"
    cases = [
        (f"{one}.crt", absent, ["TLS_KEY holds '{key}', takes a file with a private key in PEM form: No such file"]),
        (absent, tmp_path, ["TLS_CERT holds '{crt}', takes a file", "TLS_KEY holds '{key}', takes a file"]),
        (junk, f"{one}.key", ["TLS_CERT holds '{crt}', takes a file with certificates in PEM form"]),
        (f"{one}.key", f"{one}.crt", ["TLS_CERT holds '{crt}'"]),
        (f"{one}.crt", junk, ["TLS_KEY holds '{key}', takes the private key of TLS_CERT, in PEM form"]),
        (f"{one}.crt", f"{other}.key", ["TLS_KEY holds '{key}', takes the private key of TLS_CERT"]),
        (f"{locked}.crt", f"{locked}.key", ["TLS_KEY holds '{key}', takes the private key of TLS_CERT, one without"]),
    ]
    for crt, key, wanted in cases:
        with pytest.raises(SettingsError) as caught:
            Certificate(Path(crt), Path(key))
        told = [beginning.format(crt=crt, key=key) for beginning in wanted]
        assert len(caught.value.problems) == len(told)
        assert all(
            problem.startswith(beginning) for problem, beginning in zip(caught.value.problems, told, strict=True)
        )


def test_a_bad_pair_stops_the_start_with_one_message_before_anything_is_opened(make: Make, tmp_path: Path) -> None:
    given = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "data"), "TLS_CERT": f"{make('one')}.crt"}
    given["TLS_KEY"] = f"{make('other')}.key"
    done = subprocess.run([sys.executable, "app.py"], cwd=ROOT, env=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == (
        f"bad settings:\n  TLS_KEY holds '{given['TLS_KEY']}', takes the private key of TLS_CERT, in PEM form\n"
    )
    assert not (tmp_path / "data").exists()


def serial(port: int) -> str:
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=10)


def test_sighup_takes_the_renewed_pair_and_keeps_the_old_one_if_it_is_bad_and_sigterm_lets_uploads_finish(
    make: Make, work: Path
) -> None:
    first, second = make("first"), make("second")
    inside = work / secrets.token_hex(4)
    for kind in ("crt", "key"):
        shutil.copy(f"{first}.{kind}", f"{inside}.{kind}")
    settings = {"TLS_CERT": f"{inside}.crt", "TLS_KEY": f"{inside}.key", "PROBE_PORT": "0"}
    with running_server(settings, work=work) as server:
        shutil.copy(f"{second}.crt", f"{inside}.crt")
        server.process.send_signal(signal.SIGHUP)
        assert wait_for(lambda: "the certificate stays as it was: TLS_KEY holds" in server.log.read_text(), 10)
        assert serial(server.port) == Path(f"{first}.crt").read_text()
        shutil.copy(f"{second}.key", f"{inside}.key")
        server.process.send_signal(signal.SIGHUP)
        assert wait_for(lambda: "the certificate was read again" in server.log.read_text(), 10)
        assert serial(server.port) == Path(f"{second}.crt").read_text()

        user = User.register(server.port, tls=ssl.create_default_context(cafile=f"{second}.crt"))
        with contextlib.closing(begin_chunk(user, user.initialize(1000), 1000)) as upload:
            upload.send(CONTENT[:500])
            assert wait_for(lambda: server.metrics()["gauzian_upload_places_taken"] == 1, 10)
            server.process.send_signal(signal.SIGTERM)
            probes = server.probe_port or 0
            assert wait_for(lambda: ask(probes, "GET", "/health/ready")[0] == 503, 10)
            upload.send(CONTENT[500:1000])
            answer = upload.getresponse()
            assert (answer.status, json.loads(answer.read())["index"]) == (200, "0")
        assert server.process.wait(30) == 0
