"""service-path: what the way through a ClusterIP costs a packet.

A client Pod and a server Pod on one node, routed. ``extra_us``: the median time of a TCP connect through the ClusterIP less that to the
Pod's own address, alternating, with the same tables loaded: the larger of the values at 100 and at 30,000 Services. ``stream_ratio``: what
one TCP stream carries through the ClusterIP, as a share of what it carries directly. Medians of five rounds. Proof: the server saw the
client's own address on every connection.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from ipaddress import IPv4Interface, IPv4Network, ip_address

from bench.isolated import in_child
from bench.report import Limit, Report, median, percentile
from bench.service_objects import objects, piece, service
from bench.service_sync import direct

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
CONNECTS, WARM = 3000, 200
STREAMS, STREAM_S, STREAM_BYTES = 3, 0.4, 1 << 20
CLIENT, SERVER, PORT = "10.64.0.10", "10.4.0.20", 8080
TARGET = 0  # the Service under test


def wire(address: str, link: str) -> int:
    """Make a Pod's namespace behind this one, routed; give its descriptor."""
    from podwire.linux import namespaces, sysctl
    from podwire.linux.network import Network
    from podwire.wire.rtnetlink import Address, Link, Route, add, change

    pod = namespaces.create_network()
    sysctl.write_all(sysctl.hardened(forward=False), pod)
    gateway = ip_address("169.254.1.1")
    with Network() as node, Network(pod) as inside:
        node.apply(
            [add(Link(link, "veth", peer=Link("eth0", namespace_fd=pod), up=True)), add(Address(link, IPv4Interface(f"{gateway}/32")))]
        )
        node.apply([add(Route(IPv4Network(f"{address}/32"), link=link))])
        inside.apply([change(Link("lo", up=True)), change(Link("eth0", up=True)), add(Address("eth0", IPv4Interface(f"{address}/32")))])
        inside.apply([add(Route(IPv4Network(f"{gateway}/32"), link="eth0")), add(Route(IPv4Network("0.0.0.0/0"), gateway, "eth0"))])
    return pod


def node() -> None:
    """Make this namespace a node."""
    from podwire.linux import sysctl
    from podwire.linux.network import Network
    from podwire.wire.rtnetlink import Link, change

    sysctl.write_all(sysctl.hardened(forward=True))
    with Network() as network:
        network.apply([change(Link("lo", up=True))])


def _listen(pod: int, port: int) -> socket.socket:
    from podwire.linux import namespaces

    one = namespaces.socket_inside(pod, socket.AF_INET, socket.SOCK_STREAM)
    _cubic(one)
    one.bind(("0.0.0.0", port))
    one.listen(4096)
    return one


def _cubic(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")


def _serve(listening: socket.socket) -> None:
    """Accept and close, in a process of its own."""
    while True:
        one, peer = listening.accept()
        if peer[0] != CLIENT:
            os._exit(2)
        one.close()


def _drain(listening: socket.socket) -> None:
    """Take off what the server was too late for: a stream is to meet its own connection."""
    listening.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            listening.accept()[0].close()
    listening.setblocking(True)


def _measure(services: int) -> dict[str, float]:
    from bench.service_objects import cluster_ip
    from podwire.linux import namespaces

    node()
    client, server = wire(CLIENT, "client"), wire(SERVER, "server")
    proxy = direct()
    proxy.load(*objects(services, 1))
    proxy.put_slice(piece(TARGET, [SERVER]))
    proxy.put_service(service(TARGET))
    listening = _listen(server, PORT)
    child = os.fork()
    if child == 0:
        _serve(listening)
    namespaces.enter(client)
    direct_way, through = (SERVER, PORT), (cluster_ip(TARGET), 80)
    taken: dict[tuple[str, int], list[float]] = {direct_way: [], through: []}
    for turn in range(2 * (CONNECTS + WARM)):
        way = (direct_way, through)[turn % 2]
        one = socket.socket()
        began = time.perf_counter()
        one.connect(way)
        taken[way].append(time.perf_counter() - began)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        one.close()
    if os.waitpid(child, os.WNOHANG)[0]:
        raise SystemExit("the server saw another address than the client's")
    os.kill(child, 9)
    os.waitpid(child, 0)
    _drain(listening)
    plain, translated = (1e6 * percentile(taken[way][WARM:], 0.5) for way in (direct_way, through))
    found = {"direct_us": plain, "extra_us": translated - plain}
    return found | _streams(server, listening, through)


def _streams(server: int, service_port: socket.socket, through: tuple[str, int]) -> dict[str, float]:
    listening = _listen(server, PORT + 1)
    ways = ((listening, (SERVER, PORT + 1)), (service_port, through))
    rates = [[_stream(listener, way) for listener, way in ways] for _ in range(STREAMS)]
    plain, translated = (median([rate[which] for rate in rates]) for which in (0, 1))
    return {"gbit_s": 8e-9 * plain, "stream_ratio": translated / plain}


def _stream(listener: socket.socket, way: tuple[str, int]) -> float:
    """Bytes a second of one stream."""
    received = [0]

    def receive() -> None:
        one, _ = listener.accept()
        buffer = bytearray(STREAM_BYTES)
        with one:
            while select.select([one], [], [], 5)[0] and (count := one.recv_into(buffer)):
                received[0] += count

    thread = threading.Thread(target=receive)
    thread.start()
    data = bytes(STREAM_BYTES)
    with socket.socket() as one:
        _cubic(one)
        one.settimeout(60)  # nobody reads: then this fails, and does not hang
        one.connect(way)
        began = time.perf_counter()
        while time.perf_counter() - began < STREAM_S:
            one.sendall(data)
    thread.join()
    return received[0] / (time.perf_counter() - began)


def run() -> Report:
    """Run the benchmark."""
    samples: dict[str, list[float]] = {}
    for services in (100, 30_000):
        for _ in range(ROUNDS):
            found = in_child(_measure, services, fresh_network=True)
            for name, value in found.items():
                samples.setdefault(f"{name}_{services}", []).append(value)
    figures = {name: median(values) for name, values in samples.items()}
    figures["extra_us"] = max(figures["extra_us_100"], figures["extra_us_30000"])
    figures["stream_ratio"] = min(figures["stream_ratio_100"], figures["stream_ratio_30000"])
    limits = {"extra_us": Limit(most=6), "stream_ratio": Limit(least=0.85)}
    return Report("service-path", figures, samples, {"connects": CONNECTS, "rounds": ROUNDS}, limits)
