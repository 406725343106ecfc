"""Random clusters and random packets, and the two witnesses that need no kernel: the specification and the walk.

Two nodes, a pool of Pods that the kernel tests can build, few addresses and ports, so that Services meet and quarrel. A cluster prints
as a manifest (``as_case``), which ``case`` reads back: the cases under tests/cases/services are such texts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import yaml
from hypothesis import strategies as st

from podwire import nft
from podwire.nft import walk as walking
from podwire.nft.fake import FakeNftables
from podwire.objects.core import Node, Service
from podwire.objects.discovery import EndpointSlice
from podwire.services import desired, layout
from podwire.services import specification as spec
from podwire.services.numbers import Numbers
from podwire.services.ruleset import Program
from podwire.services.specification import Cluster, Outcome, Packet
from podwire.services.structure import structure
from podwire.views.frontends import join
from podwire.views.topology import Place, place

POD_RANGES, SERVICE_RANGES = ("10.4.0.0/14", "fd00:4::/56"), ("10.8.0.0/20", "fd00:8::/112")
NODES = {
    "node-1": ("a", "10.128.0.2", "10.4.1.1", "fd00:128::2", "fd00:4:0:1::1"),
    "node-2": ("b", "10.128.0.3", "10.4.2.1", "fd00:128::3", "fd00:4:0:2::1"),
}
PODS = {"10.4.1.2": "node-1", "10.4.1.3": "node-1", "10.4.2.2": "node-2", "10.128.0.2": "node-1", "10.128.0.3": "node-2"}
PODS6 = {"fd00:4:0:1::2": "node-1", "fd00:4:0:2::2": "node-2"}
CLIENTS = {"node-1": "10.4.1.9", "node-2": "10.4.2.9"}
OUTSIDE = "198.51.100.10"
OUTSIDE6 = "2001:db8::10"
VIPS = ("203.0.113.7", "203.0.113.8", "2001:db8:1::7")
EXTERNAL = ("192.0.2.80", "203.0.113.7", "10.128.0.2")
PORTS = (("http", "TCP", 80), ("dns", "UDP", 53), ("", "TCP", 8080))
RANGES = ("198.51.100.0/24", "198.51.100.0/25", "10.4.1.0/24", "10.128.0.0/20", "0.0.0.0/0", "10.0.0.0/8", "2001:db8::/32", " 192.0.2.0/24")


# Making clusters -------------------------------------------------------------------------------------------------------------


def node(name: str) -> Node:
    zone, address, _, address6, _ = NODES[name]
    return msgspec.convert(
        {
            "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": zone}},
            "status": {"addresses": [{"type": "InternalIP", "address": address}, {"type": "InternalIP", "address": address6}]},
        },
        Node,
    )


@st.composite
def services(draw: st.DrawFn, which: int, *, both: bool = True) -> dict[str, Any]:
    kind = draw(st.sampled_from(("ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer")))
    ports = draw(st.lists(st.sampled_from(PORTS), min_size=1, max_size=2, unique_by=lambda p: p[0]))
    rows = [{"name": n, "protocol": t, "port": p} for n, t, p in ports]
    if kind != "ClusterIP":
        for row in rows:
            row["nodePort"] = draw(st.sampled_from((0, 30000 + 10 * which + row["port"] % 7, 30080, 30090)))
    ips = [f"10.8.0.{20 + which}"] + ([f"fd00:8::{20 + which}"] if both and draw(st.booleans()) else [])
    made: dict[str, Any] = {
        "type": kind,
        "clusterIP": ips[0],
        "clusterIPs": ips,
        "ports": rows,
        "externalIPs": draw(st.lists(st.sampled_from((*EXTERNAL, "10.8.0.20")), max_size=2, unique=True)),
        "internalTrafficPolicy": draw(st.sampled_from(("Cluster", "Cluster", "Local"))),
        "externalTrafficPolicy": draw(st.sampled_from(("Cluster", "Local"))),
    }
    if draw(st.sampled_from((False, False, True))):
        made |= {
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": draw(st.sampled_from((600, 3600)))}},
        }
    status: dict[str, Any] = {}
    if kind == "LoadBalancer":
        made["loadBalancerSourceRanges"] = draw(st.lists(st.sampled_from(RANGES), max_size=3))
        vips = draw(st.lists(st.sampled_from(VIPS), max_size=2, unique=True))
        mode = draw(st.sampled_from(("VIP", "VIP", "VIP", "Proxy")))
        status = {"loadBalancer": {"ingress": [{"ip": vip, "ipMode": mode} for vip in vips]}}
    labels = {"service.kubernetes.io/service-proxy-name": "another"} if draw(st.integers(0, 11)) == 11 else {}
    created = f"2026-01-0{draw(st.integers(1, 3))}T00:00:00Z"
    meta = {"name": f"s{which}", "namespace": "shop", "labels": labels, "creationTimestamp": created}
    return {"kind": "Service", "metadata": meta, "spec": made, "status": status}


@st.composite
def endpoints(draw: st.DrawFn, family: int) -> dict[str, Any]:
    pool = PODS if family == 4 else PODS6
    address = draw(st.sampled_from(sorted(pool)))
    conditions = draw(
        st.sampled_from(
            (
                {},
                {"ready": True},
                {"ready": True, "serving": True},
                {"ready": False},
                {"ready": False, "serving": True, "terminating": True},
                {"ready": False, "serving": False, "terminating": True},
            )
        )
    )
    made: dict[str, Any] = {"addresses": [address], "conditions": conditions}
    if draw(st.integers(0, 9)):
        made["nodeName"] = pool[address]
        made["zone"] = NODES[pool[address]][0]
    hints = draw(
        st.sampled_from(
            ({}, {}, {"forZones": ["a"]}, {"forZones": ["b"]}, {"forNodes": ["node-1"]}, {"forZones": ["a"], "forNodes": ["node-2"]})
        )
    )
    if hints:
        made["hints"] = {kind: [{"name": name} for name in names] for kind, names in hints.items()}
    return made


@st.composite
def slices(draw: st.DrawFn, service: dict[str, Any], which: int, *, both: bool = True) -> dict[str, Any]:
    families = [4, *([6] if len(service["spec"]["clusterIPs"]) > 1 else [])]
    family = draw(st.sampled_from(families))
    ports = [
        {"name": p["name"], "protocol": p["protocol"], "port": draw(st.sampled_from((8080, 8081, *((30090,) if both else ()))))}
        for p in service["spec"]["ports"]
        if draw(st.integers(0, 7))
    ]
    name = service["metadata"]["name"]
    meta = {"name": f"{name}-{which}", "namespace": "shop", "labels": {"kubernetes.io/service-name": name}}
    rows = draw(st.lists(endpoints(family), max_size=4, unique_by=lambda e: e["addresses"][0]))
    return {"kind": "EndpointSlice", "metadata": meta, "addressType": f"IPv{family}", "endpoints": rows, "ports": ports}


@st.composite
def objects(draw: st.DrawFn, *, both: bool = True) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for which in range(draw(st.integers(1, 3))):
        service = draw(services(which, both=both))
        found.append(service)
        found += [draw(slices(service, number, both=both)) for number in range(draw(st.integers(0, 2)))]
    return found


def cluster(trees: Iterable[dict[str, Any]], *, local_vips: bool = True) -> Cluster:
    """Make a cluster of plain trees. ``local_vips``: as in the cloud, nodes have load-balancer addresses as local ones."""
    made_services = tuple(msgspec.convert(t, Service) for t in trees if t["kind"] == "Service")
    made_slices = tuple(msgspec.convert(t, EndpointSlice) for t in trees if t["kind"] == "EndpointSlice")
    vips = {i.ip for s in made_services if s.spec.type == "LoadBalancer" for i in s.status.load_balancer.ingress if i.ip_mode == "VIP"}
    local = {name: frozenset((*row[1:], *(vips if local_vips else ()))) for name, row in NODES.items()}
    return Cluster(made_services, made_slices, tuple(map(node, NODES)), POD_RANGES, SERVICE_RANGES, local)


def sources(world: Cluster, name: str, destination: str) -> list[tuple[str, bool]]:
    """Who may send at a node, as the source address and whether it is the node itself."""
    if ":" in destination:
        own = destination if destination in world.local[name] else NODES[name][3]
        return [(OUTSIDE6, False), *((pod, False) for pod, at in PODS6.items() if at == name), (own, True)]
    pods = [pod for pod, at in PODS.items() if at == name and pod.startswith("10.4.")]
    own = destination if destination in world.local[name] else NODES[name][1]
    return [(OUTSIDE, False), (CLIENTS[name], False), *((pod, False) for pod in pods), (own, True)]


def destinations(trees: Iterable[dict[str, Any]], name: str) -> list[tuple[str, int, str]]:
    """Everything that is worth asking at a node."""
    found: dict[tuple[str, int, str], None] = {
        ("10.8.0.99", 80, "TCP"): None,
        (OUTSIDE, 80, "TCP"): None,
        (NODES[name][1], 8080, "TCP"): None,
    }
    for tree in trees:
        if tree["kind"] != "Service":
            continue
        inner = tree["spec"]
        addresses = [
            *inner["clusterIPs"],
            *inner["externalIPs"],
            *(i["ip"] for i in tree["status"].get("loadBalancer", {}).get("ingress", ())),
        ]
        for address in addresses:
            found[address, 81, "TCP"] = None
            for port in inner["ports"]:
                found[address, port["port"], port["protocol"]] = None
                found[address, port["port"], "UDP"] = None
        for port in inner["ports"]:
            if port.get("nodePort"):
                for address in (*NODES[name][1:], *VIPS[:1]):
                    found[address, port["nodePort"], port["protocol"]] = None
    return list(found)


def packets(world: Cluster, trees: list[dict[str, Any]], name: str) -> list[Packet]:
    """Every packet worth asking for at a node."""
    return [
        Packet(name, source, address, port, protocol, own)
        for address, port, protocol in destinations(trees, name)
        for source, own in sources(world, name, address)
    ]


# What the tables say ---------------------------------------------------------------------------------------------------------


@dataclass
class Tabled:
    """One node's tables, both families, filled as the agent fills them, before a fake kernel."""

    name: str
    kernel: FakeNftables = field(default_factory=FakeNftables)
    programs: dict[int, Program] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for family in (layout.IPV4, layout.IPV6):
            program = Program(structure(family, POD_RANGES, SERVICE_RANGES), self.name, Numbers())
            self.kernel.apply([*program.structure.create(), *program.structure.hook()])
            program.reconcile(None)
            self.programs[family.number] = program

    def put(self, world: Cluster, *, gone: Iterable[str] = ()) -> None:
        for key, by_family in programs(world, self.name).items():
            for family, wanted in by_family.items():
                self.programs[family].put(key, wanted)
        for key in gone:
            for program in self.programs.values():
                program.put(key, None)

    def take(self) -> None:
        for program in self.programs.values():
            self.kernel.apply_batches(program.take())

    def expire(self) -> None:
        for program in self.programs.values():
            self.kernel.apply_batches(program.expire(program.round))

    def printed(self) -> str:
        return nft.render(self.kernel.dump())


