"""ControllerRevisions in the world: kept in step with the template of their owner.

What belongs here: what DaemonSets and StatefulSets do alike. What must not: any decision (``revisions.py``).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from podwire.client.errors import ApiError
from podwire.daemon.context import Context
from podwire.objects.apps import ControllerRevision
from podwire.objects.resources import CONTROLLER_REVISIONS, Resource
from podwire.workloads import ownership, revisions
from podwire.workloads.kinds import DaemonSet, StatefulSet, controller_of

Owner = DaemonSet | StatefulSet


class RevisionRecords:
    def __init__(self, context: Context, resource: Resource[Any]) -> None:
        self._client, self._resource = context.client, resource
        self.informer = context.informer(CONTROLLER_REVISIONS, indexes={"controller": _controller, "orphan": _orphan})

    def have(self, owner: Owner) -> list[ControllerRevision]:
        """Give the revisions that the owner controls, and those that nobody controls and its selector matches."""
        table, selector = self.informer.table.snapshot(), owner.spec.selector
        orphans = [one for one in table.by("orphan", owner.namespace) if selector.matches(one.metadata.labels)]
        return [*table.by("controller", owner.metadata.uid), *orphans]

    async def update(self, owner: Owner) -> ControllerRevision | None:
        """Give the revision of the present template, made or renumbered if it must be.

        None if its name is taken by another template: the owner's ``collisionCount`` then grows, and its change brings us back.
        """
        plan = revisions.decide(self._resource, owner, owner.spec.template, self.have(owner), owner.status.collision_count or 0)
        for orphan in plan.adopt:
            patch = ownership.adoption(self._resource, owner, orphan)
            await self._client.patch(CONTROLLER_REVISIONS, orphan.name, orphan.namespace, patch)
        if plan.update is not None:
            if not plan.number:
                return plan.update
            return await self._client.patch(CONTROLLER_REVISIONS, plan.update.name, owner.namespace, {"revision": plan.number})
        assert plan.create is not None
        try:
            return await self._client.create(CONTROLLER_REVISIONS, plan.create)
        except ApiError as error:
            if not error.already_exists:
                raise
        there = await self._client.get(CONTROLLER_REVISIONS, plan.create["metadata"]["name"], owner.namespace)
        reference = controller_of(there.metadata)
        if reference is not None and reference.uid == owner.metadata.uid and revisions.template_of(there) == owner.spec.template:
            return there
        count = (owner.status.collision_count or 0) + 1
        patch = {"status": {"collisionCount": count}}
        await self._client.patch(self._resource, owner.name, owner.namespace, patch, subresource="status")
        return None

    async def forget(self, owner: Owner, have: Sequence[ControllerRevision], live: Collection[str]) -> None:
        for one in revisions.forgotten(have, live, owner.spec.revision_history_limit):
            try:
                await self._client.delete(CONTROLLER_REVISIONS, one.name, one.namespace, uid=one.metadata.uid)
            except ApiError as error:
                if not (error.not_found or error.conflict):
                    raise


def _controller(one: ControllerRevision) -> list[str]:
    owner = controller_of(one.metadata)
    return [owner.uid] if owner is not None else []


def _orphan(one: ControllerRevision) -> list[str]:
    return [] if controller_of(one.metadata) is not None else [one.namespace]
