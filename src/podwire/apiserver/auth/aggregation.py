"""ClusterRoles that collect the rules of others by their labels.

Pure: from the ClusterRoles that there are to the rules that the collecting ones must have. A role that collects may itself be collected
(view by edit, edit by admin), so it goes round until nothing changes.

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from podwire.objects.meta import LabelSelector

Tree = dict[str, Any]


def is_collecting(tree: Mapping[str, Any]) -> bool:
    return bool((tree.get("aggregationRule") or {}).get("clusterRoleSelectors"))


def changed(roles: Iterable[Tree]) -> dict[str, list[Tree]]:
    """Give the rules of each ClusterRole whose rules are not what they should be, by its name. The trees are left as they are."""
    trees = {tree["metadata"]["name"]: tree for tree in roles}
    rules: dict[str, list[Tree]] = {name: tree.get("rules") or [] for name, tree in trees.items()}
    labels = {name: tree["metadata"].get("labels") or {} for name, tree in trees.items()}
    collected = {name: _sources(name, tree, labels) for name, tree in trees.items() if is_collecting(tree)}
    for _ in range(len(collected) + 1):  # no chain is longer
        settled = True
        for name, sources in collected.items():
            wanted = _united(rules[source] for source in sources)
            if wanted != rules[name]:
                rules[name], settled = wanted, False
        if settled:
            break
    return {name: rules[name] for name in collected if rules[name] != (trees[name].get("rules") or [])}


def _sources(name: str, tree: Tree, labels: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The roles that a role selects, by name; itself left out."""
    found: dict[str, None] = {}
    for one in tree["aggregationRule"]["clusterRoleSelectors"]:
        selector = msgspec.convert(one, LabelSelector)
        found |= dict.fromkeys(sorted(other for other, held in labels.items() if other != name and selector.matches(held)))
    return list(found)


def _united(many: Iterable[list[Tree]]) -> list[Tree]:
    united: list[Tree] = []
    seen: set[str] = set()
    for rules in many:
        for rule in rules:
            key = repr(sorted(rule.items()))
            if key not in seen:
                seen.add(key)
                united.append(rule)
    return united
