"""Which Pods stand behind a Service, at which address and port, and in which state.

Pure. A Pod that has an address and has not ended is an endpoint. It is serving when it is ready; it is ready when it is serving
and not told to end (or the Service publishes addresses whatever their state). A target port that is a name may be another
number in each Pod, so endpoints are grouped by the ports that they really have.

Source: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from podwire.objects import codec
from podwire.objects.core import Endpoints, EndpointsPort, ObjectReference, Pod, Service, ServicePort
from podwire.objects.discovery import Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForZone
from podwire.workloads.kinds import Tree
from podwire.workloads.times import NEVER, parse

LEGACY_LIMIT = 1000  # addresses in an Endpoints object
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
HEADLESS = "service.kubernetes.io/headless"
TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"
SAME_ZONE, SAME_NODE = ("PreferClose", "PreferSameZone"), "PreferSameNode"
Group = tuple[str, tuple[EndpointPort, ...]]


@dataclass(frozen=True)
class Member:
    """One endpoint in its group: address family and ports."""

    group: Group
    endpoint: Endpoint


def members(service: Service, pods: Iterable[Pod], zone_of: Callable[[str], str]) -> list[Member]:
    """Give the endpoints of a Service, in the order of the Pods' names; ``zone_of`` gives the zone of a node."""
    found: list[Member] = []
    families = service.spec.ip_families or ("IPv4",)
    for pod in sorted(pods, key=lambda one: one.key):
        if pod.status.phase in ("Succeeded", "Failed"):
            continue
        ports = ports_of(service, pod)
        if ports is None:
            continue
        for family in families:
            address = address_of(pod, family)
            if address:
                found.append(Member((family, ports), _endpoint(service, pod, address, zone_of)))
    return found


def address_of(pod: Pod, family: str) -> str:
    """Give the Pod's address of a family (IPv4, IPv6), "" if it has none."""
    addresses = [one.ip for one in pod.status.pod_ips] or ([pod.status.pod_ip] if pod.status.pod_ip else [])
    return next((ip for ip in addresses if (":" in ip) is (family == "IPv6")), "")


def ports_of(service: Service, pod: Pod) -> tuple[EndpointPort, ...] | None:
    """Give the ports that the Service reaches in this Pod. None if the Service has ports and the Pod has none of them."""
    found = []
    for port in service.spec.ports:
        number = target_port(port, pod)
        if number is not None:
            found.append(EndpointPort(name=port.name, port=number, protocol=port.protocol, app_protocol=port.app_protocol))
    return tuple(found) if found or not service.spec.ports else None


def target_port(port: ServicePort, pod: Pod) -> int | None:
    """Give the number of a target port in a Pod: itself, or the containerPort of that name and protocol."""
    if isinstance(port.target_port, int):
        return port.target_port or port.port
    sidecars = [one for one in pod.spec.init_containers if one.restart_policy == "Always"]
    for container in (*pod.spec.containers, *sidecars):
        for declared in container.ports:
            if declared.name == port.target_port and declared.protocol == port.protocol:
                return declared.container_port
    return None


def _endpoint(service: Service, pod: Pod, address: str, zone_of: Callable[[str], str]) -> Endpoint:
    published = service.spec.publish_not_ready_addresses
    ready = published or (pod.ready and not pod.terminating)
    node = pod.spec.node_name
    zone = zone_of(node) if node else ""
    return Endpoint(
        addresses=(address,),
        conditions=EndpointConditions(ready=ready, serving=pod.ready, terminating=pod.terminating),
        hostname=_hostname(service, pod),
        node_name=node,
        zone=zone,
        target_ref=ObjectReference(kind="Pod", namespace=pod.namespace, name=pod.name, uid=pod.metadata.uid),
        hints=hints(service.spec.traffic_distribution, node, zone) if ready else None,
    )


def hints(distribution: str, node: str, zone: str) -> EndpointHints | None:
    """Say for whom an endpoint is meant: the clients of its own zone, or of its own node first. Without a wish, for nobody in particular.

    Source: https://kubernetes.io/docs/concepts/services-networking/service/#traffic-distribution
    """
    if distribution not in (SAME_NODE, *SAME_ZONE):
        return None
    zones = (ForZone(name=zone),) if zone else ()
    nodes = (ForZone(name=node),) if node and distribution == SAME_NODE else ()
    return EndpointHints(for_zones=zones, for_nodes=nodes) if zones or nodes else None


