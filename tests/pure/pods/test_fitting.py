"""What a node refuses of Pods that do not fit it, in the kubelet's words."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.objects import codec
from podwire.objects.core import Node, Pod
from podwire.pods.fitting import misfit

HAVE = {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "10Gi", "pods": "3"}


def node(*, labels: dict[str, str] | None = None, **spec: Any) -> Node:
    return codec.convert(Node, {"metadata": {"name": "n", "labels": labels or {}}, "spec": spec, "status": {"allocatable": HAVE}})


def pod(name: str = "p", *, labels: dict[str, str] | None = None, ports: Any = (), requests: Any = None, **spec: Any) -> Pod:
    container = {"name": "c", "ports": list(ports), "resources": {"requests": requests or {}}}
    return codec.convert(Pod, {"metadata": {"name": name, "labels": labels or {}}, "spec": {"containers": [container]} | spec})


def said(wanted: Pod, at: Node, *others: Pod) -> tuple[str, str]:
    found = misfit(wanted, at, others)
    return (found.reason, found.message) if found is not None else ("", "")


WEB = {"containerPort": 80, "hostPort": 8080}
GPU = {"key": "gpu", "value": "yes"}


@pytest.mark.parametrize(
    ("wanted", "at", "others", "answer"),
    [
        (pod(requests={"cpu": "1500m"}), node(), [pod(requests={"cpu": "500m"})], ("", "")),
        (
            pod(requests={"memory": "2Gi", "cpu": "1500m"}),
            node(),
            [pod(requests={"cpu": "501m"})],
            ("OutOfcpu", "Node didn't have enough resource: cpu, requested: 1500, used: 501, capacity: 2000"),
        ),
        (
            pod(requests={"memory": "2Gi"}),
            node(),
            [pod(requests={"memory": "1Mi"})],
            ("OutOfmemory", "Node didn't have enough resource: memory, requested: 2147483648, used: 1048576, capacity: 1073741824"),
        ),
        (
            pod(requests={"ephemeral-storage": "20Gi"}),
            node(),
            [],
            (
                "OutOfephemeral-storage",
                "Node didn't have enough resource: ephemeral-storage, requested: 21474836480, used: 0, capacity: 10737418240",
            ),
        ),
        (pod(), node(), [pod(), pod()], ("", "")),
        (pod(), node(), [pod()] * 3, ("OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3")),
        (pod(requests={"example.com/gpu": "1"}), node(), [], ("", "")),
        (
            pod(resources={"requests": {"cpu": "3"}}, requests={"cpu": "1"}),
            node(),
            [],
            ("OutOfcpu", "Node didn't have enough resource: cpu, requested: 3000, used: 0, capacity: 2000"),
        ),
        (pod(nodeSelector={"disk": "ssd"}), node(labels={"disk": "ssd"}), [], ("", "")),
        (
            pod(nodeSelector={"disk": "ssd"}),
            node(),
            [],
            ("NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"),
        ),
        (pod(), node(unschedulable=True, taints=[GPU | {"effect": "NoSchedule"}]), [], ("", "")),
        (pod(tolerations=[{"key": "gpu", "operator": "Exists"}]), node(taints=[GPU | {"effect": "NoExecute"}]), [], ("", "")),
        (
            pod(),
            node(taints=[GPU | {"effect": "NoExecute"}]),
            [],
            ("TaintToleration", "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"),
        ),
        (
            pod(ports=[WEB]),
            node(),
            [pod(ports=[WEB])],
            ("NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"),
        ),
        (pod(ports=[WEB]), node(), [pod(ports=[WEB | {"protocol": "UDP"}])], ("", "")),
        (pod(ports=[WEB | {"hostIP": "10.0.0.1"}]), node(), [pod(ports=[WEB | {"hostIP": "10.0.0.2"}])], ("", "")),
        (
            pod(os={"name": "windows"}),
            node(),
            [],
            ("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"),
        ),
        (
            pod(labels={"kubernetes.io/os": "windows"}),
            node(),
            [],
            ("PodOSSelectorNodeLabelDoesNotMatch", "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"),
        ),
    ],
)
def test_what_fits(wanted: Pod, at: Node, others: list[Pod], answer: tuple[str, str]) -> None:
    assert said(wanted, at, *others) == answer
