"""The EndpointSlices that say what an Endpoints object says.

Pure. Endpoints of a Service with a selector come from a controller, which writes slices too; those of a Service without one are written
by people, and only slices are read by service proxies. So they are mirrored, unless they say that they are not to be.

Source: https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#endpointslice-mirroring
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from podwire.objects.core import EndpointAddress, Endpoints, Service
from podwire.objects.discovery import SERVICE_NAME, Endpoint, EndpointConditions, EndpointPort, EndpointSlice
from podwire.objects.resources import ENDPOINTS
from podwire.workloads.endpoints.desired import Group
from podwire.workloads.endpoints.slices import MANAGED_BY, Plan, Source, deal_out
from podwire.workloads.kinds import owned_by

MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP = "endpointslice.kubernetes.io/skip-mirror"
LEADER = "control-plane.alpha.kubernetes.io/leader"
PER_SUBSET = 1000  # addresses that are mirrored


def is_mirrored(endpoints: Endpoints | None, service: Service | None) -> bool:
    if endpoints is None or service is None or service.spec.selector or service.spec.type == "ExternalName":
        return False
    return endpoints.metadata.labels.get(SKIP) != "true" and LEADER not in endpoints.metadata.annotations


def decide(endpoints: Endpoints, have: Iterable[EndpointSlice]) -> Plan:
    """``have``: the slices that this controller made of the object."""
    by_group: dict[Group, list[Endpoint]] = {}
    for subset in endpoints.subsets:
        ports = tuple(
            EndpointPort(name=port.name, port=port.port, protocol=port.protocol, app_protocol=port.app_protocol) for port in subset.ports
        )
        all_of_them = [*((one, True) for one in subset.addresses), *((one, False) for one in subset.not_ready_addresses)]
        for address, ready in all_of_them[:PER_SUBSET]:
            family = "IPv6" if ipaddress.ip_address(address.ip).version == 6 else "IPv4"
            by_group.setdefault((family, ports), []).append(_endpoint(address, ready=ready))
    labels = {**endpoints.metadata.labels, SERVICE_NAME: endpoints.name, MANAGED_BY: MANAGER}
    source = Source(endpoints.name, endpoints.namespace, labels, owned_by(ENDPOINTS, endpoints.metadata))
    return deal_out(source, by_group, have, "")


def _endpoint(address: EndpointAddress, *, ready: bool) -> Endpoint:
    return Endpoint(
        addresses=(address.ip,),
        conditions=EndpointConditions(ready=ready),
        hostname=address.hostname,
        node_name=address.node_name,
        target_ref=address.target_ref,
    )
