"""deploy/compose.yaml: what it names exists and fits together, it brings no password along, and its S3 server and the
service do the main job with what stands there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gauzian import budget
from gauzian.assembly.parts import load_of
from gauzian.settings import Settings
from tests.bench.account import User
from tests.bench.load import ROOT
from tests.bench.machine import running_server, wait_for
from tests.deploy.compose import DEPLOY, TEMPLATE, Refused, read_compose, read_env_file, variables
from tests.deploy.containerfile import parse
from tests.e2e.test_start_and_stop import download
from tests.postgres import url_of

SECRETS = {
    "POSTGRES_PASSWORD": "password-0",
    "S3_ACCESS_KEY": "access-key-1",
    "S3_SECRET_KEY": "secret-key-2",
    "GRAFANA_PASSWORD": "password-3",
}
COMPOSE = read_compose(SECRETS)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
IMAGE = parse((ROOT / "Containerfile").read_text())[-1]
OURS = {name: str(value) for name, value in SERVICES["gauzian"]["environment"].items()}
CONTENT = os.urandom(200_000)


def mounts(service: dict[str, Any]) -> list[list[str]]:
    return [volume.split(":") for volume in service.get("volumes", [])]


def test_nothing_starts_without_each_of_the_secrets() -> None:
    for name in SECRETS:
        with pytest.raises(Refused, match=name):
            read_compose({other: value for other, value in SECRETS.items() if other != name})


def test_no_password_is_written_down() -> None:
    required = {name for name, (sign, _) in variables().items() if sign == "?"}
    assert required == set(SECRETS)
    assert not [name for name in variables() if re.search("PASSWORD|KEY|SECRET|TOKEN", name) and name not in required]
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|KEY|SECRET|TOKEN|URL", name):
                assert any(secret in str(value) for secret in SECRETS.values()), f"{name} is not one of the secrets"


def test_the_template_names_what_can_be_set_and_sets_nothing() -> None:
    text = TEMPLATE.read_text()
    assert read_env_file(text) == dict.fromkeys(SECRETS, "")
    optional = set(re.findall(r"^#([A-Z]\w+)=", text, re.MULTILINE))
    assert optional == set(variables()) - set(SECRETS)
    assert "/deploy/.env\n" in (ROOT / ".gitignore").read_text()


def test_the_service_is_given_settings_that_exist_and_that_fit_its_memory() -> None:
    assert set(OURS) <= {name for name, _, _ in Settings().rows()}
    environment = {name: value for name, value in IMAGE.pairs("ENV").items() if not name.startswith("PYTHON")} | OURS
    settings = Settings.from_env(environment)
    assert (settings.s3_access_key, settings.s3_secret_key) == ("access-key-1", "secret-key-2")
    memory = int(SERVICES["gauzian"]["mem_limit"].removesuffix("m")) * 1024 * 1024
    assert budget.misfit(load_of(settings), memory) is None
    assert int(SERVICES["gauzian"]["ulimits"]["nofile"]) > 2 * settings.max_connections
    assert int(SERVICES["gauzian"]["stop_grace_period"].removesuffix("s")) >= settings.shutdown_grace_seconds + 10


def test_each_waits_until_what_it_needs_is_healthy() -> None:
    order = ["postgres", "s3", "gauzian", "prometheus", "grafana"]
    assert sorted(SERVICES) == sorted(order)
    needs = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert [set(needs[name]) for name in order] == [set(), set(), {"postgres", "s3"}, {"gauzian"}, {"prometheus"}]
    for found in needs.values():
        assert all(how == {"condition": "service_healthy"} for how in found.values())
    assert IMAGE.all("HEALTHCHECK")
    assert all(service.get("healthcheck") for name, service in SERVICES.items() if name != "gauzian")


def test_every_file_that_is_mounted_exists_and_every_volume_is_named() -> None:
    named = {mount[0] for service in SERVICES.values() for mount in mounts(service)}
    files = {source for source in named if source.startswith(".")}
    assert len(files) == 4
    assert all((DEPLOY / source).exists() for source in files), files
    assert named - files == set(COMPOSE["volumes"])
    for service in SERVICES.values():
        assert all(mount[2:] == ["ro"] for mount in mounts(service) if mount[0] in files)
    assert [mount[1] for mount in mounts(SERVICES["gauzian"])] == [IMAGE.last("VOLUME").rest]


def test_images_are_pinned_and_all_run_with_few_rights() -> None:
    for name, service in SERVICES.items():
        if name != "gauzian":
            assert re.fullmatch(r"[a-z.]+/[a-z/]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?", service["image"]), service["image"]
        assert service["cap_drop"] == ["ALL"]
        assert "privileged" not in service
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert SERVICES["gauzian"]["read_only"] is True
    assert "user" not in SERVICES["gauzian"], "the image's own"


def test_rows_and_objects_are_out_of_reach_and_the_rest_is_for_this_machine_alone() -> None:
    assert COMPOSE["networks"]["inner"] == {"internal": True}
    for name in ("postgres", "s3"):
        assert SERVICES[name]["networks"] == ["inner"]
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports == {"gauzian": ["127.0.0.1:8080:8080"], "grafana": ["127.0.0.1:3000:3000"]}
    assert "8080" in IMAGE.last("EXPOSE").words


def test_prometheus_and_grafana_find_each_other_and_the_service() -> None:
    scrape = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (target,) = scrape["scrape_configs"][0]["static_configs"][0]["targets"]
    host, port = target.split(":")
    assert host in SERVICES
    assert port in IMAGE.last("EXPOSE").words
    assert scrape["rule_files"] == ["rules.yml"]
    inside = {mount[0]: mount[1] for mount in mounts(SERVICES["prometheus"])}
    assert inside["./prometheus/rules.yml"] == "/etc/prometheus/rules.yml", "beside the file that names it"
    assert f"--config.file={inside['./prometheus/prometheus.yml']}" in SERVICES["prometheus"]["command"]
    sources = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert [source["url"] for source in sources] == ["http://prometheus:9090"]
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/gauzian.yml").read_text())["providers"][0]
    dashboard = {mount[0]: mount[1] for mount in mounts(SERVICES["grafana"])}["./grafana/gauzian.json"]
    assert str(Path(dashboard).parent) == provider["options"]["path"]


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The S3 server as compose.yaml starts it, on another address and directory."""
    service, objects, log = SERVICES["s3"], tmp_path / "objects", tmp_path / "s3.log"
    objects.mkdir()
    assert mounts(service)[0][1] == service["command"][-1]
    own = {"--addr=0.0.0.0:9000": "--addr=127.0.0.1:0", "/objects": str(objects)}
    command = [own.get(word, word) for word in service["command"]]
    assert set(own) <= set(service["command"])
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]} | service["environment"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("rclone"), *command], env=environment, stdout=output, stderr=output
        )
    try:
        started = re.compile(r"Starting s3 server on \[(http://[^/\]]+)")
        assert wait_for(lambda: started.search(log.read_text()) is not None, 15), log.read_text()
        found = started.search(log.read_text())
        assert found is not None
        yield found[1], objects
    finally:
        process.terminate()
        process.wait(10)


