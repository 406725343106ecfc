"""The node's own object: its words are pure, and two loops write them: the status, and the Lease that says that it lives.

Source: https://kubernetes.io/docs/reference/node/node-status/, https://kubernetes.io/docs/concepts/architecture/leases/
"""

from __future__ import annotations

import asyncio
import os
import platform
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from podwire import __version__
from podwire.client.errors import ApiError, Unreachable
from podwire.daemon.config import AgentConfig
from podwire.daemon.context import Context
from podwire.linux.disk import is_full
from podwire.objects.core import Node
from podwire.objects.resources import LEASES, NODES

Tree = dict[str, Any]

KUBELET_VERSION = "v1.37.0"
LEASE_NAMESPACE = "kube-node-lease"
RENEW_S, STATUS_S = 10.0, 300.0
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
DISK = "DiskPressure"
_NEVER = (
    ("NetworkUnavailable", "RouteCreated", "NodeController create implicit route"),
    ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
)


@dataclass(frozen=True)
class Disk:
    """Whether the folder where the node keeps its Pods has no room left, and since when that is so, as the API writes it."""

    full: bool = False
    since: str = ""

    def seen(self, full: bool, now: str) -> Disk:
        """As it was seen now."""
        return self if full == self.full and self.since else Disk(full, now)

    @property
    def condition(self) -> tuple[str, str, str, str]:
        """Type, status, reason and message."""
        if self.full:
            return DISK, "True", "KubeletHasDiskPressure", "kubelet has disk pressure"
        return DISK, "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"

    @property
    def event(self) -> str:
        return "NodeHasDiskPressure" if self.full else "NodeHasNoDiskPressure"


def labels(name: str, config: AgentConfig, machine: str) -> dict[str, str]:
    """The labels that a node of GKE has, and those of its configuration."""
    architecture = _ARCHITECTURES.get(machine, machine)
    made = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": architecture,
        "topology.kubernetes.io/zone": config.zone,
        "topology.kubernetes.io/region": config.region,
        "topology.gke.io/zone": config.zone,
        "failure-domain.beta.kubernetes.io/zone": config.zone,
        "failure-domain.beta.kubernetes.io/region": config.region,
    }
    return {key: value for key, value in made.items() if value} | config.node_labels


def node(name: str, config: AgentConfig, machine: str) -> Tree:
    """The Node object without its status."""
    tree: Tree = {"metadata": {"name": name, "labels": labels(name, config, machine)}, "spec": {}}
    if config.pod_cidrs:
        tree["spec"] |= {"podCIDR": config.pod_cidrs[0], "podCIDRs": list(config.pod_cidrs)}
    if config.zone:
        tree["spec"]["providerID"] = f"gce://{config.cluster_name}/{config.zone}/{name}"
    return tree


def node_status(name: str, config: AgentConfig, facts: Tree, heartbeat: str, since: str, disk: Disk) -> Tree:
    """The Node's status. ``facts`` is what was read of the machine; the times are as the API writes them."""
    amounts = {
        "cpu": facts["cpu"],
        "ephemeral-storage": facts["ephemeral-storage"],
        "memory": facts["memory"],
        "pods": str(config.max_pods),
    }
    conditions = [(kind, "False", reason, words, since) for kind, reason, words in _NEVER]
    conditions.insert(2, (*disk.condition, disk.since))
    conditions.append(("Ready", "True", "KubeletReady", "kubelet is posting ready status", since))
    return {
        "addresses": [*({"type": "InternalIP", "address": ip} for ip in config.node_ips), {"type": "Hostname", "address": name}],
        "capacity": amounts,
        "allocatable": amounts,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": config.kubelet_port}},
        "nodeInfo": facts["info"],
        "conditions": [
            {"type": kind, "status": state, "reason": reason, "message": words, "lastHeartbeatTime": heartbeat, "lastTransitionTime": at}
            for kind, state, reason, words, at in conditions
        ],
    }


def read_facts(name: str, first_process: str = "") -> Tree:
    """What the node's object says of the machine. Ids that would tell machines apart elsewhere are made of the node's name."""
    memory = next((line.split()[1] for line in _lines("/proc/meminfo") if line.startswith("MemTotal:")), "0")
    image = next((line.partition("=")[2].strip('"') for line in _lines("/etc/os-release") if line.startswith("PRETTY_NAME=")), "Linux")
    identity = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
    info = {
        "machineID": identity.replace("-", ""),
        "systemUUID": identity,
        "bootID": boot_id(next(iter(_lines("/proc/sys/kernel/random/boot_id")), ""), first_process),
        "kernelVersion": platform.release(),
        "osImage": image,
        "containerRuntimeVersion": f"podwire://{__version__}",
        "kubeletVersion": KUBELET_VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
    }
    disk = os.statvfs("/")
    storage = f"{disk.f_blocks * disk.f_frsize >> 10}Ki"
    return {"cpu": str(os.cpu_count() or 1), "memory": f"{memory}Ki", "ephemeral-storage": storage, "info": info}