def here(name: str) -> Place:
    return place(node(name))


def programs(world: Cluster, name: str) -> dict[str, dict[int, desired.ServiceProgram | None]]:
    """What the node does for each Service, by family."""
    found = {}
    for service in world.services:
        view = join(service, [piece for piece in world.slices if piece.service_key == service.key])
        found[service.key] = {family: None if view is None else desired.program(view, here(name), family) for family in (4, 6)}
    return found


def tabled(world: Cluster, name: str) -> nft.Ruleset:
    """The ruleset of one node, as it is printed and read again."""
    made = Tabled(name)
    made.put(world)
    made.take()
    return nft.parse(made.printed())


def surroundings(world: Cluster, name: str) -> walking.Surroundings:
    _, address, bridge, address6, bridge6 = NODES[name]
    which = name[-1]
    routes = {f"10.4.{which}.0/24": "cbr0", "0.0.0.0/0": "eth0", f"fd00:4:0:{which}::/64": "cbr0", "::/0": "eth0"}
    return walking.Surroundings(world.local[name], routes, {"eth0": (address, address6), "cbr0": (bridge, bridge6)})


def walked_packet(packet: Packet, source_port: int = 40000) -> walking.Packet:
    link = "" if packet.own else "cbr0" if packet.source.startswith(("10.4.", "fd00:4:")) else "eth0"
    return walking.Packet(packet.source, packet.destination, packet.protocol.lower(), source_port, packet.port, link)


