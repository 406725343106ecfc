"""ClusterRoles that collect others follow them: a label, a rule, a role that changes is in the collecting ones a moment later.

Here: when it is done, and the write. Not here: what is collected (``auth/aggregation.py``).

Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles
"""

from __future__ import annotations

import asyncio
import logging

from podwire.apiserver import keys
from podwire.apiserver.answers import decode
from podwire.apiserver.api import Api, put
from podwire.apiserver.auth import aggregation
from podwire.apiserver.auth.bootstrap_roles import GROUP
from podwire.store import Change, Unwritable

AGAIN_S = 5.0
_LOG = logging.getLogger("podwire.apiserver")


class Aggregation:
    """All ClusterRoles, looked at again after one of them has changed."""

    def __init__(self, api: Api) -> None:
        kind = api.registry.find(GROUP, "v1", "clusterroles")
        assert kind is not None
        self._api = api
        self._kind = kind
        self.due = asyncio.Event()
        self.due.set()
        api.store.observe(kind.resource, self._changed)

    def _changed(self, _change: Change) -> None:
        self.due.set()

    async def collect(self) -> int:
        """Write what has to change; give how many that were. Raises Unwritable."""
        self.due.clear()
        store = self._api.store
        trees = {tree["metadata"]["name"]: tree for tree in (decode(one.value) for one in store.latest_range(keys.prefix(self._kind)))}
        transaction = store.transaction()
        for name, rules in aggregation.changed(trees.values()).items():
            tree = trees[name]
            tree["rules"] = rules
            put(transaction, self._kind, tree)
        if transaction.changes:
            await store.commit(transaction)
        return len(transaction.changes)


async def keep(api: Api) -> None:
    """Let ClusterRoles collect, for ever."""
    roles = Aggregation(api)
    while True:
        await roles.due.wait()
        try:
            await roles.collect()
        except Unwritable as error:
            _LOG.error("ClusterRoles could not be collected: %s", error)
            await asyncio.sleep(AGAIN_S)
            roles.due.set()
