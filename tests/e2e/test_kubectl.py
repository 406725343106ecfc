"""Stock kubectl takes the API for real: the words that people use every day."""

from __future__ import annotations

import base64
import json
import subprocess
import uuid
from collections.abc import Iterator

import pytest

from certificate_requests import CLIENT, asking
from e2e.lab import Cluster, until

DEPLOYMENT = """
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
        ports: [{name: http, containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
"""


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    name = f"k-{uuid.uuid4().hex[:6]}"
    cluster.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def test_apply_get_describe_label_scale_delete(cluster: Cluster, namespace: str) -> None:
    here = ("-n", namespace)
    assert cluster.kubectl("apply", *here, "-f", "-", stdin=DEPLOYMENT).stdout == "deployment.apps/web created\nservice/web created\n"
    assert cluster.kubectl("apply", *here, "-f", "-", stdin=DEPLOYMENT).stdout == "deployment.apps/web unchanged\nservice/web unchanged\n"
    cluster.kubectl("rollout", "status", "deployment/web", *here, "--timeout=60s")
    pods = cluster.kubectl("get", "pods", *here).stdout.splitlines()
    assert pods[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert [line.split()[1:3] for line in pods[1:]] == [["1/1", "Running"]] * 2
    wide = cluster.kubectl("get", "pods", *here, "-o", "wide").stdout.splitlines()[0].split()
    assert wide[5:8] == ["IP", "NODE", "NOMINATED"]
    described = cluster.kubectl("describe", "pod", *here, "-l", "app=web").stdout
    mount = "/var/run/secrets/kubernetes.io/serviceaccount from kube-api-access-"
    for text in ("Service Account:  default", "Image:          example/web:1", mount, "Ready             True", "Scheduled", "Started"):
        assert text in described
    assert "web-" in cluster.kubectl("describe", "deployment", "web", *here).stdout
    assert "TargetPort:" in cluster.kubectl("describe", "service", "web", *here).stdout
    node = cluster.get("nodes")["items"][0]["metadata"]["name"]
    assert "topology.kubernetes.io/zone=us-central1-" in cluster.kubectl("describe", "node", node).stdout
    assert cluster.kubectl("label", "deployment", "web", *here, "tier=front").stdout == "deployment.apps/web labeled\n"
    assert cluster.get("deployment", "web", *here)["metadata"]["labels"] == {"app": "web", "tier": "front"}
    assert cluster.kubectl("scale", "deployment", "web", *here, "--replicas=4").stdout == "deployment.apps/web scaled\n"
    assert len(cluster.ready(namespace)) == 4
    assert cluster.kubectl("delete", "deployment", "web", *here).stdout.startswith('deployment.apps "web" deleted')
    until(lambda: not cluster.get("pods", *here)["items"], "the Deployment's Pods gone")


def test_changes_are_watched(cluster: Cluster, namespace: str) -> None:
    here = ("-n", namespace)
    command = ["kubectl", "--context", f"podwire-{cluster.name}", "get", "configmaps", *here, "-w", "--no-headers"]
    with cluster.user.start(command, stdout=subprocess.PIPE) as watch:
        assert watch.stdout is not None
        try:
            tree = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seen"}, "data": {"a": "1"}}
            cluster.kubectl("create", *here, "-f", "-", stdin=json.dumps(tree))
            for line in watch.stdout:
                if line.split()[:2] == ["seen", "1"]:
                    break
            cluster.kubectl("delete", *here, "configmap", "seen")
            assert watch.stdout.readline().split()[0] == "seen"
        finally:
            watch.terminate()


def test_explain_and_api_resources(cluster: Cluster) -> None:
    assert "FIELD: targetPort <IntOrString>" in cluster.kubectl("explain", "service.spec.ports.targetPort").stdout
    rows = cluster.kubectl("api-resources", "--no-headers").stdout.splitlines()
    assert ["pods", "po", "v1", "true", "Pod"] in [row.split() for row in rows]


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"apiVersion": "v1", "kind": "Gadget", "metadata": {"name": "a"}}, 'no matches for kind "Gadget" in version "v1"'),
        ({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": 1}}, "data"),
        ({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "dat": {}}, 'unknown field "dat"'),
        (
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 99999}]}},
            "spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive",
        ),
        ({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "A_b"}}, "metadata.name: Invalid value"),
    ],
)
def test_what_is_wrong_is_refused_in_kubernetes_words(cluster: Cluster, namespace: str, tree: object, message: str) -> None:
    refused = cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=json.dumps(tree), status=1)
    assert message in refused.stderr
    made = {item["metadata"]["name"] for item in cluster.get("configmaps,services", "-n", namespace)["items"]}
    assert made <= {"kube-root-ca.crt"}


