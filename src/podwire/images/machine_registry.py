"""Registries of the machine's own loopback, as a process in the lab reaches them.

From inside the lab nothing of the machine can be connected to. The lab hands out connections (its control socket's word ``connect``)
to the registries that the Cluster names, and to nothing else. Here a program is given a network namespace of its own, in which these
registries, and they alone, can be connected to under the addresses that their names say: what it takes for the machine's loopback.

Sources: docs/architecture.md, "the control socket"; network_namespaces(7)
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
from collections.abc import Iterable
from typing import Final

from podwire.images.errors import ImageRefused
from podwire.linux import syscalls, unix
from podwire.linux.network import Network
from podwire.wire.rtnetlink import Link, change

_CONNECT_S: Final = 30.0
_PIECE: Final = 1 << 16
_BROKEN: Final = struct.pack("ii", 1, 0)  # struct linger: a reset goes out


def move_in(registries: Iterable[str], control: str) -> None:
    """Move this process, which has one thread, into a network namespace in which only these registries are. Raises ImageRefused."""
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
        network = Network()
        network.apply([change(Link("lo", up=True))])
        network.close()
        for registry in registries:
            for address in _addresses(registry):
                _serve(socket.create_server(address, family=_family(address[0]), backlog=64), registry, control)
    except OSError as error:
        raise ImageRefused(f"the machine's registries cannot be reached: {error}") from error


def connect(registry: str, control: str) -> socket.socket:
    """A connection to a registry of the machine's loopback. Raises ImageRefused."""
    try:
        with unix.connect(control, timeout_s=_CONNECT_S) as asking:
            unix.send(asking, {"request": "connect", "registry": registry})
            answer, descriptors = unix.receive(asking) or ({"error": "the lab has gone"}, [])
    except (OSError, ValueError, TypeError) as error:
        raise ImageRefused(f"connect to {registry} of the machine: {error}") from error
    if "error" in answer or not descriptors:
        raise ImageRefused(f"connect to {registry} of the machine: {answer.get('error', 'no connection came')}")
    made = socket.socket(fileno=descriptors[0])
    _, ready, _ = select.select([], [made], [], _CONNECT_S)
    number = made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if ready else 0
    if number or not ready:
        made.close()
        raise ImageRefused(f"connect to {registry} of the machine: {os.strerror(number) if number else 'it does not answer'}")
    return made


def _addresses(registry: str) -> list[tuple[str, int]]:
    host, _, port = registry.rpartition(":")
    hosts = ("127.0.0.1", "::1") if host == "localhost" else (host.strip("[]"),)
    return [(one, int(port)) for one in hosts]


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _serve(listening: socket.socket, registry: str, control: str) -> None:
    """Join each connection that comes with one to the registry, for as long as this process lives."""

    def accept() -> None:
        while True:
            near, _ = listening.accept()
            threading.Thread(target=_join, args=(near, registry, control), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def _join(near: socket.socket, registry: str, control: str) -> None:
    try:
        far = connect(registry, control)
    except ImageRefused:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _BROKEN)
        near.close()
        return
    back = threading.Thread(target=_pass_on, args=(far, near), daemon=True)
    back.start()
    _pass_on(near, far)
    back.join()
    near.close()
    far.close()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Pass on what one side says, and its end; a side that breaks ends both."""
    try:
        while data := source.recv(_PIECE):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
