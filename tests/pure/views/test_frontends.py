"""The join of Services and EndpointSlices."""

from __future__ import annotations

import doctest
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

import podwire.views
from podwire.objects.codec import convert
from podwire.objects.core import Node, Pod, Service
from podwire.objects.discovery import EndpointSlice
from podwire.views.frontends import ServiceFrontends, join
from podwire.views.identities import identities
from podwire.views.topology import Place, place


def service(**spec: Any) -> Service:
    body = {"clusterIP": "10.8.0.20", "ports": [{"name": "http", "port": 80, "targetPort": "http"}], **spec}
    labels = body.pop("labels", {})
    status = body.pop("status", {})
    return convert(Service, {"metadata": {"namespace": "shop", "name": "users", "labels": labels}, "spec": body, "status": status})


def endpoints(
    name: str, *addresses: str, port: int | None = 8080, port_name: str = "http", kind: str = "IPv4", **each: Any
) -> EndpointSlice:
    return convert(
        EndpointSlice,
        {
            "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "users"}},
            "addressType": kind,
            "ports": [{"name": port_name, **({} if port is None else {"port": port})}],
            "endpoints": [{"addresses": [address], **each} for address in addresses],
        },
    )


def joined(value: Service, *slices: EndpointSlice) -> ServiceFrontends:
    result = join(value, slices)
    assert result is not None
    return result


def test_endpoints_are_merged_over_slices_and_told_apart() -> None:
    [port] = joined(service(), endpoints("b", "10.4.0.5", "10.4.0.6"), endpoints("a", "10.4.0.5", "10.4.1.5")).ports
    assert [b.address for b in port.backends] == ["10.4.0.5", "10.4.1.5", "10.4.0.6"]


def test_the_better_condition_of_two_slices_counts() -> None:
    unready = endpoints("a", "10.4.0.5", conditions={"ready": False})
    for order in ((unready, endpoints("b", "10.4.0.5")), (endpoints("b", "10.4.0.5"), unready)):
        [port] = joined(service(), *order).ports
        assert [b.ready for b in port.backends] == [True]


def test_a_named_target_port_may_differ_by_slice() -> None:
    [port] = joined(service(), endpoints("a", "10.4.0.5", port=8080), endpoints("b", "10.4.0.6", port=9090)).ports
    assert [(b.address, b.port) for b in port.backends] == [("10.4.0.5", 8080), ("10.4.0.6", 9090)]


def test_ports_are_matched_by_name_and_protocol() -> None:
    value = service(
        ports=[
            {"name": "http", "port": 80},
            {"name": "dns", "port": 53, "protocol": "UDP"},
            {"name": "http", "port": 81, "protocol": "UDP"},
        ]
    )
    assert [len(p.backends) for p in joined(value, endpoints("a", "10.4.0.5")).ports] == [1, 0, 0]


def test_conditions_have_the_defaults_of_the_api() -> None:
    [port] = joined(service(), endpoints("a", "10.4.0.5")).ports
    assert (port.backends[0].ready, port.backends[0].serving, port.backends[0].terminating) == (True, True, False)
    [port] = joined(service(), endpoints("a", "10.4.0.5", conditions={"ready": False, "serving": True, "terminating": True})).ports
    assert (port.backends[0].ready, port.backends[0].serving, port.backends[0].terminating) == (False, True, True)


def test_pod_node_and_hints_are_carried() -> None:
    piece = endpoints(
        "a",
        "10.4.0.5",
        nodeName="node-1",
        zone="a",
        targetRef={"kind": "Pod", "namespace": "shop", "name": "users-1"},
        hints={"forZones": [{"name": "a"}], "forNodes": [{"name": "node-1"}]},
    )
    [backend] = joined(service(), piece).ports[0].backends
    assert (backend.pod, backend.node) == ("shop/users-1", "node-1")
    assert (backend.hint_zones, backend.hint_nodes) == (("a",), ("node-1",))


