"""rolling: all endpoints of a busy Service are replaced under load; how many connections are lost.

Ten endpoints answer behind a ClusterIP while clients open connections as fast as they can, each of which must bring an answer. One
endpoint after the other is replaced: the new one listens, the API names it beside the old one, then without the old one, which ends a
moment later when what it had accepted is answered. ``lost_connections``: those that were refused, reset or not answered in a second, of
at least 20,000. Proof: at the end only new endpoints answer, and all of them.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import threading
import time
from ipaddress import IPv4Interface, IPv4Network

from bench.isolated import in_child
from bench.report import Limit, Report
from bench.service_objects import cluster_ip, piece, service
from bench.service_path import CLIENT, node, wire
from bench.service_sync import direct

CONNECTIONS, CLIENTS, ENDPOINTS = 20_000, 2, 10
LATE_S, GRACE_S = 0.01, 0.05
SERVER, PORT, TARGET = "10.4.0.20", 8080, 0


def _old(row: int) -> str:
    return f"10.4.1.{row + 1}"


def _new(row: int) -> str:
    return f"10.4.2.{row + 1}"


class _Servers(threading.Thread):
    """Answers every connection with the address that it came to."""

    def __init__(self, pod: int) -> None:
        super().__init__(daemon=True)
        self._pod, self._selector, self._listening = pod, selectors.DefaultSelector(), dict[str, socket.socket]()
        self._ending: list[str] = []

    def open(self, address: str) -> None:
        from podwire.linux import namespaces

        one = namespaces.socket_inside(self._pod, socket.AF_INET, socket.SOCK_STREAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, PORT))
        one.listen(4096)
        one.setblocking(False)
        self._listening[address] = one
        self._selector.register(one, selectors.EVENT_READ, address)

    def end(self, address: str) -> None:
        """Stop listening; the thread itself closes, when nothing waits to be accepted."""
        self._ending.append(address)

    def run(self) -> None:
        while True:
            ready = self._selector.select(0.01)
            for key, _ in ready:
                self._answer(key.fileobj, key.data)  # type: ignore[arg-type]
            while self._ending:
                address = self._ending.pop()
                one = self._listening.pop(address)
                self._answer(one, address)
                self._selector.unregister(one)
                one.close()

    def _answer(self, listening: socket.socket, address: str) -> None:
        while True:
            try:
                one, _ = listening.accept()
            except BlockingIOError:
                return
            with one:
                one.send(address.encode())


def _client(pod: int, stop: int) -> dict[str, int]:
    """Connect until told to stop; how often each answered, and how many connections were lost."""
    from podwire.linux import namespaces

    namespaces.enter(pod)
    os.set_blocking(stop, False)
    way, found, last = (cluster_ip(TARGET), 80), {"lost": 0}, "last "
    while True:
        ending = _told(stop)
        for _ in range(500):
            try:
                with socket.socket() as one:
                    one.settimeout(1)
                    one.connect(way)
                    name = one.recv(64).decode() or "lost"
            except OSError:
                name = "lost"
            found[name] = found.get(name, 0) + 1
            if ending:
                found[last + name] = 1
        if ending:
            return found


def _told(stop: int) -> bool:
    try:
        return bool(os.read(stop, 1))
    except BlockingIOError:
        return False


def _measure() -> dict[str, float]:
    from podwire.linux.network import Network
    from podwire.wire.rtnetlink import Address, Route, add

    node()
    client, server = wire(CLIENT, "client"), wire(SERVER, "server")
    with Network() as outside, Network(server) as inside:
        outside.apply([add(Route(IPv4Network("10.4.0.0/16"), link="server"))])
        names = [name(row) for name in (_old, _new) for row in range(ENDPOINTS)]
        inside.apply([add(Address("eth0", IPv4Interface(f"{name}/32"))) for name in names])
    pipes = [(os.pipe(), os.pipe()) for _ in range(CLIENTS)]
    children = [_fork_client(client, stop[0], answer[1]) for stop, answer in pipes]
    servers = _Servers(server)
    for row in range(ENDPOINTS):
        servers.open(_old(row))
    servers.start()
    proxy = direct()
    now = [_old(row) for row in range(ENDPOINTS)]
    proxy.load([service(TARGET)], [piece(TARGET, now)])
    began = time.perf_counter()
    for child in children:
        os.kill(child, signal.SIGCONT)
    rounds = 0
    while rounds < ENDPOINTS or time.perf_counter() - began < CONNECTIONS / 4000:
        old, new = (_old, _new) if (rounds // ENDPOINTS) % 2 == 0 else (_new, _old)
        servers.open(new(rounds % ENDPOINTS))
        both = [*now, new(rounds % ENDPOINTS)]
        for addresses in (both, [each for each in both if each != old(rounds % ENDPOINTS)]):
            proxy.put_slice(piece(TARGET, addresses))
            time.sleep(LATE_S)
            proxy.expire()
            now = addresses
        time.sleep(GRACE_S)
        servers.end(old(rounds % ENDPOINTS))
        rounds += 1
    for stop, answer in pipes:
        os.write(stop[1], b"!")
        os.close(answer[1])
    found = [_answer_of(child, answer) for child, (_, answer) in zip(children, pipes, strict=True)]
    last = {name.removeprefix("last ") for one in found for name in one if name.startswith("last ")}
    if last != set(now):
        raise SystemExit(f"at the end {sorted(last)} answer instead of {sorted(now)}")
    counted = sum(count for one in found for name, count in one.items() if not name.startswith("last "))
    lost = sum(one["lost"] for one in found)
    return {"lost_connections": lost, "connections": counted, "replaced": rounds, "s": time.perf_counter() - began}


def _fork_client(pod: int, stop: int, answer: int) -> int:
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
        try:
            os.write(answer, json.dumps(_client(pod, stop)).encode())
        finally:
            os._exit(0)
    os.waitpid(child, os.WUNTRACED)
    return child


def _answer_of(child: int, answer: tuple[int, int]) -> dict[str, int]:
    with os.fdopen(answer[0], "rb") as pipe:
        found: dict[str, int] = json.loads(pipe.read())
    os.waitpid(child, 0)
    return found


def run() -> Report:
    """Run the benchmark."""
    found = in_child(_measure, fresh_network=True)
    figures = {name: found[name] for name in ("lost_connections", "connections", "replaced")}
    limits = {"lost_connections": Limit(most=0), "connections": Limit(least=CONNECTIONS)}
    return Report("rolling", figures, {"s": [found["s"]]}, {"endpoints": ENDPOINTS, "clients": CLIENTS}, limits)
