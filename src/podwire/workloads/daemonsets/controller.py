"""Watches DaemonSets, their Pods and all nodes; makes and deletes Pods, keeps revisions, writes the status.

A Pod that ends although it should run for ever is made anew; one that keeps ending, on one node, ever more slowly.
"""

from __future__ import annotations

import secrets

from podwire.daemon.context import Context
from podwire.objects.core import Node, Pod
from podwire.objects.resources import NODES
from podwire.workloads import names, revisions, work
from podwire.workloads.daemonsets import desired
from podwire.workloads.kinds import TREE_DAEMON_SETS, DaemonSet, as_written
from podwire.workloads.owned_pods import OwnedPods
from podwire.workloads.revision_records import RevisionRecords

FIRST_REST_S, LONGEST_REST_S = 1.0, 900.0


class DaemonSets:
    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._events = context.recorder("daemonset-controller")
        self._owned = OwnedPods(context, TREE_DAEMON_SETS, self._events, lambda one: one.spec.selector)
        self._nodes = context.informer(NODES)
        self._records = RevisionRecords(context, TREE_DAEMON_SETS)
        self._rests: dict[tuple[str, str], tuple[float, float]] = {}  # (DaemonSet, node): replaced at, next rest
        self._work = work.reconciler(context, "daemonsets", self._operate)
        self._owned.follow(self._work.mark)
        self._nodes.subscribe(self._node_changed)

    async def start(self) -> None:
        informers = [self._owned.owners, self._owned.pods, self._nodes, self._records.informer]
        await work.start(self._context, self._work, "daemonsets", informers)  # type: ignore[arg-type]

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        if old is None or new is None or (old.metadata.labels, old.spec.taints) != (new.metadata.labels, new.spec.taints):
            for daemon_set in self._owned.owners.table.snapshot():
                self._work.mark(daemon_set.key)

    async def _operate(self, key: str) -> float | None:
        daemon_set = self._owned.owners.table.get(key)
        if daemon_set is None:
            self._owned.expectations.forget(key)
            self._rests = {pair: rest for pair, rest in self._rests.items() if pair[0] != key}
            return None
        revision = await self._records.update(daemon_set)
        if revision is None:
            return None
        token = revisions.token_of(revision)
        waiting, failure = self._owned.waiting(key), ""
        again_s: float | None = None
        if not waiting:
            nodes = list(self._nodes.table.snapshot())
            plan = desired.decide(daemon_set, self._owned.candidates(daemon_set), nodes, token, self._context.now())
            await self._owned.own(daemon_set, plan.adopt, plan.release)
            made = [desired.pod_of(daemon_set, node, f"{daemon_set.name}-{names.suffix(secrets.randbelow)}", token) for node in plan.create]
            ended, again_s = self._ended(daemon_set, plan.ended)
            failure = await self._owned.create(daemon_set, made) or await self._owned.delete(daemon_set, [*plan.delete, *ended])
            again_s = min((wait for wait in (again_s, plan.again_s) if wait is not None), default=None)
        await self._write_status(daemon_set, token)
        pods = self._owned.controlled(daemon_set)
        live = {pod.metadata.labels.get(revisions.HASH, "") for pod in pods} | {token}
        await self._records.forget(daemon_set, self._records.have(daemon_set), live)
        if failure:
            raise work.Refused(failure)
        return waiting or again_s

    def _ended(self, daemon_set: DaemonSet, ended: tuple[tuple[Pod, str], ...]) -> tuple[list[Pod], float | None]:
        """Choose the Pods that have rested for long enough to be replaced; give also the seconds until the next one has."""
        now, due, waits = self._context.clock(), [], []
        for pod, node in ended:
            last, rest = self._rests.get((daemon_set.key, node), (float("-inf"), FIRST_REST_S))
            if now - last > 2 * LONGEST_REST_S:
                rest = FIRST_REST_S
            if now - last < rest:
                waits.append(last + rest - now)
                continue
            self._rests[daemon_set.key, node] = (now, min(LONGEST_REST_S, rest * 2))
            if pod.status.phase == "Failed":
                text = f"Found failed daemon pod {pod.key} on node {node}, will try to kill it"
                self._events.event(daemon_set, "Warning", "FailedDaemonPod", text)
            else:
                text = f"Found succeeded daemon pod {pod.key} on node {node}, will try to delete it"
                self._events.event(daemon_set, "Normal", "SucceededDaemonPod", text)
            due.append(pod)
        return due, min(waits, default=None)

    async def _write_status(self, daemon_set: DaemonSet, token: str) -> None:
        pods, nodes = self._owned.controlled(daemon_set), self._nodes.table.snapshot()
        wanted = desired.status(daemon_set, pods, nodes, token, self._context.now())
        if desired.changed(daemon_set, wanted):
            await self._client.patch(
                TREE_DAEMON_SETS, daemon_set.name, daemon_set.namespace, {"status": as_written(wanted)}, subresource="status"
            )
