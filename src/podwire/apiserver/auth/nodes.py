"""What a node may ask for: itself, its lease, its Pods and what they refer to; all else by the rules that all nodes have.

Pure. A node is a user ``system:node:NAME`` in the group ``system:nodes``. What the path does not tell (whose Pod is deleted, which labels
change) is for ``restriction.py``, which sees the object.

Source: https://kubernetes.io/docs/reference/access-authn-authz/node/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from podwire.apiserver.auth.attributes import Attributes, Decision
from podwire.apiserver.auth.graph import Graph
from podwire.apiserver.auth.rules import Grants

NODES, NODE_PREFIX = "system:nodes", "system:node:"
LEASES = "kube-node-lease"
_OWN = ("get", "create", "update", "patch", "delete")
_READ = ("get", "list", "watch")
_YES, _NO = Decision(True), Decision(False)


def node_name(user: str, groups: Iterable[str]) -> str | None:
    """Name the node that a user is: None when it is no node, ``""`` when it says that it is one but not which."""
    if NODES not in groups:
        return None
    return user.removeprefix(NODE_PREFIX) if user.startswith(NODE_PREFIX) else ""


def decide(node: str, asked: Attributes, graph: Graph, common: Grants) -> Decision:
    """Say whether a node may do this. ``common`` are the rules of all nodes, for what is not divided among them."""
    plural, _, part = asked.resource.partition("/")
    judge = _JUDGES.get((asked.group, plural)) if not asked.path else None
    if judge is not None:
        return judge(node, asked, part, graph)
    return Decision(common.allows(asked))


def _related(node: str, asked: Attributes, graph: Graph) -> Decision:
    if not asked.name:
        return Decision(False, "No Object name found")
    plural = asked.resource.partition("/")[0]
    namespace = "" if plural == "persistentvolumes" else asked.namespace
    if graph.related(node, (plural, namespace, asked.name)):
        return _YES
    return Decision(False, f"no relationship found between node '{node}' and this object")


def _read_one(node: str, asked: Attributes, part: str, graph: Graph) -> Decision:
    if asked.verb not in _READ:
        return Decision(False, "can only read resources of this type")
    if part:
        return Decision(False, "cannot read subresource")
    if not asked.namespace:
        return Decision(False, "can only read namespaced object of this type")
    return _related(node, asked, graph)


def _get(node: str, asked: Attributes, part: str, graph: Graph) -> Decision:
    if asked.verb != "get":
        return Decision(False, "can only get individual resources of this type")
    if part:
        return Decision(False, "cannot get subresource")
    return _related(node, asked, graph)


def _claim(node: str, asked: Attributes, part: str, graph: Graph) -> Decision:
    if part != "status":
        return _get(node, asked, part, graph)
    if asked.verb not in ("update", "patch"):
        return Decision(False, "can only get/update/patch this type")
    return _related(node, asked, graph)


def _account(node: str, asked: Attributes, part: str, graph: Graph) -> Decision:
    # Unlike a kubelet, which learns it from the Pod, a node of ours reads whether an account has its token mounted.
    if not part and asked.verb in _READ and asked.namespace:
        return _related(node, asked, graph)
    if asked.verb != "create" or not asked.name:
        return Decision(False, "can only create tokens for individual service accounts")
    if part != "token":
        return Decision(False, "can only create token subresource of serviceaccount")
    return _related(node, asked, graph)


def _lease(node: str, asked: Attributes, _part: str, _graph: Graph) -> Decision:
    if asked.verb not in _OWN:
        return Decision(False, "can only get, create, update, patch, or delete a node lease")
    if asked.namespace != LEASES:
        return Decision(False, f'can only access leases in the "{LEASES}" system namespace')
    if asked.verb != "create" and asked.name != node:
        return Decision(False, "can only access node lease with the same name as the requesting node")
    return _YES


def _csi_node(node: str, asked: Attributes, part: str, _graph: Graph) -> Decision:
    if asked.verb not in _OWN:
        return Decision(False, "can only get, create, update, patch, or delete a CSINode")
    if part:
        return Decision(False, "cannot authorize CSINode subresources")
    if asked.verb != "create" and asked.name != node:
        return Decision(False, "can only access CSINode with the same name as the requesting node")
    return _YES


def _node(node: str, asked: Attributes, part: str, _graph: Graph) -> Decision:
    if part in ("", "status") and asked.verb in ("update", "patch"):
        return _YES
    if part:
        return _NO
    if asked.verb == "create":
        return _YES
    if asked.verb not in _READ:
        return _NO
    if asked.name == node:
        return _YES
    whom = f"'{asked.name}'" if asked.name else "all nodes"
    return Decision(False, f"node '{node}' cannot read {whom}, only its own Node object")


def _pod(node: str, asked: Attributes, part: str, graph: Graph) -> Decision:
    match part, asked.verb:
        case "", "get":
            return _related(node, asked, graph)
        case "", "list" | "watch":
            if ("spec.nodeName", node) in asked.fields:
                return _YES
            if asked.name:
                return _related(node, asked, graph)
            return Decision(False, "can only list/watch pods with spec.nodeName field selector")
        case ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create"):
            return _YES
    return _NO


_JUDGES: dict[tuple[str, str], Callable[[str, Attributes, str, Graph], Decision]] = {
    ("", "secrets"): _read_one,
    ("", "configmaps"): _read_one,
    ("", "persistentvolumeclaims"): _claim,
    ("", "persistentvolumes"): _get,
    ("", "serviceaccounts"): _account,
    ("", "nodes"): _node,
    ("", "pods"): _pod,
    ("coordination.k8s.io", "leases"): _lease,
    ("storage.k8s.io", "csinodes"): _csi_node,
}
