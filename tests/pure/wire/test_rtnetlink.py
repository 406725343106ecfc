"""Links, addresses, routes as values: printed as `ip` would, encoded as another implementation reads it, decoded to what they were."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from podwire.wire import netlink
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

NAMES = {2: "eth0", 3: "cbr0"}
MAC = b"\x02\x00\x0a\x04\x00\x05"
PORT = BridgePort(isolated=True)


def index(name: str) -> int:
    return {name: number for number, name in NAMES.items()}[name]


def payloads(request: Request) -> list[tuple[int, int, bytes]]:
    return [tuple(part) for part in request.parts(index)]


def read(kind: type, request: Request, which: int = 0) -> Any:
    """The message as pyroute2 reads it."""
    number, flags, payload = payloads(request)[which]
    message = kind(netlink.message(number, flags, 1, payload))
    message.decode()
    return message


addresses = st.ip_addresses()
networks = st.one_of(
    st.builds(lambda a, n: ip_network((int(a) >> (32 - n) << (32 - n), n)), st.ip_addresses(v=4), st.integers(0, 32)),
    st.builds(lambda a, n: IPv6Network((int(a) >> (128 - n) << (128 - n), n)), st.ip_addresses(v=6), st.integers(0, 128)),
)
words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)


@st.composite
def routes(draw: st.DrawFn) -> Route:
    destination = draw(networks)
    own = st.ip_addresses(v=destination.version)
    kind = draw(st.sampled_from(["unicast", "local", "blackhole", "unreachable", "prohibit", "throw"]))
    return Route(
        destination,
        gateway=draw(st.none() | own),
        link=draw(st.sampled_from(["", "eth0", "cbr0"])) if kind in {"unicast", "local"} else "",
        table=draw(st.integers(1, 1 << 31)),
        protocol=draw(st.integers(0, 255)),
        on_link=draw(st.booleans()),
        congestion=draw(st.just("") | words),
        mtu=draw(st.integers(0, 65535)),
        type=kind,
        source=draw(st.none() | own),
        metric=draw(st.integers(0, 1 << 31).filter(lambda n: n != 1024)),
    )


@given(routes())
def test_a_route_is_read_back(route: Route) -> None:
    assert Route.decode(payloads(add(route))[0][2], NAMES) == route


@given(
    st.builds(
        Address,
        st.sampled_from(["eth0", "cbr0"]),
        st.builds(IPv4Interface, st.tuples(st.ip_addresses(v=4), st.integers(0, 32))),
        st.booleans(),
    )
)
def test_an_address_is_read_back(address: Address) -> None:
    assert Address.decode(payloads(add(address))[0][2], NAMES) == address


@given(st.builds(Neighbour, st.just("eth0"), addresses, st.binary(min_size=6, max_size=6)))
def test_a_neighbour_is_read_back(neighbour: Neighbour) -> None:
    assert Neighbour.decode(payloads(add(neighbour))[0][2], NAMES) == neighbour


whole = st.integers(0, 0xFFFFFFFF)


@given(st.builds(Rule, whole, whole, whole, st.sampled_from([4, 6]), whole))
def test_a_rule_is_read_back(rule: Rule) -> None:
    assert Rule.decode(payloads(add(rule))[0][2]) == rule


def test_a_veth_pair_as_another_implementation_reads_it() -> None:
    link = Link("veth1", "veth", mtu=1460, master="cbr0", mac=MAC, peer=Link("eth0", index=2, mac=MAC, mtu=1400, namespace_fd=7))
    message = read(ifinfmsg, add(link))
    assert message["header"]["flags"] == netlink.CREATE | netlink.EXCL
    assert message.get_attr("IFLA_IFNAME") == "veth1"
    assert message.get_attr("IFLA_MTU") == 1460
    assert message.get_attr("IFLA_MASTER") == 3
    assert message.get_attr("IFLA_NUM_TX_QUEUES") == 1
    assert message.get_attr("IFLA_ADDRESS") == MAC.hex(":")
    info = message.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    peer = info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert peer["index"] == 2
    assert peer["flags"] == 0
    assert (peer.get_attr("IFLA_IFNAME"), peer.get_attr("IFLA_MTU"), peer.get_attr("IFLA_NET_NS_FD")) == ("eth0", 1400, 7)


def test_a_port_is_made_then_set_then_up() -> None:
    link = Link("veth1", "veth", master="cbr0", peer=Link("eth0"), address_mode="none", bridge_port=BridgePort(isolated=True), up=True)
    made, moded, up = (read(ifinfmsg, add(link), which) for which in range(3))
    assert (made["flags"], made["change"]) == (0, 0)
    assert (moded["flags"], moded["change"]) == (0, 0)
    assert moded["header"]["flags"] == 0
    port = moded.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_SLAVE_DATA")
    assert port.get_attr("IFLA_BRPORT_ISOLATED") == 1
    assert port.get_attr("IFLA_BRPORT_LEARNING") is None
    assert (up["flags"], up["change"]) == (1, 1)
    assert len(payloads(add(link))) == 3


def test_a_link_that_goes_down_does_so_first() -> None:
    (only,) = payloads(change(Link("eth0", up=False, address_mode="none")))
    message = ifinfmsg(netlink.message(*only[:2], 1, only[2]))
    message.decode()
    assert (message["flags"], message["change"]) == (0, 1)


def test_a_bridge_as_another_implementation_reads_it() -> None:
    data = read(ifinfmsg, add(Link("br", "bridge", bridge=Bridge(stp=False, mcast_snooping=False, netfilter=True)))).get_attr(
        "IFLA_LINKINFO"
    )
    options = data.get_attr("IFLA_INFO_DATA")
    assert options.get_attr("IFLA_BR_STP_STATE") == 0
    assert options.get_attr("IFLA_BR_MCAST_SNOOPING") == 0
    assert options.get_attr("IFLA_BR_NF_CALL_IPTABLES") == 1
    assert options.get_attr("IFLA_BR_VLAN_FILTERING") is None


def test_a_route_as_another_implementation_reads_it() -> None:
    route = Route(
        IPv4Network("10.4.0.0/14"), IPv4Address("10.128.0.1"), "eth0", table=1000, on_link=True, congestion="cubic", mtu=1400, metric=7
    )
    message = read(rtmsg, replace(route))
    assert message["header"]["flags"] == netlink.CREATE | netlink.REPLACE
    assert (message["dst_len"], message["proto"], message["type"], message["scope"], message["flags"]) == (14, 4, 1, 0, 4)
    assert message.get_attr("RTA_DST") == "10.4.0.0"
    assert message.get_attr("RTA_GATEWAY") == "10.128.0.1"
    assert message.get_attr("RTA_TABLE") == 1000
    assert message.get_attr("RTA_PRIORITY") == 7
    metrics = message.get_attr("RTA_METRICS")
    assert metrics.get_attr("RTAX_MTU") == 1400
    assert [value.rstrip("\0") if isinstance(value, str) else value for name, value in metrics["attrs"] if name == "RTAX_CC_ALGO"]


def test_an_address_a_neighbour_and_a_rule_as_another_implementation_reads_them() -> None:
    message = read(ifaddrmsg, add(Address("eth0", IPv6Interface("2001:db8::5/64"))))
    assert (message["family"], message["prefixlen"], message["index"]) == (10, 64, 2)
    assert message.get_attr("IFA_LOCAL") == "2001:db8::5"
    assert message.get_attr("IFA_FLAGS") == 2
    message = read(ndmsg, add(Neighbour("cbr0", IPv4Address("10.4.0.5"), MAC)))
    assert (message["ifindex"], message["state"]) == (3, 0x80)
    assert (message.get_attr("NDA_DST"), message.get_attr("NDA_LLADDR")) == ("10.4.0.5", MAC.hex(":"))
    message = read(ndmsg, add(BridgeEntry("eth0", MAC)))
    assert (message["family"], message["state"], message["flags"]) == (7, 0x40, 4)
    message = read(fibmsg, add(Rule(0x10, 100, 500)))
    assert (message.get_attr("FRA_FWMARK"), message.get_attr("FRA_TABLE"), message.get_attr("FRA_PRIORITY")) == (0x10, 100, 500)


@pytest.mark.parametrize(
    ("request_", "printed"),
    [
        (
            add(Link("v1", "veth", peer=Link("eth0", namespace_fd=7, mac=MAC), master="cbr0", up=True, bridge_port=PORT)),
            "ip link add name v1 numtxqueues 1 numrxqueues 1 master cbr0 type veth peer name eth0 numtxqueues 1 numrxqueues 1 "
            "address 02:00:0a:04:00:05 netns /proc/self/fd/7 && "
            "ip link set dev v1 up type bridge_slave isolated on",
        ),
        (
            add(Link("br", "bridge", up=True, address_mode="none", alias="a b", alternative_names=("other",))),
            "ip link add name br type bridge && ip link set dev br alias 'a b' addrgenmode none && ip link set dev br up && "
            "ip link property add dev br altname other",
        ),
        (add(Link("cbr0", "bridge", bridge=Bridge(stp=False))), "ip link add name cbr0 type bridge stp_state 0"),
        (change(Link("eth0", master="", mtu=1400, up=False)), "ip link set dev eth0 mtu 1400 nomaster down"),
        (delete(Link("eth0")), "ip link delete dev eth0"),
        (show("eth0"), "ip link show dev eth0"),
        (change(Link("eth0.5", up=True, ipv4_settings=(("rp_filter", 0),))),
         "ip link set dev eth0.5 up && sysctl -w net.ipv4.conf.eth0/5.rp_filter=0"),
        (add(Address("eth0", IPv4Interface("10.4.0.5/32"))), "ip address add 10.4.0.5/32 dev eth0"),
        (delete(Address("eth0", IPv6Interface("::1/128"))), "ip address delete ::1/128 dev eth0"),
        (replace(Route(IPv4Network("0.0.0.0/0"), IPv4Address("10.0.0.1"), "eth0", congestion="cubic")),
         "ip route replace default via 10.0.0.1 dev eth0 proto static congctl cubic"),
        (add(Route(IPv4Network("203.0.113.5/32"), link="lo", type="local", table=255, protocol=66)),
         "ip route add local 203.0.113.5/32 dev lo table 255 proto 66"),
        (add(Route(IPv6Network("2001:db8::/64"), type="unreachable")), "ip -6 route add unreachable 2001:db8::/64 proto static"),
        (add(Neighbour("cbr0", IPv4Address("10.4.0.5"), MAC)), "ip neighbour add 10.4.0.5 dev cbr0 lladdr 02:00:0a:04:00:05 nud permanent"),
        (add(BridgeEntry("v1", MAC)), "bridge fdb add 02:00:0a:04:00:05 dev v1 master static"),
        (add(Rule(16, 100, 5, mask=0xFF)), "ip rule add priority 5 fwmark 0x10/0xff table 100"),
    ],
)  # fmt: skip
def test_the_printed_form(request_: Request, printed: str) -> None:
    assert str(request_) == printed


@pytest.mark.parametrize("name", ["", "a" * 16, "a/b", "..", "a b"])
def test_a_name_that_no_link_can_have(name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a link"):
        Link(name)


def test_what_cannot_be_asked() -> None:
    with pytest.raises(ValueError, match="settings of IPv4"):
        Link("v1", ipv4_settings=(("forwarding", 1),))
    with pytest.raises(ValueError, match="cannot be made up"):
        Link("v1", "veth", peer=Link("eth0", up=True))
    with pytest.raises(ValueError, match="another address family"):
        Route(IPv4Network("10.0.0.0/8"), IPv6Address("::1"))
    with pytest.raises(ValueError, match="type 'nat' is none of"):
        Route(IPv4Network("10.0.0.0/8"), type="nat")
    with pytest.raises(ValueError, match="address mode"):
        Link("eth0", address_mode="sometimes")
