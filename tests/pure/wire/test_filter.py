"""Capture filters: the compiled program and the meaning of the words agree on every packet."""

from __future__ import annotations

import struct
import subprocess
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles import program
from podwire.wire import filter as filters
from podwire.wire import pcap

HOSTS = ["10.4.0.2", "10.4.1.3", "fd00::2", "fd00:0:0:1::3"]


def run(program: tuple[filters.Instruction, ...], ethertype: int, packet: bytes) -> bool:
    """Interpret a program as the kernel does: a load beyond the packet refuses it."""
    accumulator = index = at = 0
    while True:
        one = program[at]
        at += 1
        if one.code == 0x06:
            return one.value > 0
        if one.code == 0x28 and one.value == 0xFFFFF000:
            accumulator = ethertype
        elif one.code in {0x20, 0x28, 0x30, 0x48}:
            size = {0x20: 4, 0x28: 2, 0x30: 1, 0x48: 2}[one.code]
            place = one.value + (index if one.code == 0x48 else 0)
            if place + size > len(packet):
                return False
            accumulator = int.from_bytes(packet[place : place + size], "big")
        elif one.code == 0xB1:
            index = (packet[one.value] & 15) * 4
        elif one.code == 0x54:
            accumulator &= one.value
        elif one.code == 0x05:
            at += one.value
        else:
            holds = {0x15: accumulator == one.value, 0x35: accumulator >= one.value, 0x45: bool(accumulator & one.value)}[one.code]
            at += one.when_true if holds else one.when_false


def packet(source: str, destination: str, protocol: int, sport: int, dport: int, fragment: int = 0) -> tuple[int, bytes]:
    first, second = ip_address(source), ip_address(destination)
    body = struct.pack(">HHIIBBHHH", sport, dport, 0, 0, 0x50, 2, 0, 0, 0)
    if isinstance(first, IPv4Address):
        head = struct.pack(">BBHHHBBH", 0x46, 0, 24 + len(body), 0, fragment, 64, protocol, 0)
        return 0x0800, head + first.packed + second.packed + b"\0\0\0\0" + body
    assert isinstance(first, IPv6Address)
    return 0x86DD, struct.pack(">IHBB", 6 << 28, len(body), protocol, 64) + first.packed + second.packed + body


def means(expression: filters.Expression, ends: tuple[str, str], protocol: int, ports: tuple[int, int], fragment: int) -> bool:
    """What the words say, without any program."""
    version = ip_address(ends[0]).version
    match expression:
        case filters.Not(inner):
            return not means(inner, ends, protocol, ports, fragment)
        case filters.Both(left, right):
            return means(left, ends, protocol, ports, fragment) and means(right, ends, protocol, ports, fragment)
        case filters.Either(left, right):
            return means(left, ends, protocol, ports, fragment) or means(right, ends, protocol, ports, fragment)
        case filters.Network(ethertype):
            return ethertype == {4: 0x0800, 6: 0x86DD}[version]
        case filters.Transport(wanted):
            return protocol == wanted and (version, wanted) not in {(4, 58), (6, 1)}
        case filters.Within(way, network):
            chosen = {"src": ends[:1], "dst": ends[1:], "": ends}[way]
            return network.version == version and any(ip_address(end) in network for end in chosen)
        case filters.Ports(way, first, last, protocols):
            numbers = {"src": ports[:1], "dst": ports[1:], "": ports}[way]
            return protocol in protocols and not (version == 4 and fragment) and any(first <= number <= last for number in numbers)


