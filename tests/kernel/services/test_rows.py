"""What a Service's manifest asks for, from the API's objects to packets: the rows that test_packets.py does not show."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kernel.services.test_packets import ENDPOINTS, IP, NODE_PORT, PORT, VIP, Proxies, service, world
from kernel.services.wires import Wires, ask, spread
from podwire.objects.codec import convert
from podwire.objects.core import Service
from podwire.objects.discovery import EndpointSlice
from podwire.services.layout import IPV6
from podwire.views.backends import Backend
from podwire.views.frontends import Frontend, ServiceFrontends, join

HTTP = {"name": "http", "port": PORT, "targetPort": "http"}


def manifest(
    spec: dict[str, Any], *pieces: EndpointSlice, labels: dict[str, str] | None = None, vip_mode: str = ""
) -> ServiceFrontends | None:
    """The Service ``shop/users`` and its slices, as a node sees them."""
    tree = {
        "metadata": {"name": "users", "namespace": "shop", "labels": labels or {}},
        "spec": {"clusterIP": IP, "ports": [HTTP]} | spec,
        "status": {"loadBalancer": {"ingress": [{"ip": VIP, "ipMode": vip_mode}]} if vip_mode else {}},
    }
    return join(convert(Service, tree), pieces)


def piece(*endpoints: dict[str, Any], name: str = "users-x", ports: dict[str, int] | None = None) -> EndpointSlice:
    tree = {
        "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "users"}},
        "addressType": "IPv4",
        "ports": [{"name": port, "port": number} for port, number in (ports or {"http": 8080}).items()],
        "endpoints": list(endpoints),
    }
    return convert(EndpointSlice, tree)


def endpoint(address: str, **more: Any) -> dict[str, Any]:
    return {"addresses": [address], "nodeName": f"node-{address.split('.')[2]}"} | more


ALL = piece(*(endpoint(address) for address, _ in ENDPOINTS))


def used(view: ServiceFrontends | None) -> ServiceFrontends:
    assert view is not None
    return view


def servers(place: Any, address: str = IP, port: int = PORT, count: int = 30) -> set[str]:
    return set(spread(place, address, port, count))


def test_a_load_balancer_in_mode_proxy_is_none_of_the_nodes_business() -> None:
    exposed = {"type": "LoadBalancer"}
    wires, proxies, _ = world(used(manifest(exposed, ALL, vip_mode="VIP")), vips=(VIP,))
    assert ask(wires.internet, VIP, PORT).split()[0] in dict(ENDPOINTS)
    proxies.put(used(manifest(exposed, ALL, vip_mode="Proxy")))
    assert ask(wires.internet, VIP, PORT, limit_s=0.2) in ("no answer", "unreachable")


@pytest.mark.parametrize(
    ("spec", "labels"),
    [
        ({"clusterIP": "None"}, {}),
        ({"type": "ExternalName", "externalName": "example.com"}, {}),
        ({}, {"service.kubernetes.io/service-proxy-name": "another"}),
    ],
)
def test_services_that_are_left_alone(spec: dict[str, Any], labels: dict[str, str]) -> None:
    _, proxies, pods = world(used(manifest({}, ALL)))
    assert servers(pods["10.4.1.9"]) == set(dict(ENDPOINTS))
    assert manifest(spec, ALL, labels=labels) is None
    proxies.put(gone=("shop/users",))
    assert ask(pods["10.4.1.9"], IP, PORT, limit_s=0.2) == "no answer"


def test_node_ports_on_chosen_addresses_alone() -> None:
    wires = Wires()
    pod = wires.pod(1, "10.4.1.2")
    wires.servers.open(pod, 8080)
    proxies = Proxies(wires, service(("10.4.1.2", 1), node_port=NODE_PORT), node_port_ranges=("10.128.0.2/32", "192.0.2.0/24"))
    assert ask(wires.internet, "10.128.0.2", NODE_PORT).startswith("10.4.1.2")
    assert ask(wires.internet, "10.128.0.3", NODE_PORT) == "refused"  # nobody listens there
    assert ask(pod, "10.4.1.1", NODE_PORT) == "refused"
    proxies.put(service(node_port=NODE_PORT))
    assert ask(wires.internet, "10.128.0.2", NODE_PORT) == "refused"


def test_affinity_is_of_the_client_whatever_port_and_address_it_uses() -> None:
    everywhere = {"type": "LoadBalancer", "sessionAffinity": "ClientIP", "externalIPs": ["192.0.2.80"]}
    everywhere["ports"] = [HTTP | {"nodePort": NODE_PORT}]
    _, proxies, pods = world(used(manifest(everywhere, ALL, vip_mode="VIP")), vips=(VIP, "192.0.2.80"))
    client = pods["10.4.1.9"]
    [first] = servers(client)
    for address, port in ((VIP, PORT), ("192.0.2.80", PORT), ("10.128.0.2", NODE_PORT)):
        assert servers(client, address, port, 10) == {first}
    assert {ask(client, IP, PORT, source=20_000 + number).split()[0] for number in range(10)} == {first}
    proxies.put(used(manifest(everywhere | {"sessionAffinity": "None"}, ALL, vip_mode="VIP")))
    assert servers(client, count=40) == set(dict(ENDPOINTS))


def test_affinity_ends_after_its_timeout() -> None:
    kept = {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}}
    _, _, pods = world(used(manifest(kept, ALL)))
    client = pods["10.4.1.9"]
    [first] = servers(client)
    found = {first}
    for _ in range(12):  # a client that stays away for longer chooses anew: in twelve choices, most likely another one
        if found == {first}:
            assert ask(client, "10.8.0.99", PORT, limit_s=1.1) == "no answer"  # a second and more pass
            found |= servers(client, count=1)
    assert len(found) > 1


def test_terminating_endpoints_serve_where_none_is_ready_and_each_policy_decides_for_itself() -> None:
    leaving = {"conditions": {"ready": False, "serving": True, "terminating": True}}
    dead = {"conditions": {"ready": False, "serving": False, "terminating": True}}
    both = {"type": "NodePort", "externalTrafficPolicy": "Local", "ports": [HTTP | {"nodePort": NODE_PORT}]}
    mixed = piece(endpoint("10.4.1.2", **leaving), endpoint("10.4.1.3", **dead), endpoint("10.4.2.2"))
    wires, proxies, pods = world(used(manifest(both, mixed)))
    assert servers(pods["10.4.1.9"]) == {"10.4.2.2"}  # cluster: the ready one
    assert servers(wires.internet, "10.128.0.2", NODE_PORT, 10) == {"10.4.1.2"}  # here: none is ready, one serves
    proxies.put(used(manifest(both, piece(endpoint("10.4.1.2", **leaving), endpoint("10.4.1.3", **dead)))))
    assert servers(pods["10.4.1.9"], count=10) == {"10.4.1.2"}
    proxies.put(used(manifest(both, piece(endpoint("10.4.1.3", **dead)))))
    assert ask(pods["10.4.1.9"], IP, PORT) == "refused"


def test_endpoints_that_are_published_though_not_ready_count_as_ready() -> None:
    # The slice controller marks them ready: publishNotReadyAddresses is its affair; a node looks at nothing else.
    published = piece(endpoint("10.4.1.2", conditions={"ready": True, "serving": False}), endpoint("10.4.1.3", conditions={"ready": False}))
    _, _, pods = world(used(manifest({"publishNotReadyAddresses": True}, published)))
    assert servers(pods["10.4.1.9"], count=12) == {"10.4.1.2"}


def hinted(address: str, *, zone: str = "", node: str = "") -> dict[str, Any]:
    hints = {"forZones": [{"name": zone}]} if zone else {}
    hints |= {"forNodes": [{"name": node}]} if node else {}
    return endpoint(address, hints=hints) if hints else endpoint(address)


def test_hints_keep_traffic_near_if_every_endpoint_has_one() -> None:
    zoned = [hinted("10.4.1.2", zone="zone-1"), hinted("10.4.1.3", zone="zone-1"), hinted("10.4.2.2", zone="zone-2")]
    _, proxies, pods = world(used(manifest({"trafficDistribution": "PreferClose"}, piece(*zoned))))
    assert servers(pods["10.4.1.9"]) == {"10.4.1.2", "10.4.1.3"}
    assert servers(pods["10.4.2.9"]) == {"10.4.2.2"}
    noded = [
        hinted("10.4.1.2", zone="zone-1", node="node-1"),
        hinted("10.4.1.3", zone="zone-1", node="node-3"),
        hinted("10.4.2.2", zone="zone-2", node="node-2"),
    ]
    proxies.put(used(manifest({"trafficDistribution": "PreferSameNode"}, piece(*noded))))
    assert servers(pods["10.4.1.9"]) == {"10.4.1.2"}
    proxies.put(used(manifest({}, piece(*zoned[:2], hinted("10.4.2.2")))))
    assert servers(pods["10.4.2.9"]) == set(dict(ENDPOINTS))
    proxies.put(used(manifest({}, piece(*(hinted(address, zone="zone-9") for address, _ in ENDPOINTS)))))
    assert servers(pods["10.4.1.9"]) == set(dict(ENDPOINTS))


def test_ports_by_name_differ_by_endpoint_and_slices_are_merged() -> None:
    wires, proxies, pods = world()
    wires.servers.open(pods["10.4.1.3"], 9090)
    wires.servers.open(pods["10.4.2.2"], 9191)
    spec = {"ports": [HTTP, {"name": "admin", "port": 81, "targetPort": "admin"}]}
    first = piece(endpoint("10.4.1.2"), name="users-a", ports={"http": 8080})
    second = piece(endpoint("10.4.1.3"), name="users-b", ports={"http": 9090, "admin": 8080})
    third = piece(endpoint("10.4.2.2"), name="users-c", ports={"http": 9191, "admin": 8080})
    twice = piece(endpoint("10.4.1.2"), name="users-d", ports={"http": 8080})
    proxies.put(used(manifest(spec, first, second, third, twice)))
    found = spread(pods["10.4.1.9"], IP, PORT, 90)
    assert set(found) == set(dict(ENDPOINTS))
    assert found["10.4.1.2"] < 60  # an endpoint that two slices name is one
    assert servers(pods["10.4.1.9"], port=81) == {"10.4.1.3", "10.4.2.2"}
    assert ask(pods["10.4.1.9"], IP, 82) == "refused"


def test_one_port_number_on_two_protocols() -> None:
    spec = {"ports": [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]}
    tree = {
        "metadata": {"name": "users-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "users"}},
        "ports": [{"name": "dns", "port": 8080, "protocol": "UDP"}, {"name": "dns-tcp", "port": 8080, "protocol": "TCP"}],
        "endpoints": [endpoint("10.4.1.2")],
    }
    _, _, pods = world(used(manifest(spec, convert(EndpointSlice, tree))))
    for udp in (True, False):
        assert ask(pods["10.4.1.9"], IP, 53, udp=udp).startswith("10.4.1.2")


def test_one_node_port_number_on_two_protocols_and_on_two_ports_the_first_of_which_has_it() -> None:
    def two(*first: str) -> ServiceFrontends:
        ports = [
            {"name": "dns", "port": 53, "protocol": "UDP", "nodePort": NODE_PORT},
            {"name": "dns-tcp", "port": 53, "protocol": "TCP", "nodePort": NODE_PORT},
            {"name": "again", "port": 54, "protocol": "TCP", "nodePort": NODE_PORT},
        ]
        tree = {
            "metadata": {"name": "users-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "users"}},
            "ports": [{"name": "dns", "port": 8080, "protocol": "UDP"}, {"name": "dns-tcp", "port": 8080, "protocol": "TCP"}],
            "endpoints": [endpoint(address) for address in first],
        }
        other = piece(endpoint("10.4.2.2"), name="users-y", ports={"again": 8080})
        return used(manifest({"type": "NodePort", "ports": ports}, convert(EndpointSlice, tree), other))

    wires, proxies, pods = world(two("10.4.1.2"))
    for udp in (True, False):
        assert {ask(wires.internet, "10.128.0.2", NODE_PORT, udp=udp).split()[0] for _ in range(8)} == {"10.4.1.2"}
    assert ask(pods["10.4.1.9"], IP, 54).startswith("10.4.2.2")
    proxies.put(two())
    assert ask(wires.internet, "10.128.0.2", NODE_PORT) == "refused"
    assert ask(pods["10.4.1.9"], IP, 54).startswith("10.4.2.2")


def test_the_second_family() -> None:
    wires = Wires()
    ip, here, there = "fd00:10:8::20", "fd00:10:4:1::2", "fd00:10:4:1::9"
    server, client = wires.pod6(1, 2), wires.pod6(1, 9)
    for udp in (False, True):
        wires.servers.open(server, 8080, udp=udp)
        wires.servers.open(client, 8080, udp=udp)
    tcp = service((here, 1), (there, 1), ip=ip)
    proxies = Proxies(
        wires,
        tcp,
        service((here, 1), key="shop/u", ip="fd00:10:8::21", protocol="UDP"),
        service(key="shop/e", ip="fd00:10:8::22"),
        family=IPV6,
    )
    assert set(spread(client, ip, PORT, 30)) == {here, there}
    to_itself = {answer for answer in (ask(server, ip, PORT) for _ in range(20)) if answer.startswith(f"{here} ")}
    assert to_itself
    assert f"{here} {here}" not in to_itself  # masqueraded, or the answer would never leave the Pod
    assert ask(client, "fd00:10:8::21", PORT, udp=True) == f"{here} {there}"
    assert ask(client, ip, 81) == "refused"
    assert ask(client, "fd00:10:8::22", PORT) == "refused"
    assert ask(client, "fd00:10:8::99", PORT, limit_s=0.3) == "no answer"
    proxies.put(service((here, 1), ip=ip, affinity_s=600))
    assert set(spread(client, ip, PORT, 10)) == {here}


def test_an_external_address_without_endpoints_is_no_node_port_of_another() -> None:
    """Also where the address is the node's own and the port that of the other's node port."""
    ports = (Frontend("http", "TCP", NODE_PORT, 0, ()),)
    at_node = ServiceFrontends("shop/none", ("10.8.0.30",), ("10.128.0.2",), (), ports)
    wires, proxies, _ = world(service(("10.4.1.2", 1), node_port=NODE_PORT), at_node)
    assert ask(wires.internet, "10.128.0.2", NODE_PORT) == "refused"
    assert ask(wires.internet, "10.128.0.3", NODE_PORT).startswith("10.4.1.2 ")
    proxies.put(gone=("shop/none",))
    assert ask(wires.internet, "10.128.0.2", NODE_PORT).startswith("10.4.1.2 ")


def test_an_external_address_that_may_not_be_used_is_no_node_port_of_another() -> None:
    """Neither where no endpoint is on this node, nor where the client is outside the source ranges."""
    rows = (Backend("10.4.2.2", 8080, "node-2"),)
    ports = (Frontend("http", "TCP", NODE_PORT, 0, rows),)
    of_node_port = service(("10.4.1.2", 1), node_port=NODE_PORT)
    local = ServiceFrontends("shop/local", ("10.8.0.30",), ("10.128.0.2",), (), ports, external_local=True)
    wires, proxies, _ = world(of_node_port, local)
    assert ask(wires.internet, "10.128.0.2", NODE_PORT, limit_s=0.3) == "no answer"
    guarded = ServiceFrontends("shop/local", ("10.8.0.30",), (), ("10.128.0.2",), ports, source_ranges=("192.0.2.0/24",))
    proxies.put(guarded)
    assert ask(wires.internet, "10.128.0.2", NODE_PORT, limit_s=0.3) == "no answer"
    proxies.put(gone=("shop/local",))
    assert ask(wires.internet, "10.128.0.2", NODE_PORT).startswith("10.4.1.2 ")


def on_hosts(port: int, *endpoints: tuple[str, str], node_port: int = 0, **more: Any) -> ServiceFrontends:
    """A Service whose endpoints, each with the node that it names, have the port of the Service."""
    rows = tuple(Backend(address, port, node) for address, node in endpoints)
    addresses = {"external_ips": (), "load_balancer_ips": ()} | more
    return ServiceFrontends("shop/host", ("10.8.0.30",), ports=(Frontend("http", "TCP", port, node_port, rows),), **addresses)


def hosts() -> tuple[Wires, Proxies, Any]:
    wires, proxies, pods = world()
    for node in wires.nodes.values():
        for port in (8080, NODE_PORT):
            wires.servers.open(node, port)
    return wires, proxies, pods


def test_an_endpoint_that_is_the_external_address_itself_is_for_pods_and_nodes_under_a_local_policy() -> None:
    """A Pod on the host's network behind the address of its node: nothing is translated, and still it was chosen."""
    wires, proxies, pods = hosts()
    proxies.put(on_hosts(8080, ("10.128.0.3", "node-2"), external_ips=("10.128.0.3",), external_local=True))
    assert ask(pods["10.4.1.9"], "10.128.0.3", 8080) == "node-2 10.4.1.9"
    assert ask(wires.nodes[1], "10.128.0.3", 8080) == "node-2 10.128.0.2"
    # The endpoint names no node, so it is on none: a client outside is not let in where a Pod is.
    proxies.put(on_hosts(8080, ("10.128.0.2", ""), external_ips=("10.128.0.2",), external_local=True))
    assert ask(pods["10.4.1.9"], "10.128.0.2", 8080) == "node-1 10.4.1.9"
    assert ask(wires.nodes[1], "10.128.0.2", 8080) == "node-1 10.128.0.2"
    assert ask(wires.internet, "10.128.0.2", 8080, limit_s=0.3) == "no answer"


