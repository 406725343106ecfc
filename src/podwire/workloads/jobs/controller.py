"""Watches Jobs and their Pods; makes and deletes Pods, counts what has ended, writes the status, deletes a Job whose time is over.

A decision stands on the Job's latest status, or Pods would be counted twice: what was just written is kept until the table shows it, and
a status is written only over the one that it was made from.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from podwire.client.errors import ApiError
from podwire.daemon.context import Context
from podwire.objects.batch import Job
from podwire.objects.core import Pod
from podwire.objects.resources import JOBS, PODS
from podwire.workloads import names, work
from podwire.workloads.jobs import desired
from podwire.workloads.jobs.tally import TRACKING
from podwire.workloads.kinds import controller_of
from podwire.workloads.owned_pods import OwnedPods

_JOB_NAME = "batch.kubernetes.io/job-name"


class Jobs:
    def __init__(self, context: Context) -> None:
        self._context, self._client = context, context.client
        self._events = context.recorder("job-controller")
        self._owned: OwnedPods[Job] = OwnedPods(context, JOBS, self._events, lambda job: job.spec.selector)
        self._owned.pods.table.add_index("tracked", _tracked)
        self._written: dict[str, Job] = {}
        self._untracked: dict[str, set[str]] = {}
        self._work = work.reconciler(context, "jobs", self._operate)
        self._owned.follow(self._work.mark)
        self._owned.pods.subscribe(self._pod_changed)

    async def start(self) -> None:
        await work.start(self._context, self._work, "jobs", [self._owned.owners, self._owned.pods])

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        for key in {*_tracked(old), *_tracked(new)}:
            self._work.mark(key)
        if old is not None and (new is None or TRACKING not in new.metadata.finalizers):
            for key in _tracked(old):
                self._untracked.get(key, set()).discard(old.metadata.uid)

    def _latest(self, key: str) -> Job | None:
        job, written = self._owned.owners.table.get(key), self._written.get(key)
        if job is None or written is None or written.metadata.uid != job.metadata.uid:
            self._written.pop(key, None)
            return job
        if int(job.metadata.resource_version) >= int(written.metadata.resource_version):
            del self._written[key]
            return job
        return written

    async def _operate(self, key: str) -> float | None:
        job = self._latest(key)
        await self._let_go(key, self._strays(key, job))
        if job is None:
            self._owned.expectations.forget(key)
            self._untracked.pop(key, None)
            return None
        if job.spec.managed_by not in desired.OURS:
            return None
        if waiting := self._owned.waiting(key):
            return waiting
        plan = desired.decide(job, self._owned.candidates(job), self._untracked.get(key, set()), self._context.now())
        await self._owned.own(job, plan.adopt, plan.release)
        if desired.changed(job, plan.status):
            body = {"metadata": {"resourceVersion": job.metadata.resource_version}, "status": plan.status}
            self._written[key] = await self._client.patch(JOBS, job.name, job.namespace, body, subresource="status")
        for notice in plan.notices:
            self._events.event(job, notice.type, notice.reason, notice.message)
        await self._let_go(key, plan.untrack)
        failure = await self._owned.delete(job, plan.delete)
        failure = failure or await self._owned.create(job, [desired.pod_of(job, self._name(job, which), which) for which in plan.create])
        if plan.expire:
            await self._client.delete(JOBS, job.name, job.namespace, uid=job.metadata.uid, propagation="Background")
        if failure:
            raise work.Refused(failure)
        if plan.untrack:
            self._work.mark(key)  # what has let go is counted now
        return plan.again_s

    @staticmethod
    def _name(job: Job, which: tuple[int, int] | None) -> str:
        stem = job.name if which is None else f"{job.name}-{which[0]}"
        return f"{stem}-{names.suffix(secrets.randbelow)}"

    def _strays(self, key: str, job: Job | None) -> list[Pod]:
        """Find Pods that carry the finalizer and have no Job that would ever take it from them."""
        found = []
        for pod in self._owned.pods.table.by("tracked", key):
            owner = controller_of(pod.metadata)
            cared_for = job is not None and (
                owner.uid == job.metadata.uid if owner is not None else job.spec.selector.matches(pod.metadata.labels)
            )
            if not cared_for and pod.metadata.uid not in self._untracked.get(key, ()):
                found.append(pod)
        return found

    async def _let_go(self, key: str, pods: Iterable[Pod]) -> None:
        """Take the finalizer from Pods."""

        async def untrack(pod: Pod) -> None:
            body = {"metadata": {"uid": pod.metadata.uid, "$deleteFromPrimitiveList/finalizers": [TRACKING]}}
            try:
                await self._client.patch(PODS, pod.name, pod.namespace, body, kind="strategic")
            except ApiError as error:
                if not (error.not_found or error.conflict):  # gone, or another one of that name
                    raise
            self._untracked.setdefault(key, set()).add(pod.metadata.uid)

        results = await work.together([lambda pod=pod: untrack(pod) for pod in pods])  # type: ignore[misc]
        for result in results:
            if isinstance(result, Exception):
                raise result


def _tracked(pod: Pod | None) -> list[str]:
    if pod is None or TRACKING not in pod.metadata.finalizers:
        return []
    owner = controller_of(pod.metadata)
    name = owner.name if owner is not None and owner.kind == "Job" else pod.metadata.labels.get(_JOB_NAME, "")
    return [f"{pod.namespace}/{name}"] if name else []
