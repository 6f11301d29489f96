"""The examples for Caddy and Traefik keep to the times of the service and stream. (nginx's runs: test_nginx.py.)"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from gauzian.server.limits import ServerLimits
from tests.bench.load import ROOT

PROXY = ROOT / "deploy" / "proxy"
KEPT = ServerLimits().keep_alive_seconds
STORE_SECONDS = 60  # the longest that a chunk which has come may take to be answered: store, database


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


@pytest.fixture(scope="module")
def caddy() -> str:
    return (PROXY / "Caddyfile").read_text()


def traefik(name: str) -> Any:
    return yaml.safe_load((PROXY / name).read_text())


def test_no_proxy_keeps_an_idle_connection_longer_than_the_service_does(caddy: str) -> None:
    """Else it sends a request on one that is just being closed, and its client reads 502."""
    nginx = re.search(r"upstream gauzian \{.*?keepalive_timeout (\d+)s;", (PROXY / "nginx.conf").read_text(), re.DOTALL)
    kept = re.search(r"keepalive (\d+)s", caddy)
    transport = traefik("traefik-dynamic.yml")["http"]["serversTransports"]["gauzian"]
    assert nginx is not None
    assert kept is not None
    assert all(
        0 < limit < KEPT
        for limit in (int(nginx[1]), int(kept[1]), seconds(transport["forwardingTimeouts"]["idleConnTimeout"]))
    )


def test_all_wait_long_enough_for_the_answer_to_a_chunk(caddy: str) -> None:
    nginx = re.search(r"proxy_read_timeout (\d+)s;", (PROXY / "nginx.conf").read_text())
    waited = re.search(r"response_header_timeout (\d+)s", caddy)
    transport = traefik("traefik-dynamic.yml")["http"]["serversTransports"]["gauzian"]
    assert nginx is not None
    assert waited is not None
    limits = [int(nginx[1]), int(waited[1]), seconds(transport["forwardingTimeouts"]["responseHeaderTimeout"])]
    assert min(limits) >= STORE_SECONDS


def test_traefik_neither_collects_bodies_nor_ends_them_by_the_clock() -> None:
    dynamic, static = traefik("traefik-dynamic.yml"), traefik("traefik.yml")
    assert "middlewares" not in dynamic["http"]
    (service,) = dynamic["http"]["services"].values()
    assert service["loadBalancer"]["responseForwarding"]["flushInterval"] == "-1"
    times = static["entryPoints"]["websecure"]["transport"]["respondingTimeouts"]
    assert (times["readTimeout"], times["writeTimeout"]) == ("0s", "0s")


def test_traefik_names_only_what_is_there() -> None:
    dynamic, static = traefik("traefik-dynamic.yml"), traefik("traefik.yml")
    (router,) = dynamic["http"]["routers"].values()
    (service,) = dynamic["http"]["services"].values()
    assert router["service"] in dynamic["http"]["services"]
    assert set(router["entryPoints"]) <= set(static["entryPoints"])
    assert router["tls"]["certResolver"] in static["certificatesResolvers"]
    assert service["loadBalancer"]["serversTransport"] in dynamic["http"]["serversTransports"]
    assert static["entryPoints"]["web"]["http"]["redirections"]["entryPoint"]["to"] in static["entryPoints"]


def test_caddy_understands_its_example() -> None:
    program = shutil.which("caddy")
    if program is None:
        pytest.skip("Caddy is needed")
    command = [program, "adapt", "--adapter", "caddyfile", "--config", str(PROXY / "Caddyfile")]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": os.environ["PATH"], "HOME": "/tmp"})
    assert done.returncode == 0, done.stderr
    assert '"level":"warn"' not in done.stderr
    assert '"flush_interval":-1' in done.stdout
