"""Which other Pods a Pod must, must not, and would like to have near it.

Pure. Counted once for a Pod; then each node is judged by its labels alone.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from podwire.objects.core import Node, Pod
from podwire.workloads.scheduler import terms
from podwire.workloads.scheduler.load import Load
from podwire.workloads.scheduler.terms import Namespaces, Term

TOGETHER = "node(s) didn't match pod affinity rules"
APART = "node(s) didn't match pod anti-affinity rules"
REFUSED = "node(s) didn't satisfy existing pods anti-affinity rules"
Domain = tuple[str, str]  # a topology's key, and the value there


def by_domain(topology: str, on: Mapping[str, int], nodes: Iterable[Node]) -> Counter[str]:
    """Add up what is on nodes by the value of their label."""
    found: Counter[str] = Counter()
    for node in nodes:
        value = node.metadata.labels.get(topology)
        if value is not None and node.name in on:
            found[value] += on[node.name]
    return found


class Company:
    """The near Pods of one Pod. ``nodes`` are all nodes, not only those that may run it."""

    def __init__(self, pod: Pod, nodes: Iterable[Node], load: Load, known: Namespaces) -> None:
        nodes = list(nodes)
        affinity = pod.spec.affinity
        wanted = terms.required(pod, affinity.pod_affinity if affinity else None)
        self._wanted = [(one.topology, by_domain(one.topology, load.matching(one, known), nodes)) for one in wanted]
        # The first of Pods that want each other's company finds nobody: it may go anywhere that has the label.
        self._first = not any(found for _, found in self._wanted) and all(one.matches(pod, known) for one in wanted)
        self._unwanted = [(one.topology, by_domain(one.topology, load.matching(one, known), nodes)) for one in terms.anti(pod)]
        self._refusing: set[Domain] = set()
        for one, where in load.refusing():
            if one.matches(pod, known):
                self._refusing |= {(one.topology, value) for value in by_domain(one.topology, where, nodes)}
        self._liked: Counter[Domain] = Counter()
        for weight, one in terms.preferred(pod):
            self._like(one, weight, load.matching(one, known), nodes)
        for weight, one, where in load.liking():
            if one.matches(pod, known):
                self._like(one, weight, where, nodes)
        self._topologies = {topology for topology, _ in self._refusing} | {topology for topology, _ in self._liked}

    def _like(self, one: Term, weight: int, on: Mapping[str, int], nodes: Iterable[Node]) -> None:
        for value, count in by_domain(one.topology, on, nodes).items():
            self._liked[one.topology, value] += weight * count

    def judge(self, node: Node) -> str:
        """Say why the node may not run the Pod, "" if it may."""
        labels = node.metadata.labels
        if not all(topology in labels and (self._first or found[labels[topology]]) for topology, found in self._wanted):
            return TOGETHER
        if any(topology in labels and found[labels[topology]] for topology, found in self._unwanted):
            return APART
        if any((topology, labels.get(topology)) in self._refusing for topology in self._topologies):
            return REFUSED
        return ""

    @property
    def matters(self) -> bool:
        """Whether any node is liked better than another."""
        return bool(self._liked)

    def liking(self, node: Node) -> int:
        labels = node.metadata.labels
        return sum(self._liked[topology, labels[topology]] for topology in self._topologies if topology in labels)
