"""How much room the sized maps of a table need.

What belongs here: counting, before anything is written, what Services will at most put there. What must not: rows, numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

from podwire.services.desired import PortProgram, ServiceProgram
from podwire.services.layout import SMALL, Capacity


def room(services: Iterable[ServiceProgram]) -> Capacity:
    """Give room for twice what Services have, and never less than a small cluster needs."""
    frontends = node_ports = sizes = backends = handles = 0
    for service in services:
        addresses = len(service.cluster_ips) + len(service.external_ips)
        for port in service.ports:
            views = _views(port)
            endpoints = sum(map(len, views))
            frontends += addresses
            node_ports += bool(port.node_port)
            sizes += len(views)
            backends += 2 * endpoints if service.affinity_s else endpoints
            handles += endpoints if service.affinity_s else 0
    least = SMALL
    return Capacity(
        max(2 * frontends, least.frontends),
        max(2 * node_ports, least.node_ports),
        max(2 * (sizes + 1), least.sizes),
        max(2 * backends, least.backends),
        max(2 * handles, least.handles),
        least.affinity,
    )


def _views(port: PortProgram) -> list[tuple[object, ...]]:
    return [view for view in (port.cluster, port.internal, port.external) if view is not None]
