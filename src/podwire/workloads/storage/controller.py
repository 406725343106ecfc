"""Watches claims, volumes, their classes, and Pods; binds, makes directories and removes them, lets go of what nobody uses any more.

Every write names the version that it was decided on: what has changed since is read again and decided anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from podwire.client.errors import ApiError
from podwire.daemon.context import Context
from podwire.objects.core import Pod
from podwire.objects.meta import Object
from podwire.objects.resources import NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES, Resource
from podwire.objects.storage import (
    DIRECTORY_PROVISIONER,
    PV_PROTECTION,
    PVC_PROTECTION,
    SELECTED_NODE,
    PersistentVolume,
    PersistentVolumeClaim,
    StorageClass,
    claims_of,
)
from podwire.views.placement import reaches
from podwire.workloads import work
from podwire.workloads.storage import desired, directories
from podwire.workloads.storage.desired import ClaimPlan, Notice, Tree, VolumePlan

_CLAIM, _VOLUME, _POD = "claim", "volume", "pod"
_FREE = ""


class Storage:
    def __init__(self, context: Context) -> None:
        self._context, self._client, self._state = context, context.client, context.config.state_dir
        self._binder = context.recorder("persistentvolume-controller")
        self._provisioner = context.recorder(DIRECTORY_PROVISIONER)
        self._ephemeral = context.recorder("ephemeral_volume")
        self._claims = context.informer(PERSISTENT_VOLUME_CLAIMS, indexes={"open": _open})
        self._volumes = context.informer(PERSISTENT_VOLUMES, indexes={"claim": lambda one: [_claim_key(one)]})
        self._classes = context.informer(STORAGE_CLASSES)
        self._nodes = context.informer(NODES)
        self._pods = context.informer(PODS, indexes={"claims": claims_of})
        self._said: dict[str, tuple[Notice, ...]] = {}
        self._work = work.reconciler(context, "storage", self._operate, round_s=0.002)
        self._claims.subscribe(self._claim_changed)
        self._volumes.subscribe(self._volume_changed)
        self._classes.subscribe(self._class_changed)
        self._pods.subscribe(self._pod_changed)

    async def start(self) -> None:
        await work.start(self._context, self._work, "storage", [self._claims, self._volumes, self._classes, self._nodes, self._pods])

    # Who must be looked at -------------------------------------------------------------------------------------------------------

    def _claim_changed(self, old: PersistentVolumeClaim | None, new: PersistentVolumeClaim | None) -> None:
        claim = new or old
        if claim is None:
            return
        self._work.mark(f"{_CLAIM} {claim.key}")
        for volume in self._volumes.table.by("claim", claim.key):
            self._work.mark(f"{_VOLUME} {volume.name}")
        if new is None or new.metadata.deletion_timestamp is not None:
            for pod in self._pods.table.by("claims", claim.key):
                self._mark_ephemeral(pod)

    def _volume_changed(self, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        for volume in (old, new):
            if volume is not None:
                self._work.mark(f"{_VOLUME} {volume.name}")
                if _claim_key(volume) != _FREE:
                    self._work.mark(f"{_CLAIM} {_claim_key(volume)}")
        if new is not None and _claim_key(new) == _FREE:
            for claim in self._claims.table.by("open", True):
                self._work.mark(f"{_CLAIM} {claim.key}")

    def _class_changed(self, _old: StorageClass | None, new: StorageClass | None) -> None:
        for claim in self._claims.table.by("open", True) if new is not None else ():
            self._work.mark(f"{_CLAIM} {claim.key}")

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        pod = new or old
        if pod is None or (old is not None and new is not None and old.spec == new.spec):
            return
        for key in claims_of(pod):
            self._work.mark(f"{_CLAIM} {key}")
        if new is not None:
            self._mark_ephemeral(new)

    def _mark_ephemeral(self, pod: Pod) -> None:
        if not pod.terminating and any(volume.ephemeral is not None for volume in pod.spec.volumes):
            self._work.mark(f"{_POD} {pod.key}")

    # What is done ----------------------------------------------------------------------------------------------------------------

    async def _operate(self, key: str) -> float | None:
        what, _, name = key.partition(" ")
        if what == _CLAIM:
            claim = self._claims.table.get(name)
            if claim is None:
                self._said.pop(key, None)
            else:
                await self._claim(key, claim)
        elif what == _VOLUME:
            volume = self._volumes.table.get(name)
            if volume is not None:
                await self._volume(volume)
        elif (pod := self._pods.table.get(name)) is not None and not pod.terminating:
            await self._claim_for(pod)
        return None

    async def _claim(self, key: str, claim: PersistentVolumeClaim) -> None:
        named = self._volumes.table.get(claim.spec.volume_name) if claim.spec.volume_name else None
        node = self._nodes.table.get(claim.metadata.annotations.get(SELECTED_NODE, ""))
        known = [volume for index in (_FREE, claim.key) for volume in self._volumes.table.by("claim", index)]
        free = [volume for volume in known if node is None or reaches(volume, node)]
        classes = {one.name: one for one in self._classes.table.snapshot()}
        pods = self._pods.table.by("claims", claim.key)
        plan = desired.decide_claim(claim, named, free, classes, pods)
        self._tell(key, claim, plan.notices)
        if plan.let_go:
            await self._let_go(PERSISTENT_VOLUME_CLAIMS, claim, PVC_PROTECTION)
            return
        await self._perform(claim, plan)

    async def _perform(self, claim: PersistentVolumeClaim, plan: ClaimPlan) -> None:
        if plan.metadata is not None:
            claim = await self._patch(PERSISTENT_VOLUME_CLAIMS, claim, {"metadata": plan.metadata})
        if plan.status is not None:
            claim = await self._patch(PERSISTENT_VOLUME_CLAIMS, claim, {"status": plan.status}, subresource="status")
        if plan.grow is not None:
            await self._patch(PERSISTENT_VOLUMES, plan.grow[0], {"spec": plan.grow[1]})
        volume = plan.bind.volume if plan.bind is not None else None
        if plan.provision is not None:
            volume = await self._provision(claim, plan.provision)
        if volume is not None:
            await self._bind(claim, volume)

    async def _provision(self, claim: PersistentVolumeClaim, tree: Tree) -> PersistentVolume:
        name = tree["metadata"]["name"]
        try:
            if not self._state:
                raise ValueError("this process was told of no folder in which directories of volumes could be made (state_dir)")
            await asyncio.to_thread(directories.make, self._state, name)
            volume = await self._client.create(PERSISTENT_VOLUMES, tree)
        except (ApiError, OSError, ValueError) as error:
            if isinstance(error, ApiError) and error.already_exists:
                return await self._client.get(PERSISTENT_VOLUMES, name)
            words = f'failed to provision volume with StorageClass "{claim.spec.storage_class_name}": {error}'
            self._provisioner.event(claim, "Warning", "ProvisioningFailed", words)
            raise work.Refused(words) from error
        self._provisioner.event(claim, "Normal", "ProvisioningSucceeded", f"Successfully provisioned volume {name}")
        return volume

    async def _bind(self, claim: PersistentVolumeClaim, volume: PersistentVolume) -> None:
        """Four writes; one that fails is made up for when what came of the others is seen."""
        promise = desired.promise(volume, claim)
        if promise is not None:
            volume = await self._client.patch(PERSISTENT_VOLUMES, volume.name, "", promise)
        completion = desired.completion(claim, volume)
        claim = await self._client.patch(PERSISTENT_VOLUME_CLAIMS, claim.name, claim.namespace, completion)
        await self._patch(PERSISTENT_VOLUMES, volume, {"status": {"phase": "Bound"}}, subresource="status")
        status = desired.bound_status(volume)
        await self._patch(PERSISTENT_VOLUME_CLAIMS, claim, {"status": status}, subresource="status")

    async def _volume(self, volume: PersistentVolume) -> None:
        key = _claim_key(volume)
        plan = desired.decide_volume(volume, self._claims.table.get(key) if key else None)
        if plan.reclaim:
            await self._reclaim(volume, plan)
            return
        self._tell(f"{_VOLUME} {volume.name}", volume, plan.notices)
        if plan.spec is not None:
            volume = await self._patch(PERSISTENT_VOLUMES, volume, {"spec": plan.spec})
        if plan.status is not None:
            await self._patch(PERSISTENT_VOLUMES, volume, {"status": plan.status}, subresource="status")
        if plan.let_go:
            await self._let_go(PERSISTENT_VOLUMES, volume, PV_PROTECTION)

    async def _reclaim(self, volume: PersistentVolume, plan: VolumePlan) -> None:
        # The table may lag: nothing is removed for a claim that is there after all.
        reference = volume.spec.claim_ref
        if reference is not None and await self._exists(reference.namespace, reference.name, reference.uid):
            raise work.Refused(f"the claim {reference.namespace}/{reference.name} is still there")
        try:
            await asyncio.to_thread(directories.remove, self._state, volume.name)
        except (OSError, ValueError) as error:
            failure = desired.failed(volume, "VolumeFailedDelete", str(error))
            self._tell(f"{_VOLUME} {volume.name}", volume, failure.notices)
            if failure.status is not None:
                await self._patch(PERSISTENT_VOLUMES, volume, {"status": failure.status}, subresource="status")
            raise work.Refused(f"volume {volume.name}: {error}") from error
        if volume.metadata.deletion_timestamp is None:
            await self._ignoring_gone(self._client.delete(PERSISTENT_VOLUMES, volume.name, uid=volume.metadata.uid))
        if plan.let_go:
            await self._let_go(PERSISTENT_VOLUMES, volume, PV_PROTECTION)

    async def _exists(self, namespace: str, name: str, uid: str) -> bool:
        try:
            return (await self._client.get(PERSISTENT_VOLUME_CLAIMS, name, namespace)).metadata.uid == uid
        except ApiError as error:
            if error.not_found:
                return False
            raise

    async def _claim_for(self, pod: Pod) -> None:
        """Make the claims of ephemeral volumes."""
        for tree in desired.ephemeral_claims(pod):
            if f"{pod.namespace}/{tree['metadata']['name']}" in self._claims.table:
                continue
            try:
                await self._client.create(PERSISTENT_VOLUME_CLAIMS, tree)
            except ApiError as error:
                if not error.already_exists:
                    words = f"ephemeral volume controller failed to create the PVC {tree['metadata']['name']}: {error.message}"
                    self._ephemeral.event(pod, "Warning", "FailedBinding", words)
                    raise

    # Writing ---------------------------------------------------------------------------------------------------------------------

    def _tell(self, key: str, about: Object, notices: Iterable[Notice]) -> None:
        """Report what has not been said about this state already."""
        notices = tuple(notices)
        if self._said.get(key, ()) == notices:
            return
        self._said[key] = notices
        for one in notices:
            (self._provisioner if one.by_provisioner else self._binder).event(about, one.type, one.reason, one.message)

    async def _patch(self, resource: Resource[Any], about: Object, body: Tree, subresource: str = "") -> Any:
        metadata = dict(body.get("metadata") or {}) | {"resourceVersion": about.metadata.resource_version}
        return await self._client.patch(resource, about.name, about.namespace, body | {"metadata": metadata}, subresource=subresource)

    async def _let_go(self, resource: Resource[Any], about: Object, finalizer: str) -> None:
        body = {"metadata": {"uid": about.metadata.uid, "$deleteFromPrimitiveList/finalizers": [finalizer]}}
        await self._ignoring_gone(self._client.patch(resource, about.name, about.namespace, body, kind="strategic"))

    @staticmethod
    async def _ignoring_gone(request: Any) -> None:
        try:
            await request
        except ApiError as error:
            if not error.not_found:
                raise


def _claim_key(volume: PersistentVolume) -> str:
    reference = volume.spec.claim_ref
    return f"{reference.namespace}/{reference.name}" if reference is not None else _FREE


def _open(claim: PersistentVolumeClaim) -> list[bool]:
    """Stand under True as long as a claim waits for a volume."""
    return [True] if claim.status.phase != "Bound" else []
