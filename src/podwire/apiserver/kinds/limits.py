"""Rows of what bounds and scales: ResourceQuota and LimitRange (core), PodDisruptionBudget (policy), HorizontalPodAutoscaler
(autoscaling), PriorityClass (scheduling.k8s.io).

Source: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/ and .../workload-resources/
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from podwire.apiserver.cells import NONE, UNKNOWN, age
from podwire.apiserver.kind import AGE, NAME, STATUS, Column, Kind, Tree
from podwire.apiserver.kinds import autoscaler_rules
from podwire.apiserver.validation import IMMUTABLE, FieldError, Path, forbidden, invalid, required
from podwire.apiserver.validation_values import amount_errors, amount_or_percent_errors, one_of, selector_errors

_SPEC = Path("spec")
_HIGHEST_PRIORITY = 1_000_000_000


def _born(tree: Tree, now: datetime) -> str:
    return age(tree["metadata"].get("creationTimestamp"), now)


# Quotas and ranges -----------------------------------------------------------------------------------------------------------


def _quota_row(tree: Tree, now: datetime) -> list[Any]:
    status = tree.get("status", {})
    hard, used = status.get("hard", {}), status.get("used", {})
    shown = {True: list[str](), False: list[str]()}
    for name in sorted(hard):
        shown[name.startswith("limits.")].append(f"{name}: {used.get(name, '0')}/{hard[name]}")
    return [tree["metadata"]["name"], ", ".join(shown[False]), ", ".join(shown[True]), _born(tree, now)]


def _validate_quota(tree: Tree, _old: Tree | None) -> list[FieldError]:
    hard = tree.get("spec", {}).get("hard", {})
    return [error for name, text in hard.items() for error in amount_errors(text, _SPEC / "hard" % name)]


def _range_row(tree: Tree, _now: datetime) -> list[Any]:
    return [tree["metadata"]["name"], tree["metadata"].get("creationTimestamp", UNKNOWN)]


def _validate_range(tree: Tree, _old: Tree | None) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, limit in enumerate(tree.get("spec", {}).get("limits", ())):
        errors += [] if limit.get("type") else [required(_SPEC / "limits" @ index / "type")]
    return errors


# Disruption budgets ------------------------------------------------------------------------------------------------------------


def _budget_row(tree: Tree, now: datetime) -> list[Any]:
    spec = tree.get("spec", {})
    least, most = (str(spec[key]) if key in spec else "N/A" for key in ("minAvailable", "maxUnavailable"))
    return [tree["metadata"]["name"], least, most, tree.get("status", {}).get("disruptionsAllowed", 0), _born(tree, now)]


def _validate_budget(tree: Tree, _old: Tree | None) -> list[FieldError]:
    spec = tree.get("spec", {})
    errors: list[FieldError] = []
    if "minAvailable" in spec and "maxUnavailable" in spec:
        errors.append(invalid(_SPEC, spec, "minAvailable and maxUnavailable cannot be both set"))
    for key in ("minAvailable", "maxUnavailable"):
        if key in spec:
            errors += amount_or_percent_errors(spec[key], _SPEC / key, at_most_all=True)
    return errors + selector_errors(spec.get("selector", {}), _SPEC / "selector")


# Autoscalers -------------------------------------------------------------------------------------------------------------------


def _scaler_row(tree: Tree, now: datetime) -> list[Any]:
    spec, status = tree.get("spec", {}), tree.get("status", {})
    target = spec.get("scaleTargetRef", {})
    counts = [str(spec.get("minReplicas", UNKNOWN)), spec.get("maxReplicas", 0), status.get("currentReplicas", 0)]
    named = f"{target.get('kind', '')}/{target.get('name', '')}"
    return [tree["metadata"]["name"], named, autoscaler_rules.targets(tree) or NONE, *counts, _born(tree, now)]


def _validate_scaler(tree: Tree, _old: Tree | None) -> list[FieldError]:
    return autoscaler_rules.errors(tree)


# Priorities --------------------------------------------------------------------------------------------------------------------


def _priority_row(tree: Tree, now: datetime) -> list[Any]:
    policy = tree.get("preemptionPolicy", "PreemptLowerPriority")
    return [tree["metadata"]["name"], tree.get("value", 0), bool(tree.get("globalDefault")), _born(tree, now), policy]


def _default_priority(tree: Tree) -> None:
    tree.setdefault("preemptionPolicy", "PreemptLowerPriority")
    tree.setdefault("value", 0)


def _validate_priority(tree: Tree, old: Tree | None) -> list[FieldError]:
    value, system = tree.get("value", 0), tree["metadata"].get("name", "").startswith("system-")
    errors = one_of(tree.get("preemptionPolicy", ""), ("Never", "PreemptLowerPriority"), Path("preemptionPolicy"))
    if value > _HIGHEST_PRIORITY and not system:
        errors.append(forbidden(Path("value"), f"maximum allowed value of a user defined priority is {_HIGHEST_PRIORITY}"))
    if old is not None:
        errors += [forbidden(Path(key), IMMUTABLE) for key in ("value", "preemptionPolicy") if tree.get(key) != old.get(key)]
    return errors


RESOURCE_QUOTA = Kind(
    "",
    "v1",
    "resourcequotas",
    "ResourceQuota",
    True,
    "io.k8s.api.core.v1.ResourceQuota",
    short_names=("quota",),
    subresources=(STATUS,),
    columns=(
        NAME,
        Column("Request", description="What is asked for, of what may be."),
        Column("Limit", description="The limits, of what may be."),
        AGE,
    ),
    row=_quota_row,
    validate=_validate_quota,
    generations=False,
)
LIMIT_RANGE = Kind(
    "",
    "v1",
    "limitranges",
    "LimitRange",
    True,
    "io.k8s.api.core.v1.LimitRange",
    short_names=("limits",),
    columns=(NAME, Column("Created At", description="When it was made.")),
    row=_range_row,
    validate=_validate_range,
    generations=False,
)
POD_DISRUPTION_BUDGET = Kind(
    "policy",
    "v1",
    "poddisruptionbudgets",
    "PodDisruptionBudget",
    True,
    "io.k8s.api.policy.v1.PodDisruptionBudget",
    short_names=("pdb",),
    subresources=(STATUS,),
    columns=(
        NAME,
        Column("Min Available", description="As many Pods must stay."),
        Column("Max Unavailable", description="As many Pods may go."),
        Column("Allowed Disruptions", "integer", description="As many Pods may go now."),
        AGE,
    ),
    row=_budget_row,
    validate=_validate_budget,
)
HORIZONTAL_POD_AUTOSCALER = Kind(
    "autoscaling",
    "v2",
    "horizontalpodautoscalers",
    "HorizontalPodAutoscaler",
    True,
    "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    short_names=("hpa",),
    categories=("all",),
    subresources=(STATUS,),
    columns=(
        NAME,
        Column("Reference", description="What is scaled."),
        Column("Targets", description="What is measured, and what it should be."),
        Column("MinPods", description="The fewest Pods."),
        Column("MaxPods", description="The most Pods."),
        Column("Replicas", description="The Pods that there are."),
        AGE,
    ),
    row=_scaler_row,
    default=autoscaler_rules.fill,
    validate=_validate_scaler,
    generations=False,
)
PRIORITY_CLASS = Kind(
    "scheduling.k8s.io",
    "v1",
    "priorityclasses",
    "PriorityClass",
    False,
    "io.k8s.api.scheduling.v1.PriorityClass",
    short_names=("pc",),
    columns=(
        NAME,
        Column("Value", description="The priority."),
        Column("Global-Default", "boolean", description="Whether Pods that name none have it."),
        AGE,
        Column("PreemptionPolicy", description="Whether other Pods give way."),
    ),
    row=_priority_row,
    default=_default_priority,
    validate=_validate_priority,
)

CORE = (RESOURCE_QUOTA, LIMIT_RANGE)
POLICY = (POD_DISRUPTION_BUDGET,)
AUTOSCALING = (HORIZONTAL_POD_AUTOSCALER,)
SCHEDULING = (PRIORITY_CLASS,)
