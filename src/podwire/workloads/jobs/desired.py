"""What a Job does next: Pods to make and to end, what its status says, and when it is over.

Pure. A Job that has reached its end says so twice: first that it will (SuccessCriteriaMet, FailureTarget), then, when none of its Pods
runs any more and all are counted, that it has (Complete, Failed).

Source: https://kubernetes.io/docs/concepts/workloads/controllers/job/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from podwire.objects.batch import Job
from podwire.objects.core import Condition, Pod
from podwire.objects.resources import JOBS
from podwire.workloads import ownership
from podwire.workloads.availability import has_ended, is_active
from podwire.workloads.jobs import indexes
from podwire.workloads.jobs.tally import FAILURES, INDEX, TRACKING, Tally, count, failures_before, has_failed, index_of, is_indexed
from podwire.workloads.kinds import Tree
from podwire.workloads.ranking import victims
from podwire.workloads.times import NEVER, parse, seconds_left, stamp

BACKOFF_S, LONGEST_BACKOFF_S = 10.0, 600.0
OURS = (None, "", "kubernetes.io/job-controller")
_FINAL = {"SuccessCriteriaMet": "Complete", "FailureTarget": "Failed"}


@dataclass(frozen=True)
class Verdict:
    """Why a Job comes to its end: the type of the condition that says that it will, its reason and its message."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True)