def test_an_endpoint_that_is_the_external_address_of_another_node_sees_the_node_as_elsewhere() -> None:
    """Whether ports are alike, so that nothing is translated, makes no difference; what the policy is does."""
    wires, proxies, pods = hosts()
    for port in (8080, 80):
        view = on_hosts(8080, ("10.128.0.3", "node-2"), external_ips=("10.128.0.3",))
        ports = (msgspec.structs.replace(view.ports[0], port=port),)
        proxies.put(view := msgspec.structs.replace(view, ports=ports))
        assert ask(pods["10.4.1.9"], "10.128.0.3", port) == "node-2 10.128.0.2"
        assert ask(pods["10.4.2.9"], "10.128.0.3", port) == "node-2 10.4.2.9", "it does not leave its node"
        assert ask(wires.nodes[1], "10.128.0.3", port) == "node-2 10.128.0.2"
        assert ask(wires.internet, "10.128.0.3", port) == "node-2 198.51.100.10"
        proxies.put(msgspec.structs.replace(view, external_local=True))
        assert ask(pods["10.4.1.9"], "10.128.0.3", port) == "node-2 10.4.1.9"
    assert ask(pods["10.4.1.9"], "10.128.0.3", NODE_PORT) == "node-2 10.4.1.9", "what is no Service's is left alone"


