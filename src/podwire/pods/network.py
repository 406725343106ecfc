"""The network of a node's Pods: the bridge once, then one attachment a Pod, added, removed and checked by call.

Blocking, about a millisecond a Pod: a caller with an event loop calls it in one worker thread. Everything here can be done
again: setting up a bridge that exists puts it right, and adding over the remains of an attempt that was cut off replaces them.
"""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from podwire.linux import namespaces
from podwire.linux.errors import KernelRefused
from podwire.linux.network import Network
from podwire.pods import wiring
from podwire.pods.prepared import PreparedNamespaces
from podwire.pods.wiring import IPAddress, IPNetwork, Wires
from podwire.wire.rtnetlink import Link, delete


class NetworkFull(Exception):
    """The bridge has no port left; the text names the limit."""


class AttachmentBroken(Exception):
    """What was attached is not as it was made; the text says what is missing."""


class PodNetwork:
    """The bridge of the node whose namespace the calling process is in (or ``namespace``), and the attachments of its Pods.

    ``ranges``: the node's Pod ranges, the primary family's first; the bridge has the first address of each. ``mtu`` 0: the
    kernel's. It belongs to one thread at a time.
    """

    def __init__(self, ranges: Sequence[IPNetwork], *, namespace: int | None = None, mtu: int = 0) -> None:
        self._ranges = tuple(ranges)
        self._namespace = namespace
        self._mtu = mtu
        self._gateways = {network.version: network[1] for network in ranges}
        self._bridge_mac = wiring.mac_of(ranges[0][1])
        self._network = Network(namespace)
        self._prepared = PreparedNamespaces(_prepared)
        self._bridge_runs = False
        self._congestion = wiring.CONGESTION if wiring.CONGESTION in self._available_congestion() else ""

    def close(self) -> None:
        """Give up the sockets; what is attached stays."""
        self._network.close()
        self._prepared.close(Network.close)

    def set_up(self) -> None:
        """Make the bridge, or put right one that is there. Raises KernelRefused."""
        self._inside(functools.partial(_write_settings, wiring.NODE_SETTINGS))
        exists = wiring.BRIDGE in self._network.links()
        self._network.apply(wiring.bridge(self._ranges, self._mtu, exists=exists))
        self._inside(functools.partial(_write_settings, _of_interface(wiring.BRIDGE)))

    def add_new(self, owner: str, addresses: Sequence[IPAddress]) -> int:
        """Make a network namespace and attach it as a Pod; gives its descriptor, which the caller closes. Raises as ``add`` does."""
        namespace, inside = self._prepared.take()
        try:
            self._attach(owner, addresses, namespace, inside)
        except BaseException:
            os.close(namespace)
            raise
        return namespace

    def add(self, owner: str, addresses: Sequence[IPAddress], namespace: int) -> Wires:
        """Attach the namespace of that descriptor as a Pod with these addresses, at most one of each family.

        Raises:
            NetworkFull: the bridge has no port left.
            KernelRefused: anything else; nothing of the attachment is left then.
        """
        return self._attach(owner, addresses, namespace, namespaces.inside(namespace, _prepared))

    def _attach(self, owner: str, addresses: Sequence[IPAddress], namespace: int, inside: Network) -> Wires:
        pod = wiring.wires(owner, addresses)
        gateways = [self._gateways[address.version] for address in addresses]
        try:
            self._make_pair(pod, namespace)
            inside.apply(wiring.up_in_pod())
            inside.wait_running(wiring.INTERFACE)
            inside.apply(wiring.in_pod(pod, gateways, self._bridge_mac, self._congestion))
            self._network.wait_running(pod.port)
            if not self._bridge_runs:  # it has a carrier as long as a port has
                self._network.wait_running(wiring.BRIDGE)
                self._bridge_runs = True
            self._network.apply(wiring.on_node_after(pod))
        except KernelRefused:
            self._network.apply(wiring.removal(pod))
            raise
        finally:
            inside.close()
        return pod

    def delete(self, owner: str, addresses: Sequence[IPAddress]) -> None:
        """Remove a Pod's attachment; what is not there is none. Raises KernelRefused.

        The kernel takes some 15 ms to delete a link, with a lock that all namespaces share. Who lets go of the Pod's whole
        namespace calls ``detach`` instead: the link then ends with it, together with others.
        """
        self._bridge_runs = False
        self._network.apply(wiring.removal(wiring.wires(owner, addresses)))

    def detach(self, addresses: Sequence[IPAddress]) -> None:
        """No packet finds these addresses any more; the link is left to end with the Pod's namespace. Raises KernelRefused."""
        self._bridge_runs = False
        self._network.apply(wiring.unrouted(addresses))

    def check(self, owner: str, addresses: Sequence[IPAddress], namespace: int) -> None:
        """Compare an attachment with how it was made. Raises AttachmentBroken."""
        pod = wiring.wires(owner, addresses)
        port = self._network.links().get(pod.port)
        if port is None or port.master != wiring.BRIDGE or not port.up:
            raise AttachmentBroken(f"{pod.port} is not a port of {wiring.BRIDGE} that is up")
        with Network(namespace) as inside:
            link = inside.links().get(wiring.INTERFACE)
            has = {found.address.ip for found in inside.addresses() if found.link == wiring.INTERFACE}
            inner = {(route.destination, route.gateway) for route in inside.routes(254)}
        if link is None or not link.up or link.mac != pod.mac:
            raise AttachmentBroken(f"{wiring.INTERFACE} is not there, not up, or has another MAC address than {pod.mac.hex(':')}")
        outer = {route.destination for route in self._network.routes(254) if route.link == wiring.BRIDGE}
        for address in addresses:
            gateway = self._gateways[address.version]
            if address not in has:
                raise AttachmentBroken(f"{wiring.INTERFACE} does not have the address {address}")
            if (wiring.host_network(gateway), None) not in inner or not any(found == gateway for _, found in inner):
                raise AttachmentBroken(f"the Pod has no route through {gateway}")
            if wiring.host_network(address) not in outer:
                raise AttachmentBroken(f"the node has no route to {address} over {wiring.BRIDGE}")

    def strays(self, known: Sequence[Wires]) -> list[IPAddress]:
        """Remove ports and routes on the bridge that belong to none of ``known``; gives the addresses whose routes were."""
        ports = {pod.port for pod in known}
        addresses = {address for pod in known for address in pod.addresses}
        links = [link for link in self._network.links().values() if link.master == wiring.BRIDGE and link.name not in ports]
        routes = [route for route in self._network.routes(254) if route.link == wiring.BRIDGE and route.protocol == 4]
        lost = [route.destination.network_address for route in routes if route.destination.network_address not in addresses]
        self._network.apply([*wiring.unrouted(lost), *(delete(Link(link.name), missing_ok=True) for link in links)])
        return lost

    def _make_pair(self, pod: Wires, namespace: int) -> None:
        requests = wiring.on_node_before(pod, namespace, self._mtu)
        try:
            self._network.apply(requests)
        except KernelRefused as refused:
            if refused.errno == errno.EXFULL:
                words = f"the bridge {wiring.BRIDGE} has no port left: {wiring.PORTS} Pods are attached to this node"
                raise NetworkFull(words) from refused
            if refused.errno != errno.EEXIST:
                raise
            # The remains of an attempt that was cut off, perhaps to a namespace that is gone.
            self._network.apply(wiring.removal(pod))
            self._network.apply(requests)

    def _inside(self, action: functools.partial[None]) -> None:
        if self._namespace is None:
            action()
        else:
            namespaces.inside(self._namespace, action)

    @staticmethod
    def _available_congestion() -> list[str]:
        try:
            return Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
        except OSError:
            return []


def _prepared() -> Network:
    """Runs inside a Pod's namespace."""
    _write_settings(wiring.POD_SETTINGS)
    return Network()


def _of_interface(name: str) -> dict[str, str]:
    """An interface has values of its own, taken from ``default`` when it was made, perhaps before that was set."""
    return {f"net/ipv4/conf/{name}/{key}": "0" for key in ("rp_filter", "send_redirects", "accept_redirects")}


def _write_settings(settings: Mapping[str, str]) -> None:
    """Write the settings of the namespace that the calling thread is in. One that this kernel does not have is passed over."""
    for key, value in settings.items():
        try:
            with open(f"/proc/sys/{key}", "w") as file:
                file.write(value)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise KernelRefused(error.errno or 0, f"sysctl -w {key.replace('/', '.')}={value!r}") from error
