"""Which node a Pod should run on.

Pure. Of the nodes that may run it, the one in whose zone the fewest Pods of the same controller run, then on which the fewest
of them run, then with the fewest Pods at all in its zone and on itself. Equal ones are taken in the order of their names, so
that the same cluster gives the same choice.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/ (what the default constraints ask for)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from podwire.objects.core import Node, Pod
from podwire.workloads.nodes.desired import ZONE
from podwire.workloads.scheduler.filters import feasible
from podwire.workloads.scheduler.load import Load, group_of

SCHEDULER = "default-scheduler"


@dataclass(frozen=True)
class Decision:
    """``node`` is "" if no node may run the Pod; ``reason`` then says why, node by node."""

    pod: Pod
    node: str
    reason: str = ""


def is_waiting(pod: Pod) -> bool:
    """A Pod that this scheduler has to place."""
    return (
        not pod.spec.node_name
        and not pod.terminating
        and pod.spec.scheduler_name in ("", SCHEDULER)
        and pod.status.phase not in ("Succeeded", "Failed")
    )


def decide(pods: Iterable[Pod], nodes: Sequence[Node], load: Load) -> list[Decision]:
    """Place Pods, of higher priority and then older ones first; each decision counts for the next: ``load`` takes them in."""
    ordered = sorted(pods, key=lambda pod: (-pod.spec.priority, pod.metadata.creation_timestamp or "", pod.key))
    return [_place(pod, nodes, load) for pod in ordered]


def _place(pod: Pod, nodes: Sequence[Node], load: Load) -> Decision:
    fitting, refused = feasible(pod, nodes, load)
    if not fitting:
        return Decision(pod, "", explanation(len(nodes), refused))
    group = group_of(pod)
    group_in_zone: Counter[str] = Counter()
    all_in_zone: Counter[str] = Counter()
    for node in nodes:
        zone = _zone(node)
        group_in_zone[zone] += load.of_group(node.name, group)
        all_in_zone[zone] += load.on_node(node.name)

    def cost(node: Node) -> tuple[int, int, int, int, str]:
        zone = _zone(node)
        return group_in_zone[zone], load.of_group(node.name, group), all_in_zone[zone], load.on_node(node.name), node.name

    chosen = min(fitting, key=cost)
    load.add(pod, chosen.name)
    return Decision(pod, chosen.name)


def _zone(node: Node) -> str:
    return node.metadata.labels.get(ZONE, "")


def explanation(total: int, refused: Counter[str]) -> str:
    """Say why no node may run a Pod, as ``0/3 nodes are available: 2 Too many pods, 1 node(s) were unschedulable.``"""
    if not total:
        return "no nodes available to schedule pods"
    reasons = sorted(f"{count} {reason}" for reason, count in refused.items())
    return f"0/{total} nodes are available: {', '.join(reasons)}."
