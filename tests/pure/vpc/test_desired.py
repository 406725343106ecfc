"""What the VPC network should do, and what a person is shown: tables."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podwire import nft
from podwire.nft.difference import difference
from podwire.objects import codec
from podwire.objects.apps import Deployment
from podwire.objects.compute import ForwardingRule, Instance, TargetPool
from podwire.objects.core import Node, Service
from podwire.vpc import ruleset
from podwire.vpc.desired import Fabric, Forwarding, Group, Host, desired
from podwire.vpc.report import parts, published, report

HOSTS = tuple(Host(f"n{i}", IPv4Address(f"10.128.0.{i + 2}"), (IPv4Network(f"10.4.{i}.0/24"),)) for i in range(12))
EXTERNAL = (IPv4Network("203.0.113.0/24"),)


def instance(host: Host) -> Instance:
    interface = {"networkIP": str(host.address), "aliasIPRanges": [str(one) for one in host.ranges]}
    return codec.convert(Instance, {"metadata": {"name": host.name}, "spec": {"networkInterfaces": [interface]}})


def rule(name: str, **spec: Any) -> ForwardingRule:
    spec = {"ipAddress": "203.0.113.2", "ipProtocol": "TCP", "ports": [80], "target": "pool", **spec}
    return codec.convert(ForwardingRule, {"metadata": {"name": name}, "spec": spec})


def pool(*names: str, affinity: str = "NONE") -> TargetPool:
    return codec.convert(TargetPool, {"metadata": {"name": "pool"}, "spec": {"instances": list(names), "sessionAffinity": affinity}})


def test_resources_become_forwardings() -> None:
    found = desired(map(instance, HOSTS[:3]), [rule("a", ports=[443, 80])], [pool("n2", "n0", "gone")])
    group = Group((HOSTS[0], HOSTS[2]))
    assert found.hosts == HOSTS[:3]
    assert found.forwardings == (
        Forwarding(IPv4Address("203.0.113.2"), "tcp", 80, group, "a"),
        Forwarding(IPv4Address("203.0.113.2"), "tcp", 443, group, "a"),
    )


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([rule("a", ipAddress="")], []),
        ([rule("a", ipAddress="fd00::1")], []),
        ([rule("a", ipProtocol="L3_DEFAULT")], []),
        ([rule("a", target="none")], [("tcp", 80, 0)]),
        ([rule("a", ports=[])], [("tcp", None, 1)]),
        ([rule("b", target="none"), rule("a")], [("tcp", 80, 1)]),  # the first by name has the port
        ([rule("a"), rule("b", ipProtocol="UDP")], [("tcp", 80, 1), ("udp", 80, 1)]),
    ],
)
def test_what_a_rule_comes_to(rules: list[ForwardingRule], expected: list[tuple[str, int | None, int]]) -> None:
    found = desired([instance(HOSTS[0])], rules, [pool("n0")])
    assert [(one.protocol, one.port, len(one.group.hosts)) for one in found.forwardings] == expected


def test_a_group_is_its_members() -> None:
    assert Group(HOSTS[:2]).number == Group(HOSTS[:2]).number
    assert len({Group(HOSTS[:2]).number, Group(HOSTS[:3]).number, Group(HOSTS[:2], by_client=True).number, Group().number}) == 4


def test_the_number_of_slots_fits_the_largest_group() -> None:
    assert [ruleset.table_size(members) for members in (0, 10, 11, 200, 5000)] == [1021, 1021, 4093, 65521, 65521]


def forwarding(group: Group, port: int = 80) -> Forwarding:
    return Forwarding(IPv4Address("203.0.113.2"), "tcp", port, group, "web")


def program(*forwardings: Forwarding, hosts: tuple[Host, ...] = HOSTS) -> ruleset.Program:
    return ruleset.program(Fabric(hosts, forwardings), EXTERNAL, "203.0.113.1")


def test_services_with_the_same_instances_share_their_slots() -> None:
    group = Group(HOSTS[:3])
    found = program(*(forwarding(group, port) for port in range(1, 101)))
    assert len(found.table.set("slots").elements) == 1021
    assert len(found.table.set("forwarding-rules").elements) == 100


def test_the_text_of_the_program() -> None:
    text = nft.render(nft.Ruleset((program(forwarding(Group(HOSTS[:1]))).table,)))
    assert 'elements = { 203.0.113.2 . tcp . 80 comment "web" : 0x' in text
    assert "elements = { 203.0.113.0/24 }" in text
    assert 'oifname "internet" snat to 203.0.113.1 fully-random' in text
    assert nft.render(nft.parse(text)) == text
    assert "snat" not in nft.render(nft.Ruleset((ruleset.program(Fabric(), EXTERNAL, "").table,)))


def test_an_instance_is_routed_by_its_own_number() -> None:
    found = program(hosts=HOSTS[:1])
    mark = 0x0A800002
    assert {(one.mark, one.table) for one in found.rules} == {(mark, mark)}
    assert {(str(route.destination), str(route.gateway), route.table) for route in found.routes} == {
        ("0.0.0.0/0", "10.128.0.2", mark),
        ("10.4.0.0/24", "10.128.0.2", 254),
    }


@given(st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11)))
def test_what_packets_in_flight_may_meet_is_taken_away_later(old: set[int], new: set[int]) -> None:
    """At every moment the slots of each group that an address points to are there."""
    before = program(forwarding(Group(tuple(HOSTS[i] for i in sorted(old)))))
    want = program(forwarding(Group(tuple(HOSTS[i] for i in sorted(new)))))
    now, after = ruleset.later(difference(nft.Ruleset((before.table,)), nft.Ruleset((want.table,))))
    assert all(isinstance(change, nft.DeleteElements) and change.set.name == "slots" for change in after)
    if old != new and len(old) <= 10 and len(new) <= 10:
        flat = [change for batch in now for change in batch if isinstance(change, nft.AddElements | nft.DeleteElements)]
        assert [(type(change), change.set.name) for change in flat] == [
            *([(nft.AddElements, "slots")] if new else []),
            (nft.DeleteElements, "forwarding-rules"),
            (nft.AddElements, "forwarding-rules"),
        ]
        assert len(after) == bool(old)


# What a person is shown -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "names"),
    [
        (rule("a", ports=[80, 443]), {"203.0.113.2:80", "203.0.113.2:443"}),
        (rule("a", ports=[]), set()),
        (rule("a", ipProtocol="UDP"), set()),
        (rule("a", ipAddress=""), set()),
        (rule("a", loadBalancingScheme="INTERNAL"), set()),
    ],
)
def test_what_is_published(one: ForwardingRule, names: set[str]) -> None:
    assert published(one) == names
    assert all(parts(name) == ("203.0.113.2", int(name.split(":")[1])) for name in names)


def test_the_report() -> None:
    ready = {"type": "Ready", "status": "True"}
    full, none, other = (
        {"type": kind, "status": state} for kind, state in (("DiskPressure", "True"), ("PIDPressure", "False"), ("X", "True"))
    )
    late = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "Kubelet stopped posting node status."}
    nodes = [
        codec.convert(Node, {"metadata": {"name": "b"}, "spec": {"unschedulable": True}, "status": {"conditions": [late]}}),
        codec.convert(
            Node,
            {
                "metadata": {"name": "a", "labels": {"topology.kubernetes.io/zone": "z-a"}},
                "status": {"conditions": [ready, full, none, other], "addresses": [{"type": "InternalIP", "address": "10.128.0.2"}]},
            },
        ),
        codec.convert(Node, {"metadata": {"name": "c"}}),
    ]
    web = {"metadata": {"name": "web", "namespace": "default"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}, {"port": 81}]}}
    services = [
        codec.convert(Service, {**web, "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.2"}]}}}),
        codec.convert(Service, {**web, "metadata": {"name": "waiting", "namespace": "default"}}),
    ]
    dns = {"metadata": {"name": "kube-dns", "namespace": "kube-system"}, "spec": {"replicas": 2}, "status": {"readyReplicas": 1}}
    other = {"metadata": {"name": "web", "namespace": "default"}}
    deployments = [codec.convert(Deployment, one) for one in (dns, other)]
    fine, cordoned = {"ready": True, "unschedulable": False}, {"ready": False, "unschedulable": True}
    neither = {"ready": False, "unschedulable": False}
    assert report(nodes, services, deployments, {"203.0.113.2:80": 40080, "203.0.113.9:80": 1}) == {
        "nodes": [
            {"name": "a", "zone": "z-a", "address": "10.128.0.2", "reason": "", "pressure": ["DiskPressure"], **fine},
            {"name": "b", "zone": "", "address": "", "reason": "Kubelet stopped posting node status.", "pressure": [], **cordoned},
            {"name": "c", "zone": "", "address": "", "reason": "it has not reported yet", "pressure": [], **neither},
        ],
        "deployments": [{"namespace": "kube-system", "name": "kube-dns", "ready": 1, "wanted": 2}],
        "loadBalancers": [{"service": "default/web", "address": "203.0.113.2", "ports": [80, 81], "urls": ["http://127.0.0.1:40080"]}],
    }
