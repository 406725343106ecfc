"""Packets on a real interface: the kernel filters as the words say, and tcpdump reads what is written."""

import socket
import subprocess
from pathlib import Path

from oracles import program
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


def capture_one(tmp_path: Path) -> Path:
    wanted, other = loopback()
    port = wanted.getsockname()[1]
    with Capture("lo", compile_filter(f"udp dst port {port} and src net 127.0.0.0/8")) as packets:
        wanted.sendto(b"not me", other.getsockname())
        other.sendto(b"me", wanted.getsockname())
        seen = [packets.receive(), packets.receive()]
    assert {one.direction for one in seen} == {0, 4}  # loopback: once sent, once received
    assert all(one.payload.endswith(b"me") and not one.payload.endswith(b"not me") for one in seen)
    assert all(one.time_ns > 1_700_000_000 * 10**9 for one in seen)
    file = tmp_path / "x.pcap"
    file.write_bytes(pcap.header() + b"".join(pcap.record(one) for one in seen))
    assert f"127.0.0.1.{port}: UDP, length 2" in pcap.line(seen[0])
    return file


def test_only_what_the_filter_names_is_seen(tmp_path: Path) -> None:
    capture_one(tmp_path)


def test_tcpdump_reads_what_is_written(tmp_path: Path) -> None:
    file = capture_one(tmp_path)
    # Told to stay root: it cannot become another user where there is only one.
    command = [program("tcpdump"), "-Z", "root", "-nr", str(file)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert text.count("UDP, length 2") == 2


def test_without_the_filter_everything_is_seen() -> None:
    wanted, other = loopback()
    with Capture("lo") as packets:
        wanted.sendto(b"not me", other.getsockname())
        assert packets.receive().payload.endswith(b"not me")
        assert packets.lost() == 0
