"""Which load balancer a Service should have, and the steps to it: tables."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.loadbalancers.desired import (
    ADDRESS_NAMES,
    FINALIZER,
    Create,
    Delete,
    Existing,
    LoadBalancer,
    NotReserved,
    Replace,
    actions,
    address_actions,
    conflict,
    desired,
    is_internal,
    is_ours,
    removal,
    service_of,
    takes_traffic,
)
from podwire.objects import codec
from podwire.objects.compute import Address, ForwardingRule, TargetPool
from podwire.objects.core import Node, Service

UID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
NAME = "a0f1e2d3c4b5a69788796a5b4c3d2e1f"


def service(annotations: dict[str, str] | None = None, **spec: Any) -> Service:
    body = {
        "metadata": {"name": "web", "namespace": "default", "uid": UID, "annotations": annotations or {}},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP"}], **spec},
    }
    return codec.convert(Service, body)


def node(name: str, *, ready: bool = True, labels: dict[str, str] | None = None, **spec: Any) -> Node:
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return codec.convert(Node, {"metadata": {"name": name, "labels": labels or {}}, "spec": spec, "status": {"conditions": [condition]}})


def wanted(one: Service, *nodes: Node) -> LoadBalancer:
    found = desired(one, nodes)
    assert found is not None
    return found


def existing(*values: Address | ForwardingRule | TargetPool) -> Existing:
    return Existing(
        {v.name: v for v in values if isinstance(v, Address)},
        {v.name: v for v in values if isinstance(v, ForwardingRule)},
        {v.name: v for v in values if isinstance(v, TargetPool)},
    )


def test_names_ports_and_all_ready_nodes() -> None:
    found = wanted(service(ports=[{"port": 443}, {"port": 80}]), node("n2"), node("n1"))
    assert found.name == NAME
    assert len(found.name) == 32
    (rule,) = found.rules_at("203.0.113.2")
    assert (rule.name, rule.spec.ports, rule.spec.ip_protocol, rule.spec.target) == (NAME, (80, 443), "TCP", NAME)
    assert (rule.spec.ip_address, rule.spec.load_balancing_scheme) == ("203.0.113.2", "EXTERNAL")
    assert (found.pool.spec.instances, found.pool.spec.session_affinity) == (("n1", "n2"), "NONE")
    assert service_of(rule.spec.description) == service_of(found.pool.spec.description) == "default/web"


def test_a_rule_for_each_protocol() -> None:
    found = wanted(service(ports=[{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}], sessionAffinity="ClientIP"))
    assert [(rule.name, rule.spec.ip_protocol, rule.spec.ports) for rule in found.rules] == [
        (NAME, "UDP", (53,)),
        (f"{NAME}-tcp", "TCP", (53,)),
    ]
    assert found.pool.spec.session_affinity == "CLIENT_IP"


@pytest.mark.parametrize(
    ("one", "ours", "internal"),
    [
        (service(), True, False),
        (service(type="NodePort"), False, False),
        (service(loadBalancerClass="example.com/other"), False, False),
        (service(loadBalancerClass="networking.gke.io/l4-regional-external"), True, False),
        (service(loadBalancerClass="networking.gke.io/l4-regional-internal"), False, True),
        (service({"networking.gke.io/load-balancer-type": "Internal"}), False, True),
        (service({"cloud.google.com/load-balancer-type": "internal"}), False, True),
        (service({"networking.gke.io/load-balancer-type": "External", "cloud.google.com/load-balancer-type": "Internal"}), True, False),
        (service({"networking.gke.io/load-balancer-type": "Internal"}, loadBalancerClass="example.com/other"), False, False),
        (service({"networking.gke.io/load-balancer-type": "Internal"}, type="ClusterIP"), False, False),
    ],
)
def test_whose_a_service_is(one: Service, ours: bool, internal: bool) -> None:
    assert (is_ours(one), is_internal(one), desired(one, ()) is not None) == (ours, internal, ours)


@pytest.mark.parametrize(
    ("one", "takes"),
    [
        (node("n"), True),
        (node("n", ready=False), False),
        (node("n", labels={"node.kubernetes.io/exclude-from-external-load-balancers": ""}), False),
        (node("n", taints=[{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]), False),
        (node("n", unschedulable=True), True),
    ],
)
def test_which_nodes_take_traffic(one: Node, takes: bool) -> None:
    assert takes_traffic(one) is takes


def test_the_steps_from_nothing_then_nothing() -> None:
    want = wanted(service(loadBalancerIP="203.0.113.7"), node("n1"))
    assert address_actions(existing(), want, "") == [Create(want.address())]
    assert want.address().spec.address == "203.0.113.7"
    (rule,) = want.rules_at("203.0.113.7")
    assert actions(existing(), want, "203.0.113.7") == [Create(want.pool), Create(rule)]
    there = existing(want.address(), want.pool, rule)
    assert address_actions(there, want, "") == actions(there, want, "203.0.113.7") == []


def test_an_address_that_the_service_had_is_asked_for_again() -> None:
    assert wanted(service()).address("203.0.113.9").spec.address == "203.0.113.9"
    assert wanted(service(loadBalancerIP="203.0.113.7")).address("203.0.113.9").spec.address == "203.0.113.7"


def test_another_address_port_protocol_or_node() -> None:
    old = wanted(service(), node("n1"))
    there = existing(old.address("203.0.113.2"), old.pool, *old.rules_at("203.0.113.2"))
    (old_rule,) = old.rules_at("203.0.113.2")
    moved = wanted(service(loadBalancerIP="203.0.113.7"), node("n1"))
    assert address_actions(there, moved, "203.0.113.2") == [
        Delete(old_rule),
        Delete(there.addresses[NAME]),
        Create(moved.address()),
    ]
    more = wanted(service(ports=[{"port": 80}, {"port": 443}]), node("n1"), node("n2"))
    assert actions(there, more, "203.0.113.2") == [Replace(more.pool), Replace(more.rules_at("203.0.113.2")[0])]
    both = wanted(service(ports=[{"port": 80}, {"port": 80, "protocol": "UDP"}]), node("n1"))
    full = existing(both.address("203.0.113.2"), both.pool, *both.rules_at("203.0.113.2"))
    assert actions(full, old, "203.0.113.2") == [Delete(both.rules_at("203.0.113.2")[1])]


def test_removal_ends_with_the_address() -> None:
    one = wanted(service())
    values = (one.address("203.0.113.2"), one.pool, *one.rules_at("203.0.113.2"))
    assert [type(action.value) for action in removal(existing(*values))] == [ForwardingRule, TargetPool, Address]
    assert not existing()
    assert FINALIZER == "service.kubernetes.io/load-balancer-cleanup"


@pytest.mark.parametrize("text", ["", "a note", "[]", "{}", '{"kubernetes.io/service-name": 5}'])
def test_a_description_of_somebody_else(text: str) -> None:
    assert service_of(text) == ""


def reserved(name: str, address: str = "", note: str = "") -> Address:
    return codec.convert(Address, {"metadata": {"name": name}, "spec": {"address": address, "description": note}})


def test_a_reserved_address_takes_the_place_of_ones_own() -> None:
    mine, others = reserved("mine", "203.0.113.9"), reserved("theirs", "203.0.113.8", '{"kubernetes.io/service-name":"shop/x"}')
    named = service({ADDRESS_NAMES: "mine, second"})
    found = desired(named, [], [others, mine])
    assert found is not None
    assert (found.requested, found.reserved) == ("203.0.113.9", True)
    by_number = desired(service(loadBalancerIP="203.0.113.9"), [], [others, mine])
    assert by_number is not None
    assert by_number.reserved
    alone = desired(service(loadBalancerIP="203.0.113.8"), [], [others, mine])
    assert alone is not None
    assert (alone.requested, alone.reserved) == ("203.0.113.8", False)
    for there in ([], [reserved("mine")], [reserved("mine", "203.0.113.9", '{"kubernetes.io/service-name":"shop/x"}')]):
        with pytest.raises(NotReserved, match='the Address "mine" is not reserved'):
            desired(named, [], there)
    own, rule = reserved(NAME, "203.0.113.1"), found.rules_at("203.0.113.1")[0]
    assert address_actions(existing(own, rule), found, "203.0.113.1") == [Delete(rule), Delete(own)]
    assert address_actions(existing(), found, "") == []
    moved = found.rules_at("203.0.113.9")[0]
    assert actions(existing(rule, found.pool), found, "203.0.113.9") == [Delete(rule), Create(moved)]


def test_what_is_in_the_way_of_a_rule() -> None:
    def rule(name: str, address: str = "203.0.113.9", protocol: str = "TCP", ports: tuple[int, ...] = (80,)) -> ForwardingRule:
        spec = {"ipAddress": address, "ipProtocol": protocol, "ports": list(ports), "target": "x"}
        return codec.convert(ForwardingRule, {"metadata": {"name": name}, "spec": spec})

    one = rule("one")
    for free in (one, rule("b", "203.0.113.8"), rule("b", protocol="UDP"), rule("b", ports=(81,))):
        assert conflict(one, [free]) == ""
    for taken in (rule("b"), rule("b", ports=(81, 80)), rule("b", ports=())):
        assert conflict(one, [taken]) == (
            "failed to create forwarding rule for load balancer (one): Invalid value for field 'resource.IPAddress': '203.0.113.9'. "
            "Specified IP address is in-use and would result in a conflict., invalid"
        )
