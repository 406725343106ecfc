"""A VPC network to send packets through: namespaces ``internet``, ``vpc`` and three nodes, wired as docs/architecture.md says."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Self, TypeVar

from podwire.linux import namespaces, sysctl
from podwire.linux.network import Network
from podwire.vpc import ruleset
from podwire.vpc.agent import Kernel
from podwire.vpc.desired import Fabric, Forwarding, Group, Host
from podwire.wire.rtnetlink import Address, Link, Request, Route, add, change

T = TypeVar("T")
CLIENT, GATEWAY = IPv4Address("198.51.100.10"), IPv4Address("10.128.0.1")
BALANCER, OTHER, NAT = IPv4Address("203.0.113.2"), IPv4Address("203.0.113.3"), IPv4Address("203.0.113.1")
EXTERNAL = IPv4Network("203.0.113.0/24")
EVERYWHERE = IPv4Network("0.0.0.0/0")
LIMIT_S = 5.0
NOTHING_S = 0.3  # how long an answer is waited for that must not come


class World:
    """The namespaces, by name, and the VPC's kernel. ``hosts`` are the nodes as the VPC knows them."""

    def __init__(self) -> None:
        names = ("internet", "vpc", "node-0", "node-1", "node-2")
        self.places = {name: namespaces.create_network() for name in names}
        self.hosts = tuple(Host(f"node-{i}", IPv4Address(f"10.128.0.{i + 2}"), (IPv4Network(f"10.4.{i}.0/24"),)) for i in range(3))
        self._servers: list[Server] = []
        for name, place in self.places.items():
            sysctl.write_all(sysctl.hardened(forward=name != "internet"), place)
        self._wire("internet", "internet", CLIENT, IPv4Address("198.51.100.1"))
        for i, host in enumerate(self.hosts):
            self._wire(host.name, f"vm-{i}", host.address, GATEWAY)
            pod = IPv4Interface(f"10.4.{i}.5/32")
            local = [Route(IPv4Network(address), link="lo", type="local", table=255) for address in (BALANCER, OTHER)]
            self.apply(host.name, [add(Address("lo", pod)), *map(add, local)])
        self.kernel = Kernel(self.places["vpc"])

    def _wire(self, place: str, interface: str, address: IPv4Address, gateway: IPv4Address) -> None:
        far = Link("eth0", namespace_fd=self.places[place])
        self.apply("vpc", [add(Link(interface, "veth", peer=far, up=True)), add(Address(interface, IPv4Interface(gateway)))])
        ends = [change(Link("lo", up=True)), change(Link("eth0", up=True)), add(Address("eth0", IPv4Interface(address)))]
        ways = [add(Route(IPv4Network(gateway), link="eth0")), add(Route(EVERYWHERE, gateway=gateway, link="eth0"))]
        self.apply(place, [*ends, *ways])
        self.apply("vpc", [add(Route(IPv4Network(address), link=interface))])

    def apply(self, place: str, requests: Sequence[Request]) -> None:
        with Network(self.places[place]) as network:
            network.apply(requests)

    def program(self, *forwardings: Forwarding, hosts: Sequence[Host] | None = None, finish: bool = True) -> list[object]:
        """Bring the VPC to these forwarding rules; gives what had to wait."""
        fabric = Fabric(tuple(self.hosts if hosts is None else hosts), forwardings)
        after = self.kernel.bring_to(ruleset.program(fabric, (EXTERNAL,), str(NAT)))
        if finish:
            self.kernel.finish(after)
            return []
        return list(after)

    def forwarding(
        self, protocol: str = "tcp", port: int | None = 80, hosts: Sequence[Host] | None = None, *, by_client: bool = False
    ) -> Forwarding:
        """A forwarding rule at BALANCER to all nodes, or to those given."""
        return Forwarding(BALANCER, protocol, port, Group(tuple(self.hosts if hosts is None else hosts), by_client), "web")

    def inside(self, place: str, action: Callable[[], T]) -> T:
        return namespaces.inside(self.places[place], action)

    def serve(self, place: str, kind: int, port: int) -> None:
        """Answer every line, or datagram, with the place's name and both addresses as the server sees them."""
        listening = namespaces.socket_inside(self.places[place], socket.AF_INET, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kind == socket.SOCK_DGRAM:
            listening.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO: answer from the address that was called
        listening.bind(("0.0.0.0", port))
        if kind == socket.SOCK_STREAM:
            listening.listen(64)
        self._servers.append(Server(place, listening))

    def call(self, place: str, address: IPv4Address, port: int = 80, *, source_port: int = 0) -> list[str]:
        """Connect by TCP and ask once: server's place, the caller's address, the address called. Raises OSError."""
        with self.connect(place, address, port, source_port=source_port) as connection:
            return ask(connection)

    def connect(self, place: str, address: IPv4Address, port: int = 80, *, source_port: int = 0, limit_s: float = LIMIT_S) -> socket.socket:
        """Raises OSError; TimeoutError when nothing answers at all."""
        connection = namespaces.socket_inside(self.places[place], socket.AF_INET, socket.SOCK_STREAM)
        try:
            connection.settimeout(limit_s)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # leave no TIME_WAIT
            connection.bind(("0.0.0.0", source_port))
            connection.connect((str(address), port))
        except OSError:
            connection.close()
            raise
        return connection

    def datagrams(self, place: str) -> socket.socket:
        made = namespaces.socket_inside(self.places[place], socket.AF_INET, socket.SOCK_DGRAM)
        made.settimeout(LIMIT_S)
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        self.kernel.close()


def ask(connection: socket.socket) -> list[str]:
    connection.sendall(b"?\n")
    answer = connection.recv(200)
    if not answer:
        raise ConnectionResetError("the connection ended")
    return answer.decode().split()


class Server:
    """One thread that answers."""

    def __init__(self, name: str, listening: socket.socket) -> None:
        self._name, self._listening = name, listening
        self._selector = selectors.DefaultSelector()
        self._selector.register(listening, selectors.EVENT_READ)
        self._stop, self._stopped = socket.socketpair()
        self._selector.register(self._stopped, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.close()
        self._thread.join(LIMIT_S)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._stopped:
                    return
                self._hear(key.fileobj)  # type: ignore[arg-type]

    def _hear(self, ready: socket.socket) -> None:
        try:
            if ready.type == socket.SOCK_DGRAM:
                _, ancillary, _, caller = ready.recvmsg(200, 100)
                called = socket.inet_ntoa(ancillary[0][2][8:12])
                information = b"\0\0\0\0" + socket.inet_aton(called) + b"\0\0\0\0"
                ready.sendmsg([f"{self._name} {caller[0]} {called}".encode()], [(socket.IPPROTO_IP, 8, information)], 0, caller)
            elif ready is self._listening:
                self._selector.register(ready.accept()[0], selectors.EVENT_READ)
            elif ready.recv(200):
                ready.sendall(f"{self._name} {ready.getpeername()[0]} {ready.getsockname()[0]}".encode())
            else:
                self._drop(ready)
        except OSError:
            if ready is not self._listening:
                self._drop(ready)

    def _drop(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()
