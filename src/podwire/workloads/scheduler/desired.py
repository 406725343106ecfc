"""Which node a Pod should run on.

Pure. Of the nodes that may run it, those that it likes best (``scores.py``); of these the one in whose zone the fewest Pods of the same
controller run, then on which the fewest of them run, then the least full one, then with the fewest Pods at all in its zone and on
itself. Equal ones are taken in the order of their names, so that the same cluster gives the same choice.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/ (what the default constraints ask for)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from podwire.objects.core import Node, Pod
from podwire.objects.storage import PersistentVolumeClaim
from podwire.views import resources
from podwire.workloads.nodes.desired import ZONE
from podwire.workloads.scheduler import claims, scores
from podwire.workloads.scheduler.claims import NO_CLAIMS, Known
from podwire.workloads.scheduler.filters import feasible, question
from podwire.workloads.scheduler.load import Load, group_of
from podwire.workloads.scheduler.terms import Namespaces

SCHEDULER = "default-scheduler"


@dataclass(frozen=True)
class Decision:
    """``node`` is "" if no node may run the Pod; ``reason`` then says why, node by node; without one, its claims are being bound.

    ``choose``: claims that are to know the node before the Pod can be bound to it.
    """

    pod: Pod
    node: str
    reason: str = ""
    choose: tuple[PersistentVolumeClaim, ...] = ()


def is_waiting(pod: Pod) -> bool:
    """A Pod that this scheduler has to place."""
    return (
        not pod.spec.node_name
        and not pod.terminating
        and not pod.spec.scheduling_gates
        and pod.spec.scheduler_name in ("", SCHEDULER)
        and pod.status.phase not in ("Succeeded", "Failed")
    )


def in_order(pods: Iterable[Pod], priorities: Mapping[str, int] | None = None) -> list[Pod]:
    """Put Pods in the order in which they are placed: of higher priority, then older ones first.

    ``priorities``: those of PriorityClasses, for Pods to which the API server gave none.
    """
    classes = priorities or {}

    def turn(pod: Pod) -> tuple[int, str, str]:
        priority = pod.spec.priority or classes.get(pod.spec.priority_class_name, 0)
        return -priority, pod.metadata.creation_timestamp or "", pod.key

    return sorted(pods, key=turn)


def decide(
    pods: Iterable[Pod], nodes: Sequence[Node], load: Load, namespaces: Namespaces | None = None, known: Known | None = None
) -> list[Decision]:
    """Place Pods in the order given; each decision counts for the next: ``load`` takes them in. ``namespaces``: the labels of each."""
    return [_place(pod, nodes, load, namespaces or {}, known or Known()) for pod in pods]


def _place(pod: Pod, nodes: Sequence[Node], load: Load, namespaces: Namespaces, known: Known) -> Decision:
    verdict = claims.judge(pod, known) if pod.spec.volumes else NO_CLAIMS
    if verdict.refusal:
        return Decision(pod, "", f"0/{len(nodes)} nodes are available: {verdict.refusal}.")
    if verdict.waits:
        return Decision(pod, "")
    asked = question(pod, nodes, load, namespaces, verdict)
    fitting, refused = feasible(asked, nodes)
    if not fitting:
        return Decision(pod, "", explanation(len(nodes), refused))
    points = scores.points(asked, fitting)
    group = group_of(pod)
    group_in_zone: Counter[str] = Counter()
    all_in_zone: Counter[str] = Counter()
    for node in nodes:
        zone = _zone(node)
        group_in_zone[zone] += load.of_group(node.name, group)
        all_in_zone[zone] += load.on_node(node.name)

    def cost(node: Node) -> tuple[int, int, int, int, int, int, str]:
        zone, name = _zone(node), node.name
        full = resources.fullness(asked.requested, resources.allocatable(node), load.requests(name)) if asked.requested else 0
        return -points.get(name, 0), group_in_zone[zone], load.of_group(name, group), full, all_in_zone[zone], load.on_node(name), name

    chosen = min(fitting, key=cost)
    load.add(pod, chosen.name)
    return Decision(pod, chosen.name, choose=verdict.choose)


def _zone(node: Node) -> str:
    return node.metadata.labels.get(ZONE, "")


def explanation(total: int, refused: Counter[str]) -> str:
    """Say why no node may run a Pod, as ``0/3 nodes are available: 2 Too many pods, 1 node(s) were unschedulable.``"""
    if not total:
        return "no nodes available to schedule pods"
    reasons = sorted(f"{count} {reason}" for reason, count in refused.items())
    return f"0/{total} nodes are available: {', '.join(reasons)}."
