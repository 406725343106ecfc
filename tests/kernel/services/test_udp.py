"""UDP clients and endpoints that go: no client keeps talking to a dead one."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from kernel.services.test_packets import IP, NODE_PORT, PORT, VIP, Proxies, service
from kernel.services.wires import Wires, ask
from podwire.linux import namespaces
from podwire.linux.conntrack import Conntrack
from podwire.services.connections import ways
from podwire.services.flows import forget
from podwire.services.layout import IPV4
from podwire.views.frontends import ServiceFrontends

OLD = (("10.4.1.2", 1), ("10.4.1.3", 1), ("10.4.2.2", 2))
NEW = (("10.4.1.4", 1), ("10.4.1.5", 1), ("10.4.2.4", 2))


class Server:
    """A UDP server in a Pod that can be ended; ``serve`` answers what has come."""

    def __init__(self, place: Any) -> None:
        self.name = place.name
        self.socket = namespaces.socket_inside(place.fd, socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("0.0.0.0", 8080))
        self.socket.setblocking(False)

    def serve(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                _, sender = self.socket.recvfrom(2048)
                self.socket.sendto(self.name.encode(), sender)


class Client:
    """One socket that asks again and again."""

    def __init__(self, place: Any, address: str, port: int) -> None:
        self.socket = namespaces.socket_inside(place.fd, socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(0.05)
        self.socket.connect((address, port))
        self.answers: list[str] = []

    def ask(self, servers: list[Server]) -> str:
        """What answered, or ``lost``. Everything is in one thread: a datagram is where it goes when ``send`` returns."""
        try:
            self.socket.send(b"?")
            for server in servers:
                server.serve()
            answer = self.socket.recv(2048).decode()
        except (ConnectionRefusedError, TimeoutError):
            answer = "lost"
        self.answers.append(answer)
        return answer


def clean(wires: Wires, view: ServiceFrontends) -> int:
    return sum(forget(IPV4, ways(view, 4), node.fd) for node in wires.nodes.values())


def _replaced(*, forgetting: bool) -> int:
    """Replace all endpoints under one client for each way. Gives how many queries were lost."""
    wires = Wires((VIP,))
    pods = {address: wires.pod(node, address) for address, node in (*OLD, *NEW, ("10.4.1.9", 1))}
    before = service(*OLD, protocol="UDP", node_port=NODE_PORT, vips=(VIP,))
    after = service(*NEW, protocol="UDP", node_port=NODE_PORT, vips=(VIP,))
    proxies = Proxies(wires, before)
    servers = [Server(pods[address]) for address, _ in (*OLD, *NEW)]
    clients = [
        Client(pods["10.4.1.9"], IP, PORT),
        Client(wires.nodes[1], IP, PORT),
        Client(wires.internet, "10.128.0.3", NODE_PORT),
        Client(wires.internet, VIP, PORT),
    ]
    for _ in range(20):
        for client in clients:
            assert client.ask(servers) in dict(OLD)
    for server in servers[: len(OLD)]:  # the endpoints end, then the API says so
        server.socket.close()
    for client in clients:
        assert client.ask(servers[len(OLD) :]) == "lost"
    proxies.put(after)
    if forgetting:
        assert clean(wires, after) == len(clients)
        assert clean(wires, after) == 0
    for _ in range(20):
        for client in clients:
            client.ask(servers[len(OLD) :])
    if forgetting:
        assert all(client.answers[-1] in dict(NEW) for client in clients)
    return max(client.answers.count("lost") for client in clients)


def test_a_client_that_never_pauses_loses_one_query_when_all_endpoints_are_replaced() -> None:
    assert _replaced(forgetting=True) <= 1


def test_without_forgetting_it_loses_all() -> None:
    assert _replaced(forgetting=False) > 10


def test_a_flow_that_began_before_its_port_was_known_is_begun_anew() -> None:
    wires = Wires(("192.0.2.80",))
    pods = {address: wires.pod(node, address) for address, node in (("10.4.1.2", 1), ("10.4.1.9", 1))}
    wires.servers.open(pods["10.4.1.2"], 8080, udp=True)
    view = service(("10.4.1.2", 1), protocol="UDP", node_port=NODE_PORT, external_ips=("192.0.2.80",))
    proxies = Proxies(wires)
    early = Client(wires.internet, "10.128.0.2", NODE_PORT)
    outward = Client(pods["10.4.1.9"], "192.0.2.80", PORT)
    assert {early.ask([]), outward.ask([])} == {"lost"}
    proxies.put(view)
    assert early.ask([]) == "lost"  # connection tracking has made up its mind
    assert clean(wires, view) > 0
    assert early.ask([]).startswith("10.4.1.2")
    assert outward.ask([]).startswith("10.4.1.2")


def test_flows_of_others_stay() -> None:
    wires = Wires()
    pods = {address: wires.pod(node, address) for address, node in (("10.4.1.2", 1), ("10.4.1.9", 1))}
    wires.servers.open(pods["10.4.1.2"], 8080, udp=True)
    wires.servers.open(wires.internet, NODE_PORT, udp=True)
    view = service(("10.4.1.2", 1), protocol="UDP", node_port=NODE_PORT)
    Proxies(wires, view)
    assert ask(pods["10.4.1.9"], IP, PORT, udp=True).startswith("10.4.1.2")
    assert ask(pods["10.4.1.9"], "198.51.100.10", NODE_PORT, udp=True).startswith("internet")
    with Conntrack(wires.nodes[1].fd) as table:

        def flows() -> dict[tuple[str, str], bytes]:
            return {(str(flow.original), str(flow.reply)): flow.original.destination for flow in table.flows("ip")}

        before = flows()
        asked = {socket.inet_aton(address) for address in (IP, "198.51.100.10")}
        assert asked <= set(before.values())
        assert clean(wires, view) == 0
        assert before.keys() <= flows().keys()  # a packet that is late may begin another
