"""Watches nodes, their Leases and their Pods; marks nodes that are not heard of, evicts, and removes Pods that cannot end by themselves.

When a Lease was last renewed is taken from when this process saw it change, on its own clock: clocks of nodes may differ.
"""

from __future__ import annotations

from podwire.client.errors import ApiError
from podwire.daemon.context import Context
from podwire.objects.apps import Lease
from podwire.objects.core import Node, Pod
from podwire.objects.resources import LEASES, NODES, PODS
from podwire.workloads import work
from podwire.workloads.availability import has_ended
from podwire.workloads.nodes import desired

LEASES_NAMESPACE = "kube-node-lease"
ORPHAN_S = 10.0  # a node may register after its Pods were seen
_PODS = "pods that cannot end"
_ENDED = "pods that have ended"
LOOK_S = 20.0  # how often ended Pods are counted, while more of them end


class Nodes:
    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._grace_s = context.config.node_grace_s
        self._events = context.recorder("node-controller")
        self._nodes = context.informer(NODES)
        self._leases = context.informer(LEASES, namespace=LEASES_NAMESPACE)
        self._most_ended, self._look_s = context.config.ended_pods, min(LOOK_S, context.config.node_grace_s / 2)
        self._pods = context.informer(
            PODS,
            indexes={
                "node": lambda pod: [pod.spec.node_name] if pod.spec.node_name else [],
                "ended": lambda pod: [True] if has_ended(pod) else [],
            },
        )
        self._heard: dict[str, float] = {}
        self._orphans: dict[str, float] = {}  # by uid: since when
        self._work = work.reconciler(context, "nodes", self._operate)
        self._collector = work.reconciler(context, "podgc", self._collect, concurrency=1, round_s=0.1)
        self._nodes.subscribe(self._node_changed)
        self._leases.subscribe(self._lease_changed)
        self._pods.subscribe(self._pod_changed)

    async def start(self) -> None:
        await work.start(self._context, self._work, "nodes", [self._nodes, self._leases, self._pods])
        await work.start(self._context, self._collector, "podgc", [self._nodes, self._pods])

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        value = new or old
        if value is None:
            return
        if old is None:
            self._heard.setdefault(value.name, self._context.clock())
            self._say(value, "RegisteredNode", f"Registered Node {value.name} in Controller")
        elif new is not None and desired.heartbeat(new) not in (None, desired.heartbeat(old)):
            self._heard[new.name] = self._context.clock()  # a node's own word on its status is a sign of life too
        if new is None:
            self._heard.pop(value.name, None)
            self._collector.mark(_PODS)
            self._say(value, "RemovingNode", f"Removing Node {value.name} from Controller")
        self._work.mark(value.name)

    def _say(self, node: Node, reason: str, what: str) -> None:
        self._events.event(node, "Normal", reason, f"Node {node.name} event: {what}")

    def _lease_changed(self, old: Lease | None, new: Lease | None) -> None:
        if new is not None and (old is None or old.spec.renew_time != new.spec.renew_time):
            self._heard[new.name] = self._context.clock()

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if new is None:
            self._orphans.pop(old.metadata.uid if old is not None else "", None)
            return
        if has_ended(new):
            self._collector.mark_after(_ENDED, self._look_s)
        node = self._nodes.table.get(new.spec.node_name) if new.spec.node_name else None
        if node is None and (new.spec.node_name or new.terminating):
            self._collector.mark(_PODS)
        elif node is not None and any(taint.effect == "NoExecute" for taint in node.spec.taints):
            self._work.mark(node.name)

    # Nodes -------------------------------------------------------------------------------------------------------------------

    async def _operate(self, name: str) -> float | None:
        node = self._nodes.table.get(name)
        if node is None:
            return None
        now = self._context.now()
        left = self._heard.setdefault(name, self._context.clock()) + self._grace_s - self._context.clock()
        if left <= 0:
            conditions = desired.unknown_conditions(node, now)
            if conditions:
                await self._client.patch(NODES, name, "", {"status": {"conditions": conditions}}, kind="strategic", subresource="status")
                self._events.event(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")
                return 0.1
            for pod in self._pods.table.by("node", name):
                await self._unready(pod)
        taints = desired.taints(node, now)
        if taints is not None:
            patch = {"metadata": {"resourceVersion": node.metadata.resource_version}, "spec": {"taints": taints or None}}
            await self._client.patch(NODES, name, "", patch)
        evicting = any(taint.effect == "NoExecute" for taint in node.spec.taints)
        waits = [await self._evict(pod, node) for pod in self._pods.table.by("node", name)] if evicting else []
        return max(0.1, min([left if left > 0 else self._grace_s, *(one for one in waits if one is not None)]))

    async def _unready(self, pod: Pod) -> None:
        condition = desired.unready_condition(pod, self._context.now())
        if condition is not None:
            patch = {"status": {"conditions": [condition]}}
            await self._client.patch(PODS, pod.name, pod.namespace, patch, kind="strategic", subresource="status")
            self._events.event(pod, "Warning", "NodeNotReady", "Node is not ready")

    async def _evict(self, pod: Pod, node: Node) -> float | None:
        """Delete a Pod whose time on a tainted node is over. Returns the seconds until then."""
        left = None if pod.terminating else desired.eviction_s(pod, node.spec.taints, self._context.now())
        if left != 0.0:
            return left
        self._events.event(pod, "Normal", "TaintManagerEviction", f"Marking for deletion Pod {pod.key}")
        await self._delete(pod, None)
        return None

    # Pods that cannot end ----------------------------------------------------------------------------------------------------

    async def _collect(self, key: str) -> float | None:
        if key == _ENDED:
            for pod in desired.surplus(self._pods.table.by("ended", True), self._most_ended):
                await self._delete(pod, 0)
            return None
        names = {node.name for node in self._nodes.table.snapshot()}
        orphans = [pod for pod in self._pods.table.snapshot() if desired.is_orphaned(pod, names)]
        now = self._context.clock()
        self._orphans = {pod.metadata.uid: self._orphans.get(pod.metadata.uid, now) for pod in orphans}
        left = []
        for pod in orphans:
            wait_s = 0.0 if not pod.spec.node_name else self._orphans[pod.metadata.uid] + ORPHAN_S - now
            if wait_s > 0:
                left.append(wait_s)
            elif not pod.spec.node_name or not await self._exists(pod.spec.node_name):
                await self._delete(pod, 0)
        return max(0.1, min(left)) if left else None

    async def _exists(self, name: str) -> bool:
        """Ask the API itself: the table may lag behind."""
        try:
            await self._client.get(NODES, name)
        except ApiError as error:
            if error.not_found:
                return False
            raise
        return True

    async def _delete(self, pod: Pod, grace: int | None) -> None:
        try:
            await self._client.delete(PODS, pod.name, pod.namespace, grace=grace, uid=pod.metadata.uid)
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise
