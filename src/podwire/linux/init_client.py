"""Talking to the first process of a PID namespace: blocking, and on an event loop.

Both clients have the same words; the blocking one is for the supervisor and the commands, the other for agents. What the
first process refuses comes back as ``KernelRefused`` (``errno``: ENOENT unknown name, EEXIST name taken, ESRCH ended, EBUSY still
runs), a program that could not be started as ``ProgramNotStarted``. Descriptors that are returned are the caller's to close.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from podwire.linux import unix
from podwire.linux.errors import KernelRefused, ProgramNotStarted
from podwire.linux.process import Program


@dataclass(frozen=True, slots=True)
class Started:
    """A program that runs. ``started`` (clock ticks since boot) with ``pid`` is its identity; ``descriptor`` is its pidfd."""

    pid: int
    started: int
    descriptor: int


@dataclass(frozen=True, slots=True)
class State:
    """A program that was started and is not forgotten. ``exit``: its status, minus a signal's number, None while it runs."""

    pid: int
    started: int
    exit: int | None


@dataclass(frozen=True, slots=True)
class Exited:
    """News of a program's end. ``status``: its exit status, or minus the number of the signal that ended it."""

    name: str
    status: int
    pid: int
    started: int


def _refusal(told: dict[str, Any]) -> KernelRefused:
    if "step" in told:
        return ProgramNotStarted(told["errno"], told["what"], told.get("hint", ""), told["step"])
    return KernelRefused(told["errno"], told["what"], told.get("hint", ""))


def _close(descriptors: Sequence[int]) -> None:
    for fd in descriptors:
        os.close(fd)


def _started(answer: unix.Message, descriptors: Sequence[int]) -> Started:
    return Started(answer["pid"], answer["started"], descriptors[0])


def _spawning(name: str, program: Program) -> tuple[unix.Message, list[int]]:
    message, descriptors = program.to_message()
    return {"do": "spawn", "name": name, "program": message}, descriptors


def _exited(message: unix.Message) -> Exited:
    return Exited(message["exited"], message["status"], message["pid"], message["started"])


class InitClient:
    """The blocking client: one connection, one thread at a time.

    Raises (every call):
        KernelRefused: the request was refused.
        ConnectionError: the first process is gone; TimeoutError: it did not answer within ``timeout_s``.
    """

    def __init__(self, path: str, *, timeout_s: float | None = 10.0) -> None:
        self._socket = unix.connect(path, timeout_s=timeout_s)
        self._number = 0
        self._news: list[Exited] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Nothing that was started or is held ends by that."""
        self._socket.close()

    def fileno(self) -> int:
        """For a poll: readable when there is news after ``watch``."""
        return self._socket.fileno()

    def _ask(self, message: unix.Message, descriptors: Sequence[int] = ()) -> tuple[unix.Message, list[int]]:
        self._number += 1
        unix.send(self._socket, {"id": self._number, **message}, descriptors)
        while True:
            received = unix.receive(self._socket)
            if received is None:
                raise ConnectionResetError(errno.ECONNRESET, "the first process closed the connection")
            answer, beside = received
            if "exited" in answer:
                self._news.append(_exited(answer))
            elif answer.get("id") in {self._number, None}:  # None: what was sent could not be read
                if "error" in answer:
                    raise _refusal(answer["error"])
                return answer["ok"], beside
            else:  # the answer to a request that was given up
                _close(beside)

    def hold(self, name: str, fd: int) -> None:
        """Keep a copy of a descriptor; one that was held under the name is let go."""
        self._ask({"do": "hold", "name": name}, [fd])

    def give(self, prefix: str = "") -> dict[str, int]:
        """Copies of all descriptors whose names begin with ``prefix``."""
        found: dict[str, int] = {}
        after, more = "", True
        try:
            while more:
                answer, descriptors = self._ask({"do": "give", "prefix": prefix, "after": after})
                found.update(zip(answer["names"], descriptors, strict=True))
                more = answer["more"]
                after = answer["names"][-1] if answer["names"] else after
        except BaseException:
            _close(list(found.values()))
            raise
        return found

    def release(self, name: str) -> None:
        """Let go of a held descriptor."""
        self._ask({"do": "release", "name": name})

    def spawn(self, name: str, program: Program) -> Started:
        """Start a program and wait until it is executed.

        Raises:
            ProgramNotStarted: with the step that failed; ``status`` as a shell would have it.
        """
        return _started(*self._ask(*_spawning(name, program)))

    def nest(self, name: str, listening: socket.socket, *, grace_s: float = 2.0) -> Started:
        """Start another first process, of PID, mount and IPC namespaces of its own, that listens there."""
        return _started(*self._ask({"do": "nest", "name": name, "grace_s": grace_s}, [listening.fileno()]))

    def signal(self, name: str, number: int, *, group: bool = False) -> None:
        """Send a signal to a program, or to its whole process group."""
        self._ask({"do": "signal", "name": name, "signal": int(number), "group": group})

    def programs(self, prefix: str = "") -> dict[str, State]:
        """The programs whose names begin with ``prefix``, running and ended."""
        found: dict[str, State] = {}
        after, more = "", True
        while more:
            answer, _ = self._ask({"do": "programs", "prefix": prefix, "after": after})
            found.update((name, State(**told)) for name, told in answer["programs"].items())
            more = answer["more"]
            after = max(answer["programs"], default=after)
        return found

    def forget(self, name: str) -> None:
        """Forget a program that has ended; its name is free again."""
        self._ask({"do": "forget", "name": name})

    def orphans(self) -> list[tuple[int, int | None, int]]:
        """The last processes that the first process reaped for others: (pid, start time, status), oldest first."""
        answer, _ = self._ask({"do": "orphans"})
        return [(pid, started, status) for pid, started, status in answer["orphans"]]

    def watch(self) -> None:
        """From now on, ``news`` has every program's end. Ask for ``programs`` after it, and nothing is missed."""
        self._ask({"do": "watch"})

    def news(self) -> Iterator[Exited]:
        """The ends of programs, as they come; waits for the next one."""
        while True:
            while self._news:
                yield self._news.pop(0)
            received = unix.receive(self._socket)
            if received is None:
                return
            message, descriptors = received
            _close(descriptors)
            if "exited" in message:
                yield _exited(message)

    def end(self, grace_s: float | None = None) -> None:
        """End the namespace in order: SIGTERM to everything, ``grace_s`` later the rest."""
        self._ask({"do": "end"} if grace_s is None else {"do": "end", "grace_s": grace_s})


