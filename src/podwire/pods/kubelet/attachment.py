"""attach: the streams of a container itself.

Of a program of the machine: what it writes from now on, beside its log, and its stdin where it has one; with ``stdinOnce`` that ends when
the first client's does. Of a stand-in: its log, as it grows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from podwire.linux import terminals
from podwire.linux.inotify import FolderWatches
from podwire.pods.host import Host
from podwire.pods.kubelet import outcome, pipes
from podwire.pods.kubelet.channels import Channels, Wanted
from podwire.pods.kubelet.containers import Place
from podwire.pods.logs.file import path_of
from podwire.pods.logs.reader import Selection, follow
from podwire.pods.runs import Run
from podwire.pods.standard_streams import run_of


async def attach(host: Host, watches: FolderWatches, place: Place, wanted: Wanted, channels: Channels) -> None:
    """Serve one client until it or the container's run ends. Raises Refused."""
    run = place.running()
    reading = asyncio.create_task(channels.run())
    gone = asyncio.create_task(channels.gone.wait())
    work = _of_program(host, place, run, wanted, channels) if run.program else _of_stand_in(host, watches, place, run, channels)
    working = asyncio.create_task(work)
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done() and not channels.gone.is_set():
            error = working.exception()
            await channels.finish(outcome.SUCCESS if error is None else outcome.failed(f"error attaching to container: {error}"))
    finally:
        for task in (working, gone, reading):
            task.cancel()
        await asyncio.gather(working, gone, reading, return_exceptions=True)


async def _of_stand_in(host: Host, watches: FolderWatches, place: Place, run: Run, channels: Channels) -> None:
    path = path_of(Path(host.records.path("")), place.uid, place.container.name, run.restarts)
    ended = asyncio.Event()

    async def wait() -> None:
        await place.over(run.restarts)
        ended.set()

    waiting = asyncio.create_task(wait())
    try:
        async for piece in follow(path, Selection(tail=0), watches, ended):
            await channels.send("stdout", piece)
    finally:
        waiting.cancel()


async def _of_program(host: Host, place: Place, run: Run, wanted: Wanted, channels: Channels) -> None:
    readers: dict[str, int] = {}
    writers: list[int] = []
    for name in ("stdout",) if place.container.tty else ("stdout", "stderr"):
        readers[name], writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        writers.append(writer)
    feeding: asyncio.Task[None] | None = None
    try:
        try:
            if not await host.streams.logs.attach(run_of(run.program), writers):
                return
        finally:
            for fd in writers:
                os.close(fd)
        feeding = asyncio.create_task(_feed(host, place, run, wanted, channels))
        shown = {"stdout": wanted.stdout, "stderr": wanted.stderr}
        await asyncio.gather(*(_take(fd, name, channels, shown=shown[name]) for name, fd in readers.items()))
    finally:
        if feeding is not None:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        for fd in readers.values():
            os.close(fd)


async def _take(fd: int, name: str, channels: Channels, *, shown: bool) -> None:
    async def send(data: bytes) -> None:
        if shown:
            await channels.send(name, data)

    await pipes.copy_out(fd, send)


async def _feed(host: Host, place: Place, run: Run, wanted: Wanted, channels: Channels) -> None:
    """The container's stdin from the client's, and the size of its terminal."""
    container = place.container
    terminal = await host.streams.logs.terminal(run_of(run.program)) if container.tty else None
    given = terminal if terminal is not None else await host.streams.stdin(run.program) if container.stdin else None
    if given is None:
        return
    os.set_blocking(given, False)
    try:
        if terminal is not None:
            channels.follow_size(lambda columns, rows: terminals.set_size(given, columns, rows))
        if wanted.stdin and container.stdin:
            with contextlib.suppress(OSError):
                await pipes.copy_in(channels.stdin.read, given)
        if terminal is not None:
            await channels.gone.wait()
    finally:
        channels.follow_size(None)
        os.close(given)
        if container.stdin_once and wanted.stdin and terminal is None:
            await host.streams.close_stdin(run.program)
