"""Which of a StatefulSet's Pods is made or deleted next.

Pure. Pods are numbered from ``ordinals.start``; a Pod's name is the set's and its number, and there is never a second one of that
name, since the next is made when the last is gone. In order (``OrderedReady``), a step waits for what comes before it: up from the
lowest, down from the highest. In parallel, all are made and deleted at once. An update replaces from the highest down to the
partition, one at a time (or as many as may be unavailable), in either case.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from podwire.objects import codec
from podwire.objects.apps import StatefulSetRetention
from podwire.objects.core import Pod
from podwire.objects.storage import PersistentVolumeClaim
from podwire.workloads import ownership
from podwire.workloads.availability import has_ended, is_available, until_available_s
from podwire.workloads.kinds import TREE_STATEFUL_SETS, StatefulSet, Tree, owned_by
from podwire.workloads.revisions import HASH
from podwire.workloads.shares import share_up

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"
_numbered = re.compile(r"(.*)-([0-9]+)").fullmatch


@dataclass(frozen=True)
class Plan:
    """Patch the owners of ``adopt`` and ``release``, make the Pods of these ordinals and revisions, delete ``delete``."""

    adopt: tuple[Pod, ...] = ()
    release: tuple[Pod, ...] = ()
    create: tuple[tuple[int, str], ...] = ()
    delete: tuple[Pod, ...] = ()
    again_s: float | None = None


@dataclass(frozen=True)
class Revisions:
    """Names of ControllerRevisions: of the template that the set leaves, and of the one that it goes to."""

    current: str
    update: str


def ordinal(stateful_set: StatefulSet, pod: Pod) -> int | None:
    """Give the number of a Pod of this set by its name, None if it is not one of its names."""
    match = _numbered(pod.name)
    return int(match[2]) if match is not None and match[1] == stateful_set.name and str(int(match[2])) == match[2] else None


def decide(stateful_set: StatefulSet, pods: Iterable[Pod], revisions: Revisions, now: datetime) -> Plan:
    """``pods`` are those that the StatefulSet controls, and those of its namespace that nobody controls."""
    selector = stateful_set.spec.selector
    claim = ownership.claim(
        stateful_set, pods, lambda pod: selector.matches(pod.metadata.labels) and ordinal(stateful_set, pod) is not None
    )
    if stateful_set.metadata.deletion_timestamp is not None:
        return Plan(claim.adopt, claim.release)
    there = {number: pod for pod in claim.mine if (number := ordinal(stateful_set, pod)) is not None}
    create, delete = _step(stateful_set, there, revisions, now)
    again_s = until_available_s(claim.mine, stateful_set.spec.min_ready_seconds, now)
    return Plan(claim.adopt, claim.release, tuple(create), tuple(delete), again_s)


def _step(
    stateful_set: StatefulSet, there: Mapping[int, Pod], revisions: Revisions, now: datetime
) -> tuple[list[tuple[int, str]], list[Pod]]:
    spec = stateful_set.spec
    wanted = range(spec.ordinals.start, spec.ordinals.start + spec.replicas)
    ordered = spec.pod_management_policy != "Parallel"
    create: list[tuple[int, str]] = []
    delete: list[Pod] = []
    for number in wanted:
        pod = there.get(number)
        if pod is None:
            create.append((number, _revision_for(stateful_set, number, revisions)))
        elif has_ended(pod) and not pod.terminating:
            delete.append(pod)
        if ordered and not _available(stateful_set, pod, now):
            return create, delete
    down = _scale_down(stateful_set, there, wanted, now)
    # What leaves and what has ended goes first; an update goes on when nothing else is to be done.
    delete += down
    if create or delete or (ordered and any(number not in wanted for number in there)):
        return create, delete
    return [], _update(stateful_set, [(number, there[number]) for number in wanted], revisions, now)


def _available(stateful_set: StatefulSet, pod: Pod | None, now: datetime) -> bool:
    """Say whether a Pod runs, is ready for long enough, and stays."""
    return (
        pod is not None
        and pod.status.phase == "Running"
        and not pod.terminating
        and is_available(pod, stateful_set.spec.min_ready_seconds, now)
    )


def _scale_down(stateful_set: StatefulSet, there: Mapping[int, Pod], wanted: range, now: datetime) -> list[Pod]:
    condemned = [there[number] for number in sorted(there, reverse=True) if number not in wanted]
    leaving = [pod for pod in condemned if not pod.terminating]
    if stateful_set.spec.pod_management_policy == "Parallel":
        return leaving
    if not leaving or len(leaving) < len(condemned):
        return []  # one at a time
    # One that does not serve, but may yet, holds the order up, unless it is the lowest of those that do not.
    highest = leaving[0]
    unhealthy = [pod for pod in leaving if not _available(stateful_set, pod, now)]
    held_up = highest in unhealthy and highest is not unhealthy[-1] and not has_ended(highest)
    return [] if held_up else [highest]


def _update(stateful_set: StatefulSet, pods: list[tuple[int, Pod]], revisions: Revisions, now: datetime) -> list[Pod]:
    strategy = stateful_set.spec.update_strategy
    if strategy.type == "OnDelete":
        return []
    allowed = max(1, share_up(strategy.rolling_update.max_unavailable, stateful_set.spec.replicas))
    first = stateful_set.spec.ordinals.start + strategy.rolling_update.partition
    delete: list[Pod] = []
    down = 0
    for number, pod in reversed(pods):
        if number < first or down >= allowed:
            break
        if not pod.terminating and pod.metadata.labels.get(HASH) != revisions.update:
            delete.append(pod)
            down += 1
        elif not _available(stateful_set, pod, now):
            down += 1
    return delete


def _revision_for(stateful_set: StatefulSet, number: int, revisions: Revisions) -> str:
    """Below the partition, a Pod that comes back has the template that it had."""
    strategy = stateful_set.spec.update_strategy
    below = number < stateful_set.spec.ordinals.start + strategy.rolling_update.partition
    return revisions.current if strategy.type == "RollingUpdate" and below else revisions.update


def pod_of(stateful_set: StatefulSet, number: int, revision: str, template: Tree) -> Tree:
    """Make the Pod of a number. ``template``: that of the revision."""
    name = f"{stateful_set.name}-{number}"
    spec = dict(template.get("spec") or {}) | {"hostname": name}
    if stateful_set.spec.service_name:
        spec["subdomain"] = stateful_set.spec.service_name
    claims = claims_of(stateful_set, number)
    if claims:
        others = [volume for volume in spec.get("volumes") or () if volume.get("name") not in claims]
        own = ({"name": volume, "persistentVolumeClaim": {"claimName": tree["metadata"]["name"]}} for volume, tree in claims.items())
        spec["volumes"] = [*own, *others]
    labels = {HASH: revision, POD_NAME: name, POD_INDEX: str(number)}
    return ownership.pod_of(TREE_STATEFUL_SETS, stateful_set, {**template, "spec": spec}, name, labels)


def claims_of(stateful_set: StatefulSet, number: int) -> dict[str, Tree]:
    """Make the claims of the Pod of a number, by the names of its volumes. They outlive it: the next Pod of the number finds them."""
    found = {}
    for template in stateful_set.spec.volume_claim_templates:
        metadata = template.get("metadata") or {}
        volume = metadata.get("name", "")
        labels = {**(metadata.get("labels") or {}), **stateful_set.spec.selector.match_labels}
        own = {key: metadata[key] for key in ("annotations", "finalizers") if metadata.get(key)}
        found[volume] = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": f"{volume}-{stateful_set.name}-{number}",
                "namespace": stateful_set.namespace,
                "labels": labels,
                **own,
                **({"ownerReferences": [_owner(stateful_set)]} if _retention(stateful_set).when_deleted == "Delete" else {}),
            },
            "spec": template.get("spec") or {},
        }
    return found


def _retention(stateful_set: StatefulSet) -> StatefulSetRetention:
    return stateful_set.spec.persistent_volume_claim_retention_policy


def _owner(stateful_set: StatefulSet) -> Tree:
    return owned_by(TREE_STATEFUL_SETS, stateful_set.metadata)


def claim_owners(stateful_set: StatefulSet, pod: Pod, claim: PersistentVolumeClaim) -> list[Tree] | None:
    """Give the owners that a claim of this Pod should have, with whom it ends; None: it has them.

    A claim that goes with its set is the set's; one that goes when its Pod is one too many is, from then on, the Pod's.
    """
    number, spec, policy = ordinal(stateful_set, pod), stateful_set.spec, _retention(stateful_set)
    condemned = number is not None and number not in range(spec.ordinals.start, spec.ordinals.start + spec.replicas)
    wanted: list[Tree] = []
    if condemned and policy.when_scaled == "Delete":
        wanted.append({"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.metadata.uid})
    elif policy.when_deleted == "Delete":
        wanted.append(_owner(stateful_set))
    ours = {stateful_set.metadata.uid, pod.metadata.uid}
    have = claim.metadata.owner_references
    if {owner.uid for owner in have if owner.uid in ours} == {owner["uid"] for owner in wanted}:
        return None
    return [*(codec.tree(owner) for owner in have if owner.uid not in ours), *wanted]


def status(stateful_set: StatefulSet, pods: Iterable[Pod], revisions: Revisions, now: datetime) -> Tree:
    """Give the status as it should be. When the last Pod is updated, the revision that was gone to becomes the current one."""
    spec = stateful_set.spec
    mine = [pod for pod in pods if ordinal(stateful_set, pod) is not None]
    staying = [pod for pod in mine if not pod.terminating]
    ready = sum(pod.ready and pod.status.phase == "Running" for pod in mine)
    current = sum(pod.metadata.labels.get(HASH) == revisions.current for pod in staying)
    updated = sum(pod.metadata.labels.get(HASH) == revisions.update for pod in staying)
    complete = spec.update_strategy.type == "RollingUpdate" and updated == ready == len(mine) == spec.replicas
    return {
        "observedGeneration": stateful_set.metadata.generation,
        "replicas": len(mine),
        "readyReplicas": ready,
        "availableReplicas": sum(is_available(pod, spec.min_ready_seconds, now) and pod.status.phase == "Running" for pod in mine),
        "currentReplicas": updated if complete else current,
        "updatedReplicas": updated,
        "currentRevision": revisions.update if complete else revisions.current,
        "updateRevision": revisions.update,
    }


_FIELDS = {
    "observedGeneration": "observed_generation",
    "replicas": "replicas",
    "readyReplicas": "ready_replicas",
    "availableReplicas": "available_replicas",
    "currentReplicas": "current_replicas",
    "updatedReplicas": "updated_replicas",
    "currentRevision": "current_revision",
    "updateRevision": "update_revision",
}


def changed(stateful_set: StatefulSet, wanted: Tree) -> bool:
    """Say whether the status that the API has differs from the one that is wanted."""
    return any(wanted[name] != getattr(stateful_set.status, field) for name, field in _FIELDS.items())
