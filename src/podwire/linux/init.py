"""The first process of a PID namespace: of the cluster's, and of each node's.

It reaps, holds descriptors by name, starts programs, keeps the exit status of each until that is forgotten, and starts its one
child again when that dies. Everything else may be killed and come back: what it needs to go on is here. So this program
imports little, has one thread, waits for nobody (a client that does not read is cut off), and answers a bad request with an error.

It speaks on a SOCK_SEQPACKET unix socket, one JSON message a packet, descriptors beside it:

    {"id": 1, "do": "hold", "name": N} + fd            {"id": 1, "ok": {}}
    release {name}                                     give {prefix, after} -> {names, more} + fds, at most 253 a page
    spawn {name, program} + fds -> {pid, started} + pidfd, once the program runs; else the error says which step failed
    nest {name} + listening socket -> the same: another first process, of PID, mount and IPC namespaces of its own
    signal {name, signal, group}                       programs {prefix, after} -> {programs: {name: {pid, started, exit}}, more}
    forget {name}                                      orphans -> {orphans: [[pid, started, status]]}: the last ones that it reaped
    watch -> from then on {"exited": name, ...}        end {grace_s}: end the namespace in order

A status is the exit status, or minus the number of the signal. SIGTERM ends the namespace in order (everything in it gets
SIGTERM, and a moment), but only from outside: the programs of this namespace may not end it. When this process ends, for
whatever reason, the kernel ends everything in the namespace.

Sources: pid_namespaces(7), signalfd(2), unix(7).
"""

from __future__ import annotations

import bisect
import collections
import contextlib
import dataclasses
import errno
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from podwire.linux import process, remains, syscalls, unix
from podwire.linux.errors import ProgramNotStarted
from podwire.linux.init_connections import Connection, Connections, Handler, Refused

_SIGNALS: Final = frozenset({signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT})
_PROGRAMS_A_PAGE: Final = 500
_ORPHANS_KEPT: Final = 4_096
_BACK_OFF_S: Final = (0.05, 5.0)
_LIVED_WELL_S: Final = 10.0

# The child's environment tells it its own past: how often it was started again, and how it ended the last time.
RESTARTS: Final = "PODWIRE_INIT_RESTARTS"
LAST_ERROR: Final = "PODWIRE_INIT_LAST_ERROR"
DEFAULT_GRACE_S: Final = 2.0


@dataclass
class _Running:
    name: str
    pid: int
    started: int | None
    status: int | None = None
    mark: int = 0  # of all that ends with it

    def told(self) -> dict[str, Any]:
        return {"pid": self.pid, "started": self.started, "exit": self.status}


@dataclass
class _Spawn:
    """A program that is being started, and who waits for it."""

    client: Connection
    request: Any
    running: _Running
    starting: process.Starting