def outcome(trace: walking.Trace, own: tuple[str, ...] = ()) -> Outcome:
    """What a walk ended in, in the specification's words. ``own``: it started on the node that has these addresses."""
    end, connection = trace.outcome, trace.connection
    if end.kind == walking.REJECTED:
        return Outcome(spec.REFUSED)
    if end.kind == walking.DROPPED:
        return Outcome(spec.DROPPED)
    if connection.destination is None:
        return Outcome(spec.NOT_OURS) if end.packet == replace(trace.connection.original, link=end.packet.link) else Outcome("altered")
    there = end.packet.source
    shown = there in own or end.where == walking.HERE if own else connection.source is not None
    source = spec.NODE if shown else spec.KEPT
    untouched = connection.destination == (connection.original.destination, connection.original.destination_port)
    assert own or untouched or end.packet.mark == 0, "the slot is not seen by routing"
    return Outcome(spec.DELIVERED, *connection.destination, source)


def walked(ruleset: nft.Ruleset, world: Cluster, packet: Packet) -> dict[Outcome, walking.Trace]:
    """Every outcome that the tables allow, each with a way that leads there."""
    ways = walking.every_way(ruleset, walked_packet(packet), surroundings(world, packet.node))
    own = NODES[packet.node][1:] if packet.own else ()
    return {outcome(trace, own): trace for trace in ways}