def test_an_endpoint_that_is_the_node_port_itself_is_for_pods_and_nodes_under_a_local_policy() -> None:
    wires, proxies, pods = hosts()
    proxies.put(on_hosts(NODE_PORT, ("10.128.0.2", ""), node_port=NODE_PORT, external_local=True))
    assert ask(pods["10.4.1.9"], "10.128.0.2", NODE_PORT) == "node-1 10.4.1.9"
    assert ask(wires.nodes[1], "10.128.0.2", NODE_PORT) == "node-1 10.128.0.2"
    assert ask(wires.internet, "10.128.0.2", NODE_PORT, limit_s=0.3) == "no answer"


def test_an_endpoint_that_is_the_external_address_itself_is_no_node_port_of_another() -> None:
    wires, proxies, pods = hosts()
    proxies.put(service(node_port=NODE_PORT, key="shop/empty"))
    assert ask(wires.internet, "10.128.0.2", NODE_PORT) == "refused"
    proxies.put(on_hosts(NODE_PORT, ("10.128.0.2", "node-1"), external_ips=("10.128.0.2",)))
    assert ask(wires.internet, "10.128.0.2", NODE_PORT) == "node-1 198.51.100.10"
    assert ask(pods["10.4.1.9"], "10.128.0.2", NODE_PORT) == "node-1 10.4.1.9"