class Notice:
    """An Event about the Job."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """In this order: patch the owners of ``adopt`` and ``release``, write ``status``, tell ``notices``, let the Pods of ``untrack`` go,
    delete ``delete``, make a Pod for each of ``create`` (an index and how often it has failed, or None), delete the Job if ``expire``."""

    status: Tree
    adopt: tuple[Pod, ...] = ()
    release: tuple[Pod, ...] = ()
    untrack: tuple[Pod, ...] = ()
    delete: tuple[Pod, ...] = ()
    create: tuple[tuple[int, int] | None, ...] = ()
    notices: tuple[Notice, ...] = ()
    again_s: float | None = None
    expire: bool = False


def decide(job: Job, pods: Iterable[Pod], untracked: Set[str], now: datetime) -> Plan:
    """``pods`` are those that the Job controls, and those of its namespace that nobody controls. ``untracked``: uids of Pods whose
    finalizer is known to be gone, though the table may still show it."""
    claim = ownership.claim(job, pods, lambda pod: job.spec.selector.matches(pod.metadata.labels))
    mine = claim.mine
    active = [pod for pod in mine if is_active(pod)]
    succeeded = bool(_holds(job.status.conditions, "SuccessCriteriaMet") or job.finished == "Complete")
    tally = count(job, mine, untracked, ending=succeeded or job.spec.suspend)
    if job.finished:
        plan = _finished(job, mine, now)
    elif job.metadata.deletion_timestamp is not None:
        plan = Plan(_status(job, tally, mine, list(job.status.conditions), job.status.start_time))
    else:
        plan = _going_on(job, mine, active, tally, now)
    return replace(plan, adopt=claim.adopt, release=claim.release, untrack=(*tally.untrack, *plan.untrack))


def _holds(conditions: Iterable[Condition], kind: str) -> Condition | None:
    return next((one for one in conditions if one.type == kind and one.status == "True"), None)


def _finished(job: Job, mine: Sequence[Pod], now: datetime) -> Plan:
    left: float | None = None
    if job.spec.ttl_seconds_after_finished is not None and job.metadata.deletion_timestamp is None:
        ended = next((one.last_transition_time for one in job.status.conditions if one.type == job.finished), None)
        left = seconds_left(ended, job.spec.ttl_seconds_after_finished, now)
    return Plan({}, delete=tuple(pod for pod in mine if is_active(pod)), again_s=left or None, expire=left == 0.0)


def _going_on(job: Job, mine: Sequence[Pod], active: Sequence[Pod], tally: Tally, now: datetime) -> Plan:
    conditions = list(job.status.conditions)
    notices: list[Notice] = []
    start = job.status.start_time
    verdict = _known(conditions) or _judge(job, mine, tally, now)
    if verdict is not None:
        return _ending(job, mine, active, tally, conditions, verdict, now)
    was = _holds(conditions, "Suspended")
    if job.spec.suspend:
        if was is None:
            _set(conditions, Condition(type="Suspended", status="True", reason="JobSuspended", message="Job suspended"), now)
            notices.append(Notice("Normal", "Suspended", "Job suspended"))
        return Plan(_status(job, tally, mine, conditions, None), delete=tuple(active), notices=tuple(notices))
    if was is not None:
        _set(conditions, Condition(type="Suspended", status="False", reason="JobResumed", message="Job resumed"), now)
        notices.append(Notice("Normal", "Resumed", "Job resumed"))
    start = start or stamp(now)
    create, delete, again_s = _move(job, mine, active, tally, now)
    if job.spec.active_deadline_seconds is not None:
        left = max(0.1, seconds_left(start, job.spec.active_deadline_seconds, now))
        again_s = left if again_s is None else min(again_s, left)
    return Plan(
        _status(job, tally, mine, conditions, start),
        untrack=tuple(delete),  # before they go: Pods that are too many have not failed
        delete=tuple(delete),
        create=tuple(create),
        notices=tuple(notices),
        again_s=again_s,
    )


# The end -----------------------------------------------------------------------------------------------------------------


def _known(conditions: Iterable[Condition]) -> Verdict | None:
    for kind in _FINAL:
        found = _holds(conditions, kind)
        if found is not None:
            return Verdict(kind, found.reason, found.message)
    return None


def _judge(job: Job, mine: Sequence[Pod], tally: Tally, now: datetime) -> Verdict | None:
    """Say whether the Job has come to its end; failures before successes, as in Kubernetes."""
    spec = job.spec
    if tally.verdict:
        return Verdict("FailureTarget", "PodFailurePolicy", tally.verdict)
    if tally.all_failed > spec.backoff_limit or _restarted_too_often(job, mine):
        return Verdict("FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    deadline = spec.active_deadline_seconds if job.status.start_time and not spec.suspend else None
    if deadline is not None and seconds_left(job.status.start_time, deadline, now) == 0.0:
        return Verdict("FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline")
    if is_indexed(job) and spec.backoff_limit_per_index is not None:
        if spec.max_failed_indexes is not None and len(tally.lost) > spec.max_failed_indexes:
            text = "Job has exceeded the specified maximal number of failed indexes"
            return Verdict("FailureTarget", "MaxFailedIndexesExceeded", text)
        if tally.lost and len(tally.lost | tally.completed) >= (spec.completions or 0):
            return Verdict("FailureTarget", "FailedIndexes", "Job has failed indexes")
    if (rule := _success_rule(job, tally)) is not None:
        return Verdict("SuccessCriteriaMet", "SuccessPolicy", f"Matched rules at index {rule}")
    if spec.completions is None:
        done = tally.all_succeeded > 0 and not any(not has_ended(pod) for pod in mine)
    else:
        done = tally.all_succeeded >= spec.completions
    return Verdict("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods") if done else None


def _restarted_too_often(job: Job, mine: Sequence[Pod]) -> bool:
    if (job.spec.template.get("spec") or {}).get("restartPolicy") != "OnFailure":
        return False
    restarts = sum(
        status.restart_count
        for pod in mine
        if pod.status.phase in ("Running", "Pending")
        for status in (*pod.status.init_container_statuses, *pod.status.container_statuses)
    )
    return restarts > 0 if job.spec.backoff_limit == 0 else restarts >= job.spec.backoff_limit


def _success_rule(job: Job, tally: Tally) -> int | None:
    if job.spec.success_policy is None or not is_indexed(job):
        return None
    for number, rule in enumerate(job.spec.success_policy.rules):
        asked = indexes.spans(rule.succeeded_indexes, job.spec.completions or 0)
        named = rule.succeeded_indexes is not None
        have = sum(any(index in span for span in asked) for index in tally.completed) if named else len(tally.completed)
        wanted = rule.succeeded_count if rule.succeeded_count is not None else sum(map(len, asked))
        if wanted and have >= wanted:
            return number
    return None


def _ending(
    job: Job, mine: Sequence[Pod], active: Sequence[Pod], tally: Tally, conditions: list[Condition], verdict: Verdict, now: datetime
) -> Plan:
    notices: list[Notice] = []
    if _holds(conditions, verdict.type) is None:
        _set(conditions, Condition(type=verdict.type, status="True", reason=verdict.reason, message=verdict.message), now)
        if verdict.type == "FailureTarget" and active:
            notices.append(Notice("Warning", verdict.reason, verdict.message))
    over = not any(not has_ended(pod) for pod in mine) and not (tally.untrack or tally.noted_succeeded or tally.noted_failed)
    completed_at = None
    if over:
        final = _FINAL[verdict.type]
        _set(conditions, Condition(type=final, status="True", reason=verdict.reason, message=verdict.message), now)
        if final == "Complete":
            completed_at = stamp(now)
            notices.append(Notice("Normal", "Completed", "Job completed"))
        else:
            notices.append(Notice("Warning", verdict.reason, verdict.message))
    ttl = float(job.spec.ttl_seconds_after_finished) if over and job.spec.ttl_seconds_after_finished is not None else None
    start = job.status.start_time or stamp(now)
    return Plan(
        _status(job, tally, mine, conditions, start, completed_at), delete=tuple(active), notices=tuple(dict.fromkeys(notices)), again_s=ttl
    )


# On the way --------------------------------------------------------------------------------------------------------------


def _move(
    job: Job, mine: Sequence[Pod], active: Sequence[Pod], tally: Tally, now: datetime
) -> tuple[list[tuple[int, int] | None], list[Pod], float | None]:
    """Choose the Pods to make and to delete; give the seconds for which failures are let rest."""
    spec = job.spec
    waits_for = [pod for pod in mine if pod.terminating and not has_ended(pod)] if spec.pod_replacement_policy == "Failed" else []
    surplus = _useless(job, active, tally) if is_indexed(job) else []
    kept = [pod for pod in active if pod not in surplus]
    if spec.completions is None:
        wanted = spec.parallelism if not tally.all_succeeded else min(len(kept), spec.parallelism)
    else:
        left = spec.completions - (len(tally.completed | tally.lost) if is_indexed(job) else tally.all_succeeded)
        wanted = min(max(0, left), spec.parallelism)
    surplus += victims(kept, len(kept) - wanted) if len(kept) > wanted else []
    lacking = wanted - len(kept) - len(waits_for)
    if lacking <= 0:
        return [], surplus, None
    if is_indexed(job):
        create, again_s = _indexes_to_make(job, mine, kept, waits_for, tally, lacking, now)
        return create, surplus, again_s
    rest = _rest(job, mine, now)
    return ([], surplus, rest) if rest else ([None] * lacking, surplus, None)


def _useless(job: Job, active: Sequence[Pod], tally: Tally) -> list[Pod]:
    """Give the active Pods of an indexed Job whose index is no longer asked for, or has a Pod already."""
    seen: set[int] = set()
    found = []
    for pod in sorted(active, key=lambda pod: (pod.metadata.creation_timestamp or "", pod.name)):
        index = index_of(pod)
        if index is None or index >= (job.spec.completions or 0) or index in seen or index in tally.completed or index in tally.lost:
            found.append(pod)
        else:
            seen.add(index)
    return found


def _indexes_to_make(
    job: Job, mine: Sequence[Pod], kept: Sequence[Pod], waits_for: Sequence[Pod], tally: Tally, lacking: int, now: datetime
) -> tuple[list[tuple[int, int] | None], float | None]:
    taken = {index_of(pod) for pod in (*kept, *waits_for)} | tally.completed | tally.lost
    per_index = job.spec.backoff_limit_per_index is not None
    by_index: dict[int, list[Pod]] = {}
    for pod in mine:
        if (index := index_of(pod)) is not None:
            by_index.setdefault(index, []).append(pod)
    create: list[tuple[int, int] | None] = []
    waits: list[float] = []
    general = 0.0 if per_index else _rest(job, mine, now)
    if general:
        return [], general
    for index in range(job.spec.completions or 0):
        if len(create) == lacking:
            break
        if index in taken:
            continue
        failed = [pod for pod in by_index.get(index, ()) if has_failed(job, pod)]
        before = max((failures_before(pod) + 1 for pod in failed), default=0)
        rest = _rest_after(before, _last_end(failed), now) if per_index else 0.0
        if rest:
            waits.append(rest)
        else:
            create.append((index, before))
    return create, min(waits, default=None)


def _rest(job: Job, mine: Sequence[Pod], now: datetime) -> float:
    """Give the seconds for which nothing new is made, after so many failures since the last success."""
    success = max((_end(pod) for pod in mine if pod.status.phase == "Succeeded"), default=NEVER)
    failed = [pod for pod in mine if has_failed(job, pod) and _end(pod) > success]
    return _rest_after(len(failed), _last_end(failed), now)


def _rest_after(failures: int, last: datetime, now: datetime) -> float:
    if not failures:
        return 0.0
    due = last + timedelta(seconds=min(LONGEST_BACKOFF_S, BACKOFF_S * 2.0 ** min(failures - 1, 16)))
    return max(0.0, (due - now).total_seconds())


def _last_end(pods: Iterable[Pod]) -> datetime:
    return max((_end(pod) for pod in pods), default=NEVER)


def _end(pod: Pod) -> datetime:
    """Give when a Pod ended: its last container's end, or when it was told to, or when it was last known to change."""
    ends = [parse(one.state.terminated.finished_at) for one in pod.status.container_statuses if one.state.terminated is not None]
    times = [end for end in ends if end is not None]
    if not times and pod.metadata.deletion_timestamp:
        times = [parse(pod.metadata.deletion_timestamp) or NEVER]
    if not times:
        times = [parse(one.last_transition_time) or NEVER for one in pod.status.conditions if one.type == "Ready"]
    return max(times, default=parse(pod.metadata.creation_timestamp) or NEVER)


