"""Stock kubectl applies on the server's side: several managers, conflicts, what goes and what stays, the way from client-side apply."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from podwire.apiserver.managed_fields import paths
from running_apiserver import ApiServer

Tree = dict[str, Any]
Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]

WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: example/web:1
        ports: [{containerPort: 53, protocol: UDP}, {containerPort: 53}]
        env: [{name: A, value: "1"}, {name: B, value: "2"}]
"""
SIDECAR = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, annotations: {team: mesh}}
spec:
  template:
    spec:
      containers:
      - name: web
        env: [{name: C, value: "3"}]
        ports: [{containerPort: 53, protocol: UDP, name: dns}]
      - name: proxy
        image: example/proxy:1
"""
NOTHING = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
"""


@pytest.fixture
def kubectl(server: ApiServer, namespace: str) -> Kubectl:
    program = shutil.which("kubectl")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail("kubectl is not installed")
        pytest.skip("kubectl is not installed")

    def run(*arguments: str, stdin: str = "", status: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "KUBECONFIG": server.kubeconfig(), "HOME": str(server.folder)}
        command = [program, "-n", namespace, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment, timeout=60)
        assert done.returncode == status, done
        return done

    return run


def apply(kubectl: Kubectl, body: str, *more: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    return kubectl("apply", "--server-side", *more, "-f", "-", stdin=body, status=status)


def get(kubectl: Kubectl, *what: str) -> Tree:
    tree: Tree = json.loads(kubectl("get", *what, "-o", "json", "--show-managed-fields").stdout)
    return tree


def owners(tree: Tree) -> dict[tuple[str, str, str], list[str]]:
    entries = tree["metadata"].get("managedFields", ())
    return {(entry["manager"], entry["operation"], entry.get("subresource", "")): list(paths(entry["fieldsV1"])) for entry in entries}


def container(tree: Tree, name: str = "web") -> Tree:
    return next(one for one in tree["spec"]["template"]["spec"]["containers"] if one["name"] == name)


def test_two_managers_share_a_deployment(kubectl: Kubectl) -> None:
    assert apply(kubectl, WEB).stdout == "deployment.apps/web serverside-applied\n"
    apply(kubectl, SIDECAR, "--field-manager=mesh")
    tree = get(kubectl, "deployment", "web")
    assert [one["name"] for one in tree["spec"]["template"]["spec"]["containers"]] == ["web", "proxy"]
    assert [one["name"] for one in container(tree)["env"]] == ["A", "B", "C"]
    assert container(tree)["ports"] == [
        {"containerPort": 53, "protocol": "UDP", "name": "dns"},
        {"containerPort": 53, "protocol": "TCP"},
    ]
    # The first applies again and takes nothing from the second.
    apply(kubectl, WEB.replace(', {name: B, value: "2"}', ""))
    tree = get(kubectl, "deployment", "web")
    assert [one["name"] for one in container(tree)["env"]] == ["A", "C"]
    assert container(tree, "proxy")["image"] == "example/proxy:1"
    # The second leaves: what only it wanted goes, with the defaults that stood there.
    apply(kubectl, NOTHING, "--field-manager=mesh")
    tree = get(kubectl, "deployment", "web")
    assert [one["name"] for one in tree["spec"]["template"]["spec"]["containers"]] == ["web"]
    assert container(tree)["ports"] == [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 53, "protocol": "TCP"}]
    assert "annotations" not in tree["metadata"]
    assert {manager for manager, _, _ in owners(tree)} == {"kubectl"}


def test_conflicts_force_and_diff(kubectl: Kubectl) -> None:
    apply(kubectl, WEB)
    more = WEB.replace("replicas: 2", "replicas: 3").replace("web:1", "web:2")
    refused = apply(kubectl, more, "--field-manager=other", status=1).stderr
    assert refused.startswith(
        'error: Apply failed with 2 conflicts: conflicts with "kubectl":\n'
        "- .spec.replicas\n"
        '- .spec.template.spec.containers[name="web"].image\n'
    )
    assert apply(kubectl, WEB, "--field-manager=other", "--dry-run=server").stdout.endswith("serverside-applied (server dry run)\n")
    shown = kubectl("diff", "--server-side", "--force-conflicts", "--field-manager=other", "-f", "-", stdin=more, status=1).stdout
    assert [line for line in shown.splitlines() if line.startswith(("-  r", "+  r"))] == ["-  replicas: 2", "+  replicas: 3"]
    assert kubectl("diff", "--server-side", "-f", "-", stdin=WEB).stdout == ""
    assert get(kubectl, "deployment", "web")["spec"]["replicas"] == 2
    apply(kubectl, more, "--field-manager=other", "--force-conflicts")
    tree = get(kubectl, "deployment", "web")
    assert tree["spec"]["replicas"] == 3
    assert ".spec.replicas" not in owners(tree)["kubectl", "Apply", ""]
    assert ".spec.replicas" in owners(tree)["other", "Apply", ""]


