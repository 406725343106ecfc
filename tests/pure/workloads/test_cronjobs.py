"""What a CronJob does at a moment: which Job it makes, which it lets go, what it says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from podwire.objects.batch import CronJob, Job
from podwire.workloads.cronjobs.desired import SCHEDULED, Plan, decide

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def cron_job(schedule: str = "*/10 * * * *", *, made: datetime = NOON, active: tuple[Job, ...] = (), **spec: Any) -> CronJob:
    listed = [{"uid": one.metadata.uid, "name": one.metadata.name} for one in active]
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"parallelism": 2}}
    tree = {
        "metadata": {"name": "x", "namespace": "default", "uid": "u", "creationTimestamp": made.isoformat()},
        "spec": {"schedule": schedule, "jobTemplate": template, "concurrencyPolicy": "Allow", **spec},
        "status": {"active": listed},
    }
    return msgspec.convert(tree, CronJob)


def job(name: str, *, finished: str = "", by_hand: bool = False, ended: datetime = NOON) -> Job:
    conditions = [{"type": finished, "status": "True"}] if finished else []
    status = {"conditions": conditions, **({"completionTime": ended.isoformat()} if finished == "Complete" else {})}
    annotations = {} if by_hand else {SCHEDULED: "2026-07-01T12:00:00Z"}
    meta = {"name": name, "namespace": "default", "uid": name, "creationTimestamp": ended.isoformat(), "annotations": annotations}
    return msgspec.convert({"metadata": meta, "spec": {}, "status": status}, Job)


def reasons(plan: Plan) -> list[str]:
    return [one.reason for one in plan.notices]


def test_a_job_is_named_after_its_time_and_says_it() -> None:
    plan = decide(cron_job(timeZone="Europe/Berlin"), [], NOON + timedelta(minutes=10, seconds=1))
    assert plan.create is not None
    assert plan.create["metadata"] == {
        "name": f"x-{int((NOON + timedelta(minutes=10)).timestamp()) // 60}",
        "namespace": "default",
        "annotations": {SCHEDULED: "2026-07-01T14:10:00+02:00"},
        "labels": {"a": "b"},
        "ownerReferences": plan.create["metadata"]["ownerReferences"],
    }
    assert plan.create["spec"] == {"parallelism": 2}
    assert plan.status["lastScheduleTime"] == "2026-07-01T12:10:00Z"
    assert plan.again_s == pytest.approx(599.05)
    early = decide(cron_job(), [], NOON + timedelta(minutes=9))
    assert (early.create, early.again_s) == (None, pytest.approx(60.05))
    assert decide(cron_job(suspend=True), [], NOON + timedelta(minutes=11)).create is None


def test_of_times_that_were_missed_the_last_one_counts() -> None:
    plan = decide(cron_job(), [], NOON + timedelta(minutes=45))
    assert plan.create is not None
    assert plan.create["metadata"]["annotations"][SCHEDULED] == "2026-07-01T12:40:00Z"
    assert reasons(plan) == []
    plan = decide(cron_job("* * * * *"), [], NOON + timedelta(minutes=101, seconds=30))
    assert plan.create is not None
    assert plan.create["metadata"]["annotations"][SCHEDULED] == "2026-07-01T13:41:00Z"
    assert [(one.type, one.message) for one in plan.notices] == [
        ("Warning", "too many missed start times (101). Set or decrease .spec.startingDeadlineSeconds or check clock skew")
    ]


def test_a_deadline_forgets_what_is_too_long_ago() -> None:
    late = NOON + timedelta(minutes=15)
    assert decide(cron_job(startingDeadlineSeconds=200), [], late).create is None
    assert decide(cron_job(startingDeadlineSeconds=400), [], late).create is not None
    days = decide(cron_job("* * * * *", startingDeadlineSeconds=90), [], NOON + timedelta(days=2, seconds=30))
    assert days.create is not None
    assert reasons(days) == []


@pytest.mark.parametrize(
    ("schedule", "made", "expected"),
    [
        ("30 2 * * *", "2026-03-28T12:00:00", ["2026-03-30T00:30:00"]),  # on the 29th 2:30 is leapt over
        ("30 2 * * *", "2026-10-24T12:00:00", ["2026-10-25T00:30:00", "2026-10-25T01:30:00", "2026-10-26T01:30:00"]),  # comes twice
        ("0 * * * *", "2026-03-29T00:00:00", ["2026-03-29T01:00:00", "2026-03-29T02:00:00"]),  # 2:00 does not exist, but an hour has passed
    ],
)  # fmt: skip
def test_when_clocks_are_put_forward_and_back(schedule: str, made: str, expected: list[str]) -> None:
    moment = at(made)
    for wanted in expected:
        plan = decide(cron_job(schedule, made=moment, timeZone="Europe/Berlin"), [], moment)
        assert plan.again_s is not None
        moment = (moment + timedelta(seconds=plan.again_s)).replace(microsecond=0)
        assert moment == at(wanted)
        assert decide(cron_job(schedule, made=moment - timedelta(minutes=1), timeZone="Europe/Berlin"), [], moment).create is not None


def test_what_runs_already() -> None:
    running, due = job("one"), NOON + timedelta(minutes=11)
    allowed = decide(cron_job(active=(running,)), [running], due)
    assert allowed.create is not None
    assert [one["uid"] for one in allowed.status["active"]] == ["one"]
    forbidden = decide(cron_job(active=(running,), concurrencyPolicy="Forbid"), [running], due)
    assert forbidden.create is None
    assert reasons(forbidden) == ["JobAlreadyActive"]
    assert forbidden.status["lastScheduleTime"] is None
    replaced = decide(cron_job(active=(running,), concurrencyPolicy="Replace"), [running], due)
    assert replaced.create is not None
    assert replaced.delete == (running,)
    assert replaced.status["active"] is None


def test_a_job_that_somebody_made_from_it_runs_beside_its_own() -> None:
    manual, due = job("manual", by_hand=True), NOON + timedelta(minutes=11)
    for policy in ("Forbid", "Replace"):
        plan = decide(cron_job(concurrencyPolicy=policy), [manual], due)
        assert plan.create is not None
        assert plan.delete == ()
        assert plan.status["active"] is None
        assert [one.message for one in plan.notices] == ["Saw a job that the controller did not create or forgot: manual"]


def test_what_has_ended_is_said_once_and_kept_so_many() -> None:
    done = [job(f"done-{n}", finished="Complete", ended=NOON + timedelta(minutes=n)) for n in range(4)]
    failed = [job(f"failed-{n}", finished="Failed", ended=NOON + timedelta(minutes=n)) for n in range(2)]
    plan = decide(cron_job(active=(done[3],), successfulJobsHistoryLimit=3, failedJobsHistoryLimit=0), [*done, *failed], NOON)
    assert [one.name for one in plan.delete] == ["done-0", "failed-0", "failed-1"]
    assert [one.message for one in plan.notices] == ["Saw completed job: done-3, condition: Complete"]
    assert plan.status["lastSuccessfulTime"] == done[3].status.completion_time
    gone = decide(cron_job(active=(job("gone"),)), [], NOON)
    assert [one.message for one in gone.notices] == ["Active job went missing: gone"]


def test_what_no_schedule_can_be_made_of() -> None:
    unknown = decide(cron_job(timeZone="Nowhere/Land"), [], NOON)
    assert [(one.reason, one.message) for one in unknown.notices] == [
        ("UnknownTimeZone", 'invalid timeZone: "Nowhere/Land": unknown time zone Nowhere/Land')
    ]
    assert unknown.again_s is None
    assert reasons(decide(cron_job("61 * * * *"), [], NOON)) == ["UnparseableSchedule"]
