"""Watches CronJobs and their Jobs; makes a Job at each time, forgets old ones, writes the status."""

from __future__ import annotations

from podwire.client.errors import ApiError
from podwire.daemon.context import Context
from podwire.objects.batch import CronJob, Job
from podwire.objects.resources import CRON_JOBS, JOBS
from podwire.workloads import work
from podwire.workloads.cronjobs import desired
from podwire.workloads.kinds import Tree, controller_of

_SOON_S = 1.0  # until the table shows the Job that was just made


class CronJobs:
    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._events = context.recorder("cronjob-controller")
        self._cron_jobs = context.informer(CRON_JOBS)
        self._jobs = context.informer(JOBS, indexes={"owner": desired.owner_uid})
        self._written: dict[str, str] = {}  # CronJob -> the resourceVersion that was written last
        self._work = work.reconciler(context, "cronjobs", self._operate)
        self._cron_jobs.subscribe(self._cron_job_changed)
        self._jobs.subscribe(self._job_changed)

    async def start(self) -> None:
        await work.start(self._context, self._work, "cronjobs", [self._cron_jobs, self._jobs])

    def _cron_job_changed(self, old: CronJob | None, new: CronJob | None) -> None:
        value = new or old
        if value is not None:
            self._work.mark(value.key)

    def _job_changed(self, old: Job | None, new: Job | None) -> None:
        value = new or old
        owner = controller_of(value.metadata) if value is not None else None
        if value is not None and owner is not None and owner.kind == CRON_JOBS.kind:
            self._work.mark(f"{value.namespace}/{owner.name}")

    async def _operate(self, key: str) -> float | None:
        cron_job = self._cron_jobs.table.get(key)
        if cron_job is None:
            self._written.pop(key, None)
            return None
        if int(cron_job.metadata.resource_version) < int(self._written.get(key, "0")):
            return _SOON_S  # the table lags behind what was written; its next change comes first
        plan = desired.decide(cron_job, self._jobs.table.by("owner", cron_job.metadata.uid), self._context.now())
        for notice in plan.notices:
            self._events.event(cron_job, notice.type, notice.reason, notice.message)
        for job in plan.delete:
            await self._delete(cron_job, job)
        status = plan.status
        if plan.create is not None:
            job = await self._create(cron_job, plan.create)
            status = {**status, "active": [*(status["active"] or ()), desired.reference(job)]}
        if desired.changed(cron_job, status):
            body = {"metadata": {"resourceVersion": cron_job.metadata.resource_version}, "status": status}
            answer = await self._client.patch(CRON_JOBS, cron_job.name, cron_job.namespace, body, subresource="status")
            self._written[key] = answer.metadata.resource_version
        return plan.again_s

    async def _create(self, cron_job: CronJob, tree: Tree) -> Job:
        name = tree["metadata"]["name"]
        try:
            job = await self._client.create(JOBS, tree)
        except ApiError as error:
            if error.already_exists:  # made by a round that did not get to write its status
                job = await self._client.get(JOBS, name, cron_job.namespace)
                if cron_job.metadata.uid in desired.owner_uid(job):
                    return job
            self._events.event(cron_job, "Warning", "FailedCreate", f"Error creating job: {error.message}")
            raise
        self._events.event(cron_job, "Normal", "SuccessfulCreate", f"Created job {name}")
        return job

    async def _delete(self, cron_job: CronJob, job: Job) -> None:
        try:
            await self._client.delete(JOBS, job.name, job.namespace, uid=job.metadata.uid, propagation="Background")
        except ApiError as error:
            if error.not_found or error.conflict:
                return
            self._events.event(cron_job, "Warning", "FailedDelete", f"Deleted job: {error.message}")
            raise
        self._events.event(cron_job, "Normal", "SuccessfulDelete", f"Deleted job {job.name}")