def test_an_endpoint_that_is_the_load_balancers_address_itself_is_for_those_who_may_come() -> None:
    wires, proxies, pods = hosts()
    proxies.put(on_hosts(8080, ("10.128.0.2", "node-1"), load_balancer_ips=("10.128.0.2",), source_ranges=("198.51.100.0/24",)))
    assert ask(wires.internet, "10.128.0.2", 8080) == "node-1 198.51.100.10"
    assert ask(pods["10.4.1.9"], "10.128.0.2", 8080, limit_s=0.3) == "no answer"


@pytest.mark.parametrize("affinity_s", [0, 600])
def test_a_pod_at_a_node_port_of_another_node_is_answered_under_a_local_policy(affinity_s: int) -> None:
    """Whichever node its endpoint is on: that which translates must see the answer. Who comes from outside keeps its address."""

    def at(*endpoints: tuple[str, int]) -> ServiceFrontends:
        return service(*endpoints, node_port=NODE_PORT, external_local=True, affinity_s=affinity_s)

    wires, proxies, pods = world(at(("10.4.1.2", 1)))
    assert ask(pods["10.4.1.9"], "10.128.0.3", NODE_PORT) == "10.4.1.2 10.128.0.3", "the answer would go from Pod to Pod"
    assert ask(pods["10.4.1.2"], "10.128.0.3", NODE_PORT) == "10.4.1.2 10.128.0.3"
    assert ask(wires.internet, "10.128.0.2", NODE_PORT) == "10.4.1.2 198.51.100.10"
    proxies.put(at(("10.4.2.2", 2)))
    assert ask(pods["10.4.1.9"], "10.128.0.3", NODE_PORT) == "10.4.2.2 10.4.1.9", "it comes back by the node that was asked"
    assert ask(pods["10.4.2.9"], "10.128.0.3", NODE_PORT) == "10.4.2.2 10.4.2.9"
    assert ask(pods["10.4.2.9"], "10.128.0.2", NODE_PORT) == "10.4.2.2 10.128.0.2"
    assert ask(wires.internet, "10.128.0.3", NODE_PORT) == "10.4.2.2 198.51.100.10"
    proxies.put(at(*ENDPOINTS))
    if not affinity_s:
        assert servers(pods["10.4.1.9"], "10.128.0.3", NODE_PORT) == set(dict(ENDPOINTS))


