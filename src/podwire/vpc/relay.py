"""A TCP relay: bytes from one connection to another and back, for as long as either side has some.

Each direction ends on its own: the end of what one side sends is passed on as an end, and the other direction goes on. What one side
cannot take yet is not read from the other, so a relay holds at most two buffers of 256 KiB. A side that breaks breaks the other.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final, cast

_BUFFER: Final = 262_144
_CONNECT_S: Final = 30.0
_AT_ONCE: Final = struct.pack("ii", 1, 0)  # struct linger: what is not sent is dropped, and a reset goes out


class _Side(asyncio.Protocol):
    """One connection of the two."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Side | None = None
        self._ended = False  # nothing more comes from here
        self._early: list[bytes] = []  # what came before there was an other side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=_BUFFER)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.write(data)
        elif self.other is None:
            self._early.append(data)

    def join(self, far: _Side) -> None:
        """Be one of two from now on, and pass on what each has got so far."""
        far.other, self.other = self, far
        for source, target in ((self, far), (far, self)):
            assert target.transport is not None
            for data in source._early:
                target.transport.write(data)
            source._early.clear()
            if source._ended:
                target.transport.write_eof()

    def eof_received(self) -> bool:
        self._ended = True
        other = self.other
        if other is None:
            return True  # passed on when there is an other side
        if other.transport is None or other.transport.is_closing():
            return False
        other.transport.write_eof()
        if other._ended:
            other.transport.close()
            return False
        return True  # the other direction goes on

    def break_off(self) -> None:
        """End the connection so that its other end sees that it is broken (a reset), and not that all has been said."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            self.transport.abort()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is None or self.other.transport is None:
            return
        if exc is None and self._ended:
            self.other.transport.close()
        else:
            self.other.break_off()


class _Accepted(_Side):
    """The side that called. It is not read from before there is an other side, but for what an event loop reads at once all the same."""

    def __init__(self, relay: Relay) -> None:
        super().__init__()
        self._relay = relay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.pause_reading()
        self._relay.begin(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._relay.sides.discard(self)


def _own() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


class Relay:
    """Relays each connection that a listening socket takes to one address and port.

    ``outgoing`` makes the sockets of the far side: they belong to the network namespace that connections are to come from.
    """

    def __init__(self, listening: socket.socket, address: str, port: int, outgoing: Callable[[], socket.socket] = _own) -> None:
        self._listening, self._address, self._port = listening, address, port
        self._outgoing = outgoing
        self._server: asyncio.Server | None = None
        self._connecting: set[asyncio.Task[None]] = set()
        self.sides: set[_Side] = set()

    async def start(self) -> None:
        """Begin to accept. The listening socket is the relay's from now on."""
        self._listening.setblocking(False)
        self._server = await asyncio.get_running_loop().create_server(lambda: _Accepted(self), sock=self._listening, backlog=1024)

    def begin(self, side: _Accepted) -> None:
        """Connect the far side of an accepted connection."""
        self.sides.add(side)
        task = asyncio.get_running_loop().create_task(self._connect(side))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, side: _Accepted) -> None:
        assert side.transport is not None
        far = _Side()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                outgoing = self._outgoing()
                outgoing.setblocking(False)
                try:
                    await loop.sock_connect(outgoing, (self._address, self._port))
                    await loop.create_connection(lambda: far, sock=outgoing)
                except BaseException:
                    outgoing.close()
                    raise
        except OSError:  # also a timeout: whoever called sees a connection that breaks, as without a relay
            side.break_off()
            return
        if side.transport.is_closing():
            far.break_off()
        else:
            side.join(far)
            side.transport.resume_reading()

    async def close(self) -> None:
        """Accept no more and break what is open."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connecting):
            task.cancel()
        for side in list(self.sides):
            side.break_off()
