"""Jobs and CronJobs: the controllers on a real API server. Pods end when the test says so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import running_apiserver
from podwire.client.api import Client
from podwire.objects.resources import CRON_JOBS, EVENTS, JOBS, PODS
from running_controllers import cluster, namespace, stamp, until

SPEC: dict[str, Any] = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "busybox"}]}}}


async def end(client: Client, where: str, count: int, code: int = 0) -> None:
    """End so many Pods that run."""

    async def running() -> Any:
        found = [pod for pod in await client.list(PODS, where) if pod.ready and pod.status.phase == "Running"]
        return found if len(found) >= count else None

    for pod in (await until(running))[:count]:
        terminated = {"exitCode": code, "finishedAt": stamp()}
        state = {
            "phase": "Failed" if code else "Succeeded",
            "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": [
                {"name": "c", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": {"terminated": terminated}}
            ],
        }
        await client.patch(PODS, pod.name, where, {"status": state}, kind="strategic", subresource="status")


async def test_a_job_counts_each_pod_once_and_its_pods_can_be_deleted(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, _):
        where = await namespace(client, "jobs")
        body = {"metadata": {"name": "sum"}, "spec": SPEC | {"completions": 5, "parallelism": 2}}
        await client.create(JOBS, body, where)
        for _ in range(5):
            await end(client, where, 1)

        async def complete() -> Any:
            job = await client.get(JOBS, "sum", where)
            return job if job.finished else None

        job = await until(complete)
        assert (job.finished, job.status.succeeded, job.status.failed, job.status.active) == ("Complete", 5, 0, 0)
        assert [pod.metadata.finalizers for pod in await client.list(PODS, where)] == [()] * 5
        told = {event.message for event in await client.list(EVENTS, where) if event.involved_object.name == "sum"}

        async def said() -> bool:
            return "Job completed" in {event.message for event in await client.list(EVENTS, where)}

        await until(said)
        assert told
        await client.delete(JOBS, "sum", where, propagation="Background")

        async def gone() -> bool:
            return not await client.list(PODS, where)

        await until(gone)


async def test_a_job_that_goes_lets_its_running_pods_go(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, _):
        where = await namespace(client, "jobs-that-go")
        await client.create(JOBS, {"metadata": {"name": "long"}, "spec": SPEC | {"parallelism": 3, "completions": 3}}, where)

        async def three() -> bool:
            return len([pod for pod in await client.list(PODS, where) if pod.ready]) == 3

        await until(three)
        await client.delete(JOBS, "long", where, propagation="Background")

        async def gone() -> bool:
            return not await client.list(PODS, where) and not await client.list(JOBS, where)

        await until(gone)


async def test_a_cron_job_makes_one_job_for_a_time_and_keeps_so_many(server: running_apiserver.ApiServer) -> None:
    async with cluster(server) as (client, _):
        where = await namespace(client, "cron")
        spec = {"schedule": "* * * * *", "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": SPEC}, "successfulJobsHistoryLimit": 1}
        await client.create(CRON_JOBS, {"metadata": {"name": "tick"}, "spec": spec | {"suspend": True}}, where)
        # As if it had run last some minutes ago: the last time that was missed counts, once.
        for number in (1, 2):
            last = f"{datetime.now(UTC) - timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}"
            await client.patch(CRON_JOBS, "tick", where, {"status": {"lastScheduleTime": last}}, subresource="status")
            await client.patch(CRON_JOBS, "tick", where, {"spec": {"suspend": False}})

            async def made(last: str = last) -> Any:
                one = await client.get(CRON_JOBS, "tick", where)
                return one if one.status.active and (one.status.last_schedule_time or "") > last else None

            one = await until(made)
            await client.patch(CRON_JOBS, "tick", where, {"spec": {"suspend": True}})
            [job] = [job for job in await client.list(JOBS, where) if not job.finished]
            due = datetime.fromisoformat(one.status.last_schedule_time)
            assert job.name == f"tick-{int(due.timestamp()) // 60}"
            assert job.metadata.labels["a"] == "b"
            await end(client, where, 1)

            async def idle() -> bool:
                found = await client.get(CRON_JOBS, "tick", where)
                return not found.status.active and found.status.last_successful_time is not None

            await until(idle)
            if number == 1:
                await client.delete(JOBS, job.name, where, propagation="Background")  # the same minute may give the same name

        async def kept() -> bool:
            return len(await client.list(JOBS, where)) == 1

        await until(kept)
