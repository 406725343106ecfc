"""Two Pods on a node: packets between them pass the node's IP layer and keep their addresses; nothing else passes at all."""

from __future__ import annotations

import os
import socket
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import pytest

from podwire.linux import namespaces
from podwire.linux.errors import KernelRefused
from podwire.linux.network import Network
from podwire.pods import wiring
from podwire.pods.network import AttachmentBroken, NetworkFull, PodNetwork
from podwire.wire.rtnetlink import Link, Route, add, change, delete

RANGE = ip_network("10.4.0.0/24")
ONE, TWO = IPv4Address("10.4.0.2"), IPv4Address("10.4.0.3")


def pods(network: PodNetwork) -> tuple[int, int]:
    second = namespaces.create_network()
    network.add("two", [TWO], second)
    return network.add_new("one", [ONE]), second


def node() -> PodNetwork:
    Path("/proc/sys/net/ipv4/conf/default/rp_filter").write_text("1")  # a hostile start
    Path("/proc/sys/net/ipv4/conf/all/send_redirects").write_text("1")
    network = PodNetwork([RANGE])
    network.set_up()
    return network


def serve(namespace: int, address: IPv4Address) -> socket.socket:
    server = namespaces.socket_inside(namespace, socket.AF_INET, socket.SOCK_STREAM)
    server.bind((str(address), 8080))
    server.listen()
    return server


