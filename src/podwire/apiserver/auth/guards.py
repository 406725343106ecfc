"""Writes that depend on who writes: nodes write their own, nobody grants what he does not have.

Called by every write with the object as it is to be stored, before it is checked. Here: whom which guard is for, and the escalation of
rights. Not here: what nodes may (``restriction.py``), rules (``rules.py``).

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from podwire.apiserver import status
from podwire.apiserver.answers import Tree
from podwire.apiserver.auth import nodes, restriction, signers
from podwire.apiserver.auth.attributes import Attributes
from podwire.apiserver.auth.bootstrap_roles import GROUP, MASTERS
from podwire.apiserver.auth.rules import EVERYTHING, MOST_CONFIRMED, combinations
from podwire.apiserver.authentication import User
from podwire.apiserver.kind import Kind
from podwire.apiserver.kinds.certificates import SIGNING_REQUEST

if TYPE_CHECKING:
    from podwire.apiserver.api import Api

_ROLES = ("roles", "clusterroles")
_BINDINGS = ("rolebindings", "clusterrolebindings")


def check_write(api: Api, user: User, kind: Kind, tree: Tree, old: Tree | None, part: str) -> None:
    """Refuse an object that its writer may not store so. ``part`` is the subresource. Raises Failure (403, 404)."""
    node = nodes.node_name(user.name, user.groups)
    if node is not None:
        _refuse_node(user, kind, tree, node, restriction.written(node, kind.resource, tree, old, part, api.store))
    if kind is SIGNING_REQUEST:
        signers.check(api.authorizer, user, kind, tree, old, part)
    if kind.group == GROUP and MASTERS not in user.groups:
        if kind.plural in _ROLES:
            _check_role(api, user, kind, tree, old)
        elif kind.plural in _BINDINGS:
            _check_binding(api, user, kind, tree, old)


def check_delete(user: User, kind: Kind, tree: Tree, part: str = "") -> None:
    """Refuse a deletion or an eviction of what is not a node's. Raises Failure (403)."""
    node = nodes.node_name(user.name, user.groups)
    if node is not None:
        _refuse_node(user, kind, tree, node, restriction.deleted(node, kind.resource, tree, part))


def _refuse_node(user: User, kind: Kind, tree: Tree, node: str, why: str) -> None:
    why = why if node else f'could not determine node from user "{user.name}"'
    if why:
        raise status.forbidden(kind, tree["metadata"].get("name", ""), why)


def _check_role(api: Api, user: User, kind: Kind, tree: Tree, old: Tree | None) -> None:
    """Rules may hold what their writer has; rules that are collected may come to hold anything."""
    rules: list[Any] = []
    had = old or {}
    if (tree.get("rules") or []) != (had.get("rules") or []):
        rules += tree.get("rules") or []
    if tree.get("aggregationRule") != had.get("aggregationRule"):
        rules += EVERYTHING
    metadata = tree["metadata"]
    namespace = metadata.get("namespace", "")
    if rules and not api.authorizer.allows(user, Attributes("escalate", GROUP, kind.plural, namespace, metadata.get("name", ""))):
        _confirm(api, user, kind, tree, rules)


def _check_binding(api: Api, user: User, kind: Kind, tree: Tree, old: Tree | None) -> None:
    if old is not None and (tree.get("roleRef"), tree.get("subjects")) == (old.get("roleRef"), old.get("subjects")):
        return
    reference, namespace = tree.get("roleRef") or {}, tree["metadata"].get("namespace", "")
    plural = "roles" if reference.get("kind") == "Role" else "clusterroles"
    name = reference.get("name", "")
    if api.authorizer.allows(user, Attributes("bind", GROUP, plural, namespace, name)):
        return
    rules = api.authorizer.policy.role((namespace if plural == "roles" else "", name))
    if rules is None:
        row = api.registry.find(GROUP, kind.version, plural)
        assert row is not None
        raise status.not_found(row, name)
    _confirm(api, user, kind, tree, rules)


def _confirm(api: Api, user: User, kind: Kind, tree: Tree, rules: Sequence[Any]) -> None:
    metadata = tree["metadata"]
    if combinations(rules) > MOST_CONFIRMED:
        why = f"rules of more than {MOST_CONFIRMED} combinations of verbs, groups and resources are for who may escalate"
        raise status.forbidden(kind, metadata.get("name", ""), why)
    escalation = api.authorizer.policy.escalation(user.name, user.groups, metadata.get("namespace", ""), rules)
    if escalation:
        raise status.forbidden(kind, metadata.get("name", ""), escalation)
