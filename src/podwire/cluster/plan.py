"""From a specification to what runs where: places, wires, addresses, processes, files. Pure.

What belongs here: every address, name and command line of the lab, decided once. What must not: doing anything about it
(supervisor.py and lifecycle.py do).

The wires are those of docs/architecture.md, "The wires in the lab": a layer-3 fabric in the place ``vpc``, one veth to each
other place, /32 routes, permanent neighbour entries. MAC addresses are made from addresses as Compute Engine makes them
(``42:01`` and the four bytes), so both ends of a wire can be written down before either exists.
Names of nodes follow GKE, ``gke-CLUSTER-POOL-HASH-SUFFIX``, unless the specification has others.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface, ip_network
from typing import Any, TypeVar

import msgspec

from podwire.cluster.changes import AddedNode, Changes
from podwire.cluster.identity import ADMIN, Identity
from podwire.cluster.paths import Paths
from podwire.cluster.problem import Problem
from podwire.cluster.spec import INTERNET, POD_PREFIX_IPV6, ClusterSpec, NodePool
from podwire.daemon.config import AgentConfig
from podwire.wire.rtnetlink import Address, Neighbour, Request, Route, add

API_PORT = 443
NODE_PORTS = (30000, 32767)
CLUSTER_DOMAIN = "cluster.local"
MTU = 1500
EVERYWHERE = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

UNCHANGED = Changes()
Network = TypeVar("Network", IPv4Network, IPv6Network)

VPC, CONTROL, INTERNET_PLACE = "vpc", "control", "internet"


class NoRoom(Problem):
    """A range has no address for another node. The text names the field."""


@dataclass(frozen=True)
class Place:
    """A network namespace: what is switched on in it and what its links carry once its wires exist."""

    name: str
    forwarding: bool
    requests: tuple[Request, ...]


@dataclass(frozen=True)
class Wire:
    """A veth pair between two places. ``requests`` are for the near end, when the pair is up."""

    a_place: str
    a_interface: str
    a_mac: bytes
    b_place: str
    b_interface: str
    b_mac: bytes
    requests: tuple[Request, ...] = ()
    mtu: int = MTU


@dataclass(frozen=True)
class Listen:
    """A listening TCP socket that a process is started with. ``place`` "" is the machine's loopback, through door."""

    name: str
    place: str
    address: str
    port: int


@dataclass(frozen=True)
class Process:
    """A long-running process, or with ``once`` one that ends when its work is done.

    ``arguments`` are the words after ``podwire``. ``pid_namespace`` names the node whose PID namespace it lives in, ``""`` the
    cluster's. ``after`` names processes that must be ready before it starts. ``listen`` are handed in as ``--fd N`` each.
    """

    name: str
    place: str
    arguments: tuple[str, ...]
    pid_namespace: str = ""
    after: tuple[str, ...] = ()
    listen: tuple[Listen, ...] = ()
    once: bool = False


@dataclass(frozen=True)
class PlannedNode:
    name: str
    pool: str
    zone: str
    interface: str
    address: IPv4Address
    pod_range: IPv4Network
    address_ipv6: IPv6Address | None = None
    pod_range_ipv6: IPv6Network | None = None

    @property
    def addresses(self) -> tuple[IPAddress, ...]:
        """One of each family that the cluster has."""
        return (self.address,) if self.address_ipv6 is None else (self.address, self.address_ipv6)

    @property
    def pod_ranges(self) -> tuple[IPNetwork, ...]:
        """One of each family that the cluster has."""
        return (self.pod_range,) if self.pod_range_ipv6 is None else (self.pod_range, self.pod_range_ipv6)


