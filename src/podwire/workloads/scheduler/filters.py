"""Which nodes may run a Pod: small judges in a chain, each with the reasons that a person reads in an Event.

Pure. A judge answers with no reason for yes; the first that refuses a node gives the reasons for that node.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from podwire.objects.core import Node, Pod, Taint
from podwire.views import resources
from podwire.views.placement import selects, tolerates, untolerated
from podwire.views.resources import HostPort
from podwire.workloads.scheduler.claims import NO_CLAIMS, Verdict, obstacle
from podwire.workloads.scheduler.company import APART, REFUSED, Company
from podwire.workloads.scheduler.load import Load
from podwire.workloads.scheduler.spread import UNEVEN, Spread
from podwire.workloads.scheduler.terms import Namespaces

NO_PORTS = "node(s) didn't have free ports for the requested pod ports"
IN_USE = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
_CORDONED = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")
_NOT_READY = Taint(key="node.kubernetes.io/not-ready", effect="NoExecute")


@dataclass(frozen=True, eq=False)
class Question:
    """A Pod that wants a node, and what is counted once for all nodes."""

    pod: Pod
    load: Load
    company: Company
    spread: Spread
    requested: resources.Amounts
    ports: Sequence[HostPort]
    claims: Verdict = NO_CLAIMS


def question(pod: Pod, nodes: Sequence[Node], load: Load, known: Namespaces, claims: Verdict = NO_CLAIMS) -> Question:
    company, spread = Company(pod, nodes, load, known), Spread(pod, nodes, load, known)
    return Question(pod, load, company, spread, resources.requested(pod), resources.host_ports(pod), claims)


# What is so because of Pods that are there; "Too many pods" is, unless the node has room for none.
_OF_OTHERS = frozenset({"Too many pods", NO_PORTS, IN_USE, APART, REFUSED, UNEVEN})
Judge = Callable[[Question, Node], Sequence[str]]


def _schedulable(asked: Question, node: Node) -> Sequence[str]:
    cordoned = node.spec.unschedulable and not any(tolerates(one, _CORDONED) for one in asked.pod.spec.tolerations)
    return ["node(s) were unschedulable"] if cordoned else ()


def _named(asked: Question, node: Node) -> Sequence[str]:
    return () if asked.pod.spec.node_name in ("", node.name) else ["node(s) didn't match the requested node name"]


def _tolerated(asked: Question, node: Node) -> Sequence[str]:
    taint = untolerated(asked.pod.spec.tolerations, node.spec.taints, ("NoSchedule", "NoExecute"))
    return [f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"] if taint is not None else ()


def _selected(asked: Question, node: Node) -> Sequence[str]:
    return () if selects(asked.pod.spec, node) else ["node(s) didn't match Pod's node affinity/selector"]


def _ready(asked: Question, node: Node) -> Sequence[str]:
    """A node that is not ready is about to be tainted so; who bears that for ever, as Pods of a DaemonSet, is not kept away."""
    bears = any(tolerates(one, _NOT_READY) and one.toleration_seconds is None for one in asked.pod.spec.tolerations)
    return () if node.ready or bears else ["node(s) were not ready"]


def _host_ports(asked: Question, node: Node) -> Sequence[str]:
    taken = resources.taken(asked.ports, asked.load.host_ports(node.name))
    return [NO_PORTS] if taken else ()


def _room(asked: Question, node: Node) -> Sequence[str]:
    load = asked.load
    return resources.lacking(asked.requested, resources.allocatable(node), load.requests(node.name), load.on_node(node.name))


def _used(asked: Question, _node: Node) -> Sequence[str]:
    return [IN_USE] if any(asked.load.uses(claim) for claim in asked.claims.exclusive) else ()


def _volumes(asked: Question, node: Node) -> Sequence[str]:
    reason = obstacle(asked.claims, node)
    return [reason] if reason else ()


def _spread(asked: Question, node: Node) -> Sequence[str]:
    reason = asked.spread.judge(node)
    return [reason] if reason else ()


def _company(asked: Question, node: Node) -> Sequence[str]:
    reason = asked.company.judge(node)
    return [reason] if reason else ()


# In the order in which the scheduler of Kubernetes asks: it decides which reason is told of a node that has several.
JUDGES: tuple[Judge, ...] = (_schedulable, _named, _tolerated, _selected, _ready, _host_ports, _room, _used, _volumes, _spread, _company)


def judged(asked: Question, node: Node) -> Sequence[str]:
    """Say why the node may not run the Pod, by the first judge who refuses it; nothing: it may."""
    return next(filter(None, (judge(asked, node) for judge in JUDGES)), ())


def may_be_helped(asked: Question, node: Node, reasons: Sequence[str]) -> bool:
    """Say whether fewer Pods on a node could take away these reasons."""
    have = resources.allocatable(node)
    short = {f"Insufficient {name}" for name, amount in asked.requested.items() if amount <= have.get(name, 0)}
    return all(reason in short or reason in _OF_OTHERS for reason in reasons)
