"""What the agent must know of a Service beside its tables.

What belongs here: addresses that become routes, the ways of UDP clients, the health check's port and answer, whether a Local policy leaves
clients without an endpoint, what is of a family that the Service has not; for one Service on one node, as one value that compares. What
must not: what is done about it.

Source: https://kubernetes.io/docs/reference/networking/virtual-ips/; the health check of a load balancer counts ready endpoints by
address: https://kubernetes.io/docs/tasks/access-application-cluster/create-external-load-balancer/#preserving-the-client-source-ip
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from podwire.services.connections import Ways, ways
from podwire.services.desired import ServiceProgram
from podwire.views.frontends import ServiceFrontends


class HealthCheck(msgspec.Struct, frozen=True, gc=False):
    """A load balancer asks on ``port`` of every node; ``local_endpoints`` ready ones are on this."""

    port: int
    local_endpoints: int


class Facts(msgspec.Struct, frozen=True, gc=False):
    """``ways`` are by family, in the order of the families. ``no_local`` counts ports by policy: internal, external.

    ``mismatched`` are fields of the Service and what of them is of no family in which this node does anything for it.
    """

    vips: tuple[str, ...] = ()
    ways: tuple[Ways, ...] = ()
    check: HealthCheck | None = None
    no_local: tuple[int, int] = (0, 0)
    mismatched: tuple[tuple[str, str], ...] = ()


NONE = Facts()


def facts(view: ServiceFrontends | None, programs: Sequence[ServiceProgram | None], node: str, families: Sequence[int]) -> Facts:
    """Give the facts of one Service; NONE for one that has nothing beside its tables, as most."""
    if view is None:
        return NONE
    udp = any(port.protocol == "UDP" for port in view.ports)
    vips = tuple([vip for program in programs if program is not None for vip in program.vips])
    local = view.external_local or view.internal_local
    mismatched = _mismatched(view, programs, families) if view.external_ips or view.source_ranges else ()
    if not (udp or vips or local or mismatched):
        return NONE
    found = tuple(ways(view, family) for family in families) if udp else ()
    return Facts(vips, found if any(found) else (), _check(view, node), _no_local(programs) if local else (0, 0), mismatched)


def _mismatched(view: ServiceFrontends, programs: Sequence[ServiceProgram | None], families: Sequence[int]) -> tuple[tuple[str, str], ...]:
    served = {family for family, program in zip(families, programs, strict=True) if program is not None}
    if not served:
        return ()
    rows = (("externalIPs", view.external_ips), ("loadBalancerSourceRanges", view.source_ranges))
    found = ((field, [text.strip() for text in texts if (6 if ":" in text else 4) not in served]) for field, texts in rows)
    return tuple((field, ",".join(texts)) for field, texts in found if texts)


def _check(view: ServiceFrontends, node: str) -> HealthCheck | None:
    if not (view.external_local and view.health_check_node_port):
        return None
    here = {backend.address for port in view.ports for backend in port.backends if backend.ready and backend.node == node}
    return HealthCheck(view.health_check_node_port, len(here))


def _no_local(programs: Sequence[ServiceProgram | None]) -> tuple[int, int]:
    ports = [port for program in programs if program is not None for port in program.ports if port.cluster]
    return sum(port.internal == () for port in ports), sum(port.external == () for port in ports)
