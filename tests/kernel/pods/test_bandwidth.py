"""Pods whose annotations limit how fast they receive and send, with packets: what is too fast is dropped."""

from __future__ import annotations

import contextlib
import os
import socket

from kernel.pods.running import NODE, NODE_IP, Node, eventually, running_node
from podwire.linux import namespaces
from podwire.linux.init_client import InitClient
from podwire.linux.network import Network
from podwire.pods import wiring

PACKETS, BYTES = 4000, 1000
SERVER = {"name": "server", "image": "example.com/server", "ports": [{"containerPort": 8080}]}


def received(interface: str) -> int:
    """The packets that came by an interface of the calling thread's namespace."""
    with open("/proc/thread-self/net/dev") as lines:
        return next(int(line.split(":")[1].split()[1]) for line in lines if line.strip().startswith(f"{interface}:"))


def flood(namespace: int | None, address: str) -> None:
    """Send as many packets as the socket takes at once, out of 4,000."""
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
    sender = socket.socket(type=kind) if namespace is None else namespaces.socket_inside(namespace, socket.AF_INET, kind)
    with sender:
        for _ in range(PACKETS):
            with contextlib.suppress(BlockingIOError):
                sender.sendto(bytes(BYTES), (address, 9))


def both_ways(node: Node, name: str) -> tuple[int, int]:
    """How many packets of a flood into the Pod, and of one out of it, were let pass."""
    pod = node.ready(name)
    uid = pod["metadata"]["uid"]
    with InitClient(f"{node.folder}/init.sock") as first:
        (namespace,) = first.give(f"netns/pod/{uid}").values()
    try:
        before = namespaces.inside(namespace, lambda: received("eth0"))
        flood(None, pod["status"]["podIP"])
        into = namespaces.inside(namespace, lambda: received("eth0")) - before
        before = received(wiring.port_of(uid))
        flood(namespace, NODE_IP)
        return into, received(wiring.port_of(uid)) - before
    finally:
        os.close(namespace)


def test_packets_beyond_the_rate_are_held_back() -> None:
    with running_node() as node:
        # 10,000 bytes a second: of 4,000,000 the burst passes, and what the seconds of a slow machine add.
        limited = {"kubernetes.io/ingress-bandwidth": "80k", "kubernetes.io/egress-bandwidth": "80k"}
        node.create("/api/v1/namespaces/default/pods", manifest("slow", limited))
        node.create("/api/v1/namespaces/default/pods", manifest("plain", {}))
        node.create("/api/v1/namespaces/default/pods", manifest("one-way", {"kubernetes.io/egress-bandwidth": "80k"}))
        into, out = both_ways(node, "slow")
        assert into < PACKETS / 4
        assert out < PACKETS / 4
        into, out = both_ways(node, "plain")
        assert into >= PACKETS
        assert out >= PACKETS
        into, out = both_ways(node, "one-way")
        assert into >= PACKETS
        assert out < PACKETS / 4
        with Network() as network:
            assert [bucket.rate for bucket in network.queues()] == [10_000]


def test_an_annotation_that_is_no_rate_is_refused_by_name() -> None:
    with running_node() as node:
        node.create("/api/v1/namespaces/default/pods", manifest("wrong", {"kubernetes.io/ingress-bandwidth": "fast"}))
        words = "Failed to create pod sandbox: annotation kubernetes.io/ingress-bandwidth 'fast': quantities must match"
        eventually(lambda: any(words in event for event in node.events("wrong")), lambda: node.events("wrong"))
        right = {"metadata": {"annotations": {"kubernetes.io/ingress-bandwidth": "1M"}}}
        node.call("PATCH", "/api/v1/namespaces/default/pods/wrong", right, "application/merge-patch+json")
        node.ready("wrong")


def manifest(name: str, annotations: dict[str, str]) -> dict[str, object]:
    return {"metadata": {"name": name, "annotations": annotations}, "spec": {"nodeName": NODE, "containers": [SERVER]}}
