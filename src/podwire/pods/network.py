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
from typing import TYPE_CHECKING

from podwire.linux import namespaces
from podwire.linux.errors import KernelRefused
from podwire.linux.network import Network
from podwire.pods import wiring
from podwire.pods.wiring import IPAddress, IPNetwork, Layout, Routed, Wires
from podwire.wire.rtnetlink import Address, Link, LinkState, Request, Route, delete, show

if TYPE_CHECKING:
    from podwire.pods.prepared import PreparedNamespaces


class NetworkFull(Exception):
    """The bridge has no port left; the text names the limit."""


class AttachmentBroken(Exception):
    """What was attached is not as it was made; the text says what is missing."""


class PodNetwork:
    """The bridge of the node whose namespace the calling process is in (or ``namespace``), and the attachments of its Pods.

    ``ranges``: the node's Pod ranges, the primary family's first; the bridge has the first address of each. ``mtu`` 0: the
    kernel's. ``layout``: another way to attach, instead of both. It belongs to one thread at a time.
    """

    def __init__(
        self, ranges: Sequence[IPNetwork] = (), *, namespace: int | None = None, mtu: int = 0, layout: Layout | None = None
    ) -> None:
        self.layout: Layout = layout or Routed(tuple(ranges), mtu=mtu)
        self._namespace = namespace
        self._network = Network(namespace)
        self._prepared: PreparedNamespaces[Network] | None = None
        self._bridge_runs = not self.layout.bridge
        self._congestion = wiring.CONGESTION if wiring.CONGESTION in self._available_congestion() else ""

    def close(self) -> None:
        """Give up the sockets; what is attached stays."""
        self._network.close()
        if self._prepared is not None:
            self._prepared.close(Network.close)

    def set_up(self) -> None:
        """Make the bridge, or put right one that is there. Raises KernelRefused."""
        self._inside(functools.partial(_write_settings, self.layout.node_settings()))
        bridge = self.layout.bridge
        exists = bool(bridge) and bridge in self._network.links()
        self._network.apply(self.layout.prepared(exists=exists))
        if bridge:
            self._inside(functools.partial(_write_settings, _of_interface(bridge)))

    def add_new(self, owner: str, addresses: Sequence[IPAddress]) -> int:
        """Make a network namespace and attach it as a Pod; gives its descriptor, which the caller closes. Raises as ``add`` does."""
        if self._prepared is None:
            from podwire.pods.prepared import PreparedNamespaces  # a thread, which the CNI plugin has no use for

            self._prepared = PreparedNamespaces(functools.partial(_prepared, self.layout.settings))
        namespace, inside = self._prepared.take()
        try:
            with inside:
                self._attach(wiring.wires(owner, addresses), namespace, inside)
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
        pod = wiring.wires(owner, addresses)
        self.attach(pod, namespace)
        return pod

    def attach(self, pod: Wires, namespace: int) -> None:
        """Attach by these wires. Raises as ``add`` does."""
        with enter(namespace, self.layout.settings) as inside:
            self._attach(pod, namespace, inside)

    def attach_entered(self, pod: Wires, namespace: int, inside: Network, in_pod: Sequence[Request]) -> list[LinkState]:
        """Attach by these wires; gives how the node's links of it are: bridge, port.

        ``inside``: from ``enter``. ``in_pod``: the layout's requests of that name. Raises as ``add`` does.
        """
        return self._attach(pod, namespace, inside, in_pod, told=True)

    def in_pod(self, pod: Wires) -> list[Request]:
        """What is asked for inside the Pod."""
        return self.layout.in_pod(pod, self._congestion)

    def _attach(
        self, pod: Wires, namespace: int, inside: Network, in_pod: Sequence[Request] = (), *, told: bool = False
    ) -> list[LinkState]:
        """Three flights, each of which asks how the links are by then: for the kernel, to be asked makes a carrier known at once."""
        bridge = [show(self.layout.bridge)] if self.layout.bridge and (told or not self._bridge_runs) else []
        try:
            port = self._make_pair(pod, namespace)
            inside.learn(pod.interface, port.peer)
            (end,) = inside.apply([*wiring.up_in_pod(pod), show(pod.interface), *(in_pod or self.in_pod(pod))])
            node = self._network.apply([*bridge, show(pod.port), *self.layout.on_node_after(pod)])
            for network, link in ((inside, end), *((self._network, link) for link in reversed(node))):
                if not link.running:
                    network.wait_running(link.name)
            self._bridge_runs = True  # it has a carrier as long as a port has
        except KernelRefused:
            self._network.apply(wiring.removal(self.layout, pod))
            raise
        return node

    def delete(self, owner: str, addresses: Sequence[IPAddress]) -> None:
        """Remove a Pod's attachment; what is not there is none. Raises KernelRefused.

        The kernel takes some 15 ms to delete a link, with a lock that all namespaces share. Who lets go of the Pod's whole
        namespace calls ``detach`` instead: the link then ends with it, together with others.
        """
        self.remove(Wires(wiring.port_of(owner), b"", tuple(addresses)))

    def remove(self, pod: Wires) -> None:
        """Remove these wires. Raises KernelRefused."""
        self._bridge_runs = not self.layout.bridge
        self._network.apply(wiring.removal(self.layout, pod))

    def detach(self, addresses: Sequence[IPAddress]) -> None:
        """No packet finds these addresses any more; the link is left to end with the Pod's namespace. Raises KernelRefused."""
        self._bridge_runs = not self.layout.bridge
        self._network.apply(self.layout.unrouted(addresses))

    def check(self, owner: str, addresses: Sequence[IPAddress], namespace: int) -> None:
        """Compare an attachment with how it was made. Raises AttachmentBroken."""
        self.verify(wiring.wires(owner, addresses), namespace)

    def verify(self, pod: Wires, namespace: int) -> None:
        """Compare the attachment by these wires with how it was made. Raises AttachmentBroken."""
        port = self._network.links().get(pod.port)
        if port is None or (port.master or "") != self.layout.bridge or not port.up:
            what = f"a port of {self.layout.bridge}" if self.layout.bridge else "a link"
            raise AttachmentBroken(f"{pod.port} is not {what} that is up")
        with Network(namespace) as inside:
            link = inside.links().get(pod.interface)
            if link is None or not link.up or link.mac != pod.mac:
                raise AttachmentBroken(f"{pod.interface} is not there, not up, or has another MAC address than {pod.mac.hex(':')}")
            _compare(self.layout.in_pod(pod, ""), inside, f"on {pod.interface}")
        _compare(self.layout.on_node_after(pod), self._network, "on the node")

    def strays(self, known: Sequence[Wires]) -> list[IPAddress]:
        """Remove ports and routes on the bridge that belong to none of ``known``; gives the addresses whose routes were."""
        ports = {pod.port for pod in known}
        addresses = {address for pod in known for address in pod.addresses}
        bridge = self.layout.bridge
        links = [link for link in self._network.links().values() if link.master == bridge and link.name not in ports]
        routes = [route for route in self._network.routes(254) if route.link == bridge and route.protocol == 4]
        lost = [route.destination.network_address for route in routes if route.destination.network_address not in addresses]
        self._network.apply([*self.layout.unrouted(lost), *(delete(Link(link.name), missing_ok=True) for link in links)])
        return lost

    def _make_pair(self, pod: Wires, namespace: int) -> LinkState:
        requests = self.layout.on_node_before(pod, namespace)
        try:
            (port,) = self._network.apply(requests)
        except KernelRefused as refused:
            if refused.errno == errno.EXFULL:
                words = f"the bridge {self.layout.bridge} has no port left: {wiring.PORTS} Pods are attached to this node"
                raise NetworkFull(words) from refused
            if refused.errno != errno.EEXIST:
                raise
            # The remains of an attempt that was cut off, perhaps to a namespace that is gone.
            self._network.apply(wiring.removal(self.layout, pod))
            (port,) = self._network.apply(requests)
        return port

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


