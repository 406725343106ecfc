"""What is filled in and what is refused of HorizontalPodAutoscalers, and how their metrics are printed.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/horizontal-pod-autoscaler-v2/
"""

from __future__ import annotations

from typing import Any, Final

from podwire.apiserver import quantity
from podwire.apiserver.cells import UNKNOWN
from podwire.apiserver.kind import Tree
from podwire.apiserver.validation import FieldError, Path, forbidden, invalid, path_segment, required
from podwire.apiserver.validation_values import one_of, selector_errors

_SPEC: Final = Path("spec")
_SOURCES: Final = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_LONGEST_WINDOW_S, _LONGEST_PERIOD_S = 3600, 1800
_PERCENT: Final = {"type": "Percent", "value": 100, "periodSeconds": 15}
_PODS: Final = {"type": "Pods", "value": 4, "periodSeconds": 15}


def fill(tree: Tree) -> None:
    """Fill in what the writer left out."""
    spec = tree.setdefault("spec", {})
    spec.setdefault("minReplicas", 1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if behavior is None:
        return
    up, down = behavior.setdefault("scaleUp", {}), behavior.setdefault("scaleDown", {})
    up.setdefault("stabilizationWindowSeconds", 0)
    up.setdefault("policies", [dict(_PODS), dict(_PERCENT)])
    down.setdefault("policies", [dict(_PERCENT)])
    for rules in (up, down):
        rules.setdefault("selectPolicy", "Max")


def errors(tree: Tree) -> list[FieldError]:
    """Give the errors of an autoscaler."""
    spec = tree.get("spec", {})
    found: list[FieldError] = []
    least, most = spec.get("minReplicas", 1), spec.get("maxReplicas", 0)
    if least < 1:
        found.append(invalid(_SPEC / "minReplicas", least, "must be greater than or equal to 1"))
    if most < 1:
        found.append(invalid(_SPEC / "maxReplicas", most, "must be greater than 0"))
    if most < least:
        found.append(invalid(_SPEC / "maxReplicas", most, "must be greater than or equal to `minReplicas`"))
    found += _reference(spec.get("scaleTargetRef", {}), _SPEC / "scaleTargetRef")
    for at, metric in enumerate(spec.get("metrics", ())):
        found += _metric(metric, _SPEC / "metrics" @ at)
    for key, rules in spec.get("behavior", {}).items():
        found += _rules(rules, _SPEC / "behavior" / key)
    return found


def _reference(target: Tree, path: Path) -> list[FieldError]:
    found = []
    for key in ("kind", "name"):
        if not target.get(key):
            found.append(required(path / key))
        else:
            found += [invalid(path / key, target[key], words) for words in path_segment(target[key])]
    return found


# Metrics ------------------------------------------------------------------------------------------------------------------


def _metric(metric: Tree, path: Path) -> list[FieldError]:
    kind, found = metric.get("type", ""), []
    if not kind:
        found.append(required(path / "type", "must specify a metric source type"))
    found += one_of(kind, _SOURCES, path / "type")
    present = [key for key in _SOURCES.values() if key in metric]
    if present:
        found += _source(metric[present[0]], present[0], path / present[0])
    wanted = _SOURCES.get(kind)
    if wanted is not None and wanted not in metric:
        found.append(required(path / wanted, "must populate information for the given metric source"))
    if len(present) != 1:
        found += [forbidden(path / key, "must populate the given metric source only") for key in present if key != wanted]
    return found


def _source(source: Tree, key: str, path: Path) -> list[FieldError]:
    target, where, found = source.get("target", {}), path / "target", []
    if key in ("resource", "containerResource"):
        if not source.get("name"):
            found.append(required(path / "name", "must specify a resource name"))
        if key == "containerResource" and not source.get("container"):
            found.append(required(path / "container", "must specify a container"))
    else:
        name = source.get("metric", {}).get("name", "")
        if not name:
            found.append(required(path / "metric" / "name", "must specify a metric name"))
        found += [invalid(path / "metric" / "name", name, words) for words in (path_segment(name) if name else ())]
        found += selector_errors(source.get("metric", {}).get("selector", {}), path / "metric" / "selector")
        if key == "object":
            found += _reference(source.get("describedObject", {}), path / "describedObject")
    return found + _target(target, where) + _amounts(target, key, where)


def _target(target: Tree, path: Path) -> list[FieldError]:
    kind = target.get("type", "")
    low = [key for key in ("value", "averageValue") if key in target and quantity.value(str(target[key])) <= 0]
    found = [invalid(path / key, target[key], "must be positive") for key in low]
    if not kind:
        found.append(required(path / "type", "must specify a metric target type"))
    elif kind not in ("Utilization", "Value", "AverageValue"):
        found.append(invalid(path / "type", kind, "must be either Utilization, Value, or AverageValue"))
    share = target.get("averageUtilization")
    if share is not None and share < 1:
        found.append(invalid(path / "averageUtilization", share, "must be greater than 0"))
    return found


def _amounts(target: Tree, key: str, path: Path) -> list[FieldError]:
    """Which of the amounts a source's target has."""
    has = {one for one in ("value", "averageValue", "averageUtilization") if one in target}
    if key in ("resource", "containerResource"):
        if not has & {"averageValue", "averageUtilization"}:
            return [required(path / "averageUtilization", "must set either a target raw value or a target utilization")]
        if has >= {"averageValue", "averageUtilization"}:
            return [forbidden(path / "averageValue", "may not set both a target raw value and a target utilization")]
    elif key == "pods":
        if "averageValue" not in has:
            return [required(path / "averageValue", "must specify a positive target averageValue")]
    else:
        if not has & {"value", "averageValue"}:
            return [required(path / "averageValue", "must set either a target value or averageValue")]
        if key == "external" and has >= {"value", "averageValue"}:
            return [forbidden(path / "value", "may not set both a target value for metric and a per-pod target")]
    return []


# Behaviour ----------------------------------------------------------------------------------------------------------------


def _rules(rules: Tree, path: Path) -> list[FieldError]:
    found: list[FieldError] = []
    window = rules.get("stabilizationWindowSeconds", 0)
    if window < 0:
        found.append(invalid(path / "stabilizationWindowSeconds", window, "must be greater than or equal to zero"))
    if window > _LONGEST_WINDOW_S:
        found.append(invalid(path / "stabilizationWindowSeconds", window, f"must be less than or equal to {_LONGEST_WINDOW_S}"))
    found += one_of(rules.get("selectPolicy", "Max"), ("Disabled", "Max", "Min"), path / "selectPolicy")
    if not rules.get("policies"):
        found.append(required(path / "policies", "must specify at least one Policy"))
    for at, policy in enumerate(rules.get("policies", ())):
        where, period = path / "policies" @ at, policy.get("periodSeconds", 0)
        found += one_of(policy.get("type", ""), ("Percent", "Pods"), where / "type")
        if policy.get("value", 0) <= 0:
            found.append(invalid(where / "value", policy.get("value", 0), "must be greater than zero"))
        if period <= 0:
            found.append(invalid(where / "periodSeconds", period, "must be greater than zero"))
        if period > _LONGEST_PERIOD_S:
            found.append(invalid(where / "periodSeconds", period, f"must be less than or equal to {_LONGEST_PERIOD_S}"))
    tolerance = rules.get("tolerance")
    if tolerance is not None and quantity.value(str(tolerance)) < 0:
        found.append(invalid(path / "tolerance", tolerance, "must be greater than or equal to 0"))
    return found


# Printed ------------------------------------------------------------------------------------------------------------------


def targets(tree: Tree) -> str:
    """Print what is measured, and what it should be."""
    metrics, current = tree.get("spec", {}).get("metrics", ()), tree.get("status", {}).get("currentMetrics", ())
    shown = [_shown(metric, _current(metric, current)) for metric in metrics]
    return ", ".join(shown[:2]) + (f" + {len(shown) - 2} more..." if len(shown) > 2 else "")


def _current(metric: Tree, current: Any) -> Tree:
    """What was measured last of a metric."""
    key = _SOURCES.get(metric.get("type", ""), "")
    wanted = _identity(metric.get(key, {}))
    found: list[Tree] = [one[key] for one in current if key in one and _identity(one[key]) == wanted]
    return found[0].get("current", {}) if found else {}


def _identity(source: Tree) -> tuple[Any, ...]:
    return source.get("name"), source.get("container"), source.get("metric"), source.get("describedObject")


def _shown(metric: Tree, now: Tree) -> str:
    key = _SOURCES.get(metric.get("type", ""))
    source = metric.get(key or "", {})
    target, name = source.get("target", {}), f"{source['name']}: " if "name" in source else ""
    if key is None:
        return f"{UNKNOWN}/{metric.get('type', '')}"
    if "averageUtilization" in target:
        used = f"{now['averageUtilization']}%" if "averageUtilization" in now else UNKNOWN
        return f"{name}{used}/{target['averageUtilization']}%"
    if "averageValue" in target:
        return f"{name}{now.get('averageValue', UNKNOWN)}/{target['averageValue']}" + (" (avg)" if key in ("object", "external") else "")
    return f"{name}{now.get('value', UNKNOWN)}/{target.get('value', '')}"
