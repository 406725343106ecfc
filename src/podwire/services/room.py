"""How much room the sized maps of a table need.

What belongs here: counting, before anything is written, what Services will at most put there. What must not: rows, numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

from podwire.services.desired import ServiceProgram
from podwire.services.layout import SMALL, Capacity
from podwire.views.backends import Backends


def room(services: Iterable[ServiceProgram]) -> Capacity:
    """Give room for twice what Services have, and never less than a small cluster needs."""
    node_ports = handles = 0
    some = list(services)
    plain = [service for service in some if service.plain]
    ports = [port for service in plain for port in service.ports]
    columns = [port.cluster for port in ports if isinstance(port.cluster, Backends)]  # as all plain ones have
    frontends = sum([len(service.cluster_ips) * len(service.ports) for service in plain])
    sizes, backends = len(ports), sum([one.addresses.count(" ") for one in columns]) + len(columns)
    for service in some if len(plain) < len(some) else ():
        if service.plain:
            continue
        addresses, keeps = len(service.cluster_ips) + len(service.external_ips), service.affinity_s > 0
        for port in service.ports:
            cluster = port.cluster
            endpoints = cluster.addresses.count(" ") + 1 if type(cluster) is Backends else len(cluster)
            frontends += addresses
            sizes += 1
            if port.node_port:
                node_ports += 1
            for view in (port.internal, port.external):
                if view is not None:
                    endpoints += len(view)
                    sizes += 1
            backends += endpoints
            if keeps:
                handles += endpoints
    backends += handles
    least = SMALL
    return Capacity(
        max(2 * frontends, least.frontends),
        max(2 * node_ports, least.node_ports),
        max(2 * (sizes + 1), least.sizes),
        max(2 * backends, least.backends),
        max(2 * handles, least.handles),
        least.affinity,
    )
