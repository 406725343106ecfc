"""Which Pods count: active, ready since when, available.

Pure. Time is a parameter.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from podwire.objects.core import Pod
from podwire.workloads.times import NEVER, parse, seconds_left, stamp


def has_ended(pod: Pod) -> bool:
    return pod.status.phase in ("Succeeded", "Failed")


def is_active(pod: Pod) -> bool:
    """A Pod that counts: neither ended nor told to end."""
    return not has_ended(pod) and not pod.terminating


def ready_since(pod: Pod) -> datetime | None:
    for condition in pod.status.conditions:
        if condition.type == "Ready" and condition.status == "True":
            return parse(condition.last_transition_time) or parse(pod.metadata.creation_timestamp) or NEVER
    return None


def is_available(pod: Pod, min_ready_seconds: int, now: datetime) -> bool:
    """Ready for as long as the controller asks."""
    since = ready_since(pod)
    return since is not None and (min_ready_seconds == 0 or since <= now - timedelta(seconds=min_ready_seconds))


def until_available_s(pods: Iterable[Pod], min_ready_seconds: int, now: datetime) -> float | None:
    """Give the seconds until the next of the Pods that are ready becomes available; None if none has to wait."""
    if not min_ready_seconds:
        return None
    waits = [
        seconds_left(stamp(since), min_ready_seconds, now)
        for pod in pods
        if (since := ready_since(pod)) is not None and not is_available(pod, min_ready_seconds, now)
    ]
    return max(0.1, min(waits)) if waits else None


def created(pod: Pod) -> tuple[datetime, str]:
    """Order Pods by age, the oldest first."""
    return parse(pod.metadata.creation_timestamp) or NEVER, pod.name
