"""Watches PodDisruptionBudgets, Pods, and what says how many Pods there should be; writes the status of budgets."""

from __future__ import annotations

from typing import Any

from podwire.client.informer import Informer
from podwire.daemon.context import Context
from podwire.objects.core import Pod
from podwire.objects.meta import OwnerReference
from podwire.objects.policy import PodDisruptionBudget
from podwire.objects.resources import POD_DISRUPTION_BUDGETS, PODS, Resource
from podwire.workloads import kinds, work
from podwire.workloads.disruption import desired

UNMANAGED = (
    "Pods selected by this PodDisruptionBudget were found to be unmanaged. As a result, the status of the PDB cannot be calculated "
    'correctly, which may result in undefined behavior. To account for these pods please set ".spec.minAvailable" field of the PDB to '
    "an integer value."
)
_SIZED: dict[str, Resource[Any]] = {
    "Deployment": kinds.TREE_DEPLOYMENTS,
    "ReplicaSet": kinds.TREE_REPLICA_SETS,
    "ReplicationController": kinds.TREE_REPLICATION_CONTROLLERS,
    "StatefulSet": kinds.TREE_STATEFUL_SETS,
}


class DisruptionBudgets:
    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._events = context.recorder("controllermanager")
        self._budgets = context.informer(POD_DISRUPTION_BUDGETS, indexes={"namespace": lambda one: [one.namespace]})
        self._pods = context.informer(PODS, indexes={"namespace": lambda one: [one.namespace]})
        self._sized: dict[str, Informer[Any]] = {kind: context.informer(resource) for kind, resource in _SIZED.items()}
        self._work = work.reconciler(context, "poddisruptionbudgets", self._operate)
        self._budgets.subscribe(self._budget_changed)
        self._pods.subscribe(self._pod_changed)
        for informer in self._sized.values():
            informer.subscribe(self._size_changed)

    async def start(self) -> None:
        informers: list[Informer[Any]] = [self._budgets, self._pods, *self._sized.values()]
        await work.start(self._context, self._work, "poddisruptionbudgets", informers)

    def _budget_changed(self, _old: PodDisruptionBudget | None, new: PodDisruptionBudget | None) -> None:
        if new is not None:
            self._work.mark(new.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        for budget in self._budgets.table.by("namespace", (new or old or Pod()).namespace):
            if desired.selected(budget, [pod for pod in (old, new) if pod is not None]):
                self._work.mark(budget.key)

    def _size_changed(self, old: Any, new: Any) -> None:
        if old is None or new is None or old.spec.replicas != new.spec.replicas:
            for budget in self._budgets.table.by("namespace", (new or old).namespace):
                self._work.mark(budget.key)

    def _size(self, namespace: str, owner: OwnerReference) -> tuple[str, int] | None:
        informer = self._sized.get(owner.kind)
        found = informer.table.get(f"{namespace}/{owner.name}") if informer is not None else None
        if found is None or found.metadata.uid != owner.uid:
            return None
        above = kinds.controller_of(found.metadata)
        return (above and self._size(namespace, above)) or (owner.uid, found.spec.replicas)

    async def _operate(self, key: str) -> float | None:
        budget = self._budgets.table.get(key)
        if budget is None:
            return None
        pods = desired.selected(budget, self._pods.table.by("namespace", budget.namespace))
        if not pods:
            self._events.event(budget, "Normal", "NoPods", "No matching pods found")
        elif desired.unmanaged(budget, pods):
            self._events.event(budget, "Warning", "UnmanagedPods", UNMANAGED)
        wanted, again_s = desired.status(budget, pods, self._size, self._context.now())
        if desired.changed(budget, wanted):
            # A merge patch takes out what it names null; the version keeps a grant that we have not seen from being lost.
            gone = dict.fromkeys(budget.status.disrupted_pods.keys() - wanted["disruptedPods"].keys())
            patch = {"status": wanted | {"disruptedPods": wanted["disruptedPods"] | gone}}
            patch["metadata"] = {"resourceVersion": budget.metadata.resource_version}
            await self._client.patch(POD_DISRUPTION_BUDGETS, budget.name, budget.namespace, patch, subresource="status")
        return again_s
