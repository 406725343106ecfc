"""What a Job's Pods have come to: how many succeeded, how many failed, each counted once.

A Pod of a Job carries a finalizer, so that it cannot vanish uncounted. A Pod that has ended is first noted in the status
(``uncountedTerminatedPods``, or its index in ``completedIndexes``), then loses the finalizer, and then moves from the note into the
number. Whoever stops in between and reads the status again comes to the same numbers.

Pure. Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-tracking-with-finalizers, .../#pod-failure-policy
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from dataclasses import dataclass, field

from podwire.objects.batch import FailureRule, Job, UncountedTerminatedPods
from podwire.objects.core import ContainerStatus, Pod
from podwire.workloads.jobs import indexes

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
FAILURES = "batch.kubernetes.io/job-index-failure-count"


@dataclass
class Tally:
    """``succeeded`` and ``failed`` are the numbers of the status; what is noted beside them comes on top. ``untrack``: Pods that may let go
    of their finalizer once the status says so. ``verdict``: why a rule of the failure policy ends the Job."""

    succeeded: int = 0
    failed: int = 0
    noted_succeeded: list[str] = field(default_factory=list)
    noted_failed: list[str] = field(default_factory=list)
    completed: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)  # indexes that have failed for good
    untrack: list[Pod] = field(default_factory=list)
    verdict: str = ""

    @property
    def all_succeeded(self) -> int:
        return self.succeeded + len(self.noted_succeeded)

    @property
    def all_failed(self) -> int:
        return self.failed + len(self.noted_failed)


def is_indexed(job: Job) -> bool:
    return job.spec.completion_mode == "Indexed"


def index_of(pod: Pod) -> int | None:
    text = pod.metadata.annotations.get(INDEX, "")
    return int(text) if text.isdecimal() else None


def failures_before(pod: Pod) -> int:
    """Give how often the Pod's index had failed when the Pod was made."""
    text = pod.metadata.annotations.get(FAILURES, "")
    return int(text) if text.isdecimal() else 0


def has_failed(job: Job, pod: Pod) -> bool:
    """A Pod that is told to end counts as failed at once, unless the Job replaces only what has failed."""
    if pod.status.phase == "Failed":
        return True
    return pod.terminating and pod.status.phase != "Succeeded" and job.spec.pod_replacement_policy != "Failed"


def count(job: Job, pods: Iterable[Pod], untracked: Set[str], *, ending: bool) -> Tally:
    """``pods`` are the Job's own. ``untracked``: uids of Pods whose finalizer is known to be gone. ``ending``: the Job has succeeded
    already, or is suspended: what is told to end now is no failure."""
    limit = job.spec.completions or 0
    tracked = sorted(
        (pod for pod in pods if TRACKING in pod.metadata.finalizers and pod.metadata.uid not in untracked), key=lambda pod: pod.name
    )
    have = {pod.metadata.uid for pod in tracked}
    status, noted = job.status, job.status.uncounted_terminated_pods or UncountedTerminatedPods()
    tally = Tally(
        succeeded=status.succeeded + sum(uid not in have for uid in noted.succeeded),
        failed=status.failed + sum(uid not in have for uid in noted.failed),
        noted_succeeded=[uid for uid in noted.succeeded if uid in have],
        noted_failed=[uid for uid in noted.failed if uid in have],
    )
    if is_indexed(job):
        tally.completed = set(indexes.read(status.completed_indexes, limit))
        tally.lost = set(indexes.read(status.failed_indexes, limit))
    for pod in tracked:
        if pod.status.phase == "Succeeded":
            _note_success(job, tally, pod, limit)
        elif has_failed(job, pod):
            if pod.status.phase == "Failed" or not ending:
                _note_failure(job, tally, pod, limit)
        elif not (ending and pod.terminating):
            continue
        tally.untrack.append(pod)
    if is_indexed(job):
        tally.succeeded, tally.noted_succeeded = len(tally.completed), []
    return tally


def _note_success(job: Job, tally: Tally, pod: Pod, limit: int) -> None:
    if not is_indexed(job):
        if pod.metadata.uid not in tally.noted_succeeded:
            tally.noted_succeeded.append(pod.metadata.uid)
    elif (index := index_of(pod)) is not None and index < limit:
        tally.completed.add(index)


def _note_failure(job: Job, tally: Tally, pod: Pod, limit: int) -> None:
    index = index_of(pod) if is_indexed(job) else None
    if is_indexed(job) and (index is None or index >= limit):
        return
    action, why = _action(job, pod)
    if action == "Ignore" and pod.metadata.uid not in tally.noted_failed:
        return
    if action == "FailJob":
        tally.verdict = tally.verdict or why
    per_index = job.spec.backoff_limit_per_index
    if index is not None and per_index is not None and (action == "FailIndex" or failures_before(pod) + 1 > per_index):
        tally.lost.add(index)
    if pod.metadata.uid not in tally.noted_failed:
        tally.noted_failed.append(pod.metadata.uid)


def _action(job: Job, pod: Pod) -> tuple[str, str]:
    """Give what the first rule of the failure policy that fits says, and why."""
    if job.spec.pod_failure_policy is None or pod.status.phase != "Failed":
        return "Count", ""
    for number, rule in enumerate(job.spec.pod_failure_policy.rules):
        if why := _fits(rule, pod):
            return rule.action, f"{why} matching {rule.action} rule at index {number}"
    return "Count", ""


def _fits(rule: FailureRule, pod: Pod) -> str:
    if rule.on_exit_codes is not None:
        codes = rule.on_exit_codes
        for status in (*pod.status.init_container_statuses, *pod.status.container_statuses):
            code = _exit_code(status)
            if not code or codes.container_name not in (None, status.name):
                continue
            if (code in codes.values) is (codes.operator == "In"):
                return f"Container {status.name} for pod {pod.key} failed with exit code {code}"
        return ""
    for pattern in rule.on_pod_conditions:
        for condition in pod.status.conditions:
            if (condition.type, condition.status) == (pattern.type, pattern.status):
                return f"Pod {pod.key} has condition {condition.type}"
    return ""


def _exit_code(status: ContainerStatus) -> int:
    return status.state.terminated.exit_code if status.state.terminated is not None else 0
