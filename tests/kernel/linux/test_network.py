"""The routing door: what is asked is there, as `ip` sees it; what is refused says why; what is printed would have done the same."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace as with_
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Any

import pytest

from podwire.linux import namespaces, sysctl
from podwire.linux.errors import KernelRefused, NamespaceGone
from podwire.linux.network import Network
from podwire.wire.rtnetlink import (
    Address,
    Bridge,
    BridgeEntry,
    BridgePort,
    Link,
    Neighbour,
    Request,
    Route,
    Rule,
    add,
    change,
    delete,
    replace,
    show,
)

BRIDGE_MAC, POD_MAC = b"\x02\0\0\0\0\1", b"\x02\0\0\0\0\5"
POD = IPv4Address("10.4.0.5")


def ip(*words: str, namespace: int | None = None) -> Any:
    """What `ip -j` says."""
    command = ["ip", "-j", "-d", *words]

    def run() -> bytes:
        return subprocess.run(command, check=True, capture_output=True).stdout

    return json.loads((run() if namespace is None else namespaces.inside(namespace, run)) or b"[]")


def node_requests(pod: int) -> list[Request]:
    """A bridge with one Pod behind it, on the node's side."""
    return [
        change(Link("lo", up=True)),
        add(
            Link(
                "cbr0",
                "bridge",
                mac=BRIDGE_MAC,
                mtu=1460,
                bridge=Bridge(mcast_snooping=False, netfilter=False),
                address_mode="none",
                up=True,
            )
        ),
        add(Address("cbr0", IPv4Interface("10.4.0.1/24"))),
        add(Address("cbr0", IPv6Interface("2001:db8::1/64"))),
        add(
            Link(
                "veth5",
                "veth",
                mtu=1460,
                master="cbr0",
                peer=Link("eth0", index=2, mac=POD_MAC, mtu=1460, namespace_fd=pod),
                bridge_port=BridgePort(isolated=True, learning=False, flood=False),
                address_mode="none",
                alias="Pod default/web",
                alternative_names=("pod-default-web-long-name",),
                up=True,
            )
        ),
        add(BridgeEntry("veth5", POD_MAC)),
        add(Neighbour("cbr0", POD, POD_MAC)),
        add(Route(IPv4Network("10.5.0.0/16"), POD, "cbr0", table=1000, metric=7)),
        add(Route(IPv4Network("10.6.0.0/16"), type="unreachable")),
        add(Route(IPv4Network("10.7.0.0/16"), type="blackhole")),
        add(Route(IPv6Network("2001:db8:7::/48"), type="prohibit")),
        add(Route(IPv4Network("203.0.113.5/32"), link="lo", type="local", table=255, protocol=66)),
        add(Rule(0x10, 1000, 500)),
        add(Rule(0x10, 1000, 501, version=6, mask=0xFF)),
    ]


def pod_requests() -> list[Request]:
    gateway = IPv4Address("10.4.0.1")
    return [
        change(Link("lo", up=True)),
        change(Link("eth0", address_mode="none", up=True)),
        add(Address("eth0", IPv4Interface((POD, 32)))),
        add(Route(IPv4Network((gateway, 32)), link="eth0", congestion="cubic")),
        add(Route(IPv4Network("0.0.0.0/0"), gateway, "eth0", congestion="cubic", mtu=1400)),
        add(Route(IPv6Network("::/0"), IPv6Address("2001:db8::1"), "eth0", on_link=True)),
        add(Neighbour("eth0", gateway, BRIDGE_MAC)),
    ]


