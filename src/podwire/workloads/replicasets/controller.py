"""Watches ReplicaSets and Pods; makes, deletes, adopts and releases Pods; writes the status.

Pods are made many at a time, under names chosen here, so that what is on its way can be told from what is there.
"""

from __future__ import annotations

import secrets

from podwire.client.errors import ApiError
from podwire.daemon.context import Context
from podwire.objects.core import Pod
from podwire.objects.resources import PODS
from podwire.workloads import names, work
from podwire.workloads.expectations import Expectations
from podwire.workloads.kinds import TREE_REPLICA_SETS, ReplicaSet, controller_of, label_entries, selector_entry
from podwire.workloads.replicasets import desired


class ReplicaSets:
    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._events = context.recorder("replicaset-controller")
        self._sets = context.informer(TREE_REPLICA_SETS, indexes={"selector": _selector})
        self._pods = context.informer(PODS, indexes={"controller": _controller, "orphan": _orphan})
        self._expectations = Expectations()
        self._work = work.reconciler(context, "replicasets", self._operate, concurrency=16)
        self._sets.subscribe(self._set_changed)
        self._pods.subscribe(self._pod_changed)

    async def start(self) -> None:
        await work.start(self._context, self._work, "replicasets", [self._sets, self._pods])

    def _set_changed(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        value = new or old
        if value is not None:
            self._work.mark(value.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        value = new or old
        if value is None:
            return
        if new is not None:
            self._expectations.seen(f"+{new.key}")
        if new is None or new.terminating:
            self._expectations.seen(f"-{value.metadata.uid}")
        owner = controller_of(value.metadata)
        former = controller_of(old.metadata) if old is not None else None
        for reference in {owner, former} - {None}:
            if reference is not None and reference.kind == "ReplicaSet":
                self._work.mark(f"{value.namespace}/{reference.name}")
        if owner is None and new is not None and not new.terminating:
            sets = self._sets.table.snapshot()
            for entry in label_entries(new.namespace, new.metadata.labels):
                for candidate in sets.by("selector", entry):
                    if candidate.spec.selector.matches(new.metadata.labels):
                        self._work.mark(candidate.key)

    async def _operate(self, key: str) -> float | None:
        replica_set = self._sets.table.get(key)
        if replica_set is None:
            self._expectations.forget(key)
            return None
        waiting = self._expectations.waiting(key, self._context.clock())
        failure = ""
        plan = desired.Plan()
        if not waiting:
            plan = desired.decide(replica_set, self._candidates(replica_set), self._context.now())
            await self._own(replica_set, plan)
            failure = await self._create(replica_set, plan.create) if plan.create else ""
            failure = failure or (await self._delete(replica_set, plan.delete) if plan.delete else "")
        await self._write_status(replica_set, failure)
        if failure:
            raise work.Refused(failure)
        return waiting or plan.again_s

    def _candidates(self, replica_set: ReplicaSet) -> list[Pod]:
        pods = self._pods.table.snapshot()
        orphans = [pod for pod in pods.by("orphan", replica_set.namespace) if replica_set.spec.selector.matches(pod.metadata.labels)]
        return [*pods.by("controller", replica_set.metadata.uid), *orphans]

    async def _own(self, replica_set: ReplicaSet, plan: desired.Plan) -> None:
        for pod in plan.adopt:
            await self._client.patch(PODS, pod.name, pod.namespace, desired.adoption(replica_set, pod))
        for pod in plan.release:
            await self._client.patch(PODS, pod.name, pod.namespace, desired.release(replica_set, pod))

    async def _create(self, replica_set: ReplicaSet, count: int) -> str:
        """Make Pods. Returns why not, in the API's words."""

        async def make() -> None:
            tree = desired.pod_of(replica_set, f"{replica_set.name}-{names.suffix(secrets.randbelow)}")
            mark = f"+{replica_set.namespace}/{tree['metadata']['name']}"
            self._expectations.expect(replica_set.key, mark, self._context.clock())
            try:
                made = await self._client.create(PODS, tree)
            except BaseException:
                self._expectations.seen(mark)
                raise
            if made.key in self._pods.table:
                self._expectations.seen(mark)
            self._events.event(replica_set, "Normal", "SuccessfulCreate", f"Created pod: {made.name}")

        results = await work.together([make] * count)
        return self._refusal(replica_set, "FailedCreate", results)

    async def _delete(self, replica_set: ReplicaSet, pods: tuple[Pod, ...]) -> str:
        async def delete(pod: Pod) -> None:
            mark = f"-{pod.metadata.uid}"
            self._expectations.expect(replica_set.key, mark, self._context.clock())
            try:
                await self._client.delete(PODS, pod.name, pod.namespace, uid=pod.metadata.uid)
            except ApiError as error:
                self._expectations.seen(mark)
                if not (error.not_found or error.conflict):
                    raise
                return
            except BaseException:
                self._expectations.seen(mark)
                raise
            self._events.event(replica_set, "Normal", "SuccessfulDelete", f"Deleted pod: {pod.name}")

        results = await work.together([lambda pod=pod: delete(pod) for pod in pods])  # type: ignore[misc]
        return self._refusal(replica_set, "FailedDelete", results)

    def _refusal(self, replica_set: ReplicaSet, reason: str, results: list[Exception | None]) -> str:
        errors = [result for result in results if isinstance(result, Exception)]
        if not errors:
            return ""
        text = errors[0].message if isinstance(errors[0], ApiError) else str(errors[0])
        self._events.event(replica_set, "Warning", reason, f"Error: {text}")
        return text

    async def _write_status(self, replica_set: ReplicaSet, failure: str) -> None:
        pods = self._pods.table.by("controller", replica_set.metadata.uid)
        wanted = desired.status(replica_set, pods, failure, self._context.now())
        if desired.changed(replica_set, wanted):
            await self._client.patch(TREE_REPLICA_SETS, replica_set.name, replica_set.namespace, {"status": wanted}, subresource="status")


def _controller(pod: Pod) -> list[str]:
    owner = controller_of(pod.metadata)
    return [owner.uid] if owner is not None else []


def _selector(replica_set: ReplicaSet) -> list[tuple[str, str, str]]:
    return [selector_entry(replica_set.namespace, replica_set.spec.selector.match_labels)]


def _orphan(pod: Pod) -> list[str]:
    return [] if controller_of(pod.metadata) is not None else [pod.namespace]
