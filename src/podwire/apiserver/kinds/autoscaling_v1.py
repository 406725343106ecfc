"""The row of autoscaling/v1 HorizontalPodAutoscaler: the objects of v2, with a field for one metric, the use of CPU.

What this version has no field for stands in annotations, in the form of this version's types, and is read from there: nothing is lost on
the way there and back.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/horizontal-pod-autoscaler-v1/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import orjson

from podwire.apiserver.kind import Conversion, Kind, Tree
from podwire.apiserver.kinds.limits import HORIZONTAL_POD_AUTOSCALER

_PREFIX = "autoscaling.alpha.kubernetes.io/"
_METRICS, _BEHAVIOR, _CONDITIONS, _CURRENT = (_PREFIX + name for name in ("metrics", "behavior", "conditions", "current-metrics"))
_SOURCES = ("resource", "containerResource", "pods", "object", "external")

# Fields of a metric that lie elsewhere: here -> there. What is named in neither column lies at the same place.
_RESOURCE = (("AverageUtilization", "averageUtilization"), ("AverageValue", "averageValue"))
_TARGETS: dict[str, tuple[tuple[str, str], ...]] = {
    "resource": _RESOURCE,
    "containerResource": _RESOURCE,
    "pods": (("AverageValue", "averageValue"),),
    "object": (("Value", "value"), ("averageValue", "averageValue")),
    "external": (("Value", "value"), ("AverageValue", "averageValue")),
}
_TYPES = {"averageUtilization": "Utilization", "averageValue": "AverageValue", "value": "Value"}


def _metric_back(metric: Tree, part: str) -> Tree:
    """Turn a metric of v2 into one of this version. ``part``: ``target`` in the spec, ``current`` in the status."""
    made: Tree = {"type": metric.get("type", "")}
    for source in _SOURCES:
        if source not in metric:
            continue
        old = dict(metric[source])
        values, about, target = old.pop(part, {}), old.pop("metric", {}), old.pop("describedObject", None)
        new = old | ({"target": target} if target is not None else {}) | ({"metricName": about["name"]} if "name" in about else {})
        if "selector" in about:
            new["metricSelector" if source == "external" else "selector"] = about["selector"]
        for here, there in _TARGETS[source]:
            if there in values:
                new[_field(part, here)] = values[there]
        made[source] = new
    return made


def _metric_there(metric: Tree, part: str) -> Tree:
    """Turn a metric of this version into one of v2."""
    made: Tree = {"type": metric.get("type", "")}
    for source in _SOURCES:
        if not isinstance(metric.get(source), dict):
            continue
        new = dict(metric[source])
        fields = [(_field(part, here), there) for here, there in _TARGETS[source]]
        values = {there: new.pop(here) for here, there in fields if here in new}
        if part == "target":
            values["type"] = next((_TYPES[there] for there in values), "")
        if source == "object":
            new["describedObject"] = new.pop("target", {})
        about = {"name": new.pop("metricName", "")} if not source.endswith("esource") else None
        selector = new.pop("metricSelector" if source == "external" else "selector", None)
        if about is not None:
            new["metric"] = about | ({"selector": selector} if selector is not None else {})
        made[source] = {**new, part: values}
    return made


def _field(part: str, name: str) -> str:
    """``targetAverageValue``, ``currentAverageValue``; a field of its own name is as it is."""
    return part + name if name[0].isupper() else name


def _is_cpu(metric: Tree) -> bool:
    return metric.get("type") == "Resource" and metric.get("resource", {}).get("name") == "cpu"


def _back(tree: Tree) -> Tree:
    """v2 -> v1."""
    annotations = dict(tree.get("metadata", {}).get("annotations", {}))
    made = dict(tree)
    if "spec" in tree:
        spec = dict(tree["spec"])
        metrics, others = list(spec.pop("metrics", ())), []
        for metric in metrics:
            use = metric.get("resource", {}).get("target", {}).get("averageUtilization") if _is_cpu(metric) else None
            if use is not None and "targetCPUUtilizationPercentage" not in spec:
                spec["targetCPUUtilizationPercentage"] = use
            else:
                others.append(_metric_back(metric, "target"))
        _note(annotations, _METRICS, others)
        _note(annotations, _BEHAVIOR, spec.pop("behavior", None))
        made["spec"] = spec
    if "status" in tree:
        status = dict(tree["status"])
        current = status.pop("currentMetrics", None) or ()
        used = (metric["resource"].get("current", {}).get("averageUtilization") for metric in current if _is_cpu(metric))
        if (percentage := next(used, None)) is not None:
            status["currentCPUUtilizationPercentage"] = percentage
        _note(annotations, _CURRENT, [_metric_back(metric, "current") for metric in current])
        _note(annotations, _CONDITIONS, status.pop("conditions", None))
        made["status"] = status
    return _annotated(made, annotations)


def _there(tree: Tree) -> Tree:
    """v1 -> v2."""
    annotations = dict(tree.get("metadata", {}).get("annotations", {}))
    metrics, behavior, conditions, current = (_noted(annotations, name) for name in (_METRICS, _BEHAVIOR, _CONDITIONS, _CURRENT))
    made = dict(tree)
    if "spec" in tree:
        spec = dict(tree["spec"])
        found = [_metric_there(metric, "target") for metric in _objects(metrics)]
        use = spec.pop("targetCPUUtilizationPercentage", None)
        if use is not None:
            found.insert(0, {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": use}}})
        made["spec"] = spec | ({"metrics": found} if found else {}) | ({"behavior": behavior} if isinstance(behavior, dict) else {})
    if "status" in tree:
        status = dict(tree["status"])
        status.pop("currentCPUUtilizationPercentage", None)
        shown = [_metric_there(metric, "current") for metric in _objects(current)]
        told = list(_objects(conditions))
        made["status"] = status | ({"currentMetrics": shown} if shown else {}) | ({"conditions": told} if told else {})
    return _annotated(made, annotations)


def _annotated(tree: Tree, annotations: Tree) -> Tree:
    if "metadata" not in tree:
        return tree
    rest = {key: value for key, value in tree["metadata"].items() if key != "annotations"}
    return {**tree, "metadata": rest | ({"annotations": annotations} if annotations else {})}


def _note(annotations: Tree, name: str, value: Any) -> None:
    if value:
        annotations[name] = orjson.dumps(value).decode()


def _noted(annotations: Tree, name: str) -> Any:
    """Take an annotation out. One that is no JSON says nothing."""
    try:
        return orjson.loads(annotations.pop(name, "null"))
    except orjson.JSONDecodeError:
        return None


def _objects(value: Any) -> Iterable[Tree]:
    return (one for one in value if isinstance(one, dict)) if isinstance(value, list) else ()


HORIZONTAL_POD_AUTOSCALER_V1: Kind = replace(
    HORIZONTAL_POD_AUTOSCALER,
    version="v1",
    definition="io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
    default=lambda _tree: None,
    validate=lambda _tree, _old: [],
    conversion=Conversion(
        HORIZONTAL_POD_AUTOSCALER,
        _there,
        _back,
        words=(("spec.metrics[0].resource.target.averageUtilization", "spec.targetCPUUtilizationPercentage"),),
    ),
)

KINDS = (HORIZONTAL_POD_AUTOSCALER_V1,)
