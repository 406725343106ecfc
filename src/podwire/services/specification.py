"""What may happen to the first packet of a connection, said in the words of Kubernetes' documentation.

What belongs here: one function, ``may_happen``, to be read beside that documentation: from the objects of the API and one packet to the set
of things that may be observed. It is written to be read, not to be fast, and it knows nothing of tables, marks and kernels: it is the
witness against which those are held. What must not: any import but the objects.

How it reads: whose is the destination (``_whose``), may this client come there (source ranges), which endpoints may serve it (``_choice``:
conditions, traffic policy, topology), and whom does the chosen endpoint see (``_source``).

Decisions that the documentation leaves open, taken here and nowhere else:

- Where two Services claim one address, protocol and port, a cluster address is its own Service's; of others the oldest Service has it, and
  of two equally old ones the first by namespace and name. All that is said of that address is then said of that Service: its endpoints,
  its policy, its source ranges.
- Source ranges guard load-balancer addresses, for whoever comes, also from the cluster and from the node. If a node's own address is
  within, the load-balancer address itself is too: a node that talks to such an address may do so with that address as its own. A list
  without any range of a family lets nobody of that family in.
- Whoever reaches an endpoint through a node that is not the one where the endpoint is, must be answered through that node: so everything
  that was translated is masqueraded, unless a policy keeps the client's address, or a Pod used a cluster address (those
  are translated on its own node, always). A packet that stays on the node because its endpoint is the node itself needs nothing of it.
- An external Local policy keeps the address of Pods, too, where the answer comes by in any case: from the Pods of the node that is asked,
  and to its own, which are all that use other addresses than node ports there, as each node translates those for its own.
- On an address of the node that is also an external or a load-balancer address of a Service, that Service's port goes before a node port.
- An endpoint may have the very address and port that the client uses. Who is led there meets it; that goes for Pods and nodes under a Local
  policy, too. Whom the policy leads nowhere is dropped all the same. What the endpoint sees is what it would see by another port.

Sources: https://kubernetes.io/docs/reference/networking/virtual-ips/, https://kubernetes.io/docs/concepts/services-networking/service/,
https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/, https://kubernetes.io/docs/reference/networking/service-protocols/,
https://kubernetes.io/docs/tutorials/services/source-ip/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from podwire.objects.core import Node, Service, ServicePort
from podwire.objects.discovery import Endpoint, EndpointSlice

KEPT, NODE = "kept", "node"
DELIVERED, REFUSED, DROPPED, NOT_OURS = "delivered", "refused", "dropped", "not ours"


@dataclass(frozen=True)
class Cluster:
    """What is known of the cluster. ``local`` are the addresses of each node by its name, beside 127.0.0.0/8 and ::1: its own, its
    bridge's, and where the cloud makes load-balancer addresses local, those.
    """

    services: tuple[Service, ...]
    slices: tuple[EndpointSlice, ...]
    nodes: tuple[Node, ...]
    pod_ranges: tuple[str, ...]
    service_ranges: tuple[str, ...]
    local: dict[str, frozenset[str]]


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection, at one node. ``own``: it starts on the node itself, else it enters from a Pod or from outside."""

    node: str
    source: str
    destination: str
    port: int
    protocol: str = "TCP"
    own: bool = False


@dataclass(frozen=True, order=True)
class Outcome:
    """What is observed. ``source`` is KEPT or NODE (one of the node's addresses): what an endpoint sees as its client."""

    kind: str
    address: str = ""
    port: int = 0
    source: str = ""


@dataclass(frozen=True)
class _Place:
    """The port of a Service that a destination belongs to. ``kind`` is cluster, external, vip or node port."""

    service: Service
    port: ServicePort
    kind: str


def may_happen(cluster: Cluster, packet: Packet, kept_to: tuple[str, int] | None = None) -> frozenset[Outcome]:
    """Say everything that may happen; exactly one of it will.

    ``kept_to`` is the endpoint (address, port) that the client was led to, no longer ago than the Service's affinity timeout.
    """
    place = _whose(cluster, packet)
    if place is None:
        return frozenset({_otherwise(cluster, packet)})
    if place.kind == "vip" and not _may_come(cluster, packet, place.service):
        return frozenset({Outcome(DROPPED)})
    endpoints = _choice(cluster, packet, place)
    if isinstance(endpoints, Outcome):
        return frozenset({endpoints})
    if place.service.spec.session_affinity == "ClientIP" and kept_to in [(e.address, e.port) for e in endpoints]:
        endpoints = [e for e in endpoints if (e.address, e.port) == kept_to]
    return frozenset(Outcome(DELIVERED, e.address, e.port, shown) for e in endpoints for shown in _sources(cluster, packet, place, e))


# Whose is the destination? ---------------------------------------------------------------------------------------------------


