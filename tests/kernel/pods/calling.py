"""Calling the CNI plugin as a runtime does: containers that are namespaces, by call and as a program."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from podwire.cli.cni import install
from podwire.linux import namespaces
from podwire.linux.network import Network
from podwire.pods.cni.plugin import Plugin
from podwire.wire.rtnetlink import Link, change

Tree = dict[str, Any]


class Runtime:
    """Calls a plugin for containers c1, c2 ...; keeps what it must remember. ``program``: as a program, else by call."""

    def __init__(self, folder: Path, *, program: Path | None = None, variables: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.program = program
        self.variables = dict(variables or {})
        self.namespaces: dict[str, int] = {}
        self.results: dict[tuple[str, str], Tree] = {}
        self.plugin = Plugin()

    def configuration(self, **fields: Any) -> Tree:
        base = {"cniVersion": "1.1.0", "name": "net", "type": "podwire-cni", "dataDir": str(self.folder / "data")}
        return {"ipam": {"ranges": [[{"subnet": "10.22.0.0/24"}]]}} | base | fields

    def container(self, name: str) -> int:
        if name not in self.namespaces:
            self.namespaces[name] = namespaces.create_network()
        return self.namespaces[name]

    def gone(self, name: str) -> None:
        os.close(self.namespaces.pop(name))

    def call(self, command: str, container: str, configuration: Tree, interface: str = "eth0", **variables: str) -> tuple[int, Tree]:
        words = {"CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_IFNAME": interface} | self.variables | variables
        words.setdefault("CNI_PATH", "/usr/lib/cni")
        if container in self.namespaces:
            words.setdefault("CNI_NETNS", f"/proc/{os.getpid()}/fd/{self.namespaces[container]}")
        if command in {"DEL", "CHECK"} and (container, interface) in self.results:
            configuration = {**configuration, "prevResult": self.results[container, interface]}
        body = json.dumps(configuration).encode()
        if self.program is None:
            status, output = self.plugin.answer(words, body)
        else:
            ran = subprocess.run([self.program], input=body, stdout=subprocess.PIPE, env=words | {"PATH": os.environ["PATH"]}, timeout=60)
            status, output = ran.returncode, ran.stdout
        return status, json.loads(output) if output else {}

    def add(self, container: str, configuration: Tree, interface: str = "eth0", **variables: str) -> Tree:
        self.container(container)
        status, tree = self.call("ADD", container, configuration, interface, **variables)
        assert status == 0, tree
        self.results[container, interface] = tree
        return tree

    def refused(self, command: str, container: str, configuration: Tree, interface: str = "eth0", **variables: str) -> Tree:
        status, tree = self.call(command, container, configuration, interface, **variables)
        assert status == 1, tree
        assert set(tree) <= {"cniVersion", "code", "msg", "details"}
        return tree

    def done(self, command: str, container: str, configuration: Tree, interface: str = "eth0", **variables: str) -> None:
        assert self.call(command, container, configuration, interface, **variables) == (0, {})


def installed(folder: Path) -> Path:
    """The program as `podwire cni install` writes it."""
    result = CliRunner().invoke(install, [str(folder)])
    assert result.exit_code == 0, result.output
    return folder / "podwire-cni"


def address_of(result: Tree, family: int = 4) -> str:
    texts = [ip["address"].partition("/")[0] for ip in result["ips"]]
    return next(text for text in texts if (":" in text) == (family == 6))


def link_up(name: str) -> None:
    with Network() as network:
        network.apply([change(Link(name, up=True))])


@contextmanager
def answering(namespace: int, address: str, port: int, protocol: str = "tcp") -> Iterator[list[str]]:
    """A server in a container; gives the list of callers' addresses that it saw."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    server = namespaces.socket_inside(namespace, family, kind)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, port))
    seen: list[str] = []

    def serve() -> None:
        while True:
            try:
                if protocol == "tcp":
                    connection, peer = server.accept()
                    seen.append(peer[0])
                    with connection:
                        connection.sendall(b"hello")
                else:
                    _, peer = server.recvfrom(100)
                    if not peer:
                        return
                    seen.append(peer[0])
                    server.sendto(b"hello", peer)
            except OSError:
                return

    if protocol == "tcp":
        server.listen()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        if protocol == "tcp":
            server.shutdown(socket.SHUT_RDWR)
        server.close()


def reach(namespace: int | None, address: str, port: int, protocol: str = "tcp", limit_s: float = 5) -> bytes:
    """What a server says to a caller in a namespace (None: on the machine)."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) if namespace is None else namespaces.socket_inside(namespace, family, kind) as client:
        client.settimeout(limit_s)
        client.connect((address, port))
        client.send(b"x") if protocol == "udp" else None
        return client.recv(100)


PYTHON = sys.executable
