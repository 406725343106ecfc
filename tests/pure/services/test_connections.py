"""Which UDP flows are stale."""

from __future__ import annotations

from ipaddress import ip_address

from podwire.services.connections import ASK_AT_ONCE, Way, questions, stale, ways
from podwire.views.backends import Backend
from podwire.views.frontends import Frontend, ServiceFrontends
from podwire.wire.conntrack import TCP, UDP, Filter, Flow, Status, Tuple

IP, VIP, NODE = "10.8.0.10", "203.0.113.7", "10.128.0.2"


def packed(address: str) -> bytes:
    return ip_address(address).packed


def service(*backends: Backend, protocol: str = "UDP") -> ServiceFrontends:
    return ServiceFrontends("kube-system/dns", (IP, "fd00::a"), (), (VIP,), (Frontend("dns", protocol, 53, 30053, backends),))


def flow(to: str, port: int, answers: str, answers_port: int, *, protocol: int = UDP, mark: int = 1) -> Flow:
    client = packed("10.4.0.9")
    status = Status.DST_NAT if mark else 0
    return Flow(
        Tuple(client, packed(to), protocol, 4000, port), Tuple(packed(answers), client, protocol, answers_port, 4000), mark, status, 30, 1
    )


SERVING = ways(
    service(Backend("10.4.0.2", 5353), Backend("10.4.0.3", 53, ready=False, terminating=True), Backend("10.4.0.4", 53, serving=False)), 4
)
LOCAL = frozenset([packed(NODE)])


def test_ways_are_those_of_udp_ports_with_serving_endpoints() -> None:
    endpoints = frozenset({(packed("10.4.0.2"), 5353), (packed("10.4.0.3"), 53)})
    assert dict.fromkeys((Way(packed(IP), 53), Way(packed(VIP), 53), Way(b"", 30053)), endpoints) == SERVING
    assert ways(service(Backend("10.4.0.4", 53, serving=False)), 4) == {}
    assert ways(service(Backend("10.4.0.4", 53)), 6) == {}
    assert list(ways(service(Backend("fd01::4", 53)), 6)) == [Way(packed("fd00::a"), 53), Way(b"", 30053)]
    assert ways(service(Backend("10.4.0.4", 53), protocol="TCP"), 4) == {}
    assert ways(None, 4) == {}


def test_a_flow_is_stale_when_nothing_that_serves_answers_it() -> None:
    kept = [
        flow(IP, 53, "10.4.0.2", 5353),
        flow(IP, 53, "10.4.0.3", 53),  # it terminates but serves
        flow(IP, 54, IP, 54, mark=0),  # another port
        flow(IP, 53, "10.4.0.99", 53, protocol=TCP),
        flow("10.128.0.3", 30053, "10.128.0.3", 30053, mark=0),  # another node's node port, passing through
    ]
    gone = [
        flow(IP, 53, "10.4.0.99", 53),
        flow(IP, 53, "10.4.0.2", 53),  # that endpoint serves on another port
        flow(IP, 53, IP, 53, mark=0),  # began before there was an endpoint
        flow(VIP, 53, "10.4.0.4", 53),
        flow(NODE, 30053, NODE, 30053, mark=0),
        flow("10.128.0.9", 30053, "10.4.0.99", 53),  # ours by its mark
    ]
    assert list(stale(kept + gone, SERVING, LOCAL)) == gone


def test_few_ways_are_asked_for_one_by_one() -> None:
    assert questions([Way(packed(IP), 53), Way(b"", 30053)]) == [
        Filter(protocol=UDP, destination=packed(IP), destination_port=53),
        Filter(protocol=UDP, destination_port=30053),
    ]
    assert questions([Way(packed(IP), port) for port in range(ASK_AT_ONCE + 1)]) == [Filter(protocol=UDP)]