def test_scale_takes_the_replicas(kubectl: Kubectl) -> None:
    apply(kubectl, WEB)
    kubectl("scale", "deployment/web", "--replicas=5")
    assert owners(get(kubectl, "deployment", "web"))["kubectl", "Update", "scale"] == [".spec.replicas"]
    refused = apply(kubectl, WEB, "--field-manager=other", status=1).stderr
    assert 'conflict with "kubectl" with subresource "scale" using apps/v1: .spec.replicas' in refused
    # Who leaves the field to the scaler has no conflict, and the field stays.
    apply(kubectl, WEB.replace("  replicas: 2\n", ""))
    assert get(kubectl, "deployment", "web")["spec"]["replicas"] == 5


def test_owners_are_shown_when_asked(kubectl: Kubectl) -> None:
    apply(kubectl, WEB)
    assert "managedFields" not in kubectl("get", "deployment", "web", "-o", "yaml").stdout
    shown = kubectl("get", "deployment", "web", "-o", "yaml", "--show-managed-fields").stdout
    assert 'k:{"containerPort":53,"protocol":"UDP"}:' in shown
    kubectl("create", "configmap", "c", "--from-literal=a=1")
    assert owners(get(kubectl, "configmap", "c")) == {("kubectl-create", "Update", ""): [".data", ".data.a"]}
    kubectl("label", "configmap", "c", "x=y")
    assert owners(get(kubectl, "configmap", "c"))["kubectl-label", "Update", ""] == [".metadata.labels", ".metadata.labels.x"]


def test_from_client_side_apply(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    assert list(owners(get(kubectl, "deployment", "web"))) == [("kubectl-client-side-apply", "Update", "")]
    apply(kubectl, WEB.replace("replicas: 2", "replicas: 4").replace(', {name: B, value: "2"}', ""))
    tree = get(kubectl, "deployment", "web")
    assert tree["spec"]["replicas"] == 4
    assert [one["name"] for one in container(tree)["env"]] == ["A"]
    assert {(manager, operation) for manager, operation, _ in owners(tree)} == {("kubectl", "Apply"), ("kubectl-last-applied", "Apply")}
    # And back: the annotation has followed.
    kubectl("apply", "-f", "-", stdin=WEB.replace("  replicas: 2\n", ""))
    assert [one["name"] for one in container(get(kubectl, "deployment", "web"))["env"]] == ["A", "B"]


def test_ports_of_a_service_merge_by_two_keys(kubectl: Kubectl) -> None:
    def service(*ports: Tree) -> str:
        spec = {"selector": {"a": "b"}, "ports": list(ports)}
        return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "dns"}, "spec": spec})

    udp, tcp = {"port": 53, "protocol": "UDP", "name": "u"}, {"port": 53, "name": "t"}
    apply(kubectl, service(udp, tcp))
    address = get(kubectl, "service", "dns")["spec"]["clusterIP"]
    apply(kubectl, service(udp, {"port": 80, "name": "web"}))
    tree = get(kubectl, "service", "dns")
    assert [(port["port"], port["protocol"]) for port in tree["spec"]["ports"]] == [(53, "UDP"), (80, "TCP")]
    assert tree["spec"]["clusterIP"] == address, "what the server gave stays"
    assert not any("clusterIP" in path for path in owners(tree)["kubectl", "Apply", ""])


def test_what_is_wrong_is_said(kubectl: Kubectl) -> None:
    wrong = WEB.replace("replicas: 2", "repicas: 2")
    assert ".spec.repicas: field not declared in schema" in apply(kubectl, wrong, status=1).stderr
    assert "replicas: Invalid value: -1" in apply(kubectl, WEB.replace("replicas: 2", "replicas: -1"), status=1).stderr
