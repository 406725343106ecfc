"""Packets on a real interface: the kernel filters as the words say."""

import socket

import pytest

from podwire.linux.capture import Capture
from podwire.linux.network import Network
from podwire.wire import pcap
from podwire.wire.filter import compile_filter
from podwire.wire.rtnetlink import Link, change


def loopback() -> tuple[socket.socket, socket.socket]:
    with Network() as network:
        network.apply([change(Link("lo", up=True))])
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    return sockets[0], sockets[1]


@pytest.mark.parametrize("interface", ["lo", ""], ids=["one interface", "all"])
def test_only_what_the_filter_names_is_seen(interface: str) -> None:
    wanted, other = loopback()
    port = wanted.getsockname()[1]
    with Capture(interface, compile_filter(f"udp dst port {port} and src net 127.0.0.0/8")) as packets:
        wanted.sendto(b"not me", other.getsockname())
        other.sendto(b"me", wanted.getsockname())
        seen = [packets.receive(), packets.receive()]
    assert {one.direction for one in seen} == {0, 4}  # loopback: once sent, once received
    assert all(one.payload.endswith(b"me") and not one.payload.endswith(b"not me") for one in seen)
    assert all(one.time_ns > 1_700_000_000 * 10**9 for one in seen)
    assert f"127.0.0.1.{port}: UDP, length 2" in pcap.line(seen[0])


def test_without_the_filter_everything_is_seen() -> None:
    wanted, other = loopback()
    with Capture() as packets:
        wanted.sendto(b"not me", other.getsockname())
        assert packets.receive().payload.endswith(b"not me")
        assert packets.lost() == 0
