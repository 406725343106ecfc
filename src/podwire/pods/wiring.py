"""The wires of a node's Pods as requests to the kernel. Pure: values in, values out; ``network`` carries them out.

A Pod's ``eth0`` has its address as a /32. Its only routes lead to the bridge's address and, through that, everywhere; so every
packet of a Pod, also one to its neighbour, passes the node's IP layer once. On the bridge nothing else is possible: ports are
isolated, nothing is learned and nothing flooded, each port has the one entry of its Pod's MAC address. The node has a /32
route for each Pod; the rest of its range is unreachable, so that a packet to a Pod that is gone is answered at once instead of
being sent back to the fabric.

MAC addresses come from IP addresses (0a:58 and the four bytes), and neighbour entries are permanent on both sides: nobody asks,
and the kernel's table of neighbours, one for the whole machine, does not count them.

Connections that leave a Pod use cubic: a machine's default may be BBR, which halves what veth can carry, and a namespace may
not change it otherwise than by its routes.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface, ip_network
from typing import Protocol

from podwire.wire.rtnetlink import (
    Address,
    Bridge,
    BridgeEntry,
    BridgePort,
    Link,
    Neighbour,
    Request,
    Route,
    add,
    change,
    delete,
    replace,
    show,
)

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network
PodRoute = tuple[IPNetwork, IPAddress | None]
"""A destination and the gateway that leads there; None: the family's own."""

BRIDGE = "cbr0"
INTERFACE = "eth0"
PORTS = 1023
"""Ports that a Linux bridge has (BR_MAX_PORTS is 1 << 10, and port 0 is none)."""
CONGESTION = "cubic"

_PORT_FLAGS = BridgePort(isolated=True, hairpin=False, learning=False, flood=False, mcast_flood=False, bcast_flood=False)

_IN_POD = (("rp_filter", 0), ("accept_redirects", 0))
_EVERYWHERE: Mapping[int, IPNetwork] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}

_BRIDGE_NETFILTER = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables")

NODE_SETTINGS = {
    "net/ipv4/ip_forward": "1",
    **{
        f"net/ipv4/conf/{scope}/{name}": "0" for scope in ("all", "default") for name in ("rp_filter", "send_redirects", "accept_redirects")
    },
    **{f"net/bridge/{name}": "0" for name in _BRIDGE_NETFILTER},
}
"""What the node's namespace must say for the wires to carry; those of a feature that the kernel lacks are passed over."""

FORWARD_IPV6 = {"net/ipv6/conf/all/forwarding": "1"}

POD_SETTINGS = {
    "net/ipv4/ip_forward": "0",
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/ping_group_range": "0 0",
    **{f"net/ipv4/conf/all/{name}": "0" for name in ("rp_filter", "accept_redirects")},
}
"""What a Pod's namespace must not inherit from the machine, and what containers may do there: low ports, ping.

Each costs some 20 us a Pod, and more the more Pods there are, so only what is relied on stands here, and what can be said of ``eth0`` by
netlink is (``up_in_pod``); neighbours are not asked for and IPv6 makes no addresses by itself.
"""


@dataclass(frozen=True)
class Wires:
    """One Pod's attachment: the names and addresses of both ends of its veth pair."""

    port: str
    mac: bytes
    addresses: tuple[IPAddress, ...]
    interface: str = INTERFACE


def mac_of(address: IPAddress) -> bytes:
    """A MAC address of our own from an IP address: 0a:58, then the IPv4 address or four bytes of the IPv6 address's hash."""
    tail = address.packed if address.version == 4 else hashlib.sha256(address.packed).digest()[:4]
    return b"\x0a\x58" + tail


def port_of(owner: str) -> str:
    """The name of the node's end: it tells Pods apart as long as their uids do (44 bits of a hash)."""
    return "veth" + hashlib.sha256(owner.encode()).hexdigest()[:11]


def wires(owner: str, addresses: Sequence[IPAddress]) -> Wires:
    """The wires of the Pod with that uid."""
    return Wires(port_of(owner), mac_of(addresses[0]), tuple(addresses))


@functools.lru_cache(maxsize=256)
def host_network(address: IPAddress) -> IPNetwork:
    """The address as a network of one."""
    return ip_network(address)