@dataclass(frozen=True)
class Plan:
    spec: ClusterSpec
    nodes: tuple[PlannedNode, ...]
    places: tuple[Place, ...]
    wires: tuple[Wire, ...]
    processes: tuple[Process, ...]
    identities: tuple[Identity, ...]
    files: Mapping[str, bytes] = field(repr=False)
    api_address: IPv4Address
    kubernetes_address: IPv4Address
    dns_address: IPv4Address
    nat_address: IPv4Address
    changes: Changes = UNCHANGED

    @property
    def running(self) -> tuple[str, ...]:
        """The names of the nodes that have power."""
        return tuple(node.name for node in self.nodes if node.name not in self.changes.stopped)

    @property
    def dark(self) -> tuple[str, ...]:
        """The fabric's ends of wires that it carries nothing over: those of nodes without power and of zones that are cut off."""
        zones, names = self.changes.stopped_zones, self.changes.stopped
        return tuple(node.interface for node in self.nodes if node.name in names or node.zone in zones)

    def node(self, name: str) -> PlannedNode:
        """Find a node. Raises StopIteration."""
        return next(node for node in self.nodes if node.name == name)

    @property
    def api_url(self) -> str:
        """The API as components in the lab reach it."""
        return f"https://{self.api_address}:{API_PORT}"

    @property
    def server_names(self) -> tuple[str, ...]:
        """What the API's certificate must hold."""
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", f"kubernetes.default.svc.{CLUSTER_DOMAIN}", "localhost"]
        return (*names, "127.0.0.1", str(self.api_address), str(self.kubernetes_address))


def kubelet_names(nodes: Sequence[PlannedNode]) -> dict[str, tuple[str, ...]]:
    """What the certificates of kubelets must hold, by node."""
    return {node.name: (node.name, *map(str, node.addresses)) for node in nodes}


def mac(address: IPv4Address) -> bytes:
    """Give the MAC address that belongs to an address, as Compute Engine makes it."""
    return b"\x42\x01" + address.packed


def node_names(cluster: str, pool: NodePool, zone: str) -> Iterator[str]:
    """Give the names of a pool's nodes in a zone, the same ones each time, no two alike.

    At most 52 letters: ``system:node:NAME`` is a common name, which X.509 ends at 64.
    """
    if pool.node_names:
        first = pool.zones.index(zone) * pool.nodes_per_zone
        yield from pool.node_names[first : first + pool.nodes_per_zone]
        return
    base, group = _name_parts(cluster, pool.name, zone)
    taken: set[str] = set()
    for index in range(pool.nodes_per_zone):
        tries = (_letters(f"{cluster}/{pool.name}/{zone}/{index}" + "/" * again, 4) for again in itertools.count())
        suffix = next(letters for letters in tries if letters not in taken)
        taken.add(suffix)
        yield f"{base}-{group}-{suffix}"


def _name_parts(cluster: str, pool: str, zone: str) -> tuple[str, str]:
    return f"gke-{cluster}-{pool}"[:38].rstrip("-"), _letters(f"{cluster}/{pool}/{zone}", 8)


def _letters(text: str, count: int) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "".join("0123456789bcdfghjklmnpqrstvwxz"[byte % 30] for byte in digest[:count])


def plan(
    spec: ClusterSpec,
    paths: Paths,
    *,
    api_port: int,
    changes: Changes = UNCHANGED,
    private: Sequence[str] = (),
    cgroups: Mapping[str, str] | None = None,
) -> Plan:
    """Decide everything about a lab. ``api_port`` is the port on 127.0.0.1 where the user finds the API.

    ``changes``: nodes that came and went since. ``private``: what of the machine containers may not see. ``cgroups``: where limits are set.
    Raises NoRoom for an added node that the ranges have no address for.
    """
    ranges = spec.ranges
    nodes = _nodes(spec, changes)
    api, nat = ranges.control_plane[2], ranges.external[1]
    kubernetes, dns = ranges.services[1], ranges.services[10]
    wires = (
        _wire(CONTROL, _end_of("control", api, ranges.control_plane[1])),
        _wire(INTERNET_PLACE, _end_of("internet", INTERNET[10], INTERNET[1])),
        *(_wire(f"node/{node.name}", _end(spec, node)) for node in nodes),
    )
    places = (
        _vpc(spec),
        _leaf(CONTROL, _end_of("control", api, ranges.control_plane[1])),
        _leaf(INTERNET_PLACE, _end_of("internet", INTERNET[10], INTERNET[1])),
        *(_leaf(f"node/{node.name}", _end(spec, node), forwarding=True) for node in nodes),
    )
    return Plan(
        spec=spec,
        nodes=nodes,
        places=places,
        wires=wires,
        processes=_processes(nodes, paths, api, api_port),
        identities=_identities(nodes),
        files=_files(spec, nodes, paths, api, dns, nat, private, cgroups or {}),
        api_address=api,
        kubernetes_address=kubernetes,
        dns_address=dns,
        nat_address=nat,
        changes=changes,
    )