@pytest.mark.parametrize("port", [PORT, NODE_PORT])
def test_a_pod_keeps_its_address_at_other_addresses_than_node_ports_under_a_local_policy(port: int) -> None:
    """They are translated by its own node, which sees the answer. Under a Cluster policy the node shows itself, as by kube-proxy."""
    rows = (Backend("10.4.2.2", 8080, "node-2"),)
    ports = (Frontend("http", "TCP", port, NODE_PORT, rows),)
    local = ServiceFrontends("shop/users", (IP,), ("192.0.2.80",), (VIP,), ports, external_local=True)
    _, proxies, pods = world(local)
    client = pods["10.4.1.9"]
    for address in (IP, VIP, "192.0.2.80"):
        assert ask(client, address, port) == "10.4.2.2 10.4.1.9"
    assert ask(client, "10.128.0.2", NODE_PORT) == "10.4.2.2 10.128.0.2"
    proxies.put(msgspec.structs.replace(local, external_local=False))
    for address in (VIP, "192.0.2.80"):
        assert ask(client, address, port) == "10.4.2.2 10.128.0.2"
    assert ask(client, IP, port) == "10.4.2.2 10.4.1.9"


@pytest.mark.parametrize("internal_local", [False, True])
def test_masquerade_all_is_for_pods_that_use_cluster_addresses(internal_local: bool) -> None:
    view = service(("10.4.1.2", 1), internal_local=internal_local)
    _, _, pods = world(view, masquerade_all=True)
    assert ask(pods["10.4.1.9"], IP, PORT) == "10.4.1.2 10.4.1.1"  # the node, as the bridge
    assert ask(pods["10.4.1.9"], "10.4.1.2", 8080) == "10.4.1.2 10.4.1.9"


