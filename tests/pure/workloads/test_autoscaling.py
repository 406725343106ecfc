"""Autoscalers: what metrics ask for, what slows and bounds it, in virtual time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.objects import codec
from podwire.objects.autoscaling import HorizontalPodAutoscaler
from podwire.objects.core import Pod
from podwire.workloads.autoscaling import desired
from podwire.workloads.autoscaling.desired import History, Plan, Scale
from podwire.workloads.autoscaling.measures import PodUse
from podwire.workloads.times import stamp

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}
MEMORY = {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "100Mi"}}}


def scaler(most: int = 10, least: int = 1, metrics: list[Any] | None = None, **spec: Any) -> HorizontalPodAutoscaler:
    body = {"minReplicas": least, "maxReplicas": most, "metrics": [CPU] if metrics is None else metrics} | spec
    body["scaleTargetRef"] = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    return codec.convert(HorizontalPodAutoscaler, {"metadata": {"name": "web", "namespace": "d", "uid": "h"}, "spec": body})


def pod(number: int, *, ready: bool = True, phase: str = "Running", age_s: int = 3600, request: str | None = "100m", **meta: Any) -> Pod:
    since = stamp(NOW - timedelta(seconds=age_s))
    requests = {} if request is None else {"cpu": request}
    conditions = [{"type": "Ready", "status": "True" if ready else "False", "lastTransitionTime": since}]
    return codec.convert(
        Pod,
        {
            "metadata": {"name": f"p{number}", "namespace": "d"} | meta,
            "spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]},
            "status": {"phase": phase, "startTime": since, "conditions": conditions},
        },
    )


def use(cpu: str | float = 0, memory: int = 0) -> PodUse:
    return PodUse(NOW, 15.0, {"c": {"cpu": Fraction(cpu), "memory": Fraction(memory)}})


def decide(
    one: HorizontalPodAutoscaler,
    pods: list[Pod],
    used: dict[str, PodUse],
    current: int | None = None,
    history: History | None = None,
    now: datetime = NOW,
) -> Plan:
    count = len(pods) if current is None else current
    return desired.decide(one, Scale(count, count, "app=web"), pods, used, history or History(), now)


def reasons(plan: Plan) -> list[str]:
    return [one.reason for one in plan.conditions]


@pytest.mark.parametrize(
    ("cores", "wanted"),
    [("0.05", None), ("0.054", None), ("0.056", 4), ("0.1", 6), ("0.046", None), ("0.033", None), ("1", 7)],
)
def test_the_ratio_and_its_tolerance(cores: str, wanted: int | None) -> None:
    """Of 3 Pods that request 100m and should use half of it. Fewer are not asked for while others were recommended a moment ago."""
    plan = decide(scaler(), [pod(n) for n in range(3)], {f"p{n}": use(cores) for n in range(3)}, history=History(((NOW, 3),)))
    assert plan.replicas == wanted  # at most 4 more, or twice as many, in 15 s
    if cores == "0.1":
        assert plan.reason == "cpu resource utilization (percentage of request) above target"
    if cores == "0.033":
        assert reasons(plan) == ["ScaleDownStabilized", "ValidMetricFound", "DesiredWithinRange"]


def test_policies_and_bounds() -> None:
    pods, busy = [pod(n) for n in range(3)], {f"p{n}": use(1) for n in range(3)}
    plan = decide(scaler(most=100), pods, busy)
    assert (plan.replicas, reasons(plan)) == (7, ["ReadyForNewScale", "ValidMetricFound", "ScaleUpLimit"])
    plan = decide(scaler(most=5), pods, busy)
    assert (plan.replicas, reasons(plan)[2]) == (5, "TooManyReplicas")
    idle = {f"p{n}": use(0) for n in range(3)}
    plan = decide(scaler(least=2), pods, idle)
    assert (plan.replicas, reasons(plan)[2], plan.reason) == (2, "TooFewReplicas", "All metrics below target")
    slow = {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}
    history = desired.scaled(scaler(behavior=slow), History(), -1, NOW - timedelta(seconds=30))
    assert decide(scaler(behavior=slow), pods, idle).replicas == 2
    assert decide(scaler(behavior=slow), pods, idle, history=history).replicas is None
    off = {"scaleDown": {"selectPolicy": "Disabled"}}
    plan = decide(scaler(behavior=off), pods, idle)
    assert (plan.replicas, reasons(plan)[2]) == (None, "ScaleDownLimit")
    assert decide(scaler(most=2), pods, {}).reason == "Current number of replicas above Spec.MaxReplicas"
    assert decide(scaler(least=5), pods, {}).replicas == 5
    assert reasons(decide(scaler(), [], {}, 0))[1] == "ScalingDisabled"


def test_it_goes_down_when_the_window_is_over() -> None:
    one, pods, idle = scaler(), [pod(n) for n in range(4)], {f"p{n}": use(0) for n in range(4)}
    history, now, changes = History(((NOW, 4),)), NOW, []
    for _ in range(30):
        now += timedelta(seconds=15)
        plan = decide(one, pods, idle, history=history, now=now)
        history = plan.history
        if plan.replicas is not None:
            changes.append(((now - NOW).total_seconds(), plan.replicas))
            break
    assert changes == [(300.0, 1)]


def test_the_metric_that_asks_for_most_wins() -> None:
    pods = [pod(n) for n in range(2)]
    used = {f"p{n}": use("0.05", 250 << 20) for n in range(2)}
    plan = decide(scaler(metrics=[CPU, MEMORY]), pods, used)
    assert (plan.replicas, plan.reason) == (5, "memory resource above target")
    assert plan.metrics[0]["resource"]["current"] == {"averageUtilization": 50, "averageValue": "50m"}
    assert plan.metrics[1]["resource"]["current"] == {"averageValue": str(250 << 20)}


def test_pods_that_start_and_pods_that_are_not_measured_let_less_happen() -> None:
    pods = [pod(0), pod(1, ready=False), pod(2, phase="Pending")]
    assert decide(scaler(), pods, {"p0": use("0.1"), "p1": use("0.1")}).replicas is None  # 100 % of one of three
    assert decide(scaler(), [pod(0), pod(1)], {"p0": use("0.2")}).replicas == 4  # 200 % of one of two, over 50 %
    assert decide(scaler(), [pod(0), pod(1)], {"p0": use(0)}).replicas is None  # the other one may be busy
    fresh = pod(1, age_s=5)
    assert decide(scaler(), [pod(0), fresh], {"p0": use("0.05"), "p1": use(9)}).replicas is None


@pytest.mark.parametrize(
    ("pods", "used", "words"),
    [
        ([pod(0)], {}, "unable to get metrics for resource cpu: no metrics returned from resource metrics API"),
        ([pod(0, request=None)], {"p0": use(1)}, "missing request for cpu in container c of Pod p0"),
        ([pod(0, ready=False, age_s=10)], {"p0": use(1)}, "did not receive metrics for targeted pods (pods might be unready)"),
    ],
)
def test_what_cannot_be_measured(pods: list[Pod], used: dict[str, PodUse], words: str) -> None:
    plan = decide(scaler(), pods, used)
    assert plan.replicas is None
    assert reasons(plan) == ["SucceededGetScale", "FailedGetResourceMetric"]
    assert plan.conditions[1].message == f"the HPA was unable to compute the replica count: failed to get cpu utilization: {words}"
    assert [reason for reason, _ in plan.warnings] == ["FailedGetResourceMetric", "FailedComputeMetricsReplicas"]


def test_a_status_keeps_the_times_of_conditions() -> None:
    plan = decide(scaler(), [pod(0)], {"p0": use("0.05")})
    first = desired.status(scaler(), Scale(1, 1), plan, NOW)
    tree = {"metadata": {"name": "web"}, "status": {"conditions": first["conditions"]}}
    later = desired.status(codec.convert(HorizontalPodAutoscaler, tree), Scale(1, 1), plan, NOW + timedelta(hours=1))
    assert later["conditions"] == first["conditions"]
    assert [one["type"] for one in later["conditions"]] == ["AbleToScale", "ScalingActive", "ScalingLimited"]


@given(
    st.integers(1, 20),
    st.integers(1, 10),
    st.integers(0, 10),
    st.lists(st.integers(0, 400), min_size=20, max_size=20),
    st.lists(st.integers(1, 30), max_size=5),
)
def test_the_bounds_hold_whatever_is_used(current: int, least: int, more: int, cores: list[int], before: list[int]) -> None:
    one = scaler(least=least, most=least + more)
    history = History(tuple((NOW - timedelta(seconds=15 * n), count) for n, count in enumerate(before)))
    pods = [pod(n) for n in range(current)]
    plan = decide(one, pods, {f"p{n}": use(Fraction(cores[n], 1000)) for n in range(current)}, history=history)
    if plan.replicas is not None:
        assert least <= plan.replicas <= least + more
        assert plan.replicas != current
    else:
        assert least <= current <= least + more


@pytest.mark.parametrize(
    ("metric", "reason", "words"),
    [
        (
            {"type": "Pods", "pods": {"metric": {"name": "hits"}, "target": {"type": "AverageValue", "averageValue": "1"}}},
            "FailedGetPodsMetric",
            "unable to get metric hits: unable to fetch metrics from custom metrics API: no known available metric versions found",
        ),
        (
            {"type": "Object", "object": {"metric": {"name": "hits"}, "describedObject": {"kind": "Service", "name": "web"}, "target": {}}},
            "FailedGetObjectMetric",
            "unable to get metric hits: Service on d web/unable to fetch metrics from custom metrics API: "
            "no known available metric versions found",
        ),
        (
            {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "1"}}},
            "FailedGetExternalMetric",
            "unable to get external metric d/queue/nil: unable to fetch metrics from external metrics API: "
            "the server could not find the requested resource (get queue.external.metrics.k8s.io)",
        ),
    ],
)
def test_metrics_that_nobody_serves(metric: dict[str, Any], reason: str, words: str) -> None:
    plan = decide(scaler(metrics=[metric]), [pod(0)], {"p0": use("0.05")})
    assert plan.replicas is None
    assert [(one.reason, one.message) for one in plan.conditions[1:]] == [
        (reason, f"the HPA was unable to compute the replica count: {words}")
    ]
    assert plan.warnings == (
        (reason, words),
        ("FailedComputeMetricsReplicas", f"invalid metrics (1 invalid out of 1), first error is: {words}"),
    )
    beside = decide(scaler(metrics=[metric, CPU]), [pod(0)], {"p0": use("0.2")})  # another one that asks for more counts
    assert beside.replicas == 4
    less = decide(scaler(metrics=[metric, CPU]), [pod(0), pod(1)], {f"p{n}": use("0.001") for n in range(2)})
    assert less.replicas is None  # nothing is taken away by what is known in part