def connect(namespace: int | None, address: IPv4Address, port: int = 8080, timeout: float = 5) -> socket.socket:
    client = socket.socket() if namespace is None else namespaces.socket_inside(namespace, socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(timeout)
    client.connect((str(address), port))
    return client


def test_a_pod_sees_the_address_of_its_neighbour_and_of_the_node() -> None:
    network = node()
    first, second = pods(network)
    with serve(second, TWO) as server:
        with connect(first, TWO):
            accepted, peer = server.accept()
            accepted.close()
            assert peer[0] == str(ONE)
        with connect(None, TWO):
            accepted, peer = server.accept()
            accepted.close()
            assert peer[0] == "10.4.0.1"


def test_a_packet_between_neighbours_passes_the_nodes_ip_layer() -> None:
    network = node()
    first, second = pods(network)
    with serve(second, TWO):
        connect(first, TWO).close()
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")
        with pytest.raises(OSError, match="timed out"):
            connect(first, TWO, timeout=0.3)


def test_neighbours_cannot_speak_past_the_node() -> None:
    """Even a Pod that writes itself a direct route to its neighbour does not reach it."""
    network = node()
    first, second = pods(network)

    def arrives() -> bool:
        with (
            namespaces.socket_inside(second, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as listener,
            namespaces.socket_inside(first, socket.AF_PACKET, socket.SOCK_RAW) as speaker,
        ):
            listener.bind(("eth0", 0x88B5))
            listener.settimeout(0.3)
            speaker.bind(("eth0", 0))
            for target in (wiring.mac_of(TWO), b"\xff" * 6):
                speaker.send(target + wiring.mac_of(ONE) + b"\x88\xb5" + bytes(46))
            try:
                return bool(listener.recv(100))
            except TimeoutError:
                return False

    assert not arrives()
    with Network() as links:  # the control: the same frames pass between ports that are not isolated
        flags = wiring.BridgePort(isolated=False)
        links.apply([change(Link(wiring.wires(uid, [ONE]).port, bridge_port=flags)) for uid in ("one", "two")])
    assert arrives()


def test_a_pods_connections_use_cubic_and_its_neighbours_are_permanent() -> None:
    network = node()
    first, second = pods(network)
    with serve(second, TWO), connect(first, TWO) as client:
        used = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
        assert used == "cubic"
    with Network() as outer, Network(first) as inner:
        neighbours = outer.neighbours() + inner.neighbours()
        assert {str(found.address) for found in neighbours} >= {"10.4.0.1", "10.4.0.2", "10.4.0.3"}
        assert all(found.permanent for found in neighbours)


def test_a_pod_that_is_gone_is_unreachable_at_once() -> None:
    network = node()
    first, _ = pods(network)
    network.delete("two", [TWO])
    for caller in (None, first):
        with pytest.raises(OSError, match=r"[Nn]o route to host"):
            connect(caller, TWO)
    network.delete("two", [TWO])  # again: what is not there is none


def test_the_first_packet_arrives() -> None:
    """A link that has just got its carrier drops what it is given; a lost SYN is a second of waiting, and a failed probe."""
    network = node()
    for number in range(50):
        address = IPv4Address("10.4.0.2") + number
        namespace = network.add_new(f"pod-{number}", [address])
        with pytest.raises(ConnectionRefusedError):
            connect(None, address, timeout=0.5)
        os.close(namespace)


def test_adding_over_the_remains_of_an_attempt_replaces_them() -> None:
    network = node()
    old = namespaces.create_network()
    network.add("one", [ONE], old)
    new = namespaces.create_network()
    network.add("one", [ONE], new)
    network.check("one", [ONE], new)
    with pytest.raises(AttachmentBroken):
        network.check("one", [ONE], old)


def test_a_failed_attachment_leaves_nothing() -> None:
    network = node()
    namespace = namespaces.create_network()
    with Network() as links:
        before = set(links.links())
        with pytest.raises(KernelRefused):
            network.add("one", [ONE], os.open("/dev/null", os.O_RDONLY))
        network.add("one", [ONE], namespace)
        with pytest.raises(KernelRefused):
            network.add("other", [TWO], namespace)  # its eth0 is there already
        assert set(links.links()) == before | {wiring.wires("one", [ONE]).port}


def test_a_check_names_what_is_missing() -> None:
    network = node()
    first, _ = pods(network)
    network.check("one", [ONE], first)
    with Network(first) as inner:
        inner.apply([delete(Route(ip_network("0.0.0.0/0"), gateway=IPv4Address("10.4.0.1"), link="eth0"))])
    with pytest.raises(AttachmentBroken, match=r"no route through 10\.4\.0\.1 to 0\.0\.0\.0/0 on eth0"):
        network.check("one", [ONE], first)
    network.delete("one", [ONE])
    with pytest.raises(AttachmentBroken, match="is not a port"):
        network.check("one", [ONE], first)


def test_strays_are_removed_and_the_rest_stays() -> None:
    network = node()
    pods(network)
    assert network.strays([wiring.wires("one", [ONE])]) == [TWO]
    with Network() as links:
        assert wiring.wires("one", [ONE]).port in links.links()
        assert wiring.wires("two", [TWO]).port not in links.links()
    again = PodNetwork([RANGE])  # as an agent that comes back does
    again.set_up()
    assert again.strays([wiring.wires("one", [ONE])]) == []


def test_a_namespace_does_not_announce_itself() -> None:
    """No IPv6 address, no detection of duplicates, no membership report: on a bridge with many ports that is a flood."""
    network = node()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as listener:
        pods(network)
        listener.settimeout(0.5)
        with pytest.raises(TimeoutError):
            listener.recv(2000)


def test_one_pod_too_many_is_refused_by_name() -> None:
    network = PodNetwork([ip_network("10.4.0.0/21")])
    network.set_up()
    addresses = [IPv4Address("10.4.0.2") + number for number in range(wiring.PORTS + 1)]
    with Network() as links:  # ports of nobody fill the bridge faster than Pods do
        names = [f"full{number}" for number in range(wiring.PORTS - 1)]
        links.apply([add(Link(name, "veth", peer=Link(f"p{name}"), master=wiring.BRIDGE)) for name in names])
    last = network.add_new("last", addresses[:1])  # kept: its port ends with it
    with pytest.raises(NetworkFull, match="cbr0 has no port left: 1023"):
        network.add_new("one too many", addresses[1:2])
    os.close(last)
