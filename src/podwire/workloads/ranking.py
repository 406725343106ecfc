"""Which Pods go first, where a controller has too many. Pure.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-a-replicaset
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from podwire.objects.core import Pod
from podwire.workloads.availability import ready_since
from podwire.workloads.times import NEVER, parse

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASES = {"Pending": 0, "Unknown": 1, "": 1, "Running": 2}


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
