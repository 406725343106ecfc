"""Which node a Pod should run on.

Pure. Of the nodes that may run it, those that it likes best (``scores.py``); of these the one in whose zone the fewest Pods of the same
controller run, then on which the fewest of them run, then the least full one, then with the fewest Pods at all in its zone and on
itself. Equal ones are taken in the order of their names, so that the same cluster gives the same choice. A Pod that fits nowhere may have
others displaced (``preemption.py``); the node is kept for it until they are gone (``nominated.py``).

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/ (what the default constraints ask for)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from podwire.objects.core import Node, Pod
from podwire.objects.policy import PodDisruptionBudget
from podwire.objects.storage import PersistentVolumeClaim
from podwire.views import resources
from podwire.workloads.nodes.desired import ZONE
from podwire.workloads.scheduler import claims, scores
from podwire.workloads.scheduler.claims import NO_CLAIMS, Known
from podwire.workloads.scheduler.filters import Question, question
from podwire.workloads.scheduler.load import Load, group_of
from podwire.workloads.scheduler.nominated import Judgement
from podwire.workloads.scheduler.preemption import NEVER, NO_HELP, UNDER_WAY, Candidate, attempt
from podwire.workloads.scheduler.terms import Namespaces

SCHEDULER = "default-scheduler"


@dataclass(frozen=True)
class Decision:
    """``node`` is "" if no node may run the Pod; ``reason`` then says why, node by node; without one, its claims are being bound.

    ``choose``: claims that are to know the node before the Pod can be bound to it. ``preempt``: which Pods are to go from which node,
    which is then kept for the Pod. ``keeps``: the node that was kept for it before still is.
    """

    pod: Pod
    node: str
    reason: str = ""
    choose: tuple[PersistentVolumeClaim, ...] = ()
    preempt: Candidate | None = None
    keeps: bool = False


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
        return -priority_of(pod, classes), pod.metadata.creation_timestamp or "", pod.key

    return sorted(pods, key=turn)


def priority_of(pod: Pod, classes: Mapping[str, int]) -> int:
    return pod.spec.priority or classes.get(pod.spec.priority_class_name, 0)


@dataclass(frozen=True)
class Surroundings:
    """What else is known. ``namespaces``: the labels of each; ``priorities``: of PriorityClasses.

    ``under_way``: by the uid of a Pod, the node from which others are going for its sake. ``kept``: all Pods that a node is kept for, and
    that node (``nominated.py``).
    """

    namespaces: Namespaces = field(default_factory=dict)
    known: Known = field(default_factory=Known)
    priorities: Mapping[str, int] = field(default_factory=dict)
    budgets: Collection[PodDisruptionBudget] = ()
    under_way: Mapping[str, str] = field(default_factory=dict)
    kept: Sequence[tuple[Pod, str]] = ()

    def priority(self, pod: Pod) -> int:
        return priority_of(pod, self.priorities)

    def yields_to(self, pod: Pod) -> dict[str, list[Pod]]:
        """Give the Pods for which a node is kept also from this one, by that node: those of its own or a higher priority."""
        found: dict[str, list[Pod]] = {}
        for other, node in self.kept:
            if other.metadata.uid != pod.metadata.uid and self.priority(other) >= self.priority(pod):
                found.setdefault(node, []).append(other)
        return found

    def after(self, decision: Decision) -> Surroundings:
        """As they are when that was decided: for who has a place none is kept any more."""
        if decision.node or decision.preempt is not None:
            kept = [(pod, node) for pod, node in self.kept if pod.metadata.uid != decision.pod.metadata.uid]
            if decision.preempt is not None:
                kept.append((decision.pod, decision.preempt.node))
            return replace(self, kept=kept)
        return self


def decide(pods: Iterable[Pod], nodes: Sequence[Node], load: Load, around: Surroundings | None = None) -> list[Decision]:
    """Place Pods in the order given; each decision counts for the next: ``load`` takes them in."""
    around = around or Surroundings()
    decisions = []
    for pod in pods:
        decision = _place(pod, nodes, load, around)
        around = around.after(decision)
        decisions.append(decision)
    return decisions


def _place(pod: Pod, nodes: Sequence[Node], load: Load, around: Surroundings) -> Decision:
    verdict = claims.judge(pod, around.known) if pod.spec.volumes else NO_CLAIMS
    if verdict.refusal:
        of = f"0/{len(nodes)} nodes are available"
        return Decision(pod, "", f"{of}: {verdict.refusal}. preemption: {of}: {len(nodes)} {NO_HELP}.")
    if verdict.waits:
        return Decision(pod, "")
    judgement = Judgement(lambda: question(pod, nodes, load, around.namespaces, verdict), load, around.yields_to(pod))
    fitting, refused = judgement.feasible(nodes)
    if not fitting:
        return _make_room(judgement, nodes, load, around, refused)
    kept = around.under_way.get(pod.metadata.uid) or pod.status.nominated_node_name
    chosen = next((node for node in fitting if node.name == kept), None) or _best(judgement.asked, fitting, nodes)
    load.add(pod, chosen.name)
    return Decision(pod, chosen.name, choose=verdict.choose)


def _make_room(
    judgement: Judgement, nodes: Sequence[Node], load: Load, around: Surroundings, refused: Mapping[str, Sequence[str]]
) -> Decision:
    """Where a Pod fits nowhere, others of lower priority may have to go."""
    pod = judgement.asked.pod
    reason = explanation(len(nodes), Counter(reason for reasons in refused.values() for reason in reasons))
    if not nodes:
        return Decision(pod, "", reason)
    if pod.spec.preemption_policy == "Never":
        return Decision(pod, "", f"{reason} preemption: {NEVER}")
    if pod.metadata.uid in around.under_way:
        return Decision(pod, "", f"{reason} preemption: {UNDER_WAY}", keeps=True)
    tried = attempt(judgement, nodes, refused, load, around.budgets, around.priority)
    if tried.best is None:
        return Decision(pod, "", f"{reason} preemption: {tried.reason}")
    return Decision(pod, "", reason, preempt=tried.best)


def _best(asked: Question, fitting: Sequence[Node], nodes: Sequence[Node]) -> Node:
    pod, load = asked.pod, asked.load
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

    return min(fitting, key=cost)


def _zone(node: Node) -> str:
    return node.metadata.labels.get(ZONE, "")


def explanation(total: int, refused: Counter[str]) -> str:
    """Say why no node may run a Pod, as ``0/3 nodes are available: 2 Too many pods, 1 node(s) were unschedulable.``"""
    if not total:
        return "no nodes available to schedule pods"
    reasons = sorted(f"{count} {reason}" for reason, count in refused.items())
    return f"0/{total} nodes are available: {', '.join(reasons)}."
