# ruff: noqa: E501  (messages are written whole, so that they can be searched for)
"""Services through the whole way of a write: defaults, allocation, rules, changes of type."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from ipaddress import ip_network
from random import Random
from typing import Any

import pytest

from podwire.apiserver import schema, tables
from podwire.apiserver.allocation import Allocator, Ranges
from podwire.apiserver.registry import REGISTRY

SERVICE = next(kind for kind in REGISTRY if kind.plural == "services")
NOW = datetime(2026, 1, 2, tzinfo=UTC)
DUAL = Ranges(services=(ip_network("10.8.0.0/20"), ip_network("fd00:8::/112")))


class Api:
    """The way of a write, without storage."""

    def __init__(self, ranges: Ranges | None = None) -> None:
        self.allocator = Allocator(ranges or Ranges(), Random(1))

    def create(self, **spec: Any) -> dict[str, Any]:
        tree: dict[str, Any] = {"metadata": {"name": "web", "namespace": "default"}, "spec": copy.deepcopy(spec)}
        assert schema.prune_and_check(SERVICE, tree) == []
        SERVICE.for_create(tree)
        return self._finish(tree, None)

    def update(self, old: dict[str, Any], **spec: Any) -> dict[str, Any]:
        """Change what is named, as a merge patch does; None removes."""
        tree = copy.deepcopy(old)
        tree["spec"].update(copy.deepcopy(spec))
        schema.prune_and_check(SERVICE, tree)
        SERVICE.for_update(tree, old)
        return self._finish(tree, old)

    def _finish(self, tree: dict[str, Any], old: dict[str, Any] | None) -> dict[str, Any]:
        grant = self.allocator.begin(SERVICE, tree, old)
        errors = grant.errors + SERVICE.check(tree, old)
        if errors:
            grant.abandon()
            raise Refused([str(error) for error in errors])
        grant.commit()
        return tree

    @property
    def free(self) -> tuple[int, int]:
        return self.allocator.pools.services["IPv4"].free, self.allocator.pools.node_ports.free


class Refused(Exception):
    @property
    def errors(self) -> list[str]:
        found: list[str] = self.args[0]
        return found


HTTP = {"port": 80}


def test_defaults_of_a_cluster_ip_service() -> None:
    spec = Api().create(ports=[HTTP], selector={"app": "web"})["spec"]
    address = spec.pop("clusterIP")
    assert spec == {
        "type": "ClusterIP",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        "selector": {"app": "web"},
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "clusterIPs": [address],
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
    }


def test_defaults_of_a_load_balancer() -> None:
    spec = Api().create(type="LoadBalancer", ports=[{"port": 80, "targetPort": "http"}], sessionAffinity="ClientIP")["spec"]
    assert spec["externalTrafficPolicy"] == "Cluster"
    assert spec["allocateLoadBalancerNodePorts"] is True
    assert spec["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    assert 30086 <= spec["ports"][0]["nodePort"] <= 32767
    assert spec["ports"][0]["targetPort"] == "http"


@pytest.mark.parametrize(
    ("spec", "errors"),
    [
        (
            {"ports": [{"port": 99999}]},
            [
                "spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535, inclusive",
                "spec.ports[0].targetPort: Invalid value: 99999: must be between 1 and 65535, inclusive",
            ],
        ),
        ({}, ["spec.ports: Required value"]),
        ({"ports": [{"port": 80}, {"port": 81}]}, ["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"]),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]}, ['spec.ports[1].name: Duplicate value: "a"']),
        (
            {"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]},
            ['spec.ports[1]: Duplicate value: {"Name":"","Protocol":"TCP","AppProtocol":null,"Port":80,"TargetPort":0,"NodePort":0}'],
        ),
        (
            {"ports": [{"port": 80, "protocol": "ICMP"}]},
            ['spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"'],
        ),
        (
            {"ports": [{"port": 80, "targetPort": "a_b"}]},
            ['spec.ports[0].targetPort: Invalid value: "a_b": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)'],
        ),
        (
            {"ports": [HTTP], "type": "Foo"},
            ['spec.type: Unsupported value: "Foo": supported values: "ClusterIP", "ExternalName", "LoadBalancer", "NodePort"'],
        ),
        ({"ports": [{"port": 80, "nodePort": 30080}]}, ["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"]),
        (
            {"ports": [{"port": 80, "nodePort": 80}], "type": "NodePort"},
            ["spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767"],
        ),
        (
            {"ports": [HTTP], "clusterIP": "10.9.0.1"},
            [
                'spec.clusterIPs: Invalid value: ["10.9.0.1"]: failed to allocate IP 10.9.0.1: '
                "the provided network does not match the current range"
            ],
        ),
        (
            {"ports": [HTTP], "clusterIP": "x"},
            ['spec.clusterIPs[0]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'],
        ),
        (
            {"ports": [HTTP], "clusterIP": "None", "type": "NodePort"},
            ["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
        ),
        (
            {"ports": [HTTP], "clusterIPs": ["10.8.0.5"], "clusterIP": "10.8.0.6"},
            ['spec.clusterIPs: Invalid value: ["10.8.0.5"]: first value must match `clusterIP`'],
        ),
        ({"type": "ExternalName"}, ["spec.externalName: Required value"]),
        (
            {"type": "ExternalName", "externalName": "a.example", "clusterIP": "10.8.0.5"},
            ["spec.clusterIPs: Forbidden: may not be set for ExternalName services"],
        ),
        (
            {"ports": [HTTP], "sessionAffinity": "Sometimes"},
            ['spec.sessionAffinity: Unsupported value: "Sometimes": supported values: "ClientIP", "None"'],
        ),
        (
            {"ports": [HTTP], "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}},
            ["spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 86401: must be greater than 0 and less than 86400"],
        ),
        (
            {"ports": [HTTP], "type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8", "10.0.0.1"]},
            [
                'spec.LoadBalancerSourceRanges[1]: Invalid value: "10.0.0.1": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)'
            ],
        ),
        (
            {"ports": [HTTP], "loadBalancerSourceRanges": ["10.0.0.0/8"]},
            ["spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'"],
        ),
        (
            {"ports": [HTTP], "externalTrafficPolicy": "Local"},
            ['spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services'],
        ),
        (
            {"ports": [HTTP], "type": "NodePort", "externalTrafficPolicy": "Near"},
            ['spec.externalTrafficPolicy: Unsupported value: "Near": supported values: "Cluster", "Local"'],
        ),
        (
            {"ports": [HTTP], "externalIPs": ["127.0.0.1"]},
            ['spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)'],
        ),
        ({"ports": [HTTP], "ipFamilies": ["IPv6"]}, ['spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster']),
        (
            {"ports": [HTTP], "ipFamilyPolicy": "RequireDualStack"},
            ['spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services'],
        ),
        (
            {"ports": [HTTP], "selector": {"a b": "c"}},
            [
                "spec.selector: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
                "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
            ],
        ),
        (
            {"ports": [HTTP], "healthCheckNodePort": 30001},
            [
                "spec.healthCheckNodePort: Invalid value: 30001: may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
            ],
        ),
    ],
)
def test_services_that_are_refused(spec: dict[str, Any], errors: list[str]) -> None:
    api = Api()
    before = api.free
    with pytest.raises(Refused) as raised:
        api.create(**spec)
    assert raised.value.errors == errors
    assert api.free == before, "a refused Service keeps nothing"


def test_all_errors_at_once() -> None:
    with pytest.raises(Refused) as raised:
        Api().create(type="NodePort", ports=[{"port": 0, "protocol": "X", "name": "A"}], sessionAffinity="X")
    assert [error.split(":")[0] for error in raised.value.errors] == [
        "spec.ports[0].name",
        "spec.ports[0].port",
        "spec.ports[0].protocol",
        "spec.ports[0].targetPort",
        "spec.sessionAffinity",
    ]


def test_a_taken_node_port_and_address() -> None:
    api = Api()
    first = api.create(type="NodePort", ports=[{"port": 80, "nodePort": 30080}], clusterIP="10.8.0.7")
    with pytest.raises(Refused) as raised:
        api.create(type="NodePort", ports=[{"port": 80, "nodePort": 30080}])
    assert raised.value.errors == ["spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated"]
    with pytest.raises(Refused) as raised:
        api.create(ports=[HTTP], clusterIP="10.8.0.7")
    assert raised.value.errors == [
        'spec.clusterIPs: Invalid value: ["10.8.0.7"]: failed to allocate IP 10.8.0.7: provided IP is already allocated'
    ]
    api.allocator.release(SERVICE, first)
    assert api.free == (4094, 2768)
    api.create(type="NodePort", ports=[{"port": 80, "nodePort": 30080}], clusterIP="10.8.0.7")


def test_tcp_and_udp_of_one_port_share_a_node_port() -> None:
    api = Api()
    ports = [{"port": 53, "name": "a"}, {"port": 53, "protocol": "UDP", "name": "b"}]
    made = api.create(type="NodePort", ports=ports)
    assert made["spec"]["ports"][0]["nodePort"] == made["spec"]["ports"][1]["nodePort"]
    assert api.free[1] == 2767
    api.allocator.release(SERVICE, made)
    assert api.free[1] == 2768


def test_a_writer_who_leaves_out_what_was_given_keeps_it() -> None:
    api = Api()
    old = api.create(type="LoadBalancer", externalTrafficPolicy="Local", ports=[HTTP])
    free = api.free
    new = api.update(
        old,
        clusterIP=None,
        clusterIPs=None,
        ipFamilies=None,
        ipFamilyPolicy=None,
        healthCheckNodePort=None,
        ports=[HTTP],
        selector={"a": "b"},
    )
    for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort", "ports"):
        assert new["spec"][key] == old["spec"][key]
    assert api.free == free


def test_the_address_cannot_change() -> None:
    api = Api()
    old = api.create(ports=[HTTP])
    free = api.free
    with pytest.raises(Refused) as raised:
        api.update(old, clusterIP="10.8.0.9", clusterIPs=["10.8.0.9"])
    assert raised.value.errors == ['spec.clusterIPs[0]: Invalid value: ["10.8.0.9"]: may not change once set']
    assert api.free == free


def test_every_change_of_type_gives_back_what_it_does_not_need() -> None:
    api = Api()
    types = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
    for before in types:
        for after in types:
            old = api.create(type=before, ports=[HTTP], **({"externalName": "a.example"} if before == "ExternalName" else {}))
            new = api.update(old, type=after, **({"externalName": "a.example"} if after == "ExternalName" else {}))
            has_address, has_port = after != "ExternalName", after in ("NodePort", "LoadBalancer")
            assert api.free == (4094 - has_address, 2768 - has_port), f"{before} -> {after}"
            assert ("clusterIP" in new["spec"], "nodePort" in new["spec"]["ports"][0]) == (has_address, has_port)
            assert ("externalTrafficPolicy" in new["spec"]) == has_port
            assert ("allocateLoadBalancerNodePorts" in new["spec"]) == (after == "LoadBalancer")
            api.allocator.release(SERVICE, new)
            assert api.free == (4094, 2768)


def test_a_changed_node_port_frees_the_old_one_only_when_stored() -> None:
    api = Api()
    old = api.create(type="NodePort", ports=[{"port": 80, "nodePort": 30080}])
    tree = copy.deepcopy(old)
    tree["spec"]["ports"][0]["nodePort"] = 30081
    grant = api.allocator.begin(SERVICE, tree, old)
    with pytest.raises(Refused):
        api.create(type="NodePort", ports=[{"port": 80, "nodePort": 30080}])
    grant.abandon()
    new = api.update(old, ports=[{"port": 80, "nodePort": 30081}])
    assert new["spec"]["ports"][0]["nodePort"] == 30081
    api.create(type="NodePort", ports=[{"port": 80, "nodePort": 30080}])
    with pytest.raises(Refused):
        api.create(type="NodePort", ports=[{"port": 80, "nodePort": 30081}])


def test_no_double_allocation_after_a_restart() -> None:
    api = Api()
    made = [api.create(type="LoadBalancer", externalTrafficPolicy="Local", ports=[HTTP]) for _ in range(20)]
    again = Api()
    for tree in made:
        assert again.allocator.load(SERVICE, tree) == []
    assert again.free == api.free
    assert again.allocator.load(SERVICE, made[0]) != []
    again.allocator.release(SERVICE, made[0])
    assert again.free == (4094 - 19, 2768 - 38)


def test_an_exhausted_range_is_said() -> None:
    api = Api(Ranges(services=(ip_network("10.8.0.0/30"),), node_ports=(30000, 30000)))
    api.create(ports=[HTTP])
    api.create(type="NodePort", ports=[HTTP])
    with pytest.raises(Refused) as raised:
        api.create(type="NodePort", ports=[HTTP])
    assert raised.value.errors[:2] == [
        "spec.clusterIP: Internal error: failed to allocate a serviceIP: range is full",
        "spec.ports[0].nodePort: Internal error: failed to allocate a nodePort: range is full",
    ]


def test_dual_stack() -> None:
    api = Api(DUAL)
    single = api.create(ports=[HTTP])["spec"]
    assert single["ipFamilies"] == ["IPv4"]
    double = api.create(ports=[HTTP], ipFamilyPolicy="PreferDualStack")
    assert double["spec"]["ipFamilies"] == ["IPv4", "IPv6"]
    assert [":" in address for address in double["spec"]["clusterIPs"]] == [False, True]
    reverse = api.create(ports=[HTTP], ipFamilyPolicy="RequireDualStack", ipFamilies=["IPv6"])["spec"]
    assert ":" in reverse["clusterIP"]
    narrowed = api.update(double, ipFamilyPolicy="SingleStack")["spec"]
    assert (narrowed["clusterIPs"], narrowed["ipFamilies"]) == (double["spec"]["clusterIPs"][:1], ["IPv4"])
    headless = api.create(clusterIP="None")["spec"]
    assert (headless["ipFamilies"], headless["ipFamilyPolicy"], headless["clusterIPs"]) == (["IPv4", "IPv6"], "RequireDualStack", ["None"])


def test_prefer_dual_stack_on_a_single_stack_cluster() -> None:
    spec = Api().create(ports=[HTTP], ipFamilyPolicy="PreferDualStack")["spec"]
    assert (spec["ipFamilies"], len(spec["clusterIPs"])) == (["IPv4"], 1)


def test_status_is_written_by_its_own_path() -> None:
    api = Api()
    old = api.create(type="LoadBalancer", ports=[HTTP])
    assert old["status"] == {"loadBalancer": {}}
    tree = copy.deepcopy(old)
    tree["status"] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.2"}]}}
    tree["spec"]["ports"] = []
    tree["metadata"]["labels"] = {"not": "taken"}
    SERVICE.for_update(tree, old, "status")
    assert SERVICE.check(tree, old, "status") == []
    assert tree["spec"] == old["spec"]
    assert tree["metadata"] == old["metadata"]
    assert tree["status"]["loadBalancer"]["ingress"] == [{"ip": "203.0.113.2", "ipMode": "VIP"}]
    again = copy.deepcopy(tree)
    again["status"] = {}
    SERVICE.for_update(again, tree)
    assert again["status"] == tree["status"]
    bad = copy.deepcopy(tree)
    bad["status"]["loadBalancer"]["ingress"] = [{"ip": "nowhere", "ipMode": "VIP"}]
    assert [str(error) for error in SERVICE.check(bad, tree, "status")] == [
        'status.loadBalancer.ingress[0].ip: Invalid value: "nowhere": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'
    ]


@pytest.mark.parametrize(
    ("spec", "status", "cells"),
    [
        ({"ports": [HTTP], "clusterIP": "10.8.0.7"}, {}, ["web", "ClusterIP", "10.8.0.7", "<none>", "80/TCP", "24h", "<none>"]),
        ({"clusterIP": "None", "selector": {"b": "2", "a": "1"}}, {}, ["web", "ClusterIP", "None", "<none>", "<none>", "24h", "a=1,b=2"]),
        (
            {
                "type": "NodePort",
                "ports": [{"port": 80, "nodePort": 30080, "name": "a"}, {"port": 53, "protocol": "UDP", "name": "b", "nodePort": 30053}],
                "clusterIP": "10.8.0.7",
            },
            {},
            ["web", "NodePort", "10.8.0.7", "<none>", "80:30080/TCP,53:30053/UDP", "24h", "<none>"],
        ),
        (
            {"type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30080}], "clusterIP": "10.8.0.7"},
            {},
            ["web", "LoadBalancer", "10.8.0.7", "<pending>", "80:30080/TCP", "24h", "<none>"],
        ),
        (
            {"type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30080}], "clusterIP": "10.8.0.7"},
            {"loadBalancer": {"ingress": [{"ip": "203.0.113.2"}]}},
            ["web", "LoadBalancer", "10.8.0.7", "203.0.113.2", "80:30080/TCP", "24h", "<none>"],
        ),
        (
            {"type": "ExternalName", "externalName": "db.example"},
            {},
            ["web", "ExternalName", "<none>", "db.example", "<none>", "24h", "<none>"],
        ),
    ],
)
def test_how_services_are_printed(spec: dict[str, Any], status: dict[str, Any], cells: list[str]) -> None:
    tree = Api().create(**spec)
    tree["status"] = status
    tree["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z"
    assert tables.row(SERVICE, tree, NOW)["cells"] == cells


def test_the_port_of_the_health_check_does_not_change() -> None:
    api = Api()
    old = api.create(type="LoadBalancer", externalTrafficPolicy="Local", ports=[HTTP])
    given = old["spec"]["healthCheckNodePort"]
    with pytest.raises(Refused) as raised:
        api.update(old, healthCheckNodePort=given - 1 if given > 30000 else given + 1)
    assert raised.value.errors == ["spec.healthCheckNodePort: Forbidden: field is immutable"]
    assert api.update(old, healthCheckNodePort=None)["spec"]["healthCheckNodePort"] == given


def test_an_external_name_is_lower_case_and_may_end_in_a_dot() -> None:
    assert Api().create(type="ExternalName", externalName="db.example.com.")["spec"]["externalName"] == "db.example.com."
    with pytest.raises(Refused) as raised:
        Api().create(type="ExternalName", externalName="DB.example.com")
    assert raised.value.errors[0].startswith('spec.externalName: Invalid value: "DB.example.com": a lowercase RFC 1123 subdomain')


def test_errors_come_in_the_order_of_the_api() -> None:
    with pytest.raises(Refused) as raised:
        Api().create(type="Other", sessionAffinity="Sometimes", ports=[{"port": 0}, {"port": 0, "name": "UP"}], externalIPs=["x"])
    paths = [error.split(":")[0] for error in raised.value.errors]
    assert list(dict.fromkeys(paths)) == [
        "spec.ports[0].name",
        "spec.ports[0].port",
        "spec.ports[0].targetPort",
        "spec.ports[1].name",
        "spec.ports[1].port",
        "spec.ports[1].targetPort",
        "spec.sessionAffinity",
        "spec.externalIPs[0]",
        "spec.type",
        "spec.ports[1]",
    ]
