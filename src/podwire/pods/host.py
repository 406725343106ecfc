"""What all Pods of a node share: the node's network, addresses, programs, stand-ins and records, and how to reach the API.

Here: the making and unmaking of a Pod's sandbox, since that is where these meet. Not here: what becomes of a Pod's containers
(``worker``).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import ipaddress
import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import msgspec

from podwire.client.api import Client
from podwire.client.errors import ApiError, Unreachable
from podwire.client.events import EventRecorder
from podwire.linux import namespaces, sysctl
from podwire.linux.errors import KernelRefused
from podwire.objects.core import Pod, Service
from podwire.objects.resources import RUNTIME_CLASSES
from podwire.pods import admission, bandwidth, desired, host_ports, wiring
from podwire.pods.addresses import RangeExhausted
from podwire.pods.cgroups import PodCgroups
from podwire.pods.cni import effects
from podwire.pods.cni.errors import HostPortTaken
from podwire.pods.cni.ruleset import Publication
from podwire.pods.desired import NodeFacts
from podwire.pods.ipc import PodIpc
from podwire.pods.machine import Machine
from podwire.pods.network import NetworkFull, PodNetwork
from podwire.pods.node_addresses import NodeAddresses
from podwire.pods.oci.player import ImagePlayer
from podwire.pods.programs import Programs, namespace_name
from podwire.pods.records import Records
from podwire.pods.runs import Record
from podwire.pods.standard_streams import StandardStreams
from podwire.pods.standins.link import StandinsLink
from podwire.pods.volumes.pod_volumes import VolumePlace
from podwire.pods.wiring import IPAddress

HANDLERS = ("runc",)
"""What a RuntimeClass may name for this node to run its Pods."""
_LAST_WORDS_S = 5.0
P = ParamSpec("P")
T = TypeVar("T")


class SandboxFailed(Exception):
    """A Pod's sandbox could not be made; the text says why, for people."""


