"""How many Pods a HorizontalPodAutoscaler wants now, and what it says of it.

Pure; the time is a parameter. Of all metrics the one that asks for most wins. What was asked for of late keeps the number from
swinging (stabilization), policies keep it from changing too fast, and its bounds hold in any case.

Source: https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from podwire.objects.autoscaling import HorizontalPodAutoscaler, ScalingPolicy, ScalingRules
from podwire.objects.core import Pod
from podwire.objects.quantities import exact
from podwire.workloads.autoscaling.measures import TOLERANCE, PodUse, Proposal, Tolerances, Unmeasured, propose
from podwire.workloads.times import stamp

Tree = dict[str, Any]
PERIOD_S = 15.0
_PERCENT, _PODS = ScalingPolicy(type="Percent", value=100), ScalingPolicy(type="Pods", value=4)
_UP = ScalingRules(stabilization_window_seconds=0, policies=(_PODS, _PERCENT))
_DOWN = ScalingRules(stabilization_window_seconds=300, policies=(_PERCENT,))


@dataclass(frozen=True)
class Scale:
    """What the target's scale says."""

    wanted: int
    found: int
    selector: str = ""


@dataclass(frozen=True)
class History:
    """What was recommended, and by how many Pods the number was changed (more than 0: up), with the times."""

    recommended: tuple[tuple[datetime, int], ...] = ()
    changed: tuple[tuple[datetime, int], ...] = ()


