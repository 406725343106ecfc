"""Watches StatefulSets and their Pods; makes and deletes Pods in order, keeps revisions, writes the status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from podwire.client.errors import ApiError
from podwire.client.informer import Informer
from podwire.daemon.context import Context
from podwire.objects.apps import ControllerRevision
from podwire.objects.resources import PERSISTENT_VOLUME_CLAIMS
from podwire.workloads import revisions, work
from podwire.workloads.kinds import TREE_STATEFUL_SETS, StatefulSet, Tree, as_written
from podwire.workloads.owned_pods import OwnedPods
from podwire.workloads.revision_records import RevisionRecords
from podwire.workloads.statefulsets import desired


class StatefulSets:
    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._events = context.recorder("statefulset-controller")
        self._owned = OwnedPods(
            context,
            TREE_STATEFUL_SETS,
            self._events,
            lambda one: one.spec.selector,
            created="create Pod {pod} in StatefulSet {owner} successful",
            deleted="delete Pod {pod} in StatefulSet {owner} successful",
            failed="{action} Pod {pod} in StatefulSet {owner} failed error: {error}",
        )
        self._records = RevisionRecords(context, TREE_STATEFUL_SETS)
        self._claims = context.informer(PERSISTENT_VOLUME_CLAIMS)
        self._work = work.reconciler(context, "statefulsets", self._operate)
        self._owned.follow(self._work.mark)

    async def start(self) -> None:
        informers: list[Informer[Any]] = [self._owned.owners, self._owned.pods, self._records.informer, self._claims]
        await work.start(self._context, self._work, "statefulsets", informers)

    async def _operate(self, key: str) -> float | None:
        stateful_set = self._owned.owners.table.get(key)
        if stateful_set is None:
            self._owned.expectations.forget(key)
            return None
        update = await self._records.update(stateful_set)
        if update is None:
            return None
        have = [update, *(one for one in self._records.have(stateful_set) if one.name != update.name)]
        names = desired.Revisions(self._current(stateful_set, have) or update.name, update.name)
        waiting, failure = self._owned.waiting(key), ""
        plan = desired.Plan()
        if not waiting:
            plan = desired.decide(stateful_set, self._owned.candidates(stateful_set), names, self._context.now())
            await self._owned.own(stateful_set, plan.adopt, plan.release)
            await self._own_claims(stateful_set)
            failure = await self._make_claims(stateful_set, [number for number, _ in plan.create])
            failure = failure or await self._owned.create(stateful_set, self._trees(stateful_set, plan, have))
            failure = failure or await self._owned.delete(stateful_set, plan.delete)
        pods = self._owned.controlled(stateful_set)
        wanted = desired.status(stateful_set, pods, names, self._context.now())
        if desired.changed(stateful_set, wanted):
            await self._client.patch(
                TREE_STATEFUL_SETS, stateful_set.name, stateful_set.namespace, {"status": as_written(wanted)}, subresource="status"
            )
        live = {pod.metadata.labels.get(revisions.HASH, "") for pod in pods} | {names.current, names.update}
        await self._records.forget(stateful_set, have, live)
        if failure:
            raise work.Refused(failure)
        return waiting or plan.again_s

    @staticmethod
    def _current(stateful_set: StatefulSet, have: Sequence[ControllerRevision]) -> str:
        return next((one.name for one in have if one.name == stateful_set.status.current_revision), "")

    @staticmethod
    def _trees(stateful_set: StatefulSet, plan: desired.Plan, have: Sequence[ControllerRevision]) -> list[Tree]:
        templates = {one.name: revisions.template_of(one) for one in have}
        return [desired.pod_of(stateful_set, number, revision, templates[revision]) for number, revision in plan.create]

    async def _make_claims(self, stateful_set: StatefulSet, numbers: Sequence[int]) -> str:
        """Make the claims of Pods that are to be made; what there is is kept. Returns why not, in the API's words."""
        for number in numbers:
            pod = f"{stateful_set.name}-{number}"
            for tree in desired.claims_of(stateful_set, number).values():
                name = tree["metadata"]["name"]
                there = self._claims.table.get(f"{stateful_set.namespace}/{name}")
                if there is not None and there.metadata.deletion_timestamp is None:
                    continue
                try:
                    if there is not None:
                        return f"pvc {stateful_set.namespace}/{name} is being deleted"
                    await self._client.create(PERSISTENT_VOLUME_CLAIMS, tree)
                except ApiError as error:
                    if error.already_exists:
                        continue
                    words = f"create Claim {name} for Pod {pod} in StatefulSet {stateful_set.name} failed error: {error.message}"
                    self._events.event(stateful_set, "Warning", "FailedCreate", words)
                    return words
                words = f"create Claim {name} Pod {pod} in StatefulSet {stateful_set.name} success"
                self._events.event(stateful_set, "Normal", "SuccessfulCreate", words)
        return ""

    async def _own_claims(self, stateful_set: StatefulSet) -> None:
        """Let claims belong to those with whom they are to end."""
        for pod in self._owned.controlled(stateful_set) if stateful_set.spec.volume_claim_templates else ():
            number = desired.ordinal(stateful_set, pod)
            for tree in desired.claims_of(stateful_set, number).values() if number is not None else ():
                claim = self._claims.table.get(f"{stateful_set.namespace}/{tree['metadata']['name']}")
                owners = desired.claim_owners(stateful_set, pod, claim) if claim is not None else None
                if claim is not None and owners is not None:
                    metadata = {"resourceVersion": claim.metadata.resource_version, "ownerReferences": owners}
                    await self._client.patch(PERSISTENT_VOLUME_CLAIMS, claim.name, claim.namespace, {"metadata": metadata})