class AsyncInitClient:
    """The client for an event loop: many requests at once on one connection. Use it from the loop that ``connect`` ran on."""

    _CLOSED: Final = "the connection to the first process is closed"

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._waiting: dict[int, asyncio.Future[tuple[unix.Message, list[int]]]] = {}
        self._outgoing: list[tuple[bytes, list[int]]] = []
        self._watchers: list[Callable[[Exited], None]] = []
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(connected, self._readable)

    @classmethod
    async def connect(cls, path: str) -> AsyncInitClient:
        """Connect to the first process that listens at ``path``."""
        connected = unix.connect(path)  # a unix socket connects at once or not at all
        connected.setblocking(False)
        return cls(connected)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; requests that wait raise ConnectionResetError."""
        if self._closed.done():
            return
        self._closed.set_result(None)
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError(errno.ECONNRESET, self._CLOSED))
        self._waiting.clear()
        for _, descriptors in self._outgoing:
            _close(descriptors)
        self._outgoing.clear()

    async def closed(self) -> None:
        """Wait until the connection is closed, by whichever side."""
        await asyncio.shield(self._closed)

    def _readable(self) -> None:
        try:
            received = unix.receive(self._socket)
        except BlockingIOError:
            return
        except unix.MessageLost as lost:
            waiting = self._waiting.pop(lost.message.get("id", 0), None)
            if waiting is not None and not waiting.done():
                waiting.set_exception(lost)
            return
        except OSError:
            received = None
        if received is None:
            self.close()
            return
        message, descriptors = received
        if "exited" in message:
            for watcher in self._watchers:
                watcher(_exited(message))
            return
        waiting = self._waiting.pop(message.get("id", 0), None)
        if waiting is None or waiting.done():
            _close(descriptors)
        elif "error" in message:
            waiting.set_exception(_refusal(message["error"]))
        else:
            waiting.set_result((message["ok"], descriptors))

    def _writable(self) -> None:
        while self._outgoing:
            data, descriptors = self._outgoing[0]
            try:
                unix.send_bytes(self._socket, data, descriptors)
            except BlockingIOError:
                return
            except OSError:
                self.close()
                return
            self._outgoing.pop(0)
            _close(descriptors)
        self._loop.remove_writer(self._socket)

    async def _ask(self, message: unix.Message, descriptors: Sequence[int] = ()) -> tuple[unix.Message, list[int]]:
        if self._closed.done():
            raise ConnectionResetError(errno.ECONNRESET, self._CLOSED)
        self._number += 1
        number = self._number
        data = unix.encode({"id": number, **message})
        waiting: asyncio.Future[tuple[unix.Message, list[int]]] = self._loop.create_future()
        if self._outgoing or not self._sent(data, descriptors):
            self._outgoing.append((data, [os.dup(fd) for fd in descriptors]))
            self._loop.add_writer(self._socket, self._writable)
        self._waiting[number] = waiting
        try:
            return await waiting
        except asyncio.CancelledError:
            self._waiting.pop(number, None)
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:
                _close(waiting.result()[1])
            raise

    def _sent(self, data: bytes, descriptors: Sequence[int]) -> bool:
        try:
            unix.send_bytes(self._socket, data, descriptors)
        except BlockingIOError:
            return False
        return True

    async def hold(self, name: str, fd: int) -> None:
        """Keep a copy of a descriptor; one that was held under the name is let go."""
        await self._ask({"do": "hold", "name": name}, [fd])

    async def _pages(self, message: unix.Message, field: str) -> AsyncGenerator[tuple[unix.Message, list[int]], None]:
        after, more = "", True
        while more:
            answer, descriptors = await self._ask({**message, "after": after})
            yield answer, descriptors
            more = answer["more"]
            after = max(answer[field], default=after)

    async def give(self, prefix: str = "") -> dict[str, int]:
        """Copies of all descriptors whose names begin with ``prefix``."""
        found: dict[str, int] = {}
        try:
            async with contextlib.aclosing(self._pages({"do": "give", "prefix": prefix}, "names")) as pages:
                async for answer, descriptors in pages:
                    found.update(zip(answer["names"], descriptors, strict=True))
        except BaseException:
            _close(list(found.values()))
            raise
        return found

    async def release(self, name: str) -> None:
        """Let go of a held descriptor."""
        await self._ask({"do": "release", "name": name})

    async def spawn(self, name: str, program: Program) -> Started:
        """Start a program and wait until it is executed; ProgramNotStarted says which step failed."""
        return _started(*await self._ask(*_spawning(name, program)))

    async def nest(self, name: str, listening: socket.socket, *, grace_s: float = 2.0) -> Started:
        """Start another first process, of PID, mount and IPC namespaces of its own, that listens there."""
        return _started(*await self._ask({"do": "nest", "name": name, "grace_s": grace_s}, [listening.fileno()]))

    async def signal(self, name: str, number: int, *, group: bool = False) -> None:
        """Send a signal to a program, or to its whole process group."""
        await self._ask({"do": "signal", "name": name, "signal": int(number), "group": group})

    async def programs(self, prefix: str = "") -> dict[str, State]:
        """The programs whose names begin with ``prefix``, running and ended."""
        found: dict[str, State] = {}
        async with contextlib.aclosing(self._pages({"do": "programs", "prefix": prefix}, "programs")) as pages:
            async for answer, _ in pages:
                found.update((name, State(**told)) for name, told in answer["programs"].items())
        return found

    async def forget(self, name: str) -> None:
        """Forget a program that has ended; its name is free again."""
        await self._ask({"do": "forget", "name": name})

    async def orphans(self) -> list[tuple[int, int | None, int]]:
        """The last processes that the first process reaped for others: (pid, start time, status), oldest first."""
        answer, _ = await self._ask({"do": "orphans"})
        return [(pid, started, status) for pid, started, status in answer["orphans"]]

    async def watch(self, watcher: Callable[[Exited], None]) -> None:
        """Call ``watcher`` on the loop for every program's end from now on. Ask for ``programs`` after it, and nothing is missed."""
        self._watchers.append(watcher)
        await self._ask({"do": "watch"})

    async def end(self, grace_s: float | None = None) -> None:
        """End the namespace in order: SIGTERM to everything, ``grace_s`` later the rest."""
        await self._ask({"do": "end"} if grace_s is None else {"do": "end", "grace_s": grace_s})