def _whose(cluster: Cluster, packet: Packet) -> _Place | None:
    family = _family(packet.destination)
    claims: list[tuple[bool, str, str, _Place]] = []
    for service in cluster.services:
        if not _is_proxied(service) or not _of_family(service.spec.cluster_ips or (service.spec.cluster_ip,), family):
            continue
        for port in service.spec.ports:
            kind = _claims(service, port, packet)
            if kind:
                created = service.metadata.creation_timestamp or ""
                claims.append((kind != "cluster", created, service.key, _Place(service, port, kind)))
    if claims:
        return min(claims, key=lambda claim: claim[:3])[3]
    return _node_port(cluster, packet)


def _is_proxied(service: Service) -> bool:
    """ExternalName and headless Services are DNS alone; a Service with the label belongs to another proxy."""
    spec = service.spec
    ours = "service.kubernetes.io/service-proxy-name" not in service.metadata.labels
    return ours and spec.type != "ExternalName" and spec.cluster_ip not in ("", "None")


def _claims(service: Service, port: ServicePort, packet: Packet) -> str:
    spec = service.spec
    if (port.port, port.protocol) != (packet.port, packet.protocol):
        return ""
    if packet.destination in (spec.cluster_ips or (spec.cluster_ip,)):
        return "cluster"
    if packet.destination in _vips(service):
        return "vip"
    return "external" if packet.destination in spec.external_ips else ""


def _vips(service: Service) -> list[str]:
    """Load-balancer addresses with which packets reach a node. Those of a proxy (``ipMode: Proxy``) never do."""
    if service.spec.type != "LoadBalancer":
        return []
    return [ingress.ip for ingress in service.status.load_balancer.ingress if ingress.ip and ingress.ip_mode in ("", "VIP")]


def _node_port(cluster: Cluster, packet: Packet) -> _Place | None:
    """NodePorts answer on all addresses of the node but the loopback's."""
    if packet.destination not in cluster.local.get(packet.node, frozenset()):
        return None
    family = _family(packet.destination)
    claims = [
        (service.metadata.creation_timestamp or "", service.key, _Place(service, port, "node port"))
        for service in cluster.services
        if _is_proxied(service)
        and service.spec.type in ("NodePort", "LoadBalancer")
        and _of_family(service.spec.cluster_ips or (service.spec.cluster_ip,), family)
        for port in service.spec.ports
        if port.node_port and (port.node_port, port.protocol) == (packet.port, packet.protocol)
    ]
    return min(claims, key=lambda claim: claim[:2])[2] if claims else None


def _otherwise(cluster: Cluster, packet: Packet) -> Outcome:
    """An allocated cluster address refuses what it has no port for; one that nobody has drops everything."""
    if _is_cluster_address(cluster, packet.destination):
        return Outcome(REFUSED)
    return Outcome(DROPPED if _within(packet.destination, cluster.service_ranges) else NOT_OURS)


def _is_cluster_address(cluster: Cluster, address: str) -> bool:
    """Say whether it is some Service's, whatever port of it a packet is for."""
    proxied = (service.spec for service in cluster.services if _is_proxied(service))
    return any(address in (spec.cluster_ips or (spec.cluster_ip,)) for spec in proxied)


def _may_come(cluster: Cluster, packet: Packet, service: Service) -> bool:
    ranges = [text.strip() for text in service.spec.load_balancer_source_ranges]
    if not ranges or _within(packet.source, ranges):
        return True
    addresses = next((node.internal_ips for node in cluster.nodes if node.name == packet.node), ())
    its_own = _of_family(addresses, _family(packet.destination))
    return packet.source == packet.destination and any(_within(address, ranges) for address in its_own)


# Who may serve it? -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Candidate:
    """One endpoint of the Service port, an address and a port."""

    endpoint: Endpoint
    address: str
    port: int


def _choice(cluster: Cluster, packet: Packet, place: _Place) -> list[_Candidate] | Outcome:
    candidates = _candidates(cluster, place, _family(packet.destination))
    everywhere = _usable(candidates)
    if not everywhere:
        return Outcome(REFUSED)
    if not _policy_is_local(cluster, packet, place):
        return _nearby(cluster, packet, everywhere)
    return _usable([c for c in candidates if c.endpoint.node_name == packet.node]) or Outcome(DROPPED)


def _policy_is_local(cluster: Cluster, packet: Packet, place: _Place) -> bool:
    """The external policy is for clients outside: Pods and nodes of the cluster reach all endpoints, whichever address they use."""
    spec = place.service.spec
    if place.kind == "cluster":
        return spec.internal_traffic_policy == "Local"
    inside = packet.own or _within(packet.source, cluster.pod_ranges)
    return spec.external_traffic_policy == "Local" and not inside


