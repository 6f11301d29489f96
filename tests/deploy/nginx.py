"""Debian's nginx with the example configuration, on free ports, in a directory of its own, as whoever runs the test."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bench.load import ROOT
from tests.bench.machine import wait_for

EXAMPLE = ROOT / "deploy" / "proxy" / "nginx.conf"
_PROGRAM = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")


@dataclass(frozen=True)
class Nginx:
    port: int
    tls_port: int
    log: Path


def require_nginx() -> str:
    if _PROGRAM is None:
        reason = "Debian's nginx-light is needed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return _PROGRAM


@contextlib.contextmanager
def running_nginx(home: Path, *, service: int, certificate: Path) -> Iterator[Nginx]:
    """The example with other names for the same things: ports, certificate, the service's address. On `port` it serves
    without TLS what it serves with TLS on `tls_port`; `home` must be its own.
    """
    program = require_nginx()
    port, tls_port = _free_port(), _free_port()
    text = EXAMPLE.read_text()
    # Where the example only points to HTTPS, the test has a plain door to the same house.
    text = _replaced(text, r"server \{\n    listen 80;.*?\n\}\n", "")
    text = _replaced(text, r"listen 443 ssl http2;", f"listen 127.0.0.1:{tls_port} ssl http2; listen 127.0.0.1:{port};")
    text = _replaced(text, r"server 127\.0\.0\.1:8080 ", f"server 127.0.0.1:{service} ")
    text = _replaced(text, r"ssl_certificate \S+;", f"ssl_certificate {certificate};")
    text = _replaced(text, r"ssl_certificate_key \S+;", f"ssl_certificate_key {certificate};")
    (home / "gauzian.conf").write_text(text)
    (home / "nginx.conf").write_text(_AROUND.format(home=home, user="user root;" if os.getuid() == 0 else ""))
    log = home / "error.log"
    command = [program, "-p", str(home), "-c", str(home / "nginx.conf"), "-e", str(log)]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    with subprocess.Popen([*command, "-g", "daemon off;"]) as process:
        try:
            assert wait_for(lambda: _listens(port) or process.poll() is not None, 10)
            assert process.poll() is None, log.read_text()
            yield Nginx(port, tls_port, log)
        finally:
            process.terminate()
            process.wait(10)


def _replaced(text: str, pattern: str, by: str) -> str:
    found, count = re.subn(pattern, lambda _: by, text, flags=re.DOTALL)
    assert count == 1, f"{pattern} is in the example {count} times"
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


_AROUND = """
{user}
worker_processes 1;
pid {home}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    include {home}/gauzian.conf;
}}
"""
