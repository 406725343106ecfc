"""Which flows must be forgotten, so that no client keeps talking to an endpoint that is gone.

What belongs here: the ways to UDP Service ports with the endpoints that serve behind them, and the choice among flows read from the
kernel. What must not: reading or deleting them (flows.py), the choice for new connections (desired.py).

How it works: connection tracking translates a UDP flow to the endpoint chosen at its first packet for as long as packets keep coming, also
when nothing answers any more. So when what serves behind a UDP port changes, the flows to that port whose answers come from anything
but a serving endpoint are stale. That covers flows to an endpoint that went, and flows that began before the port had
endpoints and were never translated: their answers would come from the Service's own address. Traffic policy and topology do not matter: an
endpoint that serves elsewhere still answers. A port without any serving endpoint is passed over: there is nothing better to go to,
and what is gone for a moment only must not end flows. TCP needs nothing: its connections end with their endpoint.

A node port counts on addresses of this node alone, and for flows that carry the mark of a Service; one that passes through to the same
port of somebody else is not ours.

Source: https://kubernetes.io/docs/reference/networking/virtual-ips/; RFC 768 has no connections to end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from podwire.services.elements import address_bytes
from podwire.views.frontends import ServiceFrontends
from podwire.wire.conntrack import UDP, Filter, Flow

ASK_AT_ONCE: Final = 16  # with more ways than this, all flows are read once instead of one question for each


class Way(NamedTuple):
    """How clients reach a UDP port: an address and port, or a node port (the address is then empty)."""

    address: bytes
    port: int


Ways = dict[Way, frozenset[tuple[bytes, int]]]  # with the address and port of every serving endpoint


def ways(service: ServiceFrontends | None, family: int) -> Ways:
    """Give the ways to a Service's UDP ports in one family (4 or 6), those with serving endpoints alone."""
    found: Ways = {}
    for port in service.ports if service is not None else ():
        if port.protocol != "UDP":
            continue
        assert service is not None
        endpoints = frozenset((address_bytes(b.address), b.port) for b in port.backends if b.serving and _is(b.address, family))
        if not endpoints:
            continue
        for address in (*service.cluster_ips, *service.external_ips, *service.load_balancer_ips):
            if _is(address, family):
                found[Way(address_bytes(address), port.port)] = endpoints
        if port.node_port:
            found[Way(b"", port.node_port)] = endpoints
    return found


def _is(address: str, family: int) -> bool:
    return (":" in address) == (family == 6)


def questions(wanted: Iterable[Way]) -> list[Filter]:
    """Give the dumps that show all flows of these ways."""
    asked = [Filter(protocol=UDP, destination=way.address, destination_port=way.port) for way in wanted]
    return asked if len(asked) <= ASK_AT_ONCE else [Filter(protocol=UDP)]


def stale(flows: Iterable[Flow], wanted: Mapping[Way, frozenset[tuple[bytes, int]]], local: frozenset[bytes]) -> Iterator[Flow]:
    """Choose the flows that must be forgotten. ``local`` are the packed addresses of this node."""
    for flow in flows:
        to, answers = flow.original, flow.reply
        if to.protocol != UDP:
            continue
        endpoints = wanted.get(Way(to.destination, to.destination_port))
        if endpoints is None and (to.destination in local or (flow.translated and flow.mark)):
            endpoints = wanted.get(Way(b"", to.destination_port))
        if endpoints is not None and (answers.source, answers.source_port) not in endpoints:
            yield flow
