"""Watches the metadata of everything that can be deleted, and carries out the verdicts.

Kinds come and go, so the API is asked for them again when a definition of one changes, and from time to time. An owner that no table
shows is asked for by name before anything is deleted: a table may lag behind. A kind that cannot be listed (its conversion webhook does
not answer) is waited for a while, and then collecting goes on without it, as kube-controller-manager does.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import cast

from podwire.client.errors import ApiError, Unreachable
from podwire.client.informer import Informer
from podwire.daemon.context import Context
from podwire.objects.meta import Object, ObjectMeta, OwnerReference
from podwire.objects.resources import ENDPOINT_SLICES, ENDPOINTS, NAMESPACES, NODES, PODS, SERVICE_ACCOUNTS, SERVICES, Resource
from podwire.workloads import discovery, work
from podwire.workloads.garbage import desired
from podwire.workloads.garbage.desired import Owner
from podwire.workloads.kinds import TREE_DEPLOYMENTS, TREE_REPLICA_SETS

DISCOVER_S = 30.0
SYNC_S = 30.0  # how long kinds are waited for that have not been listed yet (initialSyncTimeout of kube-controller-manager)
ABSENT_S = 30.0  # how long an owner's absence is remembered
_LEFT_OUT = {"events", "leases"}  # many writes, no owners
_FOLLOWED = {
    (resource.api_version, resource.kind): cast("Resource[Object]", resource)
    for resource in (PODS, NODES, NAMESPACES, SERVICES, ENDPOINTS, ENDPOINT_SLICES, SERVICE_ACCOUNTS, TREE_DEPLOYMENTS, TREE_REPLICA_SETS)
}
_NEEDED = {"list", "watch", "delete"}


class Garbage:
    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._resources: dict[tuple[str, str], Resource[Object]] = {}  # by apiVersion and kind
        self._informers: dict[tuple[str, str], Informer[Object]] = {}
        self._objects: dict[str, tuple[Resource[Object], ObjectMeta]] = {}  # by uid
        self._dependents: dict[str, set[str]] = {}  # uids by owner's uid
        self._absent: dict[str, float] = {}
        self._kinds_changed = asyncio.Event()
        self._work = work.reconciler(context, "garbage", self._operate, concurrency=16)

    async def start(self) -> None:
        self._context.start(self._discover(), "garbage discovery")

    async def _discover(self) -> None:
        started = False
        while True:
            try:
                found = await discovery.kinds(self._client)
            except (ApiError, Unreachable) as error:
                self._context.log.getChild("garbage").debug("kinds: %s", error)
                await asyncio.sleep(1.0)
                continue
            for resource, verbs in found:
                key = (resource.api_version, resource.kind)
                if verbs >= _NEEDED and resource.plural not in _LEFT_OUT and key not in self._resources:
                    self._follow(key, resource)
            served = {(resource.api_version, resource.kind) for resource, _ in found}
            missing = await self._unlisted([informer for key, informer in self._informers.items() if key in served])
            if not started:
                if missing:
                    self._context.log.getChild("garbage").warning("not all kinds could be listed, going on without: %s", ", ".join(missing))
                started = True
                self._context.start(self._work.run(), "garbage")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DISCOVER_S):
                    await self._kinds_changed.wait()
            self._kinds_changed.clear()

    async def _unlisted(self, informers: list[Informer[Object]]) -> list[str]:
        """Wait until all have been listed once, but not longer than SYNC_S. Returns the names of those that have not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SYNC_S):
                for informer in informers:
                    await informer.synced.wait()
        return [informer.resource.plural for informer in informers if not informer.synced.is_set()]

    def _follow(self, key: tuple[str, str], resource: Resource[Object]) -> None:
        # Kinds that other controllers here follow whole are followed once.
        resource = self._resources[key] = _FOLLOWED.get(key, resource)
        informer = self._informers[key] = self._context.informer(resource, needed=False)

        def changed(old: Object | None, new: Object | None) -> None:
            if resource.kind == "CustomResourceDefinition":
                self._kinds_changed.set()
            self._changed(resource, old.metadata if old else None, new.metadata if new else None)

        informer.subscribe(changed)

    def _changed(self, resource: Resource[Object], old: ObjectMeta | None, new: ObjectMeta | None) -> None:
        if old is not None and (new is None or new.uid != old.uid):
            self._gone(old)
        if new is None:
            return
        former = self._objects.get(new.uid)
        if former is not None:
            for owner in former[1].owner_references:
                self._dependents.get(owner.uid, set()).discard(new.uid)
        self._objects[new.uid] = (resource, new)
        for owner in new.owner_references:
            self._dependents.setdefault(owner.uid, set()).add(new.uid)
        if new.owner_references or new.deletion_timestamp is not None:
            self._work.mark(new.uid)
        if new.deletion_timestamp is not None:
            for dependent in self._dependents.get(new.uid, ()):
                self._work.mark(dependent)
        if former is not None and former[1].owner_references != new.owner_references:
            self._mark_owners(former[1])

    def _gone(self, meta: ObjectMeta) -> None:
        self._objects.pop(meta.uid, None)
        self._work.forget(meta.uid)
        self._absent[meta.uid] = self._context.clock()
        for owner in meta.owner_references:
            dependents = self._dependents.get(owner.uid, set())
            dependents.discard(meta.uid)
            if not dependents:
                self._dependents.pop(owner.uid, None)
        self._mark_owners(meta)
        for dependent in self._dependents.get(meta.uid, ()):
            self._work.mark(dependent)

    def _mark_owners(self, meta: ObjectMeta) -> None:
        for owner in meta.owner_references:
            found = self._objects.get(owner.uid)
            if found is not None and found[1].deletion_timestamp is not None:
                self._work.mark(owner.uid)

    # One object --------------------------------------------------------------------------------------------------------------

    async def _operate(self, uid: str) -> float | None:
        found = self._objects.get(uid)
        if found is None:
            return None
        resource, meta = found
        try:
            await self._end(resource, meta)
            states = {owner.uid: await self._state(owner, meta.namespace) for owner in meta.owner_references}
            verdict = desired.judge(meta, lambda owner: states[owner.uid], has_dependents=bool(self._dependents.get(uid)))
            if verdict.delete:
                await self._client.delete(resource, meta.name, meta.namespace, uid=meta.uid, propagation=verdict.delete)
            elif verdict.references is not None:
                patch = desired.references(meta, verdict.references)
                await self._client.patch(resource, meta.name, meta.namespace, patch)
        except ApiError as error:
            if not error.not_found:
                raise
        return None

    async def _end(self, resource: Resource[Object], meta: ObjectMeta) -> None:
        """Orphan the dependents of an object that wants it; remove the finalizer of one that need not wait."""
        if meta.deletion_timestamp is None:
            return
        dependents = [self._objects[uid] for uid in self._dependents.get(meta.uid, ()) if uid in self._objects]
        if desired.ORPHAN in meta.finalizers:
            for kind, one in dependents:
                await self._client.patch(kind, one.name, one.namespace, desired.without_owner(one, meta.uid))
            dependents = []
        finalizer = desired.finalizer_done(meta, [one for _, one in dependents])
        if finalizer:
            await self._client.patch(resource, meta.name, meta.namespace, desired.without_finalizer(meta, finalizer))

    async def _state(self, owner: OwnerReference, namespace: str) -> Owner:
        found = self._objects.get(owner.uid)
        if found is not None:
            meta = found[1]
            waiting = meta.deletion_timestamp is not None and desired.FOREGROUND in meta.finalizers
            return Owner.WAITING if waiting else Owner.PRESENT
        now = self._context.clock()
        self._absent = {uid: at for uid, at in self._absent.items() if now - at < ABSENT_S} if len(self._absent) > 4096 else self._absent
        if owner.uid in self._absent:
            return Owner.ABSENT
        resource = self._resources.get((owner.api_version, owner.kind))
        if resource is None:
            return Owner.PRESENT  # a kind that nobody serves now may come back
        try:
            there = await self._client.get(resource, owner.name, namespace if resource.namespaced else "")
        except ApiError as error:
            if not error.not_found:
                raise
        else:
            if there.metadata.uid == owner.uid:
                return Owner.PRESENT
        self._absent[owner.uid] = now
        return Owner.ABSENT
