"""From the roles and bindings that there are to those that have to be written at a start.

Pure. What is missing is made; what is there gets what it lacks and keeps what was added to it, unless its annotation
``rbac.authorization.kubernetes.io/autoupdate`` says ``false``. ClusterRoles that collect others are brought up to date with them.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#auto-reconciliation
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from podwire.apiserver.auth import aggregation, bootstrap_roles
from podwire.apiserver.auth.bootstrap_roles import AUTOUPDATE
from podwire.apiserver.auth.rules import Grants, question, single

Tree = dict[str, Any]


def wanted(there: Iterable[Tree]) -> list[Tree]:
    """Give what has to be written. ``there`` are all roles and bindings; they are left as they are."""
    found = {_key(tree): tree for tree in there}
    written: dict[tuple[str, str, str], Tree] = {}
    makers: tuple[Callable[[], list[Tree]], ...] = (
        bootstrap_roles.cluster_roles,
        bootstrap_roles.namespaced,
        bootstrap_roles.cluster_role_bindings,
    )
    for tree in (tree for make in makers for tree in make()):
        old = found.get(_key(tree))
        new = tree if old is None else reconciled(tree, old)
        if new != old:
            written[_key(tree)] = new
    roles = {key: tree for key, tree in {**found, **written}.items() if key[0] == "ClusterRole"}
    for name, rules in aggregation.changed(roles.values()).items():
        key = ("ClusterRole", "", name)
        written[key] = {**roles[key], "rules": rules}
    return list(written.values())


def _key(tree: Tree) -> tuple[str, str, str]:
    return tree["kind"], tree["metadata"].get("namespace", ""), tree["metadata"]["name"]


def reconciled(tree: Tree, old: Tree) -> Tree:
    """Give what is there with what it lacks. A binding to another role is made anew: it has no uid."""
    annotations = old["metadata"].get("annotations") or {}
    if annotations.get(AUTOUPDATE) == "false":
        return old
    new = copy.deepcopy(old)
    if tree.get("roleRef") != old.get("roleRef"):
        return tree
    for field in ("annotations", "labels"):
        new["metadata"][field] = {**tree["metadata"][field], **(old["metadata"].get(field) or {})}
    if tree.get("aggregationRule"):
        has = (old.get("aggregationRule") or {}).get("clusterRoleSelectors") or []
        lacks = [one for one in tree["aggregationRule"]["clusterRoleSelectors"] if one not in has]
        new["aggregationRule"] = {"clusterRoleSelectors": [*has, *lacks]}
    elif "rules" in tree:
        has = old.get("rules") or []
        held = Grants(has)
        new["rules"] = [*has, *(rule for rule in tree["rules"] if not all(held.allows(question(one)) for one in single([rule])))]
    if "subjects" in tree:
        has = old.get("subjects") or []
        new["subjects"] = [*has, *(one for one in tree["subjects"] if one not in has)]
    return new
