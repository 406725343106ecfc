"""The stand-ins' process of a node: ``podwire standins --socket PATH``.

It listens on a SOCK_SEQPACKET socket for the node's agent, says READY=1 to its supervisor when it does, and plays what it is
told to until it is ended. It keeps nothing on disk: an agent that finds it new tells it everything again.
"""

from __future__ import annotations

import argparse
import array
import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterable, Sequence

from podwire.daemon.notify import Notifier
from podwire.linux import unix
from podwire.linux.errors import KernelRefused
from podwire.pods.standins.messages import MAXIMUM, PAGE, Ended, Malformed, Reply, Request, decode_request, encode
from podwire.pods.standins.stage import Stage

log = logging.getLogger("podwire.standins")


def main(arguments: Sequence[str]) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit status."""
    import uvloop

    parser = argparse.ArgumentParser(prog="podwire standins", description="Play the containers of a node whose images cannot be run.")
    parser.add_argument("--socket", required=True, metavar="PATH", help="where the node's agent finds this process")
    path = parser.parse_args(arguments).socket
    raise_open_files()
    try:
        listener = unix.listen(path)
    except OSError as error:
        print(f"podwire standins: {error.strerror}", file=sys.stderr)
        return 1
    with listener:
        uvloop.run(serve(listener))
    return 0


def raise_open_files() -> int:
    """Raise this process's limit of open files as far as it may go, and return it: each port and connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


async def serve(listener: socket.socket, stop: asyncio.Event | None = None) -> None:
    """Play what is asked for through ``listener`` until ``stop`` is set, or until a signal where none is given."""
    loop = asyncio.get_running_loop()
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
    agents: set[_Agent] = set()
    stage = Stage(lambda ended: _tell_all(agents, ended))
    tasks: set[asyncio.Task[None]] = set()

    def accept() -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            accepted, _ = listener.accept()
            agents.add(agent := _Agent(accepted, stage))
            task = loop.create_task(agent.run())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            task.add_done_callback(lambda _: agents.discard(agent))

    listener.setblocking(False)
    loop.add_reader(listener.fileno(), accept)
    Notifier().send(READY="1")
    try:
        await stop.wait()
    finally:
        loop.remove_reader(listener.fileno())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for uid in stage.playing("", 1 << 30)[0]:
            stage.stop(uid)


class _Agent:
    """One connection of an agent: requests are done in the order in which they came."""

    def __init__(self, connection: socket.socket, stage: Stage) -> None:
        self._socket = connection
        self._socket.setblocking(False)
        self._stage = stage
        self._packets: asyncio.Queue[tuple[bytes, list[int]]] = asyncio.Queue()

    def tell(self, ended: Ended) -> None:
        """Say what nobody asked. A packet that finds no room is lost, and the container goes on."""
        with contextlib.suppress(OSError):
            self._socket.send(encode(Reply(id=0, ended=ended)))

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._socket.fileno(), self._read)
        try:
            while True:
                packet, descriptors = await self._packets.get()
                if not packet:
                    return
                try:
                    reply = await self._answer(packet, descriptors)
                finally:
                    _close_all(descriptors)
                await loop.sock_sendall(self._socket, encode(reply))
        except ConnectionError:
            return
        finally:
            loop.remove_reader(self._socket.fileno())
            while not self._packets.empty():
                _close_all(self._packets.get_nowait()[1])
            self._socket.close()

    def _read(self) -> None:
        try:
            packet, ancillary, _, _ = self._socket.recvmsg(MAXIMUM, socket.CMSG_SPACE(4 * 4), socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            packet, ancillary = b"", []
        descriptors = array.array("i")
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        if not packet:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._packets.put_nowait((packet, list(descriptors)))

    async def _answer(self, packet: bytes, descriptors: list[int]) -> Reply:
        try:
            request = decode_request(packet)
        except Malformed as error:
            return Reply(id=0, error=str(error))
        try:
            return await self._do(request, descriptors)
        except (KernelRefused, RuntimeError) as error:
            log.warning("%s of %s: %s", request.do, request.role.name if request.role else request.uid, error)
            return Reply(id=request.id, error=str(error))

    async def _do(self, request: Request, descriptors: list[int]) -> Reply:
        if request.do == "play":
            if request.role is None or len(descriptors) != 1:
                return Reply(id=request.id, error="play needs a role and the descriptor of its network namespace")
            failures = await self._stage.play(request.role, request.ports, descriptors[0])
            for port, reason in failures.items():
                log.warning("%s/%s %s: %s", request.role.namespace, request.role.name, port, reason)
            return Reply(id=request.id, failures=failures)
        if request.do == "drain":
            return Reply(id=request.id, open=self._stage.drain(request.uid))
        if request.do == "stop":
            self._stage.stop(request.uid)
            return Reply(id=request.id)
        playing, more = self._stage.playing(request.after, PAGE)
        return Reply(id=request.id, playing=playing, more=more)


def _tell_all(agents: Iterable[_Agent], ended: Ended) -> None:
    for agent in agents:
        agent.tell(ended)


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
