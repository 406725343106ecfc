"""What a Deployment says of itself: counts, and the conditions Available, Progressing and ReplicaFailure.

Pure. ``kubectl rollout status`` reads the counts and ends with an error at the reason ProgressDeadlineExceeded.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from podwire.objects import codec
from podwire.objects.apps import DeploymentStatus
from podwire.workloads.deployments.desired import Plan, limits
from podwire.workloads.kinds import Deployment, ReplicaSet, Tree
from podwire.workloads.times import seconds_left, stamp

_COUNTS = {
    "observedGeneration": "observed_generation",
    "replicas": "replicas",
    "updatedReplicas": "updated_replicas",
    "readyReplicas": "ready_replicas",
    "availableReplicas": "available_replicas",
    "unavailableReplicas": "unavailable_replicas",
}


def status(deployment: Deployment, plan: Plan, now: datetime) -> tuple[Tree, float | None]:
    """Give the status as it should be, and the seconds after which the progress deadline wants another look."""
    new, replica_sets = plan.new, plan.all
    available = sum(one.status.available_replicas for one in replica_sets)
    wanted: Tree = {
        "observedGeneration": deployment.metadata.generation,
        "replicas": sum(one.status.replicas for one in replica_sets),
        "updatedReplicas": new.status.replicas if new else 0,
        "readyReplicas": sum(one.status.ready_replicas for one in replica_sets),
        "availableReplicas": available,
        "unavailableReplicas": max(0, sum(one.spec.replicas for one in replica_sets) - available) or None,  # never said to be 0
    }
    conditions = {condition.type: codec.tree(condition) for condition in deployment.status.conditions}
    _available(deployment, conditions, available, now)
    again_s = _progressing(deployment, plan, wanted, conditions, now)
    _failure(replica_sets, conditions, now)
    wanted["conditions"] = list(conditions.values())
    return wanted, again_s


def changed(deployment: Deployment, wanted: Tree) -> bool:
    """Say whether the status that the API has differs from the one that is wanted."""
    have = deployment.status
    if any((wanted[name] or 0) != getattr(have, field) for name, field in _COUNTS.items()):
        return True
    return bool(wanted["conditions"] != [codec.tree(condition) for condition in have.conditions])


def is_complete(deployment: Deployment, status: Tree | DeploymentStatus) -> bool:
    """All Pods are of the current template, available, and no others are left."""
    tree = codec.tree(status) if isinstance(status, DeploymentStatus) else status
    wanted = deployment.spec.replicas
    return bool(tree.get("updatedReplicas", 0) == tree.get("replicas", 0) == tree.get("availableReplicas", 0) == wanted)


def _set(conditions: dict[str, Tree], kind: str, value: str, reason: str, message: str, now: datetime, *, refresh: bool = False) -> None:
    former = conditions.get(kind)
    if former is not None and former.get("status") == value and former.get("reason") == reason and not refresh:
        return
    moved = former is None or former.get("status") != value
    conditions[kind] = {
        "type": kind,
        "status": value,
        "reason": reason,
        "message": message,
        "lastUpdateTime": stamp(now),
        "lastTransitionTime": stamp(now) if moved or former is None else former.get("lastTransitionTime", stamp(now)),
    }


def _available(deployment: Deployment, conditions: dict[str, Tree], available: int, now: datetime) -> None:
    minimum = deployment.spec.replicas - limits(deployment)[1]
    if available >= minimum:
        _set(conditions, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.", now)
    else:
        _set(conditions, "Available", "False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.", now)


def _progressing(deployment: Deployment, plan: Plan, wanted: Tree, conditions: dict[str, Tree], now: datetime) -> float | None:
    former = conditions.get("Progressing", {})
    if deployment.spec.paused:
        _set(conditions, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused", now)
        return None
    if former.get("reason") == "DeploymentPaused":
        _set(conditions, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed", now)
        former = conditions["Progressing"]
    name = plan.new.name if plan.new else plan.create["metadata"]["name"] if plan.create else deployment.name
    about = f'ReplicaSet "{name}"'
    if plan.create is not None:
        _set(conditions, "Progressing", "True", "NewReplicaSetCreated", f'Created new replica set "{name}"', now, refresh=True)
    elif is_complete(deployment, wanted):
        _set(conditions, "Progressing", "True", "NewReplicaSetAvailable", f"{about} has successfully progressed.", now)
        return None
    elif _moves(deployment, wanted):
        _set(conditions, "Progressing", "True", "ReplicaSetUpdated", f"{about} is progressing.", now, refresh=True)
    elif not former and plan.new is not None:
        _set(conditions, "Progressing", "True", "FoundNewReplicaSet", f'Found new replica set "{name}"', now)
    elif former.get("reason") in ("NewReplicaSetAvailable", "ProgressDeadlineExceeded"):
        return None
    left = seconds_left(conditions.get("Progressing", {}).get("lastUpdateTime"), deployment.spec.progress_deadline_seconds, now)
    if left > 0:
        return left + 1.0
    _set(conditions, "Progressing", "False", "ProgressDeadlineExceeded", f"{about} has timed out progressing.", now)
    return None


def _moves(deployment: Deployment, wanted: Tree) -> bool:
    """Say whether the counts show progress against those of the last status."""
    have = deployment.status
    old_left = wanted["replicas"] - wanted["updatedReplicas"]
    return bool(
        wanted["updatedReplicas"] > have.updated_replicas
        or old_left < have.replicas - have.updated_replicas
        or wanted["readyReplicas"] > have.ready_replicas
        or wanted["availableReplicas"] > have.available_replicas
    )


def _failure(replica_sets: Sequence[ReplicaSet], conditions: dict[str, Tree], now: datetime) -> None:
    failing = [one for replica_set in replica_sets for one in replica_set.status.conditions if one.type == "ReplicaFailure"]
    if failing:
        _set(conditions, "ReplicaFailure", failing[0].status, failing[0].reason, failing[0].message, now)
    else:
        conditions.pop("ReplicaFailure", None)
