"""Whether a Pod fits the node that it was bound to: what the kubelet asks anew, whoever bound it. Pure.

The scheduler asks the same and more; but a Pod may name its node itself, two schedulers may not know of each other, and a node may have
changed meanwhile. A Pod that does not fit is rejected for good: it gets the phase Failed, and the reason of the first obstacle.

Not here: whether the node is cordoned or has taints of the effect NoSchedule. Those keep schedulers away, not Pods.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from podwire.objects.core import Container, Node, Pod, ResourceRequirements
from podwire.pods.admission import Refusal
from podwire.pods.status import amounts_of
from podwire.views import placement, resources
from podwire.views.resources import PODS, Amounts

_OS = "kubernetes.io/os"
_LINUX = "linux"
Asked = Callable[[Pod], Amounts]


def misfit(pod: Pod, node: Node, others: Sequence[Pod], asked: Asked = resources.requested) -> Refusal | None:
    """Why the node does not take the Pod beside the others that it has taken; None: it does. ``asked``: what one asks for."""
    return _other_system(pod) or _no_room(pod, node, others, asked) or _not_this_node(pod, node, others)


def unsuited(pod: Pod, node: Node, others: Sequence[Pod]) -> Refusal | None:
    """Why the node would not take the Pod if it had all resources; None: it would."""
    return _other_system(pod) or _not_this_node(pod, node, others)


def missing(pod: Pod, node: Node, others: Sequence[Pod], asked_of: Asked = resources.requested) -> dict[str, int]:
    """How much more the node would have to have for the Pod beside the others, by resource, in thousandths."""
    have = resources.allocatable(node)
    found = {PODS: (len(others) + 1) * 1000 - have[PODS]} if PODS in have and (len(others) + 1) * 1000 > have[PODS] else {}
    # Resources that the node does not know are somebody else's to give.
    asked = {name: amount for name, amount in resources.requested(pod).items() if name in have or "/" not in name}
    if not asked:
        return found
    used: dict[str, int] = {}
    for other in others:
        for name, amount in asked_of(other).items():
            used[name] = used.get(name, 0) + amount
    return found | {name: asked[name] + used.get(name, 0) - have.get(name, 0) for name in resources.short_of(asked, have, used)}


def unresizable(pod: Pod, node: Node, others: Sequence[Pod], asked_of: Asked = resources.requested) -> tuple[str, str]:
    """Why a Pod that runs cannot have what it asks for now: a word (never, or not yet) and a sentence; two empty ones: it can."""
    have, asked = resources.allocatable(node), resources.requested(pod)
    for name in ("memory", "cpu"):
        if asked.get(name, 0) > have.get(name, 0):
            amounts = f"requested: {units(name, asked[name])}, capacity: {units(name, have.get(name, 0))}"
            return "Infeasible", f"Node didn't have enough capacity: {name}, {amounts}"
    refused = _no_room(pod, node, others, asked_of)
    return ("Deferred", refused.message) if refused is not None else ("", "")


def with_allocated(pod: Pod, allocated: Mapping[str, Mapping[str, Mapping[str, str | int | float]]]) -> Pod:
    """The Pod as if it asked for what its containers have."""
    if not allocated:
        return pod

    def had(containers: Sequence[Container]) -> tuple[Container, ...]:
        return tuple(
            replace(one, resources=ResourceRequirements(**{key: dict(value) for key, value in allocated[one.name].items()}))
            if one.name in allocated
            else one
            for one in containers
        )

    spec = replace(pod.spec, containers=had(pod.spec.containers), init_containers=had(pod.spec.init_containers))
    return replace(pod, spec=spec)


def begins_anew(container: Container, had: Mapping[str, Mapping[str, object]]) -> bool:
    """Whether a container is to be begun anew because of the resources that have changed."""
    wanted = amounts_of(container)
    changed = {name for kind in wanted for name, amount in wanted[kind].items() if had.get(kind, {}).get(name) != amount}
    return any(one.resource_name in changed and one.restart_policy == "RestartContainer" for one in container.resize_policy)


def _other_system(pod: Pod) -> Refusal | None:
    if pod.metadata.labels.get(_OS, _LINUX) != _LINUX:
        return Refusal("PodOSSelectorNodeLabelDoesNotMatch", f"Failed to admit pod as the `{_OS}` label doesn't match node label")
    if pod.spec.os is not None and pod.spec.os.name != _LINUX:
        return Refusal("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
    return None


def _no_room(pod: Pod, node: Node, others: Sequence[Pod], asked_of: Asked) -> Refusal | None:
    for name, short in missing(pod, node, others, asked_of).items():
        have = resources.allocatable(node)
        asked = 1000 if name == PODS else resources.requested(pod)[name]
        return _out_of(name, asked, short + have.get(name, 0) - asked, have)
    return None


def _out_of(name: str, asked: int, used: int, have: Amounts) -> Refusal:
    """In thousandths; said in the units in which the kubelet counts: cpu in thousandths, everything else in whole ones."""
    amounts = f"requested: {units(name, asked)}, used: {units(name, used)}, capacity: {units(name, have.get(name, 0))}"
    return Refusal(f"OutOf{name}", f"Node didn't have enough resource: {name}, {amounts}")


def units(name: str, thousandths: int) -> int:
    """An amount as the kubelet says it."""
    return thousandths if name == "cpu" else -(-thousandths // 1000)


def _not_this_node(pod: Pod, node: Node, others: Sequence[Pod]) -> Refusal | None:
    if not placement.selects(pod.spec, node):
        return _predicate("NodeAffinity", "node(s) didn't match Pod's node affinity/selector")
    ports = resources.host_ports(pod)
    if ports and resources.taken(ports, [port for other in others for port in resources.host_ports(other)]):
        return _predicate("NodePorts", "node(s) didn't have free ports for the requested pod ports")
    if placement.untolerated(pod.spec.tolerations, node.spec.taints, ("NoExecute",)) is not None:
        return _predicate("TaintToleration", "node(s) had taints that the pod didn't tolerate")
    return None


def _predicate(name: str, words: str) -> Refusal:
    return Refusal(name, f"Predicate {name} failed: {words}")
