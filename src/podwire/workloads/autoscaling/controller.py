"""Watches HorizontalPodAutoscalers; every 15 seconds asks what their Pods use, and changes the scale of what they speak of.

What was recommended and changed of late is kept in memory: a controller that begins anew knows the present number alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import msgspec

from podwire.client.errors import ApiError, Unreachable
from podwire.daemon.context import Context
from podwire.objects.autoscaling import HorizontalPodAutoscaler
from podwire.objects.meta import Object
from podwire.objects.quantities import exact
from podwire.objects.resources import (
    DEPLOYMENTS,
    HORIZONTAL_POD_AUTOSCALERS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    STATEFUL_SETS,
    Resource,
)
from podwire.workloads import discovery, work
from podwire.workloads.autoscaling import desired
from podwire.workloads.autoscaling.desired import Condition, History, Plan, Scale
from podwire.workloads.autoscaling.measures import PodUse

_USUAL: dict[tuple[str, str], Resource[Any]] = {
    (one.group, one.kind): one for one in (DEPLOYMENTS, REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS)
}
_POD_METRICS = "/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods"


class _Refused(Exception):
    """The target's scale cannot be read; the condition says so."""

    def __init__(self, condition: Condition) -> None:
        super().__init__(condition.message)
        self.condition = condition


class Autoscalers:
    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._events = context.recorder("horizontal-pod-autoscaler")
        self._scalers = context.informer(HORIZONTAL_POD_AUTOSCALERS)
        self._history: dict[str, History] = {}  # by uid
        self._uids: dict[str, str] = {}
        self._work = work.reconciler(context, "autoscaling", self._operate)
        self._scalers.subscribe(self._changed)

    async def start(self) -> None:
        await work.start(self._context, self._work, "autoscaling", [self._scalers])

    def _changed(self, old: HorizontalPodAutoscaler | None, new: HorizontalPodAutoscaler | None) -> None:
        value = new or old
        if value is not None and (old is None or new is None or old.spec != new.spec):  # its own status is no news
            self._work.mark(value.key)

    async def _operate(self, key: str) -> float | None:
        scaler = self._scalers.table.get(key)
        uid = self._uids.get(key)
        if uid is not None and (scaler is None or scaler.metadata.uid != uid):
            self._history.pop(uid, None)
            del self._uids[key]
        if scaler is None:
            return None
        self._uids[key] = scaler.metadata.uid
        now = self._context.now()
        try:
            path, scale = await self._scale(scaler)
        except _Refused as refused:
            plan = Plan(None, "", scaler.status.desired_replicas, (refused.condition,))
            self._events.event(scaler, "Warning", refused.condition.reason, str(refused))
            await self._say(scaler, Scale(0, scaler.status.current_replicas), plan, now)
            return desired.PERIOD_S
        history = self._history.get(scaler.metadata.uid) or History(((now, scale.wanted),))
        pods = await self._client.list(PODS, scaler.namespace, labels=scale.selector)
        used = await self._used(scaler.namespace, scale.selector)
        plan = desired.decide(scaler, scale, pods, used, history, now)
        for reason, message in plan.warnings:
            self._events.event(scaler, "Warning", reason, message)
        self._history[scaler.metadata.uid] = plan.history
        rescaled = plan.replicas is not None and await self._rescale(scaler, path, scale, plan, now)
        await self._say(scaler, scale, plan, now, rescaled=rescaled)
        return desired.PERIOD_S

    async def _scale(self, scaler: HorizontalPodAutoscaler) -> tuple[str, Scale]:
        """Read the target's scale. Raises _Refused."""
        target = scaler.spec.scale_target_ref
        try:
            resource = await self._resource(target.api_version, target.kind)
            path = resource.path(scaler.namespace, target.name, "scale")
            tree = msgspec.json.decode(await self._client.request("GET", path))
        except (ApiError, LookupError) as error:
            words = f"the HPA controller was unable to get the target's current scale: {error}"
            raise _Refused(Condition("AbleToScale", "False", "FailedGetScale", words)) from error
        scale = Scale(tree.get("spec", {}).get("replicas", 0), tree["status"].get("replicas", 0), tree["status"].get("selector", ""))
        if not scale.selector:
            words = "the HPA target's scale is missing a selector"
            raise _Refused(Condition("ScalingActive", "False", "InvalidSelector", words))
        return path, scale

    async def _resource(self, api_version: str, kind: str) -> Resource[Any]:
        group = api_version.rpartition("/")[0]
        if (found := _USUAL.get((group, kind))) is not None:
            return found
        served: Sequence[tuple[Resource[Object], Any]] = await discovery.kinds(self._client)
        for resource, _ in served:
            if (resource.group, resource.kind) == (group, kind):
                return resource
        raise LookupError(f'no matches for kind "{kind}" in group "{group}"')

    async def _used(self, namespace: str, selector: str) -> dict[str, PodUse]:
        """Ask what Pods use; where nobody measures, nothing is known."""
        try:
            body = await self._client.request("GET", _POD_METRICS.format(namespace), query={"labelSelector": selector})
        except (ApiError, Unreachable) as error:
            self._context.log.getChild("autoscaling").info("metrics of %s: %s", namespace, error)
            return {}
        return {one["metadata"]["name"]: _use(one) for one in msgspec.json.decode(body)["items"]}

    async def _rescale(self, scaler: HorizontalPodAutoscaler, path: str, scale: Scale, plan: Plan, now: datetime) -> bool:
        try:
            body = {"spec": {"replicas": plan.replicas}}
            await self._client.request("PATCH", path, body, content_type="application/merge-patch+json")
        except ApiError as error:
            words = f"New size: {plan.replicas}; reason: {plan.reason}; error: {error.message}"
            self._events.event(scaler, "Warning", "FailedRescale", words)
            raise
        self._events.event(scaler, "Normal", "SuccessfulRescale", f"New size: {plan.replicas}; reason: {plan.reason}")
        change = (plan.replicas or 0) - scale.wanted
        self._history[scaler.metadata.uid] = desired.scaled(scaler, plan.history, change, now)
        return True

    async def _say(self, scaler: HorizontalPodAutoscaler, scale: Scale, plan: Plan, now: datetime, *, rescaled: bool = False) -> None:
        if rescaled:
            words = f"the HPA controller was able to update the target scale to {plan.replicas}"
            others = [one for one in plan.conditions if one.type != "AbleToScale"]
            able = Condition("AbleToScale", "True", "SucceededRescale", words)
            plan = Plan(plan.replicas, plan.reason, plan.desired, (able, *others), plan.metrics)
        wanted = desired.status(scaler, scale, plan, now, rescaled=rescaled)
        await self._client.patch(HORIZONTAL_POD_AUTOSCALERS, scaler.name, scaler.namespace, {"status": wanted}, subresource="status")


def _use(tree: dict[str, Any]) -> PodUse:
    window = timedelta(seconds=float(tree["window"].removesuffix("s")))
    containers: dict[str, dict[str, Fraction]] = {
        one["name"]: {name: exact(amount) for name, amount in one["usage"].items()} for one in tree["containers"]
    }
    return PodUse(datetime.fromisoformat(tree["timestamp"]), window.total_seconds(), containers)
