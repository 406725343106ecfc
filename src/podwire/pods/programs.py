"""The programs that the node's first process runs for Pods, and how each ended, whoever started it.

The first process outlives the agent. An agent that comes back asks it what runs and what has ended meanwhile; from then on it
is told. A program is ``pod/UID/CONTAINER/N``, a Pod's network namespace is held as ``netns/pod/UID``.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
import signal
from collections.abc import Sequence

from podwire.linux.errors import KernelRefused
from podwire.linux.init_client import AsyncInitClient, Exited
from podwire.linux.process import Program

MAXIMUM_OUTPUT = 10 * 1024
"""Bytes of a command's output that are kept."""
_LATE_OUTPUT_S = 0.5  # what a command has written is read soon after its end, unless somebody who outlives it has the pipe
_NO_SUCH = {errno.ENOENT, errno.ESRCH}


async def _read(stream: asyncio.StreamReader, said: bytearray) -> None:
    """Read to the end, so that whoever writes does not wait; keep what there is room for."""
    while part := await stream.read(MAXIMUM_OUTPUT):
        said += part[: MAXIMUM_OUTPUT - len(said)]


def namespace_name(uid: str) -> str:
    """Under which name a Pod's network namespace is held."""
    return f"netns/pod/{uid}"


def program_name(uid: str, container: str, number: int) -> str:
    """Under which name a run of a container is started."""
    return f"pod/{uid}/{container}/{number}"


def processes_name(uid: str) -> str:
    """The name of the program whose PID namespace the containers of a Pod share, where they share one. No container is called so."""
    return f"pod/{uid}/POD/0"


_FIRST = Program(("sh", "-c", "trap '' CHLD; exec sleep infinity"), own_processes=True).contained()
"""Who ignores the ends of children has none to reap: all that a first process of a PID namespace must do."""
_OF_PROGRAMS = {"bin", "dev", "gnu", "lib", "lib32", "lib64", "libx32", "nix", "proc", "run", "sbin", "sys", "tmp", "usr"}


def _first() -> Program:
    """It sees programs and nothing else of the machine: its view is there for all containers of its Pod, at /proc/1/root."""
    return dataclasses.replace(_FIRST, hidden=tuple(f"/{name}" for name in sorted(os.listdir("/")) if name not in _OF_PROGRAMS))


class Programs:
    """Starting, waiting for and ending programs, over the connection to the node's first process."""

    def __init__(self, client: AsyncInitClient) -> None:
        self.client = client
        self._ends: dict[str, asyncio.Future[int]] = {}
        self._commands = 0
        self._sharing = asyncio.Lock()

    async def follow(self) -> None:
        """Learn what runs and what has ended; hear of every end from now on. Call it once, before anything else."""
        await self.client.watch(self._heard)
        for name, state in (await self.client.programs("pod/")).items():
            if state.exit is not None:
                self._end(name, state.exit)
            else:
                self._future(name)

    def _heard(self, news: Exited) -> None:
        if news.name.startswith("pod/"):
            self._end(news.name, news.status)

    def _end(self, name: str, status: int) -> None:
        future = self._future(name)
        if not future.done():
            future.set_result(status)

    def _future(self, name: str) -> asyncio.Future[int]:
        if name not in self._ends:
            self._ends[name] = asyncio.get_running_loop().create_future()
        return self._ends[name]

    def knows(self, name: str) -> bool:
        """Whether the program was started and is not forgotten."""
        return name in self._ends

    async def start(self, name: str, program: Program) -> None:
        """Start a program. Raises ProgramNotStarted, KernelRefused."""
        started = await self.client.spawn(name, program)
        os.close(started.descriptor)
        self._future(name)

    async def share_processes(self, uid: str) -> int:
        """Make sure that there is the PID namespace which a Pod's containers share; gives the pid of its first process, as the node's
        processes see it. Raises ProgramNotStarted, KernelRefused.
        """
        name = processes_name(uid)
        async with self._sharing:  # the containers of a Pod start at the same time
            if self.knows(name) and self._future(name).done():
                await self.forget(name)
            if not self.knows(name):
                await self.start(name, _first())
        return (await self.client.programs(name))[name].pid

    async def wait(self, name: str) -> int:
        """Wait for a program's end; gives its status, or minus the number of the signal."""
        return await asyncio.shield(self._future(name))

    async def signal(self, name: str, number: int) -> None:
        """Send a signal to a program; to one that has ended, nothing."""
        try:
            await self.client.signal(name, number)
        except KernelRefused as refused:
            if refused.errno not in _NO_SUCH:
                raise

    async def end(self, name: str, grace_s: float, asking: int = 0) -> int:
        """End a program: the signal that asks it to (SIGTERM), then after ``grace_s`` seconds SIGKILL. Gives its status."""
        if grace_s > 0:
            await self.signal(name, asking or signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    return await self.wait(name)
        await self.signal(name, signal.SIGKILL)
        return await self.wait(name)

    async def output(self, name: str, program: Program, command: Sequence[str]) -> tuple[int, bytes]:
        """Run a further command where a program runs; gives its status and what it wrote. Cancelled, it is ended."""
        self._commands += 1
        name = f"{name}/command-{self._commands}"
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        stream = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reader, "rb", 0))
        try:
            try:
                os.set_blocking(writer, True)
                await self.start(name, dataclasses.replace(program, argv=tuple(command), stdout=writer, stderr=writer))
            finally:
                os.close(writer)
            try:
                said = bytearray()
                reading = asyncio.create_task(_read(stream, said))
                try:
                    status = await self.wait(name)
                    await asyncio.wait({reading}, timeout=_LATE_OUTPUT_S)
                finally:
                    reading.cancel()
                return status, bytes(said)
            finally:
                if not self._future(name).done():
                    await self.end(name, 0)
                await self.forget(name)
        finally:
            transport.close()

    async def forget(self, name: str) -> None:
        """Forget a program that has ended."""
        self._ends.pop(name, None)
        with contextlib.suppress(KernelRefused):
            await self.client.forget(name)

    async def end_all(self, uid: str) -> None:
        """End everything of a Pod at once."""
        names = [name for name in self._ends if name.startswith(f"pod/{uid}/")]
        await asyncio.gather(*(self.end(name, 0) for name in names))
        for name in names:
            await self.forget(name)

    async def release(self, uid: str) -> None:
        """Let go of a Pod's network namespace; it ends with the last that is in it."""
        with contextlib.suppress(KernelRefused):
            await self.client.release(namespace_name(uid))
