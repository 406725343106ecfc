"""Autoscalers: the controller on a real API server whose nodes measure nothing."""

from __future__ import annotations

from typing import Any

import running_apiserver
from podwire.client.api import Client
from podwire.objects.resources import DEPLOYMENTS, EVENTS, HORIZONTAL_POD_AUTOSCALERS
from running_controllers import cluster, namespace, until


def scaler(least: int, most: int, kind: str = "Deployment") -> dict[str, Any]:
    target = {"apiVersion": "apps/v1", "kind": kind, "name": "web"}
    return {"metadata": {"name": "web"}, "spec": {"scaleTargetRef": target, "minReplicas": least, "maxReplicas": most}}


async def conditions(client: Client, where: str) -> dict[str, tuple[str, str]]:
    found = await client.get(HORIZONTAL_POD_AUTOSCALERS, "web", where)
    return {one.type: (one.status, one.reason) for one in found.status.conditions}


async def events(client: Client, where: str) -> dict[str, str]:
    return {one.reason: one.message for one in await client.list(EVENTS, where) if one.involved_object.name == "web"}


async def test_bounds_hold_without_metrics_and_what_is_missing_is_said(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, _):
        where = await namespace(client, "scaled")
        await client.create(HORIZONTAL_POD_AUTOSCALERS, scaler(1, 2), where)

        async def no_scale() -> bool:
            return (await conditions(client, where)).get("AbleToScale") == ("False", "FailedGetScale")

        await until(no_scale)
        container = {"name": "c", "image": "nginx", "resources": {"requests": {"cpu": "100m"}}}
        template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
        spec = {"replicas": 5, "selector": {"matchLabels": {"app": "web"}}, "template": template}
        await client.create(DEPLOYMENTS, {"metadata": {"name": "web"}, "spec": spec}, where)
        await client.patch(HORIZONTAL_POD_AUTOSCALERS, "web", where, {"spec": {"maxReplicas": 3}})  # looked at now, not in 15 s

        async def at_most() -> bool:
            return (await client.get(DEPLOYMENTS, "web", where)).spec.replicas == 3

        await until(at_most)
        told = "New size: 3; reason: Current number of replicas above Spec.MaxReplicas"

        async def rescaled() -> bool:
            return (await events(client, where)).get("SuccessfulRescale") == told

        await until(rescaled)
        assert (await conditions(client, where))["AbleToScale"] == ("True", "SucceededRescale")
        await client.patch(HORIZONTAL_POD_AUTOSCALERS, "web", where, {"spec": {"maxReplicas": 4}})

        async def unmeasured() -> bool:
            return (await conditions(client, where)).get("ScalingActive") == ("False", "FailedGetResourceMetric")

        await until(unmeasured)
        assert (await client.get(DEPLOYMENTS, "web", where)).spec.replicas == 3
        await client.patch(DEPLOYMENTS, "web", where, {"spec": {"replicas": 0}})
        await client.patch(HORIZONTAL_POD_AUTOSCALERS, "web", where, {"spec": {"maxReplicas": 5}})

        async def disabled() -> bool:
            return (await conditions(client, where)).get("ScalingActive") == ("False", "ScalingDisabled")

        await until(disabled)
