"""deploy/kubernetes/: kubectl renders it, the schemas of Kubernetes (from the package kubernetes-validate) take it, and
what stands in different files fits together and fits the service.
"""

from __future__ import annotations

import re
from typing import Any

import kubernetes_validate
import pytest
import yaml

from gauzian import budget
from gauzian.assembly.parts import load_of
from gauzian.database.migrate import LONGEST_WAIT_SECONDS
from gauzian.settings import Settings
from tests.bench.load import ROOT
from tests.deploy.containerfile import parse
from tests.deploy.kubernetes import HOME, RULE, RULES, prometheus_rule, render

KUSTOMIZATIONS = sorted(str(path.parent.relative_to(HOME)) for path in HOME.rglob("kustomization.yaml"))
# The oldest that knows `sleep` before a stop, and the newest whose schemas are there.
VERSIONS = ("1.30", "1.37")
# Whose schemas are not Kubernetes' own: what must be in them, checked below.
ELSEWHERE = {"ServiceMonitor", "PrometheusRule", "ServersTransport"}
IMAGE = parse((ROOT / "Containerfile").read_text())[-1]
POSTGRESQL_CONNECTIONS = 100 - 3  # unless told otherwise, without those kept for a superuser
SECRET: dict[str, Any] = yaml.safe_load((HOME / "secret.template.yaml").read_text())


@pytest.fixture(scope="module")
def everything() -> dict[tuple[str, str], dict[str, Any]]:
    """By kind and name, without what needs operators of its own."""
    return {(item["kind"], item["metadata"]["name"]): item for item in render(".")}


