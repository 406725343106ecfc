"""What Pods ask for of a node's resources, and what a node has: whole numbers of thousandths.

Pure. Init containers run one after the other before the others, so the largest counts; sidecars (init containers that go on) count
with all that comes after them.

Source: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/,
https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from podwire.objects.core import Node, Pod
from podwire.objects.quantities import Malformed, thousandths

PODS = "pods"
Amounts = Mapping[str, int]


def requested(pod: Pod) -> Amounts:
    """Give what a Pod asks for, in thousandths. Without the Pod itself, which is one of ``pods``."""
    spec = pod.spec
    if not spec.init_containers and not spec.overhead and all(not one.resources.requests for one in spec.containers):
        return {}
    sidecars: Counter[str] = Counter()
    largest: Counter[str] = Counter()
    for one in spec.init_containers:
        asked = amounts(one.resources.requests)
        if one.restart_policy == "Always":
            sidecars.update(asked)
            largest |= sidecars
        else:
            largest |= sidecars + Counter(asked)
    running = sidecars.copy()
    for one in spec.containers:
        running.update(amounts(one.resources.requests))
    total = running | largest
    total.update(amounts(spec.overhead))
    return {name: amount for name, amount in total.items() if amount > 0}


def amounts(quantities: Mapping[str, str | int | float]) -> dict[str, int]:
    """Read quantities; one that is none counts as nothing."""
    found = {}
    for name, quantity in quantities.items():
        try:
            found[name] = thousandths(quantity)
        except Malformed:
            continue
    return found


def allocatable(node: Node) -> Amounts:
    return amounts(node.status.allocatable or node.status.capacity)


def lacking(asked: Amounts, have: Amounts, taken: Amounts, pods: int) -> list[str]:
    """Say, in the scheduler's words, what a node with so many Pods lacks for one more. A node that names no ``pods`` has room for all."""
    reasons = ["Too many pods"] if PODS in have and (pods + 1) * 1000 > have[PODS] else []
    return reasons + [f"Insufficient {name}" for name, amount in asked.items() if amount > have.get(name, 0) - taken.get(name, 0)]


def fullness(asked: Amounts, have: Amounts, taken: Amounts) -> int:
    """Give how full a node would be with the Pod, of cpu and memory the fuller one, in tenths."""
    shares = [10 * (taken.get(name, 0) + asked.get(name, 0)) // have[name] for name in ("cpu", "memory") if have.get(name)]
    return max(shares, default=0)
