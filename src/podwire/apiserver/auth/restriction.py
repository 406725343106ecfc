"""What a node may write, judged by the object: itself without new rights, its Pods' status, its own lease, tokens of its Pods.

The path of a request does not tell whose Pod is deleted or which labels change; so ``nodes.py`` lets a node through and this refuses what
is not its own. Words are upstream's.

Source: https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import orjson

from podwire.apiserver import status
from podwire.apiserver.auth import nodes
from podwire.apiserver.auth.attributes import Attributes
from podwire.apiserver.auth.authorizer import Authorizer
from podwire.apiserver.auth.graph import MIRROR, things_of
from podwire.apiserver.authentication import User
from podwire.store import Store

Tree = Mapping[str, Any]
_OWN_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
    }
)
_OWN_PREFIXES = ("kubelet.kubernetes.io", "node.kubernetes.io")
_RESTRICTED = "node-restriction.kubernetes.io"
_FOR_AUDIENCE = "request-serviceaccounts-token-audience"  # a verb of its own: the audience is the resource, the account the name
_OF_SYSTEM = ("kubernetes.io", "k8s.io")


def written(node: str, kind: str, tree: Tree, old: Tree | None, part: str, store: Store) -> str:
    """Say why a node may not store an object; ``""`` when it may. ``kind`` is ``plural`` or ``plural.group``, ``part`` the subresource."""
    judge = _JUDGES.get(kind)
    return judge(node, tree, old, part, store) if judge is not None else ""


def deleted(node: str, kind: str, tree: Tree, part: str) -> str:
    """Say why a node may not delete or evict an object; ``""`` when it may."""
    if kind == "pods" and (tree.get("spec") or {}).get("nodeName") != node:
        if part == "eviction":
            return f"node {node} can only evict pods with spec.nodeName set to itself"
        return f'node "{node}" can only delete pods with spec.nodeName set to itself'
    return ""


def _pod(node: str, tree: Tree, old: Tree | None, part: str, store: Store) -> str:
    if old is None:
        return _mirror_pod(node, tree, store)
    if part != "status":
        return f'unexpected operation "UPDATE", node "{node}" can only create and delete mirror pods'
    if (old.get("spec") or {}).get("nodeName") != node:
        return f'node "{node}" can only update pod status for pods with spec.nodeName set to itself'  # noqa: S608
    if (old["metadata"].get("labels") or {}) != (tree["metadata"].get("labels") or {}):
        return f'node "{node}" cannot update labels through pod status'
    return ""


def _mirror_pod(node: str, tree: Tree, store: Store) -> str:
    who, metadata, spec = f'node "{node}"', tree["metadata"], tree.get("spec") or {}
    if MIRROR not in (metadata.get("annotations") or {}):
        return f'pod does not have "{MIRROR}" annotation, {who} can only create mirror pods'
    if spec.get("nodeName") != node:
        return f"{who} can only create pods with spec.nodeName set to itself"
    owners = metadata.get("ownerReferences") or []
    if len(owners) > 1:
        return f"{who} can only create pods with a single owner reference set to itself"
    if not owners or (owners[0].get("apiVersion"), owners[0].get("kind"), owners[0].get("name")) != ("v1", "Node", node):
        return f"{who} can only create pods with an owner reference set to itself"
    if not owners[0].get("controller"):
        return f"{who} can only create pods with a controller owner reference set to itself"
    if owners[0].get("blockOwnerDeletion"):
        return f"{who} must not set blockOwnerDeletion on an owner reference"
    record = store.get(f"nodes/{node}")
    uid = orjson.loads(record.value)["metadata"]["uid"] if record is not None else ""
    if owners[0].get("uid") != uid:
        return f"node {node} UID mismatch: expected {owners[0].get('uid')} got {uid}"
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        return f"{who} can not create pods that reference a service account"
    return _without_references(who, metadata, spec)


def _without_references(who: str, metadata: Tree, spec: Tree) -> str:
    kinds = {plural for plural, _, _ in things_of("", {"metadata": {"name": metadata.get("name", "")}, "spec": spec})}
    named = next((plural for plural in ("secrets", "configmaps", "persistentvolumeclaims") if plural in kinds), "")
    return f"{who} can not create pods that reference {named}" if named else ""


def _node(node: str, tree: Tree, old: Tree | None, _part: str, _store: Store) -> str:
    name = tree["metadata"].get("name", "")
    if name != node:
        return f'node "{node}" is not allowed to modify node "{name}"'
    new, had = tree["metadata"].get("labels") or {}, ((old or {}).get("metadata") or {}).get("labels") or {}
    wrong = sorted(filter(_foreign_label, _different(new, had)))
    if old is None:
        return f'node "{node}" is not allowed to set the following labels: {", ".join(wrong)}' if wrong else ""
    if ((tree.get("spec") or {}).get("taints") or []) != ((old.get("spec") or {}).get("taints") or []):
        return f'node "{node}" is not allowed to modify taints'
    return f"is not allowed to modify labels: {', '.join(wrong)}" if wrong else ""


def _different(one: Tree, other: Tree) -> Iterable[str]:
    return (key for key in {**one, **other} if one.get(key) != other.get(key))


def _foreign_label(key: str) -> bool:
    """Say whether a label is the system's and not one that nodes report of themselves."""
    domain, slash, _ = key.partition("/")
    if not slash:
        return False
    if _within(domain, _RESTRICTED):
        return True
    return (
        any(_within(domain, one) for one in _OF_SYSTEM)
        and key not in _OWN_LABELS
        and not any(_within(domain, one) for one in _OWN_PREFIXES)
    )