@dataclass
class Host:
    """``services`` gives those of a namespace; ``now`` is wall-clock seconds; ``wiring`` runs the network's calls, one at a time.

    ``settable``: the safe settings of the kernel that it lets a Pod set here.
    """

    client: Client
    events: EventRecorder
    log: logging.Logger
    now: Callable[[], float]
    facts: NodeFacts
    addresses: NodeAddresses
    network: PodNetwork
    wiring: Executor
    programs: Programs
    streams: StandardStreams
    machine: Machine
    ipc: PodIpc
    settable: Collection[str]
    standins: StandinsLink
    records: Records
    services: Callable[[str], Iterable[Service]]
    volumes: VolumePlace
    images: ImagePlayer
    cgroups: PodCgroups

    async def _wired(self, call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.wiring, functools.partial(call, *arguments, **named))

    async def make_sandbox(self, pod: Pod, record: Record) -> tuple[Record, int]:
        """Give the Pod a network namespace with an address, or the node's own; and the files that resolve names.

        The record is written before anything exists that it speaks of. The descriptor is the caller's. Raises SandboxFailed.
        """
        if pod.spec.runtime_class_name:
            await self._check_runtime(pod.spec.runtime_class_name)
        record, namespace = await self._wired(self._make, pod, record)
        namespace = await self._held(record.uid, namespace)
        if admission.ipc_sysctls(pod):  # which would be refused now, and not when a container needs it
            try:
                await self.ipc.ensure(pod)
            except KernelRefused as refused:
                os.close(namespace)
                await self._wired(self._unmake, record)
                raise SandboxFailed(str(refused)) from refused
        return record, namespace

    async def _check_runtime(self, name: str) -> None:
        """Whether this node can run Pods of the class. Raises SandboxFailed."""
        try:
            handler = (await self.client.get(RUNTIME_CLASSES, name)).handler
        except ApiError as error:
            raise SandboxFailed(error.message if error.not_found else f'failed to lookup RuntimeClass "{name}": {error}') from error
        except Unreachable as error:
            raise SandboxFailed(f'failed to lookup RuntimeClass "{name}": {error}') from error
        if handler not in HANDLERS:
            raise SandboxFailed(f'failed to get sandbox runtime: no runtime for "{handler}" is configured')

    def _make(self, pod: Pod, record: Record) -> tuple[Record, int]:
        """Runs in the wiring's thread: files and the kernel, one Pod after the other."""
        uid, again = record.uid, record.sandbox > 0
        record = msgspec.structs.replace(record, addresses=(), sandbox=record.sandbox + 1)
        if pod.spec.host_network:
            self._write(pod, record, self.facts.ips)
            return record, namespaces.own_network()
        settings = {name: value for name, value in admission.sysctls(pod).items() if name.startswith("net.")}
        if again:
            self.addresses.release_owner(uid)  # of a sandbox that is gone
        try:
            addresses = self.addresses.allocate(uid)
            publication, limits = host_ports.publication(pod, addresses), bandwidth.rates(pod.metadata.annotations)
            record = msgspec.structs.replace(record, addresses=tuple(map(str, addresses)), host_ports=publication is not None)
            self._write(pod, record, record.addresses)
            namespace = self.network.add_new(uid, addresses)
            self._configure(uid, addresses, namespace, settings, publication, limits)
        except (bandwidth.Unreasonable, desired.NameTooLong, HostPortTaken, RangeExhausted, NetworkFull, KernelRefused, OSError) as error:
            self.addresses.release_owner(uid)
            raise SandboxFailed(_words(error)) from error
        else:
            return record, namespace

    def _configure(
        self,
        uid: str,
        addresses: Sequence[IPAddress],
        namespace: int,
        settings: Mapping[str, str],
        publication: Publication | None,
        limits: bandwidth.Rates,
    ) -> None:
        """What only some Pods ask for, beside their wires."""
        try:
            if settings:
                sysctl.write_all(settings, namespace)
            if limits:
                effects.hold(limits.ingress, limits.egress, namespace, wiring.INTERFACE)
            if publication is not None:
                effects.publish(publication, wiring.BRIDGE)
        except BaseException:
            self.network.delete(uid, addresses)
            os.close(namespace)
            raise

    async def _held(self, uid: str, namespace: int) -> int:
        try:
            await self.programs.client.hold(namespace_name(uid), namespace)
        except BaseException:
            os.close(namespace)
            raise
        return namespace

    async def remove_sandbox(self, record: Record) -> None:
        """Take everything away that a Pod has on this node, its record and its files excepted."""
        await self.standins.stop(record.uid)
        await self.programs.end_all(record.uid)
        await self.images.remove(record)
        await self.cgroups.remove(record.uid)
        await self._wired(self._unmake, record)
        await self.programs.release(record.uid)
        await self.ipc.release(record.uid)

    async def remove_files(self, uid: str) -> None:
        """Remove all that is kept of a Pod whose sandbox is gone, once its last words are written: then nobody makes files for it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_S):
                await self.streams.logs.drained_of(uid)
        self.volumes.remove(uid)
        self.records.remove(uid)

    def _unmake(self, record: Record) -> None:
        addresses = [ipaddress.ip_address(address) for address in record.addresses]
        if record.host_ports:
            effects.withdraw(wiring.port_of(record.uid))
        self.network.detach(addresses)
        for address in addresses:
            self.addresses.release(address)

    def _write(self, pod: Pod, record: Record, ips: Iterable[str]) -> None:
        self.records.write(record)
        desired.kernel_hostname(pod, self.facts)  # one that the kernel would cut is refused before anything is made
        # Read by each program of the machine in the Pod, those of `podwire exec` too, which asks nobody.
        self.records.write_files(record.uid, {"hosts": desired.hosts(pod, self.facts, ips)}, mode=0o644)
        self.records.share(record.uid, "resolv.conf", desired.resolv_conf(pod, self.facts))


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
        return f"{error}: this process has too many open files; raise the limit (ulimit -Hn) before the cluster starts"
    return str(error)
