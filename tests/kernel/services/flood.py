"""New connections without a pause, each from a port of its own: what became of every one.

They are made by a process of its own, which also accepts them, so that nothing waits for the agent under test. A first packet that got
lost shows in the kernel's count of what was sent again, not in the time that it took.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import NamedTuple

from kernel.services.wires import Place
from podwire.linux import namespaces

SERVED = "served"
_PORTS = range(10_000, 30_000)  # below those that connections get without asking, and node ports
_LIMIT_S = 3.0  # the kernel sends a first packet again after one second
_SENT_AGAIN = struct.Struct("=100x I")  # tcpi_total_retrans in struct tcp_info of linux/tcp.h
_NOW = struct.pack("ii", 1, 0)


class Target(NamedTuple):
    """A client, the address and port that it connects to, and as whom endpoints should see it."""

    client: Place
    address: str
    port: int
    seen: tuple[str, ...]


def listen(place: Place, port: int) -> socket.socket:
    one = namespaces.socket_inside(place.fd, socket.AF_INET, socket.SOCK_STREAM)
    one.bind(("0.0.0.0", port))
    one.listen(64)
    return one


def connect(target: Target, source: int = 0) -> socket.socket:
    """Connect from a port. Raises OSError, after the limit TimeoutError."""

    def connected() -> socket.socket:
        one = socket.socket()
        try:
            one.settimeout(_LIMIT_S)
            one.bind(("", source))
            one.connect((target.address, target.port))
        except BaseException:
            one.close()
            raise
        return one

    return namespaces.visit(target.client.fd, connected)


def accept(listeners: Sequence[socket.socket]) -> tuple[socket.socket, str] | None:
    """Accept what has come to one of them, and say from where."""
    with selectors.DefaultSelector() as selector:
        for one in listeners:
            selector.register(one, selectors.EVENT_READ)
        for key, _ in selector.select(_LIMIT_S):
            assert isinstance(key.fileobj, socket.socket)
            accepted, caller = key.fileobj.accept()
            return accepted, caller[0]
    return None


def _outcome(target: Target, source: int, listeners: Sequence[socket.socket]) -> str:
    try:
        with connect(target, source) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOW)
            if _SENT_AGAIN.unpack(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SENT_AGAIN.size))[0]:
                return "lost"
            found = accept(listeners)
            if found is None:
                return "led elsewhere"
            found[0].close()
            return SERVED if found[1] in target.seen else f"seen as {found[1]}"
    except OSError as error:
        return type(error).__name__ if isinstance(error, (ConnectionError, TimeoutError)) else os.strerror(error.errno or 0)


class Flood:
    """``found`` are, when it is over, the outcomes and how often there was each, by target."""

    def __init__(self) -> None:
        self.found: list[Counter[str]] = []


@contextmanager
def flood(targets: Sequence[Target], listeners: Sequence[socket.socket]) -> Iterator[Flood]:
    """Connect to each of the targets in turn for as long as the block runs."""
    (begun, begin), (told, tell), (results, report) = os.pipe(), os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(tell)
            os.write(report, json.dumps(_connect_until(told, begin, targets, listeners)).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(report)
    found = Flood()
    try:
        os.read(begun, 1)
        yield found
        os.close(tell)
        with os.fdopen(results) as answer:
            found.found = [Counter(one) for one in json.load(answer)]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _connect_until(told: int, begin: int, targets: Sequence[Target], listeners: Sequence[socket.socket]) -> list[Counter[str]]:
    found: list[Counter[str]] = [Counter() for _ in targets]
    with selectors.DefaultSelector() as selector:
        selector.register(told, selectors.EVENT_READ)
        for source, index in zip(_PORTS, cycle(range(len(targets))), strict=False):
            found[index][_outcome(targets[index], source, listeners)] += 1
            if source == _PORTS[len(targets)]:
                os.write(begin, b"!")
            if source > _PORTS[len(targets)] and selector.select(0):
                break
    return found