values = st.one_of(
    st.sampled_from(["ip", "ip6", "arp", "tcp", "udp", "icmp", "icmp6"]),
    st.tuples(st.sampled_from(["", "src ", "dst "]), st.sampled_from(HOSTS)).map(lambda pair: f"{pair[0]}host {pair[1]}"),
    st.tuples(st.sampled_from(["", "src ", "dst "]), st.sampled_from(["10.4.0.0/24", "0.0.0.0/0", "fd00::/64", "10.4.0.0/15"])).map(
        lambda pair: f"{pair[0]}net {pair[1]}"
    ),
    st.tuples(st.sampled_from(["", "tcp ", "udp ", "ip6 "]), st.sampled_from(["", "src ", "dst "]), st.integers(79, 82)).map(
        lambda three: f"{three[0]}{three[1]}port {three[2]}"
    ),
    st.just("portrange 80-81"),
)
texts = st.recursive(
    values,
    lambda inner: st.one_of(
        inner.map(lambda text: f"not ({text})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda three: "({} {} {})".format(*three)),
    ),
    max_leaves=6,
)


@given(
    text=texts,
    family=st.sampled_from([0, 2]),
    turned=st.booleans(),
    protocol=st.sampled_from([6, 17, 1, 58, 132]),
    ports=st.tuples(st.integers(79, 82), st.integers(79, 82)),
    fragment=st.sampled_from([0, 0, 5]),
)
def test_program_and_words_agree(text: str, family: int, turned: bool, protocol: int, ports: tuple[int, int], fragment: int) -> None:
    ends = (HOSTS[family], HOSTS[family + 1])[:: -1 if turned else 1]
    ethertype, content = packet(*ends, protocol, *ports, fragment)
    expression = filters.parse(text)
    assert expression is not None
    assert run(filters.compile_filter(text), ethertype, content) == means(expression, ends, protocol, ports, fragment)


def test_an_empty_filter_passes_everything() -> None:
    assert run(filters.compile_filter(" "), 0x0806, b"")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot 80", "filter: unexpected 'prot': expected one of ip, ip6, arp, tcp"),
        ("tcp port http", "filter: port 'http': expected a number from 0 to 65535"),
        ("host 10.4.0.0/24", "filter: host '10.4.0.0/24': expected an address; for a range say net"),
        ("net 10.4.0", "filter: net '10.4.0': expected a range such as 10.4.0.0/24"),
        ("src", "filter: src must be followed by host, net, port, portrange, got 'the end'"),
        ("tcp or", "filter: unexpected the end"),
        ("(tcp", "filter: a ( without its )"),
        ("tcp udp", "filter: unexpected 'udp' after a whole expression"),
        ("icmp port 3", "filter: icmp has no ports"),
        ("portrange 9-8", "filter: portrange '9-8': the first port is the greater one"),
        ("port 70000", "filter: port '70000'"),
    ],
)
def test_what_is_not_understood_is_named(text: str, message: str) -> None:
    with pytest.raises(filters.BadFilter) as refused:
        filters.compile_filter(text)
    assert str(refused.value).startswith(message)


def test_a_file_reads_back_and_a_packet_prints() -> None:
    ethertype, content = packet("10.4.0.2", "10.4.1.3", 6, 40000, 80)
    one = pcap.Packet(1_700_000_000_123_456_789, 3, ethertype, 4, content, len(content), source=b"\x42\x01\n\x04\x00\x02")
    assert list(pcap.read(pcap.header() + pcap.record(one))) == [one]
    assert pcap.line(one) == "10.4.0.2.40000 > 10.4.1.3.80: TCP [S], length 0"
    ethertype, content = packet("fd00::2", "fd00:0:0:1::3", 17, 53, 9)
    assert pcap.line(pcap.Packet(0, 1, ethertype, 0, content, len(content))) == "fd00::2.53 > fd00:0:0:1::3.9: UDP, length 12"
    with pytest.raises(ValueError, match="no pcap file"):
        list(pcap.read(b"x" * 40))


def test_tcpdump_reads_what_is_written(tmp_path: Path) -> None:
    ethertype, content = packet("10.4.0.2", "10.4.1.3", 17, 40000, 80)
    file = tmp_path / "x.pcap"
    file.write_bytes(pcap.header() + pcap.record(pcap.Packet(1_700_000_000_123_456_789, 3, ethertype, 4, content, len(content))))
    text = subprocess.run([program("tcpdump"), "-nr", str(file)], capture_output=True, text=True, check=True).stdout
    assert "Out IP 10.4.0.2.40000 > 10.4.1.3.80: " in text
