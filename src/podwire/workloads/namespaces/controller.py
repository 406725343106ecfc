"""Watches namespaces that were told to end, deletes what is in them, and removes the finalizer that holds them."""

from __future__ import annotations

import asyncio
from collections import Counter

from podwire.client.errors import ApiError
from podwire.daemon.context import Context
from podwire.objects.core import Namespace
from podwire.objects.meta import Object
from podwire.objects.resources import NAMESPACES, Resource
from podwire.workloads import discovery, work
from podwire.workloads.namespaces import desired
from podwire.workloads.times import stamp

AGAIN_S = 0.25


class Namespaces:
    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._namespaces = context.informer(NAMESPACES)
        self._work = work.reconciler(context, "namespaces", self._operate, longest_retry_s=5.0)
        self._namespaces.subscribe(self._changed)

    async def start(self) -> None:
        await work.start(self._context, self._work, "namespaces", [self._namespaces])

    def _changed(self, _old: Namespace | None, new: Namespace | None) -> None:
        if new is not None and new.metadata.deletion_timestamp is not None:
            self._work.mark(new.name)

    async def _operate(self, name: str) -> float | None:
        namespace = self._namespaces.table.get(name)
        if namespace is None or namespace.metadata.deletion_timestamp is None:
            return None
        resources = desired.to_empty(await discovery.kinds(self._client))
        counts = await asyncio.gather(*(self._empty(resource, name) for resource in resources))
        remaining = Counter({(resource.plural, resource.group): len(left) for resource, left in zip(resources, counts, strict=True)})
        held = Counter(finalizer for left in counts for one in left for finalizer in one.metadata.finalizers)
        waiting = desired.waits(remaining, held)
        try:
            tree = await self._client.get_tree(NAMESPACES, name)
            if waiting:
                wanted = desired.conditions(waiting, stamp(self._context.now()), tree.get("status", {}).get("conditions", ()))
                if wanted is not None:
                    await self._client.patch(NAMESPACES, name, "", {"status": {"conditions": wanted}}, subresource="status")
                return AGAIN_S
            await self._client.request("PUT", NAMESPACES.path("", name, "finalize"), desired.finalized(tree))
        except ApiError as error:
            if not error.not_found:
                raise
        return None

    async def _empty(self, resource: Resource[Object], namespace: str) -> list[Object]:
        """Delete all objects of a kind in a namespace. Returns those that were still there afterwards."""
        try:
            objects = await self._client.list(resource, namespace)
            for one in objects:
                if one.metadata.deletion_timestamp is None:
                    await self._delete(resource, one)
            return await self._client.list(resource, namespace) if objects else []
        except ApiError as error:
            if error.status in (404, 405):  # the kind went away, or cannot be listed
                return []
            raise

    async def _delete(self, resource: Resource[Object], one: Object) -> None:
        try:
            await self._client.delete(resource, one.name, one.namespace, uid=one.metadata.uid, propagation="Background")
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise
