"""Stand-ins as a person meets them: images that are known by name, annotations that tell them what to do, Jobs that end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.lab import Cluster, until

NAMESPACE = "standins"
AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.53"


@pytest.fixture(scope="module")
def pods(cluster: Cluster) -> Iterator[dict[str, str]]:
    """Some Pods by name, and their addresses."""
    probe = {"httpGet": {"path": "/hostname", "port": 8080}, "periodSeconds": 1}
    containers = {
        "server": {"image": AGNHOST, "args": ["netexec"], "readinessProbe": probe, "livenessProbe": probe},
        "client": {"image": AGNHOST, "args": ["netexec"]},
        "web": {"image": "nginx:1.27"},
        "cache": {"image": "redis:alpine"},
    }
    items: list[Any] = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}]
    for name, container in containers.items():
        meta = {"name": name, "namespace": NAMESPACE, "labels": {"app": name}}
        items.append({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [{"name": "main", **container}]}})
    spec = {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": 8080}]}
    items.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server", "namespace": NAMESPACE}, "spec": spec})
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    yield {pod["metadata"]["name"]: pod["status"]["podIP"] for pod in cluster.ready(NAMESPACE)}
    cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=60s")


def get(cluster: Cluster, url: str) -> str:
    return cluster.get_text(f"pod/{NAMESPACE}/client", url)


def annotate(cluster: Cluster, pod: str, *words: str) -> None:
    cluster.kubectl("annotate", "pod", pod, "-n", NAMESPACE, "--overwrite", *(f"standin.podwire.dev/{word}" for word in words))


def ready(cluster: Cluster, pod: str) -> bool:
    conditions = cluster.get("pod", pod, "-n", NAMESPACE)["status"]["conditions"]
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def events(cluster: Cluster, pod: str) -> list[str]:
    found = cluster.get("events", "-n", NAMESPACE, "--field-selector", f"involvedObject.name={pod}")["items"]
    return [f"{one['reason']}: {one['message']}" for one in found]


def test_known_images_answer_as_their_programs_do(cluster: Cluster, pods: dict[str, str]) -> None:
    assert "Welcome to nginx!" in get(cluster, f"http://{pods['web']}/")
    assert get(cluster, f"http://{pods['server']}:8080/hostname") == "server"
    said = get(cluster, f"http://{pods['server']}:8080/clientip")
    assert said.startswith(f"{pods['client']}:")
    ping = "import socket, sys; one = socket.create_connection((sys.argv[1], 6379), 20); one.send(b'PING\\r\\n'); print(one.recv(99))"
    assert "+PONG" in cluster.exec(f"pod/{NAMESPACE}/client", cluster.user.python, "-c", ping, pods["cache"]).stdout
    until(lambda: any("a stand-in that behaves as redis plays the container" in one for one in events(cluster, "cache")), "the Event")


def test_agnhost_dials_a_service_by_its_name(cluster: Cluster, pods: dict[str, str]) -> None:
    url = f"http://{pods['client']}:8080/dial?host=server&port=80&request=hostname&protocol=http&tries=3"
    until(lambda: json.loads(get(cluster, url)) == {"responses": ["server"] * 3}, "three answers through the Service")
    connect = [cluster.user.python, "-m", "podwire.pods.standins.agnhost_command", "connect", "--timeout=10s"]
    where = f"pod/{NAMESPACE}/client"
    cluster.exec(where, *connect, "server:80")
    cluster.exec(where, *connect, f"{pods['server']}:8081", "--protocol=udp")
    assert cluster.exec(where, *connect, f"{pods['server']}:81", status=1).stderr == "REFUSED\n"


def test_annotations_hold_at_once(cluster: Cluster, pods: dict[str, str]) -> None:
    url = f"http://{pods['web']}/"
    annotate(cluster, "web", "status=503", "body=out of order")
    until(lambda: get(cluster, url) == "out of order", "the annotated body")
    annotate(cluster, "web", "status=soon")
    expected = 'annotation standin.podwire.dev/status: "soon": expected an HTTP status from 200 to 599'
    until(lambda: any(one.startswith(f"InvalidStandinAnnotation: {expected}") for one in events(cluster, "web")), "the Event")
    assert get(cluster, url) == "out of order"
    annotate(cluster, "web", "status-", "body-", "refuse=80")
    connect = [cluster.user.python, "-m", "podwire.pods.standins.agnhost_command", "connect", "--timeout=10s", f"{pods['web']}:80"]
    until(lambda: cluster.exec(f"pod/{NAMESPACE}/client", *connect, status=None).stderr == "REFUSED\n", "a refusal")
    annotate(cluster, "web", "refuse-")
    until(lambda: cluster.exec(f"pod/{NAMESPACE}/client", *connect, status=None).returncode == 0, "a connection")


def test_readiness_is_told_and_taken_back(cluster: Cluster, pods: dict[str, str]) -> None:
    annotate(cluster, "server", "fail-readiness=true")
    until(lambda: not ready(cluster, "server"), "not ready")
    endpoints = lambda: cluster.get("endpoints", "server", "-n", NAMESPACE).get("subsets") or []  # noqa: E731
    until(lambda: not any(one.get("addresses") for one in endpoints()), "no endpoint")
    annotate(cluster, "server", "fail-readiness-")
    until(lambda: ready(cluster, "server"), "ready again")
    annotate(cluster, "server", "fail-liveness=true")
    until(lambda: cluster.get("pod", "server", "-n", NAMESPACE)["status"]["containerStatuses"][0]["restartCount"] > 0, "a restart")
    annotate(cluster, "server", "fail-liveness-")
    until(lambda: ready(cluster, "server"), "ready after the restart")
    assert pods["server"] == cluster.get("pod", "server", "-n", NAMESPACE)["status"]["podIP"]


def test_what_need_not_run_for_ever_ends(cluster: Cluster, pods: dict[str, str]) -> None:
    once = ["-n", NAMESPACE, "--image=perl", "--restart=Never"]
    cluster.kubectl("run", "done", *once)
    cluster.kubectl("run", "failed", *once, "--annotations=standin.podwire.dev/exit-code=3")
    cluster.kubectl("wait", "pod/done", "-n", NAMESPACE, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    cluster.kubectl("wait", "pod/failed", "-n", NAMESPACE, "--for=jsonpath={.status.phase}=Failed", "--timeout=60s")
    state = cluster.get("pod", "failed", "-n", NAMESPACE)["status"]["containerStatuses"][0]["state"]
    assert state["terminated"]["exitCode"] == 3
