"""A small network of real namespaces: a fabric, two nodes with Pods on a bridge, a client on the internet.

As in the lab: layer 3 only between nodes, a /32 and a route through the node for every Pod, isolated bridge ports.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import socket
import threading
from collections import Counter
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_address

from podwire.linux import namespaces, sysctl
from podwire.linux.network import Network
from podwire.wire.rtnetlink import Address, BridgePort, Link, Route, add, change, replace

CONTROLS = os.environ.get("PODWIRE_CONTROLS") == "1"  # the tables under test are taken away: most of what is asked gets no answer
LIMIT_S = 0.05 if CONTROLS else 1.0
GATEWAY = ip_address("10.128.0.1")
EVERYWHERE = IPv4Network("0.0.0.0/0")


def host(address: str) -> IPv4Interface:
    return IPv4Interface(f"{address}/32")


def host6(address: str) -> IPv6Interface:
    return IPv6Interface(f"{address}/128")


class Place:
    """A network namespace."""

    def __init__(self, name: str, *, forward: bool = False) -> None:
        self.name = name
        self.fd = namespaces.create_network()
        sysctl.write_all(sysctl.hardened(forward=forward), self.fd)
        self.network = Network(self.fd)
        self._up("lo")

    def _up(self, link: str) -> None:
        self.network.apply([change(Link(link, up=True))])

    def connect(self, link: str, other: Place, other_link: str) -> None:
        self.network.apply([add(Link(link, "veth", peer=Link(other_link, namespace_fd=other.fd)))])
        self._up(link)
        other._up(other_link)


class Wires:
    """``node(1)`` and ``node(2)``: Pods ``pod(1, "10.4.1.2")``; ``internet`` has 198.51.100.10. Load-balancer addresses go to node 1."""

    def __init__(self, vips: tuple[str, ...] = ()) -> None:
        self.fabric = Place("fabric", forward=True)
        self.nodes = {1: self._node(1), 2: self._node(2)}
        self.internet = Place("internet")
        self.fabric.connect("inet", self.internet, "eth0")
        self.fabric.network.apply(
            [
                add(Address("inet", host("198.51.100.1"))),
                add(Route(IPv4Network("198.51.100.10/32"), link="inet")),
                *(add(Route(IPv4Network(f"{vip}/32"), gateway=ip_address("10.128.0.2"), link="node1")) for vip in vips),
            ]
        )
        self.internet.network.apply(
            [
                add(Address("eth0", host("198.51.100.10"))),
                add(Route(IPv4Network("198.51.100.1/32"), link="eth0")),
                add(Route(EVERYWHERE, gateway=ip_address("198.51.100.1"), link="eth0")),
            ]
        )
        self.servers = Servers()

    def _node(self, which: int) -> Place:
        node = Place(f"node-{which}", forward=True)
        self.fabric.connect(f"node{which}", node, "eth0")
        address = f"10.128.0.{which + 1}"
        self.fabric.network.apply(
            [
                add(Address(f"node{which}", host(str(GATEWAY)))),
                add(Route(IPv4Network(f"{address}/32"), link=f"node{which}")),
                add(Route(IPv4Network(f"10.4.{which}.0/24"), gateway=ip_address(address), link=f"node{which}")),
            ]
        )
        node.network.apply(
            [
                add(Address("eth0", host(address))),
                add(Route(IPv4Network(f"{GATEWAY}/32"), link="eth0")),
                add(Route(EVERYWHERE, gateway=GATEWAY, link="eth0", source=ip_address(address))),
                add(Link("cbr0", "bridge", up=True)),
                add(Address("cbr0", IPv4Interface(f"10.4.{which}.1/24"))),
            ]
        )
        return node

    def pod(self, which: int, address: str) -> Place:
        node, pod = self.nodes[which], Place(address)
        link = f"veth{address.rpartition('.')[2]}"
        node.connect(link, pod, "eth0")
        node.network.apply([change(Link(link, master="cbr0")), change(Link(link, bridge_port=BridgePort(isolated=True)))])
        bridge = ip_address(f"10.4.{which}.1")
        pod.network.apply(
            [
                add(Address("eth0", host(address))),
                add(Route(IPv4Network(f"{bridge}/32"), link="eth0")),
                add(Route(EVERYWHERE, gateway=bridge, link="eth0")),
            ]
        )
        return pod

    def pod6(self, which: int, number: int) -> Place:
        """A Pod of the second family: ``fd00:10:4:WHICH::NUMBER``, routed by its node."""
        node, address = self.nodes[which], f"fd00:10:4:{which}::{number:x}"
        pod, link, gateway = Place(address), f"v6-{number}", f"fe80::{which}"
        node.connect(link, pod, "eth0")
        node.network.apply([add(Address(link, host6(gateway))), add(Route(IPv6Network(f"{address}/128"), link=link))])
        node.network.apply([replace(Route(IPv6Network("::/0"), link="eth0"))])  # what has no route is never refused, only lost
        pod.network.apply([add(Address("eth0", host6(address))), add(Route(IPv6Network(f"{gateway}/128"), link="eth0"))])
        pod.network.apply([add(Route(IPv6Network("::/0"), gateway=ip_address(gateway), link="eth0"))])
        return pod


class Servers:
    """Answers TCP connections and UDP datagrams with the server's name and the caller's address, from one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        threading.Thread(target=self._serve, daemon=True).start()

    def open(self, place: Place, port: int, *, udp: bool = False) -> None:
        kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        six = ":" in place.name
        one = namespaces.socket_inside(place.fd, socket.AF_INET6 if six else socket.AF_INET, kind)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(("::" if six else "0.0.0.0", port))
        if not udp:
            one.listen(64)
        self._selector.register(one, selectors.EVENT_READ, place.name)

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select(0.05):
                one, name = key.fileobj, key.data
                assert isinstance(one, socket.socket)
                with contextlib.suppress(OSError):
                    if one.type == socket.SOCK_DGRAM:
                        _, sender = one.recvfrom(2048)
                        one.sendto(f"{name} {sender[0]}".encode(), sender)
                    else:
                        accepted, caller = one.accept()
                        accepted.sendall(f"{name} {caller[0]}".encode())
                        accepted.close()


def ask(place: Place, address: str, port: int, *, udp: bool = False, limit_s: float = LIMIT_S, source: int = 0) -> str:
    """Connect or send; give what the server said (its name and whom it saw), or ``refused``, ``no answer``, ``unreachable``."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with namespaces.socket_inside(place.fd, family, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM) as one:
        one.settimeout(limit_s)
        if source:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("0.0.0.0", source))
        try:
            one.connect((address, port))
            if udp:
                one.send(b"?")
            return one.recv(2048).decode()
        except (ConnectionRefusedError, PermissionError):  # the latter is how a sender on the node itself hears of a reject
            return "refused"
        except TimeoutError:
            return "no answer"
        except OSError as error:
            if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
                return "unreachable"
            raise


def spread(place: Place, address: str, port: int, count: int, *, udp: bool = False) -> Counter[str]:
    """Ask so many times; how often each server answered."""
    return Counter(ask(place, address, port, udp=udp).split()[0] for _ in range(3 if CONTROLS else count))
