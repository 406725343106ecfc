"""How many Pods a ReplicaSet lacks or has too many, and which of them go first.

Pure. Source: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from podwire.objects.core import Condition, Pod
from podwire.objects.meta import OwnerReference
from podwire.objects.resources import REPLICA_SETS
from podwire.workloads.kinds import ReplicaSet, Tree, controller_of, owned_by
from podwire.workloads.times import NEVER, parse, seconds_left, stamp

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASES = {"Pending": 0, "Unknown": 1, "": 1, "Running": 2}


@dataclass(frozen=True)
class Plan:
    """Patch the owners of ``adopt`` and ``release``, make ``create`` Pods, delete ``delete``; ``again_s`` says when to look again."""

    adopt: tuple[Pod, ...] = ()
    release: tuple[Pod, ...] = ()
    create: int = 0
    delete: tuple[Pod, ...] = ()
    again_s: float | None = None


def is_active(pod: Pod) -> bool:
    """A Pod that counts: neither ended nor told to end."""
    return pod.status.phase not in ("Succeeded", "Failed") and not pod.terminating


def ready_since(pod: Pod) -> datetime | None:
    for condition in pod.status.conditions:
        if condition.type == "Ready" and condition.status == "True":
            return parse(condition.last_transition_time) or parse(pod.metadata.creation_timestamp) or NEVER
    return None


def is_available(pod: Pod, min_ready_seconds: int, now: datetime) -> bool:
    """Ready for as long as the ReplicaSet asks."""
    since = ready_since(pod)
    return since is not None and (min_ready_seconds == 0 or since <= now - timedelta(seconds=min_ready_seconds))


def decide(replica_set: ReplicaSet, pods: Iterable[Pod], now: datetime) -> Plan:
    """``pods`` are those that the ReplicaSet controls, and those of its namespace that nobody controls."""
    spec = replica_set.spec
    mine: list[Pod] = []
    adopt: list[Pod] = []
    release: list[Pod] = []
    for pod in pods:
        owner = controller_of(pod.metadata)
        fits = spec.selector.matches(pod.metadata.labels)
        if owner is not None and owner.uid == replica_set.metadata.uid:
            (mine if fits else release).append(pod)
        elif owner is None and fits and is_active(pod) and replica_set.metadata.deletion_timestamp is None:
            adopt.append(pod)
            mine.append(pod)
    active = [pod for pod in mine if is_active(pod)]
    lacking = spec.replicas - len(active)
    ending = replica_set.metadata.deletion_timestamp is not None
    waits = [
        seconds_left(stamp(since), spec.min_ready_seconds, now)
        for pod in active
        if spec.min_ready_seconds and (since := ready_since(pod)) is not None and not is_available(pod, spec.min_ready_seconds, now)
    ]
    return Plan(
        adopt=tuple(adopt),
        release=tuple(release),
        create=max(0, lacking) if not ending else 0,
        delete=tuple(victims(active, -lacking)) if lacking < 0 and not ending else (),
        again_s=max(0.1, min(waits)) if waits else None,
    )


def victims(pods: Sequence[Pod], count: int) -> list[Pod]:
    """Choose the Pods to delete: those whose loss costs least first, as the ReplicaSet controller of Kubernetes ranks them."""
    on_node = Counter(pod.spec.node_name for pod in pods)

    def rank(pod: Pod) -> tuple[object, ...]:
        since = ready_since(pod)
        restarts = max((status.restart_count for status in pod.status.container_statuses), default=0)
        created = parse(pod.metadata.creation_timestamp) or NEVER
        return (
            bool(pod.spec.node_name),  # not yet on a node
            _PHASES.get(pod.status.phase, 2),  # not yet running
            since is not None,  # not ready
            _deletion_cost(pod),  # cheap by annotation
            -on_node[pod.spec.node_name],  # with many beside it on its node
            -(since or NEVER).timestamp() if since and since != NEVER else 0.0,  # ready for a short time
            -restarts,  # often restarted
            -created.timestamp() if created != NEVER else 0.0,  # young
            pod.name,
        )

    return sorted(pods, key=rank)[:count]


def _deletion_cost(pod: Pod) -> int:
    try:
        return int(pod.metadata.annotations.get(DELETION_COST, "0"))
    except ValueError:
        return 0


def status(replica_set: ReplicaSet, pods: Iterable[Pod], failure: str, now: datetime) -> Tree:
    """Give the status as it should be. ``failure``: why the last creation or deletion of Pods was refused, "" if it was not."""
    spec = replica_set.spec
    mine = [pod for pod in pods if is_active(pod) and _belongs(pod, replica_set)]
    labels = (spec.template.get("metadata") or {}).get("labels") or {}
    wanted: Tree = {
        "replicas": len(mine),
        "fullyLabeledReplicas": sum(labels.items() <= pod.metadata.labels.items() for pod in mine),
        "readyReplicas": sum(pod.ready for pod in mine),
        "availableReplicas": sum(is_available(pod, spec.min_ready_seconds, now) for pod in mine),
        "observedGeneration": replica_set.metadata.generation,
    }
    former = next((condition for condition in replica_set.status.conditions if condition.type == "ReplicaFailure"), None)
    wanted["conditions"] = [_failure(failure, former, now)] if failure else []
    return wanted


def _belongs(pod: Pod, replica_set: ReplicaSet) -> bool:
    owner = controller_of(pod.metadata)
    return owner is not None and owner.uid == replica_set.metadata.uid


def _failure(message: str, former: Condition | None, now: datetime) -> Tree:
    since = former.last_transition_time if former is not None and former.status == "True" else None
    return {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": "FailedCreate",
        "message": message,
        "lastTransitionTime": since or stamp(now),
    }


def changed(replica_set: ReplicaSet, wanted: Tree) -> bool:
    """Say whether the status that the API has differs from the one that is wanted."""
    have = replica_set.status
    return (
        wanted["replicas"] != have.replicas
        or wanted["fullyLabeledReplicas"] != have.fully_labeled_replicas
        or wanted["readyReplicas"] != have.ready_replicas
        or wanted["availableReplicas"] != have.available_replicas
        or wanted["observedGeneration"] != have.observed_generation
        or [condition["message"] for condition in wanted["conditions"]] != [condition.message for condition in have.conditions]
    )


def pod_of(replica_set: ReplicaSet, name: str) -> Tree:
    """Make a Pod from the template, under a name that the caller chose."""
    template = replica_set.spec.template
    meta = template.get("metadata") or {}
    head = {"name": name, "generateName": f"{replica_set.name}-", "namespace": replica_set.namespace}
    copied = {field: meta[field] for field in ("labels", "annotations", "finalizers") if meta.get(field)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": head | copied | {"ownerReferences": [owned_by(REPLICA_SETS, replica_set.metadata)]},
        "spec": template.get("spec") or {},
    }


def adoption(replica_set: ReplicaSet, pod: Pod) -> Tree:
    """Make the patch that gives a Pod to the ReplicaSet; refused by the API if the Pod is not the one we saw."""
    others = [owner for owner in pod.metadata.owner_references if owner.uid != replica_set.metadata.uid]
    return {
        "metadata": {"uid": pod.metadata.uid, "ownerReferences": [*map(_reference, others), owned_by(REPLICA_SETS, replica_set.metadata)]}
    }


def release(replica_set: ReplicaSet, pod: Pod) -> Tree:
    """Make the patch that takes a Pod, which the selector no longer matches, from the ReplicaSet."""
    others = [owner for owner in pod.metadata.owner_references if owner.uid != replica_set.metadata.uid]
    return {"metadata": {"uid": pod.metadata.uid, "ownerReferences": [*map(_reference, others)] or None}}


def _reference(owner: OwnerReference) -> Tree:
    tree: Tree = {"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid}
    return tree | ({"controller": True} if owner.controller else {}) | ({"blockOwnerDeletion": True} if owner.block_owner_deletion else {})