def _candidates(cluster: Cluster, place: _Place, family: int) -> list[_Candidate]:
    """All endpoints of the port, from all slices of the Service.

    One that is in two slices, as while it moves from one to the other, counts with its better condition.
    """
    found: dict[tuple[str, int], _Candidate] = {}
    for piece in sorted(cluster.slices, key=lambda each: each.metadata.name):
        if piece.service_key != place.service.key or piece.address_type != f"IPv{family}":
            continue
        for target in piece.ports:
            if target.port is None or (target.name, target.protocol) != (place.port.name, place.port.protocol):
                continue
            for endpoint in piece.endpoints:
                if not endpoint.addresses:
                    continue
                one = _Candidate(endpoint, endpoint.addresses[0], target.port)
                other = found.get((one.address, one.port))
                if other is None or _condition(one) > _condition(other):
                    found[one.address, one.port] = one
    return list(found.values())


def _condition(candidate: _Candidate) -> tuple[bool, bool, bool]:
    endpoint = candidate.endpoint
    return endpoint.ready, endpoint.serving, not endpoint.terminating


def _usable(candidates: list[_Candidate]) -> list[_Candidate]:
    """Those that are ready; where there is none, those that terminate and still serve."""
    ready = [c for c in candidates if c.endpoint.ready]
    return ready or [c for c in candidates if c.endpoint.serving and c.endpoint.terminating]


def _nearby(cluster: Cluster, packet: Packet, candidates: list[_Candidate]) -> list[_Candidate]:
    """Follow the hints for this node, or else those for its zone.

    Only if every endpoint has a hint of that kind and one names us, and never among endpoints that terminate.
    """
    if not all(c.endpoint.ready for c in candidates):
        return candidates
    zone = next((n.metadata.labels.get("topology.kubernetes.io/zone", "") for n in cluster.nodes if n.name == packet.node), "")
    for hints, here in ((_node_hints, packet.node), (_zone_hints, zone)):
        near = [c for c in candidates if here and here in hints(c)]
        if near and all(hints(c) for c in candidates):
            return near
    return candidates


def _node_hints(candidate: _Candidate) -> list[str]:
    hints = candidate.endpoint.hints
    return [node.name for node in hints.for_nodes] if hints else []


def _zone_hints(candidate: _Candidate) -> list[str]:
    hints = candidate.endpoint.hints
    return [zone.name for zone in hints.for_zones] if hints else []


# Whom does the endpoint see? ---------------------------------------------------------------------------------------------------


def _sources(cluster: Cluster, packet: Packet, place: _Place, chosen: _Candidate) -> tuple[str, ...]:
    """Give what it may see. It is two things only where it is not known on which node an endpoint is."""
    if packet.own:
        return (NODE,)  # masqueraded or not: it shows itself by an address that leads back to it
    if chosen.address in cluster.local.get(packet.node, frozenset()):
        return (KEPT,)  # it stays here: the endpoint is the node itself
    if chosen.address == packet.source:
        return (NODE,)  # an endpoint that reached itself would else answer itself
    if _is_cluster_address(cluster, packet.destination) and _may_be_a_pod(cluster, packet):
        return (KEPT,)
    if _policy_is_local(cluster, packet, place):
        return (KEPT,)
    is_pod = place.kind != "cluster" and _within(packet.source, cluster.pod_ranges)
    if not is_pod or place.service.spec.external_traffic_policy != "Local":
        return (NODE,)
    if place.kind != "node port":
        return (KEPT,)  # a Pod of this node, by which the answer comes
    nodes = _nodes_of(cluster, chosen) if _within(chosen.address, cluster.pod_ranges) else set()
    if nodes <= {packet.node}:
        return (KEPT,) if nodes else (NODE,)
    return (KEPT, NODE) if nodes & {packet.node, ""} else (NODE,)


def _nodes_of(cluster: Cluster, chosen: _Candidate) -> set[str]:
    """Give the nodes on which an endpoint is said to be, by whatever slice; "" where one does not say."""
    everywhere = (endpoint for piece in cluster.slices for endpoint in piece.endpoints)
    return {endpoint.node_name for endpoint in everywhere if chosen.address in endpoint.addresses}


def _may_be_a_pod(cluster: Cluster, packet: Packet) -> bool:
    """Where no Pod range of the family is known, everybody may be one."""
    known = any(ipaddress.ip_network(text).version == _family(packet.source) for text in cluster.pod_ranges)
    return not known or _within(packet.source, cluster.pod_ranges)


def _family(address: str) -> int:
    return ipaddress.ip_address(address).version


def _of_family(addresses: Iterable[str], family: int) -> list[str]:
    return [address for address in addresses if address not in ("", "None") and _family(address) == family]


def _within(address: str, ranges: Iterable[str]) -> bool:
    """Say whether an address is in one of the ranges. A range of the other family has no part in it."""
    one = ipaddress.ip_address(address)
    return any(
        one in network for network in (ipaddress.ip_network(text, strict=False) for text in ranges) if network.version == one.version
    )
