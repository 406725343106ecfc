"""The smaller pure parts of the service proxy."""

from __future__ import annotations

import doctest
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

import podwire.services
from podwire import nft
from podwire.daemon.config import AgentConfig
from podwire.objects.core import Node, NodeAddress, NodeStatus
from podwire.services import desired, masquerade, routes
from podwire.services.beside import node_port_ranges
from podwire.services.layout import IPV4, IPV6, narrowed
from podwire.services.numbers import Numbers
from podwire.views.backends import Backend
from podwire.views.frontends import Frontend, ServiceFrontends
from podwire.views.topology import Place
from podwire.wire.rtnetlink import Route

HERE = Place("node-1", "a")


def view(*backends: Backend, **more: Any) -> ServiceFrontends:
    return ServiceFrontends("shop/s", ("10.8.0.1", "fd00::1"), (), (), (Frontend("", "TCP", 80, 0, backends),), **more)


def cluster(*backends: Backend, place: Place = HERE, family: int = 4, **more: Any) -> list[str]:
    program = desired.program(view(*backends, **more), place, family)
    assert program is not None
    return [backend.address for backend in program.ports[0].cluster]


def test_node_ports_are_within_ranges_or_on_the_nodes_own_addresses() -> None:
    own = (NodeAddress("InternalIP", "10.128.0.2"), NodeAddress("InternalIP", "fd00:10:128::2"), NodeAddress("ExternalIP", "192.0.2.1"))
    node = Node(status=NodeStatus(addresses=own))
    primary = AgentConfig(node_port_addresses=("primary",))
    assert node_port_ranges(primary, node) == ("10.128.0.2/32", "fd00:10:128::2/128")
    assert node_port_ranges(primary, None) == ()
    bound = AgentConfig(node_port_addresses=("primary",), proxy_node_address="10.200.0.7")
    assert node_port_ranges(bound, node) == ("10.200.0.7/32", "fd00:10:128::2/128")
    assert node_port_ranges(bound, None) == ("10.200.0.7/32",)
    assert node_port_ranges(AgentConfig(node_port_addresses=("10.128.0.9/20",)), node) == ("10.128.0.0/20",)


def test_one_range_of_all_addresses_narrows_nothing() -> None:
    assert narrowed(IPV4, ()) is None
    assert narrowed(IPV6, ("10.0.0.0/8", "::/0")) is None
    assert narrowed(IPV4, ("0.0.0.0/1", "128.0.0.0/1")) is None
    assert narrowed(IPV4, ("10.0.0.0/9", "10.128.0.0/9")) == ("10.0.0.0/8",)
    assert narrowed(IPV6, ("10.0.0.0/8",)) == ()


def test_ready_endpoints_then_those_that_terminate_but_serve() -> None:
    ready = Backend("10.4.0.1", 80)
    terminating = Backend("10.4.0.2", 80, ready=False, serving=True, terminating=True)
    dead = Backend("10.4.0.3", 80, ready=False, serving=False, terminating=True)
    starting = Backend("10.4.0.4", 80, ready=False, serving=False)
    assert cluster(ready, terminating, dead, starting) == ["10.4.0.1"]
    assert cluster(terminating, dead, starting) == ["10.4.0.2"]
    assert cluster(dead, starting) == []


def test_each_view_falls_back_for_itself() -> None:
    here = Backend("10.4.0.1", 80, "node-1", ready=False, serving=True, terminating=True)
    there = Backend("10.4.1.1", 80, "node-2")
    program = desired.program(view(here, there, internal_local=True), HERE)
    assert program is not None
    [port] = program.ports
    assert [b.address for b in port.cluster] == ["10.4.1.1"]
    assert [b.address for b in port.internal or ()] == ["10.4.0.1"]
    assert port.external is None


