"""Who plays where: the sockets of every Pod that this process stands in for.

Sockets are opened inside the Pod's network namespace by a thread that lives only for that, and then served here like any
other. A port that cannot be had (in use by a program of the Pod, a protocol that the kernel lacks, no descriptor left) is
reported by itself; the others are served.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import resource
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from podwire.linux import namespaces
from podwire.pods.standins.connection import Connection, Datagrams
from podwire.pods.standins.messages import Port, Role
from podwire.pods.standins.session import Place, plain_address

BACKLOG = 1024


@dataclass
class _Cast:
    """A Pod being played. A change of its role is seen by the connections that come after it.

    ``ports`` remembers those that are gone, too: connections to them live on.
    """

    role: Role
    ports: dict[tuple[str, int], Port] = field(default_factory=dict)
    servers: dict[tuple[str, int], asyncio.Server | asyncio.DatagramTransport] = field(default_factory=dict)
    connections: set[Connection] = field(default_factory=set)

    def place(self, key: tuple[str, int], caller: tuple[str, int]) -> Place:
        return Place(self.role, key[1], self.ports[key].container, (plain_address(caller[0]), caller[1]))


class Stage:
    """All Pods of this process."""

    def __init__(self) -> None:
        self._casts: dict[str, _Cast] = {}

    async def play(self, role: Role, ports: Iterable[Port], namespace: int) -> dict[str, str]:
        """Listen on exactly these ports for that Pod. Gives the ports that could not be had, as ``TCP/80``, and why."""
        cast = self._casts.setdefault(role.uid, _Cast(role))
        wanted = {(port.protocol, port.number): port for port in ports}
        for key in cast.servers.keys() - wanted.keys():
            cast.servers.pop(key).close()
        cast.role, cast.ports = role, wanted | {key: cast.ports[key] for key in cast.ports.keys() - wanted.keys()}
        missing = [port for key, port in wanted.items() if key not in cast.servers]
        if not missing:
            return {}
        opened, failures = namespaces.inside(namespace, functools.partial(_open_all, missing))
        for port, made in opened:
            try:
                cast.servers[port.protocol, port.number] = await self._serve(cast, port, made)
            except OSError as error:
                made.close()
                failures[str(port)] = _reason(error)
        return failures

    async def _serve(self, cast: _Cast, port: Port, made: socket.socket) -> asyncio.Server | asyncio.DatagramTransport:
        loop = asyncio.get_running_loop()
        if port.protocol == "UDP":
            transport, _ = await loop.create_datagram_endpoint(Datagrams, sock=made)
            return transport
        place = functools.partial(cast.place, (port.protocol, port.number))
        return await loop.create_server(lambda: Connection(place, cast.connections), sock=made, backlog=BACKLOG)

    def stop(self, uid: str) -> None:
        """Close every port and connection of that Pod. One that is not playing is none."""
        cast = self._casts.pop(uid, None)
        if cast is None:
            return
        for server in cast.servers.values():
            server.close()
        for connection in list(cast.connections):
            connection.close()

    def playing(self, after: str, limit: int) -> tuple[dict[str, tuple[Port, ...]], bool]:
        """Pods whose uid sorts after the given one, with their ports; and whether there are more."""
        uids = sorted(uid for uid in self._casts if uid > after)
        casts = {uid: self._casts[uid] for uid in uids[:limit]}
        return {uid: tuple(cast.ports[key] for key in cast.servers) for uid, cast in casts.items()}, len(uids) > limit


def _open_all(ports: Sequence[Port]) -> tuple[list[tuple[Port, socket.socket]], dict[str, str]]:
    """Runs inside the Pod's namespace."""
    opened: list[tuple[Port, socket.socket]] = []
    failures: dict[str, str] = {}
    for port in ports:
        try:
            opened.append((port, _open(port)))
        except OSError as error:
            failures[str(port)] = _reason(error)
    return opened, failures


def _open(port: Port) -> socket.socket:
    kind = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}.get(port.protocol)
    if kind is None:
        raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))
    with contextlib.ExitStack() as undo:
        try:
            made = undo.enter_context(socket.socket(socket.AF_INET6, kind))
        except OSError as error:
            if error.errno != errno.EAFNOSUPPORT:
                raise
            made = undo.enter_context(socket.socket(socket.AF_INET, kind))
        made.setblocking(False)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1 if kind is socket.SOCK_STREAM else 0)
        if made.family is socket.AF_INET6:
            # One socket for both families, as most servers have it.
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("", port.number))
        if kind is socket.SOCK_STREAM:
            made.listen(BACKLOG)
        undo.pop_all()
    return made


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is in use by another program in the Pod's network"
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"the stand-ins of this node have no open file left of {limit}; raise the hard limit (ulimit -Hn) before the cluster starts"
    if error.errno == errno.EPROTONOSUPPORT:
        return "the kernel has no sockets of this protocol"
    return os.strerror(error.errno) if error.errno else str(error)
