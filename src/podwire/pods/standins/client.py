"""How the node's agent talks to the stand-ins' process: asyncio, many requests under way, replies by number."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections.abc import Callable, Iterable, Sequence

from podwire.linux import unix
from podwire.pods.standins.messages import MAXIMUM, Ended, Malformed, Port, Reply, Request, Role, decode_reply, encode


class StandinsGone(ConnectionError):
    """The stand-ins' process cannot be reached, or went away before it answered."""


class StandinsRefused(RuntimeError):
    """The stand-ins' process could not do what it was asked; the text says why."""


class Standins:
    """One connection. ``gone`` is set when it ends; the owner then connects anew and plays everything again."""

    def __init__(self, connection: socket.socket, ended: Callable[[Ended], None] | None = None) -> None:
        self.gone = asyncio.Event()
        self._ended = ended
        self._socket = connection
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._sending = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(connection.fileno(), self._read)

    @classmethod
    def connect(cls, path: str, ended: Callable[[Ended], None] | None = None) -> Standins:
        """Connect to the socket at ``path``; ``ended`` is told of containers that end by themselves. Raises StandinsGone."""
        try:
            connection = unix.connect(path)  # a unix socket connects at once or not at all
        except OSError as error:
            raise StandinsGone(f"the stand-ins are not there: {error.strerror}") from error
        connection.setblocking(False)
        return cls(connection, ended)

    @property
    def pid(self) -> int:
        """The process, as it is called in the PID namespace of the caller; 0: it is not to be seen from there."""
        return int(struct.unpack("3i", self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])

    async def play(self, role: Role, ports: Iterable[Port], namespace: int) -> dict[str, str]:
        """Listen on exactly these ports in the namespace of that descriptor. Gives the ports that could not be had, and why.

        Raises:
            StandinsGone, StandinsRefused.
        """
        request = Request(id=next(self._numbers), do="play", role=role, ports=tuple(ports))
        return (await self._ask(request, [namespace])).failures

    async def drain(self, uid: str) -> int:
        """Let every answer of that Pod end its connection; gives how many connections are open. Raises StandinsGone."""
        return (await self._ask(Request(id=next(self._numbers), do="drain", uid=uid))).open

    async def stop(self, uid: str) -> None:
        """Close everything of that Pod. Raises StandinsGone."""
        await self._ask(Request(id=next(self._numbers), do="stop", uid=uid))

    async def list(self) -> dict[str, tuple[Port, ...]]:
        """What is playing: uid to ports. Raises StandinsGone."""
        playing: dict[str, tuple[Port, ...]] = {}
        while True:
            reply = await self._ask(Request(id=next(self._numbers), do="list", after=max(playing, default="")))
            playing |= reply.playing
            if not reply.more:
                return playing

    def close(self) -> None:
        """End the connection; what plays goes on playing."""
        if not self.gone.is_set():
            self.gone.set()
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(StandinsGone("the stand-ins' process went away"))

    async def _ask(self, request: Request, descriptors: Sequence[int] = ()) -> Reply:
        if self.gone.is_set():
            raise StandinsGone("the stand-ins' process went away")
        future: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting[request.id] = future
        try:
            async with self._sending:
                await self._send(encode(request), descriptors)
            reply = await future
        finally:
            del self._waiting[request.id]
        if reply.error:
            raise StandinsRefused(reply.error)
        return reply

    async def _send(self, packet: bytes, descriptors: Sequence[int]) -> None:
        while not self.gone.is_set():
            try:
                socket.send_fds(self._socket, [packet], list(descriptors))
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                self.close()
                raise StandinsGone(f"the stand-ins' process went away: {error.strerror}") from error
            else:
                return
        raise StandinsGone("the stand-ins' process went away")

    async def _writable(self) -> None:
        ready = asyncio.Event()
        self._loop.add_writer(self._socket.fileno(), ready.set)
        try:
            await ready.wait()
        finally:
            if not self.gone.is_set():
                self._loop.remove_writer(self._socket.fileno())

    def _read(self) -> None:
        try:
            packet = self._socket.recv(MAXIMUM)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self.close()
            return
        try:
            reply = decode_reply(packet)
        except Malformed:
            self.close()
            return
        if reply.ended is not None:
            if self._ended is not None:
                self._ended(reply.ended)
            return
        future = self._waiting.get(reply.id)
        if future is not None and not future.done():
            future.set_result(reply)
