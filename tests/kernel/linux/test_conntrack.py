"""The connection table, with real flows."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from podwire import nft
from podwire.linux.conntrack import Conntrack
from podwire.linux.network import Network
from podwire.linux.nftables import Nftables
from podwire.nft.difference import difference
from podwire.wire.conntrack import UDP, Filter
from podwire.wire.rtnetlink import Link, change

TABLE = nft.table(
    """
    table ip t {
      chain output { type filter hook output priority -150; policy accept; udp dport 5001 ct mark set 0x7; udp dport 5002 ct mark set 0x8; }
    }
    """
)
HERE = ip_address("127.0.0.1").packed


def _flows() -> None:
    with Network() as network:
        network.apply([change(Link("lo", up=True))])
    with Nftables() as kernel:
        for changes in difference(nft.Ruleset(()), nft.Ruleset((TABLE,))):
            kernel.apply(changes)
    for port in (5001, 5002, 5003):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            server.bind(("127.0.0.1", port))
            for _ in range(2):
                client.sendto(b"?", ("127.0.0.1", port))


def test_the_kernel_shows_what_the_filter_says() -> None:
    _flows()
    with Conntrack() as table:
        assert table.count() == 3
        assert {f.original.destination_port: f.mark for f in table.flows("ip")} == {5001: 7, 5002: 8, 5003: 0}
        assert table.flows("ip6") == []
        for wanted, ports in (
            (Filter(mark=(7, 0xFFFFFFFF)), {5001}),
            (Filter(mark=(0, 0xFFFFFFFF)), {5003}),
            (Filter(mark=(0, 0x1)), {5002, 5003}),
            (Filter(protocol=UDP), {5001, 5002, 5003}),
            (Filter(protocol=UDP, destination_port=5002), {5002}),
            (Filter(protocol=UDP, destination=HERE, destination_port=5003), {5003}),
            (Filter(destination=ip_address("192.0.2.1").packed), set()),
        ):
            raw = list(table._dump("ip", wanted))
            assert len(raw) == len(ports), wanted  # the kernel itself leaves out the others
            assert {f.original.destination_port for f in table.flows("ip", wanted)} == ports


def test_flows_are_forgotten_many_at_once_and_only_those() -> None:
    _flows()
    with Conntrack() as table:
        chosen = table.flows("ip", Filter(mark=(7, 0xFFFFFFFF)))
        assert table.delete(chosen) == 1
        assert table.delete(chosen) == 0
        assert [f.mark for f in table.flows("ip")].count(7) == 0
        assert table.count() == 2
        rest = table.flows("ip")
        assert table.delete([one._replace(id=one.id ^ 1) for one in rest]) == 0  # a newer flow between the same ends is another
        assert table.delete(rest * 200) == 2
        assert table.count() == 0
