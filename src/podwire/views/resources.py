"""What Pods ask for of a node's resources, and what a node has: whole numbers of thousandths.

Pure. Init containers run one after the other before the others, so the largest counts; sidecars (init containers that go on) count
with all that comes after them.

Source: https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/,
https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping

from podwire.objects.core import Node, Pod
from podwire.objects.quantities import Malformed, thousandths

PODS = "pods"
EVERYWHERE = "0.0.0.0"  # noqa: S104  (nothing is bound here)
Amounts = Mapping[str, int]
_FIRST = ("cpu", "memory", "ephemeral-storage")


def requested(pod: Pod) -> Amounts:
    """Give what a Pod asks for, in thousandths. Without the Pod itself, which is one of ``pods``."""
    spec = pod.spec
    if not spec.init_containers and not spec.overhead and not spec.resources and all(not one.resources.requests for one in spec.containers):
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
    if spec.resources is not None:  # what is said of the whole Pod counts instead of what its containers add up to
        total.update({name: amount - total[name] for name, amount in amounts(spec.resources.requests).items()})
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


HostPort = tuple[str, str, int]
"""An address of the node ("0.0.0.0" for all), a protocol, a number."""


def host_ports(pod: Pod) -> list[HostPort]:
    """Give the ports of the node that a Pod takes; sidecars count, other init containers do not."""
    containers = [one for one in pod.spec.init_containers if one.restart_policy == "Always"] + list(pod.spec.containers)
    return [
        (port.host_ip or EVERYWHERE, port.protocol, port.host_port or port.container_port)
        for container in containers
        for port in container.ports
        if port.host_port or pod.spec.host_network
    ]


def taken(wanted: Iterable[HostPort], there: Collection[HostPort]) -> bool:
    """Say whether a port cannot be had: the same number and protocol, at the same address or where one of the two is everywhere."""
    return bool(there) and any(
        port == other and protocol == kind and (ip == where or EVERYWHERE in (ip, where))
        for ip, protocol, port in wanted
        for where, kind, other in there
    )


def allocatable(node: Node) -> Amounts:
    return amounts(node.status.allocatable or node.status.capacity)


def lacking(asked: Amounts, have: Amounts, taken: Amounts, pods: int) -> list[str]:
    """Say, in the scheduler's words, what a node with so many Pods lacks for one more. A node that names no ``pods`` has room for all."""
    reasons = ["Too many pods"] if PODS in have and (pods + 1) * 1000 > have[PODS] else []
    return reasons + [f"Insufficient {name}" for name in short_of(asked, have, taken)]


def short_of(asked: Amounts, have: Amounts, taken: Amounts) -> list[str]:
    """Give the names of what there is not enough of: cpu, memory and storage first, as the scheduler asks."""
    names = [name for name in _FIRST if name in asked] + [name for name in asked if name not in _FIRST]
    return [name for name in names if asked[name] > have.get(name, 0) - taken.get(name, 0)]


def fullness(asked: Amounts, have: Amounts, taken: Amounts) -> int:
    """Give how full a node would be with the Pod, of cpu and memory the fuller one, in tenths."""
    shares = [10 * (taken.get(name, 0) + asked.get(name, 0)) // have[name] for name in ("cpu", "memory") if have.get(name)]
    return max(shares, default=0)
