"""Which nodes lack a DaemonSet's Pod, which have one too many, and which Pods a rolling update replaces now.

Pure. A Pod is meant for one node, named in its affinity; the scheduler puts it there. A node gets its next Pod when the last one is
gone, except that with a surge a Pod of the new template may stand beside the old one until it is available.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/,
https://kubernetes.io/docs/tasks/manage-daemon/update-daemon-set/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from podwire.objects import codec
from podwire.objects.core import Node, Pod, PodSpec
from podwire.views.placement import selects, target_node, untolerated
from podwire.workloads import ownership
from podwire.workloads.availability import created, has_ended, is_available, until_available_s
from podwire.workloads.kinds import TREE_DAEMON_SETS, DaemonSet, Tree
from podwire.workloads.revisions import HASH
from podwire.workloads.shares import share_up

GENERATION = "deprecated.daemonset.template.generation"
_TOLERATED = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_TOLERATED_ON_HOST = ("node.kubernetes.io/network-unavailable", "NoSchedule")


@dataclass(frozen=True)
class Plan:
    """Patch the owners of ``adopt`` and ``release``, make a Pod for each node of ``create``, delete ``delete`` and ``ended``.

    ``ended`` are Pods that failed or finished although they should run for ever, with the node that each was for.
    """

    adopt: tuple[Pod, ...] = ()
    release: tuple[Pod, ...] = ()
    create: tuple[str, ...] = ()
    delete: tuple[Pod, ...] = ()
    ended: tuple[tuple[Pod, str], ...] = ()
    again_s: float | None = None


def pod_spec(daemon_set: DaemonSet) -> Tree:
    """Give the spec of the template with the tolerations that every Pod of a DaemonSet has."""
    spec = daemon_set.spec.template.get("spec") or {}
    wanted = [*_TOLERATED, *([_TOLERATED_ON_HOST] if spec.get("hostNetwork") else [])]
    tolerations = list(spec.get("tolerations") or ())
    have = [(one.get("key", ""), one.get("effect", ""), one.get("operator", "Equal")) for one in tolerations]
    tolerations += [{"key": key, "operator": "Exists", "effect": effect} for key, effect in wanted if (key, effect, "Exists") not in have]
    return {**spec, "tolerations": tolerations}


def pod_of(daemon_set: DaemonSet, node: str, name: str, token: str) -> Tree:
    """Make the Pod for a node. ``token``: the hash of the present template."""
    spec = pod_spec(daemon_set)
    affinity = dict(spec.get("affinity") or {})
    # The node was judged by the template's own terms already: what is left to ask for is this node.
    by_name = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    affinity["nodeAffinity"] = {
        **(affinity.get("nodeAffinity") or {}),
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [by_name]},
    }
    labels = {HASH: token}
    if generation := daemon_set.metadata.annotations.get(GENERATION):
        labels["pod-template-generation"] = generation
    return ownership.pod_of(
        TREE_DAEMON_SETS, daemon_set, {**daemon_set.spec.template, "spec": {**spec, "affinity": affinity}}, name, labels
    )


@dataclass(frozen=True)
class Eligible:
    """``run``: nodes that should have a Pod. ``stay``: nodes on which a Pod that is there may stay (a superset)."""

    run: frozenset[str]
    stay: frozenset[str]


def eligible(daemon_set: DaemonSet, nodes: Iterable[Node]) -> Eligible:
    """Judge nodes by selector, affinity, and taints. A taint NoSchedule keeps new Pods away and lets those that are there stay."""
    spec = codec.convert(Pod, {"spec": pod_spec(daemon_set)}).spec
    run, stay = set(), set()
    for node in nodes:
        if not _meant(spec, node) or untolerated(spec.tolerations, node.spec.taints, ("NoExecute",)):
            continue
        stay.add(node.name)
        if not untolerated(spec.tolerations, node.spec.taints, ("NoSchedule",)):
            run.add(node.name)
    return Eligible(frozenset(run), frozenset(stay))


def _meant(spec: PodSpec, node: Node) -> bool:
    return spec.node_name in ("", node.name) and selects(spec, node)


def by_node(pods: Iterable[Pod]) -> dict[str, list[Pod]]:
    """Group Pods by the node that each is on or is meant for, the oldest first."""
    found: dict[str, list[Pod]] = {}
    for pod in sorted(pods, key=created):
        found.setdefault(target_node(pod.spec), []).append(pod)
    return found


def decide(daemon_set: DaemonSet, pods: Iterable[Pod], nodes: Iterable[Node], token: str, now: datetime) -> Plan:
    """``pods`` are those that the DaemonSet controls, and those of its namespace that nobody controls."""
    claim = ownership.claim(daemon_set, pods, lambda pod: daemon_set.spec.selector.matches(pod.metadata.labels))
    nodes = list(nodes)
    where, there = eligible(daemon_set, nodes), by_node(claim.mine)
    if daemon_set.metadata.deletion_timestamp is not None:
        return Plan(claim.adopt, claim.release)
    create = {name for name in where.run if not there.get(name)}
    delete: dict[str, Pod] = {}
    ended: list[tuple[Pod, str]] = []
    known = {node.name for node in nodes}
    for name, ones in there.items():
        if name not in where.stay:
            # On a node that is gone nobody would let go of the Pod: that one is not ours to end, unless it is on no node yet.
            delete |= {pod.metadata.uid: pod for pod in ones if not pod.terminating and (name in known or not pod.spec.node_name)}
            continue
        ended += [(pod, name) for pod in ones if has_ended(pod) and not pod.terminating]
        delete |= {pod.metadata.uid: pod for pod in _surplus(daemon_set, [pod for pod in ones if _runs(pod)], token)}
    if daemon_set.spec.update_strategy.type == "RollingUpdate":
        step = _roll(daemon_set, where, there, token, now)
        create |= set(step.create)
        delete |= {pod.metadata.uid: pod for pod in step.delete}
    return Plan(
        claim.adopt,
        claim.release,
        tuple(sorted(create)),
        tuple(delete.values()),
        tuple(ended),
        until_available_s(claim.mine, daemon_set.spec.min_ready_seconds, now),
    )


def _runs(pod: Pod) -> bool:
    return not pod.terminating and not has_ended(pod)


def _updated(pod: Pod, token: str) -> bool:
    return pod.metadata.labels.get(HASH) == token


def _surplus(daemon_set: DaemonSet, running: Sequence[Pod], token: str) -> list[Pod]:
    """Of several Pods on one node all but the oldest go; with a surge, all but the oldest of each template (and one old at most)."""
    if not limits(daemon_set, 1)[0]:
        return list(running[1:])
    return [pod for updated in (False, True) for pod in [one for one in running if _updated(one, token) is updated][1:]]


def limits(daemon_set: DaemonSet, nodes: int) -> tuple[int, int]:
    """Give surge and unavailable in Pods, of so many nodes, both rounded up; not both 0, or nothing could ever move."""
    strategy = daemon_set.spec.update_strategy
    if strategy.type != "RollingUpdate":
        return 0, 0
    surge = share_up(strategy.rolling_update.max_surge, nodes)
    unavailable = share_up(strategy.rolling_update.max_unavailable, nodes)
    return surge, unavailable if surge or unavailable else 1


def _roll(daemon_set: DaemonSet, where: Eligible, there: Mapping[str, Sequence[Pod]], token: str, now: datetime) -> Plan:
    surge, unavailable = limits(daemon_set, len(where.run))
    pairs: list[tuple[str, Pod | None, Pod | None]] = []
    for name in sorted(where.run):
        running = [pod for pod in there.get(name, ()) if _runs(pod)]
        old = next((pod for pod in running if not _updated(pod, token)), None)
        pairs.append((name, old, next((pod for pod in running if _updated(pod, token)), None)))

    def available(pod: Pod) -> bool:
        return is_available(pod, daemon_set.spec.min_ready_seconds, now)

    if surge:
        done = [old for _, old, new in pairs if old and new and available(new)]
        first = [name for name, old, new in pairs if old and not new and not available(old) and len(there[name]) == 1]
        # Also a node whose Pod of the new template is on its way out takes a place: no third one beside it.
        rest = [name for name, old, new in pairs if old and not new and available(old) and len(there[name]) == 1]
        under_way = sum(1 for _, old, new in pairs if old and new and not available(new))
        return Plan(create=(*first, *rest[: max(0, surge - under_way)]), delete=tuple(done))
    alone = [old or new for _, old, new in pairs if not (old and new)]
    down = len(pairs) - sum(1 for pod in alone if pod is not None and available(pod))  # two on a node: one is about to go
    broken = [old for _, old, new in pairs if old and not new and not available(old)]
    rest_old = [old for _, old, new in pairs if old and not new and available(old)]
    return Plan(delete=(*broken, *rest_old[: max(0, unavailable - down)]))


def status(daemon_set: DaemonSet, pods: Iterable[Pod], nodes: Iterable[Node], token: str, now: datetime) -> Tree:
    """Give the status as it should be. On each node the oldest Pod stands for all."""
    where, there = eligible(daemon_set, nodes), by_node(pods)
    counted = {name: ones[0] for name, ones in there.items() if name in where.run}
    available = sum(is_available(pod, daemon_set.spec.min_ready_seconds, now) for pod in counted.values())
    return {
        "observedGeneration": daemon_set.metadata.generation,
        "currentNumberScheduled": len(counted),
        "numberMisscheduled": sum(1 for name in there if name not in where.run),
        "desiredNumberScheduled": len(where.run),
        "numberReady": sum(pod.ready for pod in counted.values()),
        "updatedNumberScheduled": sum(_updated(pod, token) for pod in counted.values()),
        "numberAvailable": available,
        "numberUnavailable": len(where.run) - available,
    }


_COUNTS = {
    "observedGeneration": "observed_generation",
    "currentNumberScheduled": "current_number_scheduled",
    "numberMisscheduled": "number_misscheduled",
    "desiredNumberScheduled": "desired_number_scheduled",
    "numberReady": "number_ready",
    "updatedNumberScheduled": "updated_number_scheduled",
    "numberAvailable": "number_available",
    "numberUnavailable": "number_unavailable",
}


def changed(daemon_set: DaemonSet, wanted: Tree) -> bool:
    """Say whether the status that the API has differs from the one that is wanted."""
    return any(wanted[name] != getattr(daemon_set.status, field) for name, field in _COUNTS.items())