def _hostname(service: Service, pod: Pod) -> str:
    return pod.spec.hostname if pod.spec.hostname and pod.spec.subdomain == service.name else ""


def trigger(service: Service, pods: Iterable[Pod]) -> str:
    """Give the time of the latest change that the endpoints answer to: a Pod becoming ready or not, or being told to end, or the
    Service itself."""
    times = [service.metadata.creation_timestamp or ""]
    for pod in pods:
        times.append(pod.metadata.deletion_timestamp or "")
        times += [condition.last_transition_time or "" for condition in pod.status.conditions if condition.type == "Ready"]
    return max((time for time in times if time), key=lambda time: parse(time) or NEVER, default="")


# The older form ----------------------------------------------------------------------------------------------------------


def legacy(service: Service, wanted: Iterable[Member]) -> Tree:
    """Make the Endpoints object: all ports of an address together, of the first family only, without Pods that are ending."""
    family = (service.spec.ip_families or ("IPv4",))[0]
    by_ports: dict[tuple[EndpointPort, ...], dict[str, list[Tree]]] = {}
    count = 0
    for member in wanted:
        (kind, ports), endpoint = member.group, member.endpoint
        if kind != family or not ports or (endpoint.terminating and not service.spec.publish_not_ready_addresses):
            continue
        count += 1
        if count > LEGACY_LIMIT:
            continue
        subset = by_ports.setdefault(ports, {})
        subset.setdefault("addresses" if endpoint.ready else "notReadyAddresses", []).append(_legacy_address(endpoint))
    subsets = [
        {state: sorted(addresses, key=lambda one: one["ip"]) for state, addresses in subset.items()}
        | {"ports": [_legacy_port(port) for port in ports]}
        for ports, subset in sorted(by_ports.items(), key=lambda item: repr(item[0]))
    ]
    labels = dict(service.metadata.labels) | {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}
    if service.spec.cluster_ip in ("", "None"):
        labels[HEADLESS] = ""
    meta: Tree = {"name": service.name, "namespace": service.namespace, "labels": labels}
    if count > LEGACY_LIMIT:
        meta["annotations"] = {OVER_CAPACITY: "truncated"}
    return {"metadata": meta, "subsets": subsets}


def _legacy_address(endpoint: Endpoint) -> Tree:
    tree: Tree = {"ip": endpoint.addresses[0]}
    if endpoint.hostname:
        tree["hostname"] = endpoint.hostname
    if endpoint.node_name:
        tree["nodeName"] = endpoint.node_name
    if endpoint.target_ref is not None:
        reference = endpoint.target_ref
        tree["targetRef"] = {"kind": reference.kind, "namespace": reference.namespace, "name": reference.name, "uid": reference.uid}
    return tree


def _legacy_port(port: EndpointPort) -> Tree:
    tree: Tree = {"port": port.port, "protocol": port.protocol}
    return tree | ({"name": port.name} if port.name else {}) | ({"appProtocol": port.app_protocol} if port.app_protocol else {})


def legacy_differs(have: Endpoints, wanted: Tree) -> bool:
    """Say whether the object that the API has says something else than the one that is wanted."""
    subsets = [
        {
            state: [codec.tree(address) for address in addresses]
            for state, addresses in (("addresses", subset.addresses), ("notReadyAddresses", subset.not_ready_addresses))
            if addresses
        }
        | {"ports": [_typed_port(port) for port in subset.ports]}
        for subset in have.subsets
    ]
    return bool(subsets != wanted["subsets"] or dict(have.metadata.labels) != wanted["metadata"]["labels"])


def _typed_port(port: EndpointsPort) -> Tree:
    tree: Tree = {"port": port.port, "protocol": port.protocol}
    return tree | ({"name": port.name} if port.name else {}) | ({"appProtocol": port.app_protocol} if port.app_protocol else {})
