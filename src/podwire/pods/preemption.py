"""Whom a node ends so that a critical Pod fits, where one was bound to a node that is full. Pure.

A critical Pod has the priority of ``system-cluster-critical`` or more. Pods of lower priority go, as few as may be, and of equally many
those that ask for less: guaranteed ones only where all others would not do, burstable ones only where the best-effort ones would not.

Not here: the scheduler, which displaces Pods before it binds another one; a node does so when it was not asked.

Source: https://kubernetes.io/docs/tasks/administer-cluster/guaranteed-scheduling-critical-addon-pods/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from podwire.objects.core import Node, Pod
from podwire.pods import fitting
from podwire.pods.admission import Refusal
from podwire.pods.fitting import Asked
from podwire.pods.status import PREEMPTED, qos_class
from podwire.views import resources
from podwire.views.resources import PODS, Amounts

CRITICAL = 2_000_000_000
REASON, MESSAGE = PREEMPTED, "Preempted in order to admit critical pod"
_NOBODY = "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt"


class _NotEnough(Exception):
    """What would still be missing, whoever went."""

    def __init__(self, missing: Amounts) -> None:
        amounts = "".join(f"(res: {name}, q: {fitting.units(name, amount)}), " for name, amount in missing.items())
        super().__init__(f"no set of running pods found to reclaim resources: [{amounts}]")


def admit(pod: Pod, node: Node, others: Sequence[Pod], asked: Asked = resources.requested) -> tuple[Refusal | None, Sequence[Pod]]:
    """Why the node does not take the Pod beside the others, or else which of them have to go for it. ``asked``: what one asks for."""
    refused = fitting.misfit(pod, node, others, asked)
    if refused is None or not is_critical(pod):
        return refused, ()
    refused = fitting.unsuited(pod, node, others)
    if refused is not None:
        return refused, ()
    try:
        return None, _victims(pod, others, fitting.missing(pod, node, others, asked), asked)
    except _NotEnough as nobody:
        return Refusal("UnexpectedAdmissionError", f"{_NOBODY}: {nobody}"), ()


def is_critical(pod: Pod) -> bool:
    return pod.spec.priority >= CRITICAL


def _victims(pod: Pod, others: Sequence[Pod], needed: Amounts, asked: Asked) -> list[Pod]:
    """Raises _NotEnough."""
    lower = [one for one in others if one.spec.priority < pod.spec.priority]
    effort, burstable, guaranteed = ([one for one in lower if qos_class(one) == name] for name in ("BestEffort", "Burstable", "Guaranteed"))
    if still := _without(needed, lower, asked):
        raise _NotEnough(still)
    guaranteed = _fewest(guaranteed, _without(needed, [*effort, *burstable], asked), asked)
    burstable = _fewest(burstable, _without(needed, [*effort, *guaranteed], asked), asked)
    effort = _fewest(effort, _without(needed, [*burstable, *guaranteed], asked), asked)
    return [*effort, *burstable, *guaranteed]


def _fewest(pods: Sequence[Pod], needed: Amounts, asked: Asked) -> list[Pod]:
    """Take, again and again, the Pod with which least is missing. Raises _NotEnough."""
    left, chosen = list(pods), []
    while needed:
        if not left:
            raise _NotEnough(needed)
        one = min(left, key=partial(_cost, needed, asked))
        left.remove(one)
        chosen.append(one)
        needed = _without(needed, [one], asked)
    return chosen


def _cost(needed: Amounts, asked: Asked, pod: Pod) -> tuple[float, int, int, int, str]:
    """How far a Pod's going is from enough, each resource counting the same; then what it asks for, and how important it is."""
    far = sum((max(0, amount - _of(pod, name, asked)) / amount) ** 2 for name, amount in needed.items())
    own = asked(pod)
    return far, own.get("memory", 0), own.get("cpu", 0), pod.spec.priority, pod.key


def _without(needed: Amounts, pods: Sequence[Pod], asked: Asked) -> Mapping[str, int]:
    """What is still needed when these have gone."""
    rest = {name: amount - sum(_of(one, name, asked) for one in pods) for name, amount in needed.items()}
    return {name: amount for name, amount in rest.items() if amount > 0}


def _of(pod: Pod, name: str, asked: Asked) -> int:
    return 1000 if name == PODS else asked(pod).get(name, 0)