def _within(domain: str, of: str) -> bool:
    return domain == of or domain.endswith(f".{of}")


def _claim(node: str, tree: Tree, old: Tree | None, part: str, _store: Store) -> str:
    if part != "status" or old is None:
        return "may only update PVC status"
    same = all(tree.get(key) == old.get(key) for key in ("spec",)) and _unmanaged(tree) == _unmanaged(old)
    changed = {key for key in {**(tree.get("status") or {}), **(old.get("status") or {})} if _state(tree, key) != _state(old, key)}
    if same and changed <= {"capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"}:
        return ""
    return f'node "{node}" is not allowed to update fields other than status.capacity and status.conditions: {", ".join(sorted(changed))}'


def _unmanaged(tree: Tree) -> Tree:
    return {key: value for key, value in tree["metadata"].items() if key not in ("resourceVersion", "managedFields")}


def _state(tree: Tree, key: str) -> Any:
    return (tree.get("status") or {}).get(key)


def _own_name(what: str) -> Callable[[str, Tree, Tree | None, str, Store], str]:
    def judge(node: str, tree: Tree, _old: Tree | None, _part: str, _store: Store) -> str:
        same = tree["metadata"].get("name") == node
        return "" if same else f"can only access {what} with the same name as the requesting node"

    return judge


_JUDGES: dict[str, Callable[[str, Tree, Tree | None, str, Store], str]] = {
    "pods": _pod,
    "nodes": _node,
    "persistentvolumeclaims": _claim,
    "leases.coordination.k8s.io": _own_name("node lease"),
    "csinodes.storage.k8s.io": _own_name("CSINode"),
}


def other_uid(uid: str) -> str:
    return (
        f"the UID in the bound object reference ({uid}) does not match the UID in record. "
        "The object might have been deleted and then recreated"
    )


def check_token(authorizer: Authorizer, user: User, namespace: str, account: str, spec: Tree, store: Store) -> None:
    """Refuse a node a token that is not bound to one of its Pods, or for whom that Pod wants none. Raises Failure (403, 404).

    ``spec`` is the request's, as it was sent.
    """
    node = nodes.node_name(user.name, user.groups)
    if node is None:
        return
    reference = spec.get("boundObjectRef")
    why = _token(authorizer, node, namespace, reference, store)
    if not why and reference is not None:
        why = _audience(authorizer, user, namespace, account, reference["name"], spec.get("audiences") or [], store)
    if why:
        message = f'serviceaccounts "{account}" is forbidden: {why}'
        raise status.forbidden_text(message, {"name": account, "kind": "serviceaccounts"})


def _token(authorizer: Authorizer, node: str, namespace: str, reference: Tree | None, store: Store) -> str:
    if reference is None or reference.get("apiVersion") != "v1" or reference.get("kind") != "Pod" or not reference.get("name"):
        return "node requested token not bound to a pod"
    if not reference.get("uid"):
        return "node requested token with a pod binding without a uid"
    record = store.get(f"pods/{namespace}/{reference['name']}")
    if record is None:
        details = {"name": reference["name"], "kind": "pods"}
        raise status.Failure(404, "NotFound", f'pods "{reference["name"]}" not found', details)
    if orjson.loads(record.value)["metadata"]["uid"] != reference["uid"]:
        return other_uid(reference["uid"])
    if authorizer.node_of(namespace, reference["name"]) != node:
        return "node requested token bound to a pod scheduled on a different node"
    return ""


def _audience(authorizer: Authorizer, user: User, namespace: str, account: str, pod: str, audiences: Sequence[str], store: Store) -> str:
    """Say why a node may not have a token for these audiences: neither a volume of the Pod names them, nor a role lets the node."""
    if len(audiences) > 1:
        return "node may only request 0 or 1 audiences"
    audience = audiences[0] if audiences else ""
    record = store.get(f"pods/{namespace}/{pod}")
    spec = orjson.loads(record.value)["spec"] if record is not None else {}
    if audience in {source["serviceAccountToken"].get("audience", "") for source in _projected(spec) if source.get("serviceAccountToken")}:
        return ""
    if authorizer.policy.allows(user.name, user.groups, Attributes(_FOR_AUDIENCE, "", audience, namespace, account)):
        return ""
    return f'audience "{audience}" not found in pod spec volume, {user.name} is not authorized to request tokens for this audience'


def _projected(spec: Tree) -> Iterable[Tree]:
    return (source for volume in spec.get("volumes") or () for source in (volume.get("projected") or {}).get("sources") or ())
