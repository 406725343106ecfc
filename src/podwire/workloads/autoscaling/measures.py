"""How many Pods one metric asks for.

Pure. The ratio of what is used to what should be, times the Pods that were measured. Pods that are not ready or not measured are taken
for whatever lets less happen: for idle when more are asked for, for as busy as they should be when fewer are.

Source: https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/#algorithm-details
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

from podwire.objects.autoscaling import MetricSpec, ResourceMetricSource
from podwire.objects.core import Pod
from podwire.objects.quantities import exact

TOLERANCE = Fraction(1, 10)
_CPU_INITIALIZATION = timedelta(minutes=5)
_INITIAL_READINESS = timedelta(seconds=30)

Tree = dict[str, Any]


class Unmeasured(Exception):
    """No number can be given; ``reason`` is that of the condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class PodUse:
    """What one Pod used: by container, by resource, in cores and bytes."""

    at: datetime
    window_s: float
    containers: Mapping[str, Mapping[str, Fraction]] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """``name``: the metric as messages have it. ``status``: the entry of ``currentMetrics``."""

    replicas: int
    name: str
    status: Tree


@dataclass(frozen=True)
class _Groups:
    measured: dict[str, Fraction]
    ready: int
    unready: frozenset[str]
    missing: frozenset[str]


@dataclass(frozen=True)
class Tolerances:
    up: Fraction = TOLERANCE
    down: Fraction = TOLERANCE

    def holds(self, ratio: Fraction) -> bool:
        return 1 - self.down <= ratio <= 1 + self.up


def propose(
    metric: MetricSpec,
    current: int,
    pods: Sequence[Pod],
    used: Mapping[str, PodUse],
    now: datetime,
    tolerances: Tolerances,
    namespace: str = "",
) -> Proposal:
    """Give what a metric asks for. ``pods``: those of the target; ``used``: by name. Raises Unmeasured."""
    source = metric.resource or metric.container_resource
    if source is None:
        raise _of_nobody(metric, namespace)
    try:
        return _propose(metric, source, current, pods, used, now, tolerances)
    except Unmeasured as error:
        reason = "FailedGetResourceMetric" if metric.resource is not None else "FailedGetContainerResourceMetric"
        what = f"{source.name} {'resource' if metric.resource is not None else 'container resource'}"
        wanted = "utilization" if source.target.average_utilization is not None else "metric value"
        raise Unmeasured(reason, f"failed to get {what.split()[0]} {wanted}: {error}") from None


def _of_nobody(metric: MetricSpec, namespace: str) -> Unmeasured:
    """A metric for which there is an API that nobody serves here."""
    custom = "unable to fetch metrics from custom metrics API: no known available metric versions found"
    if (found := metric.external) is not None:
        name = found.metric.name
        words = f"the server could not find the requested resource (get {name}.external.metrics.k8s.io)"
        what = f"unable to get external metric {namespace}/{name}/nil: unable to fetch metrics from external metrics API"
        return Unmeasured("FailedGetExternalMetric", f"{what}: {words}")
    if (found := metric.object) is not None:
        about = f"{found.described_object.kind} on {namespace} {found.described_object.name}"
        return Unmeasured("FailedGetObjectMetric", f"unable to get metric {found.metric.name}: {about}/{custom}")
    if (found := metric.pods) is not None:
        return Unmeasured("FailedGetPodsMetric", f"unable to get metric {found.metric.name}: {custom}")
    return Unmeasured("InvalidMetricSourceType", f'unknown metric source type "{metric.type}"')


def _propose(
    metric: MetricSpec,
    source: ResourceMetricSource,
    current: int,
    pods: Sequence[Pod],
    used: Mapping[str, PodUse],
    now: datetime,
    tolerances: Tolerances,
) -> Proposal:
    if not used:
        raise Unmeasured("", f"unable to get metrics for resource {source.name}: no metrics returned from resource metrics API")
    groups = _groups(pods, used, source, now)
    if not groups.measured:
        raise Unmeasured("", "did not receive metrics for targeted pods (pods might be unready)")
    average = sum(groups.measured.values(), Fraction(0)) / len(groups.measured)
    kind = "resource" if metric.resource is not None else "container resource"
    if source.target.average_utilization is not None:
        requests = {pod.name: request_of(pod, source) for pod in pods if not _is_over(pod)}
        target = Fraction(source.target.average_utilization)

        def ratio(values: Mapping[str, Fraction]) -> Fraction:
            asked = sum((requests[name] for name in values), Fraction(0))
            if not asked:
                raise Unmeasured("", "no metrics returned matched known pods")
            return Fraction(int(sum(values.values(), Fraction(0)) * 100 / asked)) / target

        utilization = int(ratio(groups.measured) * target)
        busy = {name: request * max(Fraction(100), target) / 100 for name, request in requests.items()}
        shown: Tree = {"averageUtilization": utilization, "averageValue": _text(average, source.name)}
        name = f"{source.name} {kind} utilization (percentage of request)"
    elif source.target.average_value is not None:
        goal = exact(str(source.target.average_value))

        def ratio(values: Mapping[str, Fraction]) -> Fraction:
            return sum(values.values(), Fraction(0)) / len(values) / goal

        busy = {pod.name: goal for pod in pods}
        shown = {"averageValue": _text(average, source.name)}
        name = f"{source.name} {kind}"
    else:
        raise Unmeasured("", "invalid resource metric source: neither an average utilization nor an average value target was set")
    replicas = _replicas(groups, current, ratio, busy, tolerances)
    own: Tree = {"name": source.name, "current": shown}
    if metric.resource is not None:
        return Proposal(replicas, name, {"type": "Resource", "resource": own})
    return Proposal(replicas, name, {"type": "ContainerResource", "containerResource": {**own, "container": source.container}})


