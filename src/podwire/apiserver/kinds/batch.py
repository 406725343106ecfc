"""Rows of the group batch, version v1: Jobs and CronJobs.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/ and .../cron-job-v1/
"""

from __future__ import annotations

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from podwire.apiserver.kind import STATUS, Kind, Tree
from podwire.apiserver.kinds import workload_cells as cells
from podwire.apiserver.kinds import workload_defaults as defaults
from podwire.apiserver.kinds.job_validation import job_errors, template_of_job_errors
from podwire.apiserver.validation import FieldError, Path, dns_subdomain, invalid, required
from podwire.apiserver.validation_values import not_negative, one_of
from podwire.objects import cron

_SPEC = Path("spec")
_OF_A_JOB = "batch.kubernetes.io/"
_LONGEST_CRON_NAME = 52  # room for the eleven characters that a Job's name has more


def _select_own_pods(tree: Tree) -> None:
    """A Job selects its Pods by its own uid, unless its writer insists on another selector."""
    spec, metadata = tree["spec"], tree["metadata"]
    if spec.get("manualSelector"):
        return
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    for prefix in (_OF_A_JOB, ""):  # what is there already stays, and is refused if it is another Job's
        labels.setdefault(prefix + "controller-uid", metadata.get("uid", ""))
        labels.setdefault(prefix + "job-name", metadata.get("name", ""))
    spec.setdefault("selector", {}).setdefault("matchLabels", {}).setdefault(_OF_A_JOB + "controller-uid", metadata.get("uid", ""))


def _validate_cron_job(tree: Tree, old: Tree | None) -> list[FieldError]:
    spec, name = tree.get("spec", {}), tree["metadata"].get("name", "")
    errors: list[FieldError] = []
    if old is None and len(name) > _LONGEST_CRON_NAME:
        errors.append(invalid(Path("metadata") / "name", name, f"must be no more than {_LONGEST_CRON_NAME} characters"))
    schedule = spec.get("schedule", "")
    if not schedule:
        errors.append(required(_SPEC / "schedule"))
    else:
        errors += _schedule_errors(schedule)
    errors += _time_zone_errors(spec.get("timeZone"))
    errors += one_of(spec.get("concurrencyPolicy", ""), ("Allow", "Forbid", "Replace"), _SPEC / "concurrencyPolicy")
    for key in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        errors += not_negative(spec.get(key), _SPEC / key)
    return errors + template_of_job_errors(spec.get("jobTemplate", {}), _SPEC / "jobTemplate")


def _schedule_errors(schedule: str) -> list[FieldError]:
    where = _SPEC / "schedule"
    if "TZ" in schedule:
        return [invalid(where, schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead")]
    try:
        cron.parse(schedule)
    except cron.BadSchedule as error:
        return [invalid(where, schedule, str(error))]
    return []


def _time_zone_errors(name: str | None) -> list[FieldError]:
    where = _SPEC / "timeZone"
    if name is None:
        return []
    if not name:
        return [invalid(where, name, "timeZone must be nil or non-empty string")]
    if name.lower() == "local":
        return [invalid(where, name, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones")]
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return [invalid(where, name, f"unknown time zone {name}")]
    return []


JOB = Kind(
    "batch",
    "v1",
    "jobs",
    "Job",
    True,
    "io.k8s.api.batch.v1.Job",
    categories=("all",),
    subresources=(STATUS,),
    columns=cells.JOB_COLUMNS,
    row=cells.job_row,
    selectable_fields={"status.successful": lambda tree: str(tree.get("status", {}).get("succeeded", 0))},
    name_errors=dns_subdomain,
    default=defaults.default_job,
    prepare_create=_select_own_pods,
    validate=job_errors,
)
CRON_JOB = Kind(
    "batch",
    "v1",
    "cronjobs",
    "CronJob",
    True,
    "io.k8s.api.batch.v1.CronJob",
    short_names=("cj",),
    categories=("all",),
    subresources=(STATUS,),
    columns=cells.CRON_JOB_COLUMNS,
    row=cells.cron_job_row,
    default=defaults.default_cron_job,
    validate=_validate_cron_job,
)

KINDS = (JOB, CRON_JOB)
