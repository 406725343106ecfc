"""exec: a further program in a container.

In a container that is a program of the machine it joins all of that one's namespaces, and finds the environment, folder and rights that the
container was started with. In one that a stand-in plays there is nothing to join: it runs as the container would, if it were a program of
the machine: in the Pod's network, with the machine's files read-only, the container's variables and volumes, and a /tmp that the
container keeps. ``agnhost`` there is a program of this package that does what upstream's does.

The program is the node's first process's; when the client goes, the program loses its streams, as with a kubelet, and its terminal.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import os
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from podwire.linux import terminals
from podwire.linux.errors import KernelRefused, ProgramNotStarted
from podwire.linux.process import Program
from podwire.objects.core import Container
from podwire.pods import runs
from podwire.pods.admission import CannotStart
from podwire.pods.host import Host
from podwire.pods.kubelet import outcome, pipes
from podwire.pods.kubelet.channels import Channels, Wanted
from podwire.pods.kubelet.containers import Place, first
from podwire.pods.kubelet.recorded import Recorded
from podwire.pods.logs.file import path_of
from podwire.pods.programs import program_name
from podwire.pods.standard_streams import Console
from podwire.pods.standins import personalities

Tree = dict[str, Any]

AGNHOST: Final = ("agnhost", "/agnhost")
SIZE_S: Final = 0.5
"""How long a command with a terminal waits for its size. kubectl sends it at once, but nothing says that it will."""
_KEPT: Final = 1000  # programs that stand-ins would be, remembered

_LOG = logging.getLogger("podwire.kubelet")


class Executions:
    """Runs commands in containers of one node."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._stood: dict[tuple[str, str, int], Program] = {}
        self._left: set[asyncio.Task[None]] = set()
        self._attached: set[tuple[str, str, int]] = set()  # stand-ins' own commands that run

    async def program(self, place: Place, command: Sequence[str], tty: bool) -> Program:
        """What is started for a command. Raises Refused, CannotStart."""
        run = place.running()
        terminal = {"TERM": "xterm"} if tty else {}
        if not run.program:
            base = await self._stand_in(place, run.restarts)
            argv = tuple(command)
            if argv[0] in AGNHOST:
                argv = (sys.executable, "-m", "podwire.pods.standins.agnhost_command", *argv[1:])
            return dataclasses.replace(base, argv=argv, env={**terminal, **base.env})
        return self._host.streams.further(run.program, command, terminal)

    async def _stand_in(self, place: Place, number: int) -> Program:
        key = (place.uid, place.container.name, number)
        if key not in self._stood:
            worker, container = place.worker, _bare(place.container)
            # The users and the folder are those of an image, which is not there.
            pod = msgspec.structs.replace(worker.pod, spec=msgspec.structs.replace(worker.pod.spec, security_context=None))
            await self._host.ipc.ensure(pod)
            base = await self._host.machine.program(pod, container, worker.record, worker.namespace, worker.volumes)
            tmp = self._host.records.path(place.uid, f"{container.name}/tmp")  # noqa: S108  (in the node's own folder)
            _make_tmp(tmp, base.files)
            while len(self._stood) >= _KEPT:
                del self._stood[next(iter(self._stood))]
            namespace = f"netns/pod/{place.uid}"
            self._stood[key] = dataclasses.replace(
                base,
                namespace=namespace,
                folders={**base.folders, "/tmp": tmp},  # noqa: S108
                ends_all=pod.spec.host_pid,
            )
        return self._stood[key]

    async def run(self, place: Place, command: Sequence[str], wanted: Wanted, channels: Channels) -> None:
        """Run a command to its end over channels, and send its outcome."""
        await self._serve(place, command, wanted, channels, None)

    def own_command(self, place: Place) -> tuple[str, ...]:
        """What attaching to a client's shell that a stand-in plays starts; empty for any other container, and while it runs already."""
        run, container = place.run, place.container
        if run.program or not container.stdin or (place.uid, container.name, run.restarts) in self._attached:
            return ()
        return personalities.shell_command(personalities.kind_of(container.image), container.command, container.args)

    async def run_own(self, place: Place, command: Sequence[str], wanted: Wanted, accepted: Awaitable[Channels]) -> None:
        """Run a container's own command for the one who attaches to it; when it ends, so does the container."""
        key = (place.uid, place.container.name, place.run.restarts)

        def ended(status: int) -> None:
            self._attached.discard(key)
            if place.run.restarts == key[2]:
                place.worker.standin_ended(place.container.name, status if status >= 0 else 128 - status)

        self._attached.add(key)
        try:
            channels = await accepted
        except BaseException:
            self._attached.discard(key)
            raise
        path = path_of(Path(self._host.records.path("")), place.uid, place.container.name, key[2])
        with contextlib.closing(Recorded(channels, path)) as recorded:
            await self._serve(place, command, wanted, recorded, ended)

    async def _serve(
        self, place: Place, command: Sequence[str], wanted: Wanted, channels: Channels, ended: Callable[[int], None] | None
    ) -> None:
        reading = asyncio.create_task(channels.run())
        try:
            result = await self._run(place, command, wanted, channels, ended)
            if result is not None:
                await channels.finish(result)
        except (CannotStart, KernelRefused, OSError) as error:
            if ended is not None:
                ended(runs.NOT_STARTED_STATUS)
            if not channels.gone.is_set():
                await channels.finish(outcome.failed(f"error executing command in container: {error}"))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _run(
        self, place: Place, command: Sequence[str], wanted: Wanted, channels: Channels, ended: Callable[[int], None] | None
    ) -> Tree | None:
        """The outcome; None when the client is gone. ``ended`` is told the status, whoever is still there."""
        name = f"{program_name(place.uid, place.container.name, place.run.restarts)}/exec-{uuid.uuid4().hex[:12]}"
        program = await self.program(place, command, wanted.tty)
        streams = _Terminal(wanted, channels) if wanted.tty else _Pipes(wanted, channels)
        try:
            try:
                await streams.complete()
                await self._host.programs.start(name, streams.given(program))
                streams.started()
            except ProgramNotStarted as refused:
                result = await _refused(refused, command[0], wanted, channels)
                if ended is not None:
                    ended(runs.NOT_STARTED_STATUS)
                return result
            finally:
                streams.close_given()
            over = asyncio.Event()
            copying = asyncio.create_task(streams.copy(over))
            waiting = asyncio.create_task(self._host.programs.wait(name))
            waiting.add_done_callback(lambda _: over.set())
            gone = asyncio.create_task(channels.gone.wait())
            await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                # stdin has ended, too, and a client may go only after it has sent everything: the outcome is nobody's any more.
                copying.cancel()
                await asyncio.gather(copying, return_exceptions=True)
                self._leave(name, ended)
                return None
            await asyncio.wait({copying, gone}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            copying.cancel()
            await asyncio.gather(copying, return_exceptions=True)
            await self._host.programs.forget(name)
            if ended is None:
                return outcome.exited(waiting.result())
            ended(waiting.result())
            return outcome.SUCCESS  # what became of the container, its status says
        finally:
            streams.close()

    def _leave(self, name: str, ended: Callable[[int], None] | None) -> None:
        """Forget a program when it has ended; nobody waits for it."""

        async def forget() -> None:
            status = await self._host.programs.wait(name)
            await self._host.programs.forget(name)
            if ended is not None:
                ended(status)

        task = asyncio.create_task(forget())
        self._left.add(task)
        task.add_done_callback(self._left.discard)


def _bare(container: Container) -> Container:
    """A container that a stand-in plays, as a program of the machine is made for it: without what only its image could have."""
    folder = container.working_dir if os.path.isdir(container.working_dir) else ""
    return msgspec.structs.replace(
        container, command=("true",), args=(), termination_message_path="", security_context=None, working_dir=folder
    )


async def _refused(refused: ProgramNotStarted, name: str, wanted: Wanted, channels: Channels) -> Tree:
    """A command that cannot be executed says so on stderr and has the status that a shell gives it."""
    if refused.step != "execute":
        return outcome.failed(f"error executing command in container: {refused}")
    missing = refused.errno in {errno.ENOENT, errno.ENOTDIR}
    reason = "no such file or directory" if "/" in name else "executable file not found in $PATH"
    if not missing:
        reason = os.strerror(refused.errno or 0).lower()
    with contextlib.suppress(ConnectionError):
        channel = "stderr" if wanted.stderr and not wanted.tty else "stdout"
        await channels.send(channel, outcome.not_started(name, reason).encode() + b"\r\n")
    return outcome.exited(outcome.NOT_FOUND if missing else outcome.NOT_EXECUTABLE)


class _Pipes:
    """Three pipes, those that are wanted."""

    def __init__(self, wanted: Wanted, channels: Channels) -> None:
        self._channels = channels
        self._ours: dict[str, int] = {}
        self._theirs: dict[str, int] = {}
        for name, is_wanted in (("stdin", wanted.stdin), ("stdout", wanted.stdout), ("stderr", wanted.stderr)):
            if is_wanted:
                reader, writer = os.pipe2(os.O_CLOEXEC)
                self._ours[name], self._theirs[name] = (writer, reader) if name == "stdin" else (reader, writer)
                os.set_blocking(self._ours[name], False)

    def given(self, program: Program) -> Program:
        """The program with its ends."""
        theirs = self._theirs
        return dataclasses.replace(program, stdin=theirs.get("stdin"), stdout=theirs.get("stdout"), stderr=theirs.get("stderr"))

    async def complete(self) -> None:
        """Wait until all is there that the command finds at its start."""

    def started(self) -> None:
        """The command runs."""

    def close_given(self) -> None:
        for fd in self._theirs.values():
            os.close(fd)
        self._theirs.clear()

    async def copy(self, ended: asyncio.Event) -> None:
        """Copy until the outputs have ended; after the program's end, until they are empty."""
        feeding = asyncio.create_task(self._feed())
        try:
            await asyncio.gather(*(self._take(name, ended) for name in ("stdout", "stderr") if name in self._ours))
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    async def _feed(self) -> None:
        if "stdin" in self._ours:
            await pipes.copy_in(self._channels.stdin.read, self._ours["stdin"])
            os.close(self._ours.pop("stdin"))

    async def _take(self, name: str, ended: asyncio.Event) -> None:
        await pipes.copy_out(self._ours[name], lambda data: self._channels.send(name, data), ended)

    def close(self) -> None:
        for fd in (*self._ours.values(), *self._theirs.values()):
            os.close(fd)
        self._ours.clear()


class _Terminal:
    """A terminal of the command's own, made where it runs. Closed, its programs are hung up on."""

    def __init__(self, wanted: Wanted, channels: Channels) -> None:
        self._wanted, self._channels = wanted, channels
        self._console = Console()
        self._master = -1
        self._size = (0, 0)
        self._sized = asyncio.Event()
        channels.follow_size(self._resize)

    def _resize(self, columns: int, rows: int) -> None:
        self._size = (columns, rows)
        if self._master >= 0:
            terminals.set_size(self._master, columns, rows)
        self._sized.set()

    async def complete(self) -> None:
        """Wait, within reason, for the size: a command that asks for it at its start finds it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SIZE_S):
                await first(asyncio.ensure_future(self._sized.wait()), asyncio.ensure_future(self._channels.gone.wait()))

    def given(self, program: Program) -> Program:
        """The program with a terminal of its own; its size is told once more when it is there, since it may have changed meanwhile."""
        return self._console.given(program, *self._size)

    def started(self) -> None:
        self._master = self._console.take()
        os.set_blocking(self._master, False)
        terminals.set_size(self._master, *self._size)

    def close_given(self) -> None:
        self._console.close()

    async def copy(self, ended: asyncio.Event) -> None:
        feeding = asyncio.create_task(pipes.copy_in(self._channels.stdin.read, self._master))
        try:
            await pipes.copy_out(self._master, lambda data: self._channels.send("stdout", data), ended)
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    def close(self) -> None:
        self._channels.follow_size(None)
        self._console.close()
        if self._master >= 0:
            os.close(self._master)


def _make_tmp(folder: str, files: Iterable[str]) -> None:
    """Make a container's /tmp, with places for what is seen below it: an installation may lie below the machine's own."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    for target in files:
        if target.startswith("/tmp/") and os.path.isdir(target):  # noqa: S108
            os.makedirs(os.path.join(folder, target.removeprefix("/tmp/")), exist_ok=True)  # noqa: S108
