# ruff: noqa: E501  (messages are written whole, so that they can be searched for)
"""What is filled in and refused of autoscalers, and how their metrics are printed."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from podwire.apiserver import schema, tables
from podwire.apiserver.kinds.limits import HORIZONTAL_POD_AUTOSCALER as SCALER

Tree = dict[str, Any]
SPEC: Tree = {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web"}}
CPU: Tree = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
PODS: Tree = {"type": "Pods", "pods": {"metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "10"}}}
WEB: Tree = {"kind": "Service", "name": "web"}
OBJECT: Tree = {"type": "Object", "object": {"describedObject": WEB, "metric": {"name": "hits"}, "target": {"type": "Value", "value": "5"}}}
QUEUE: Tree = {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "2"}}}
MEMORY: Tree = {
    "type": "ContainerResource",
    "containerResource": {"name": "memory", "container": "a", "target": {"type": "AverageValue", "averageValue": "1Gi"}},
}


def made(**spec: Any) -> Tree:
    tree: Tree = copy.deepcopy({"metadata": {"name": "x", "namespace": "default"}, "spec": {**SPEC, **spec}})
    assert schema.prune_and_check(SCALER, tree) == []
    SCALER.for_create(tree)
    return tree


def errors(**spec: Any) -> list[str]:
    return [str(error) for error in SCALER.check(made(**spec), None)]


def test_a_behaviour_is_filled_in() -> None:
    assert "behavior" not in made()["spec"]
    percent, pods = {"type": "Percent", "value": 100, "periodSeconds": 15}, {"type": "Pods", "value": 4, "periodSeconds": 15}
    assert made(behavior={"scaleDown": {"stabilizationWindowSeconds": 5}})["spec"]["behavior"] == {
        "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [pods, percent]},
        "scaleDown": {"stabilizationWindowSeconds": 5, "selectPolicy": "Max", "policies": [percent]},
    }


def target(metric: Tree, **changes: Any) -> Tree:
    found: Tree = copy.deepcopy(metric)
    source = next(value for key, value in found.items() if key != "type")
    source["target"] = {key: value for key, value in {**source["target"], **changes}.items() if value is not None}
    return found


def rules(**rules: Any) -> Tree:
    return {"behavior": {"scaleUp": rules}}


UP = "spec.behavior.scaleUp"


@pytest.mark.parametrize("metric", [CPU, PODS, OBJECT, QUEUE, MEMORY])
def test_metrics_that_are_right(metric: Tree) -> None:
    assert errors(metrics=[metric]) == []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"minReplicas": 0}, "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"),
        ({"scaleTargetRef": {"kind": "Deployment", "name": "a/b"}}, "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'"),
        ({"metrics": [{**CPU, "type": "Power"}]}, 'spec.metrics[0].type: Unsupported value: "Power": supported values: "ContainerResource", "External", "Object", "Pods", "Resource"'),
        ({"metrics": [{"type": "Resource"}]}, "spec.metrics[0].resource: Required value: must populate information for the given metric source"),
        ({"metrics": [{**CPU, "pods": PODS["pods"]}]}, "spec.metrics[0].pods: Forbidden: must populate the given metric source only"),
        ({"metrics": [target(CPU, averageUtilization=None)]}, "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization"),
        ({"metrics": [target(CPU, averageValue="1")]}, "spec.metrics[0].resource.target.averageValue: Forbidden: may not set both a target raw value and a target utilization"),
        ({"metrics": [target(CPU, averageUtilization=0)]}, "spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0"),
        ({"metrics": [target(CPU, type="Share")]}, 'spec.metrics[0].resource.target.type: Invalid value: "Share": must be either Utilization, Value, or AverageValue'),
        ({"metrics": [target(PODS, averageValue="0")]}, 'spec.metrics[0].pods.target.averageValue: Invalid value: "0": must be positive'),
        ({"metrics": [target(PODS, averageValue=None, value="1")]}, "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue"),
        ({"metrics": [target(QUEUE, value="1")]}, "spec.metrics[0].external.target.value: Forbidden: may not set both a target value for metric and a per-pod target"),
        ({"metrics": [target(OBJECT, value=None)]}, "spec.metrics[0].object.target.averageValue: Required value: must set either a target value or averageValue"),
        (rules(stabilizationWindowSeconds=-1), f"{UP}.stabilizationWindowSeconds: Invalid value: -1: must be greater than or equal to zero"),
        (rules(stabilizationWindowSeconds=3601), f"{UP}.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600"),
        (rules(selectPolicy="Mean"), f'{UP}.selectPolicy: Unsupported value: "Mean": supported values: "Disabled", "Max", "Min"'),
        (rules(policies=[{"type": "Pods", "value": 0, "periodSeconds": 15}]), f"{UP}.policies[0].value: Invalid value: 0: must be greater than zero"),
        (rules(policies=[{"type": "Pods", "value": 1, "periodSeconds": 1801}]), f"{UP}.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"),
        (rules(policies=[{"type": "Nodes", "value": 1, "periodSeconds": 1}]), f'{UP}.policies[0].type: Unsupported value: "Nodes": supported values: "Percent", "Pods"'),
        (rules(tolerance="-1"), f'{UP}.tolerance: Invalid value: "-1": must be greater than or equal to 0'),
    ],
)  # fmt: skip
def test_what_is_refused(spec: Tree, expected: str) -> None:
    assert errors(**spec) == [expected]


def test_how_metrics_are_printed() -> None:
    def printed(*metrics: Tree, measured: tuple[Tree, ...] = ()) -> str:
        tree = made(metrics=list(metrics))
        tree["status"]["currentMetrics"] = list(measured)
        return str(tables.row(SCALER, tree, datetime(2026, 1, 1, tzinfo=UTC))["cells"][2])

    assert printed(CPU, MEMORY) == "cpu: <unknown>/50%, memory: <unknown>/1Gi"
    assert printed(PODS, OBJECT, QUEUE) == "<unknown>/10, <unknown>/5 + 1 more..."
    assert printed(QUEUE) == "<unknown>/2 (avg)"
    cpu = {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 7, "averageValue": "7m"}}}
    hits = {"type": "Pods", "pods": {"metric": {"name": "hits"}, "current": {"averageValue": "3"}}}
    assert printed(CPU, PODS, measured=(hits, cpu)) == "cpu: 7%/50%, 3/10"
