"""Which of the nodes that may run a Pod its author would like best.

Pure. Each kind of wish gives every node 0 to 100 points, and the kinds are weighed as the scheduler of Kubernetes weighs them: taints
that are better avoided three, preferred node affinity, company and spread two each. A Pod without wishes has no points to give.

Source: https://kubernetes.io/docs/reference/scheduling/config/#scheduling-plugins
"""

from __future__ import annotations

from collections.abc import Sequence

from podwire.objects.core import Node, Pod
from podwire.views.placement import term_matches, tolerates
from podwire.workloads.scheduler.filters import Question

TAINTS, NODE_AFFINITY, COMPANY, SPREAD = 3, 2, 2, 2


def points(asked: Question, nodes: Sequence[Node]) -> dict[str, int]:
    """Give the points of each node by its name; {} if none is better than another."""
    kinds: list[tuple[int, list[int]]] = [(TAINTS, [-_avoided(asked.pod, node) for node in nodes])]
    if asked.pod.spec.affinity is not None:
        kinds.append((NODE_AFFINITY, [_preferred(asked.pod, node) for node in nodes]))
    if asked.company.matters:
        kinds.append((COMPANY, [asked.company.liking(node) for node in nodes]))
    if asked.spread.matters:
        kinds.append((SPREAD, [-asked.spread.crowd(node) for node in nodes]))
    telling = [(weight, values) for weight, values in kinds if min(values, default=0) != max(values, default=0)]
    total: dict[str, int] = {}
    for weight, values in telling:
        least, most = min(values), max(values)
        for node, value in zip(nodes, values, strict=True):
            total[node.name] = total.get(node.name, 0) + weight * (100 * (value - least) // (most - least))
    return total


def _avoided(pod: Pod, node: Node) -> int:
    """Count the taints that only ask not to be chosen and that the Pod does not tolerate."""
    asking = [taint for taint in node.spec.taints if taint.effect == "PreferNoSchedule"]
    return sum(not any(tolerates(one, taint) for one in pod.spec.tolerations) for taint in asking)


def _preferred(pod: Pod, node: Node) -> int:
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity else None
    return sum(one.weight for one in affinity.preferred if term_matches(one.preference, node)) if affinity else 0
