"""How evenly Pods are to be spread over zones, nodes or any other topology.

Pure. The skew of a node's domain is how many matching Pods it would have, more than the domain that has fewest.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from podwire.objects.core import Node, Pod
from podwire.objects.placement import PodAffinityTerm, TopologySpreadConstraint
from podwire.views.placement import selects, untolerated
from podwire.workloads.scheduler.company import by_domain
from podwire.workloads.scheduler.load import Load
from podwire.workloads.scheduler.terms import Namespaces, term

UNEVEN = "node(s) didn't match pod topology spread constraints"
UNLABELED = f"{UNEVEN} (missing required label)"


@dataclass(frozen=True)
class _Constraint:
    topology: str
    most: int
    have: dict[str, int]
    least: int
    itself: int


class Spread:
    """The constraints of one Pod. ``nodes`` are all nodes, not only those that may run it."""

    def __init__(self, pod: Pod, nodes: Iterable[Node], load: Load, known: Namespaces) -> None:
        constraints = pod.spec.topology_spread_constraints
        nodes = list(nodes) if constraints else []
        made = [(one.when_unsatisfiable, _constraint(one, pod, nodes, constraints, load, known)) for one in constraints]
        self._hard = [one for when, one in made if when == "DoNotSchedule"]
        self._soft = [one for when, one in made if when != "DoNotSchedule"]

    def judge(self, node: Node) -> str:
        """Say why the node may not run the Pod, "" if it may."""
        labels = node.metadata.labels
        if any(one.topology not in labels for one in self._hard):
            return UNLABELED
        if any(one.have.get(labels[one.topology], 0) + one.itself - one.least > one.most for one in self._hard):
            return UNEVEN
        return ""

    @property
    def matters(self) -> bool:
        """Whether any node is liked better than another."""
        return bool(self._soft)

    def crowd(self, node: Node) -> int:
        """Give how many matching Pods are in the node's domains, by the constraints that are only wishes."""
        labels = node.metadata.labels
        missing = 1 + max((max(one.have.values(), default=0) for one in self._soft), default=0)
        return sum(one.have.get(labels[one.topology], 0) if one.topology in labels else missing for one in self._soft)


def _constraint(
    one: TopologySpreadConstraint,
    pod: Pod,
    nodes: Sequence[Node],
    all_constraints: Sequence[TopologySpreadConstraint],
    load: Load,
    known: Namespaces,
) -> _Constraint:
    looked_at = term(
        pod, PodAffinityTerm(label_selector=one.label_selector, topology_key=one.topology_key, match_label_keys=one.match_label_keys)
    )
    keys = {each.topology_key for each in all_constraints if each.when_unsatisfiable == one.when_unsatisfiable}
    counted = [
        node
        for node in nodes
        if keys <= node.metadata.labels.keys()
        and (one.node_affinity_policy != "Honor" or selects(pod.spec, node))
        and (one.node_taints_policy != "Honor" or not untolerated(pod.spec.tolerations, node.spec.taints, ("NoSchedule", "NoExecute")))
    ]
    found = by_domain(one.topology_key, load.matching(looked_at, known), counted)
    have = {node.metadata.labels[one.topology_key]: 0 for node in counted} | dict(found)
    least = min(have.values(), default=0) if len(have) >= (one.min_domains or 1) else 0
    return _Constraint(one.topology_key, one.max_skew, have, least, int(looked_at.matches(pod, known)))