def test_one_node_port_is_not_given_twice(cluster: Cluster, namespace: str) -> None:
    def service(name: str) -> str:
        ports = [{"port": 80, "nodePort": 31999}]
        return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"type": "NodePort", "ports": ports}})

    cluster.kubectl("create", "-n", namespace, "-f", "-", stdin=service("first"))
    refused = cluster.kubectl("create", "-n", namespace, "-f", "-", stdin=service("second"), status=1)
    assert "spec.ports[0].nodePort: Invalid value: 31999: provided port is already allocated" in refused.stderr
    assert [item["metadata"]["name"] for item in cluster.get("services", "-n", namespace)["items"]] == ["first"]


def test_the_api_asks_who_is_there(cluster: Cluster) -> None:
    code = (
        "import ssl, sys, urllib.request, urllib.error\n"
        "context = ssl._create_unverified_context()\n"
        "request = urllib.request.Request(sys.argv[1], headers=dict(part.split('=') for part in sys.argv[2:]))\n"
        "try: answer = urllib.request.urlopen(request, context=context)\n"
        "except urllib.error.HTTPError as e: answer = e\n"
        "print(answer.status, answer.read().decode())\n"
    )

    def ask(path: str, *headers: str) -> tuple[str, str]:
        said = cluster.user.run([cluster.user.python, "-c", code, cluster.status()["apiServer"] + path, *headers]).stdout
        status, _, text = said.partition(" ")
        return status, text.strip()

    refused, text = ask("/api/v1/secrets")
    assert refused == "403"
    assert json.loads(text)["message"] == (
        'secrets is forbidden: User "system:anonymous" cannot list resource "secrets" in API group "" at the cluster scope'
    )
    refused, text = ask("/api/v1/secrets", "Authorization=Bearer wrong")
    assert (refused, json.loads(text)["reason"], json.loads(text)["message"]) == ("401", "Unauthorized", "Unauthorized")
    assert ask("/healthz", "Authorization=Bearer wrong")[0] == "401"
    assert ask("/healthz") == ("200", "ok")


def test_a_certificate_is_asked_for_approved_and_used(cluster: Cluster) -> None:
    """As the tutorials make a user: openssl's request, `kubectl certificate approve`, the certificate in a kubeconfig."""
    wanted, key = asking("ann", "team")
    spec = {"request": wanted, "signerName": CLIENT, "usages": ["client auth"], "expirationSeconds": 3600}
    for name in ("ann", "bob"):
        tree = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name}, "spec": spec}
        assert cluster.kubectl("create", "-f", "-", stdin=json.dumps(tree)).stdout.endswith(f"{name} created\n")
    assert "Pending" in cluster.kubectl("get", "csr", "ann", "--no-headers").stdout
    assert cluster.kubectl("certificate", "approve", "ann").stdout == "certificatesigningrequest.certificates.k8s.io/ann approved\n"
    assert cluster.kubectl("certificate", "deny", "bob").stdout == "certificatesigningrequest.certificates.k8s.io/bob denied\n"
    cluster.kubectl("wait", "csr/ann", "--for=jsonpath={.status.certificate}", "--timeout=30s")
    assert cluster.kubectl("get", "csr", "ann", "--no-headers").stdout.split()[2:] == [CLIENT, "podwire-admin", "60m", "Approved,Issued"]
    assert cluster.kubectl("get", "csr", "bob", "--no-headers").stdout.split()[-1] == "Denied"
    given = base64.b64decode(cluster.get("csr", "ann")["status"]["certificate"])
    files = [cluster.user.home / "ann.crt", cluster.user.home / "ann.key"]
    for file, content in zip(files, (given, key), strict=True):
        file.write_bytes(content)
    credentials = [f"--client-certificate={files[0]}", f"--client-key={files[1]}"]
    who = cluster.kubectl(*credentials, "auth", "whoami", "-o", "jsonpath={.status.userInfo}")
    assert json.loads(who.stdout) == {"username": "ann", "groups": ["team", "system:authenticated"]}
    cluster.kubectl("delete", "csr", "ann", "bob")