def _prepared(settings: Mapping[str, str]) -> Network:
    """Runs inside a Pod's namespace."""
    _write_settings(settings)
    return Network()


def enter(namespace: int, settings: Mapping[str, str]) -> Network:
    """A Pod's namespace, with these settings, as a socket in it; the caller closes it. Raises KernelRefused, NamespaceGone."""
    return namespaces.visit(namespace, functools.partial(_prepared, settings))


def _compare(requests: Sequence[Request], network: Network, where: str) -> None:
    """Raise AttachmentBroken for the first address or route of the requests that is not there."""
    addresses = {(found.link, found.address) for found in network.addresses()}
    routes = {(found.link, found.destination, found.gateway) for found in network.routes(254)}
    for value in (request.value for request in requests):
        if isinstance(value, Address) and (value.link, value.address) not in addresses:
            raise AttachmentBroken(f"there is no address {value.address} {where}")
        if isinstance(value, Route) and (value.link, value.destination, value.gateway) not in routes:
            by = f"through {value.gateway}" if value.gateway else f"over {value.link}"
            raise AttachmentBroken(f"there is no route {by} to {value.destination} {where}")


def _of_interface(name: str) -> dict[str, str]:
    """An interface has values of its own, taken from ``default`` when it was made, perhaps before that was set."""
    return {f"net/ipv4/conf/{name}/{key}": "0" for key in ("rp_filter", "send_redirects", "accept_redirects")}


def _write_settings(settings: Mapping[str, str]) -> None:
    """Write the settings of the namespace that the calling thread is in. One that this kernel does not have is passed over.

    A folder is opened once for the settings in it: to find one takes the kernel longer the more namespaces there are, to write nothing.
    """
    folders: dict[str, int] = {}
    try:
        for key, value in settings.items():
            where, _, name = key.rpartition("/")
            try:
                if where not in folders:
                    folders[where] = os.open(f"/proc/sys/{where}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folders[where])
                try:
                    os.write(fd, value.encode())
                finally:
                    os.close(fd)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise KernelRefused(error.errno or 0, f"sysctl -w {key.replace('/', '.')}={value!r}") from error
    finally:
        for fd in folders.values():
            os.close(fd)
