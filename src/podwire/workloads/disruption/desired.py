"""How many of a budget's Pods may go now.

Pure. A Pod whose eviction was granted no longer counts as healthy until its deletion is seen, for two minutes at most: then the
eviction came to nothing.

Source: https://kubernetes.io/docs/tasks/run-application/configure-pdb/,
https://kubernetes.io/docs/concepts/workloads/pods/disruptions/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from podwire.objects import codec
from podwire.objects.core import Pod
from podwire.objects.meta import OwnerReference
from podwire.objects.policy import PodDisruptionBudget
from podwire.workloads.kinds import Tree, controller_of
from podwire.workloads.shares import share_up
from podwire.workloads.times import seconds_left, stamp

DISRUPTED_S = 120.0
Sizes = Callable[[str, OwnerReference], "tuple[str, int] | None"]
"""(namespace, controller of a Pod) -> (the uid of what scales it, how many it should have); None if nobody says."""


def selected(budget: PodDisruptionBudget, pods: Iterable[Pod]) -> list[Pod]:
    selector = budget.spec.selector
    return [pod for pod in pods if pod.namespace == budget.namespace and selector is not None and selector.matches(pod.metadata.labels)]


def unmanaged(budget: PodDisruptionBudget, pods: Iterable[Pod]) -> bool:
    """Say whether Pods without a controller make the count wrong: unless a whole number of Pods must stay."""
    return not isinstance(budget.spec.min_available, int) and any(controller_of(pod.metadata) is None for pod in pods)


def counts(budget: PodDisruptionBudget, pods: Sequence[Pod], sizes: Sizes) -> tuple[int, int]:
    """Give how many Pods are expected, and how many of them must be healthy."""
    spec = budget.spec
    if isinstance(spec.min_available, int):
        return len(pods), spec.min_available
    expected = _expected(budget, pods, sizes)
    if spec.min_available is not None:
        return expected, share_up(spec.min_available, expected)
    return expected, max(0, expected - share_up(spec.max_unavailable or 0, expected))


def _expected(budget: PodDisruptionBudget, pods: Sequence[Pod], sizes: Sizes) -> int:
    total: dict[str, int] = {}
    own: dict[str, int] = {}
    for pod in pods:
        owner = controller_of(pod.metadata)
        if owner is None:
            continue
        size = sizes(budget.namespace, owner)
        if size is None:
            own[owner.uid] = own.get(owner.uid, 0) + 1  # a controller without a number of its own: as many as it has
        else:
            total[size[0]] = size[1]
    return sum(total.values()) + sum(own.values())


def status(budget: PodDisruptionBudget, pods: Sequence[Pod], sizes: Sizes, now: datetime) -> tuple[Tree, float | None]:
    """Give the status as it should be, and the seconds after which a granted eviction that nobody saw is forgotten.

    ``pods`` are those that the budget selects.
    """
    expected, needed = counts(budget, pods, sizes)
    there = {pod.name: pod for pod in pods if not pod.terminating}
    left = {
        name: seconds_left(since, DISRUPTED_S, now)
        for name, since in budget.status.disrupted_pods.items()
        if name in there and (there[name].metadata.creation_timestamp or "") <= since  # a later one is the next of that name
    }
    disrupted = {name: budget.status.disrupted_pods[name] for name, rest in left.items() if rest > 0}
    healthy = sum(pod.ready for name, pod in there.items() if name not in disrupted)
    allowed = max(0, healthy - needed) if expected else 0
    wanted: Tree = {
        "observedGeneration": budget.metadata.generation,
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": needed,
        "expectedPods": expected,
        "disruptedPods": disrupted,
        "conditions": [_condition(budget, allowed, now)],
    }
    return wanted, min((rest for rest in left.values() if rest > 0), default=None)


def _condition(budget: PodDisruptionBudget, allowed: int, now: datetime) -> Tree:
    answer = "True" if allowed else "False"
    former = next((one for one in budget.status.conditions if one.type == "DisruptionAllowed"), None)
    since = former.last_transition_time if former is not None and former.status == answer else None
    return {
        "type": "DisruptionAllowed",
        "status": answer,
        "reason": "SufficientPods" if allowed else "InsufficientPods",
        "message": "",
        "observedGeneration": budget.metadata.generation,
        "lastTransitionTime": since or stamp(now),
    }


_COUNTS = {
    "observedGeneration": "observed_generation",
    "disruptionsAllowed": "disruptions_allowed",
    "currentHealthy": "current_healthy",
    "desiredHealthy": "desired_healthy",
    "expectedPods": "expected_pods",
    "disruptedPods": "disrupted_pods",
}


def changed(budget: PodDisruptionBudget, wanted: Tree) -> bool:
    """Say whether the status that the API has differs from the one that is wanted."""
    if any(wanted[name] != getattr(budget.status, field) for name, field in _COUNTS.items()):
        return True
    have = [codec.tree(one) for one in budget.status.conditions]
    return [one.get("status") for one in have] != [one["status"] for one in wanted["conditions"]]
