"""The third witness: real packets through the kernel do what the specification and the walk of the listed tables say.

Few clusters, each asked with many packets; and a wrong element, put into any one of the three, is found.
"""

from __future__ import annotations

import random
import selectors
import socket
import subprocess
from dataclasses import replace
from ipaddress import IPv4Network, ip_address
from typing import Any

import pytest
from hypothesis import Phase, find, settings
from hypothesis.errors import NoSuchExample
from msgspec import structs

from kernel.services.wires import Place, Servers, Wires, ask
from podwire import nft
from podwire.linux import namespaces, sysctl
from podwire.linux.network import Network
from podwire.linux.nftables import Nftables
from podwire.objects.discovery import Endpoint
from podwire.services import routes
from podwire.services import specification as spec
from podwire.services.layout import IPV4
from podwire.services.specification import Cluster, Outcome, Packet
from podwire.services.tables import Tables
from podwire.wire.rtnetlink import Route, add
from pure.services import clusters

NODE = "node-1"
LIMIT_S, PATIENT_S = 0.12, 0.9  # less than a second: what is lost is not sent again
SERVED = (8080, 8081)
AWAY = ("192.0.2.80", "203.0.113.7", "203.0.113.8", "10.8.0.99")


class BoundServers(Servers):
    """Bound to an address: the answer to a datagram comes from where that was sent to, also on a node with several."""

    def open_at(self, place: Place, address: str, port: int, *, udp: bool) -> None:
        one = namespaces.socket_inside(place.fd, socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
        one.bind((address, port))
        if not udp:
            one.listen(64)
        self._selector.register(one, selectors.EVENT_READ, place.name)


class World:
    """One network for all clusters; the tables are made anew for each. Asked is at node-1."""

    def __init__(self) -> None:
        self.wires, self.servers = Wires(AWAY), BoundServers()
        self.places: dict[str, Any] = {
            clusters.OUTSIDE: self.wires.internet,
            "10.128.0.2": self.wires.nodes[1],
            "10.128.0.3": self.wires.nodes[2],
        }
        for address, name in {**clusters.PODS, **{pod: name for name, pod in clusters.CLIENTS.items()}}.items():
            if address.startswith("10.4."):
                self.places[address] = self.wires.pod(int(name[-1]), address)
        for address in clusters.PODS:
            for port in SERVED:
                self.servers.open_at(self.places[address], address, port, udp=False)
                self.servers.open_at(self.places[address], address, port, udp=True)
        for place in (*self.wires.nodes.values(), self.wires.fabric):  # the kernel answers a sender only so often
            sysctl.write_all({"net.ipv4.icmp_ratelimit": "0"}, place.fd)
        self.wires.fabric.network.apply([add(Route(IPv4Network("10.8.0.0/20"), gateway=ip_address("10.128.0.2"), link="node1"))])

    def load(self, trees: list[dict[str, Any]]) -> Cluster:
        world = clusters.cluster(trees)
        with Nftables(self.node) as kernel:
            kernel.apply([nft.DeleteTable(table.id) for table in kernel.dump().tables])
        self.tables = Tables(IPV4, NODE, clusters.POD_RANGES, clusters.SERVICE_RANGES, self.node)
        made = clusters.programs(world, NODE)
        for _ in self.tables.start({key: program for key, by_family in made.items() if (program := by_family[4]) is not None}):
            pass
        self.tables.close()
        with Network(self.node) as network:
            vips = [vip for vip in clusters.VIPS if vip in world.local[NODE] and ":" not in vip]
            network.apply(routes.changes(network.routes(routes.LOCAL), vips))
        return world

    @property
    def node(self) -> int:
        return self.wires.nodes[1].fd

    def listed(self) -> nft.Ruleset:
        """What the nft program prints, read again."""
        text = namespaces.inside(self.node, listing)
        return nft.parse(text)

    def observe(self, world: Cluster, packet: Packet, limit_s: float = LIMIT_S) -> Outcome:
        """Send it, and say what was seen."""
        place = self.wires.nodes[1] if packet.own else self.places[packet.source]
        answer = ask(place, packet.destination, packet.port, udp=packet.protocol == "UDP", limit_s=limit_s)
        if answer == "refused":
            return Outcome(spec.REFUSED)
        if answer in ("no answer", "unreachable"):
            return Outcome(spec.DROPPED)
        name, caller = answer.split()
        server = {"node-1": "10.128.0.2", "node-2": "10.128.0.3"}.get(name, name)
        shown = caller in clusters.NODES[NODE] if packet.own else caller != packet.source
        return Outcome(spec.DELIVERED, server, 0, spec.NODE if shown else spec.KEPT)


def listing() -> str:
    return subprocess.run(["nft", "list", "ruleset"], check=True, capture_output=True, text=True).stdout


def without_ports(outcomes: frozenset[Outcome]) -> frozenset[Outcome]:
    """A server says its name, not its port. What is not ours ends as it does without us: nobody is there, so nothing is compared."""
    return frozenset(replace(one, port=0) for one in outcomes)


def interesting(world: Cluster, trees: list[dict[str, Any]]) -> list[Packet]:
    """Packets of one family that are ours and that this network can carry."""
    return [
        packet
        for packet in clusters.packets(world, trees, NODE)
        if ":" not in packet.destination
        and not (packet.source == clusters.OUTSIDE and packet.destination.startswith("10.4."))
        and spec.Outcome(spec.NOT_OURS) not in spec.may_happen(world, packet)
    ]


def examples(count: int) -> list[list[dict[str, Any]]]:
    """Clusters by seed, always the same, of which at least two kinds of outcome are to be expected."""
    found: list[list[dict[str, Any]]] = []
    for seed in range(count):

        def rich(trees: list[dict[str, Any]]) -> bool:
            world = clusters.cluster(trees)
            kinds = {one for packet in interesting(world, trees) for one in spec.may_happen(world, packet)}
            return len(kinds) > 4

        try:
            found.append(
                find(
                    clusters.objects(both=False),
                    rich,
                    settings=settings(max_examples=300, database=None, phases=(Phase.generate,)),
                    random=random.Random(seed),
                )
            )
        except NoSuchExample:
            continue
    return found


def chosen(world: Cluster, trees: list[dict[str, Any]], limit: int = 36, patience: int = 6) -> list[Packet]:
    """Spread over everything there is to ask, with few that wait in vain."""
    everything = interesting(world, trees)
    found: list[Packet] = []
    for packet in everything[:: max(1, len(everything) // limit)]:
        if spec.Outcome(spec.DROPPED) in spec.may_happen(world, packet):
            patience -= 1
            if patience < 0:
                continue
        found.append(packet)
    return found


def test_the_three_witnesses_agree() -> None:
    one = World()
    kinds: set[str] = set()
    for trees in examples(10):
        world = one.load(trees)
        listed = one.listed()
        for packet in chosen(world, trees):
            difference = clusters.disagreement(listed, world, packet)
            assert not difference, difference
            said, seen = without_ports(spec.may_happen(world, packet)), one.observe(world, packet)
            if seen.kind == spec.DROPPED and seen not in said:
                seen = one.observe(world, packet, PATIENT_S)  # others use this machine, too
            assert seen in said, f"{packet}\nspecification {sorted(said)}\nkernel {seen}\n" + clusters.as_case(trees, packet, said)
            kinds |= {seen.kind + seen.source}
    assert kinds == {spec.REFUSED, spec.DROPPED, spec.DELIVERED + spec.KEPT, spec.DELIVERED + spec.NODE}
    with Nftables(one.node) as kernel:  # the control: without the tables nothing is as it was said
        kernel.apply([nft.DeleteTable(table.id) for table in kernel.dump().tables])
    translated = [p for p in interesting(world, trees) if p.port not in SERVED]
    delivered = [p for p in translated if all(o.kind == spec.DELIVERED for o in spec.may_happen(world, p))][:8]
    assert delivered
    assert not [p for p in delivered if one.observe(world, p) in without_ports(spec.may_happen(world, p))]


TREES: list[dict[str, Any]] = [
    {
        "kind": "Service",
        "metadata": {"name": "s0", "namespace": "shop"},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "10.8.0.20",
            "clusterIPs": ["10.8.0.20"],
            "externalIPs": [],
            "ports": [{"name": "http", "port": 80}],
        },
        "status": {},
    },
    {
        "kind": "EndpointSlice",
        "metadata": {"name": "s0-0", "namespace": "shop", "labels": {"kubernetes.io/service-name": "s0"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.4.1.2"], "nodeName": "node-1"}, {"addresses": ["10.4.2.2"], "nodeName": "node-2"}],
        "ports": [{"name": "http", "port": 8080}],
    },
]
PACKET = Packet(NODE, "10.4.1.9", "10.8.0.20", 80)
RIGHT, WRONG = "10.4.2.2", "10.4.1.3"


def agree(one: World, said: frozenset[Outcome], listed: nft.Ruleset, world: Cluster) -> bool:
    found = without_ports(frozenset(clusters.walked(listed, world, PACKET)))
    seen = frozenset(one.observe(world, PACKET) for _ in range(24))
    return without_ports(said) == found == seen


@pytest.mark.parametrize("witness", ["none", "specification", "walk", "kernel"])
def test_a_wrong_element_in_any_of_the_three_is_found(witness: str) -> None:
    one = World()
    world = one.load(TREES)
    said, listed = spec.may_happen(world, PACKET), one.listed()
    if witness == "specification":
        [piece] = world.slices
        wrong = replace_address(piece.endpoints[1])
        said = spec.may_happen(replace(world, slices=(structs.replace(piece, endpoints=(piece.endpoints[0], wrong)),)), PACKET)
    if witness == "walk":
        text = nft.render(listed)
        assert f"{RIGHT} . 8080" in text
        listed = nft.parse(text.replace(f"{RIGHT} . 8080", f"{WRONG} . 8080"))
    if witness == "kernel":
        with Nftables(one.node) as kernel:
            [table] = kernel.dump().tables
            backends = table.set("backends")
            [element] = [e for e in backends.elements.values() if e.value == backends.value(RIGHT, 8080)]
            changed = nft.Element(element.key, backends.value(WRONG, 8080), comment=element.comment)
            kernel.apply([nft.DeleteElements(table.id, backends, [element]), nft.AddElements(table.id, backends, [changed])])
    assert agree(one, said, listed, world) == (witness == "none")


def replace_address(endpoint: Endpoint) -> Endpoint:
    return structs.replace(endpoint, addresses=(WRONG,), node_name=NODE)
