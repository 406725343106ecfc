"""Real input: Google's Online Boutique as published, and the first minute of somebody who knows GKE."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.lab import REPOSITORY, Cluster

BOUTIQUE = REPOSITORY.parent / "shared/manifests/online-boutique/kubernetes-manifests.yaml"
_PING = """
import socket, sys
with socket.create_connection((sys.argv[1], 6379), 20) as one:
    one.send(b"PING\\r\\n")
    sys.stdout.buffer.write(one.recv(99))
"""


@pytest.fixture(scope="module")
def namespace(cluster: Cluster) -> Iterator[str]:
    cluster.kubectl("create", "-f", "-", stdin='{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "boutique"}}')
    yield "boutique"
    cluster.kubectl("delete", "namespace", "boutique", "--timeout=60s")


@pytest.mark.skipif(not BOUTIQUE.exists(), reason="the public manifests lie beside the repository, not in it")
def test_online_boutique_becomes_ready_and_answers_by_name(cluster: Cluster, namespace: str) -> None:
    applied = cluster.kubectl("apply", "-n", namespace, "-f", "-", stdin=BOUTIQUE.read_text()).stdout
    assert applied.count(" created") == len(applied.splitlines()) > 30
    pods = cluster.ready(namespace)
    deployments = cluster.get("deployments", "-n", namespace)["items"]
    assert len(deployments) == 12
    [frontend] = [pod["metadata"]["name"] for pod in pods if pod["metadata"]["labels"]["app"] == "frontend"]
    for service in cluster.get("services", "-n", namespace)["items"]:
        name = service["metadata"]["name"]
        if name == "redis-cart":  # played as Redis: it speaks no HTTP
            where, call = f"pod/{namespace}/{frontend}", f"{name}.{namespace}"
            assert cluster.exec(where, cluster.user.python, "-c", _PING, call).stdout.strip() == "+PONG"
            continue
        for port in service["spec"]["ports"]:
            [answer] = cluster.fetch(f"pod/{namespace}/{frontend}", f"http://{name}.{namespace}:{port['port']}/")
            app = service["spec"]["selector"]["app"]
            assert answer["pod"]["name"].startswith(app), f"{name}:{port['port']} answered by {answer['pod']['name']}"
    balancer = cluster.balancer(f"{namespace}/frontend-external")
    [answer] = cluster.fetch("internet", f"http://{balancer['address']}/")
    assert answer["pod"]["name"].startswith("frontend")


def test_the_first_minute_of_a_gke_user(cluster: Cluster, tmp_path: Path) -> None:
    manifest = cluster.user.run(
        ["kubectl", "create", "deployment", "hello", "--image=us-docker.pkg.dev/google-samples/containers/gke/hello-app:1.0",
         "--replicas=2", "--dry-run=client", "-o", "yaml"]
    ).stdout  # fmt: skip
    cluster.kubectl("create", "-f", "-", stdin=manifest)
    exposed = cluster.kubectl("expose", "deployment", "hello", "--port", "80", "--target-port", "8080", "--type", "LoadBalancer")
    assert exposed.stdout == "service/hello exposed\n"
    cluster.kubectl("wait", "--for=condition=Available", "deployment/hello", "--timeout=60s")
    balancer = cluster.balancer("default/hello")
    greeting = cluster.get_text("internet", f"http://{balancer['address']}/")
    assert re.fullmatch(r"Hello, world!\nVersion: 1\.0\.0\nHostname: hello-\w+-\w+\n", greeting)
    row = cluster.kubectl("get", "service", "hello", "--no-headers").stdout.split()
    assert (row[0], row[1], row[3]) == ("hello", "LoadBalancer", balancer["address"])
    assert row[4].startswith("80:3")
    cluster.kubectl("delete", "service,deployment", "hello")
