"""Watches Deployments and their ReplicaSets, performs the step that was decided, writes revision and status."""

from __future__ import annotations

from podwire.client.errors import ApiError
from podwire.daemon.context import Context
from podwire.objects.core import Pod
from podwire.objects.resources import DEPLOYMENTS, PODS
from podwire.workloads import work
from podwire.workloads.deployments import desired, scaling, status
from podwire.workloads.kinds import TREE_DEPLOYMENTS, TREE_REPLICA_SETS, Deployment, ReplicaSet, Tree, as_written, controller_of, owned_by


class Deployments:
    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._events = context.recorder("deployment-controller")
        self._deployments = context.informer(TREE_DEPLOYMENTS)
        self._sets = context.informer(TREE_REPLICA_SETS, indexes={"controller": _controller, "orphan": _orphan})
        self._pods = context.informer(PODS, indexes={"controller": _controller})
        self._work = work.reconciler(context, "deployments", self._operate)
        self._deployments.subscribe(self._deployment_changed)
        self._sets.subscribe(self._set_changed)
        self._pods.subscribe(self._pod_changed)

    async def start(self) -> None:
        await work.start(self._context, self._work, "deployments", [self._deployments, self._sets, self._pods])

    def _deployment_changed(self, old: Deployment | None, new: Deployment | None) -> None:
        value = new or old
        if value is not None:
            self._work.mark(value.key)

    def _set_changed(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        for value in (old, new):
            if value is None:
                continue
            owner = controller_of(value.metadata)
            if owner is not None and owner.kind == "Deployment":
                self._work.mark(f"{value.namespace}/{owner.name}")
            elif owner is None:
                for candidate in self._deployments.table.snapshot():
                    if candidate.namespace == value.namespace and candidate.spec.selector.matches(value.metadata.labels):
                        self._work.mark(candidate.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        """Strategy Recreate waits for the end of the last Pod."""
        if new is not None or old is None:
            return
        owner = controller_of(old.metadata)
        replica_set = self._sets.table.get(f"{old.namespace}/{owner.name}") if owner is not None and owner.kind == "ReplicaSet" else None
        above = controller_of(replica_set.metadata) if replica_set is not None else None
        if above is not None:
            self._work.mark(f"{old.namespace}/{above.name}")

    async def _operate(self, key: str) -> float | None:
        deployment = self._deployments.table.get(key)
        if deployment is None:
            return None
        sets = self._sets.table.snapshot()
        orphans = [one for one in sets.by("orphan", deployment.namespace) if deployment.spec.selector.matches(one.metadata.labels)]
        mine = [*sets.by("controller", deployment.metadata.uid), *orphans]
        new = desired.newest(deployment, mine)
        old_pods = any(
            pod.status.phase not in ("Succeeded", "Failed")
            for one in mine
            if one is not new
            for pod in self._pods.table.by("controller", one.metadata.uid)
        )
        plan = desired.decide(deployment, mine, old_pods=old_pods)
        for orphan in plan.adopt:
            patch = {"metadata": {"uid": orphan.metadata.uid, "ownerReferences": [owned_by(DEPLOYMENTS, deployment.metadata)]}}
            await self._client.patch(TREE_REPLICA_SETS, orphan.name, orphan.namespace, patch)
        if plan.create is not None:
            await self._create(deployment, plan.create)
        annotations = {one.key: wanted for one, wanted in plan.annotate}
        for step in plan.scale:
            await self._scale(deployment, step, annotations.pop(step.replica_set.key, {}))
        for replica_set, _ in plan.annotate:
            if replica_set.key in annotations:
                await self._patch_set(replica_set, {}, annotations[replica_set.key])
        for replica_set in plan.remove:
            await self._client.delete(TREE_REPLICA_SETS, replica_set.name, replica_set.namespace, uid=replica_set.metadata.uid)
        return await self._report(deployment, plan)

    async def _create(self, deployment: Deployment, tree: Tree) -> None:
        name, replicas = tree["metadata"]["name"], tree["spec"]["replicas"]
        try:
            await self._client.create(TREE_REPLICA_SETS, tree)
        except ApiError as error:
            if not error.already_exists:
                self._events.event(
                    deployment, "Warning", "ReplicaSetCreateError", f'Failed to create new replica set "{name}": {error.message}'
                )
                raise
            await self._collided(deployment, name)
            return
        if replicas:
            self._events.event(deployment, "Normal", "ScalingReplicaSet", f"Scaled up replica set {name} from 0 to {replicas}")

    async def _collided(self, deployment: Deployment, name: str) -> None:
        """The name is taken: by the ReplicaSet that the watch has not shown yet, or by one of another template: the hash must differ."""
        there = await self._client.get(TREE_REPLICA_SETS, name, deployment.namespace)
        owner = controller_of(there.metadata)
        if owner is not None and owner.uid == deployment.metadata.uid and desired.newest(deployment, [there]) is not None:
            return
        count = (deployment.status.collision_count or 0) + 1
        await self._client.patch(
            TREE_DEPLOYMENTS, deployment.name, deployment.namespace, {"status": {"collisionCount": count}}, subresource="status"
        )

    async def _scale(self, deployment: Deployment, step: scaling.Scale, more: dict[str, str]) -> None:
        one, size = step.replica_set, step.replicas
        annotations = scaling.size_annotations(deployment, desired.limits(deployment)) | more
        await self._patch_set(one, {"spec": {"replicas": size}}, annotations)
        if size != one.spec.replicas:
            direction = "up" if size > one.spec.replicas else "down"
            text = f"Scaled {direction} replica set {one.name} from {one.spec.replicas} to {size}"
            self._events.event(deployment, "Normal", "ScalingReplicaSet", text)

    async def _patch_set(self, one: ReplicaSet, patch: Tree, annotations: dict[str, str]) -> None:
        """Patch a ReplicaSet if it still is as it was decided on: a conflict means to decide again."""
        meta = {"resourceVersion": one.metadata.resource_version, "annotations": annotations}
        await self._client.patch(TREE_REPLICA_SETS, one.name, one.namespace, patch | {"metadata": meta})

    async def _report(self, deployment: Deployment, plan: desired.Plan) -> float | None:
        if plan.revision and deployment.metadata.annotations.get(desired.REVISION) != plan.revision:
            patch: Tree = {"metadata": {"annotations": {desired.REVISION: plan.revision}}}
            await self._client.patch(TREE_DEPLOYMENTS, deployment.name, deployment.namespace, patch)
        wanted, again_s = status.status(deployment, plan, self._context.now())
        if status.changed(deployment, wanted):
            await self._client.patch(
                TREE_DEPLOYMENTS,
                deployment.name,
                deployment.namespace,
                {"status": as_written(wanted, "availableReplicas", "replicas")},
                subresource="status",
            )
        return again_s


def _controller(value: ReplicaSet | Pod) -> list[str]:
    owner = controller_of(value.metadata)
    return [owner.uid] if owner is not None else []


def _orphan(value: ReplicaSet) -> list[str]:
    return [] if controller_of(value.metadata) is not None else [value.namespace]
