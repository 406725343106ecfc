"""Which nodes are heard of, and what becomes of Pods on those that are not.

Pure. A node renews its Lease every ten seconds. One whose Lease has not changed for the grace period is unreachable: its
conditions become Unknown, it is tainted, its Pods no longer count as ready, and those that do not tolerate it for longer are
deleted. One under pressure (of its disk, say) is tainted so that no further Pods come; those that are there stay.

Source: https://kubernetes.io/docs/concepts/architecture/nodes/,
https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from podwire.objects import codec
from podwire.objects.core import Node, Pod, Taint
from podwire.views.placement import tolerates
from podwire.workloads.kinds import Tree
from podwire.workloads.times import seconds_left, stamp

ZONE = "topology.kubernetes.io/zone"
UNREACHABLE = "node.kubernetes.io/unreachable"
NOT_READY = "node.kubernetes.io/not-ready"
CORDONED = "node.kubernetes.io/unschedulable"
PRESSURES = {
    "MemoryPressure": "node.kubernetes.io/memory-pressure",
    "DiskPressure": "node.kubernetes.io/disk-pressure",
    "PIDPressure": "node.kubernetes.io/pid-pressure",
    "NetworkUnavailable": "node.kubernetes.io/network-unavailable",
}
"""The taints of conditions that keep Pods away while they are true."""
_CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_MESSAGE = "Kubelet stopped posting node status."


def unknown_conditions(node: Node, now: datetime) -> list[Tree] | None:
    """Give the conditions of a node that is not heard of; None if they say so already."""
    have = {condition.type: condition for condition in node.status.conditions}
    if all(kind in have and have[kind].status == "Unknown" for kind in _CONDITIONS):
        return None
    changed = []
    for kind in _CONDITIONS:
        former = have.get(kind)
        if former is None or former.status != "Unknown":
            beat = former.last_heartbeat_time if former is not None else None
            changed.append(
                {
                    "type": kind,
                    "status": "Unknown",
                    "reason": "NodeStatusUnknown" if former is not None else "NodeStatusNeverUpdated",
                    "message": _MESSAGE,
                    "lastTransitionTime": stamp(now),
                    "lastHeartbeatTime": beat or stamp(now),
                }
            )
    return changed


def heartbeat(node: Node) -> tuple[str, str | None] | None:
    """Give what a node last said of itself, None if it is the word of others (Unknown) or nothing."""
    ready = next((condition for condition in node.status.conditions if condition.type == "Ready"), None)
    return (ready.status, ready.last_heartbeat_time) if ready is not None and ready.status != "Unknown" else None


def taints(node: Node, now: datetime) -> list[Tree] | None:
    """Give the taints that a node should have for its conditions and its being cordoned; None if it has them."""
    states = {condition.type: condition.status for condition in node.status.conditions}
    ready = states.get("Ready", "Unknown")
    wanted = {
        (UNREACHABLE, "NoSchedule"): ready == "Unknown",
        (UNREACHABLE, "NoExecute"): ready == "Unknown",
        (NOT_READY, "NoSchedule"): ready == "False",
        (NOT_READY, "NoExecute"): ready == "False",
        (CORDONED, "NoSchedule"): node.spec.unschedulable,
        **{(key, "NoSchedule"): states.get(kind) == "True" for kind, key in PRESSURES.items()},
    }
    kept = [taint for taint in node.spec.taints if wanted.get((taint.key, taint.effect), True)]
    have = {(taint.key, taint.effect) for taint in node.spec.taints}
    added = [
        Taint(key=key, effect=effect, time_added=stamp(now)) for (key, effect), yes in wanted.items() if yes and (key, effect) not in have
    ]
    if not added and len(kept) == len(node.spec.taints):
        return None
    return [codec.tree(taint) for taint in (*kept, *added)]


def eviction_s(pod: Pod, taints: Iterable[Taint], now: datetime) -> float | None:
    """Give the seconds until a Pod must leave its node: 0.0 for now, None for never."""
    waits: list[float] = []
    for taint in taints:
        if taint.effect != "NoExecute":
            continue
        tolerated = [one for one in pod.spec.tolerations if tolerates(one, taint)]
        if not tolerated:
            return 0.0
        limits = [one.toleration_seconds for one in tolerated if one.toleration_seconds is not None]
        if limits and len(limits) == len(tolerated):
            waits.append(seconds_left(taint.time_added, max(0, min(limits)), now))
    return min(waits) if waits else None


def unready_condition(pod: Pod, now: datetime) -> Tree | None:
    """Give the Ready condition of a Pod whose node is not heard of; None if it is not ready anyway."""
    if not pod.ready:
        return None
    return {"type": "Ready", "status": "False", "reason": "NodeNotReady", "lastTransitionTime": stamp(now)}


def surplus(ended: Sequence[Pod], most: int) -> list[Pod]:
    """Give the Pods to remove of those that have ended, so that no more are left than may be: the oldest ones."""
    waiting = [pod for pod in ended if not pod.terminating]
    return sorted(waiting, key=lambda pod: (pod.metadata.creation_timestamp or "", pod.key))[: max(0, len(ended) - most)]


def is_orphaned(pod: Pod, nodes: Iterable[str]) -> bool:
    """Say whether a Pod can never end by itself: its node does not exist, or it was told to end before it had one."""
    if pod.spec.node_name:
        return pod.spec.node_name not in nodes
    return pod.terminating