def test_a_pod_that_uses_a_cluster_address_keeps_its_own_where_no_service_range_is_known() -> None:
    """As with an API without ServiceCIDRs, or a Service out of a ServiceCIDR that was made later."""
    view = service(("10.4.2.2", 2), vips=(VIP,), node_port=NODE_PORT)
    wires, _, pods = world(view, vips=(VIP,), service_ranges=("fd00:10:8::/108",))
    assert ask(pods["10.4.1.9"], IP, PORT) == "10.4.2.2 10.4.1.9"
    assert ask(wires.internet, "10.128.0.2", NODE_PORT) == "10.4.2.2 10.128.0.2"


@pytest.mark.parametrize("masquerade_all", [False, True])
def test_whoever_uses_a_cluster_address_keeps_its_own_where_no_pod_range_is_known(masquerade_all: bool) -> None:
    """As kube-proxy without a clusterCIDR of the family. Node ports are masqueraded as ever."""
    view = service(("10.4.2.2", 2), node_port=NODE_PORT)
    wires, _, pods = world(view, pod_ranges=("fd00:10:4::/56",), masquerade_all=masquerade_all)
    assert ask(pods["10.4.1.9"], IP, PORT) == f"10.4.2.2 {'10.128.0.2' if masquerade_all else '10.4.1.9'}"
    assert ask(wires.internet, "10.128.0.2", NODE_PORT) == "10.4.2.2 10.128.0.2"


