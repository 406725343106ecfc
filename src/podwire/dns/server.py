"""The sockets of a DNS server: UDP and TCP on one port, of both families where there are two.

What belongs here: taking queries off sockets and putting answers on them. What must not: what the answer is (``respond`` is given).

UDP is read in bursts: as many datagrams as are there, up to a limit that lets others run. An answer that the socket does not take at once
is dropped, as a network would drop it; the client asks again. A TCP connection may carry many queries, each with a length before it;
answers keep their order. One that is idle is closed.

Sources: RFC 1035 4.2 (transports), RFC 7766 (TCP).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

Respond = Callable[[bytes, bool], "bytes | asyncio.Future[bytes] | None"]  # query, over UDP: answer now, or later, or none

PORT = 53
IDLE_S = 10.0
BURST = 64
CONNECTIONS = 400  # of TCP; beyond it new ones are closed at once, so that open files do not run out
_LENGTH = struct.Struct("!H")
_BUFFER = 1 << 20


class Server:
    """``open`` binds the sockets; ``close`` ends them. ``respond`` is called on the event loop."""

    def __init__(self, respond: Respond, port: int = PORT) -> None:
        self._respond, self._port = respond, port
        self._datagrams: list[socket.socket] = []
        self._listening: list[asyncio.Server] = []
        self._connections: set[_Connection] = set()

    async def open(self) -> None:
        """Bind every family that the machine has. Raises OSError if the port cannot be had in the first one."""
        loop = asyncio.get_running_loop()
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104  (all addresses of the Pod)
            try:
                datagrams, stream = _bound(family, socket.SOCK_DGRAM, address, self._port), None
                stream = _bound(family, socket.SOCK_STREAM, address, self._port)
            except OSError:
                if family == socket.AF_INET:
                    self.close()
                    raise
                continue  # no second family here
            loop.add_reader(datagrams, self._read, datagrams)
            self._datagrams.append(datagrams)
            self._listening.append(await loop.create_server(self._accept, sock=stream, backlog=512))

    def close(self) -> None:
        loop = asyncio.get_running_loop()
        for one in self._datagrams:
            loop.remove_reader(one)
            one.close()
        for listening in self._listening:
            listening.close()
        for connection in list(self._connections):
            connection.end()
        self._datagrams, self._listening = [], []

    def _read(self, one: socket.socket) -> None:
        respond = self._respond
        for _ in range(BURST):
            try:
                query, sender = one.recvfrom(4096)
            except BlockingIOError:
                return
            except OSError:
                continue  # an earlier answer met a closed port
            answer = respond(query, True)
            if answer is None:
                continue
            if isinstance(answer, bytes):
                with contextlib.suppress(OSError):
                    one.sendto(answer, sender)
            else:
                answer.add_done_callback(functools.partial(_send_later, one, sender))

    def _accept(self) -> _Connection:
        return _Connection(self._respond, self._connections)


def _bound(family: socket.AddressFamily, kind: socket.SocketKind, address: str, port: int) -> socket.socket:
    made = socket.socket(family, kind)
    try:
        made.setblocking(False)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        made.bind((address, port))
    except OSError:
        made.close()
        raise
    return made


def _send_later(one: socket.socket, sender: Any, done: asyncio.Future[bytes]) -> None:
    if not done.cancelled() and done.exception() is None and one.fileno() >= 0:
        with contextlib.suppress(OSError):
            one.sendto(done.result(), sender)


class _Connection(asyncio.Protocol):
    def __init__(self, respond: Respond, all_connections: set[_Connection]) -> None:
        self._respond, self._all = respond, all_connections
        self._buffer = b""
        self._waiting: list[bytes | asyncio.Future[bytes]] = []
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # not every event loop's transports are of that class
        if len(self._all) >= CONNECTIONS:
            self._transport.abort()
            return
        self._all.add(self)
        self._restart_timer()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  (the protocol's signature)
        self._all.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def end(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _restart_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, self.end)

    def data_received(self, data: bytes) -> None:
        self._restart_timer()
        buffer = self._buffer + data
        at = 0
        while len(buffer) - at >= 2:
            (length,) = _LENGTH.unpack_from(buffer, at)
            if len(buffer) - at - 2 < length:
                break
            answer = self._respond(buffer[at + 2 : at + 2 + length], False)
            at += 2 + length
            if answer is None:
                self.end()  # what is no query over TCP has lost its place in the stream
                return
            self._waiting.append(answer)
            if not isinstance(answer, bytes):
                answer.add_done_callback(lambda _: self._flush())
        self._buffer = buffer[at:]
        self._flush()

    def _flush(self) -> None:
        while self._waiting and self._transport is not None:
            first = self._waiting[0]
            if isinstance(first, asyncio.Future):
                if not first.done():
                    return
                if first.cancelled() or first.exception() is not None:
                    self.end()
                    return
                first = first.result()
            self._waiting.pop(0)
            self._transport.write(_LENGTH.pack(len(first)) + first)
