"""What one node should do for one Service: which addresses it translates, and to which endpoints.

What belongs here: the choice of endpoints by condition, node, zone and traffic policy, for one node and one address family. What must
not: numbers, tables and names of a kernel (ruleset.py), any I/O, clock or chance.

How it works: a Service port has up to three *views*, each with endpoints of its own. ``cluster``: all usable endpoints.
``internal`` and ``external``: those on this node, for the cluster addresses under internalTrafficPolicy Local, and for node port,
external and load-balancer addresses under externalTrafficPolicy Local. In each view ready endpoints are used, and where there is none,
those that terminate but still serve. Topology hints narrow the cluster view, if every ready endpoint has one and one fits.

Source: https://kubernetes.io/docs/reference/networking/virtual-ips/ (traffic policies, terminating endpoints, topology),
https://kubernetes.io/docs/concepts/services-networking/topology-aware-routing/#safeguards
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

import msgspec

from podwire.objects.core import Service
from podwire.objects.discovery import EndpointSlice
from podwire.views.backends import Backend, Backends, Endpoints, in_columns, in_columns_of
from podwire.views.frontends import Frontend, ServiceFrontends, proxied
from podwire.views.topology import Place

PROTOCOLS = frozenset({"TCP", "UDP", "SCTP"})


class PortProgram(msgspec.Struct, frozen=True, gc=False):
    """One port. A view that no traffic policy asks for is None; one without endpoints is empty.

    Who is chosen is chosen: of its conditions and hints nothing is kept where the endpoints are in columns, as they mostly are.
    """

    name: str
    protocol: str
    port: int
    node_port: int
    cluster: Endpoints
    internal: Endpoints | None
    external: Endpoints | None


class ServiceProgram(msgspec.Struct, frozen=True, gc=False):
    """One Service on one node in one address family.

    ``external_ips`` are all addresses beside the cluster's: external IPs and load-balancer VIPs. ``source_ranges``, which guard
    ``vips`` alone, are None where everybody may come. ``node_may_come``: the node itself is within them; to an address that is local it
    speaks with that address as its own. Of two Services that claim an address the one with the earlier ``created`` has it.
    ``plain`` is one as most are: with cluster addresses alone, no traffic policy and no affinity, and endpoints, which are in columns.
    """

    key: str
    cluster_ips: tuple[str, ...]
    external_ips: tuple[str, ...]
    vips: tuple[str, ...]
    ports: tuple[PortProgram, ...]
    affinity_s: int = 0
    source_ranges: tuple[str, ...] | None = None
    node_may_come: bool = False
    created: str = ""
    plain: bool = False


def program(service: ServiceFrontends, place: Place, family: int = 4) -> ServiceProgram | None:
    """Decide what the node at ``place`` does for a Service. ``None`` if the Service has nothing in this family (4 or 6)."""
    cluster_ips = _of(family, service.cluster_ips)
    if not cluster_ips:
        return None
    vips = _of(family, service.load_balancer_ips)
    external_ips = _of(family, service.external_ips)
    source_ranges = _of(family, service.source_ranges) if service.source_ranges and vips else None
    ports = tuple([_port(port, service, place, family) for port in service.ports])
    return ServiceProgram(
        service.key,
        cluster_ips,
        tuple(dict.fromkeys(external_ips + vips)) if external_ips else vips,
        vips,
        ports,
        service.affinity_s,
        source_ranges,
        source_ranges is not None and _within(source_ranges, _of(family, place.addresses)),
        service.created,
        not (vips or external_ips or service.affinity_s) and _are_plain(ports),
    )


def _are_plain(ports: tuple[PortProgram, ...]) -> bool:
    for port in ports:
        if type(port.cluster) is not Backends or port.internal is not None or port.external is not None:
            return False
        if port.node_port or port.protocol not in PROTOCOLS:
            return False
    return len(ports) == 1 or (bool(ports) and len({(port.protocol, port.port) for port in ports}) == len(ports))


def plain(key: str, service: Service, slices: Sequence[EndpointSlice], family: int) -> ServiceProgram | None:
    """Decide in one step for a Service as the very most are: ClusterIP, one address, one port, one slice. None: it is another.

    What it gives is what ``program`` gives of the whole view.
    """
    spec = service.spec
    if (
        len(slices) != 1
        or len(spec.ports) != 1
        or len(spec.cluster_ips) != 1
        or spec.type != "ClusterIP"
        or spec.external_ips
        or spec.session_affinity == "ClientIP"
        or spec.internal_traffic_policy == "Local"
        or not proxied(service)
    ):
        return None
    port = spec.ports[0]
    backends = in_columns_of(slices[0], port.name, port.protocol)
    if backends is None or backends.family != family or (":" in spec.cluster_ips[0]) != (family == 6) or port.protocol not in PROTOCOLS:
        return None
    ports = (PortProgram(port.name, port.protocol, port.port, 0, backends, None, None),)
    return ServiceProgram(key, spec.cluster_ips, (), (), ports, 0, None, False, service.metadata.creation_timestamp or "", True)


def _within(ranges: tuple[str, ...], addresses: tuple[str, ...]) -> bool:
    networks = [ipaddress.ip_network(text.strip(), strict=False) for text in ranges]
    return any(ipaddress.ip_address(address) in network for address in addresses for network in networks)


def _port(port: Frontend, service: ServiceFrontends, place: Place, family: int) -> PortProgram:
    backends = port.backends
    local = service.internal_local or service.external_local
    if type(backends) is Backends and not local:
        usable: Endpoints = backends if backends.family == family else ()
        return PortProgram(port.name, port.protocol, port.port, port.node_port, usable, None, None)
    six = family == 6
    ours = tuple([b for b in backends if (":" in b.address) == six])
    here = in_columns(_usable(tuple([b for b in ours if b.node == place.node])), family) if local else ()
    return PortProgram(
        port.name,
        port.protocol,
        port.port,
        port.node_port,
        in_columns(_near(_usable(ours), place), family),
        here if service.internal_local else None,
        here if service.external_local else None,
    )


def _of(family: int, addresses: tuple[str, ...]) -> tuple[str, ...]:
    if not addresses:
        return ()
    six = family == 6
    for address in addresses:
        if (":" in address) != six:
            return tuple([a for a in addresses if (":" in a) == six])
    return addresses


def _usable(backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
    ready = [b for b in backends if b.ready]
    if len(ready) == len(backends):
        return backends
    return tuple(ready or [b for b in backends if b.serving and b.terminating])


def _near(backends: tuple[Backend, ...], place: Place) -> tuple[Backend, ...]:
    """Narrow by hints, first those for nodes, then those for zones. One endpoint without a hint, or no hint that fits, and none counts."""
    if not backends or not (backends[0].hint_nodes or backends[0].hint_zones):
        return backends
    if all(b.ready and b.hint_nodes for b in backends):
        here = tuple([b for b in backends if place.node in b.hint_nodes])
        if here:
            return here
    if place.zone and all(b.ready and b.hint_zones for b in backends):
        return tuple([b for b in backends if place.zone in b.hint_zones]) or backends
    return backends
