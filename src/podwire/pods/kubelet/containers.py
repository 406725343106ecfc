"""A container of this node, found by the names in a path, and which of its runs is meant."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from podwire.objects.core import Container, Pod
from podwire.pods.kubelet.upgrade import Refused
from podwire.pods.runs import Run, State
from podwire.pods.worker import PodWorker


@dataclass(frozen=True)
class Place:
    """A container, and the worker of its Pod."""

    worker: PodWorker
    container: Container

    @property
    def pod(self) -> Pod:
        return self.worker.pod

    @property
    def uid(self) -> str:
        return self.worker.record.uid

    @property
    def run(self) -> Run:
        return self.worker.record.runs.get(self.container.name, Run(reason="ContainerCreating"))

    def running(self) -> Run:
        """The present run. Raises Refused when there is none."""
        run = self.run
        if run.state is not State.RUNNING:
            raise Refused(500, f'container not found ("{self.container.name}")')
        return run

    async def over(self, number: int) -> None:
        """Wait until a run has ended."""
        while not self.worker.gone and self.run.state is State.RUNNING and self.run.restarts == number:
            await self.worker.changed()


Workers = Callable[[], Iterable[PodWorker]]


def all_containers(pod: Pod) -> tuple[Container, ...]:
    """Every container of a Pod, of whatever kind."""
    return (*pod.spec.init_containers, *pod.spec.containers, *pod.spec.ephemeral_containers)


def find_pod(workers: Workers, namespace: str, name: str, uid: str = "") -> PodWorker:
    """The worker of a Pod. Raises Refused (404)."""
    for worker in workers():
        pod = worker.pod
        if pod.name == name and pod.namespace == namespace and uid in ("", worker.record.uid):
            return worker
    raise Refused(404, f'pod "{name}" not found' if uid == "" else f'pod "{name}" with uid "{uid}" not found')


def find(workers: Workers, namespace: str, name: str, container: str, uid: str = "") -> Place:
    """A container. Raises Refused (404)."""
    worker = find_pod(workers, namespace, name, uid)
    for one in all_containers(worker.pod):
        if one.name == container:
            return Place(worker, one)
    raise Refused(404, f'container "{container}" not found in pod "{name}_{namespace}"')


async def first(*awaited: asyncio.Future[object]) -> None:
    """Wait for the first of these, and end the others."""
    try:
        await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in awaited:
            one.cancel()