def disagreement(ruleset: nft.Ruleset, world: Cluster, packet: Packet) -> str:
    """Compare the two witnesses for one packet. "" if they agree. Of two things that one endpoint may see, it sees one or both."""
    said, found = spec.may_happen(world, packet), walked(ruleset, world, packet)
    if said >= frozenset(found) and all(any(replace(one, source=each.source) == each for each in found) for one in said):
        return ""
    ways = "\n\n".join(str(trace) for trace in found.values())
    return f"{packet}\nspecification: {sorted(said)}\nwalk: {sorted(found)}\n{ways}\n"


# Cases -----------------------------------------------------------------------------------------------------------------------


def as_case(trees: list[dict[str, Any]], packet: Packet, allowed: Iterable[Outcome], *, local_vips: bool = True) -> str:
    """Print a cluster, a packet and what may happen, to be kept."""
    head = {
        "packet": msgspec.to_builtins(packet),
        "allowed": [msgspec.to_builtins(one) for one in sorted(allowed)],
        "localLoadBalancerAddresses": local_vips,
    }
    return str(yaml.safe_dump_all([head, *trees], sort_keys=False))


def case(text: str) -> tuple[list[dict[str, Any]], Packet, frozenset[Outcome], bool]:
    """Read what ``as_case`` printed."""
    head, *trees = yaml.safe_load_all(text)
    return trees, Packet(**head["packet"]), frozenset(Outcome(**one) for one in head["allowed"]), head["localLoadBalancerAddresses"]
