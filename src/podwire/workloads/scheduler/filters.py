"""Which nodes may run a Pod: small judges in a chain, each with the reason that a person reads in an Event.

Pure. A judge answers "" for yes, else why not; the first that refuses a node is the reason for that node.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from podwire.objects.core import Node, Pod, Taint
from podwire.objects.placement import NodeSelectorTerm
from podwire.workloads.placement import tolerates
from podwire.workloads.scheduler.load import Load, host_ports

Judge = Callable[[Pod, Node, Load], str]


def _schedulable(pod: Pod, node: Node, _load: Load) -> str:
    cordoned = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")
    if node.spec.unschedulable and not any(tolerates(one, cordoned) for one in pod.spec.tolerations):
        return "node(s) were unschedulable"
    return ""


def _named(pod: Pod, node: Node, _load: Load) -> str:
    return "" if pod.spec.node_name in ("", node.name) else "node(s) didn't match the requested node name"


def _selected(pod: Pod, node: Node, _load: Load) -> str:
    labels = node.metadata.labels
    if any(labels.get(key) != value for key, value in pod.spec.node_selector.items()):
        return "node(s) didn't match Pod's node affinity/selector"
    required = pod.spec.affinity.node_affinity.required if pod.spec.affinity and pod.spec.affinity.node_affinity else None
    if required is not None and not any(_term(term, node) for term in required.node_selector_terms):
        return "node(s) didn't match Pod's node affinity/selector"
    return ""


def _term(term: NodeSelectorTerm, node: Node) -> bool:
    """An empty term matches no node."""
    if not term.match_expressions and not term.match_fields:
        return False
    fields = {"metadata.name": node.name}
    return all(one.matches(node.metadata.labels) for one in term.match_expressions) and all(
        one.matches(fields) for one in term.match_fields
    )


def _tolerated(pod: Pod, node: Node, _load: Load) -> str:
    for taint in node.spec.taints:
        if taint.effect in ("NoSchedule", "NoExecute") and not any(tolerates(one, taint) for one in pod.spec.tolerations):
            return f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"
    return ""


def _ready(_pod: Pod, node: Node, _load: Load) -> str:
    return "" if node.ready else "node(s) were not ready"


def _room(_pod: Pod, node: Node, load: Load) -> str:
    text = node.status.allocatable.get("pods") or node.status.capacity.get("pods") or ""
    return "Too many pods" if text.isdecimal() and load.on_node(node.name) >= int(text) else ""


def _host_ports(pod: Pod, node: Node, load: Load) -> str:
    taken = load.host_ports(node.name)
    return "node(s) didn't have free ports for the requested pod ports" if any(port in taken for port in host_ports(pod)) else ""


# In this order: what the Pod asks for comes before what the nodes happen to have.
JUDGES: tuple[Judge, ...] = (_named, _schedulable, _selected, _tolerated, _ready, _host_ports, _room)


def feasible(pod: Pod, nodes: Iterable[Node], load: Load) -> tuple[list[Node], Counter[str]]:
    """Give the nodes that may run the Pod, and how many were refused for which reason."""
    fitting: list[Node] = []
    refused: Counter[str] = Counter()
    for node in nodes:
        reason = next(filter(None, (judge(pod, node, load) for judge in JUDGES)), "")
        if reason:
            refused[reason] += 1
        else:
            fitting.append(node)
    return fitting, refused