def _nodes(spec: ClusterSpec, changes: Changes) -> tuple[PlannedNode, ...]:
    named = [(name, pool.name, zone) for pool in spec.node_pools for zone in pool.zones for name in node_names(spec.name, pool, zone)]
    nodes = [_node(spec, index, *words) for index, words in enumerate(named) if words[0] not in changes.deleted]
    return (*nodes, *(_node(spec, one.index, one.name, one.pool, one.zone) for one in changes.added))


def _node(spec: ClusterSpec, index: int, name: str, pool: str, zone: str) -> PlannedNode:
    """The node with an index, which decides its addresses."""
    ranges = spec.ranges
    pods, address = _subnet(ranges.pods, spec.pod_prefix, index), ranges.nodes.network_address + 2 + index
    if not pods.subnet_of(ranges.pods):
        raise NoRoom(f"spec.ranges.pods: {ranges.pods} has no range left for another node")
    if int(address) > int(ranges.nodes.broadcast_address) - 2:
        raise NoRoom(f"spec.ranges.nodes: {ranges.nodes} has no address left for another node")
    if ranges.nodes_ipv6 is None or ranges.pods_ipv6 is None:
        return PlannedNode(name, pool, zone, f"vm-{index}", address, pods)
    second = _subnet(ranges.pods_ipv6, POD_PREFIX_IPV6, index)
    return PlannedNode(name, pool, zone, f"vm-{index}", address, pods, ranges.nodes_ipv6[2 + index], second)


def _subnet(network: Network, prefix: int, index: int) -> Network:
    """The subnet of that number, beyond the network's end too."""
    size = 1 << (network.max_prefixlen - prefix)
    return type(network)((int(network.network_address) + index * size, prefix))


def new_node(current: Plan, pool: str, zone: str, name: str = "") -> AddedNode:
    """Give a node that is not there yet, with a name as GKE makes them where none is said, and the lowest free index."""
    taken = {node.name for node in current.nodes} | set(current.changes.deleted)
    indexes = {int(node.interface.removeprefix("vm-")) for node in current.nodes} | set(range(current.spec.node_count))
    index = next(number for number in itertools.count() if number not in indexes)
    base, group = _name_parts(current.spec.name, pool, zone)
    count = current.changes.number
    made = (f"{base}-{group}-{_letters(f'{group}/{count}/{again}', 4)}" for again in itertools.count())
    return AddedNode(name or next(each for each in made if each not in taken), pool, zone, index)


# Places and wires --------------------------------------------------------------------------------------------------------


def _wire(place: str, end: _End) -> Wire:
    requests: list[Request] = []
    for address, gateway in end.pairs:
        requests += [
            add(Address(end.interface, ip_interface(gateway))),
            add(Neighbour(end.interface, address, mac(end.address))),
            add(Route(ip_network(address), link=end.interface)),
        ]
    return Wire(VPC, end.interface, _gateway_mac(end.address, end.gateway), place, "eth0", mac(end.address), tuple(requests))


