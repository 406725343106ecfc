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

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface, ip_network

from podwire.wire.rtnetlink import Address, Bridge, BridgeEntry, BridgePort, Link, Neighbour, Request, Route, add, change, delete, replace

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

BRIDGE = "cbr0"
INTERFACE = "eth0"
PORTS = 1023
"""Ports that a Linux bridge has (BR_MAX_PORTS is 1 << 10, and port 0 is none)."""
CONGESTION = "cubic"

_PORT_FLAGS = BridgePort(isolated=True, hairpin=False, learning=False, flood=False, mcast_flood=False, bcast_flood=False)

_BRIDGE_NETFILTER = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables", "bridge-nf-call-arptables")

NODE_SETTINGS = {
    "net/ipv4/ip_forward": "1",
    **{
        f"net/ipv4/conf/{scope}/{name}": "0" for scope in ("all", "default") for name in ("rp_filter", "send_redirects", "accept_redirects")
    },
    **{f"net/bridge/{name}": "0" for name in _BRIDGE_NETFILTER},
}
"""What the node's namespace must say for the wires to carry; those of a feature that the kernel lacks are passed over."""

POD_SETTINGS = {
    "net/ipv4/ip_forward": "0",
    **{f"net/ipv4/conf/{scope}/{name}": "0" for scope in ("all", "default") for name in ("rp_filter", "accept_redirects")},
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/ping_group_range": "0 0",
}
"""What a Pod's namespace must not inherit from the machine, and what containers may do there: low ports, ping.

Each costs 30 us a Pod, so only what is relied on stands here; neighbours are not asked for and IPv6 makes no addresses by itself.
"""


@dataclass(frozen=True)
class Wires:
    """One Pod's attachment: the names and addresses of both ends of its veth pair."""

    port: str
    mac: bytes
    addresses: tuple[IPAddress, ...]


def mac_of(address: IPAddress) -> bytes:
    """A MAC address of our own from an IP address: 0a:58, then the IPv4 address or four bytes of the IPv6 address's hash."""
    tail = address.packed if address.version == 4 else hashlib.sha256(address.packed).digest()[:4]
    return b"\x0a\x58" + tail


def wires(owner: str, addresses: Sequence[IPAddress]) -> Wires:
    """The wires of the Pod with that uid. The port's name tells them apart as long as the uids do (44 bits of a hash)."""
    return Wires("veth" + hashlib.sha256(owner.encode()).hexdigest()[:11], mac_of(addresses[0]), tuple(addresses))


def host_network(address: IPAddress) -> IPNetwork:
    """The address as a network of one."""
    return ip_network(address)


def bridge(ranges: Sequence[IPNetwork], mtu: int = 0, *, exists: bool = False) -> list[Request]:
    """The node's bridge with the first address of each range; again on one that ``exists``, it is put right."""
    link = Link(
        BRIDGE,
        "bridge",
        mac=mac_of(ranges[0][1]),
        mtu=mtu,
        up=True,
        bridge=Bridge(stp=False, mcast_snooping=False, netfilter=False),
        address_mode="none",
    )
    requests = [change(link) if exists else add(link)]
    for network in ranges:
        requests.append(replace(Address(BRIDGE, ip_interface(network[1]))))
        requests.append(replace(Route(network, type="unreachable")))
    return requests


def on_node_before(pod: Wires, namespace: int, mtu: int = 0) -> list[Request]:
    """First of four steps of an attachment: the pair, its far end made inside the Pod's namespace."""
    peer = Link(INTERFACE, mac=pod.mac, mtu=mtu, namespace_fd=namespace)
    port = Link(pod.port, "veth", mtu=mtu, peer=peer, master=BRIDGE, up=True, bridge_port=_PORT_FLAGS, address_mode="none")
    return [add(port)]


def up_in_pod() -> list[Request]:
    """Second step, inside the Pod's namespace: both ends are up now, and get their carriers."""
    return [change(Link("lo", up=True)), change(Link(INTERFACE, up=True, address_mode="none"))]


def in_pod(pod: Wires, gateways: Sequence[IPAddress], bridge_mac: bytes, congestion: str) -> list[Request]:
    """Third step, inside the Pod's namespace. A gateway for each family that the Pod has."""
    requests: list[Request] = []
    for address, gateway in zip(pod.addresses, gateways, strict=True):
        everywhere = ip_network("0.0.0.0/0" if address.version == 4 else "::/0")
        requests += [
            add(Address(INTERFACE, ip_interface(address))),
            add(Neighbour(INTERFACE, gateway, bridge_mac)),
            add(Route(host_network(gateway), link=INTERFACE, source=address, congestion=congestion)),
            add(Route(everywhere, gateway=gateway, link=INTERFACE, source=address, congestion=congestion)),
        ]
    return requests


def on_node_after(pod: Wires) -> list[Request]:
    """Fourth step: from now on packets find the Pod."""
    requests: list[Request] = [replace(BridgeEntry(pod.port, pod.mac))]
    for address in pod.addresses:
        requests += [replace(Neighbour(BRIDGE, address, pod.mac)), replace(Route(host_network(address), link=BRIDGE))]
    return requests


def unrouted(addresses: Sequence[IPAddress]) -> list[Request]:
    """The node no longer knows the way to these addresses."""
    requests: list[Request] = []
    for address in addresses:
        requests.append(delete(Route(host_network(address), link=BRIDGE), missing_ok=True))
        requests.append(delete(Neighbour(BRIDGE, address, b""), missing_ok=True))
    return requests


def removal(pod: Wires) -> list[Request]:
    """Everything of an attachment on the node, in the order that leaves no packet on a half-made way."""
    return [*unrouted(pod.addresses), delete(Link(pod.port), missing_ok=True)]
