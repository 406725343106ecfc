"""pod-network: what one Pod costs: namespace, veth pair, bridge port, addresses, routes, neighbours.

The same call that the node's agent (and a container runtime, through the CNI plugin) makes, on a bridge that fills up Pod by Pod,
in namespaces of the benchmark's own. Proof of the final state: a connection from the first Pod to each of the others, and the
number of links. Each round is a process and a bridge of its own; the figures are the medians of the rounds' percentiles.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from ipaddress import IPv4Network

from bench.report import Limit, Report, median, percentile

ROUNDS = 5
PODS = 200
RANGE = IPv4Network("10.4.0.0/24")


def _round() -> list[float]:
    """Attach the Pods; give the seconds that each took."""
    from podwire.linux import namespaces
    from podwire.linux.network import Network
    from podwire.pods.network import PodNetwork

    namespaces.enter_new(pid=False)
    network = PodNetwork([RANGE])
    network.set_up()
    taken, descriptors = [], []
    for number in range(PODS):
        start = time.perf_counter()
        descriptors.append(network.add_new(f"bench/pod-{number}", [RANGE[2 + number]]))
        taken.append(time.perf_counter() - start)
    with Network() as node:
        ports = [link for link in node.links().values() if link.master == "cbr0"]
    if len(ports) != PODS:
        raise SystemExit(f"{len(ports)} ports on the bridge instead of {PODS}")
    _prove(descriptors)
    return taken


def _prove(descriptors: list[int]) -> None:
    """Connect from the first Pod to each other one; the server must see the first Pod's own address."""
    from podwire.linux import namespaces

    for number, descriptor in list(enumerate(descriptors))[1:]:
        server = namespaces.socket_inside(descriptor, socket.AF_INET, socket.SOCK_STREAM)
        server.bind(("0.0.0.0", 8080))
        server.listen()
        seen: list[str] = []
        thread = threading.Thread(target=lambda server=server, seen=seen: seen.append(server.accept()[1][0]))
        thread.start()
        client = namespaces.socket_inside(descriptors[0], socket.AF_INET, socket.SOCK_STREAM)
        client.settimeout(5)
        client.connect((str(RANGE[2 + number]), 8080))
        thread.join()
        client.close()
        server.close()
        if seen != [str(RANGE[2])]:
            raise SystemExit(f"Pod {number} saw {seen} instead of {RANGE[2]}")


def _in_child() -> list[float]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            os.write(writer, json.dumps(_round()).encode())
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    if os.waitpid(child, 0)[1]:
        raise SystemExit("pod-network: a round failed")
    found: list[float] = json.loads(text)
    return found


def run() -> Report:
    """Run the benchmark."""
    rounds = [_in_child() for _ in range(ROUNDS)]
    samples = {
        "add_p50_ms": [1000 * percentile(taken, 0.5) for taken in rounds],
        "add_p99_ms": [1000 * percentile(taken, 0.99) for taken in rounds],
    }
    figures = {name: median(values) for name, values in samples.items()}
    limits = {"add_p50_ms": Limit(most=2), "add_p99_ms": Limit(most=6)}
    return Report("pod-network", figures, samples, {"pods": PODS, "rounds": ROUNDS, "connections_proved": ROUNDS * (PODS - 1)}, limits)
