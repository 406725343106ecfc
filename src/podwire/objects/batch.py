"""The group batch/v1: Jobs and CronJobs. Pod templates and the specs of Jobs to be made are plain trees, to be copied as they are.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/ and .../cron-job-v1/
"""

from __future__ import annotations

from typing import Any

from podwire.objects.core import Condition, ObjectReference
from podwire.objects.meta import LabelSelector, Object, Value


class ExitCodes(Value, frozen=True):
    container_name: str | None = None
    operator: str = "In"
    values: tuple[int, ...] = ()


class PodConditionPattern(Value, frozen=True):
    type: str = ""
    status: str = "True"


class FailureRule(Value, frozen=True):
    action: str = "Count"
    on_exit_codes: ExitCodes | None = None
    on_pod_conditions: tuple[PodConditionPattern, ...] = ()


class PodFailurePolicy(Value, frozen=True):
    rules: tuple[FailureRule, ...] = ()


class SuccessRule(Value, frozen=True):
    succeeded_indexes: str | None = None
    succeeded_count: int | None = None


class SuccessPolicy(Value, frozen=True):
    rules: tuple[SuccessRule, ...] = ()


class JobSpec(Value, frozen=True):
    parallelism: int = 1
    completions: int | None = None
    completion_mode: str = "NonIndexed"
    backoff_limit: int = 6
    backoff_limit_per_index: int | None = None
    max_failed_indexes: int | None = None
    active_deadline_seconds: int | None = None
    ttl_seconds_after_finished: int | None = None
    suspend: bool = False
    selector: LabelSelector = LabelSelector()
    template: dict[str, Any] = {}
    pod_failure_policy: PodFailurePolicy | None = None
    pod_replacement_policy: str = "TerminatingOrFailed"
    success_policy: SuccessPolicy | None = None
    managed_by: str | None = None


class UncountedTerminatedPods(Value, frozen=True):
    succeeded: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class JobStatus(Value, frozen=True):
    active: int = 0
    ready: int | None = None
    terminating: int | None = None
    succeeded: int = 0
    failed: int = 0
    start_time: str | None = None
    completion_time: str | None = None
    completed_indexes: str = ""
    failed_indexes: str | None = None
    uncounted_terminated_pods: UncountedTerminatedPods | None = None
    conditions: tuple[Condition, ...] = ()


class Job(Object, frozen=True):
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()

    @property
    def finished(self) -> str:
        """``Complete``, ``Failed``, or "" while it is neither."""
        return next((one.type for one in self.status.conditions if one.type in ("Complete", "Failed") and one.status == "True"), "")


class CronJobSpec(Value, frozen=True):
    schedule: str = ""
    time_zone: str | None = None
    starting_deadline_seconds: int | None = None
    concurrency_policy: str = "Allow"
    suspend: bool = False
    job_template: dict[str, Any] = {}
    successful_jobs_history_limit: int | None = 3
    failed_jobs_history_limit: int | None = 1


class CronJobStatus(Value, frozen=True):
    active: tuple[ObjectReference, ...] = ()
    last_schedule_time: str | None = None
    last_successful_time: str | None = None


class CronJob(Object, frozen=True):
    spec: CronJobSpec = CronJobSpec()
    status: CronJobStatus = CronJobStatus()