def boot_id(machine: str, first_process: str) -> str:
    """The id of this run of the node: another one after each start of the machine, or of the node's first process (its socket is new)."""
    try:
        made = str(os.stat(first_process).st_ctime_ns)
    except OSError:
        return machine
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{machine} {made}"))


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def renewal_s(grace_s: float) -> float:
    """How often the Lease is renewed: four times while the node may be silent, and as a kubelet does where that is 40 s or more."""
    return min(RENEW_S, grace_s / 4)


def lease(name: str, node_uid: str, now: datetime, grace_s: float = 40.0) -> Tree:
    """The Lease that says that the node lives."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node_uid}
    return {
        "metadata": {"name": name, "namespace": LEASE_NAMESPACE, "ownerReferences": [owner]},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": max(1, round(grace_s)), "renewTime": f"{now:%Y-%m-%dT%H:%M:%S.%fZ}"},
    }


class OwnNode:
    """Writes the node's object and its Lease. Whatever the API server answers, it goes on."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._facts = read_facts(context.node, context.config.init_socket)
        self._uid = ""
        self._since = ""
        self._disk, self._told = Disk(), Disk()  # as it is, and as the API has been told
        self.as_registered = Node()
        """The object as the API had it when the node was registered last."""

    async def register(self) -> None:
        """Make the Node object, or put right the one that is there, and say that it is ready. Waits for the API server."""
        wait_s = 0.05
        while True:
            try:
                await self._register()
                await self._renew()
            except (ApiError, Unreachable) as error:
                self._context.log.warning("node %s is not registered yet: %s", self._context.node, error)
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, 5.0)
            else:
                return

    async def run(self) -> None:
        """Renew Lease and status until cancelled."""
        context, grace_s = self._context, self._context.config.node_grace_s
        written = renewed = context.clock()
        while True:
            await asyncio.sleep(renewal_s(grace_s))
            try:
                # A connection over wires that failed may hang for long after they carry again.
                async with asyncio.timeout(min(RENEW_S, grace_s / 2)):
                    await self._renew()
                # Who was not heard of for so long counts as lost, and only its own word on its status ends that.
                late = context.clock() - renewed > grace_s / 2
                renewed = context.clock()
                self._look_at_disk()
                if late or self._disk != self._told or renewed - written >= STATUS_S:
                    await self._write_status()
                    written = context.clock()
            except ApiError as error:
                context.log.warning("node %s: %s", context.node, error)
                if error.not_found:
                    await self.register()  # somebody has deleted it
            except (Unreachable, TimeoutError) as error:
                context.log.warning("node %s: %s", context.node, error or "no answer in time")

    async def _register(self) -> None:
        context, ready = self._context, None
        events = context.recorder("kubelet")
        tree = node(context.node, context.config, platform.machine())
        self._since = self._since or self._stamp()
        self._look_at_disk()
        try:
            found = await context.client.create(NODES, tree | {"status": self._status()})
        except ApiError as error:
            if not error.already_exists:
                raise
            patch = {"metadata": {"labels": tree["metadata"]["labels"]}}
            found = await context.client.patch(NODES, context.node, "", patch)
            before, now = found.status.node_info.boot_id, self._facts["info"]["bootID"]
            if before not in {"", now}:
                events.event(found, "Warning", "Rebooted", f"Node {context.node} has been rebooted, boot id: {now}")
            ready = next((c for c in found.status.conditions if c.type == "Ready" and c.status == "True"), None)
            self._since = (ready.last_transition_time if ready else None) or self._since
        self._uid, self.as_registered = found.metadata.uid, found
        self._recall_disk(found)
        await self._write_status()
        events.event(found, "Normal", "Starting", "Starting kubelet.")
        if ready is None:
            events.event(found, "Normal", "NodeReady", f"Node {context.node} status is now: NodeReady")

    def _look_at_disk(self) -> None:
        self._disk = self._disk.seen(is_full(self._context.config.state_dir), self._stamp())

    def _stamp(self) -> str:
        return f"{self._context.now():%Y-%m-%dT%H:%M:%SZ}"

    def _status(self) -> Tree:
        context = self._context
        return node_status(context.node, context.config, self._facts, self._stamp(), self._since, self._disk)

    async def _write_status(self) -> None:
        status = self._status()
        # The API merges addresses by their type, of which a node of two families has one twice: so they are replaced.
        status["addresses"] = [*status["addresses"], {"$patch": "replace"}]
        disk, context = self._disk, self._context
        await context.client.patch(NODES, context.node, "", {"status": status}, kind="strategic", subresource="status")
        if disk.full != self._told.full:
            words = f"Node {context.node} status is now: {disk.event}"
            context.recorder("kubelet").event(self.as_registered, "Normal", disk.event, words)
        self._told = disk

    def _recall_disk(self, found: Node) -> None:
        """Go on from what the API was told before."""
        former = next((one for one in found.status.conditions if one.type == DISK), None)
        if former is not None and former.status != "Unknown":
            self._told = Disk(former.status == "True", former.last_transition_time or "")
            self._disk = self._told.seen(self._disk.full, self._disk.since)

    async def _renew(self) -> None:
        context = self._context
        tree = lease(context.node, self._uid, context.now(), context.config.node_grace_s)
        try:
            await context.client.patch(LEASES, context.node, LEASE_NAMESPACE, tree)
        except ApiError as error:
            if not error.not_found:
                raise
            await context.client.create(LEASES, tree, LEASE_NAMESPACE)