def test_a_pod_on_its_node_as_ip_sees_it() -> None:
    pod = namespaces.create_network()
    with Network() as node, Network(pod) as inside:
        node.apply(node_requests(pod))
        inside.apply(pod_requests())
    (bridge,) = ip("link", "show", "cbr0")
    assert (bridge["address"], bridge["mtu"], bridge["inet6_addr_gen_mode"]) == (BRIDGE_MAC.hex(":"), 1460, "none")
    assert bridge["linkinfo"]["info_data"]["mcast_snooping"] == 0
    (port,) = ip("link", "show", "veth5")
    flags = port["linkinfo"]["info_slave_data"]
    assert (port["master"], port["mtu"], port["operstate"], port["ifalias"]) == ("cbr0", 1460, "UP", "Pod default/web")
    assert port["altnames"] == ["pod-default-web-long-name"]
    assert (flags["isolated"], flags["learning"], flags["flood"], flags["hairpin"]) == (True, False, False, False)
    (eth0,) = ip("link", "show", "eth0", namespace=pod)
    assert (eth0["ifindex"], eth0["address"], eth0["mtu"]) == (2, POD_MAC.hex(":"), 1460)
    (found,) = ip("address", "show", "eth0", namespace=pod)
    assert [(a["local"], a["prefixlen"]) for a in found["addr_info"]] == [("10.4.0.5", 32)], "no address that nobody asked for"
    routes = {route["dst"]: route for route in ip("route", "show", namespace=pod)}
    assert routes["10.4.0.1"]["scope"] == "link"
    assert (routes["default"]["gateway"], routes["default"]["protocol"]) == ("10.4.0.1", "static")
    assert routes["default"]["metrics"] == [{"mtu": 1400, "congestion": "cubic"}]
    assert routes["10.4.0.1"]["metrics"] == [{"congestion": "cubic"}]
    (neighbour,) = ip("neighbour", "show", namespace=pod)
    assert (neighbour["dst"], neighbour["lladdr"], neighbour["state"]) == ("10.4.0.1", BRIDGE_MAC.hex(":"), ["PERMANENT"])
    assert {
        (route["dst"], route["type"]) for route in ip("route", "show", "table", "all") if route["type"] in {"unreachable", "blackhole"}
    } == {
        ("10.6.0.0/16", "unreachable"),
        ("10.7.0.0/16", "blackhole"),
    }
    assert [r["dst"] for r in ip("route", "show", "table", "1000")] == ["10.5.0.0/16"]
    rules = [rule for rule in ip("rule", "show") if "fwmark" in rule]
    assert [(rule["priority"], rule["fwmark"], rule["table"]) for rule in rules] == [(500, "0x10", "1000")]
    os.close(pod)


def test_what_was_added_is_what_a_dump_gives() -> None:
    pod = namespaces.create_network()
    with Network() as node, Network(pod) as inside:
        node.apply(node_requests(pod))
        inside.apply(pod_requests())
        for network, requests in ((node, node_requests(pod)), (inside, pod_requests())):
            have = {*network.addresses(), *network.routes(), *network.neighbours(), *network.rules()}
            wanted = {request.value for request in requests if isinstance(request.value, Address | Route | Neighbour | Rule)}
            assert wanted <= have
        links = node.links()
        asked = next(request.value for request in node_requests(pod) if isinstance(request.value, Link) and request.value.name == "veth5")
        assert isinstance(asked, Link)
        found = links["veth5"]
        assert found == with_(asked, index=found.index, peer=None, mac=found.mac, bridge_port=found.bridge_port, queues=1, peer_index=2)
        assert found.bridge_port == BridgePort(
            isolated=True, learning=False, flood=False, hairpin=False, mcast_flood=True, bcast_flood=True, neigh_suppress=False
        )
        assert links["cbr0"].bridge == Bridge(stp=False, vlan_filtering=False, mcast_snooping=False, netfilter=False)
        assert inside.links()["eth0"].mac == POD_MAC
        assert {route.table for route in node.routes(1000)} == {1000}
        assert node.routes(4242) == []
    os.close(pod)


