"""Which Pods of lower priority are to go so that a Pod that fits nowhere gets a place.

Pure. On each node where it would help, the Pods of lower priority are thought away; then as many of them as possible are let stay, those
that a PodDisruptionBudget protects first, then the more important ones. Of the nodes that is the best where the fewest budgets are
violated, then where the most important victim is least so, then where the victims' priorities add up to the least, then with the
fewest victims, then where the most important one has run for the shortest time.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/#preemption
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from podwire.objects.core import Node, Pod
from podwire.objects.policy import PodDisruptionBudget
from podwire.workloads.scheduler.filters import may_be_helped
from podwire.workloads.scheduler.load import Load
from podwire.workloads.scheduler.nominated import Judgement

REASON = "PreemptionByScheduler"
NEVER = "not eligible due to preemptionPolicy=Never."
UNDER_WAY = "not eligible due to a terminating pod on the nominated node."
NO_VICTIMS = "No preemption victims found for incoming pod"
NO_HELP = "Preemption is not helpful for scheduling"
_LOWEST = 1 << 31  # added to priorities that are summed up, so that fewer Pods are always less

Priority = Callable[[Pod], int]


@dataclass(frozen=True)
class Candidate:
    """A node and the Pods that have to go from it, the more important first; ``violations``: how many of them a budget protects."""

    node: str
    victims: tuple[Pod, ...]
    violations: int = 0


@dataclass(frozen=True)
class Attempt:
    """``best``: what is to be done; None: nothing, and ``reason`` says why, as the end of a message about scheduling."""

    best: Candidate | None = None
    reason: str = ""


def attempt(
    judgement: Judgement,
    nodes: Sequence[Node],
    refused: Mapping[str, Sequence[str]],
    load: Load,
    budgets: Collection[PodDisruptionBudget],
    priority: Priority,
) -> Attempt:
    """Look for the node where the fewest and least important Pods have to go. ``refused``: why the Pod fits on none, by the node's name.

    ``load`` is changed meanwhile, and as it was at the end.
    """
    asked = judgement.asked
    found: list[Candidate] = []
    why: Counter[str] = Counter()
    for node in nodes:
        if not may_be_helped(asked, node, refused.get(node.name, ())):
            why[NO_HELP] += 1
            continue
        outcome = _on_node(judgement, node, _lower(asked.pod, node, load, priority), load, budgets)
        if isinstance(outcome, Candidate):
            found.append(outcome)
        else:
            why.update(outcome)
    if found:
        return Attempt(min(found, key=lambda one: _cost(one, priority)))
    reasons = ", ".join(sorted(f"{count} {reason}" for reason, count in why.items()))
    return Attempt(None, f"0/{len(nodes)} nodes are available: {reasons}.")


def _lower(pod: Pod, node: Node, load: Load, priority: Priority) -> list[Pod]:
    """Pods on a node of lower priority than this one, the more important first."""
    own = priority(pod)
    return sorted((one for one in load.pods(node.name) if priority(one) < own), key=lambda one: importance(one, priority))


def _on_node(
    judgement: Judgement, node: Node, lower: list[Pod], load: Load, budgets: Collection[PodDisruptionBudget]
) -> Candidate | Sequence[str]:
    """Who of ``lower`` has to go from a node; otherwise why that would not help."""
    if not lower:
        return [NO_VICTIMS]
    away = {pod.metadata.uid or pod.key: pod for pod in lower}
    for pod in lower:
        load.add(pod, node.name, -1)
    try:
        reasons = judgement.anew(node)
        if reasons:
            return reasons
        protected, others = split(lower, budgets)
        violations = 0
        for pods, guarded in ((protected, True), (others, False)):
            for pod in pods:
                load.add(pod, node.name)
                if judgement.anew(node):
                    load.add(pod, node.name, -1)
                    violations += guarded
                else:
                    del away[pod.metadata.uid or pod.key]
        # The order of what goes is that of importance, whoever was asked first.
        return Candidate(node.name, tuple(pod for pod in lower if (pod.metadata.uid or pod.key) in away), violations)
    finally:
        for pod in away.values():
            load.add(pod, node.name)


def importance(pod: Pod, priority: Priority) -> tuple[int, str, str]:
    """Sort by it, and the most important Pod is first: of higher priority, then running for longer."""
    return -priority(pod), pod.status.start_time or "~", pod.key


def split(pods: Iterable[Pod], budgets: Collection[PodDisruptionBudget]) -> tuple[list[Pod], list[Pod]]:
    """Divide Pods into those whose going would violate a budget, each counted after the ones before it, and the others."""
    left = {budget.key: budget.status.disruptions_allowed for budget in budgets}
    protected: list[Pod] = []
    others: list[Pod] = []
    for pod in pods:
        violates = False
        for budget in budgets:
            if _protects(budget, pod) and pod.name not in budget.status.disrupted_pods:
                left[budget.key] -= 1
                violates = violates or left[budget.key] < 0
        (protected if violates else others).append(pod)
    return protected, others


def _protects(budget: PodDisruptionBudget, pod: Pod) -> bool:
    """A selector that is empty counts as none here, and so does a Pod without labels."""
    selector = budget.spec.selector
    if selector is None or not (selector.match_labels or selector.match_expressions) or not pod.metadata.labels:
        return False
    return budget.namespace == pod.namespace and selector.matches(pod.metadata.labels)


def goes_for_another(pod: Pod) -> bool:
    """Say whether a Pod ends because the scheduler has displaced it."""
    return pod.terminating and any(one.type == "DisruptionTarget" and one.reason == REASON for one in pod.status.conditions)


def _cost(one: Candidate, priority: Priority) -> tuple[int, int, int, int, tuple[int, ...]]:
    """Without victims a node costs nothing."""
    priorities = [priority(pod) for pod in one.victims]
    highest = max(priorities, default=-_LOWEST)
    first = min((pod.status.start_time or "~" for pod in one.victims if priority(pod) == highest), default="~")
    # The later the better: each character turned round.
    return one.violations, highest, sum(number + _LOWEST for number in priorities), len(priorities), tuple(-ord(letter) for letter in first)