@dataclass(frozen=True)
class Routed:
    """Every Pod has a /32 behind a bridge of isolated ports, and every packet passes the node's IP layer.

    ``ranges``: the node's Pod ranges, the primary family's first. ``gateways``: the bridge's addresses, one for each range; without, the
    first address of each. ``mtu`` 0: the kernel's. ``routes``: beside those that every Pod has, each by the gateway that it names or else
    the family's own. ``settings``: what is written in each Pod's namespace.
    """

    ranges: tuple[IPNetwork, ...]
    gateways: tuple[IPAddress, ...] = ()
    bridge: str = BRIDGE
    mtu: int = 0
    routes: tuple[PodRoute, ...] = ()
    settings: Mapping[str, str] = field(default_factory=lambda: POD_SETTINGS, hash=False)

    def gateway(self, address: IPAddress) -> IPAddress:
        """The gateway of an address's family."""
        return self._gateways[address.version]

    @functools.cached_property
    def _gateways(self) -> Mapping[int, IPAddress]:
        given = self.gateways or tuple(network[1] for network in self.ranges)
        return {gateway.version: gateway for gateway in reversed(given)}

    @functools.cached_property
    def mac(self) -> bytes:
        """The bridge's MAC address."""
        return mac_of(self.gateway(self.ranges[0][1]))

    def node_settings(self) -> Mapping[str, str]:
        """What must be set on the node before anything is made."""
        return NODE_SETTINGS | (FORWARD_IPV6 if any(network.version == 6 for network in self.ranges) else {})

    def prepared(self, *, exists: bool) -> list[Request]:
        """The bridge with its addresses; on one that ``exists``, it is put right."""
        options = Bridge(stp=False, mcast_snooping=False, netfilter=False)
        link = Link(self.bridge, "bridge", mac=self.mac, mtu=self.mtu, up=True, bridge=options, address_mode="none")
        requests = [change(link) if exists else add(link)]
        for network in self.ranges:
            requests.append(replace(Address(self.bridge, ip_interface(self.gateway(network[1])))))
            requests.append(replace(Route(network, type="unreachable")))
        return requests

    def on_node_before(self, pod: Wires, namespace: int) -> list[Request]:
        """First of four steps of an attachment: the pair, its far end made inside the Pod's namespace."""
        peer = Link(pod.interface, mac=pod.mac, mtu=self.mtu, namespace_fd=namespace)
        return [
            add(Link(pod.port, "veth", mtu=self.mtu, peer=peer, master=self.bridge, bridge_port=_PORT_FLAGS, address_mode="none")),
            *port_up(pod),
        ]

    def in_pod(self, pod: Wires, congestion: str) -> list[Request]:
        """Third step, inside the Pod's namespace, after its end is up (``up_in_pod``)."""
        requests: list[Request] = []
        for address in pod.addresses:
            gateway = self.gateway(address)
            requests += [add(Address(pod.interface, ip_interface(address))), add(Neighbour(pod.interface, gateway, self.mac))]
            ways: list[PodRoute] = [(host_network(gateway), None), (everywhere(address), gateway)]
            ways += [(to, by or gateway) for to, by in self.routes if to.version == address.version and to.prefixlen]
            requests += [add(way(pod, address, to, by, congestion)) for to, by in ways]
        return requests

    def on_node_after(self, pod: Wires) -> list[Request]:
        """Fourth step: from now on packets find the Pod."""
        requests: list[Request] = [replace(BridgeEntry(pod.port, pod.mac))]
        for address in pod.addresses:
            requests += [replace(Neighbour(self.bridge, address, pod.mac)), replace(Route(host_network(address), link=self.bridge))]
        return requests

    def unrouted(self, addresses: Sequence[IPAddress]) -> list[Request]:
        """The node no longer knows the way to these addresses."""
        requests: list[Request] = []
        for address in addresses:
            requests.append(delete(Route(host_network(address), link=self.bridge), missing_ok=True))
            requests.append(delete(Neighbour(self.bridge, address, b""), missing_ok=True))
        return requests


class Layout(Protocol):
    """What ``Routed`` and the other ways to attach a Pod (``cni.layouts``) have in common. ``bridge`` is "" where there is none."""

    @property
    def bridge(self) -> str: ...
    @property
    def settings(self) -> Mapping[str, str]: ...
    def node_settings(self) -> Mapping[str, str]: ...
    def prepared(self, *, exists: bool) -> list[Request]: ...
    def on_node_before(self, pod: Wires, namespace: int) -> list[Request]: ...
    def in_pod(self, pod: Wires, congestion: str) -> list[Request]: ...
    def on_node_after(self, pod: Wires) -> list[Request]: ...
    def unrouted(self, addresses: Sequence[IPAddress]) -> list[Request]: ...


def metric_of(interface: str) -> int:
    """A Pod may have several interfaces, each with routes to the same destinations: those of ``eth0`` go first, the others stay apart."""
    return 0 if interface == INTERFACE else 2048 + int.from_bytes(hashlib.sha256(interface.encode()).digest()[:2], "big")


def way(pod: Wires, address: IPAddress, destination: IPNetwork, gateway: IPAddress | None, congestion: str) -> Route:
    """A route of a Pod's interface; without a gateway, on the link."""
    metric = metric_of(pod.interface)
    return Route(destination, gateway=gateway, link=pod.interface, source=address, congestion=congestion, metric=metric)


def port_up(pod: Wires) -> list[Request]:
    """How the node's end is, and then up with it. In the other order the kernel would wait until nobody uses a link without carrier."""
    return [show(pod.port), change(Link(pod.port, up=True))]


def up_in_pod(pod: Wires) -> list[Request]:
    """Second step, inside the Pod's namespace: both ends are up now, and get their carriers."""
    return [change(Link("lo", up=True)), change(Link(pod.interface, up=True, address_mode="none", ipv4_settings=_IN_POD))]


def removal(layout: Layout, pod: Wires) -> list[Request]:
    """Everything of an attachment on the node, in the order that leaves no packet on a half-made way."""
    return [*layout.unrouted(pod.addresses), delete(Link(pod.port), missing_ok=True)]


def everywhere(address: IPAddress) -> IPNetwork:
    """The default route's destination in an address's family."""
    return _EVERYWHERE[address.version]
