"""DaemonSets, StatefulSets and budgets as a person meets them: kubectl rollout, describe, drain."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from e2e.lab import Cluster, until


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    name = "workload-kinds"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--timeout=60s")


def manifest(kind: str, **spec: object) -> str:
    template = {"metadata": {"labels": {"app": "one"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}
    body = {"selector": {"matchLabels": {"app": "one"}}, "template": template} | spec
    return json.dumps({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "one"}, "spec": body})


def test_a_daemon_set_rolls_out_and_back(cluster: Cluster, namespace: str) -> None:
    here = ("-n", namespace)
    cluster.kubectl("create", *here, "-f", "-", stdin=manifest("DaemonSet"))
    done = 'daemon set "one" successfully rolled out'
    assert done in cluster.kubectl("rollout", "status", "daemonset/one", *here, "--timeout=60s").stdout
    nodes = sorted(node["metadata"]["name"] for node in cluster.get("nodes")["items"])
    assert sorted(pod["spec"]["nodeName"] for pod in cluster.ready(namespace)) == nodes
    cluster.kubectl("set", "image", "daemonset/one", "c=nginx:2", *here)
    assert done in cluster.kubectl("rollout", "status", "daemonset/one", *here, "--timeout=60s").stdout
    cluster.kubectl("rollout", "undo", "daemonset/one", *here)
    assert done in cluster.kubectl("rollout", "status", "daemonset/one", *here, "--timeout=60s").stdout
    assert {pod["spec"]["containers"][0]["image"] for pod in cluster.ready(namespace)} == {"nginx"}
    row = cluster.kubectl("get", "daemonset", "one", *here, "--no-headers").stdout.split()
    assert row[:6] == ["one", *[str(len(nodes))] * 5]


def test_a_drain_asks_the_budget_and_names_come_back(cluster: Cluster, namespace: str) -> None:
    here = ("-n", namespace)
    cluster.kubectl("create", *here, "-f", "-", stdin=manifest("StatefulSet", replicas=3, serviceName="one"))
    cluster.kubectl("rollout", "status", "statefulset/one", *here, "--timeout=60s")
    cluster.kubectl("create", "poddisruptionbudget", "one", *here, "--selector=app=one", "--min-available=2")
    until(lambda: cluster.get("poddisruptionbudget", "one", *here)["status"].get("disruptionsAllowed") == 1, "one may go")
    node = cluster.get("pod", "one-1", *here)["spec"]["nodeName"]
    try:
        told = cluster.kubectl("drain", node, "--ignore-daemonsets", "--pod-selector=app=one", "--timeout=60s").stdout
        assert "pod/one-1 evicted" in told
        cluster.kubectl("rollout", "status", "statefulset/one", *here, "--timeout=60s")
        pods = cluster.ready(namespace)
        assert sorted(pod["metadata"]["name"] for pod in pods) == ["one-0", "one-1", "one-2"]
        assert node not in {pod["spec"]["nodeName"] for pod in pods}
    finally:
        cluster.kubectl("uncordon", node)
    assert "SuccessfulCreate" in cluster.kubectl("describe", "statefulset", "one", *here).stdout


def test_what_fits_nowhere_is_told_in_kubernetes_words(cluster: Cluster, namespace: str) -> None:
    spec = {"containers": [{"name": "c", "image": "nginx", "resources": {"requests": {"cpu": "10k"}}}]}
    tree = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "huge"}, "spec": spec}
    cluster.kubectl("create", "-n", namespace, "-f", "-", stdin=json.dumps(tree))
    count = len(cluster.get("nodes")["items"])
    words = f"0/{count} nodes are available: {count} Insufficient cpu."
    until(lambda: words in cluster.kubectl("describe", "pod", "huge", "-n", namespace).stdout, "the scheduler's words")


def test_a_pod_of_higher_priority_gets_room(cluster: Cluster, namespace: str) -> None:
    # Both are less important than what other tests have here.
    cluster.kubectl("create", "priorityclass", f"{namespace}-low", "--value=-20")
    cluster.kubectl("create", "priorityclass", f"{namespace}-high", "--value=-10")
    node = cluster.get("nodes")["items"][0]
    cpus = int(node["status"]["allocatable"]["cpu"])
    here = {"kubernetes.io/hostname": node["metadata"]["name"]}

    def pod(name: str, priority: str) -> str:
        container = {"name": "c", "image": "nginx", "resources": {"requests": {"cpu": f"{cpus * 1000 * 2 // 3}m"}}}
        spec = {"priorityClassName": f"{namespace}-{priority}", "nodeSelector": here, "containers": [container]}
        return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

    def wait(name: str) -> None:
        cluster.kubectl("wait", "-n", namespace, f"pod/{name}", "--for=condition=Ready", "--timeout=60s")

    try:
        cluster.kubectl("create", "-n", namespace, "-f", "-", stdin=pod("low", "low"))
        wait("low")
        cluster.kubectl("create", "-n", namespace, "-f", "-", stdin=pod("high", "high"))
        wait("high")
        assert cluster.kubectl("get", "-n", namespace, "pod", "low", status=1).stderr.startswith("Error from server (NotFound)")
        uid = cluster.get("-n", namespace, "pod", "high")["metadata"]["uid"]
        events = cluster.get("-n", namespace, "events", "--field-selector", "reason=Preempted")["items"]
        assert [one["message"] for one in events] == [f"Preempted by pod {uid} on node {node['metadata']['name']}"]
    finally:
        cluster.kubectl("delete", "priorityclass", f"{namespace}-low", f"{namespace}-high")
