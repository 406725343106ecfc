"""ResourceQuotas: what a namespace may hold, counted with each write.

What is used stands in a quota's own status and is written in the transaction of the object that uses it: two writers never use the same
room. What goes gives its room back a moment later, when the quota is counted anew.

Source: https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any

from podwire.apiserver import keys, quantity, status
from podwire.apiserver.admission import usage
from podwire.apiserver.answers import decode, encode
from podwire.apiserver.kind import Kind
from podwire.apiserver.registry import Registry
from podwire.store import Change, Store, Transaction, Unwritable

Tree = dict[str, Any]
_LOG = logging.getLogger("podwire.apiserver")
_PAUSE_S = 0.05  # so that many deletions are one count
_KINDS = ("configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services")


class Quotas:
    """The quotas of all namespaces. ``put`` takes an object into a transaction."""

    def __init__(self, store: Store, registry: Registry, put: Callable[[Transaction, Kind, Tree], object]) -> None:
        self._store = store
        self._registry = registry
        self._put = put
        found = registry.find("", "v1", "resourcequotas")
        assert found is not None
        self._kind: Kind = found
        self._names: dict[str, set[str]] = {}
        self._due: set[str] = set()
        self._wake = asyncio.Event()
        self._observed: set[str] = set()
        for record in store.range(keys.prefix(self._kind)):
            self._take(record.key)
        store.observe(self._kind.resource, self._quota_changed)

    def _take(self, key: str) -> None:
        namespace, name = keys.names(key)
        self._names.setdefault(namespace, set()).add(name)
        self._recount_soon(namespace)
        record = self._store.get(key)
        counted = decode(record.value).get("spec", {}).get("hard", {}) if record is not None else {}
        for resource in (*_KINDS, *(name.removeprefix("count/") for name in counted if name.startswith("count/"))):
            if resource not in self._observed:
                self._observed.add(resource)
                self._store.observe(resource, self._object_changed)

    def _quota_changed(self, change: Change) -> None:
        namespace, name = keys.names(change.key)
        if change.record is None:
            self._names.get(namespace, set()).discard(name)
            if not self._names.get(namespace):
                self._names.pop(namespace, None)
            return
        before = decode(change.previous.value).get("spec") if change.previous is not None else None
        tree = decode(change.record.value)
        if tree.get("spec") != before or "status" not in tree:
            self._take(change.key)

    def _object_changed(self, change: Change) -> None:
        namespace = keys.names(change.key)[0]
        if namespace in self._names and (change.record is None or change.key.startswith(("pods/", "services/"))):
            self._recount_soon(namespace)

    def _recount_soon(self, namespace: str) -> None:
        self._due.add(namespace)
        self._wake.set()

    # A write -----------------------------------------------------------------------------------------------------------------

    def charge(self, kind: Kind, tree: Tree, old: Tree | None) -> list[Tree]:
        """Give the quotas as they are to be stored with an object. Raises Failure (403) when one has no room for it."""
        namespace = tree["metadata"].get("namespace", "")
        names = self._names.get(namespace)
        if not names:
            return []
        changed = []
        for name in sorted(names):
            record = self._store.latest(keys.key(self._kind, namespace, name))
            if record is not None:
                quota = decode(record.value)
                if self._charge(quota, kind, tree, old):
                    changed.append(quota)
        return changed

    def _charge(self, quota: Tree, kind: Kind, tree: Tree, old: Tree | None) -> bool:
        hard = quota.get("spec", {}).get("hard", {})
        resource, name = kind.resource, quota["metadata"]["name"]
        if not usage.counts(quota, resource, tree):
            return False
        if resource == "pods" and old is None and (left_open := usage.missing(hard, tree)):
            raise status.forbidden(kind, tree["metadata"].get("name", ""), f"failed quota: {name}: must specify {left_open}")
        before = usage.of(resource, old) if old is not None and usage.counts(quota, resource, old) else {}
        asked = {key: value - before.get(key, Decimal(0)) for key, value in usage.of(resource, tree).items() if key in hard}
        asked = {key: value for key, value in asked.items() if value > 0}
        if not asked:
            return False
        state = quota.get("status") or {}
        used = state.get("used", {})
        if set(hard) - set(used) or state.get("hard") != hard:
            self._count(quota)
            used = quota["status"]["used"]
        over = {key: value for key, value in asked.items() if quantity.value(used[key]) + value > quantity.value(hard[key])}
        if over:
            message = (
                f"exceeded quota: {name}, requested: {_pairs(usage.shown(over))}, "
                f"used: {_pairs({key: used[key] for key in over})}, limited: {_pairs({key: hard[key] for key in over})}"
            )
            raise status.forbidden(kind, tree["metadata"].get("name", ""), message)
        for key, value in asked.items():
            used[key] = quantity.text(key, quantity.value(used[key]) + value)
        return True

    # Counting ----------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Count quotas anew when something has gone, for ever."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(_PAUSE_S)
            self._wake.clear()
            due, self._due = self._due, set()
            for namespace in sorted(due):
                try:
                    await self._recount(namespace)
                except Unwritable as error:
                    _LOG.error("the quotas of %s could not be counted: %s", namespace, error)
                    self._recount_soon(namespace)
                    break

    async def _recount(self, namespace: str) -> None:
        transaction = self._store.transaction()
        for name in sorted(self._names.get(namespace, ())):
            record = self._store.latest(keys.key(self._kind, namespace, name))
            if record is None:
                continue
            quota = decode(record.value)
            self._count(quota)
            if encode(quota) != record.value:
                self._put(transaction, self._kind, quota)
        if transaction.changes:
            await self._store.commit(transaction)

    def _count(self, quota: Tree) -> None:
        """Write into a quota what is used, by looking at what there is."""
        hard = quota.get("spec", {}).get("hard", {})
        total = dict.fromkeys(hard, Decimal(0))
        namespace = quota["metadata"]["namespace"]
        for kind in self._counted(hard):
            for record in self._store.latest_range(keys.prefix(kind, namespace)):
                tree = decode(record.value)
                if usage.counts(quota, kind.resource, tree):
                    for key, value in usage.of(kind.resource, tree).items():
                        if key in total:
                            total[key] += value
        quota["status"] = {"hard": hard, "used": usage.shown(total)}

    def _counted(self, hard: Iterable[str]) -> list[Kind]:
        """Give the kinds whose objects a quota counts."""
        wanted: set[str] = set()
        for name in hard:
            if name.startswith("count/"):
                wanted.add(name.removeprefix("count/"))
            elif name in _KINDS:
                wanted.add(name)
            elif name.startswith("services."):
                wanted.add("services")
            elif name == "requests.storage" or ".storageclass.storage.k8s.io/" in name:
                wanted.add("persistentvolumeclaims")
            else:
                wanted.add("pods")
        found = {kind.resource: kind.stored for kind in self._registry if kind.resource in wanted and kind.namespaced}
        return [found[name] for name in sorted(found)]


def _pairs(amounts: dict[str, str]) -> str:
    return ",".join(f"{key}={amounts[key]}" for key in sorted(amounts))
