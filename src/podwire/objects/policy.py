"""The groups policy/v1 and scheduling.k8s.io/v1: how many Pods may go at the same time, and which Pods come first.

Source: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/pod-disruption-budget-v1/
"""

from __future__ import annotations

from podwire.objects.core import Condition
from podwire.objects.meta import LabelSelector, Object, Value


class PodDisruptionBudgetSpec(Value, frozen=True):
    """At most one of the two numbers is given. A selector that is absent matches no Pod, an empty one all of the namespace."""

    min_available: int | str | None = None
    max_unavailable: int | str | None = None
    selector: LabelSelector | None = None
    unhealthy_pod_eviction_policy: str = "IfHealthyBudget"


class PodDisruptionBudgetStatus(Value, frozen=True):
    """``disrupted_pods``: Pods whose eviction was granted and whose deletion has not been seen yet, with the time of the grant."""

    observed_generation: int = 0
    disruptions_allowed: int = 0
    current_healthy: int = 0
    desired_healthy: int = 0
    expected_pods: int = 0
    disrupted_pods: dict[str, str] = {}
    conditions: tuple[Condition, ...] = ()


class PodDisruptionBudget(Object, frozen=True):
    spec: PodDisruptionBudgetSpec = PodDisruptionBudgetSpec()
    status: PodDisruptionBudgetStatus = PodDisruptionBudgetStatus()


class PriorityClass(Object, frozen=True):
    value: int = 0
    global_default: bool = False
    preemption_policy: str = "PreemptLowerPriority"
