"""Services joined with their EndpointSlices: what every Service port answers on, and who answers.

What belongs here: the join of one Service with the slices that name it, in the words of the Kubernetes API. What must not:
choosing endpoints (that is each reader's, by node, zone and policy), numbers and tables of a kernel, any I/O.

How it works: ``join`` makes one frozen value from one Service and its slices. A change of one slice touches one Service
(``EndpointSlice.service_key``), so a reader joins again for that key alone; nothing here grows with the cluster. Endpoints are
merged over slices and told apart by address and port; where two slices name the same one, the better of the two conditions counts
(an endpoint moves between slices through a moment in which both hold it). Named target ports are already resolved in slices,
per endpoint group. Headless and ExternalName Services have no frontends: they are DNS alone. A Service that
carries the label ``service.kubernetes.io/service-proxy-name`` belongs to another proxy.

Sources: https://kubernetes.io/docs/reference/networking/virtual-ips/,
https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/,
https://kubernetes.io/docs/reference/labels-annotations-taints/#servicekubernetesioservice-proxy-name
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from podwire.objects.core import Service, ServicePort
from podwire.objects.discovery import Endpoint, EndpointSlice
from podwire.views.backends import Backend, Endpoints, in_columns_of, merged

SERVICE_PROXY_NAME = "service.kubernetes.io/service-proxy-name"
HEADLESS = "None"


class Frontend(msgspec.Struct, frozen=True, gc=False):
    """One port of a Service and everything that answers there."""

    name: str
    protocol: str
    port: int
    node_port: int
    backends: Endpoints


class ServiceFrontends(msgspec.Struct, frozen=True, gc=False):
    """One Service with all its ports. ``affinity_s`` is 0 without session affinity.

    ``created`` is when, as the API writes it: the elder of two Services that claim one address has it. Addresses are of both families; a
    reader of one family takes those that it can use. ``load_balancer_ips`` are those whose mode is VIP: packets for them reach a node
    with that destination. With mode Proxy they do not, and a node has no part in it.
    """

    key: str
    cluster_ips: tuple[str, ...]
    external_ips: tuple[str, ...]
    load_balancer_ips: tuple[str, ...]
    ports: tuple[Frontend, ...]
    affinity_s: int = 0
    external_local: bool = False
    internal_local: bool = False
    source_ranges: tuple[str, ...] = ()
    health_check_node_port: int = 0
    traffic_distribution: str = ""
    created: str = ""


def proxied(service: Service) -> bool:
    """Say whether a service proxy has anything to do for this Service."""
    spec = service.spec
    return (
        spec.type != "ExternalName"
        and spec.cluster_ip not in ("", HEADLESS)
        and bool(spec.ports)
        and SERVICE_PROXY_NAME not in service.metadata.labels
    )


def cluster_ips(service: Service) -> tuple[str, ...]:
    """Give the Service's cluster addresses, the primary family's first; none if it is headless or not yet allocated."""
    addresses = service.spec.cluster_ips or (service.spec.cluster_ip,)
    if "" in addresses or HEADLESS in addresses:
        return tuple([address for address in addresses if address not in ("", HEADLESS)])
    return addresses


def join(service: Service | None, slices: Iterable[EndpointSlice]) -> ServiceFrontends | None:
    """Join one Service with its slices. ``None`` if there is nothing to proxy.

    Source: the rules of https://kubernetes.io/docs/reference/networking/virtual-ips/
    """
    if service is None or not proxied(service):
        return None
    spec = service.spec
    ordered = [piece for piece in slices if piece.address_type != "FQDN"]
    if len(ordered) > 1:
        ordered.sort(key=_slice_name)
    exposed = spec.type in ("NodePort", "LoadBalancer")
    return ServiceFrontends(
        service.key,
        cluster_ips(service),
        spec.external_ips,
        _load_balancer_ips(service),
        tuple([_frontend(one, ordered, exposed=exposed) for one in spec.ports]),
        spec.session_affinity_config.client_ip.timeout_seconds if spec.session_affinity == "ClientIP" else 0,
        spec.external_traffic_policy == "Local" and (exposed or bool(spec.external_ips)),
        spec.internal_traffic_policy == "Local",
        spec.load_balancer_source_ranges,
        spec.health_check_node_port,
        spec.traffic_distribution,
        service.metadata.creation_timestamp or "",
    )


def _slice_name(value: EndpointSlice) -> str:
    return value.metadata.name


def _load_balancer_ips(service: Service) -> tuple[str, ...]:
    if service.spec.type != "LoadBalancer":
        return ()
    return tuple(i.ip for i in service.status.load_balancer.ingress if i.ip and i.ip_mode in ("", "VIP"))


def _frontend(port: ServicePort, slices: list[EndpointSlice], *, exposed: bool) -> Frontend:
    name, protocol = port.name, port.protocol
    backends: Endpoints | None = in_columns_of(slices[0], name, protocol) if len(slices) == 1 else None
    if backends is None:
        backends = _merged(slices, name, protocol)
    return Frontend(name, protocol, port.port, port.node_port if exposed else 0, backends)


def _merged(slices: list[EndpointSlice], name: str, protocol: str) -> Endpoints:
    """Merge the endpoints of several slices, or of one whose endpoints are not all alike."""
    serving = [(piece, [one.port for one in piece.ports if one.name == name and one.protocol == protocol]) for piece in slices]
    parts = [in_columns_of(piece, name, protocol) for piece, numbers in serving if numbers and piece.endpoints]
    alike = [part for part in parts if part is not None]
    if alike and len(alike) == len(parts) and (together := merged(alike)) is not None:
        return together
    best: dict[tuple[str, int], Backend] = {}  # each endpoint once, in the better of its conditions
    for piece, numbers in serving:
        for number in numbers:
            for endpoint in piece.endpoints if number is not None else ():
                if number is None or not endpoint.addresses:
                    continue
                backend = _backend(endpoint, number)
                place = backend.address, number
                other = best.setdefault(place, backend)
                if other is not backend and _rank(backend) > _rank(other):
                    best[place] = backend
    return tuple(best.values())


def _backend(endpoint: Endpoint, port: int) -> Backend:
    conditions, target, hints = endpoint.conditions, endpoint.target_ref, endpoint.hints
    ready = conditions.ready is not False
    return Backend(
        endpoint.addresses[0],  # the API asks consumers to use the first: the others are the same endpoint
        port,
        endpoint.node_name,
        f"{target.namespace}/{target.name}" if target is not None and target.kind == "Pod" else "",
        ready,
        ready if conditions.serving is None else conditions.serving,
        conditions.terminating is True,
        () if hints is None else tuple([zone.name for zone in hints.for_zones]),
        () if hints is None else tuple([node.name for node in hints.for_nodes]),
    )


def _rank(backend: Backend) -> tuple[bool, bool, bool]:
    return backend.ready, backend.serving, not backend.terminating