# What is written ---------------------------------------------------------------------------------------------------------


def _set(conditions: list[Condition], one: Condition, now: datetime) -> None:
    one = _as_of(one, now)
    for place, have in enumerate(conditions):
        if have.type == one.type:
            conditions[place] = one
            return
    conditions.append(one)


def _as_of(condition: Condition, now: datetime) -> Condition:
    return Condition(
        type=condition.type,
        status=condition.status,
        reason=condition.reason,
        message=condition.message,
        last_probe_time=stamp(now),
        last_transition_time=stamp(now),
    )


def _status(
    job: Job, tally: Tally, mine: Sequence[Pod], conditions: Sequence[Condition], start: str | None, completed_at: str | None = None
) -> Tree:
    """Give the status as it should be, each field that it may have: None where it has none."""
    active = [pod for pod in mine if is_active(pod)]
    indexed, per_index = is_indexed(job), job.spec.backoff_limit_per_index is not None
    return {
        "active": len(active) or None,
        "ready": sum(pod.ready for pod in active),
        "terminating": sum(pod.terminating and not has_ended(pod) for pod in mine),
        "succeeded": tally.succeeded or None,
        "failed": tally.failed or None,
        "startTime": start,
        "completionTime": completed_at or job.status.completion_time,
        "completedIndexes": (indexes.write(tally.completed) or None) if indexed else None,
        "failedIndexes": indexes.write(tally.lost) if indexed and per_index else None,
        "uncountedTerminatedPods": {"succeeded": tally.noted_succeeded or None, "failed": tally.noted_failed or None},
        "conditions": [_condition(one) for one in conditions] or None,
    }


