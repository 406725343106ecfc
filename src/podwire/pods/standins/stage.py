"""Who plays where: the sockets of every Pod that this process stands in for.

Sockets are opened inside the Pod's network namespace by a thread that lives only for that, and then served here like any
other. A port that cannot be had (in use by a program of the Pod, a protocol that the kernel lacks, no descriptor left) is
reported by itself; the others are served.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import functools
import os
import resource
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from podwire.linux import namespaces
from podwire.pods.standins.access import AccessLogs
from podwire.pods.standins.connection import Connection, Datagrams
from podwire.pods.standins.directions import Directions
from podwire.pods.standins.messages import Character, Ended, Port, Role
from podwire.pods.standins.outside import Outside
from podwire.pods.standins.parts import Told, part_of
from podwire.pods.standins.session import Answer, Part, Place, Request, Session, plain_address

BACKLOG = 1024
# asm/socket.h and linux/bpf_common.h; the socket module does not have them.
_SO_ATTACH_FILTER, _SO_DETACH_FILTER, _RETURN = 26, 27, 0x06


@dataclass
class _Cast:
    """A Pod being played. A change of its role is seen by the requests that come after it.

    ``ports`` remembers those that are gone, too: connections to them live on. ``outside`` is made for the parts that call others.
    """

    role: Role
    logs: AccessLogs
    directions: Directions = field(default_factory=Directions)
    ports: dict[tuple[str, int], Port] = field(default_factory=dict)
    servers: dict[tuple[str, int], asyncio.Server | asyncio.DatagramTransport] = field(default_factory=dict)
    sockets: dict[tuple[str, int], socket.socket] = field(default_factory=dict)
    parts: dict[str, tuple[Character | None, Part]] = field(default_factory=dict)
    connections: set[Connection] = field(default_factory=set)
    dropped: set[tuple[str, int]] = field(default_factory=set)
    draining: bool = False
    outside: Outside | None = None

    def place(self, key: tuple[str, int], caller: tuple[str, int]) -> Place:
        container = self.ports[key].container
        return Place(self.role, key[1], container, (plain_address(caller[0]), caller[1]), _Current(self, container))

    def close(self, key: tuple[str, int]) -> None:
        self.servers.pop(key).close()
        self.sockets.pop(key, None)
        self.dropped.discard(key)


_PLAIN = Part()


class _Current(Part):
    """The part of a container as it is when it is asked: annotations and restarts hold for connections that are open, too."""

    def __init__(self, cast: _Cast, container: str) -> None:
        self._cast = cast
        self._container = container

    def served(self, place: Place, request: Request, answer: Answer) -> None:
        self._cast.logs.write(place, request, answer)

    def _part(self) -> Part:
        part = self._cast.parts.get(self._container, (None, _PLAIN))[1]
        return Told(part, self._cast.directions) if self._cast.directions.values else part

    def respond(self, place: Place, request: Request) -> Answer | Awaitable[Answer]:
        answer = self._part().respond(place, request)
        if not self._cast.draining:
            return answer
        return replace(answer, close=True) if isinstance(answer, Answer) else _closing(answer)

    def talk(self, place: Place) -> Session | None:
        return self._part().talk(place)

    def datagram(self, place: Place, data: bytes) -> bytes | None:
        return self._part().datagram(place, data)


async def _closing(answer: Awaitable[Answer]) -> Answer:
    return replace(await answer, close=True)


class Stage:
    """All Pods of this process. ``ended`` is told of containers that end because somebody asked them to, over the network."""

    def __init__(self, ended: Callable[[Ended], None] | None = None) -> None:
        self._casts: dict[str, _Cast] = {}
        self._logs = AccessLogs()
        self._ended = ended

    async def play(self, role: Role, ports: Iterable[Port], namespace: int) -> dict[str, str]:
        """Listen on exactly these ports for that Pod. Gives the ports that could not be had, as ``TCP/80``, and why."""
        cast = self._casts.setdefault(role.uid, _Cast(role, self._logs))
        cast.role, cast.directions = role, Directions.of(role.told)
        self._give_parts(cast, namespace)
        wanted = {(port.protocol, port.number): port for port in ports if not _is_off(cast.directions, port.number)}
        for key in cast.servers.keys() - wanted.keys():
            cast.close(key)
        cast.ports = wanted | {key: cast.ports[key] for key in cast.ports.keys() - wanted.keys()}
        missing = [port for key, port in wanted.items() if key not in cast.servers]
        failures: dict[str, str] = {}
        if missing:
            opened, failures = namespaces.inside(namespace, functools.partial(_open_all, missing))
            for port, made in opened:
                try:
                    cast.servers[port.protocol, port.number] = await self._serve(cast, port, made)
                    cast.sockets[port.protocol, port.number] = made
                except OSError as error:
                    made.close()
                    failures[str(port)] = _reason(error)
        for key, made in cast.sockets.items():
            _drop(cast, key, made, drop=cast.directions.at("drop", key[1]))
        return failures

    def _give_parts(self, cast: _Cast, namespace: int) -> None:
        """Keep the parts of containers that are played as they were; a container that was started again has a new one."""

        def outside() -> Outside:
            if cast.outside is None:
                cast.outside = Outside(cast.role, namespace)
            return cast.outside

        former, cast.parts = cast.parts, {}
        for character in cast.role.characters:
            known = former.get(character.container)
            if known is None or known[0] != character:
                tell = functools.partial(self._tell, cast.role.uid, character.container)
                known = character, part_of(character, outside, tell)
            cast.parts[character.container] = known

    def _tell(self, uid: str, container: str, exit_code: int) -> None:
        if uid in self._casts and self._ended is not None:
            self._ended(Ended(uid, container, exit_code))

    async def _serve(self, cast: _Cast, port: Port, made: socket.socket) -> asyncio.Server | asyncio.DatagramTransport:
        loop = asyncio.get_running_loop()
        place = functools.partial(cast.place, (port.protocol, port.number))
        if port.protocol == "UDP":
            transport, _ = await loop.create_datagram_endpoint(lambda: Datagrams(place), sock=made)
            return transport
        resets = lambda: cast.directions.at("reset", port.number)  # noqa: E731
        return await loop.create_server(lambda: Connection(place, cast.connections, resets), sock=made, backlog=BACKLOG)

    def drain(self, uid: str) -> int:
        """Let every answer of that Pod from now on end its connection; gives how many connections are open."""
        cast = self._casts.get(uid)
        if cast is None:
            return 0
        cast.draining = True
        return len(cast.connections)

    def stop(self, uid: str) -> None:
        """Close every port and connection of that Pod. One that is not playing is none."""
        cast = self._casts.pop(uid, None)
        if cast is None:
            return
        for key in list(cast.servers):
            cast.close(key)
        for connection in list(cast.connections):
            connection.close()
        if cast.outside is not None:
            cast.outside.close()
        self._logs.forget(uid)

    def playing(self, after: str, limit: int) -> tuple[dict[str, tuple[Port, ...]], bool]:
        """Pods whose uid sorts after the given one, with their ports; and whether there are more."""
        uids = sorted(uid for uid in self._casts if uid > after)
        casts = {uid: self._casts[uid] for uid in uids[:limit]}
        return {uid: tuple(cast.ports[key] for key in cast.servers) for uid, cast in casts.items()}, len(uids) > limit


def _is_off(directions: Directions, port: int) -> bool:
    return directions.at("refuse", port) or directions.at("off", port)


def _drop(cast: _Cast, key: tuple[str, int], made: socket.socket, *, drop: bool) -> None:
    """Let the kernel throw away what comes for a socket, or no more. A listening one then answers no SYN: socket(7), SO_ATTACH_FILTER."""
    if drop is (key in cast.dropped):
        return
    if drop:
        instruction = ctypes.create_string_buffer(struct.pack("HBBI", _RETURN, 0, 0, 0))
        made.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HxxxxxxP", 1, ctypes.addressof(instruction)))
        cast.dropped.add(key)
    else:
        made.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
        cast.dropped.discard(key)


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