def _gateway_mac(address: IPv4Address, gateway: IPv4Address) -> bytes:
    """The fabric's end of a wire. The gateway's address is on many of them, so the far end's last bytes tell them apart."""
    return b"\x42\x00" + gateway.packed[:2] + address.packed[2:]


@dataclass(frozen=True)
class _End:
    """The far end of a wire from ``vpc``: the interface there, and for each family its address and gateway, IPv4 first."""

    interface: str
    address: IPv4Address
    gateway: IPv4Address
    pairs: Sequence[tuple[IPAddress, IPAddress]]


def _end_of(interface: str, address: IPv4Address, gateway: IPv4Address) -> _End:
    return _End(interface, address, gateway, [(address, gateway)])


def _end(spec: ClusterSpec, node: PlannedNode) -> _End:
    end = _end_of(node.interface, node.address, spec.ranges.nodes[1])
    if node.address_ipv6 is None or spec.ranges.nodes_ipv6 is None:
        return end
    return replace(end, pairs=[*end.pairs, (node.address_ipv6, spec.ranges.nodes_ipv6[1])])


def _leaf(place: str, end: _End, *, forwarding: bool = False) -> Place:
    """A place with one wire: its address as a /32 (or /128), the gateway on the link, everything else through it."""
    requests: list[Request] = []
    for address, gateway in end.pairs:
        requests += [
            add(Address("eth0", ip_interface(address))),
            add(Neighbour("eth0", gateway, _gateway_mac(end.address, end.gateway))),
            add(Route(ip_network(gateway), link="eth0")),
            add(Route(EVERYWHERE[gateway.version], gateway=gateway, link="eth0")),
        ]
    return Place(place, forwarding, tuple(requests))


def _vpc(spec: ClusterSpec) -> Place:
    ranges = spec.ranges
    requests: list[Request] = [add(Route(INTERNET, gateway=INTERNET[10], link="internet"))]
    # What no route or forwarding rule is more particular about ends here instead of going round.
    ending = (ranges.external, ranges.pods, ranges.nodes, ranges.control_plane, ranges.pods_ipv6, ranges.nodes_ipv6)
    requests += [add(Route(network, type="blackhole")) for network in ending if network is not None]
    return Place(VPC, True, tuple(requests))


# Processes and their files -----------------------------------------------------------------------------------------------


def _identities(nodes: Sequence[PlannedNode]) -> tuple[Identity, ...]:
    controllers = ("system:podwire:controllers",)
    return (
        Identity(ADMIN, "podwire-admin", ("system:masters",)),
        *(Identity(name, f"system:podwire:{name}", controllers) for name in ("controllers", "vpc", "publish", "bootstrap")),
        *(Identity(f"node/{node.name}", f"system:node:{node.name}", ("system:nodes",)) for node in nodes),
    )


def _processes(nodes: Sequence[PlannedNode], paths: Paths, api: IPv4Address, api_port: int) -> tuple[Process, ...]:
    def agent(name: str, place: str, *agents: str, node: str = "") -> Process:
        words = ["agent", *agents, "--kubeconfig", paths.kubeconfig(name), "--config", paths.config(name)]
        words += ["--node", node] if node else []
        return Process(name, place, tuple(words), pid_namespace=node, after=("apiserver",))

    listen = (Listen("api", "", "127.0.0.1", api_port), Listen("api-control", CONTROL, str(api), API_PORT))
    bootstrap = ("bootstrap", "--kubeconfig", paths.kubeconfig("bootstrap"), "--objects", f"{paths.root}/config/addons.json")
    return (
        Process("apiserver", CONTROL, ("apiserver", "--config", paths.config("apiserver")), listen=listen),
        Process("bootstrap", CONTROL, bootstrap, after=("apiserver",), once=True),
        agent("controllers", CONTROL, "workloads", "loadbalancers"),
        agent("vpc", VPC, "vpc"),
        agent("publish", CONTROL, "publish"),
        *(
            process
            for node in nodes
            for process in (
                Process(
                    f"standins/{node.name}",
                    f"node/{node.name}",
                    ("standins", "--socket", paths.standins_socket(node.name)),
                    pid_namespace=node.name,
                ),
                agent(f"node/{node.name}", f"node/{node.name}", "pods", "services", node=node.name),
            )
        ),
    )


