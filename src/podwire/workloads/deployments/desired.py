"""What a Deployment does next: which ReplicaSet to make, to grow, to shrink, to forget.

Pure. One call gives one step; what the step changes comes back through the watch, and the next call gives the next. The steps
keep two promises: no more Pods than replicas and surge, no fewer available than replicas less what may be unavailable.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from podwire.objects.apps import DeploymentStrategy
from podwire.objects.resources import DEPLOYMENTS
from podwire.workloads import names
from podwire.workloads.deployments import scaling
from podwire.workloads.deployments.scaling import DESIRED, MAXIMUM, Scale
from podwire.workloads.kinds import Deployment, ReplicaSet, Tree, controller_of, owned_by
from podwire.workloads.shares import share_down, share_up
from podwire.workloads.times import NEVER, parse

HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
HISTORY = "deployment.kubernetes.io/revision-history"
_NOT_COPIED = {"kubectl.kubernetes.io/last-applied-configuration", REVISION, HISTORY, DESIRED, MAXIMUM, "deprecated.deployment.rollback.to"}


@dataclass(frozen=True)
class Plan:
    """One step. ``annotate`` maps names of ReplicaSets to annotations to set; ``found`` says that a ReplicaSet of before serves again."""

    create: Tree | None = None
    scale: tuple[Scale, ...] = ()
    annotate: tuple[tuple[ReplicaSet, dict[str, str]], ...] = ()
    remove: tuple[ReplicaSet, ...] = ()
    adopt: tuple[ReplicaSet, ...] = ()
    revision: str = ""
    new: ReplicaSet | None = None
    all: tuple[ReplicaSet, ...] = field(default=(), repr=False)


def decide(deployment: Deployment, replica_sets: Iterable[ReplicaSet], *, old_pods: bool) -> Plan:
    """``replica_sets``: those it controls, and those of its namespace that nobody controls and its selector matches.

    ``old_pods`` says whether Pods of former ReplicaSets are still there (what ``Recreate`` waits for).
    """
    ordered = sorted(replica_sets, key=_age)
    adopt = tuple(one for one in ordered if controller_of(one.metadata) is None)
    mine = tuple(one for one in ordered if one not in adopt)
    if deployment.metadata.deletion_timestamp is not None:
        return Plan(all=mine)
    new = newest(deployment, mine)
    old = [one for one in mine if one is not new]
    if deployment.spec.paused or scaling.asked(deployment, mine):
        plan = _scaled(deployment, new, old)
    elif deployment.spec.strategy.type == "Recreate":
        plan = _recreate(deployment, new, old, old_pods=old_pods)
    else:
        plan = _roll(deployment, new, old)
    revision = _revision(new, old)
    annotate = () if new is None else _annotations(deployment, new, revision)
    return Plan(
        create=plan.create,
        scale=plan.scale,
        annotate=annotate,
        remove=plan.remove,
        adopt=adopt,
        revision=revision if new is not None or plan.create is not None else "",
        new=new,
        all=mine,
    )


def _age(replica_set: ReplicaSet) -> tuple[datetime, str]:
    return parse(replica_set.metadata.creation_timestamp) or NEVER, replica_set.name


def newest(deployment: Deployment, replica_sets: Sequence[ReplicaSet]) -> ReplicaSet | None:
    """Find the ReplicaSet of the current template: the oldest of those whose template is the same but for the hash label."""
    wanted = _without_hash(deployment.spec.template)
    return next((one for one in replica_sets if _without_hash(one.spec.template) == wanted), None)


def _without_hash(template: Tree) -> Tree:
    meta = {key: value for key, value in (template.get("metadata") or {}).items() if value and key != "creationTimestamp"}
    labels = {key: value for key, value in (meta.get("labels") or {}).items() if key != HASH}
    return template | {"metadata": meta | {"labels": labels}}


# One step of each strategy ---------------------------------------------------------------------------------------------


def _scaled(deployment: Deployment, new: ReplicaSet | None, old: list[ReplicaSet]) -> Plan:
    steps = scaling.proportional(deployment, new, old, limits(deployment))
    return Plan(scale=tuple(steps))


def _recreate(deployment: Deployment, new: ReplicaSet | None, old: list[ReplicaSet], *, old_pods: bool) -> Plan:
    running = [one for one in old if one.spec.replicas]
    if running:
        return Plan(scale=tuple(Scale(one, 0) for one in running))
    if old_pods:
        return Plan()
    if new is None:
        return Plan(create=_replica_set(deployment, old, deployment.spec.replicas))
    if new.spec.replicas != deployment.spec.replicas:
        return Plan(scale=(Scale(new, deployment.spec.replicas),))
    return Plan(remove=_history(deployment, new, old))


def _roll(deployment: Deployment, new: ReplicaSet | None, old: list[ReplicaSet]) -> Plan:
    wanted = deployment.spec.replicas
    surge, unavailable = limits(deployment)
    total = sum(one.spec.replicas for one in old) + (new.spec.replicas if new else 0)
    if new is None:
        return Plan(create=_replica_set(deployment, old, max(0, min(wanted + surge - total, wanted))))
    if new.spec.replicas > wanted:
        return Plan(scale=(Scale(new, wanted),))
    room = min(wanted + surge - total, wanted - new.spec.replicas)
    if room > 0:
        return Plan(scale=(Scale(new, new.spec.replicas + room),))
    steps = _shrink_old(new, old, minimum=wanted - unavailable)
    return Plan(scale=tuple(steps), remove=() if steps else _history(deployment, new, old))


def _shrink_old(new: ReplicaSet, old: list[ReplicaSet], *, minimum: int) -> list[Scale]:
    """Take Pods from old ReplicaSets: first those that are not available anyway, then as many as availability allows."""
    total = sum(one.spec.replicas for one in old)
    if total == 0:
        return []
    not_yet = max(0, new.spec.replicas - new.status.available_replicas)
    budget = total + new.spec.replicas - minimum - not_yet
    if budget <= 0:
        return []
    sizes = {one.key: one.spec.replicas for one in old}
    for one in old:
        unhealthy = min(budget, max(0, one.spec.replicas - one.status.available_replicas))
        sizes[one.key] -= unhealthy
        budget -= unhealthy
    available = new.status.available_replicas + sum(min(sizes[one.key], one.status.available_replicas) for one in old)
    budget = min(budget, available - minimum)
    for one in old:
        taken = max(0, min(sizes[one.key], budget))
        sizes[one.key] -= taken
        budget -= taken
    return [Scale(one, sizes[one.key]) for one in old if sizes[one.key] != one.spec.replicas]


def limits(deployment: Deployment) -> tuple[int, int]:
    """Give surge (rounded up) and unavailable (rounded down) in Pods; not both 0, or nothing could ever move."""
    if deployment.spec.strategy.type == "Recreate":
        return 0, deployment.spec.replicas
    strategy: DeploymentStrategy = deployment.spec.strategy
    surge = share_up(strategy.rolling_update.max_surge, deployment.spec.replicas)
    unavailable = share_down(strategy.rolling_update.max_unavailable, deployment.spec.replicas)
    return surge, min(deployment.spec.replicas, unavailable if surge or unavailable else 1)


# ReplicaSets ---------------------------------------------------------------------------------------------------------------


def _replica_set(deployment: Deployment, old: Sequence[ReplicaSet], replicas: int) -> Tree:
    template = deployment.spec.template
    token = names.template_hash(template, deployment.status.collision_count or 0)
    meta = template.get("metadata") or {}
    labels = (meta.get("labels") or {}) | {HASH: token}
    selector: Tree = {"matchLabels": dict(deployment.spec.selector.match_labels) | {HASH: token}}
    if deployment.spec.selector.match_expressions:
        selector["matchExpressions"] = [
            {"key": one.key, "operator": one.operator} | ({"values": list(one.values)} if one.values else {})
            for one in deployment.spec.selector.match_expressions
        ]
    spec: Tree = {"replicas": replicas, "selector": selector, "template": template | {"metadata": meta | {"labels": labels}}}
    if deployment.spec.min_ready_seconds:
        spec["minReadySeconds"] = deployment.spec.min_ready_seconds
    return {
        "metadata": {
            "name": f"{deployment.name}-{token}",
            "namespace": deployment.namespace,
            "labels": labels,
            "annotations": _copied(deployment)
            | scaling.size_annotations(deployment, limits(deployment))
            | {REVISION: _revision(None, old)},
            "ownerReferences": [owned_by(DEPLOYMENTS, deployment.metadata)],
        },
        "spec": spec,
    }


def _copied(deployment: Deployment) -> dict[str, str]:
    return {key: value for key, value in deployment.metadata.annotations.items() if key not in _NOT_COPIED}


def revision_of(replica_set: ReplicaSet) -> int:
    text = replica_set.metadata.annotations.get(REVISION, "")
    return int(text) if text.isdecimal() else 0


def _revision(new: ReplicaSet | None, old: Sequence[ReplicaSet]) -> str:
    following = max((revision_of(one) for one in old), default=0) + 1
    return str(max(following, revision_of(new)) if new is not None else following)


def _annotations(deployment: Deployment, new: ReplicaSet, revision: str) -> tuple[tuple[ReplicaSet, dict[str, str]], ...]:
    wanted = _copied(deployment) | {REVISION: revision}
    have = new.metadata.annotations
    former = have.get(REVISION, "")
    if former and former != revision:
        # A template that comes back takes a new number; the numbers it had stay readable.
        wanted[HISTORY] = ",".join(filter(None, [have.get(HISTORY, ""), former]))
    differing = {key: value for key, value in wanted.items() if have.get(key) != value}
    return ((new, differing),) if differing else ()


def _history(deployment: Deployment, new: ReplicaSet, old: Sequence[ReplicaSet]) -> tuple[ReplicaSet, ...]:
    """Give the ReplicaSets to forget, when the rollout is over: empty ones beyond the limit, the oldest revisions first."""
    wanted = deployment.spec.replicas
    over = new.status.available_replicas == wanted == new.spec.replicas and new.status.replicas == wanted
    if not over or any(one.spec.replicas or one.status.replicas for one in old):
        return ()
    idle = sorted((one for one in old if one.metadata.deletion_timestamp is None), key=revision_of)
    return tuple(idle[: max(0, len(idle) - deployment.spec.revision_history_limit)])
