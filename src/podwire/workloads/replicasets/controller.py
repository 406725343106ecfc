"""Watches ReplicaSets, or ReplicationControllers, and their Pods; makes, deletes, adopts and releases Pods; writes the status."""

from __future__ import annotations

import secrets
from typing import Any

from podwire.daemon.context import Context
from podwire.objects.meta import LabelSelector
from podwire.objects.resources import Resource
from podwire.workloads import names, ownership, work
from podwire.workloads.kinds import TREE_REPLICA_SETS, TREE_REPLICATION_CONTROLLERS, ReplicaSet, ReplicationController, as_written
from podwire.workloads.owned_pods import OwnedPods
from podwire.workloads.replicasets import desired

Stored = ReplicaSet | ReplicationController
REST_PER_POD_S, LONGEST_REST_S = 0.0001, 0.1


def _as_replica_set(stored: Stored) -> ReplicaSet:
    return stored.as_replica_set() if isinstance(stored, ReplicationController) else stored


def _selector(stored: Stored) -> LabelSelector:
    selector = stored.spec.selector
    return selector if isinstance(selector, LabelSelector) else LabelSelector(match_labels=selector)


class ReplicaSets:
    resource: Resource[Any] = TREE_REPLICA_SETS
    component = "replicaset-controller"

    def __init__(self, context: Context) -> None:
        self._context, self._client, self._name = context, context.client, self.resource.plural
        self._owned: OwnedPods[Any] = OwnedPods(context, self.resource, context.recorder(self.component), _selector)
        self._work = work.reconciler(context, self._name, self._operate, concurrency=16)
        self._rested_at: dict[str, float] = {}
        self._owned.follow(self._mark)

    async def start(self) -> None:
        await work.start(self._context, self._work, self._name, [self._owned.owners, self._owned.pods])

    def _mark(self, key: str) -> None:
        """A round looks at all Pods of a set, so it rests in proportion to them."""
        rest_s = self._rested_at.get(key, 0.0) - self._context.clock()
        if rest_s > 0:
            self._work.mark_after(key, rest_s)
        else:
            self._work.mark(key)

    async def _operate(self, key: str) -> float | None:
        stored = self._owned.owners.table.get(key)
        if stored is None:
            self._owned.expectations.forget(key)
            self._rested_at.pop(key, None)
            return None
        self._rested_at[key] = self._context.clock() + min(LONGEST_REST_S, REST_PER_POD_S * len(self._owned.controlled(stored)))
        replica_set = _as_replica_set(stored)
        waiting = self._owned.waiting(key)
        failure = ""
        plan = desired.Plan()
        if not waiting:
            plan = desired.decide(replica_set, self._owned.candidates(stored), self._context.now())
            await self._owned.own(stored, plan.adopt, plan.release)
            made = [f"{stored.name}-{names.suffix(secrets.randbelow)}" for _ in range(plan.create)]
            failure = await self._owned.create(
                stored, [ownership.pod_of(self.resource, stored, stored.spec.template, name) for name in made]
            )
            failure = failure or await self._owned.delete(stored, plan.delete)
        await self._write_status(stored, replica_set, failure)
        if failure:
            raise work.Refused(failure)
        return waiting or plan.again_s

    async def _write_status(self, stored: Stored, replica_set: ReplicaSet, failure: str) -> None:
        wanted = desired.status(replica_set, self._owned.controlled(stored), failure, self._context.now())
        if desired.changed(replica_set, wanted):
            await self._client.patch(
                self.resource, stored.name, stored.namespace, {"status": as_written(wanted, "availableReplicas")}, subresource="status"
            )


class ReplicationControllers(ReplicaSets):
    resource = TREE_REPLICATION_CONTROLLERS
    component = "replication-controller"
