"""The controllers of workloads on a real API server, for tests, with nodes that only say that their Pods run."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import running_apiserver
from podwire.client.api import Client
from podwire.client.errors import ApiError
from podwire.client.informer import Informer
from podwire.daemon.config import AgentConfig
from podwire.daemon.context import Context
from podwire.objects.core import Pod
from podwire.objects.resources import LEASES, NAMESPACES, NODES, PODS
from podwire.workloads.availability import has_ended
from podwire.workloads.controller import run as run_controllers

LIMIT_S = 30.0


def stamp() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


class Kubelet:
    """Plays the nodes: every Pod on them runs and is ready at once, and ends when it is told to.

    A Pod that has ended is left as it is.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.known: dict[str, int] = {}
        self.silent: set[str] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.may_end = asyncio.Event()
        self.may_end.set()

    async def register(self, name: str, zone: str) -> None:
        body = {"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}}}
        with contextlib.suppress(ApiError):
            await self.client.create(NODES, body)
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": stamp(), "lastHeartbeatTime": stamp()}
        state = {"allocatable": {"pods": "110"}, "conditions": [ready]}
        await self.client.patch(NODES, name, "", {"status": state}, subresource="status")
        lease = {"metadata": {"name": name, "namespace": "kube-node-lease"}, "spec": {"holderIdentity": name}}
        with contextlib.suppress(ApiError):
            await self.client.create(LEASES, lease)

    async def renew(self, name: str) -> None:
        spec = {"renewTime": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"}
        await self.client.patch(LEASES, name, "kube-node-lease", {"spec": spec})

    async def beat(self, names: Iterable[str]) -> None:
        while True:
            for name in names:
                if name not in self.silent:
                    await self.renew(name)
            await asyncio.sleep(0.2)

    async def run(self) -> None:
        informer = Informer(self.client, PODS)
        informer.subscribe(self._changed)
        await informer.run()

    def _changed(self, _old: Pod | None, new: Pod | None) -> None:
        if new is not None and new.spec.node_name:
            task = asyncio.get_running_loop().create_task(self._play(new))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _play(self, pod: Pod) -> None:
        with contextlib.suppress(ApiError):
            if pod.terminating:
                await self.may_end.wait()
                await self.client.delete(PODS, pod.name, pod.namespace, grace=0)
            elif not pod.ready and not has_ended(pod) and pod.spec.node_name not in self.silent:
                number = self.known.setdefault(pod.metadata.uid, len(self.known) + 1)
                ip = f"10.4.{number // 250}.{number % 250 + 1}"
                conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": stamp()}]
                state = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": conditions}
                await self.client.patch(PODS, pod.name, pod.namespace, {"status": state}, kind="strategic", subresource="status")


@asynccontextmanager
async def cluster(server: running_apiserver.ApiServer, **config: Any) -> AsyncIterator[tuple[Client, Kubelet]]:
    admin = Client.from_kubeconfig(server.kubeconfig())
    controllers = Client.from_kubeconfig(server.kubeconfig(running_apiserver.CONTROLLER))
    kubelet = Kubelet(admin)
    context = Context(controllers, AgentConfig(**config), parts=["workloads"])
    for name, zone in (("n1", "a"), ("n2", "b"), ("n3", "c")):
        await kubelet.register(name, zone)
    tasks = [asyncio.create_task(run_controllers(context)), asyncio.create_task(kubelet.run())]
    try:
        await until(lambda: not context.unready)
        yield admin, kubelet
    finally:
        for task in [*tasks, *kubelet.tasks]:
            task.cancel()
        results = await asyncio.gather(*tasks, *kubelet.tasks, return_exceptions=True)
        await context.close()
        await admin.close()
        await controllers.close()
        assert all(isinstance(result, asyncio.CancelledError) for result in results[:2]), results


async def until(condition: Callable[[], Any] | Callable[[], Awaitable[Any]]) -> Any:
    """Wait until the condition holds and give what it gave; an object that is not there counts as not yet."""
    last: Any = None
    try:
        async with asyncio.timeout(LIMIT_S):
            while True:
                try:
                    last = condition()
                    if isinstance(last, Awaitable):
                        last = await last
                    if last:
                        return last
                except ApiError as error:
                    if not error.not_found:
                        raise
                    last = error
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {LIMIT_S} s; the last answer: {last!r}") from None


async def namespace(client: Client, name: str) -> str:
    await client.create(NAMESPACES, {"metadata": {"name": name}})
    return name