@pytest.mark.parametrize("first", [VIP, IP])
def test_affinity_is_kept_over_addresses_under_a_local_policy(first: str) -> None:
    """A Pod that uses the load balancer's address goes everywhere, as by the cluster address: to the same endpoint."""
    wires, _, pods = world(service(*ENDPOINTS, vips=(VIP,), affinity_s=600, external_local=True), vips=(VIP,))
    for client in ("10.4.1.9", "10.4.2.9"):
        [endpoint] = spread(pods[client], first, PORT, 5)
        for address in (VIP, IP):
            assert set(spread(pods[client], address, PORT, 10)) == {endpoint}
    [local] = spread(wires.internet, VIP, PORT, 10)
    assert local in {"10.4.1.2", "10.4.1.3"}  # those of this node


def test_affinity_is_kept_over_the_views_of_a_service() -> None:
    """A client outside the Pod ranges: under a Local policy it goes to endpoints of this node alone, otherwise everywhere."""
    view = service(*ENDPOINTS, vips=(VIP,), affinity_s=600, external_local=True)
    wires, proxies, _ = world(view, vips=(VIP,))
    [local] = spread(wires.internet, VIP, PORT, 10)
    assert local in {"10.4.1.2", "10.4.1.3"}
    proxies.put(msgspec.structs.replace(view, external_local=False))
    assert set(spread(wires.internet, VIP, PORT, 20)) == {local}
    proxies.put(view)
    assert set(spread(wires.internet, VIP, PORT, 10)) == {local}


@pytest.mark.parametrize(("other", "port"), [(VIP, PORT), ("10.128.0.2", NODE_PORT)])
def test_affinity_is_kept_between_a_local_cluster_address_and_others(other: str, port: int) -> None:
    view = service(*ENDPOINTS, vips=(VIP,), node_port=NODE_PORT, affinity_s=600, internal_local=True)
    _, _, pods = world(view, vips=(VIP,))
    client = pods["10.4.1.9"]
    [local] = spread(client, IP, PORT, 10)
    assert local in {"10.4.1.2", "10.4.1.3"}  # those of this node
    assert set(spread(client, other, port, 20)) == {local}
    assert set(spread(client, IP, PORT, 10)) == {local}