def _state(namespace: int) -> str:
    # What names the machine's choices differs: made-up MAC addresses, times.
    volatile = {
        "ifindex",
        "link_index",
        "valid_life_time",
        "preferred_life_time",
        "gc_timer",
        "hello_timer",
        "bridge_id",
        "root_id",
        "id",
        "no",
    }
    volatile |= {
        "stats64",
        "stats",
        "forward_delay_timer",
        "designated_bridge",
        "designated_root",
        "link_netnsid",
        "message_age_timer",
        "hold_timer",
    }

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            kept = {key: clean(one) for key, one in value.items() if key not in volatile}
            if kept.get("ifname") == "veth5":
                kept.pop("address", None)
            return kept
        return [clean(one) for one in value] if isinstance(value, list) else value

    words = (
        ("link",),
        ("address",),
        ("neighbour",),
        ("rule",),
        ("-6", "rule"),
        ("route", "show", "table", "all"),
        ("-6", "route", "show", "table", "all"),
    )
    return json.dumps([clean(ip(*one, namespace=namespace)) for one in words], indent=1)


def test_the_printed_commands_do_the_same() -> None:
    by_us, by_ip = (namespaces.create_network() for _ in range(2))
    our_pod, their_pod = (namespaces.create_network() for _ in range(2))
    with Network(by_us) as node, Network(our_pod) as inside:
        node.apply(node_requests(our_pod))
        inside.apply(pod_requests())
    os.set_inheritable(their_pod, True)
    for namespace, requests in ((by_ip, node_requests(their_pod)), (their_pod, pod_requests())):
        script = "set -e\n" + "\n".join(map(str, requests))
        done = namespaces.inside(
            namespace, lambda script=script: subprocess.run(["sh", "-c", script], pass_fds=[their_pod], capture_output=True, text=True)
        )
        assert done.returncode == 0, f"{script}\n{done.stderr}"
    assert _state(our_pod) == _state(their_pod)
    assert _state(by_us) == _state(by_ip)
    for fd in (by_us, by_ip, our_pod, their_pod):
        os.close(fd)


def test_a_refusal_says_what_was_asked_and_why() -> None:
    with Network() as network:
        network.apply([change(Link("lo", up=True))])
        address = Address("lo", IPv4Interface("10.0.0.1/32"))
        network.apply([add(address)])
        with pytest.raises(KernelRefused) as refused:
            network.apply([add(address)])
        assert refused.value.errno == 17
        assert refused.value.what == "ip address add 10.0.0.1/32 dev lo"
        assert str(refused.value).startswith("ip address add 10.0.0.1/32 dev lo: File exists (EEXIST)")
        with pytest.raises(
            KernelRefused, match=r"ip route add 10.9.0.0/16 via 1.2.3.4 proto static: .*Nexthop has invalid gateway"
        ) as refused:
            network.apply([add(Route(IPv4Network("10.9.0.0/16"), IPv4Address("1.2.3.4"))), add(address)])
        assert any("also refused: ip address add" in note for note in refused.value.__notes__)
        with pytest.raises(KernelRefused, match=r"ip address add 10.0.0.1/32 dev nope: No such device .*there is no link nope"):
            network.apply([add(Address("nope", IPv4Interface("10.0.0.1/32")))])
        # The door works on after any of them.
        assert address in network.addresses()


def test_what_comes_before_a_refused_request_is_done() -> None:
    with Network() as network:
        with pytest.raises(KernelRefused, match="dev nope"):
            network.apply([add(Link("br0", "bridge")), add(Address("nope", IPv4Interface("10.0.0.1/32")))])
        assert "br0" in network.links()


def test_deleting() -> None:
    link, route = Link("br0", "bridge"), Route(IPv4Network("10.1.0.0/16"), type="blackhole")
    address, neighbour = Address("br0", IPv4Interface("10.0.0.1/24")), Neighbour("br0", IPv4Address("10.0.0.9"), POD_MAC)
    with Network() as network:
        values = [link, address, neighbour, route, Rule(5, 100, 50)]
        network.apply([add(value) for value in values])
        network.apply([change(Link("br0", up=True))])
        network.apply([delete(value) for value in reversed(values)])
        assert "br0" not in network.links()
        assert network.routes(254) == []
        assert network.rules() == []
        for value in values:
            with pytest.raises(KernelRefused):
                network.apply([delete(value)])
        network.apply([delete(value, missing_ok=True) for value in values])