def _replicas(groups: _Groups, current: int, ratio: Any, busy: Mapping[str, Fraction], tolerances: Tolerances) -> int:
    first: Fraction = ratio(groups.measured)
    with_unready = bool(groups.unready) and first > 1
    if not with_unready and not groups.missing:
        return current if tolerances.holds(first) else math.ceil(first * groups.ready)
    values = dict(groups.measured)
    if groups.missing and first < 1:
        values |= {name: busy[name] for name in groups.missing}
    elif groups.missing and first > 1:
        values |= dict.fromkeys(groups.missing, Fraction(0))
    if with_unready:
        values |= dict.fromkeys(groups.unready, Fraction(0))
    second: Fraction = ratio(values)
    if tolerances.holds(second) or (first < 1 < second) or (second < 1 < first):
        return current
    replicas = math.ceil(second * len(values))
    if (second < 1 and replicas > current) or (second > 1 and replicas < current):
        return current
    return replicas


def _is_over(pod: Pod) -> bool:
    return pod.metadata.deletion_timestamp is not None or pod.status.phase == "Failed"


def _groups(pods: Iterable[Pod], used: Mapping[str, PodUse], source: ResourceMetricSource, now: datetime) -> _Groups:
    measured: dict[str, Fraction] = {}
    unready, missing = set(), set()
    for pod in pods:
        if _is_over(pod):
            continue
        if pod.status.phase == "Pending":
            unready.add(pod.name)
            continue
        use = used.get(pod.name)
        amount = _amount(use, source) if use is not None else None
        if use is None or amount is None:
            missing.add(pod.name)
        elif source.name == "cpu" and _is_starting(pod, use, now):
            unready.add(pod.name)
        else:
            measured[pod.name] = amount
    return _Groups(measured, len(measured), frozenset(unready), frozenset(missing))


def _amount(use: PodUse, source: ResourceMetricSource) -> Fraction | None:
    chosen = [source.container] if source.container else list(use.containers)
    amounts = [use.containers.get(name, {}).get(source.name) for name in chosen]
    if not amounts or any(amount is None for amount in amounts):
        return None
    return sum((amount for amount in amounts if amount is not None), Fraction(0))


def _is_starting(pod: Pod, use: PodUse, now: datetime) -> bool:
    """Whether what a Pod uses is still what its start costs."""
    ready = next((one for one in pod.status.conditions if one.type == "Ready"), None)
    if ready is None or pod.status.start_time is None or ready.last_transition_time is None:
        return True
    started, since = datetime.fromisoformat(pod.status.start_time), datetime.fromisoformat(ready.last_transition_time)
    if started + _CPU_INITIALIZATION > now:
        return ready.status == "False" or use.at < since + timedelta(seconds=use.window_s)
    return ready.status == "False" and started + _INITIAL_READINESS > since


def request_of(pod: Pod, source: ResourceMetricSource) -> Fraction:
    """Give what a Pod's containers, or the one that is named, request. Raises Unmeasured."""
    total = Fraction(0)
    sidecars = [one for one in pod.spec.init_containers if one.restart_policy == "Always"]
    for container in (*pod.spec.containers, *sidecars):
        if source.container not in ("", container.name):
            continue
        amount = container.resources.requests.get(source.name)
        if amount is None:
            raise Unmeasured("", f"missing request for {source.name} in container {container.name} of Pod {pod.name}")
        total += exact(str(amount))
    return total


def _text(amount: Fraction, resource: str) -> str:
    """Print an amount as the API does: cores in thousandths, all else whole."""
    if resource == "cpu":
        return f"{math.ceil(amount * 1000)}m"
    return str(math.ceil(amount))
