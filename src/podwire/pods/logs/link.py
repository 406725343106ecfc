"""How the node's agent speaks to the program that writes logs (``writer``), and keeps it running.

The agent makes the socket that it listens on, so that a request waits there until the program runs; a program that is found
running from an agent before this one is taken as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from podwire.linux import unix
from podwire.linux.errors import KernelRefused
from podwire.linux.init_client import AsyncInitClient
from podwire.linux.process import Program
from podwire.pods.logs.writer import held_name

PROGRAM = "logs"
_PACKAGES = str(Path(__file__).resolve().parents[3])
_START = "import sys; sys.path.insert(0, sys.argv.pop(1)); from podwire.pods.logs.writer import main; main(*sys.argv[1:])"


class LogWriterGone(ConnectionError):
    """The program went away before it answered."""


class LogWriter:
    """``folder`` is where Pods' files lie, ``init_socket`` where the node's first process is spoken to."""

    def __init__(self, client: AsyncInitClient, init_socket: str, folder: Path, log: logging.Logger) -> None:
        self._client, self._init_socket, self._folder, self._log = client, init_socket, folder, log
        self._path = f"{os.path.dirname(init_socket)}/logs.sock"
        self._socket: socket.socket | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[unix.Message]] = {}
        self._beginning = asyncio.Lock()
        self._beginning_again: asyncio.Future[None] | None = None

    async def hold(self, run: str, ends: dict[str, int]) -> None:
        """Have the first process hold a run's ends (``stdout`` and ``stderr``, or ``tty``), before its program is started."""
        for end, fd in ends.items():
            await self._client.hold(held_name(run, end), fd)

    async def let_go(self, run: str, ends: Sequence[str]) -> None:
        """The run's program did not start."""
        for end in ends:
            with contextlib.suppress(KernelRefused):
                await self._client.release(held_name(run, end))

    async def take(self, run: str) -> None:
        """Have the run's output written from now on."""
        await self._ask({"do": "take", "name": run})

    async def drained(self, run: str) -> None:
        """Wait until everything of a run that has ended is written."""
        held = await self._client.give(f"log/{run}/")
        for fd in held.values():
            os.close(fd)
        if held:
            await self._ask({"do": "drained", "name": run})

    async def drained_of(self, uid: str) -> None:
        """Wait until everything of all runs of a Pod, which have ended, is written: from then on nobody makes files for it."""
        held = await self._client.give(f"log/{uid}/")
        for fd in held.values():
            os.close(fd)
        for run in {name.removeprefix("log/").rpartition("/")[0] for name in held}:
            await self._ask({"do": "drained", "name": run})

    async def attach(self, run: str, descriptors: Sequence[int]) -> bool:
        """Have what a run writes from now on written to these pipes (stdout, stderr), too. False: it has ended. Descriptors stay ours."""
        return bool((await self._ask({"do": "attach", "name": run}, descriptors)).get("attached"))

    async def terminal(self, run: str) -> int | None:
        """A descriptor of the run's terminal, to write to and to change its size; None where it has none or has ended."""
        return (await self._client.give(held_name(run, "tty"))).get(held_name(run, "tty"))

    async def adopt(self) -> None:
        """See to it that the program runs if there is something for it to do: an agent begins."""
        held = await self._client.give("log/")
        for fd in held.values():
            os.close(fd)
        if held:
            await self._connected()

    def close(self) -> None:
        """End the connection; the program goes on."""
        connected, self._socket = self._socket, None
        if connected is not None:
            asyncio.get_running_loop().remove_reader(connected)
            connected.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(LogWriterGone("the program that writes logs has ended"))
        self._waiting.clear()

    async def _ask(self, message: unix.Message, descriptors: Sequence[int] = ()) -> unix.Message:
        loop = asyncio.get_running_loop()
        while True:
            connected = await self._connected()
            number = next(self._numbers)
            future: asyncio.Future[unix.Message] = loop.create_future()
            self._waiting[number] = future
            try:
                unix.send(connected, {"id": number, **message}, descriptors)
                return await future
            except BlockingIOError:
                await asyncio.sleep(0.005)
            except ConnectionError:  # it is started anew, takes up what is held, and is asked again
                if self._socket is connected:
                    self.close()
            finally:
                self._waiting.pop(number, None)

    async def _connected(self) -> socket.socket:
        async with self._beginning:
            if self._socket is None:
                try:
                    self._socket = unix.connect(self._path)
                except OSError:
                    await self._start()
                    self._socket = unix.connect(self._path)
                self._socket.setblocking(False)
                asyncio.get_running_loop().add_reader(self._socket, self._readable, self._socket)
            return self._socket

    async def _start(self) -> None:
        with contextlib.suppress(KernelRefused):
            await self._client.forget(PROGRAM)
        argv = (sys.executable, "-I", "-S", "-c", _START, _PACKAGES, self._init_socket, str(self._folder))
        with unix.listen(self._path) as listening:
            program = Program(argv, stderr=str(self._folder.parent / "logs.err"), descriptors=(listening.fileno(),), open_files=None)
            started = await self._client.spawn(PROGRAM, program)
            os.close(started.descriptor)
        self._log.debug("the program that writes logs runs")

    def _readable(self, connected: socket.socket) -> None:
        try:
            received = unix.receive(connected)
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            if self._socket is connected:
                self.close()
                self._beginning_again = asyncio.ensure_future(self._again())
            return
        future = self._waiting.get(received[0].get("id", 0))
        if future is not None and not future.done():
            future.set_result(received[0])

    async def _again(self) -> None:
        with contextlib.suppress(OSError):
            await self.adopt()
