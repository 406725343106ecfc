"""Stdin, stdout and stderr of containers that are programs: pipes, or a terminal where the container has ``tty``.

The container has one end of each; a terminal is made in the container, so that it has a name there. The other one is held by the node's
first process, so that it outlives the agent: the reading ends of the outputs for the program that writes logs (``logs.writer``), the
writing end of stdin (where the container has ``stdin``) for whoever attaches. Here, too, is kept what a container was started with, since
a command in it finds the same environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import msgspec

from podwire.linux import unix
from podwire.linux.errors import KernelRefused
from podwire.linux.process import CONTAINER_CAPABILITIES, Program
from podwire.objects.core import Container
from podwire.pods.logs.file import path_of
from podwire.pods.logs.link import LogWriter
from podwire.pods.programs import Programs
from podwire.pods.records import Records

_DRAIN_S = 5.0
"""How long the end of a run waits for its last words to be written: longer where a disk is stuck, or who attached does not read."""


class StartedWith(msgspec.Struct, frozen=True):
    """What a container was started with."""

    env: dict[str, str] = {}
    cwd: str = "/"
    capabilities: tuple[int, ...] = CONTAINER_CAPABILITIES
    user: tuple[int, ...] = ()
    cgroups: tuple[str, ...] = ()


class Console:
    """Where a program sends the other end of the terminal that is made for it."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close both ends, and what nobody has taken."""
        self._ours.close()
        self._theirs.close()

    def given(self, program: Program, columns: int = 0, rows: int = 0) -> Program:
        """The program with a terminal of this size."""
        return dataclasses.replace(program, console=self._theirs.fileno(), size=(columns, rows))

    def take(self) -> int:
        """The other end of the terminal of a program that was started; it becomes the caller's. Raises OSError."""
        received = unix.receive(self._ours)
        if received is None or not received[1]:
            raise ConnectionError("the program has sent no terminal")
        return received[1][0]


def _started_with(program: Program) -> StartedWith:
    rights = tuple(program.capabilities or ())
    return StartedWith(dict(program.env), program.cwd, rights, tuple(program.user), tuple(program.cgroups))


def run_of(program: str) -> str:
    """``UID/CONTAINER/N`` of a program's name."""
    return program.removeprefix("pod/")


def _stdin_name(program: str) -> str:
    return f"stdin/{run_of(program)}"


class StandardStreams:
    """Starts programs of containers with their streams, and gives the streams to who attaches."""

    def __init__(self, programs: Programs, logs: LogWriter, records: Records) -> None:
        self._programs, self.logs, self._records = programs, logs, records

    async def start(self, name: str, container: Container, program: Program) -> None:
        """Start a container's program. Raises ProgramNotStarted, KernelRefused, OSError."""
        uid = run_of(name).partition("/")[0]
        kept = msgspec.json.encode(_started_with(program))
        self._records.write_files(uid, {f"{container.name}.json": kept}, "started")
        if container.tty:
            await self._start_with_terminal(name, program)
        else:
            await self._start_with_pipes(name, program, stdin=container.stdin)
        await self.logs.take(run_of(name))

    async def _start_with_terminal(self, name: str, program: Program) -> None:
        with Console() as console:
            await self._programs.start(name, console.given(program))
            master = console.take()
        try:
            await self.logs.hold(run_of(name), {"tty": master})
        finally:
            os.close(master)

    async def _start_with_pipes(self, name: str, program: Program, *, stdin: bool) -> None:
        ours, theirs, feeding = _pipes(stdin)
        try:
            try:
                await self.logs.hold(run_of(name), ours)
                if feeding >= 0:
                    await self._programs.client.hold(_stdin_name(name), feeding)
                given, out, err = theirs
                await self._programs.start(name, dataclasses.replace(program, stdin=given, stdout=out, stderr=err))
            finally:
                for fd in {*ours.values(), *theirs, feeding}:
                    if fd is not None and fd >= 0:
                        os.close(fd)
        except BaseException:
            await self.logs.let_go(run_of(name), tuple(ours))
            await self.close_stdin(name)
            raise

    async def ended(self, name: str) -> None:
        """A program has ended: wait until its last words are written, and let go of its stdin."""
        if not name:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await self.logs.drained(run_of(name))
        await self.close_stdin(name)

    def log_of(self, name: str) -> str:
        """Where a program's output is logged."""
        uid, container, number = run_of(name).split("/")
        return str(path_of(self._records.path(""), uid, container, int(number)))

    async def stdin(self, name: str) -> int | None:
        """A descriptor to write a container's stdin to, which is the caller's; None where it has none or that is closed."""
        held = await self._programs.client.give(_stdin_name(name))
        return held.get(_stdin_name(name))

    async def close_stdin(self, name: str) -> None:
        """The container reads the end of its stdin, once nobody else has it open."""
        with contextlib.suppress(KernelRefused):
            await self._programs.client.release(_stdin_name(name))

    def further(self, program: str, command: Sequence[str], variables: Mapping[str, str] | None = None) -> Program:
        """A command that joins a container's program: with its view, environment, folder and rights, and these variables."""
        uid, container, _ = run_of(program).split("/")
        started = self.started_with(uid, container)
        return Program(
            tuple(command),
            env={**(variables or {}), **started.env},
            cwd=started.cwd,
            join=program,
            capabilities=started.capabilities,
            user=started.user,
            cgroups=started.cgroups,
            no_new_privileges=True,
        )

    def started_with(self, uid: str, container: str) -> StartedWith:
        """What a container was started with."""
        try:
            with open(self._records.path(uid, f"started/{container}.json"), "rb") as file:
                return msgspec.json.decode(file.read(), type=StartedWith)
        except (FileNotFoundError, msgspec.DecodeError):
            return StartedWith()


def _pipes(stdin: bool) -> tuple[dict[str, int], Sequence[int | None], int]:
    out, err = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    ins = os.pipe2(os.O_CLOEXEC) if stdin else (None, -1)
    return {"stdout": out[0], "stderr": err[0]}, (ins[0], out[1], err[1]), ins[1]
