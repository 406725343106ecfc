"""The program that takes what containers write and logs it: one a node, below the node's first process.

A container's stdout and stderr are pipes whose reading ends the first process holds (``log/UID/CONTAINER/N/stdout``, ``.../stderr``;
``.../tty`` for a terminal). So neither the end of the node's agent nor of this program is one of a container's: nothing breaks a pipe, what
is written meanwhile waits in it, and a program that is started anew takes the ends up again and goes on. The agent is not in the way of
the data at all: killed, no line is lost. If this program itself is killed, what it had read and not yet written (at most one read of each
pipe) is lost, nothing else.

It speaks on a SOCK_SEQPACKET socket, one JSON message a packet, descriptors beside it, each request with an answer that carries its ``id``:

    take {name}                  a run has begun: take its ends from the first process
    attach {name} + descriptors  write what comes from now on to these pipes, too: [stdout, stderr] -> {attached}: whether it still runs
    drained {name}               answered when everything of that run is written

Who attaches and does not read makes the container wait, as a pipe does. SIGTERM is ignored: it comes when the node ends, and the last
words of its containers are still to be written; the end of the namespace ends this program.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from podwire.linux import unix
from podwire.linux.errors import KernelRefused
from podwire.linux.init_client import InitClient
from podwire.pods.logs.file import LogFile, path_of, remove_older
from podwire.pods.logs.lines import Splitter

HELD: Final = "log/"
_READ: Final = 64 * 1024
_ENDS: Final[dict[str, tuple[int, Literal["stdout", "stderr"]]]] = {"stdout": (0, "stdout"), "stderr": (1, "stderr"), "tty": (0, "stdout")}


def held_name(run: str, end: str) -> str:
    """Under which name the first process holds an end. ``run``: ``UID/CONTAINER/N``; ``end``: ``stdout``, ``stderr`` or ``tty``."""
    return f"{HELD}{run}/{end}"


@dataclass(eq=False)
class _Attached:
    """A pipe that somebody reads; ``waiting`` is what did not fit into it."""

    fd: int
    waiting: bytes = b""


@dataclass(eq=False)
class _Source:
    """One end, and who else hears what comes from it."""

    fd: int
    held: str
    run: _Run
    splitter: Splitter
    place: int
    attached: list[_Attached] = field(default_factory=list)
    stopped: bool = False  # not read from: somebody who is attached does not read


@dataclass(eq=False)
class _Run:
    name: str
    file: LogFile
    sources: list[_Source] = field(default_factory=list)
    drained: list[Callable[[], None]] = field(default_factory=list)


class Writer:
    """The state of the program, and its loop."""

    def __init__(self, init_socket: str, folder: str, listening: socket.socket) -> None:
        self._init = InitClient(init_socket)
        self._folder = Path(folder)
        self._listening = listening
        self._poll = select.epoll()
        self._runs: dict[str, _Run] = {}
        self._ready: dict[int, Callable[[int], None]] = {}
        self._watch(listening.fileno(), self._accept)

    def run(self) -> None:
        """Take up what the first process holds, and go on for ever."""
        self._take("")
        while True:
            for fd, event in self._poll.poll():
                ready = self._ready.get(fd)
                if ready is not None:
                    try:
                        ready(event)
                    except OSError as error:  # a full disk ends no container
                        print(f"podwire-logs: {error}", file=sys.stderr, flush=True)

    def _watch(self, fd: int, ready: Callable[[int], None], events: int = select.EPOLLIN) -> None:
        self._poll.register(fd, events)
        self._ready[fd] = ready

    def _unwatch(self, fd: int) -> None:
        if self._ready.pop(fd, None) is not None:
            self._poll.unregister(fd)

    # Who speaks to it -----------------------------------------------------------------------------------------------------

    def _accept(self, _event: int) -> None:
        connection, _ = self._listening.accept()
        self._watch(connection.fileno(), lambda _event: self._hear(connection))

    def _hear(self, connection: socket.socket) -> None:
        try:
            received = unix.receive(connection)
        except ConnectionError:
            received = None
        except (OSError, ValueError, TypeError) as error:
            print(f"podwire-logs: {error}", file=sys.stderr, flush=True)
            return
        if received is None:
            self._unwatch(connection.fileno())
            connection.close()
            return
        message, descriptors = received

        def answer(words: unix.Message | None = None) -> None:
            with contextlib.suppress(OSError):  # the one who asked is gone
                unix.send(connection, {"id": message.get("id"), **(words or {})})

        name = str(message.get("name", ""))
        match message.get("do"):
            case "take":
                self._take(name)
                answer()
            case "attach":
                answer({"attached": self._attach(name, descriptors)})
            case "drained":
                self._take(name)  # of whoever was killed, or called off, before it asked for that
                self._drain(name, answer)
            case _:
                answer()
                for fd in descriptors:
                    os.close(fd)

    # Runs -----------------------------------------------------------------------------------------------------------------

    def _take(self, name: str) -> None:
        """Take the ends of one run, or with an empty name of all."""
        for held, fd in self._init.give(f"{HELD}{name}/" if name else HELD).items():
            run_name, _, end = held.removeprefix(HELD).rpartition("/")
            run = self._runs.get(run_name)
            if end not in _ENDS or (run is not None and any(source.held == held for source in run.sources)):
                os.close(fd)
                continue
            if run is None:
                run = self._runs[run_name] = self._begun(run_name)
            place, stream = _ENDS[end]
            source = _Source(fd, held, run, Splitter(stream), place)
            run.sources.append(source)
            os.set_blocking(fd, False)
            self._watch(fd, self._reading(source))

    def _drain(self, name: str, answer: Callable[[], None]) -> None:
        """Answer when everything of a run is written: at once where it is not written any more."""
        if name in self._runs:
            self._runs[name].drained.append(answer)
        else:
            answer()

    def _begun(self, name: str) -> _Run:
        uid, container, number = name.split("/")
        path = path_of(self._folder, uid, container, int(number))
        file = LogFile(path)
        file.open()
        remove_older(path)
        return _Run(name, file)

    def _attach(self, name: str, descriptors: Sequence[int]) -> bool:
        run = self._runs.get(name)
        attached = [_Attached(fd) for fd in descriptors]
        for one in attached:
            os.set_blocking(one.fd, False)
        used = set()
        for source in run.sources if run is not None else ():
            if source.place < len(attached):
                source.attached.append(attached[source.place])
                used.add(source.place)
        for place, one in enumerate(attached):
            if place not in used:
                os.close(one.fd)
        return bool(used)

    def _reading(self, source: _Source) -> Callable[[int], None]:
        return lambda _event: self._read(source)

    def _read(self, source: _Source) -> None:
        try:
            data = os.read(source.fd, _READ)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:  # what a terminal says when nobody has it any more
                raise
            data = b""
        now = time.time_ns()
        if not data:
            self._end(source, now)
            return
        try:
            source.run.file.write(source.splitter.feed(data, now))
        finally:
            for one in list(source.attached):
                self._pass_on(source, one, data)

    def _end(self, source: _Source, now: int) -> None:
        run = source.run
        self._unwatch(source.fd)
        os.close(source.fd)
        run.sources.remove(source)
        try:
            run.file.write(source.splitter.flush(now))
        finally:
            for one in list(source.attached):
                if not one.waiting:
                    self._detach(source, one)
            with contextlib.suppress(KernelRefused):
                self._init.release(source.held)
            if not run.sources:
                run.file.close()
                del self._runs[run.name]
                for answer in run.drained:
                    answer()

    # Those who listen -------------------------------------------------------------------------------------------------------

    def _pass_on(self, source: _Source, one: _Attached, data: bytes) -> None:
        try:
            written = os.write(one.fd, data)
        except BlockingIOError:
            written = 0
        except OSError:  # it has gone
            self._detach(source, one)
            return
        if written < len(data):
            one.waiting = data[written:]
            self._unwatch(source.fd)
            source.stopped = True
            self._watch(one.fd, lambda _event: self._flush(source, one), select.EPOLLOUT)

    def _flush(self, source: _Source, one: _Attached) -> None:
        try:
            one.waiting = one.waiting[os.write(one.fd, one.waiting) :]
        except BlockingIOError:
            return
        except OSError:
            one.waiting = b""
            self._detach(source, one)
        if not one.waiting:
            self._unwatch(one.fd)
            self._go_on(source)

    def _detach(self, source: _Source, one: _Attached) -> None:
        self._unwatch(one.fd)
        os.close(one.fd)
        source.attached.remove(one)
        self._go_on(source)

    def _go_on(self, source: _Source) -> None:
        if source.stopped and not any(one.waiting for one in source.attached):
            source.stopped = False
            self._watch(source.fd, self._reading(source))


def main(init_socket: str, folder: str) -> None:
    """Run. The listening socket is descriptor 3."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with socket.socket(fileno=3) as listening, contextlib.suppress(ConnectionError):  # without the first process there is no node
        Writer(init_socket, folder, listening).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
