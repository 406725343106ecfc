"""How many Pods a ReplicaSet lacks or has too many.

Pure. A ReplicationController is decided on as the ReplicaSet that it would be.
 Source: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from podwire.objects.core import Condition, Pod
from podwire.workloads import ownership
from podwire.workloads.availability import is_active, is_available, until_available_s
from podwire.workloads.kinds import ReplicaSet, Tree, controller_of
from podwire.workloads.ranking import victims
from podwire.workloads.times import stamp


@dataclass(frozen=True)
class Plan:
    """Patch the owners of ``adopt`` and ``release``, make ``create`` Pods, delete ``delete``; ``again_s`` says when to look again."""

    adopt: tuple[Pod, ...] = ()
    release: tuple[Pod, ...] = ()
    create: int = 0
    delete: tuple[Pod, ...] = ()
    again_s: float | None = None


def decide(replica_set: ReplicaSet, pods: Iterable[Pod], now: datetime) -> Plan:
    """``pods`` are those that the ReplicaSet controls, and those of its namespace that nobody controls."""
    spec = replica_set.spec
    claim = ownership.claim(replica_set, pods, lambda pod: spec.selector.matches(pod.metadata.labels))
    active = [pod for pod in claim.mine if is_active(pod)]
    lacking = spec.replicas - len(active)
    ending = replica_set.metadata.deletion_timestamp is not None
    return Plan(
        adopt=claim.adopt,
        release=claim.release,
        create=max(0, lacking) if not ending else 0,
        delete=tuple(victims(active, -lacking)) if lacking < 0 and not ending else (),
        again_s=until_available_s(active, spec.min_ready_seconds, now),
    )


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
