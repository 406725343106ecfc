"""The lab's network namespaces and the wires between them, as the plan has them.

A place is known by its descriptor, which init holds under ``place/NAME``. They are made all or none: what was half made when
the supervisor was killed is let go, and with its last descriptor the kernel frees each namespace and every link in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from podwire.cluster.plan import Place, Plan, Wire
from podwire.linux import namespaces, sysctl
from podwire.linux.network import Network
from podwire.wire.rtnetlink import Link, Request, add, change

LOOPBACK = "lo"


def build(plan: Plan) -> dict[str, int]:
    """Make all places and wires; give the descriptor of each place by name. Raises KernelRefused."""
    made = {place.name: namespaces.create_network() for place in plan.places}
    for place in plan.places:
        sysctl.write_all(settings(place), made[place.name])
    networks = {name: Network(descriptor) for name, descriptor in made.items()}
    try:
        for name, network in networks.items():
            network.apply([_pair(wire, made) for wire in plan.wires if wire.a_place == name])
        for place in plan.places:
            networks[place.name].apply(_inside(place, plan.wires))
    finally:
        for network in networks.values():
            network.close()
    return made


def settings(place: Place) -> Mapping[str, str]:
    """Give every sysctl that a place relies on: a new namespace inherits the machine's."""
    return sysctl.HARDENED_ROUTER if place.forwarding else sysctl.HARDENED


def _pair(wire: Wire, places: Mapping[str, int]) -> Request:
    far = Link(wire.b_interface, mac=wire.b_mac, mtu=wire.mtu, namespace_fd=places[wire.b_place])
    return add(Link(wire.a_interface, "veth", mac=wire.a_mac, mtu=wire.mtu, peer=far))


def _inside(place: Place, wires: Iterable[Wire]) -> list[Request]:
    interfaces: list[str] = []
    for wire in wires:
        interfaces += [wire.a_interface] if wire.a_place == place.name else []
        interfaces += [wire.b_interface] if wire.b_place == place.name else []
    return [change(Link(LOOPBACK, up=True)), *(change(Link(name, up=True, address_mode="none")) for name in interfaces), *place.requests]