def _files(
    spec: ClusterSpec,
    nodes: Sequence[PlannedNode],
    paths: Paths,
    api: IPv4Address,
    dns: IPv4Address,
    nat: IPv4Address,
    private: Sequence[str],
    cgroups: Mapping[str, str],
) -> dict[str, bytes]:
    ranges = spec.ranges
    common = AgentConfig(
        cluster_name=spec.name,
        cluster_domain=CLUSTER_DOMAIN,
        proxy_mode=spec.proxy_mode,
        cluster_dns=(str(dns),),
        node_ranges=_texts(ranges.nodes, ranges.nodes_ipv6),
        pod_ranges=_texts(ranges.pods, ranges.pods_ipv6),
        service_ranges=_texts(ranges.services, ranges.services_ipv6),
        control_range=str(ranges.control_plane),
        external_ranges=(str(ranges.external),),
        nat_address=str(nat),
        region=spec.region,
        control_socket=paths.control_socket,
        state_dir=paths.root,
        images_dir=paths.images,
        private=tuple(private),
        cgroups=dict(cgroups),
        pod_pids_limit=spec.pod_pids_limit,
        registries=spec.registries,
        node_grace_s=spec.node_grace_s,
        host_paths=spec.host_paths,
    )
    files = {paths.config(name): msgspec.json.encode(common) for name in ("vpc", "publish")}
    signing = msgspec.structs.replace(common, signing_certificate=f"{paths.pki}/ca.crt", signing_key=f"{paths.pki}/ca.key")
    files[paths.config("controllers")] = msgspec.json.encode(signing)
    for node in nodes:
        own = msgspec.structs.replace(
            common,
            zone=node.zone,
            pod_cidrs=_texts(*node.pod_ranges),
            max_pods=spec.max_pods_per_node,
            node_ips=_texts(*node.addresses),
            node_labels={"cloud.google.com/gke-nodepool": node.pool},
            init_socket=paths.node_init_socket(node.name),
            standins_socket=paths.standins_socket(node.name),
            kubelet_certificate=f"{paths.kubelet(node.name)}.crt",
            kubelet_key=f"{paths.kubelet(node.name)}.key",
            kubelet_client_ca=f"{paths.pki}/ca.crt",
        )
        files[paths.config(f"node/{node.name}")] = msgspec.json.encode(own)
    files[paths.config("apiserver")] = _json(
        {
            "database": paths.database,
            "certificate": f"{paths.pki}/apiserver.crt",
            "key": f"{paths.pki}/apiserver.key",
            "clientCA": f"{paths.pki}/ca.crt",
            "serviceAccountKey": f"{paths.pki}/sa.key",
            **({"auditLog": paths.audit_log, "auditLevel": spec.audit_level} if spec.audit_level else {}),
            "kubeletCertificate": f"{paths.pki}/apiserver-kubelet-client.crt",
            "kubeletKey": f"{paths.pki}/apiserver-kubelet-client.key",
            "serviceRanges": list(_texts(ranges.services, ranges.services_ipv6)),
            "controlAddress": str(api),
            "controlPort": API_PORT,
            "nodePortRange": list(NODE_PORTS),
            "externalRange": str(ranges.external),
            "region": spec.region,
            "clusterName": spec.name,
        }
    )
    return files


def _texts(*values: IPAddress | IPNetwork | None) -> tuple[str, ...]:
    return tuple(str(value) for value in values if value is not None)


def _json(tree: Any) -> bytes:
    return json.dumps(tree, indent=2).encode()