def test_what_is_left_alone() -> None:
    piece = endpoints("a", "10.4.0.5")
    assert join(None, [piece]) is None
    assert join(service(clusterIP="None"), [piece]) is None
    assert join(service(clusterIP=""), [piece]) is None
    assert join(service(type="ExternalName", externalName="example.com"), [piece]) is None
    assert join(service(ports=[]), [piece]) is None
    assert join(service(labels={"service.kubernetes.io/service-proxy-name": "other"}), [piece]) is None
    assert joined(service(), endpoints("a", "example.com", kind="FQDN")).ports[0].backends == ()
    assert joined(service(), endpoints("a", "10.4.0.5", port=None)).ports[0].backends == ()


def test_addresses_and_policies() -> None:
    status = {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}, {"ip": "203.0.113.8", "ipMode": "Proxy"}, {"hostname": "example.com"}]}}
    value = service(
        type="LoadBalancer",
        clusterIPs=["10.8.0.20", "fd00::20"],
        externalIPs=["192.0.2.1"],
        externalTrafficPolicy="Local",
        sessionAffinity="ClientIP",
        ports=[{"name": "http", "port": 80, "nodePort": 30080}],
        status=status,
    )
    view = joined(value)
    assert view.key == "shop/users"
    assert view.cluster_ips == ("10.8.0.20", "fd00::20")
    assert view.load_balancer_ips == ("203.0.113.7",)
    assert view.external_ips == ("192.0.2.1",)
    assert (view.affinity_s, view.external_local, view.internal_local) == (10800, True, False)
    assert view.ports[0].node_port == 30080
    plain = joined(service(type="ClusterIP", ports=[{"name": "http", "port": 80, "nodePort": 30080}], status=status))
    assert (plain.load_balancer_ips, plain.ports[0].node_port) == ((), 0)


@given(st.lists(st.lists(st.integers(1, 5), max_size=4), max_size=4), st.randoms())
def test_the_order_in_which_slices_come_does_not_matter(groups: list[list[int]], random: Any) -> None:
    pieces = [endpoints(f"s{i}", *(f"10.4.0.{n}" for n in group)) for i, group in enumerate(groups)]
    shuffled = list(pieces)
    random.shuffle(shuffled)
    assert join(service(), pieces) == join(service(), shuffled)


def test_the_place_of_a_node() -> None:
    node = convert(
        Node,
        {
            "metadata": {"name": "node-1", "labels": {"topology.kubernetes.io/zone": "a", "topology.kubernetes.io/region": "r"}},
            "spec": {"podCIDR": "10.4.1.0/24"},
            "status": {"addresses": [{"type": "Hostname", "address": "node-1"}, {"type": "InternalIP", "address": "10.128.0.2"}]},
        },
    )
    assert place(node) == Place("node-1", "a", "r", ("10.128.0.2",), ("10.4.1.0/24",))


def test_whose_an_address_is() -> None:
    def pod(name: str, ip: str, phase: str = "Running", host: bool = False) -> Pod:
        body = {"metadata": {"name": name, "namespace": "shop"}, "spec": {"nodeName": "node-1", "hostNetwork": host}}
        return convert(Pod, body | {"status": {"phase": phase, "podIP": ip}})

    node = convert(Node, {"metadata": {"name": "node-1"}, "status": {"addresses": [{"type": "InternalIP", "address": "10.128.0.2"}]}})
    pods = [pod("a", "10.4.1.2"), pod("done", "10.4.1.3", "Succeeded"), pod("host", "10.128.0.2", host=True), pod("new", "", "Pending")]
    found = {address: (i.kind, i.key) for address, i in identities(pods, [node]).items()}
    assert found == {"10.4.1.2": ("Pod", "shop/a"), "10.128.0.2": ("Node", "node-1")}


def test_the_readme_runs() -> None:
    [folder] = podwire.views.__path__
    assert doctest.testfile(f"{folder}/README.md", module_relative=False).failed == 0
