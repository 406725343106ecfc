"""The lab's network namespaces and the wires between them, as the plan has them.

A place is known by its descriptor, which init holds under ``place/NAME``. They are made all or none: what was half made when
the supervisor was killed is let go, and with its last descriptor the kernel frees each namespace and every link in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from podwire import nft
from podwire.cluster.plan import Place, Plan, Wire
from podwire.linux import namespaces, sysctl
from podwire.linux.network import Network
from podwire.linux.nftables import Nftables
from podwire.nft.difference import difference
from podwire.wire.rtnetlink import Link, Request, add, change, delete, replace

LOOPBACK: Final = "lo"
LOCAL: Final = 255  # the routing table that the kernel itself keeps
KERNEL: Final = 2  # the protocol of routes that the kernel made
_DARK: Final = ("inet", "podwire-outage")


def build(plan: Plan) -> dict[str, int]:
    """Make all places and wires; give the descriptor of each place by name. Raises KernelRefused."""
    return extend(plan, {}, [place.name for place in plan.places])


def extend(plan: Plan, there: Mapping[str, int], names: Sequence[str]) -> dict[str, int]:
    """Make further places, and the wires that lead to them; ``there`` are those that exist.

    One of a name that exists is made anew: its wire is another one, and the fabric's routes over it are as they were.
    Raises KernelRefused.
    """
    new = [place for place in plan.places if place.name in names]
    made = {place.name: namespaces.create_network() for place in new}
    for place in new:
        sysctl.write_all(settings(place), made[place.name])
    wires = [wire for wire in plan.wires if wire.b_place in made]
    everywhere = {**there, **made}
    touched = {place.name for place in new} | {wire.a_place for wire in wires}
    networks = {name: Network(everywhere[name]) for name in touched}
    try:
        for name, network in networks.items():
            near = [wire for wire in wires if wire.a_place == name]
            if name in made:
                network.apply([_pair(wire, everywhere) for wire in near])
                continue
            interfaces = {wire.a_interface for wire in near}
            routes = [route for route in network.routes() if route.link in interfaces and route.table != LOCAL]
            network.apply([delete(Link(interface), missing_ok=True) for interface in interfaces])
            network.apply([_pair(wire, everywhere) for wire in near])
            network.apply([request for wire in near for request in _near(wire)])
            network.apply([replace(route) for route in routes if route.protocol != KERNEL])
        for place in new:
            networks[place.name].apply(_inside(place, wires))
    finally:
        for network in networks.values():
            network.close()
    return made


def remove(fabric: int, interface: str) -> None:
    """Take a wire away, with every route over it. Raises KernelRefused."""
    with Network(fabric) as network:
        network.apply([delete(Link(interface), missing_ok=True)])


def darken(fabric: int, interfaces: Sequence[str]) -> None:
    """Have the fabric drop what comes and goes by these of its interfaces, and by no others. Raises KernelRefused."""
    with Nftables(fabric) as nftables:
        have = nftables.dump([_DARK])
        words = "".join(f'    {way} "{name}" drop\n' for name in interfaces for way in ("iifname", "oifname"))
        text = f"table {' '.join(_DARK)} {{\n" + "".join(
            f"  chain {hook} {{\n    type filter hook {hook} priority -400; policy accept;\n{words}  }}\n"
            for hook in ("input", "forward", "output")
        )
        want = nft.Ruleset((nft.table(text + "}\n"),) if interfaces else ())
        nftables.apply_batches(difference(have, want))


def settings(place: Place) -> Mapping[str, str]:
    """Give every sysctl that a place relies on: a new namespace inherits the machine's."""
    return sysctl.HARDENED_ROUTER if place.forwarding else sysctl.HARDENED


def _pair(wire: Wire, places: Mapping[str, int]) -> Request:
    far = Link(wire.b_interface, mac=wire.b_mac, mtu=wire.mtu, namespace_fd=places[wire.b_place])
    return add(Link(wire.a_interface, "veth", mac=wire.a_mac, mtu=wire.mtu, peer=far))


def _near(wire: Wire) -> list[Request]:
    return [change(Link(wire.a_interface, up=True, address_mode="none")), *wire.requests]


def _inside(place: Place, wires: Iterable[Wire]) -> list[Request]:
    requests = [change(Link(LOOPBACK, up=True))]
    for wire in wires:
        requests += _near(wire) if wire.a_place == place.name else []
        requests += [change(Link(wire.b_interface, up=True, address_mode="none"))] if wire.b_place == place.name else []
    return [*requests, *place.requests]