def test_a_link_that_was_made_again_is_not_mistaken() -> None:
    address = Address("br0", IPv4Interface("10.0.0.1/24"))
    with Network() as one, Network() as other:
        one.apply([add(Link("br0", "bridge")), add(address)])
        other.apply([delete(Link("br0")), add(Link("br0", "bridge"))])
        with pytest.raises(KernelRefused, match="No such device"):
            one.apply([replace(address)])
        one.apply([add(address)])
        assert address in other.addresses()


def test_how_links_are_is_told_in_its_turn() -> None:
    there = namespaces.create_network()
    pair = Link("v0", "veth", mtu=1400, mac=BRIDGE_MAC, peer=Link("v1", mac=POD_MAC, namespace_fd=there))
    with Network() as here, Network(there) as far:
        assert not here.has("v0")
        made, up = here.apply([add(pair), show("v0"), change(Link("v0", up=True)), show("v0")])
        assert here.has("v0")
        assert (made.name, made.running, made.mac_and_mtu()) == ("v0", False, (BRIDGE_MAC, 1400))
        assert not up.running, "its peer is down"
        far.learn("v1", made.peer)
        far.apply([add(Address("v1", IPv4Interface("10.0.0.1/32")))])  # by the number that was told
        assert (far.apply([change(Link("v1", up=True)), show("v1")])[0].index, far.links()["v1"].index) == (made.peer, made.peer)
        here.wait_running("v0")
        assert here.apply([show("v0")])[0].running
        assert here.apply([]) == []
        with pytest.raises(KernelRefused, match="ip link show dev nope: No such device"):
            here.apply([show("nope"), show("v0")])
    os.close(there)


def test_the_first_of_many_that_is_refused_is_told_although_the_last_alone_is_acknowledged() -> None:
    routes = [Route(IPv4Network((0x0A000000 + i * 256, 24)), type="blackhole") for i in range(300)]
    with Network() as network:
        network.apply([add(routes[7]), add(routes[150])])
        with pytest.raises(KernelRefused, match=r"blackhole 10\.0\.7\.0/24"):
            network.apply([add(route) for route in routes])
        assert set(network.routes(254)) >= set(routes[:128]), "the rest of its flight was on the way"
        network.apply([add(Route(IPv4Network("10.200.0.0/24"), type="blackhole"))])


def test_settings_of_a_link() -> None:
    with Network() as network:
        network.apply([add(Link("br.0", "bridge")), change(Link("br.0", ipv4_settings=(("rp_filter", 2), ("accept_redirects", 0))))])
        assert [sysctl.read(f"net.ipv4.conf.br/0.{name}") for name in ("rp_filter", "accept_redirects")] == ["2", "0"]
        change_both = change(Link("br.0", up=True, address_mode="none", ipv4_settings=(("rp_filter", 1), ("accept_redirects", 1))))
        network.apply([change_both])
        assert [sysctl.read(f"net.ipv4.conf.br/0.{name}") for name in ("rp_filter", "accept_redirects")] == ["1", "1"]
        assert network.links()["br.0"].address_mode == "none"


def test_many_requests_in_many_flights() -> None:
    routes = [Route(IPv4Network((0x0A000000 + i * 256, 24)), type="blackhole") for i in range(2000)]
    with Network() as network:
        network.apply([add(route) for route in routes])
        assert set(network.routes(254)) == set(routes)
        network.apply([delete(route) for route in routes])
        assert network.routes(254) == []


def test_a_link_moves_to_another_namespace() -> None:
    there = namespaces.create_network()
    with Network() as here, Network(there) as far:
        here.apply([add(Link("v0", "veth", peer=Link("v1"))), change(Link("v1", namespace_fd=there))])
        assert "v1" not in here.links()
        assert "v1" in far.links()
    os.close(there)


def test_a_descriptor_that_is_no_namespace() -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(NamespaceGone):
        Network(fd)