def test_the_service_does_the_main_job_on_these_settings_and_this_s3_server(
    s3: tuple[str, Path], database_url: str, tmp_path: Path
) -> None:
    endpoint, objects = s3
    assert SERVICES["s3"]["image"].rpartition(":")[2] in (ROOT / "requirements-dev.txt").read_text(), "what is tested"
    settings = OURS | {"DATABASE_URL": url_of(database_url), "S3_ENDPOINT": endpoint, "HOST": "127.0.0.1", "PORT": "0"}
    with running_server(settings, work=tmp_path) as server:
        assert "Max concurrent uploads: 50" in server.log.read_text()
        user = User.register(server.port)
        file_id = user.store_file(CONTENT, 2)
        assert download(user, file_id) == CONTENT * 2
    assert len([path for path in (objects / "gauzian").rglob("*") if path.stat().st_size == len(CONTENT)]) == 2


def test_the_s3_server_knows_nobody_without_the_keys(s3: tuple[str, Path], database_url: str, tmp_path: Path) -> None:
    wrong = OURS | {"DATABASE_URL": url_of(database_url), "S3_ENDPOINT": s3[0], "S3_SECRET_KEY": "wrong", "PORT": "0"}
    given = {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path / "data")} | wrong
    done = subprocess.run([sys.executable, "app.py"], cwd=ROOT, env=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert not (s3[1] / "gauzian").exists()
