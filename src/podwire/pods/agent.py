"""The agent ``pods``: the node's kubelet, as far as the network can tell.

It registers the node and keeps it alive, sets up the node's bridge, and has one worker for each Pod that is bound to the node.
Killed, it leaves everything running: the node's first process holds namespaces and programs, the stand-ins' process goes on
listening, the records are on disk. When it comes back it takes up what is still there, begins anew what is not (a node that was
restarted), and takes away what belongs to no Pod any more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network
from pathlib import Path

from podwire.client.api import Client
from podwire.client.informer import Informer
from podwire.daemon.config import ConfigError
from podwire.daemon.context import Context
from podwire.images.documents import ARCHITECTURES, Platform
from podwire.images.store import Store
from podwire.linux import sysctl
from podwire.linux.cgroups import Tree
from podwire.linux.init_client import AsyncInitClient
from podwire.objects.core import Node, Pod, PodSpec, Service
from podwire.objects.resources import NODES, PODS, SERVICES
from podwire.pods import admission, fitting, preemption, runs, wiring
from podwire.pods.admission import Refusal
from podwire.pods.cgroups import PodCgroups
from podwire.pods.desired import NodeFacts
from podwire.pods.host import Host
from podwire.pods.ipc import PodIpc
from podwire.pods.kubelet.access import Access
from podwire.pods.kubelet.app import Kubelet
from podwire.pods.kubelet.server import serving
from podwire.pods.logs.link import LogWriter
from podwire.pods.machine import Machine
from podwire.pods.network import PodNetwork
from podwire.pods.node import OwnNode, read_facts
from podwire.pods.node_addresses import NodeAddresses
from podwire.pods.oci.player import ImagePlayer
from podwire.pods.oci.pulls import Pulls
from podwire.pods.programs import Programs, namespace_name
from podwire.pods.records import Records
from podwire.pods.runs import Record
from podwire.pods.standard_streams import StandardStreams
from podwire.pods.standins.link import StandinsLink
from podwire.pods.standins.messages import Ended
from podwire.pods.volumes.places import Places
from podwire.pods.volumes.pod_volumes import VolumePlace
from podwire.pods.volumes.sources import Sources
from podwire.pods.worker import PodWorker
from podwire.views import resources
from podwire.views.resources import Amounts

_WORKER_RETRY_S = 5.0
# Where the program of a Pod such as cluster DNS is: this interpreter's environment, and these packages.
_INSTALLATION = (sys.prefix, str(Path(__file__).resolve().parents[2]))


async def run(context: Context) -> None:
    """Run until cancelled. Raises ConfigError when the configuration lacks what a node needs."""
    config = context.config
    missing = [name for name in ("pod_cidrs", "node_ips", "init_socket", "standins_socket", "state_dir") if not getattr(config, name)]
    if missing or not context.node:
        raise ConfigError(f"the agent pods needs {', '.join([*missing, *([] if context.node else ['--node'])])}")
    folder = Path(config.state_dir) / "nodes" / context.node
    with ThreadPoolExecutor(1, "wiring") as wiring_thread:
        async with await AsyncInitClient.connect(config.init_socket) as client:
            agent = PodsAgent(context, _host(context, folder, client, wiring_thread))
            await agent.run()


def _host(context: Context, folder: Path, client: AsyncInitClient, wiring_thread: ThreadPoolExecutor) -> Host:
    config = context.config
    facts = NodeFacts(
        name=context.node,
        cluster=config.cluster_name,
        ips=config.node_ips,
        zone=config.zone,
        cluster_domain=config.cluster_domain,
        cluster_dns=config.cluster_dns,
        resolv_conf="",  # the lab's nodes have no name server but the cluster's own
    )
    ranges = [ip_network(text) for text in config.pod_cidrs]
    informer = context.informer(SERVICES, indexes={"namespace": lambda service: [service.namespace]})

    def services(namespace: str) -> Iterable[Service]:
        found = informer.table.by("namespace", namespace)
        kubernetes = None if namespace == "default" else informer.table.get("default/kubernetes")
        return found if kubernetes is None else (*found, kubernetes)

    architecture = platform.machine()
    store = Store(config.images_dir, machine=Platform(ARCHITECTURES.get(architecture, architecture), "linux"))
    pulls = Pulls(store.folder, ARCHITECTURES.get(architecture, architecture), config.registries, config.control_socket)
    log = context.log.getChild("pods")
    records = Records(folder / "pods", log)
    tree = Tree.from_words(config.cgroups)
    programs = Programs(client)
    logs = LogWriter(client, config.init_socket, folder / "pods", log)
    ipc = PodIpc(client, Path(config.init_socket).parent / "shared-memory")
    machine = Machine(records, facts, services, ipc, hidden=[config.state_dir, config.images_dir, *config.private], seen=_INSTALLATION)
    return Host(
        client=context.client,
        events=context.recorder("kubelet"),
        log=log,
        now=lambda: context.now().timestamp(),
        facts=facts,
        addresses=NodeAddresses(Path(config.init_socket).parent, ranges),  # they end with the namespaces that have them
        network=PodNetwork(ranges),
        wiring=wiring_thread,
        programs=programs,
        streams=StandardStreams(programs, logs, records),
        machine=machine,
        ipc=ipc,
        settable=sysctl.settable(admission.SAFE_SYSCTLS),
        standins=StandinsLink(config.standins_socket, log),
        records=records,
        services=services,
        volumes=VolumePlace(
            client=context.client,
            followed=Sources(Client(context.client.configuration, user_agent="podwire", connections=0), log),
            disk=folder / "pods",
            memory=Path(config.init_socket).parent / "volumes",
            now=lambda: context.now().timestamp(),
            allocatable={name: amount for name, amount in read_facts(context.node).items() if isinstance(amount, str)},
            places=Places(context.client, config.state_dir, config.host_paths, config.private),
        ),
        cgroups=PodCgroups(tree.below(context.node) if tree is not None else None, config.pod_pids_limit or None),
        images=ImagePlayer(store, machine, records, Path(config.init_socket).parent / "run-images", client, pulls),
    )


class PodsAgent:
    """The node's Pods, by uid: a worker and its task each."""

    def __init__(self, context: Context, host: Host) -> None:
        self._context = context
        self._host = host
        self._log: logging.Logger = host.log
        self._workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._left: dict[str, Record] = {}
        self._held: dict[str, int] = {}
        self._pods = context.informer(PODS, fields=f"spec.nodeName={context.node}")
        self._own: Callable[[], Node]
        self._preempted: set[str] = set()  # who ends for the sake of a critical Pod: their room is that one's already
        self._asks: dict[str, tuple[PodSpec, Amounts]] = {}

    async def run(self) -> None:
        """Set the node up, take up its Pods, and follow them until cancelled."""
        context, host = self._context, self._host
        pods = self._pods
        services = context.informer(SERVICES)
        nodes = context.informer(NODES, fields=f"metadata.name={context.node}")
        node = OwnNode(context)
        host.standins.ended = self._on_standin_ended
        await asyncio.get_running_loop().run_in_executor(host.wiring, host.network.set_up)
        host.cgroups.set_up()
        await host.programs.follow()
        await host.ipc.follow()
        await host.streams.logs.adopt()
        await self._recall()
        await node.register()
        await asyncio.gather(pods.synced.wait(), services.synced.wait(), nodes.synced.wait())
        self._own = lambda: nodes.table.get(context.node) or node.as_registered
        await self._take_up(pods)
        services.subscribe(self._on_service)
        pods.subscribe(self._on_pod)
        kubelet = Kubelet(host, lambda: list(self._workers.values()), Access(context.client, context.node))
        try:
            async with serving(kubelet, context.config), asyncio.TaskGroup() as group:
                group.create_task(host.standins.run())
                group.create_task(node.run())
                group.create_task(self._lost_init())
                context.ready("pods")
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            host.network.close()
            host.streams.logs.close()
            await host.volumes.followed.close()

    async def _lost_init(self) -> None:
        """Without the node's first process there is no node: end, and let the supervisor begin anew."""
        await self._host.programs.client.closed()
        raise ConnectionError("the node's first process has closed the connection")

    # What is left from an agent before this one ----------------------------------------------------------------------------

    async def _recall(self) -> None:
        self._left = {record.uid: record for record in self._host.records.load()}
        self._preempted = {uid for uid, record in self._left.items() if record.reason == preemption.REASON and not record.finished}
        prefix = namespace_name("")
        self._held = {name.removeprefix(prefix): fd for name, fd in (await self._host.programs.client.give(prefix)).items()}

    async def _take_up(self, pods: Informer[Pod]) -> None:
        """Keep what belongs to a Pod that is still the node's, and take the rest away."""
        wanted = {pod.metadata.uid: pod for pod in pods.table.snapshot()}
        for uid in self._left.keys() | self._held.keys():
            if uid not in wanted:
                await self._take_away(self._left.pop(uid, Record(uid=uid, namespace="", name="")))
                if uid in self._held:
                    os.close(self._held.pop(uid))
        for uid, record in self._left.items():
            if uid not in self._held and not record.finished:
                self._log.info("pod %s/%s: its sandbox is gone and is made anew", record.namespace, record.name)
                await self._host.programs.end_all(uid)
                init = [container.name for container in wanted[uid].spec.init_containers]
                self._left[uid] = runs.lost(record, init, self._host.now())
        known = [wiring.wires(uid, [ip_address(a) for a in record.addresses]) for uid, record in self._left.items() if record.addresses]
        await asyncio.get_running_loop().run_in_executor(self._host.wiring, self._host.network.strays, known)
        for owner in self._host.addresses.owners():
            if owner not in self._left or not self._left[owner].addresses:
                self._host.addresses.release_owner(owner)

    async def _take_away(self, record: Record) -> None:
        self._log.info("pod %s/%s (%s) is no longer this node's: removed", record.namespace, record.name, record.uid)
        await self._host.remove_sandbox(record)
        await self._host.remove_files(record.uid)

    # What changes ----------------------------------------------------------------------------------------------------------

    def _on_pod(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and (new is None or new.metadata.uid != old.metadata.uid):
            worker = self._workers.get(old.metadata.uid)
            if worker is not None:
                worker.vanish()
        if old is not None and (new is None or new.spec != old.spec or new.status.phase != old.status.phase):
            for other in self._workers.values():
                other.reconsider()
        if new is None:
            return
        uid = new.metadata.uid
        if uid in self._workers:
            self._workers[uid].update(new)
        else:
            record = self._left.pop(uid, None)
            misfit = None if record is not None or new.terminating else self._admit(new)
            worker = self._workers[uid] = self._worker(new, record, self._held.pop(uid, None), misfit)
            if uid in self._preempted:
                worker.preempt()
            self._tasks[uid] = asyncio.create_task(self._work(worker), name=f"pod {new.namespace}/{new.name}")

    def _taken(self) -> list[Pod]:
        """The Pods that the node has taken and that have not ended, also those that its workers are yet to take up."""
        left = [self._pods.table.get(f"{one.namespace}/{one.name}") for one in self._left.values() if not one.finished]
        found = [pod for pod in left if pod is not None] + [worker.allocated for worker in self._workers.values() if worker.takes_room]
        return [pod for pod in found if pod.metadata.uid not in self._preempted] if self._preempted else found

    def _admit(self, pod: Pod) -> Refusal | None:
        """Whether the node takes a Pod. For a critical one others may have to go."""
        refused, victims = preemption.admit(pod, self._own(), self._taken(), self._asked)
        for victim in victims:
            self._log.info("pod %s ends for the sake of the critical pod %s", victim.key, pod.key)
            self._preempted.add(victim.metadata.uid)
            if (worker := self._workers.get(victim.metadata.uid)) is not None:
                worker.preempt()
        return refused

    async def _vacated(self) -> None:
        """Wait until all who end for another's sake have ended. As with a kubelet no Pod is begun meanwhile."""
        while going := [one for uid, one in self._workers.items() if uid in self._preempted and not one.over.is_set()]:
            await going[0].over.wait()

    def _worker(self, pod: Pod, record: Record | None, namespace: int | None, misfit: Refusal | None) -> PodWorker:
        return PodWorker(self._host, pod, record, namespace, misfit, self._unresizable, self._vacated)

    def _unresizable(self, pod: Pod) -> tuple[str, str]:
        return fitting.unresizable(pod, self._own(), [one for one in self._taken() if one.metadata.uid != pod.metadata.uid], self._asked)

    def _asked(self, pod: Pod) -> Amounts:
        """What a Pod asks for, read once: a node may have a thousand Pods, and each newcomer is counted after all of them."""
        known = self._asks.get(pod.metadata.uid)
        if known is None or known[0] is not pod.spec:
            known = self._asks[pod.metadata.uid] = (pod.spec, resources.requested(pod))
        return known[1]

    def _on_standin_ended(self, ended: Ended) -> None:
        worker = self._workers.get(ended.uid)
        if worker is not None:
            worker.standin_ended(ended.container, ended.exit_code)

    def _on_service(self, old: Service | None, new: Service | None) -> None:
        service = new or old
        if service is None or (old is not None and new is not None and old.spec == new.spec):
            return
        for worker in self._workers.values():
            if worker.pod.namespace == service.namespace:
                worker.services_changed()

    async def _work(self, worker: PodWorker) -> None:
        """Let the worker live its Pod's life. One that fails unforeseen is reported, and another one goes on."""
        uid = worker.record.uid
        try:
            while True:
                try:
                    await worker.run()
                except Exception as error:
                    self._log.exception("pod %s/%s: its worker failed; another one goes on", worker.pod.namespace, worker.pod.name)
                    self._host.events.event(worker.pod, "Warning", "FailedSync", f"Error syncing pod: {error}")
                else:
                    return
                await asyncio.sleep(_WORKER_RETRY_S)
                held = await self._host.programs.client.give(namespace_name(uid))
                namespace, former = next(iter(held.values()), None), worker
                worker = self._workers[uid] = self._worker(former.pod, former.record, namespace, former.refusal)
                if uid in self._preempted:
                    worker.preempt()
                if former.vanished:
                    worker.vanish()
        finally:
            del self._workers[uid], self._tasks[uid]
            self._asks.pop(uid, None)
            self._preempted.discard(uid)


__all__ = ["PodsAgent", "run"]