def test_hints_for_nodes_and_zones() -> None:
    a = Backend("10.4.0.1", 80, hint_zones=("a",))
    b = Backend("10.4.0.2", 80, hint_zones=("b",))
    none = Backend("10.4.0.3", 80)
    assert cluster(a, b) == ["10.4.0.1"]
    assert cluster(a, b, place=Place("node-9", "c")) == ["10.4.0.1", "10.4.0.2"]
    assert cluster(a, b, place=Place("node-9")) == ["10.4.0.1", "10.4.0.2"]
    assert cluster(a, b, none) == ["10.4.0.1", "10.4.0.2", "10.4.0.3"]
    near = [Backend(f"10.4.0.{i}", 80, hint_zones=("a",), hint_nodes=(f"node-{i}",)) for i in (1, 2)]
    assert cluster(*near) == ["10.4.0.1"]
    assert cluster(*near, place=Place("node-9", "a")) == ["10.4.0.1", "10.4.0.2"]


def test_families_are_apart() -> None:
    both = (Backend("10.4.0.1", 80), Backend("fd01::1", 80))
    assert cluster(*both) == ["10.4.0.1"]
    assert cluster(*both, family=6) == ["fd01::1"]
    only_four = ServiceFrontends("shop/s", ("10.8.0.1",), (), (), ())
    assert desired.program(only_four, HERE, 6) is None


@given(st.lists(st.sets(st.integers(0, 12)), max_size=8))
def test_endpoints_sit_without_gaps_and_only_the_last_ones_move(rounds: list[set[int]]) -> None:
    numbers, before = Numbers(), cast("Sequence[bytes]", ())
    for members in rounds:
        _, now = numbers.seat("shop/users:http/TCP", "cluster", [bytes((each,)) for each in sorted(members)])
        assert sorted(now) == sorted(bytes((each,)) for each in members)
        stay = [endpoint for endpoint in before if endpoint in now]
        moved = [endpoint for endpoint in stay if now.index(endpoint) != before.index(endpoint)]
        assert all(before.index(endpoint) >= len(now) for endpoint in moved)
        before = now


def test_an_endpoint_that_was_read_in_two_slots_has_one() -> None:
    for wanted, seated in ((b"BC", [b"C", b"B"]), (b"BCD", [b"C", b"B", b"D"]), (b"BDE", [b"D", b"B", b"E"])):
        numbers = Numbers()
        numbers.adopt("shop/users:http/TCP", "cluster", 70_000, [b"C", b"B", b"C"], {})  # C moves, and its old slot is stale
        assert numbers.seat("shop/users:http/TCP", "cluster", [bytes((each,)) for each in wanted]) == (70_000, seated)


def test_an_id_is_never_given_twice() -> None:
    numbers = Numbers()
    first = numbers.id("shop/s:80/TCP", "cluster")
    assert numbers.id("shop/s:80/TCP", "cluster") == first
    numbers.drop("shop/s:80/TCP")
    assert numbers.id("shop/s:80/TCP", "cluster") > first
    later = Numbers()
    later.raise_to(numbers.ceiling)
    assert later.id("shop/t:80/TCP", "cluster") > numbers.id("shop/s:80/TCP", "cluster")


def test_load_balancer_addresses_as_routes() -> None:
    held = [
        Route(ip_network("203.0.113.1/32"), link="lo", table=255, protocol=66, type="local"),
        Route(ip_network("203.0.113.2/32"), link="lo", table=255, protocol=66, type="local"),
        Route(ip_network("10.128.0.2/32"), link="eth0", table=255, protocol=2, type="local"),
    ]
    requests = routes.changes(held, ["203.0.113.2", "203.0.113.3"])
    assert [(request.verb, str(request.value.destination)) for request in requests if isinstance(request.value, Route)] == [
        ("delete", "203.0.113.1/32"),
        ("add", "203.0.113.3/32"),
    ]


def test_the_table_of_what_leaves_the_cluster() -> None:
    [table] = masquerade.ruleset(IPV4, ["10.4.0.0/14"], ["10.4.0.0/14", "10.8.0.0/20", "fd00::/64"]).tables
    assert len(table.set("inside").elements) == 2
    assert nft.parse(nft.render(nft.Ruleset((table,)))).tables == (table,)
    [six] = masquerade.ruleset(IPV6, ["10.4.0.0/14"], ["fd00::/64"]).tables
    assert six.family == "ip6"
    assert not six.set("pod-ranges").elements


def test_the_readme_runs() -> None:
    [folder] = podwire.services.__path__
    assert doctest.testfile(f"{folder}/README.md", module_relative=False).failed == 0
