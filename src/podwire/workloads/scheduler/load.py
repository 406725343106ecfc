"""Which Pods run where: what a choice of node is made from.

Pure. Kept step by step as Pods come and go, and equal to what a count of all Pods would give (a test says so), so that
scheduling one Pod costs the same in a cluster of ten Pods and of ten thousand. A question about Pods of certain labels is counted
when it is first asked and kept from then on.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self, TypeVar

from podwire.objects.core import Pod
from podwire.objects.storage import claims_of
from podwire.views.resources import Amounts, HostPort, host_ports, requested
from podwire.workloads.kinds import controller_of
from podwire.workloads.scheduler import terms
from podwire.workloads.scheduler.terms import Namespaces, Term

K = TypeVar("K")

QUESTIONS = 128  # that are kept


def group_of(pod: Pod) -> str:
    """Give what a Pod is one of: its controller, or, without one, its labels."""
    owner = controller_of(pod.metadata)
    if owner is not None:
        return owner.uid or f"{pod.namespace}/{owner.kind}/{owner.name}"
    return f"{pod.namespace}/{sorted(pod.metadata.labels.items())}"


def counts(pod: Pod) -> bool:
    """A Pod takes room until it has ended."""
    return bool(pod.spec.node_name) and pod.status.phase not in ("Succeeded", "Failed")


@dataclass
class _Held:
    """What one node has."""

    pods: dict[str, Pod] = field(default_factory=dict)
    groups: Counter[str] = field(default_factory=Counter)
    ports: Counter[HostPort] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)


_NOTHING = _Held()


@dataclass
class _Question:
    term: Term  # of settled namespaces
    on: Counter[str] = field(default_factory=Counter)


class Load:
    def __init__(self) -> None:
        self._nodes: dict[str, _Held] = {}
        self._standing: dict[tuple[int, Term], Counter[str]] = {}  # terms of Pods that are there: weight (0: refuses), where
        self._questions: OrderedDict[tuple[str, frozenset[str]], _Question] = OrderedDict()
        self._claims: Counter[str] = Counter()  # by key: how many Pods use one

    @classmethod
    def of(cls, pods: Iterable[Pod]) -> Self:
        load = cls()
        for pod in pods:
            load.changed(None, pod)
        return load

    def changed(self, old: Pod | None, new: Pod | None) -> None:
        """Take in that a Pod is now another than before."""
        for pod, step in ((old, -1), (new, 1)):
            if pod is not None and counts(pod):
                self.add(pod, pod.spec.node_name, step)

    def add(self, pod: Pod, node: str, step: int = 1) -> None:
        """Count a Pod on a node (or, with -1, no longer)."""
        held = self._nodes.setdefault(node, _Held())
        if step > 0:
            held.pods[pod.metadata.uid or pod.key] = pod
        else:
            held.pods.pop(pod.metadata.uid or pod.key, None)
        _count(held.groups, group_of(pod), step)
        for port in host_ports(pod):
            _count(held.ports, port, step)
        for name, amount in requested(pod).items():
            _count(held.requests, name, step * amount)
        if not held.pods:
            del self._nodes[node]
        for claim in claims_of(pod) if pod.spec.volumes else ():
            _count(self._claims, claim, step)
        for standing in _standing(pod):
            where = self._standing.setdefault(standing, Counter())
            _count(where, node, step)
            if not where:
                del self._standing[standing]
        for question in self._questions.values():
            if question.term.matches(pod, {}):
                _count(question.on, node, step)

    def pods(self, node: str) -> Collection[Pod]:
        return self._nodes.get(node, _NOTHING).pods.values()

    def has(self, pod: Pod, node: str) -> bool:
        return (pod.metadata.uid or pod.key) in self._nodes.get(node, _NOTHING).pods

    def on_node(self, node: str) -> int:
        return len(self._nodes.get(node, _NOTHING).pods)

    def of_group(self, node: str, group: str) -> int:
        return self._nodes.get(node, _NOTHING).groups[group]

    def host_ports(self, node: str) -> Collection[HostPort]:
        return self._nodes.get(node, _NOTHING).ports

    def requests(self, node: str) -> Amounts:
        return self._nodes.get(node, _NOTHING).requests

    def uses(self, claim: str) -> bool:
        """Whether a Pod on some node uses a claim."""
        return claim in self._claims

    def matching(self, term: Term, known: Namespaces) -> Mapping[str, int]:
        """Give how many Pods that the term looks at are on each node."""
        scope = term.scope(known)
        key = (term.key.partition("|")[2], scope)
        question = self._questions.get(key)
        if question is None:
            settled = Term(term.key, term.topology, scope, None, term.labels)
            question = self._questions[key] = _Question(settled)
            for node, held in self._nodes.items():
                if found := sum(settled.matches(pod, {}) for pod in held.pods.values()):
                    question.on[node] = found
            if len(self._questions) > QUESTIONS:
                self._questions.popitem(last=False)
        self._questions.move_to_end(key)
        return question.on

    def refusing(self) -> Iterator[tuple[Term, Mapping[str, int]]]:
        """Give the terms by which Pods that are there refuse others, and on which nodes those Pods are."""
        return ((term, where) for (weight, term), where in self._standing.items() if not weight)

    def liking(self) -> Iterator[tuple[int, Term, Mapping[str, int]]]:
        """Give what Pods that are there would like, with weights, and on which nodes those Pods are."""
        return ((weight, term, where) for (weight, term), where in self._standing.items() if weight)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Load):
            return NotImplemented
        return (self._counted(), self._standing, self._claims) == (other._counted(), other._standing, other._claims)

    def _counted(self) -> dict[str, tuple[object, ...]]:
        return {name: (held.pods.keys(), held.groups, held.ports, held.requests) for name, held in self._nodes.items()}

    __hash__ = None  # type: ignore[assignment]


def _count(counter: Counter[K], key: K, step: int) -> None:
    counter[key] += step
    if not counter[key]:
        del counter[key]


def _standing(pod: Pod) -> list[tuple[int, Term]]:
    if pod.spec.affinity is None:
        return []
    return [*((0, one) for one in terms.anti(pod)), *((weight, one) for weight, one in terms.preferred(pod) if weight)]
