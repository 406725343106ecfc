"""Which nodes a Pod asks for, and which taints keep it away: what the scheduler and DaemonSets judge alike.

Pure.

Source: https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/,
https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
"""

from __future__ import annotations

from collections.abc import Iterable

from podwire.objects.core import Node, PodSpec, Taint
from podwire.objects.placement import NodeSelector, NodeSelectorTerm, Toleration
from podwire.objects.storage import PersistentVolume

_NAME = "metadata.name"


def selects(spec: PodSpec, node: Node) -> bool:
    """Say whether the node selector and the required node affinity let the Pod on the node."""
    labels = node.metadata.labels
    if any(labels.get(key) != value for key, value in spec.node_selector.items()):
        return False
    required = required_nodes(spec)
    return required is None or any(term_matches(term, node) for term in required.node_selector_terms)


def required_nodes(spec: PodSpec) -> NodeSelector | None:
    return spec.affinity.node_affinity.required if spec.affinity and spec.affinity.node_affinity else None


def term_matches(term: NodeSelectorTerm, node: Node) -> bool:
    """An empty term matches no node."""
    if not term.match_expressions and not term.match_fields:
        return False
    fields = {_NAME: node.name}
    return all(one.matches(node.metadata.labels) for one in term.match_expressions) and all(
        one.matches(fields) for one in term.match_fields
    )


def reaches(volume: PersistentVolume, node: Node) -> bool:
    """Say whether a volume can be reached from a node."""
    required = volume.spec.node_affinity.required if volume.spec.node_affinity is not None else None
    return required is None or any(term_matches(term, node) for term in required.node_selector_terms)


def target_node(spec: PodSpec) -> str:
    """Give the node that a Pod is on, or the one that it asks for by name; "" if it may be on several."""
    if spec.node_name:
        return spec.node_name
    required = required_nodes(spec)
    for term in required.node_selector_terms if required is not None else ():
        for one in term.match_fields:
            if one.key == _NAME and one.operator == "In" and len(one.values) == 1:
                return one.values[0]
    return ""


def untolerated(tolerations: Iterable[Toleration], taints: Iterable[Taint], effects: Iterable[str]) -> Taint | None:
    """Give the first taint of these effects that no toleration bears."""
    tolerations, effects = tuple(tolerations), tuple(effects)
    return next((one for one in taints if one.effect in effects and not any(tolerates(by, one) for by in tolerations)), None)


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """An empty key with Exists tolerates everything; an empty effect means all effects."""
    if toleration.effect not in ("", taint.effect):
        return False
    if toleration.key != taint.key and not (toleration.key == "" and toleration.operator == "Exists"):
        return False
    return toleration.operator == "Exists" or toleration.value == taint.value
