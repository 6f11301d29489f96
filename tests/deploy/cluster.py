"""As much of a Kubernetes API server as a real kubectl needs to roll one Deployment out and back."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

_KINDS = {
    "/api/v1": [("pods", "Pod"), ("configmaps", "ConfigMap")],
    "/apis/apps/v1": [("deployments", "Deployment"), ("replicasets", "ReplicaSet")],
}
_OBJECT = re.compile(r"(/api/v1|/apis/apps/v1)/namespaces/gauzian/(\w+)(?:/([\w-]+))?(/log)?")


def _found(kind: str, name: str, **more: Any) -> dict[str, Any]:
    version = "apps/v1" if kind in ("Deployment", "ReplicaSet") else "v1"
    metadata = {"name": name, "namespace": "gauzian", "uid": f"{kind}-{name}", "resourceVersion": "1", "generation": 1}
    return {"apiVersion": version, "kind": kind, "metadata": metadata | more.pop("metadata", {})} | more


@dataclass
class Cluster:
    """One Deployment at revision 7, all of whose pods are up, and its ConfigMap."""

    kubeconfig: Path
    says: str = "Max concurrent uploads: 120"
    patches: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        labels = {"app": "backend"}
        container = {"name": "backend", "image": "gauzian:before", "env": [{"name": "KEPT", "value": "1"}]}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        revision = {"annotations": {"deployment.kubernetes.io/revision": "7"}}
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "backend", "controller": True}
        spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
        up = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 2)
        status = {"observedGeneration": 99} | up
        owned = revision | {"labels": labels, "ownerReferences": [owner | {"uid": "Deployment-backend"}]}
        leaving = {"labels": labels, "deletionTimestamp": "2026-01-01T00:00:00Z"}
        self.objects: dict[str, list[dict[str, Any]]] = {
            "deployments": [_found("Deployment", "backend", metadata=revision, spec=spec, status=status)],
            "replicasets": [_found("ReplicaSet", "backend-7", metadata=owned, spec=copy.deepcopy(spec))],
            "configmaps": [_found("ConfigMap", "backend", data={"MAX_CONCURRENT_UPLOADS": "50", "PORT": "1"})],
            "pods": [
                _found("Pod", "backend-a", metadata={"labels": labels}, spec=template["spec"]),
                _found("Pod", "backend-b", metadata={"labels": labels}, spec=template["spec"]),
                _found("Pod", "backend-old", metadata=leaving, spec=template["spec"]),
            ],
        }

    @property
    def places(self) -> str:
        return str(self.objects["configmaps"][0]["data"]["MAX_CONCURRENT_UPLOADS"])

    @property
    def template(self) -> dict[str, Any]:
        return dict(self.objects["deployments"][0]["spec"]["template"])

    def answer(self, method: str, target: str, body: bytes, content_type: str) -> tuple[int, Any]:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        if path in ("/api", "/apis"):
            return 200, _groups(path)
        if path in _KINDS:
            return 200, _resources(path)
        match = _OBJECT.fullmatch(path)
        if match is None or "sendInitialEvents" in query:
            return 422 if match else 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422}
        prefix, kind, name, is_log = match.groups()
        if is_log:
            return 200, f"first line\n{self.says}\n"
        if "watch" in query:
            return 200, None
        if name is None:
            named = next(title for plural, title in _KINDS[prefix] if plural == kind)
            version = prefix.removeprefix("/apis/").removeprefix("/api/")
            head = {"kind": f"{named}List", "apiVersion": version, "metadata": {"resourceVersion": "1"}}
            return 200, head | {"items": self.objects[kind]}
        item = next(item for item in self.objects[kind] if item["metadata"]["name"] == name)
        if method == "PATCH":
            self.patches.append(f"{kind} {content_type}")
            _apply(item, json.loads(body))
        return 200, item


def _groups(path: str) -> dict[str, Any]:
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    version = {"groupVersion": "apps/v1", "version": "v1"}
    group = {"name": "apps", "versions": [version], "preferredVersion": version}
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]}


def _resources(path: str) -> dict[str, Any]:
    verbs = ["get", "list", "watch", "patch"]
    found = [
        {"name": plural, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": verbs}
        for plural, kind in _KINDS[path]
    ]
    version = path.removeprefix("/apis/").removeprefix("/api/")
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": found}


def _apply(item: dict[str, Any], patch: Any) -> None:
    if isinstance(patch, list):  # RFC 6902, as `rollout undo` sends it
        for step in patch:
            *way, last = step["path"].strip("/").split("/")
            here = item
            for word in way:
                here = here[word]
            here[last] = step["value"]
        return
    for key, value in patch.items():
        if isinstance(value, dict):
            _apply(item.setdefault(key, {}), value)
        elif isinstance(value, list):  # a strategic merge: the containers of the same name
            for part in value:
                _apply(next(found for found in item[key] if found["name"] == part["name"]), part)
        else:
            item[key] = value


@contextmanager
def running_cluster(home: Path) -> Iterator[Cluster]:
    cluster = Cluster(home / "kubeconfig")

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, found = cluster.answer(self.command, self.path, body, self.headers.get("Content-Type", ""))
            data = found.encode() if isinstance(found, str) else json.dumps(found).encode() if found else b""
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(found, str) else "application/json")
            self.end_headers()
            self.wfile.write(data)

        do_PATCH = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    port = server.server_address[1]
    named = {"name": "here"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [named | {"cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [named | {"user": {}}],
        "contexts": [named | {"context": {"cluster": "here", "user": "here"}}],
    }
    cluster.kubeconfig.write_text(json.dumps(config))
    try:
        yield cluster
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
