"""Jobs: single decisions, and whole lives in a small world that may lose its controller at any step."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire.objects import codec
from podwire.objects.batch import Job
from podwire.objects.core import Pod
from podwire.workloads.jobs import desired, indexes
from podwire.workloads.jobs.tally import TRACKING

NOW = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
LABEL = "batch.kubernetes.io/controller-uid"


def tree(**spec: Any) -> dict[str, Any]:
    body = {"parallelism": 1, "completions": 1, "backoffLimit": 6, "selector": {"matchLabels": {LABEL: "j"}}}
    template = {"metadata": {"labels": {LABEL: "j"}}, "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}}
    meta = {"name": "job", "namespace": "default", "uid": "j", "resourceVersion": "1"}
    return {"metadata": meta, "spec": body | {"template": template} | spec, "status": {}}


class World:
    """An API with one Job, its Pods, and a controller of which every step may be its last."""

    def __init__(self, **spec: Any) -> None:
        self.tree, self.pods, self.now, self.number = tree(**spec), {}, NOW, 0
        self.pods: dict[str, dict[str, Any]] = {}
        self.ended: dict[str, str] = {}  # uid -> phase, of all that ever ended
        self.indexes: dict[str, str] = {}

    @property
    def job(self) -> Job:
        return codec.convert(Job, self.tree)

    def values(self) -> list[Pod]:
        return [codec.convert(Pod, pod) for pod in self.pods.values()]

    def step(self, stop_after: int = 100) -> desired.Plan:
        job = self.job
        plan = desired.decide(job, self.values(), frozenset(), self.now)
        acts: list[Any] = []
        if desired.changed(job, plan.status):
            acts.append(lambda: self._write(plan.status))
        acts += [lambda pod=pod: self._untrack(pod) for pod in plan.untrack]
        acts += [lambda pod=pod: self._delete(pod.metadata.uid) for pod in plan.delete]
        acts += [lambda which=which: self._create(job, which) for which in plan.create]
        for act in acts[:stop_after]:
            act()
        return plan

    def _write(self, status: dict[str, Any]) -> None:
        self.tree["status"] = {key: value for key, value in status.items() if value is not None}

    def _untrack(self, pod: Pod) -> None:
        found = self.pods.get(pod.metadata.uid)
        if found is not None:
            found["metadata"]["finalizers"] = []
            if "deletionTimestamp" in found["metadata"]:
                del self.pods[pod.metadata.uid]

    def _delete(self, uid: str) -> None:
        self.pods[uid]["metadata"].setdefault("deletionTimestamp", f"{self.now:%Y-%m-%dT%H:%M:%SZ}")

    def _create(self, job: Job, which: tuple[int, int] | None) -> None:
        self.number += 1
        made = desired.pod_of(job, f"pod-{self.number:03}", which)
        made["metadata"] |= {"uid": f"u{self.number:03}", "creationTimestamp": f"{self.now:%Y-%m-%dT%H:%M:%SZ}"}
        made["metadata"]["labels"] = {LABEL: "j"} | made["metadata"].get("labels", {})
        self.indexes[made["metadata"]["uid"]] = made["metadata"].get("annotations", {}).get("batch.kubernetes.io/job-completion-index", "")
        self.pods[made["metadata"]["uid"]] = made

    def end(self, uid: str, code: int) -> None:
        pod = self.pods[uid]
        phase = "Failed" if code else "Succeeded"
        terminated = {"exitCode": code, "finishedAt": f"{self.now:%Y-%m-%dT%H:%M:%SZ}"}
        pod["status"] = {"phase": phase, "containerStatuses": [{"name": "c", "state": {"terminated": terminated}}]}
        self.ended[uid] = phase

    def running(self) -> list[str]:
        return [uid for uid, pod in self.pods.items() if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]

    def until_quiet(self) -> None:
        for _ in range(50):
            before = (repr(self.tree), repr(self.pods))
            self.step()
            if (repr(self.tree), repr(self.pods)) == before:
                return
        raise AssertionError("no rest")

    def conditions(self) -> dict[str, str]:
        return {one.type: one.reason for one in self.job.status.conditions if one.status == "True"}


def test_one_pod_that_succeeds() -> None:
    world = World()
    world.until_quiet()
    assert (len(world.pods), world.job.status.active, world.job.status.start_time) == (1, 1, "2026-01-01T00:10:00Z")
    world.end("u001", 0)
    world.until_quiet()
    assert world.conditions() == {"SuccessCriteriaMet": "CompletionsReached", "Complete": "CompletionsReached"}
    assert (world.job.status.succeeded, world.job.status.active, world.job.status.completion_time) == (1, 0, "2026-01-01T00:10:00Z")
    assert not world.pods["u001"]["metadata"]["finalizers"]


def test_after_a_failure_there_is_a_rest_that_doubles_and_an_end() -> None:
    world = World(backoffLimit=2)
    for number, rest in ((1, 10), (2, 20)):
        world.until_quiet()
        world.end(f"u{number:03}", 1)
        world.until_quiet()
        plan = world.step()
        assert plan.again_s == rest
        assert len(world.pods) == number
        world.now += timedelta(seconds=rest)
    world.until_quiet()
    world.end("u003", 1)
    world.until_quiet()
    assert world.conditions() == {"FailureTarget": "BackoffLimitExceeded", "Failed": "BackoffLimitExceeded"}
    assert (world.job.status.failed, len(world.pods)) == (3, 3)


def test_a_deadline_ends_what_runs() -> None:
    world = World(parallelism=3, completions=3, activeDeadlineSeconds=60)
    world.until_quiet()
    world.now += timedelta(seconds=60)
    world.until_quiet()
    assert not world.pods, "what is told to end counts, and may go"
    assert world.conditions() == {"FailureTarget": "DeadlineExceeded", "Failed": "DeadlineExceeded"}
    assert world.job.status.failed == 3


def test_suspended_nothing_runs_and_time_stands_still() -> None:
    world = World(parallelism=2, completions=2, activeDeadlineSeconds=30)
    world.until_quiet()
    world.tree["spec"]["suspend"] = True
    world.until_quiet()
    assert world.conditions() == {"Suspended": "JobSuspended"}
    assert (world.job.status.start_time, world.job.status.failed, world.running()) == (None, 0, [])
    world.now += timedelta(seconds=100)
    world.tree["spec"]["suspend"] = False
    world.until_quiet()
    assert (world.conditions(), len(world.running())) == ({}, 2)
    assert world.job.status.start_time == "2026-01-01T00:11:40Z"


def test_without_completions_the_first_success_ends_the_work_and_the_others_may_end_theirs() -> None:
    world = World(parallelism=3, completions=None)
    world.until_quiet()
    assert len(world.running()) == 3
    world.end("u001", 0)
    world.until_quiet()
    assert len(world.running()) == 2
    assert world.conditions() == {}
    world.end("u002", 0)
    world.end("u003", 0)
    world.until_quiet()
    assert "Complete" in world.conditions()
    assert world.job.status.succeeded == 3


def test_indexes_each_succeed_once() -> None:
    world = World(parallelism=2, completions=4, completionMode="Indexed")
    world.until_quiet()
    one = world.pods["u001"]
    assert one["spec"]["hostname"] == "job-0"
    assert one["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"
    world.end("u002", 0)
    world.until_quiet()
    assert (world.job.status.completed_indexes, sorted(world.indexes.values())) == ("1", ["0", "1", "2"])
    while world.running():
        world.end(world.running()[0], 0)
        world.until_quiet()
    assert (world.job.status.completed_indexes, world.job.status.succeeded) == ("0-3", 4)
    assert "Complete" in world.conditions()


def test_each_index_has_a_limit_of_its_own() -> None:
    world = World(parallelism=3, completions=3, completionMode="Indexed", backoffLimitPerIndex=1, backoffLimit=2**31 - 1)
    for _ in range(6):
        world.until_quiet()
        for uid in world.running():
            world.end(uid, 1 if world.indexes[uid] == "1" else 0)
        world.now += timedelta(seconds=10)
    assert (world.job.status.completed_indexes, world.job.status.failed_indexes) == ("0,2", "1")
    assert world.conditions() == {"FailureTarget": "FailedIndexes", "Failed": "FailedIndexes"}
    assert world.job.status.failed == 2


def test_rules_about_failures() -> None:
    rules = [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    world = World(podFailurePolicy={"rules": rules}, podReplacementPolicy="Failed")
    world.until_quiet()
    world.end("u001", 1)
    world.pods["u001"]["status"]["conditions"] = [{"type": "DisruptionTarget", "status": "True"}]
    world.until_quiet()
    assert world.job.status.failed == 0
    world.now += timedelta(seconds=10)
    world.until_quiet()
    world.end("u002", 42)
    world.until_quiet()
    assert world.conditions()["Failed"] == "PodFailurePolicy"
    message = next(one.message for one in world.job.status.conditions if one.type == "Failed")
    assert message == "Container c for pod default/pod-002 failed with exit code 42 matching FailJob rule at index 0"


def test_a_rule_about_success() -> None:
    policy = {"rules": [{"succeededIndexes": "0,2-3", "succeededCount": 2}]}
    world = World(parallelism=4, completions=4, completionMode="Indexed", successPolicy=policy)
    world.until_quiet()
    for uid, index in list(world.indexes.items()):
        if index in ("1", "2"):
            world.end(uid, 0)
    world.until_quiet()
    assert world.conditions() == {}
    world.end(next(uid for uid, index in world.indexes.items() if index == "3"), 0)
    world.until_quiet()
    assert not world.running()
    assert world.conditions() == {"SuccessCriteriaMet": "SuccessPolicy", "Complete": "SuccessPolicy"}
    assert world.job.status.failed == 0


def test_a_rule_about_more_indexes_than_there_is_memory_for() -> None:
    most = 2**31 - 1
    rules = [{"succeededIndexes": f"0-{most - 1}"}, {"succeededIndexes": f"1-{most - 1}", "succeededCount": 1}]
    world = World(completionMode="Indexed", completions=most, parallelism=2, successPolicy={"rules": rules})
    world.until_quiet()
    world.end("u001", 0)  # index 0
    world.until_quiet()
    assert world.conditions() == {}
    world.end("u002", 0)
    world.until_quiet()
    assert world.conditions()["SuccessCriteriaMet"] == "SuccessPolicy"
    assert next(one.message for one in world.job.status.conditions if one.type == "Complete") == "Matched rules at index 1"


def test_a_job_goes_when_its_time_is_over() -> None:
    world = World(ttlSecondsAfterFinished=30)
    world.until_quiet()
    world.end("u001", 0)
    world.until_quiet()
    assert (world.step().expire, world.step().again_s) == (False, 30.0)
    world.now += timedelta(seconds=30)
    assert world.step().expire


def test_fewer_at_the_same_time() -> None:
    world = World(parallelism=4, completions=8)
    world.until_quiet()
    world.tree["spec"]["parallelism"] = 1
    world.until_quiet()
    assert sum("deletionTimestamp" not in pod["metadata"] for pod in world.pods.values()) == 1
    assert world.job.status.failed == 0


def test_pods_that_were_too_many_have_not_failed() -> None:
    """Or a Job that is made smaller often enough would reach its limit."""
    world = World(parallelism=4, completions=8, backoffLimit=1)
    for parallelism in (0, 4, 1, 4, 0, 2):
        world.tree["spec"]["parallelism"] = parallelism
        world.until_quiet()
        world.pods = {uid: pod for uid, pod in world.pods.items() if "deletionTimestamp" not in pod["metadata"]}
        world.until_quiet()
    assert (world.job.status.failed, world.job.status.active, world.job.finished) == (0, 2, "")
    world.pods["u009"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:10:00Z"  # by somebody else: that is a failure
    world.until_quiet()
    assert world.job.status.failed == 1


@pytest.mark.parametrize("text", ["", "0", "0-3", "0,2", "1-2,5,7-9"])
def test_sets_of_indexes(text: str) -> None:
    assert indexes.write(indexes.read(text, 100)) == text


def test_indexes_beyond_the_end_are_left_out() -> None:
    assert indexes.read("0-9", 3) == {0, 1, 2}
    assert indexes.read("x,2-y,1", 3) == {1}


@given(
    seed=st.integers(0, 2**32),
    completions=st.integers(1, 5),
    parallelism=st.integers(1, 4),
    indexed=st.booleans(),
    failing=st.floats(0, 0.5),
)
def test_each_pod_is_counted_once_whenever_the_controller_stops(
    seed: int, completions: int, parallelism: int, indexed: bool, failing: float
) -> None:
    draw = random.Random(seed)
    mode = "Indexed" if indexed else "NonIndexed"
    world = World(completions=completions, parallelism=parallelism, completionMode=mode, backoffLimit=1000)
    for _ in range(300):
        world.step(stop_after=draw.choice((0, 1, 2, 3, 100)))
        if world.job.finished:
            break
        alive = [uid for uid in world.running() if "deletionTimestamp" not in world.pods[uid]["metadata"]]
        assert len(alive) <= parallelism
        for uid in alive:
            if draw.random() < 0.5:
                world.end(uid, int(draw.random() < failing))
        world.now += timedelta(seconds=draw.choice((0, 700)))
    assert world.job.finished == "Complete"
    phases = list(world.ended.values())
    status = world.job.status
    assert status.failed == phases.count("Failed")
    if indexed:
        assert (status.completed_indexes, status.succeeded) == (indexes.write(range(completions)), completions)
    else:
        assert status.succeeded == phases.count("Succeeded") == completions
    assert not any(TRACKING in pod["metadata"]["finalizers"] for pod in world.pods.values())
