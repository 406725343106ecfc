"""What the cluster's own controllers may do with kinds that users define: collect the garbage of them, empty a Namespace of them.

A role names those kinds, and only those; it follows the definitions.

Source: the rights of generic-garbage-collector and namespace-controller in
https://kubernetes.io/docs/reference/access-authn-authz/rbac/#controller-roles
"""

from __future__ import annotations

from collections.abc import Iterable

from podwire.apiserver import keys
from podwire.apiserver.answers import Tree, decode
from podwire.apiserver.api import Api, fresh_uid, put
from podwire.apiserver.kind import Kind

_NAME = "system:podwire:defined-kinds"
_GROUP = "rbac.authorization.k8s.io"
_VERBS = ["delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_SUBJECT = {"kind": "Group", "apiGroup": _GROUP, "name": "system:podwire:controllers"}


async def follow(api: Api, kinds: Iterable[Kind]) -> None:
    """Bring the role up to date with the kinds that are served. Raises Unwritable."""
    by_group: dict[str, set[str]] = {}
    for kind in kinds:
        by_group.setdefault(kind.group, set()).add(kind.plural)
    rules = [{"apiGroups": [group], "resources": sorted(found), "verbs": _VERBS} for group, found in sorted(by_group.items())]
    reference = {"apiGroup": _GROUP, "kind": "ClusterRole", "name": _NAME}
    transaction = api.store.transaction()
    for plural, said in (("clusterroles", {"rules": rules}), ("clusterrolebindings", {"roleRef": reference, "subjects": [_SUBJECT]})):
        row = api.registry.find(_GROUP, "v1", plural)
        assert row is not None
        record = api.store.latest(keys.key(row, "", _NAME))
        old = decode(record.value) if record is not None else None
        if old is None or any(old.get(key) != value for key, value in said.items()):
            put(transaction, row, _made(api, row, said, old))
    if transaction.changes:
        await api.store.commit(transaction)


def _made(api: Api, row: Kind, said: Tree, old: Tree | None) -> Tree:
    metadata = {"name": _NAME, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}
    tree: Tree = {"apiVersion": row.api_version, "kind": row.kind, "metadata": metadata, **said}
    if old is not None:
        return {**old, **said}
    metadata |= {"uid": fresh_uid(), "creationTimestamp": api.timestamp()}
    row.for_create(tree)
    return tree
