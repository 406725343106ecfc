"""What is used, as a person meets it: kubectl top, and an autoscaler that acts on it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from e2e.lab import Cluster, until

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: busy}
spec:
  selector: {matchLabels: {app: busy}}
  template:
    metadata: {labels: {app: busy}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: burns
        image: podwire.dev/machine
        command: [timeout, "120", sh, -c, "while :; do :; done"]
        resources: {requests: {cpu: 20m}}
      - {name: rests, image: podwire.dev/machine, command: [sleep, "10000"], resources: {requests: {cpu: 20m}}}
"""
WEB = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {containers: [{name: c, image: nginx}]}
"""
SCALER = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: busy}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: busy}
  minReplicas: 1
  maxReplicas: 2
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
"""


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    name = "usage"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--timeout=60s")


def cores(text: str) -> int:
    return int(text.removesuffix("m"))


def test_what_burns_is_seen_and_scaled(cluster: Cluster, namespace: str) -> None:
    here = ("-n", namespace)
    cluster.kubectl("create", *here, "-f", "-", stdin=DEPLOYMENT)
    cluster.kubectl("create", *here, "-f", "-", stdin=WEB)
    cluster.ready(namespace)

    def rows() -> dict[tuple[str, str], list[str]]:
        done = cluster.kubectl("top", "pods", "--containers", "--no-headers", *here, status=None)
        found = [line.split() for line in done.stdout.splitlines()]
        return {(row[0].split("-")[0], row[1]): row[2:] for row in found}

    def burning() -> bool:
        found = rows()
        return ("busy", "burns") in found and ("web", "c") in found and cores(found["busy", "burns"][0]) > 40

    until(burning, "the container that burns is seen to")
    until(lambda: cores(rows()["busy", "rests"][0]) < 20, "the one that rests has been started")
    assert int(rows()["web", "c"][1].removesuffix("Mi")) > 0
    nodes = cluster.kubectl("top", "nodes", "--no-headers").stdout.splitlines()
    assert len(nodes) == len(cluster.get("nodes")["items"])
    by_label = cluster.kubectl("top", "pods", "--no-headers", "-l", "app=web", *here).stdout.split()
    assert by_label[0] == "web"
    single = cluster.get("pods.metrics.k8s.io", "web", *here)
    assert [one["name"] for one in single["containers"]] == ["c"]
    refused = cluster.kubectl("get", "pods.metrics.k8s.io", "none", *here, status=1).stderr
    assert 'pods.metrics.k8s.io "usage/none" not found' in refused

    cluster.kubectl("create", *here, "-f", "-", stdin=SCALER)
    until(lambda: cluster.get("deployment", "busy", *here)["spec"]["replicas"] == 2, "a second Pod is asked for")
    told = "New size: 2; reason: cpu resource utilization (percentage of request) above target"
    until(lambda: told in cluster.kubectl("describe", "hpa", "busy", *here).stdout, "the Event")
    scaler = json.loads(cluster.kubectl("get", "hpa", "busy", "-o", "json", *here).stdout)
    conditions = {one["type"]: (one["status"], one["reason"]) for one in scaler["status"]["conditions"]}
    assert conditions["ScalingActive"] == ("True", "ValidMetricFound")
    assert conditions["ScalingLimited"][0] == "True"
    assert scaler["status"]["currentMetrics"][0]["resource"]["current"]["averageUtilization"] > 50
