"""Which Job a CronJob makes now, which of its Jobs go, and when to look again.

Pure. Of several times that were missed the last one counts. A Job is named after its time, so that one time never gives two Jobs.

Source: https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from podwire.objects import cron
from podwire.objects.batch import CronJob, Job
from podwire.objects.resources import CRON_JOBS, JOBS
from podwire.workloads.kinds import Tree, controller_of, owned_by
from podwire.workloads.times import parse, stamp

SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
TOO_MANY = 100  # missed times, after which something is likely to be wrong
_LATE_S = 0.05  # a timer may be so early


@dataclass(frozen=True)
class Notice:
    """An Event about the CronJob."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """Delete the Jobs of ``delete`` (their Pods follow), then make ``create``, then write ``status``; look again after ``again_s``."""

    status: Tree
    create: Tree | None = None
    delete: tuple[Job, ...] = ()
    notices: tuple[Notice, ...] = ()
    again_s: float | None = None


@dataclass
class _Draft:
    active: dict[str, Tree]
    last: str | None
    succeeded: str | None
    create: Tree | None = None
    delete: list[Job] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    again_s: float | None = None


def zone_of(cron_job: CronJob) -> tzinfo | None:
    """Give the time zone of the schedule; None for one that nobody knows."""
    name = cron_job.spec.time_zone
    if not name:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def decide(cron_job: CronJob, jobs: Iterable[Job], now: datetime) -> Plan:
    """``jobs`` are those that the CronJob controls."""
    mine = sorted(jobs, key=lambda job: (job.metadata.creation_timestamp or "", job.name))
    draft = _take_stock(cron_job, mine)
    _forget_old(cron_job, mine, draft)
    if cron_job.metadata.deletion_timestamp is None and not cron_job.spec.suspend:
        _schedule(cron_job, mine, draft, now)
    status = {"active": list(draft.active.values()) or None, "lastScheduleTime": draft.last, "lastSuccessfulTime": draft.succeeded}
    return Plan(status, draft.create, tuple(draft.delete), tuple(draft.notices), draft.again_s)


def _take_stock(cron_job: CronJob, mine: Sequence[Job]) -> _Draft:
    """Compare the list of active Jobs with those that there are."""
    status = cron_job.status
    listed = {one.uid: one.name for one in status.active}
    draft = _Draft({}, status.last_schedule_time, status.last_successful_time)
    present = {job.metadata.uid for job in mine}
    for uid, name in listed.items():
        if uid not in present:
            draft.notices.append(Notice("Normal", "MissingJob", f"Active job went missing: {name}"))
    for job in mine:
        if not job.finished:
            if job.metadata.uid not in listed and SCHEDULED not in job.metadata.annotations:
                text = f"Saw a job that the controller did not create or forgot: {job.name}"
                draft.notices.append(Notice("Warning", "UnexpectedJob", text))
                continue  # as `kubectl create job --from` makes one: it runs beside the others, whatever their policy
            draft.active[job.metadata.uid] = reference(job)
            continue
        if job.metadata.uid in listed:
            text = f"Saw completed job: {job.name}, condition: {job.finished}"
            draft.notices.append(Notice("Normal", "SawCompletedJob", text))
        if job.finished == "Complete" and job.status.completion_time:
            draft.succeeded = max(draft.succeeded or "", job.status.completion_time)
    return draft


def reference(job: Job) -> Tree:
    """Give the reference to a Job that the status lists."""
    meta = job.metadata
    return {
        "apiVersion": JOBS.api_version,
        "kind": JOBS.kind,
        "namespace": meta.namespace,
        "name": meta.name,
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
    }


def _forget_old(cron_job: CronJob, mine: Sequence[Job], draft: _Draft) -> None:
    spec = cron_job.spec
    for kind, limit in (("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)):
        if limit is None:
            continue
        ended = [job for job in mine if job.finished == kind and job.metadata.deletion_timestamp is None]
        draft.delete += ended[: max(0, len(ended) - limit)]


def _schedule(cron_job: CronJob, mine: Sequence[Job], draft: _Draft, now: datetime) -> None:
    spec, zone = cron_job.spec, zone_of(cron_job)
    if zone is None:
        text = f"invalid timeZone: {spec.time_zone!r}: unknown time zone {spec.time_zone}"
        draft.notices.append(Notice("Warning", "UnknownTimeZone", text.replace("'", '"')))
        return
    try:
        schedule = cron.parse(spec.schedule)
    except cron.BadSchedule as error:
        draft.notices.append(Notice("Warning", "UnparseableSchedule", f'unparseable schedule: "{spec.schedule}" : {error}'))
        return
    due, missed, next_one = _times(cron_job, schedule, zone, now)
    if next_one is not None:
        draft.again_s = max(0.0, (next_one - now).total_seconds()) + _LATE_S
    if due is None:
        return
    if missed > TOO_MANY:
        text = (
            f"too many missed start times ({missed}). Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            if spec.starting_deadline_seconds is None
            else f"too many missed start times ({missed}). Decrease .spec.startingDeadlineSeconds or check clock skew"
        )
        draft.notices.append(Notice("Warning", "TooManyMissedTimes", text))
    late = spec.starting_deadline_seconds is not None and due + timedelta(seconds=spec.starting_deadline_seconds) < now
    if late:
        draft.notices.append(Notice("Warning", "MissSchedule", f"Missed scheduled time to start a job: {due:%a, %d %b %Y %H:%M:%S} +0000"))
        draft.last = stamp(due)  # this time is over and done with
        return
    if draft.active and spec.concurrency_policy == "Forbid":
        text = "Not starting job because prior execution is running and concurrency policy is Forbid"
        draft.notices.append(Notice("Normal", "JobAlreadyActive", text))
        return
    if spec.concurrency_policy == "Replace":
        draft.delete += [job for job in mine if job.metadata.uid in draft.active and job.metadata.deletion_timestamp is None]
        draft.active.clear()
    draft.create = job_of(cron_job, due, zone)
    draft.last = stamp(due)


def _times(cron_job: CronJob, schedule: cron.Schedule, zone: tzinfo, now: datetime) -> tuple[datetime | None, int, datetime | None]:
    """Give the last time that is due and has no Job, how many were missed, and the next time after now."""
    earliest = parse(cron_job.status.last_schedule_time) or parse(cron_job.metadata.creation_timestamp) or now
    if cron_job.spec.starting_deadline_seconds is not None:
        earliest = max(earliest, now - timedelta(seconds=cron_job.spec.starting_deadline_seconds))
    due, missed, at = None, 0, schedule.after(earliest, zone)
    while at is not None and at <= now:
        due, missed = at, missed + 1
        if missed > TOO_MANY:  # the last one is looked for near now, however long it has been
            near = _last_before(schedule, zone, now)
            return (near or due), missed, schedule.after(near or now, zone)
        at = schedule.after(at, zone)
    return due, missed, at


def _last_before(schedule: cron.Schedule, zone: tzinfo, now: datetime) -> datetime | None:
    """Find the last time not after now, looking back in ever longer steps."""
    if schedule.every is not None:
        return now.replace(microsecond=0)
    back = timedelta(minutes=2)
    while back < timedelta(days=5 * 366):
        at, found = schedule.after(now - back, zone), None
        while at is not None and at <= now:
            found, at = at, schedule.after(at, zone)
        if found is not None:
            return found
        back *= 4
    return None


def job_of(cron_job: CronJob, due: datetime, zone: tzinfo) -> Tree:
    """Make the Job of a time."""
    template = cron_job.spec.job_template
    meta = template.get("metadata") or {}
    metadata = {
        "name": f"{cron_job.name}-{int(due.timestamp()) // 60}",
        "namespace": cron_job.namespace,
        "annotations": {**(meta.get("annotations") or {}), SCHEDULED: due.astimezone(zone).isoformat().replace("+00:00", "Z")},
        "ownerReferences": [owned_by(CRON_JOBS, cron_job.metadata)],
    }
    if meta.get("labels"):
        metadata["labels"] = meta["labels"]
    return {"apiVersion": JOBS.api_version, "kind": JOBS.kind, "metadata": metadata, "spec": template.get("spec") or {}}


def changed(cron_job: CronJob, wanted: Tree) -> bool:
    """Say whether the status that the API has differs from the one that is wanted."""
    have = cron_job.status
    return [one["uid"] for one in wanted["active"] or ()] != [one.uid for one in have.active] or (
        wanted["lastScheduleTime"],
        wanted["lastSuccessfulTime"],
    ) != (have.last_schedule_time, have.last_successful_time)


def owner_uid(job: Job) -> list[str]:
    """Give the uid of the controller of a Job, as an index of Jobs wants it."""
    owner = controller_of(job.metadata)
    return [owner.uid] if owner is not None else []
