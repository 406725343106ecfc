"""Two more ways to attach a container, beside the routed one of ``wiring``: a plain bridge, and a pair of its own. Pure.

``Bridged``: containers are neighbours on one network, as the plugin ``bridge`` of the CNI project makes them; packets between them do not
pass the machine's IP layer. ``PointToPoint``: no bridge at all, each container's pair has the gateway's address at the machine's end, as
the plugin ``ptp``; there is no limit of ports.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface

from podwire.pods.wiring import FORWARD_IPV6, IPAddress, IPNetwork, PodRoute, Wires, everywhere, host_network, mac_of, port_up, way
from podwire.wire.rtnetlink import Address, Bridge, BridgePort, Link, Neighbour, Request, Route, add, change, replace

CONTAINER_SETTINGS = {f"net/ipv4/conf/all/{name}": "0" for name in ("rp_filter", "accept_redirects")}
"""What a container must not inherit from the machine, beside what its link must not (``wiring.up_in_pod``). The rest is its runtime's."""
IPV6_SETTINGS = {f"net/ipv6/conf/{scope}/{name}": "0" for scope in ("all", "default") for name in ("disable_ipv6", "accept_ra", "autoconf")}


def container_settings(ranges: Sequence[IPNetwork]) -> Mapping[str, str]:
    """What is written in a container's namespace that gets addresses of these ranges."""
    return CONTAINER_SETTINGS | (IPV6_SETTINGS if any(network.version == 6 for network in ranges) else {})


def _forwarding(ranges: Sequence[IPNetwork]) -> Mapping[str, str]:
    return {"net/ipv4/ip_forward": "1"} | (FORWARD_IPV6 if any(network.version == 6 for network in ranges) else {})


@dataclass(frozen=True)
class Bridged:
    """``gateways``: one for each range, on the bridge if it ``is_gateway``. ``routes``: instead of the default route by the gateway."""

    ranges: tuple[IPNetwork, ...]
    gateways: tuple[IPAddress | None, ...]
    bridge: str
    mtu: int = 0
    hairpin: bool = False
    is_gateway: bool = True
    routes: tuple[PodRoute, ...] = ()
    settings: Mapping[str, str] = field(default_factory=lambda: CONTAINER_SETTINGS, hash=False)

    def node_settings(self) -> Mapping[str, str]:
        """A bridge that is nobody's gateway needs nothing of the machine."""
        return _forwarding(self.ranges) if self.is_gateway else {}

    def prepared(self, *, exists: bool) -> list[Request]:
        """The bridge. One that exists keeps what somebody else has set on it."""
        link = Link(
            self.bridge, "bridge", mac=_bridge_mac(self.bridge), mtu=self.mtu, up=True, bridge=Bridge(stp=False), address_mode="none"
        )
        requests = [change(Link(self.bridge, up=True)) if exists else add(link)]
        for network, gateway in zip(self.ranges, self.gateways, strict=True):
            if self.is_gateway and gateway is not None:
                requests.append(replace(Address(self.bridge, ip_interface((gateway, network.prefixlen)))))
        return requests

    def on_node_before(self, pod: Wires, namespace: int) -> list[Request]:
        """The pair, its near end a port of the bridge."""
        peer = Link(pod.interface, mac=pod.mac, mtu=self.mtu, namespace_fd=namespace)
        flags = BridgePort(hairpin=self.hairpin)
        made = Link(pod.port, "veth", mtu=self.mtu, peer=peer, master=self.bridge, bridge_port=flags, address_mode="none")
        return [add(made), *port_up(pod)]

    def in_pod(self, pod: Wires, congestion: str) -> list[Request]:
        """Addresses with the network's prefix, and the routes."""
        requests: list[Request] = []
        for address in pod.addresses:
            network, gateway = next(pair for pair in zip(self.ranges, self.gateways, strict=True) if pair[0].version == address.version)
            requests.append(add(Address(pod.interface, ip_interface((address, network.prefixlen)))))
            given = [route for route in self.routes if route[0].version == address.version]
            for destination, by in given or ([(everywhere(address), None)] if gateway else []):
                requests.append(add(way(pod, address, destination, by or gateway, congestion)))
        return requests

    def on_node_after(self, pod: Wires) -> list[Request]:  # noqa: ARG002  (a bridge learns)
        """Nothing: the bridge learns where its containers are."""
        return []

    def unrouted(self, addresses: Sequence[IPAddress]) -> list[Request]:  # noqa: ARG002
        """Nothing: no route leads to a container alone."""
        return []


@dataclass(frozen=True)
class PointToPoint:
    """``gateways``: one for each range. ``routes``: instead of the default route by the gateway."""

    ranges: tuple[IPNetwork, ...]
    gateways: tuple[IPAddress, ...]
    mtu: int = 0
    routes: tuple[PodRoute, ...] = ()
    settings: Mapping[str, str] = field(default_factory=lambda: CONTAINER_SETTINGS, hash=False)
    bridge: str = ""

    def _gateway(self, address: IPAddress) -> IPAddress:
        return next(gateway for gateway in self.gateways if gateway.version == address.version)

    def node_settings(self) -> Mapping[str, str]:
        """The machine forwards."""
        return _forwarding(self.ranges)

    def prepared(self, *, exists: bool) -> list[Request]:  # noqa: ARG002
        """Nothing is shared."""
        return []

    def on_node_before(self, pod: Wires, namespace: int) -> list[Request]:
        """The pair."""
        peer = Link(pod.interface, mac=pod.mac, mtu=self.mtu, namespace_fd=namespace)
        mac = mac_of(self.gateways[0])
        return [add(Link(pod.port, "veth", mac=mac, mtu=self.mtu, peer=peer, address_mode="none")), *port_up(pod)]

    def in_pod(self, pod: Wires, congestion: str) -> list[Request]:
        """A /32, the gateway on the link, the rest through it."""
        requests: list[Request] = []
        for address in pod.addresses:
            gateway = self._gateway(address)
            requests += [
                add(Address(pod.interface, ip_interface(address))),
                add(Neighbour(pod.interface, gateway, mac_of(self.gateways[0]))),
                add(way(pod, address, host_network(gateway), None, congestion)),
            ]
            given = [route for route in self.routes if route[0].version == address.version]
            for destination, by in given or [(everywhere(address), None)]:
                requests.append(add(way(pod, address, destination, by or gateway, congestion)))
        return requests

    def on_node_after(self, pod: Wires) -> list[Request]:
        """The gateway's address at the machine's end, and the way to the container."""
        requests: list[Request] = []
        for address in pod.addresses:
            requests += [
                replace(Address(pod.port, ip_interface(self._gateway(address)))),
                replace(Neighbour(pod.port, address, pod.mac)),
                replace(Route(host_network(address), link=pod.port)),
            ]
        return requests

    def unrouted(self, addresses: Sequence[IPAddress]) -> list[Request]:  # noqa: ARG002
        """Nothing: what leads to the container ends with its pair."""
        return []


def _bridge_mac(name: str) -> bytes:
    """Fixed, or the bridge would take that of its lowest port, and another one when that goes."""
    return b"\x0a\x58" + hashlib.sha256(name.encode()).digest()[:4]
