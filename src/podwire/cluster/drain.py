"""Draining a node: cordon it, and have its Pods move through the eviction API, which obeys PodDisruptionBudgets.

As a node pool's upgrade does it on GKE: Pods of DaemonSets stay, everything else goes, also what no controller makes again.

Source: https://kubernetes.io/docs/tasks/administer-cluster/safely-drain-node/,
https://cloud.google.com/kubernetes-engine/docs/concepts/node-pool-upgrade-strategies
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from podwire.client.api import Client
from podwire.client.errors import ApiError
from podwire.cluster.problem import Problem
from podwire.objects.core import Pod
from podwire.objects.resources import NODES, PODS

_LOOK_AGAIN_S = 0.2
_REFUSED_S = 1.0  # a budget that refuses may allow it when another Pod is ready
_MIRROR = "kubernetes.io/config.mirror"


async def cordon(client: Client, node: str, *, unschedulable: bool = True) -> None:
    """Take the node out of what the scheduler chooses from, or back. Raises ApiError."""
    await client.patch(NODES, node, "", {"spec": {"unschedulable": unschedulable or None}}, kind="strategic")


async def drain(client: Client, node: str, limit_s: float, told: Callable[[str], None]) -> int:
    """Cordon the node and wait until its Pods are gone; gives how many there were. Raises Problem after the limit, ApiError."""
    await cordon(client, node)
    limit = time.monotonic() + limit_s
    first: set[str] = set()
    refused: dict[str, tuple[float, str]] = {}
    while True:
        pods = [pod for pod in await client.list(PODS, fields=f"spec.nodeName={node}") if _must_go(pod)]
        first |= {pod.metadata.uid for pod in pods}
        if not pods:
            return len(first)
        told(f"node {node}: {len(pods)} Pods to go ({pods[0].namespace}/{pods[0].name})")
        if time.monotonic() > limit:
            lines = [f"  {pod.key}" + (f": {refused[pod.metadata.uid][1]}" if pod.metadata.uid in refused else "") for pod in pods]
            raise Problem("\n".join([f"node {node} is cordoned, and after {limit_s:g} s there are Pods on it:", *lines]))
        for pod in pods:
            since, _ = refused.get(pod.metadata.uid, (0.0, ""))
            if not pod.terminating and time.monotonic() - since > _REFUSED_S:
                await _evict(client, pod, refused)
        await asyncio.sleep(_LOOK_AGAIN_S)


def _must_go(pod: Pod) -> bool:
    ended = pod.status.phase in {"Succeeded", "Failed"}
    stays = any(owner.kind == "DaemonSet" and owner.controller for owner in pod.metadata.owner_references)
    return not stays and not ended and _MIRROR not in pod.metadata.annotations


async def _evict(client: Client, pod: Pod, refused: dict[str, tuple[float, str]]) -> None:
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": {"preconditions": {"uid": pod.metadata.uid}},
    }
    try:
        await client.create_subresource(PODS, pod.name, pod.namespace, "eviction", body)
    except ApiError as error:
        if error.status == 429:
            refused[pod.metadata.uid] = (time.monotonic(), error.message)
        elif not (error.not_found or error.conflict):
            raise
