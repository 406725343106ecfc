"""Watches Pods without a node, and Nodes; binds Pods, many at a time; says why a Pod cannot be placed.

What is bound is counted at once, not when the watch shows it, so that the next decision knows of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from podwire.client.errors import ApiError, Unreachable
from podwire.client.informer import Informer
from podwire.daemon.context import Context
from podwire.objects.core import Node, Pod
from podwire.objects.meta import Object
from podwire.objects.resources import (
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    PRIORITY_CLASSES,
    STORAGE_CLASSES,
)
from podwire.objects.storage import SELECTED_NODE, claims_of
from podwire.workloads import work
from podwire.workloads.scheduler import desired, preemption
from podwire.workloads.scheduler.claims import Known
from podwire.workloads.scheduler.desired import SCHEDULER, Decision, Surroundings
from podwire.workloads.scheduler.load import Load, counts
from podwire.workloads.scheduler.preemption import Candidate
from podwire.workloads.scheduler.terms import looks_at_pods
from podwire.workloads.times import stamp

ALL = "pods without a node"
CONCURRENT = 32
AT_ONCE = 50  # Pods decided on before the event loop goes on
RETRY_S = 1.0  # a Pod whose binding was refused


class Scheduler:
    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._events = context.recorder(SCHEDULER)
        self._pods = context.informer(PODS, indexes={"waiting": _waiting})
        self._nodes = context.informer(NODES)
        self._namespaces = context.informer(NAMESPACES)
        self._classes = context.informer(PRIORITY_CLASSES)
        self._claims = context.informer(PERSISTENT_VOLUME_CLAIMS)
        self._volumes = context.informer(PERSISTENT_VOLUMES)
        self._storage_classes = context.informer(STORAGE_CLASSES)
        self._known = Known(self._claims.table.get, self._volumes.table.get, self._storage_classes.table.get, self._volumes.table.snapshot)
        self._load = Load()
        self._assumed: dict[str, tuple[Pod, str]] = {}  # by uid: bound, not seen yet
        self._not_before: dict[str, float] = {}
        self._going: dict[str, Candidate] = {}  # by uid of a Pod: who is going for its sake
        self._budgets = context.informer(POD_DISRUPTION_BUDGETS)
        self._work = work.reconciler(context, "scheduler", self._round, concurrency=1, round_s=0.005)
        self._gate = asyncio.Semaphore(CONCURRENT)
        self._pods.subscribe(self._pod_changed)
        self._nodes.subscribe(self._node_changed)
        for informer in (self._claims, self._volumes, self._storage_classes):
            informer.subscribe(self._storage_changed)

    async def start(self) -> None:
        informers: list[Informer[Any]] = [self._pods, self._nodes, self._namespaces, self._classes, self._budgets]
        await work.start(self._context, self._work, "scheduler", [*informers, self._claims, self._volumes, self._storage_classes])

    def _storage_changed(self, _old: Object | None, _new: Object | None) -> None:
        if self._pods.table.by("waiting", "for claims"):
            self._work.mark(ALL)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        value = new or old
        if value is None:
            return
        if new is None or new.spec.node_name:
            self._forget(value.metadata.uid)
        self._load.changed(old, new)
        freed = old is not None and old.spec.node_name and (new is None or new.status.phase in ("Succeeded", "Failed"))
        if (
            freed
            or (new is not None and desired.is_waiting(new) and (old is None or old.spec != new.spec))
            or (self._pods.table.by("waiting", "for others") and _company_changed(old, new))
        ):
            self._work.mark(ALL)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if (
            old is None
            or new is None
            or (old.spec, old.metadata.labels, old.ready, old.status.allocatable)
            != (
                new.spec,
                new.metadata.labels,
                new.ready,
                new.status.allocatable,
            )
        ):
            self._work.mark(ALL)

    def _forget(self, uid: str) -> None:
        self._not_before.pop(uid, None)
        self._going.pop(uid, None)
        assumed = self._assumed.pop(uid, None)
        if assumed is not None:
            self._load.add(*assumed, step=-1)

    async def _round(self, _key: str) -> float | None:
        now = self._context.clock()
        waiting = [pod for pod in self._pods.table.by("waiting", True) if pod.metadata.uid not in self._assumed]
        due = [pod for pod in waiting if self._not_before.get(pod.metadata.uid, 0.0) <= now]
        around = self._around(waiting) if due else Surroundings()
        ordered = desired.in_order(due, around.priorities)
        async with asyncio.TaskGroup() as binding:
            for first in range(0, len(ordered), AT_ONCE):
                still = [pod for pod in ordered[first : first + AT_ONCE] if self._is_waiting(pod)]
                nodes = sorted(self._nodes.table.snapshot(), key=lambda node: node.name)
                for decision in desired.decide(still, nodes, self._load, around):
                    if decision.node:
                        self._assumed[decision.pod.metadata.uid] = (decision.pod, decision.node)
                    if decision.preempt is not None:
                        self._going[decision.pod.metadata.uid] = decision.preempt
                    around = around.after(decision)
                    binding.create_task(self._perform(decision))
                await asyncio.sleep(0)  # what was decided is bound, and the watch is read, while the next are thought about
        later = [at - now for at in self._not_before.values() if at > now]
        return max(0.05, min(later)) if later else None

    def _around(self, waiting: Sequence[Pod]) -> Surroundings:
        under_way = {}
        kept = []
        for pod in waiting:
            uid = pod.metadata.uid
            going = self._going.get(uid)
            if going is not None and not any(self._is_there(victim) for victim in going.victims):
                del self._going[uid]
            node = going.node if going is not None else pod.status.nominated_node_name
            if node:
                kept.append((pod, node))
                if uid in self._going or any(preemption.goes_for_another(one) for one in self._load.pods(node)):
                    under_way[uid] = node
        return Surroundings(
            namespaces={one.name: one.metadata.labels for one in self._namespaces.table.snapshot()},
            known=self._known,
            priorities={one.name: one.value for one in self._classes.table.snapshot()},
            budgets=list(self._budgets.table.snapshot()),
            under_way=under_way,
            kept=kept,
        )

    def _is_there(self, pod: Pod) -> bool:
        now = self._pods.table.get(pod.key)
        return now is not None and now.metadata.uid == pod.metadata.uid and counts(now)

    def _is_waiting(self, pod: Pod) -> bool:
        now = self._pods.table.get(pod.key)
        return now is not None and now.metadata.uid == pod.metadata.uid and desired.is_waiting(now)

    async def _perform(self, decision: Decision) -> None:
        async with self._gate:
            try:
                if decision.choose:
                    await self._choose(decision)
                elif decision.node:
                    await self._bind(decision)
                elif decision.reason:
                    await self._explain(decision)
                    if decision.preempt is not None:
                        await self._preempt(decision.pod, decision.preempt)
            except (ApiError, Unreachable) as error:
                self._refused(decision, error)

    async def _bind(self, decision: Decision) -> None:
        pod = decision.pod
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.metadata.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": decision.node},
        }
        await self._client.create_subresource(PODS, pod.name, pod.namespace, "binding", body)
        self._events.event(pod, "Normal", "Scheduled", f"Successfully assigned {pod.key} to {decision.node}")

    async def _choose(self, decision: Decision) -> None:
        """Tell claims of the node; when they are bound, the Pod is decided on anew."""
        for claim in decision.choose:
            metadata = {"uid": claim.metadata.uid, "annotations": {SELECTED_NODE: decision.node}}
            await self._client.patch(PERSISTENT_VOLUME_CLAIMS, claim.name, claim.namespace, {"metadata": metadata})
        self._forget(decision.pod.metadata.uid)

    async def _explain(self, decision: Decision) -> None:
        pod = decision.pod
        former = next((one for one in pod.status.conditions if one.type == "PodScheduled"), None)
        said = former is not None and former.message == decision.reason
        kept = decision.preempt.node if decision.preempt is not None else None
        forgotten = pod.status.nominated_node_name if kept is None and not decision.keeps else ""
        status: dict[str, Any] = {"nominatedNodeName": kept} if kept or forgotten else {}
        if not said:
            self._events.event(pod, "Warning", "FailedScheduling", decision.reason)
            condition = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": decision.reason,
                "lastTransitionTime": stamp(self._context.now()),
            }
            status["conditions"] = [condition]
        if status:
            await self._client.patch(PODS, pod.name, pod.namespace, {"status": status}, kind="strategic", subresource="status")

    async def _preempt(self, pod: Pod, candidate: Candidate) -> None:
        """Have Pods go for another's sake; each is told why. The node is no longer kept for less important ones."""
        for victim in candidate.victims:
            condition = {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": preemption.REASON,
                "message": f"{SCHEDULER}: preempting to accommodate a higher priority pod",
                "lastTransitionTime": stamp(self._context.now()),
            }
            status = {"status": {"conditions": [condition]}}
            try:
                await self._client.patch(PODS, victim.name, victim.namespace, status, kind="strategic", subresource="status")
                await self._client.delete(PODS, victim.name, victim.namespace, uid=victim.metadata.uid)
            except ApiError as error:
                if not (error.not_found or error.conflict):
                    raise
            self._events.event(victim, "Normal", "Preempted", f"Preempted by pod {pod.metadata.uid} on node {candidate.node}")
        for other in self._pods.table.by("waiting", True):
            if other.status.nominated_node_name == candidate.node and other.spec.priority < pod.spec.priority:
                patch = {"status": {"nominatedNodeName": None}}
                await self._client.patch(PODS, other.name, other.namespace, patch, kind="strategic", subresource="status")

    def _refused(self, decision: Decision, error: ApiError | Unreachable) -> None:
        """Take a decision back; unless the Pod is gone or was placed by somebody else, it is decided anew."""
        self._forget(decision.pod.metadata.uid)
        if isinstance(error, ApiError) and error.not_found:
            return
        self._context.log.getChild("scheduler").info("%s: %s", decision.pod.key, error)
        self._not_before[decision.pod.metadata.uid] = self._context.clock() + RETRY_S


def _waiting(pod: Pod) -> list[bool | str]:
    if not desired.is_waiting(pod):
        return []
    return [True, *(["for others"] if looks_at_pods(pod) else []), *(["for claims"] if claims_of(pod) else [])]


def _company_changed(old: Pod | None, new: Pod | None) -> bool:
    """Say whether a Pod came to a node, or left one, or is called something else there: company for others."""
    before, after = (pod.metadata.labels if pod is not None and counts(pod) else None for pod in (old, new))
    return before != after