class Init:
    """The state of the first process, and its loop."""

    def __init__(
        self,
        listening: socket.socket,
        child: Callable[[], None] | None = None,
        grace_s: float = DEFAULT_GRACE_S,
        held: Mapping[str, int] | None = None,
    ) -> None:
        self._child = child
        self._grace_s = grace_s
        self._child_pid = 0
        self._child_restarts = 0
        self._child_error = ""
        self._child_since = 0.0
        self._child_at: float | None = 0.0 if child else None
        self._delay_s = _BACK_OFF_S[0]
        self._ends_at: float | None = None
        self._held: dict[str, int] = dict(held or {})
        self._programs: dict[str, _Running] = {}
        self._by_pid: dict[int, _Running] = {}
        self._spawns: dict[int, _Spawn] = {}  # by pipe
        self._passing: set[int] = set()  # children whose end means nothing
        self._orphans: collections.deque[tuple[int, int | None, int]] = collections.deque(maxlen=_ORPHANS_KEPT)
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._limits[1], self._limits[1]))
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._signals = syscalls.signal_descriptor(_SIGNALS)
        self._poll = select.epoll()
        self._poll.register(self._signals, select.EPOLLIN)
        self._connections = Connections(self._poll, listening, self._answer, self._log)
        self._requests: Mapping[str, Handler] = {
            "hold": self._hold,
            "give": self._give,
            "release": self._release,
            "spawn": self._spawn,
            "nest": self._nest,
            "signal": self._signal,
            "programs": self._list,
            "forget": self._forget,
            "orphans": self._list_orphans,
            "watch": self._watch,
            "end": self._end_requested,
        }

    # ---------------------------------------------------------------------------------------------------------- loop

    def run(self) -> None:
        """Serve until the namespace is to end."""
        while not self._over():
            try:
                self._turn()
            except Exception as failure:  # noqa: BLE001, RUF100  (whatever it is: the first process goes on)
                self._log(f"{type(failure).__name__}: {failure}")

    def _turn(self) -> None:
        deadlines = [at for at in (self._child_at, self._ends_at) if at is not None]
        wait = max(0.0, min(deadlines) - time.monotonic()) if deadlines else -1
        for fd, event in self._poll.poll(wait):
            if fd == self._signals:
                self._on_signals()
            elif fd in self._spawns:
                self._advance(self._spawns[fd])
            else:
                self._connections.on_event(fd, event)
        if self._child_at is not None and time.monotonic() >= self._child_at and self._ends_at is None:
            self._start_child()

    def _over(self) -> bool:
        if self._ends_at is None:
            return False
        if time.monotonic() >= self._ends_at:
            return True
        if os.getpid() != 1:
            return not any(one.status is None for one in self._programs.values()) and not self._child_pid
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True  # nobody is left: whoever loses its parent becomes a child of this process
        return False

    def _end(self, grace_s: float) -> None:
        if self._ends_at is not None:
            return
        self._ends_at = time.monotonic() + grace_s
        self._child_at = None
        for number in (signal.SIGTERM, signal.SIGCONT):
            if os.getpid() == 1:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, number)  # everything in this namespace but this process
                continue
            for pid in [self._child_pid, *(one.pid for one in self._programs.values() if one.status is None)]:
                if pid:
                    os.kill(pid, number)

    @staticmethod
    def _log(text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(2, f"podwire-init: {text}\n".encode())

    # ------------------------------------------------------------------------------------------------------- signals

    def _on_signals(self) -> None:
        for number, sender in syscalls.read_signals(self._signals):
            if number != signal.SIGCHLD and sender == 0:
                self._end(self._grace_s if number == signal.SIGTERM else 0.0)
        while True:
            # Looked at before it is reaped: as long as it is a zombie, its number and start time are its own.
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            self._reap(found.si_pid)

    def _reap(self, pid: int) -> None:
        for spawn in [spawn for spawn in self._spawns.values() if spawn.starting.pid == pid]:
            # What it told is in the pipe; the answer to its starting goes out before the news of its end.
            while spawn.starting.pid == pid and not self._advance(spawn):
                pass
        started = None if pid in self._by_pid else process.start_time(pid)
        _, wait_status = os.waitpid(pid, 0)
        status = os.waitstatus_to_exitcode(wait_status)
        running = self._by_pid.pop(pid, None)
        if pid == self._child_pid:
            self._child_ended(status)
        elif pid in self._passing:
            self._passing.discard(pid)
        elif running is not None:
            running.status = status
            remains.end(running.mark)
            news = {"exited": running.name, "status": status, "pid": pid, "started": running.started}
            for client in self._connections.watching():
                self._connections.send(client, news)
        else:
            self._orphans.append((pid, started, status))

    def _start_child(self) -> None:
        self._child_at = None
        self._child_since = time.monotonic()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self._leave()
                os.environ |= {RESTARTS: str(self._child_restarts), LAST_ERROR: self._child_error}
                assert self._child is not None
                self._child()
                status = 0
            except BaseException as failure:
                self._log(f"the child ended with {type(failure).__name__}: {failure}")
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        self._child_pid = pid

    def _child_ended(self, status: int) -> None:
        self._child_pid = 0
        if self._ends_at is not None:
            return
        if time.monotonic() - self._child_since >= _LIVED_WELL_S:
            self._delay_s = _BACK_OFF_S[0]
        self._log(f"the child ended with status {status}; it starts again in {self._delay_s:g} s")
        self._child_restarts += 1
        self._child_error = f"ended with status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
        self._child_at = time.monotonic() + self._delay_s
        self._delay_s = min(2 * self._delay_s, _BACK_OFF_S[1])

    def _leave(self) -> None:
        """In a forked child that goes on in Python: give back everything that is the first process's."""
        self._poll.close()
        for fd in [self._signals, *self._held.values(), *self._spawns]:
            os.close(fd)
        self._connections.leave()
        process.reset_signals()
        resource.setrlimit(resource.RLIMIT_NOFILE, self._limits)

    def _answer(self, client: Connection, message: unix.Message, descriptors: list[int]) -> unix.Message | None:
        handler = self._requests.get(str(message.get("do")))
        if handler is None:
            raise Refused(errno.EINVAL, f"there is no request {message.get('do')!r}")
        return handler(client, message, descriptors)

    # --------------------------------------------------------------------------------------------------- descriptors

    def _hold(self, client: Connection, message: unix.Message, descriptors: list[int]) -> unix.Message:  # noqa: ARG002
        name = _name(message)
        if len(descriptors) != 1:
            raise Refused(errno.EINVAL, f"hold {name}: one descriptor goes with it, not {len(descriptors)}")
        former = self._held.get(name)
        self._held[name] = descriptors.pop()
        if former is not None:
            os.close(former)
        return {}

    def _give(self, client: Connection, message: unix.Message, descriptors: list[int]) -> None:  # noqa: ARG002
        names, more = _page(self._held, message, unix.MAX_DESCRIPTORS)
        answer = {"id": message.get("id"), "ok": {"names": names, "more": more}}
        self._connections.send(client, answer, [self._held[name] for name in names])

    def _release(self, client: Connection, message: unix.Message, descriptors: list[int]) -> unix.Message:  # noqa: ARG002
        held = self._held.pop(_name(message), None)
        if held is None:
            raise Refused(errno.ENOENT, f"nothing is held as {message['name']}")
        os.close(held)
        return {}

    # ------------------------------------------------------------------------------------------------------ programs

    def _spawn(self, client: Connection, message: unix.Message, descriptors: list[int]) -> None:
        name = self._new_name(message)
        program = process.Program.from_message(message.get("program", {}), descriptors)
        program = dataclasses.replace(
            program,
            namespace=self._namespace(name, program.namespace, "network"),
            ipc=self._namespace(name, program.ipc, "IPC"),
        )
        if not isinstance(program.join, str):
            self._begin(client, message, name, program)
            return
        joined = self._programs.get(program.join)
        if joined is None or joined.status is not None:
            raise Refused(errno.ESRCH, f"start {name}: the program {program.join} does not run")
        watched = os.pidfd_open(joined.pid)
        try:
            self._begin(client, message, name, dataclasses.replace(program, join=watched))
        finally:
            os.close(watched)

    def _namespace(self, name: str, wanted: int | str | None, kind: str) -> int | None:
        """A program's namespace as a descriptor. Raises Refused."""
        if not isinstance(wanted, str):
            return wanted
        if wanted not in self._held:
            raise Refused(errno.ENOENT, f"start {name}: no {kind} namespace is held as {wanted}")
        return self._held[wanted]

    def _nest(self, client: Connection, message: unix.Message, descriptors: list[int]) -> None:
        name = self._new_name(message)
        if len(descriptors) != 1:
            raise Refused(errno.EINVAL, f"nest {name}: the listening socket goes with it")
        program = process.Program(("podwire-init",), stdin=0, stdout=1, stderr=2, own_processes=True, own_ipc=True)
        grace_s = float(message.get("grace_s", DEFAULT_GRACE_S))
        self._begin(client, message, name, program, self._leave, lambda: _nested(descriptors[0], name, grace_s))

    def _new_name(self, message: unix.Message) -> str:
        name = _name(message)
        if name in self._programs:
            state = "runs" if self._programs[name].status is None else "has ended and is not forgotten"
            raise Refused(errno.EEXIST, f"start {name}: a program of this name {state}")
        if self._ends_at is not None:
            raise Refused(errno.ESHUTDOWN, f"start {name}: the namespace is about to end")
        return name

    def _begin(
        self,
        client: Connection,
        message: unix.Message,
        name: str,
        program: process.Program,
        before: Callable[[], None] | None = None,
        instead: Callable[[], NoReturn] | None = None,
    ) -> None:
        try:
            starting = process.start(program, limits=self._limits, before=before, instead=instead)
        except ProgramNotStarted as failure:
            self._connections.send(client, {"id": message.get("id"), "error": _told(failure)})
            return
        running = _Running(name, starting.pid, process.start_time(starting.pid))
        self._programs[name] = running
        if program.runtime:
            self._passing.add(starting.pid)
        else:
            self._by_pid[starting.pid] = running
        self._spawns[starting.pipe] = _Spawn(client, message.get("id"), running, starting)
        self._poll.register(starting.pipe, select.EPOLLIN)

    def _advance(self, spawn: _Spawn) -> bool:
        """Take in what a program that is being started tells; when its fate is known, answer. True when it is."""
        starting, running, pipe = spawn.starting, spawn.running, spawn.starting.pipe
        known = starting.advance()
        running.mark = starting.mark
        if running.pid != starting.pid:  # a runtime has made it
            running.pid, running.started = starting.pid, process.start_time(starting.pid)
            self._by_pid[running.pid] = running
        if not known:
            return False
        del self._spawns[pipe]
        self._poll.unregister(pipe)
        starting.close()
        failure = starting.failure
        if failure is not None:
            self._fail(spawn, _told(failure))
            return True
        try:
            watched = os.pidfd_open(running.pid)
        except OSError as refused:
            os.kill(running.pid, signal.SIGKILL)
            self._fail(spawn, {"errno": refused.errno, "what": f"start {running.name}", "hint": "no descriptor for it", "step": "watch"})
            return True
        try:
            self._connections.send(spawn.client, {"id": spawn.request, "ok": {"pid": running.pid, "started": running.started}}, [watched])
        finally:
            os.close(watched)
        return True

    def _fail(self, spawn: _Spawn, told: unix.Message) -> None:
        running = spawn.running
        del self._programs[running.name]
        if self._by_pid.pop(running.pid, None) is not None:
            self._passing.add(running.pid)
        self._connections.send(spawn.client, {"id": spawn.request, "error": told})

    def _known(self, message: unix.Message) -> _Running:
        running = self._programs.get(_name(message))
        if running is None:
            raise Refused(errno.ENOENT, f"there is no program {message['name']}")
        return running

    def _signal(self, client: Connection, message: unix.Message, descriptors: list[int]) -> unix.Message:  # noqa: ARG002
        running = self._known(message)
        number = int(message["signal"])
        if running.status is not None:
            raise Refused(errno.ESRCH, f"signal {number} to {running.name}: it has ended with status {running.status}")
        # Not yet reaped, so the number is still its own.
        if message.get("group"):
            os.killpg(running.pid, number)
        else:
            os.kill(running.pid, number)
        return {}

    def _list(self, client: Connection, message: unix.Message, descriptors: list[int]) -> unix.Message:  # noqa: ARG002
        names, more = _page(self._programs, message, _PROGRAMS_A_PAGE)
        return {"programs": {name: self._programs[name].told() for name in names}, "more": more}

    def _forget(self, client: Connection, message: unix.Message, descriptors: list[int]) -> unix.Message:  # noqa: ARG002
        running = self._known(message)
        if running.status is None:
            raise Refused(errno.EBUSY, f"forget {running.name}: it runs")
        del self._programs[running.name]
        return {}

    def _list_orphans(self, client: Connection, message: unix.Message, descriptors: list[int]) -> unix.Message:  # noqa: ARG002
        return {"orphans": list(self._orphans)}

    def _watch(self, client: Connection, message: unix.Message, descriptors: list[int]) -> unix.Message:  # noqa: ARG002
        client.watching = True
        return {}

    def _end_requested(self, client: Connection, message: unix.Message, descriptors: list[int]) -> unix.Message:  # noqa: ARG002
        self._end(float(message.get("grace_s", self._grace_s)))
        return {}


def _told(failure: ProgramNotStarted) -> unix.Message:
    return {"errno": failure.errno, "what": failure.what, "hint": failure.hint, "step": failure.step}


def _name(message: unix.Message) -> str:
    name = message.get("name")
    if not isinstance(name, str) or not name or len(name) > 255:
        raise Refused(errno.EINVAL, f"{message.get('do')}: {name!r} is no name")
    return name


def _page(names: Mapping[str, object], message: unix.Message, size: int) -> tuple[list[str], bool]:
    """One page of the names that begin with ``prefix``, after the name ``after``; and whether there are more."""
    prefix, after = str(message.get("prefix", "")), str(message.get("after", ""))
    found = sorted(name for name in names if name.startswith(prefix))
    found = found[bisect.bisect_right(found, after) :]
    return found[:size], len(found) > size


def _nested(listening: int, name: str, grace_s: float) -> NoReturn:
    """Go on as another first process, which has nothing of the one that it was forked from."""
    syscalls.set_title(f"podwire-init {name}")
    main(socket.socket(fileno=listening), None, grace_s=grace_s)
    os._exit(0)


def main(
    listening: socket.socket,
    child: Callable[[], None] | None = None,
    *,
    grace_s: float = DEFAULT_GRACE_S,
    held: Mapping[str, int] | None = None,
) -> None:
    """Be the first process of this PID namespace, whose /proc is mounted, until it is to end.

    ``listening``: where it is spoken to (``unix.listen``). ``child``: called in a forked process, and again in a new one, with
    back-off, whenever that ends. ``grace_s``: how long programs may take to end after SIGTERM. ``held``: descriptors
    that it holds from the start, by name.
    """
    Init(listening, child, grace_s, held).run()