@dataclass(frozen=True)
class Condition:
    type: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """``replicas`` None: the number stays. ``reason``: why it changes, for the Event."""

    replicas: int | None
    reason: str
    desired: int
    conditions: tuple[Condition, ...]
    metrics: tuple[Tree, ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()
    history: History = field(default_factory=History)


def decide(
    scaler: HorizontalPodAutoscaler, scale: Scale, pods: Sequence[Pod], used: Mapping[str, PodUse], history: History, now: datetime
) -> Plan:
    """``pods``: those that the scale's selector selects; ``used``: what they use, by name."""
    spec, current = scaler.spec, scale.wanted
    able = Condition("AbleToScale", "True", "SucceededGetScale", "the HPA controller was able to get the target's current scale")
    if current == 0 and spec.min_replicas != 0:
        words = "scaling is disabled since the replica count of the target is zero"
        return Plan(None, "", 0, (able, Condition("ScalingActive", "False", "ScalingDisabled", words)), history=history)
    outside = _outside(scaler, current)
    if outside is not None:
        return Plan(outside[0], outside[1], outside[0], (able,), history=history)
    proposals, failures = _proposals(scaler, scale, pods, used, now)
    best = max(proposals, key=lambda one: one.replicas, default=None)
    shown = tuple(one.status for one in proposals)
    warnings = tuple((failure.reason, str(failure)) for failure in failures)
    if best is None or (failures and best.replicas < current):
        first = failures[0]
        words = f"the HPA was unable to compute the replica count: {first}"
        conditions = (able, Condition("ScalingActive", "False", first.reason, words))
        words = f"invalid metrics ({len(failures)} invalid out of {len(scaler.spec.metrics)}), first error is: {first}"
        return Plan(None, "", current, conditions, shown, (*warnings, ("FailedComputeMetricsReplicas", words)), history)
    words = f"the HPA was able to successfully calculate a replica count from {best.name}"
    active = Condition("ScalingActive", "True", "ValidMetricFound", words)
    wanted, stable, limited, history = _normalized(scaler, current, best.replicas, history, now)
    told = (stable or Condition("AbleToScale", "True", "ReadyForNewScale", "recommended size matches current size"), active, limited)
    if wanted == current:
        return Plan(None, "", current, told, shown, warnings, history)
    reason = f"{best.name} above target" if wanted > current else "All metrics below target"
    return Plan(wanted, reason, wanted, told, shown, warnings, history)


def _outside(scaler: HorizontalPodAutoscaler, current: int) -> tuple[int, str] | None:
    if current > scaler.spec.max_replicas:
        return scaler.spec.max_replicas, "Current number of replicas above Spec.MaxReplicas"
    if current < scaler.spec.min_replicas:
        return scaler.spec.min_replicas, "Current number of replicas below Spec.MinReplicas"
    return None


def _proposals(
    scaler: HorizontalPodAutoscaler, scale: Scale, pods: Sequence[Pod], used: Mapping[str, PodUse], now: datetime
) -> tuple[list[Proposal], list[Unmeasured]]:
    proposals, failures = [], []
    tolerances = Tolerances(_tolerance(_up(scaler)), _tolerance(_down(scaler)))
    for metric in scaler.spec.metrics:
        try:
            proposals.append(propose(metric, scale.wanted, pods, used, now, tolerances, scaler.namespace))
        except Unmeasured as error:
            failures.append(error)
    return proposals, failures


def _tolerance(rules: ScalingRules) -> Fraction:
    return TOLERANCE if rules.tolerance is None else exact(str(rules.tolerance))


def _up(scaler: HorizontalPodAutoscaler) -> ScalingRules:
    return _filled(scaler.spec.behavior.scale_up if scaler.spec.behavior is not None else None, _UP)


def _down(scaler: HorizontalPodAutoscaler) -> ScalingRules:
    return _filled(scaler.spec.behavior.scale_down if scaler.spec.behavior is not None else None, _DOWN)


def _filled(rules: ScalingRules | None, default: ScalingRules) -> ScalingRules:
    if rules is None:
        return default
    window = rules.stabilization_window_seconds
    return ScalingRules(
        stabilization_window_seconds=default.stabilization_window_seconds if window is None else window,
        select_policy=rules.select_policy or default.select_policy,
        policies=rules.policies or default.policies,
        tolerance=rules.tolerance,
    )


# Slower, and within bounds -------------------------------------------------------------------------------------------------------


def _normalized(
    scaler: HorizontalPodAutoscaler, current: int, wanted: int, history: History, now: datetime
) -> tuple[int, Condition | None, Condition, History]:
    """Give the number, what holds it still, what limits it, and the history with this recommendation."""
    up, down = _up(scaler), _down(scaler)
    up_s, down_s = (rules.stabilization_window_seconds or 0 for rules in (up, down))
    lowest = min([wanted, *(count for at, count in history.recommended if at > now - timedelta(seconds=up_s))])
    highest = max([wanted, *(count for at, count in history.recommended if at > now - timedelta(seconds=down_s))])
    stable = min(max(current, lowest), highest)
    oldest = now - timedelta(seconds=max(up_s, down_s))
    kept = replace(history, recommended=(*(one for one in history.recommended if one[0] > oldest), (now, wanted)))
    condition = None
    if stable != wanted:
        words = "recent recommendations were higher than current one, applying the highest recent recommendation"
        reason = "ScaleDownStabilized"
        if stable < wanted:
            words = "recent recommendations were lower than current one, applying the lowest recent recommendation"
            reason = "ScaleUpStabilized"
        condition = Condition("AbleToScale", "True", reason, words)
    number, limited = _limited(scaler, current, stable, history, now)
    return number, condition, limited, kept


def _limited(scaler: HorizontalPodAutoscaler, current: int, wanted: int, history: History, now: datetime) -> tuple[int, Condition]:
    spec = scaler.spec
    if wanted > current:
        limit = max(_limit(_up(scaler), current, history, now, up=True), current)
        most, reason, words = spec.max_replicas, "TooManyReplicas", "the desired replica count is more than the maximum replica count"
        if most > limit:
            most, reason = limit, "ScaleUpLimit"
            words = "the desired replica count is increasing faster than the maximum scale rate"
        if wanted > most:
            return most, Condition("ScalingLimited", "True", reason, words)
    elif wanted < current:
        limit = min(_limit(_down(scaler), current, history, now, up=False), current)
        least, reason, words = spec.min_replicas, "TooFewReplicas", "the desired replica count is less than the minimum replica count"
        if least < limit:
            least, reason = limit, "ScaleDownLimit"
            words = "the desired replica count is decreasing faster than the maximum scale rate"
        if wanted < least:
            return least, Condition("ScalingLimited", "True", reason, words)
    words = "the desired count is within the acceptable range"
    return wanted, Condition("ScalingLimited", "False", "DesiredWithinRange", words)


def _limit(rules: ScalingRules, current: int, history: History, now: datetime, *, up: bool) -> int:
    """Give the number that the policies let be reached now."""
    if rules.select_policy == "Disabled":
        return current
    limits = []
    for policy in rules.policies:
        since = now - timedelta(seconds=policy.period_seconds)
        began = current - sum(change for at, change in history.changed if at > since)
        step = Fraction(policy.value) if policy.type == "Pods" else Fraction(began * policy.value, 100)
        limits.append(math.ceil(began + step) if up else math.floor(began - step))
    if not limits:
        return current
    fastest = rules.select_policy != "Min"
    return max(limits) if up == fastest else min(limits)


def scaled(scaler: HorizontalPodAutoscaler, history: History, change: int, now: datetime) -> History:
    """Give the history after the number was changed; what no policy looks at any more is forgotten."""
    periods = [policy.period_seconds for rules in (_up(scaler), _down(scaler)) for policy in rules.policies]
    oldest = now - timedelta(seconds=max(periods, default=0))
    return replace(history, changed=(*(one for one in history.changed if one[0] > oldest), (now, change)))


# What it says --------------------------------------------------------------------------------------------------------------------


def status(scaler: HorizontalPodAutoscaler, scale: Scale, plan: Plan, now: datetime, *, rescaled: bool = False) -> Tree:
    """Give the status as it should be. A condition that is not decided on now stays as it was."""
    conditions = {one.type: one for one in scaler.status.conditions}
    told = [_condition(one, conditions, now) for one in plan.conditions]
    named = {one["type"] for one in told}
    kept = [_kept(one) for one in scaler.status.conditions if one.type not in named]
    last = stamp(now) if rescaled else scaler.status.last_scale_time
    return {
        "observedGeneration": scaler.metadata.generation or None,
        "currentReplicas": scale.found,
        "desiredReplicas": plan.desired,
        "currentMetrics": list(plan.metrics) or None,
        "conditions": sorted([*told, *kept], key=lambda one: _ORDER.get(one["type"], 9)),
        "lastScaleTime": last,
    }


_ORDER = {"AbleToScale": 0, "ScalingActive": 1, "ScalingLimited": 2}


def _condition(one: Condition, before: Mapping[str, Any], now: datetime) -> Tree:
    former = before.get(one.type)
    since = former.last_transition_time if former is not None and former.status == one.status else None
    return {
        "type": one.type,
        "status": one.status,
        "reason": one.reason,
        "message": one.message,
        "lastTransitionTime": since or stamp(now),
    }


def _kept(one: Any) -> Tree:
    return {
        "type": one.type,
        "status": one.status,
        "reason": one.reason,
        "message": one.message,
        "lastTransitionTime": one.last_transition_time,
    }