@pytest.fixture(scope="module")
def pod(everything: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = everything["Deployment", "backend"]["spec"]["template"]["spec"]
    return found


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod["containers"]
    return dict(found)


@pytest.fixture(scope="module")
def monitoring() -> dict[str, dict[str, Any]]:
    return {item["kind"]: item for item in render("monitoring")}


@pytest.fixture(scope="module")
def settings(everything: dict[tuple[str, str], dict[str, Any]]) -> Settings:
    """As a pod has them: of the image, the ConfigMap and a Secret that was filled in."""
    filled = {
        "DATABASE_URL": "postgresql://gauzian:x@db.example.org/gauzian",
        "S3_ENDPOINT": "https://s3.example.org",
        "S3_ACCESS_KEY": "key",
        "S3_SECRET_KEY": "key",
        "METRICS_TOKEN": "token",
    }
    assert set(SECRET["stringData"]) == set(filled)
    image = {name: value for name, value in IMAGE.pairs("ENV").items() if not name.startswith("PYTHON")}
    return Settings.from_env(image | everything["ConfigMap", "backend"]["data"] | filled)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("directory", KUSTOMIZATIONS)
def test_everything_is_as_the_schemas_of_kubernetes_want_it(directory: str, version: str) -> None:
    items = render(directory)
    assert items
    for item in items:
        assert item["kind"] == "Namespace" or item["metadata"]["namespace"] == "gauzian"
        if item["kind"] not in ELSEWHERE:
            kubernetes_validate.validate(item, version, strict=True)


def test_the_secret_fits_too_is_empty_and_never_applied_with_the_rest() -> None:
    kubernetes_validate.validate(SECRET, VERSIONS[-1], strict=True)
    assert SECRET["metadata"] == {"name": "backend", "namespace": "gauzian"}
    assert set(SECRET["stringData"].values()) == {""}
    assert not any(item["kind"] == "Secret" for directory in KUSTOMIZATIONS for item in render(directory))


def test_every_file_is_named_by_its_kustomization_and_exists() -> None:
    listed = set()
    for directory in KUSTOMIZATIONS:
        home = HOME / directory
        for name in yaml.safe_load((home / "kustomization.yaml").read_text())["resources"]:
            assert (home / name).exists(), f"{directory}: {name}"
            listed.add((home / name).resolve())
    there = {path for path in HOME.rglob("*.yaml") if path.name != "kustomization.yaml"}
    assert there - listed == {HOME / "secret.template.yaml"}
    assert [name for name in KUSTOMIZATIONS if (HOME / name).resolve() not in listed] == [".", "monitoring", "traefik"]


def test_every_variable_is_a_setting(everything: dict[tuple[str, str], dict[str, Any]]) -> None:
    known = {name for name, _, _ in Settings().rows()}
    config = everything["ConfigMap", "backend"]["data"]
    assert "MAX_CONCURRENT_UPLOADS" in config
    assert set(config) | set(SECRET["stringData"]) <= known
    for path in HOME.rglob("*"):
        if path.is_file():
            assert set(re.findall(r"\b(?:MAX|S3|DATABASE|SHUTDOWN|PROBE)_[A-Z_0-9]+\b", path.read_text())) <= known, (
                path
            )


def test_the_memory_of_a_pod_carries_its_settings(container: dict[str, Any], settings: Settings) -> None:
    resources = container["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    memory = int(resources["limits"]["memory"].removesuffix("Mi")) * 1024 * 1024
    assert budget.misfit(load_of(settings), memory) is None
    assert "cpu" not in resources["limits"]


def test_bodies_on_their_way_fit_their_volume(pod: dict[str, Any], settings: Settings) -> None:
    volumes = {volume["name"]: volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"]}
    assert volumes["data"] == "1Gi"
    assert isinstance(settings.max_concurrent_uploads, int)
    assert settings.max_concurrent_uploads * settings.max_chunk_size < 2**30


def test_it_is_labelled_as_the_founding_commands_expect(everything: dict[tuple[str, str], dict[str, Any]]) -> None:
    deployment = everything["Deployment", "backend"]
    assert deployment["metadata"]["namespace"] == "gauzian"
    assert deployment["metadata"]["labels"]["app"] == "backend"
    assert deployment["spec"]["template"]["metadata"]["labels"] == {"app": "backend"}
    for kind in ("Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = everything[kind, "backend"]["spec"]
        selector = spec.get("podSelector") or spec["selector"]
        assert selector.get("matchLabels", selector) == {"app": "backend"}, kind


def test_it_has_no_rights_and_writes_only_where_the_image_does(pod: dict[str, Any], container: dict[str, Any]) -> None:
    uid, gid = (int(number) for number in IMAGE.last("USER").rest.split(":"))
    context = pod["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (True, uid, gid)
    assert context["fsGroup"] == gid
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {"/tmp": "tmp", IMAGE.last("VOLUME").rest: "data"}


def test_probes_ask_the_port_where_no_crowd_stands(container: dict[str, Any], settings: Settings) -> None:
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": settings.port, "probes": settings.probe_port}
    paths = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in paths.values()} == {"probes"}
    assert {kind: probe["path"] for kind, probe in paths.items()} == {
        "startup": "/health/live",
        "liveness": "/health/live",
        "readiness": "/health/ready",
    }
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= LONGEST_WAIT_SECONDS


def test_a_stop_has_the_time_it_takes(
    everything: dict[tuple[str, str], dict[str, Any]],
    pod: dict[str, Any],
    container: dict[str, Any],
    settings: Settings,
) -> None:
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    readiness = container["readinessProbe"]
    assert before >= readiness["periodSeconds"] * readiness["failureThreshold"], "proxies have heard of it"
    assert pod["terminationGracePeriodSeconds"] >= before + settings.shutdown_grace_seconds + 5
    deployment = everything["Deployment", "backend"]["spec"]
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_all_pods_together_do_not_take_all_of_postgresql(
    everything: dict[tuple[str, str], dict[str, Any]], settings: Settings
) -> None:
    scaler = everything["HorizontalPodAutoscaler", "backend"]["spec"]
    deployment = everything["Deployment", "backend"]["spec"]
    assert "replicas" not in deployment, "an apply would set it back"
    assert scaler["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "backend"}
    assert scaler["minReplicas"] >= 2
    # And one more each while it starts: for its migrations.
    most = scaler["maxReplicas"] + deployment["strategy"]["rollingUpdate"]["maxSurge"]
    assert most * (settings.database_connections + 1) <= POSTGRESQL_CONNECTIONS
    assert everything["PodDisruptionBudget", "backend"]["spec"]["maxUnavailable"] < scaler["minReplicas"]


def test_the_image_is_one_that_has_to_be_named(container: dict[str, Any]) -> None:
    assert container["image"].endswith(":set-me")


def test_the_network_lets_through_what_the_service_needs(everything: dict[tuple[str, str], dict[str, Any]]) -> None:
    policy = everything["NetworkPolicy", "backend"]["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    clients, numbers = policy["ingress"]
    assert clients["ports"] == [{"port": "http"}]
    assert clients["from"][0]["namespaceSelector"]["matchExpressions"][0]["values"] == ["ingress-nginx", "traefik"]
    assert numbers["ports"] == [{"port": "probes"}]
    out = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert out == {53, 5432, 443, 9000}


def test_both_ingresses_let_a_chunk_in_base64_pass_and_collect_nothing(settings: Settings) -> None:
    for name in ("nginx", "traefik"):
        (ingress,) = (item for item in render(name) if item["kind"] == "Ingress")
        (rule,) = ingress["spec"]["rules"]
        assert rule["host"] in ingress["spec"]["tls"][0]["hosts"], "HTTP/2 wants TLS"
        (path,) = rule["http"]["paths"]
        assert path["backend"] == {"service": {"name": "backend", "port": {"name": "http"}}}
        assert ingress["spec"]["ingressClassName"] == name
        annotations = ingress["metadata"]["annotations"]
        if name == "nginx":
            prefix = "nginx.ingress.kubernetes.io/"
            size = int(annotations[f"{prefix}proxy-body-size"].removesuffix("m")) * 1024 * 1024
            assert size >= 1.6 * settings.max_chunk_size
            for what in ("proxy-request-buffering", "proxy-buffering", "proxy-next-upstream"):
                assert annotations[prefix + what] == "off"
            proxy = (ROOT / "deploy/proxy/nginx.conf").read_text()
            for what in ("connect", "send", "read"):
                assert f"proxy_{what}_timeout {annotations[f'{prefix}proxy-{what}-timeout']}s;" in proxy
        else:
            assert not any("middlewares" in key for key in annotations)


def test_traefik_reaches_the_pods_as_the_example_without_kubernetes_does() -> None:
    items = {item["kind"]: item for item in render("traefik")}
    transport = items["ServersTransport"]
    assert transport["apiVersion"] == "traefik.io/v1alpha1"
    named = items["Service"]["metadata"]["annotations"]["traefik.ingress.kubernetes.io/service.serverstransport"]
    metadata = transport["metadata"]
    assert named == f"{metadata['namespace']}-{metadata['name']}@kubernetescrd"
    example = yaml.safe_load((ROOT / "deploy/proxy/traefik-dynamic.yml").read_text())
    assert transport["spec"] == example["http"]["serversTransports"]["gauzian"]


def test_prometheus_finds_the_pods_and_knows_them_under_the_name_that_rules_use(
    everything: dict[tuple[str, str], dict[str, Any]], monitoring: dict[str, dict[str, Any]]
) -> None:
    service, monitor = everything["Service", "backend"], monitoring["ServiceMonitor"]
    assert monitor["apiVersion"] == "monitoring.coreos.com/v1"
    labels = service["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    job = labels[monitor["spec"]["jobLabel"]]
    assert set(re.findall(r'job="(\w+)"', RULES.read_text())) == {job}
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("probes", "/metrics")
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    scrape = yaml.safe_load((RULES.parent / "prometheus.yml").read_text())
    assert endpoint["interval"] == scrape["global"]["scrape_interval"]
    assert endpoint["authorization"] == {"credentials": {"name": "backend", "key": "METRICS_TOKEN"}}
    assert "METRICS_TOKEN" in SECRET["stringData"]


def test_its_rules_are_those_of_prometheus(monitoring: dict[str, dict[str, Any]]) -> None:
    rule = monitoring["PrometheusRule"]
    assert rule["apiVersion"] == "monitoring.coreos.com/v1"
    assert rule["spec"] == yaml.safe_load(RULES.read_text())
    assert rule["metadata"]["labels"] == monitoring["ServiceMonitor"]["metadata"]["labels"]
    assert RULE.read_text() == prometheus_rule(), "run: python -m tests.deploy.kubernetes"


def test_the_script_that_rolls_out_names_what_is_there(everything: dict[tuple[str, str], dict[str, Any]]) -> None:
    script = (HOME / "update-max.sh").read_text()
    assert re.search(r"^NAME=(\w+)", script, re.MULTILINE)[1] == "backend"  # type: ignore[index]
    assert {kind for kind, name in everything if name == "backend"} >= {"Deployment", "ConfigMap"}
    assert (HOME / "base/configmap.yaml").exists()
    assert "deploy/kubernetes/base/configmap.yaml" in script