def _condition(one: Condition) -> Tree:
    tree = {
        "type": one.type,
        "status": one.status,
        "lastProbeTime": one.last_probe_time,
        "lastTransitionTime": one.last_transition_time,
        "reason": one.reason or None,
        "message": one.message or None,
    }
    return {key: value for key, value in tree.items() if value is not None}


def changed(job: Job, wanted: Tree) -> bool:
    """Say whether the status that the API has differs from the one that is wanted. An empty one is: as it is."""
    have, noted = job.status, job.status.uncounted_terminated_pods
    return bool(wanted) and (
        (wanted["active"] or 0, wanted["ready"], wanted["terminating"]) != (have.active, have.ready, have.terminating)
        or (wanted["succeeded"] or 0, wanted["failed"] or 0) != (have.succeeded, have.failed)
        or (wanted["startTime"], wanted["completionTime"]) != (have.start_time, have.completion_time)
        or (wanted["completedIndexes"] or "", wanted["failedIndexes"]) != (have.completed_indexes, have.failed_indexes)
        or tuple(wanted["uncountedTerminatedPods"]["succeeded"] or ()) != (noted.succeeded if noted else ())
        or tuple(wanted["uncountedTerminatedPods"]["failed"] or ()) != (noted.failed if noted else ())
        or noted is None
        or (wanted["conditions"] or []) != [_condition(one) for one in have.conditions]
    )


def pod_of(job: Job, name: str, which: tuple[int, int] | None) -> Tree:
    """Make a Pod; ``which`` is its index and how often that has failed."""
    tree = ownership.pod_of(JOBS, job, job.spec.template, name)
    metadata = tree["metadata"]
    metadata["finalizers"] = [*metadata.get("finalizers", ()), TRACKING]
    if which is None:
        return tree
    index, failures = str(which[0]), which[1]
    metadata["labels"] = {**metadata.get("labels", {}), INDEX: index}
    metadata["annotations"] = {**metadata.get("annotations", {}), INDEX: index}
    if job.spec.backoff_limit_per_index is not None:
        metadata["annotations"][FAILURES] = str(failures)
    spec = dict(tree["spec"])
    spec.setdefault("hostname", f"{job.name}-{index}")
    for field in ("initContainers", "containers"):
        if spec.get(field):
            spec[field] = [_told_index(container) for container in spec[field]]
    return {**tree, "spec": spec}


def _told_index(container: Tree) -> Tree:
    env = list(container.get("env") or ())
    if any(one.get("name") == "JOB_COMPLETION_INDEX" for one in env):
        return container
    source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}}
    return {**container, "env": [*env, {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}]}
