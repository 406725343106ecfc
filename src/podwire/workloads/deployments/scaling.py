"""A change of ``replicas``, also in the middle of a rollout: who gets how much of it.

Pure. Each ReplicaSet carries, as annotations, how many replicas its Deployment wanted and the most that it allowed when it was
last scaled; a Deployment whose number differs has been scaled. In the middle of a rollout the difference is shared in
proportion to the sizes, so that neither version is preferred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from podwire.workloads.kinds import Deployment, ReplicaSet

DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"


@dataclass(frozen=True)
class Scale:
    """Give a ReplicaSet so many replicas."""

    replica_set: ReplicaSet
    replicas: int


def size_annotations(deployment: Deployment, limits: tuple[int, int]) -> dict[str, str]:
    return {DESIRED: str(deployment.spec.replicas), MAXIMUM: str(deployment.spec.replicas + limits[0])}


def asked(deployment: Deployment, replica_sets: Sequence[ReplicaSet]) -> bool:
    """Say whether ``replicas`` was changed since the ReplicaSets that have Pods were last scaled."""
    wanted = str(deployment.spec.replicas)
    return any(one.spec.replicas and one.metadata.annotations.get(DESIRED, wanted) != wanted for one in replica_sets)


def proportional(deployment: Deployment, new: ReplicaSet | None, old: Sequence[ReplicaSet], limits: tuple[int, int]) -> list[Scale]:
    """Give the sizes that change. A ReplicaSet whose size stays is named too, if its annotations are out of date."""
    wanted = deployment.spec.replicas
    active = [one for one in (*old, *([new] if new else [])) if one.spec.replicas]
    if len(active) <= 1:
        only = active[0] if active else new
        return _sized(deployment, {only.key: wanted}, [only], limits) if only is not None else []
    if new is not None and new.spec.replicas == wanted and new.status.available_replicas == wanted:
        return [Scale(one, 0) for one in old if one.spec.replicas]
    if deployment.spec.strategy.type == "Recreate":
        return []
    allowed = wanted + limits[0] if wanted else 0
    total = sum(one.spec.replicas for one in active)
    change = allowed - total
    # The largest first, so that what rounding leaves over goes where it matters least; of two equal ones the newer grows, the older
    # shrinks.
    ordered = sorted(active, key=lambda one: (-one.spec.replicas, one is not new if change > 0 else one is new, one.name))
    sizes: dict[str, int] = {}
    left = change
    for one in ordered:
        share = _proportion(one.spec.replicas, change, total)
        share = max(min(share, left), 0) if change > 0 else min(max(share, left), 0)
        sizes[one.key] = max(0, one.spec.replicas + share)
        left -= share
    if left:
        sizes[ordered[0].key] = max(0, sizes[ordered[0].key] + left)
    return _sized(deployment, sizes, ordered, limits)


def _proportion(size: int, change: int, total: int) -> int:
    exact = size * change / total
    return int(exact + 0.5) if exact >= 0 else -int(-exact + 0.5)


def _sized(deployment: Deployment, sizes: dict[str, int], replica_sets: Sequence[ReplicaSet], limits: tuple[int, int]) -> list[Scale]:
    current = size_annotations(deployment, limits)
    return [
        Scale(one, sizes[one.key])
        for one in replica_sets
        if sizes[one.key] != one.spec.replicas or not current.items() <= one.metadata.annotations.items()
    ]
