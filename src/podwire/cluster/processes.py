"""The lab's processes: forked from one warm parent, watched, started again when they die, adopted when the parent was.

A process is the command line that it would have on a real cluster (``podwire agent ...``), called in a fork of the supervisor
that has moved into its place first. What runs is written to the tmpfs at each change; a child starts its work only once it
stands there, so a supervisor that was killed at any moment finds exactly the processes that live.

Back-off: 0.1 s, doubled to 5 s, forgotten after 10 s of life.
Source: sd_notify(3) for readiness, pid_namespaces(7) for setns and fork.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Collection
from dataclasses import asdict

from podwire.cluster import offspring, state
from podwire.cluster.loop import Loop, Timer
from podwire.cluster.paths import Paths
from podwire.cluster.plan import Process
from podwire.cluster.reports import Record

FIRST_PAUSE_S, LONGEST_PAUSE_S, STEADY_S = 0.1, 5.0, 10.0
LOG_BYTES = 8 << 20
TAIL_BYTES = 4096


class Processes:
    """All processes of the plan. ``changed`` is called after each change that a person could see."""

    def __init__(
        self,
        loop: Loop,
        paths: Paths,
        processes: tuple[Process, ...],
        notify: socket.socket,
        grounds: offspring.Grounds,
        changed: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._paths = paths
        self._planned = {process.name: process for process in processes}
        self._grounds = grounds
        self._changed = changed
        self._notify = notify
        self._reasons: dict[str, str] = {}  # why a process says that it is ending
        loop.on_readable(notify.fileno(), self._hear)
        self._records = {name: Record(name) for name in self._planned}
        self._descriptors: dict[str, int] = {}
        self._since: dict[str, float] = {}
        self._pauses: dict[str, float] = {}
        self._timers: dict[str, Timer] = {}
        self._table = f"{paths.run}/processes.json"
        self._running = False
        self._warm: set[str] = set()
        self._stopped: frozenset[str] = frozenset()

    # What is asked

    @property
    def started(self) -> bool:
        return self._running

    def records(self) -> list[Record]:
        return list(self._records.values())

    def ready(self) -> bool:
        return all(record.ready or record.done for record in self._records.values())

    def replan(self, processes: tuple[Process, ...], stopped: Collection[str]) -> None:
        """Have these processes from now on; those on nodes in ``stopped`` do not run. What has ended with its node stays ended."""
        gone = self._planned.keys() - {process.name for process in processes}
        self._planned = {process.name: process for process in processes}
        self._stopped = frozenset(stopped)
        for name in gone:
            self._drop(self._records.pop(name))
        for name, process in self._planned.items():
            record = self._records.setdefault(name, Record(name))
            was, record.stopped = record.stopped, process.pid_namespace in self._stopped
            if record.stopped and name in self._timers:
                self._timers.pop(name).cancel()
            if was and not record.stopped:
                self._pauses.pop(name, None)
                record.last_error = ""
        self._write()
        self._changed()
        if self._running:
            self._start_possible()

    def _drop(self, record: Record) -> None:
        """A process of a node that is no more: it ends with the node."""
        if record.name in self._timers:
            self._timers.pop(record.name).cancel()
        if record.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(record.pid, signal.SIGKILL)

    # Life

    def warmed(self, word: str) -> None:
        """From now on processes may start whose command line begins with this word: what they need is imported."""
        self._warm.add(word)
        if self._running:
            self._start_possible()

    def start(self) -> None:
        """Start everything whose predecessors are ready; the rest follows by itself."""
        self._running = True
        self._write()
        self._start_possible()

    def adopt(self) -> bool:
        """Take over what an earlier supervisor started. Says whether it had started anything."""
        try:
            with open(self._table, encoding="utf-8") as stream:
                table = json.load(stream)
        except FileNotFoundError:
            return False
        for entry in table["processes"]:
            record = Record(**entry)
            if record.name in self._planned:
                self._records[record.name] = record
        self._running = bool(table["running"])
        for record in self._records.values():
            if record.pid:
                self._adopt_one(record)
        if self._running:
            self._start_possible()
        return self._running

    def _adopt_one(self, record: Record) -> None:
        descriptor = state.open_process(state.Identity(record.pid, record.started))
        if descriptor is None:
            self._ended(record, "ended while the supervisor was away")
            return
        self._watch(record, descriptor)

    def _start_possible(self) -> None:
        """Start one process that may start, and have the others follow, each after a look at everything else.

        A queue of notifications holds ten: a hundred forks in a row would fill it.
        """
        for name, process in self._planned.items():
            record = self._records[name]
            waits = any(not (self._records[other].ready or self._records[other].done) for other in process.after)
            cold = process.arguments[0] not in self._warm
            if not (record.pid or record.done or record.stopped or waits or cold or name in self._timers):
                self._start_one(process, record)
                self._loop.after(0, self._start_possible)
                return

    def _start_one(self, process: Process, record: Record) -> None:
        self._rotate(process.name)
        try:
            child = offspring.fork(process, self._grounds, self._paths)
        except KeyError:  # the first process of its node is not there yet: that is no end of this one
            self._timers[process.name] = self._loop.after(FIRST_PAUSE_S, lambda: self._again(process.name))
            return
        except OSError as error:
            self._ended(record, f"could not be started: {error}")
            return
        identity = state.identify(child.pid)
        self._reasons.pop(process.name, None)
        record.pid, record.started, record.ready = child.pid, identity.started if identity else 0, False
        self._since[process.name] = time.monotonic()
        self._write()
        self._watch(record, os.pidfd_open(child.pid))
        child.release()
        self._changed()

    def _watch(self, record: Record, descriptor: int) -> None:
        self._descriptors[record.name] = descriptor
        self._loop.on_readable(descriptor, lambda: self._reap(record))

    def _reap(self, record: Record) -> None:
        descriptor = self._descriptors.pop(record.name)
        self._loop.forget(descriptor)
        os.close(descriptor)
        self._hear()  # its last words may still lie there
        try:
            _, status = os.waitpid(record.pid, 0)
            code: int | None = os.waitstatus_to_exitcode(status)
        except ChildProcessError:  # adopted: init reaps it
            code = self._grounds.exit_status(record.pid)
        if record.name not in self._planned:
            return
        if code == 0 and self._planned[record.name].once:
            record.pid, record.done, record.last_error = 0, True, ""
            self._write()
            self._changed()
            self._start_possible()
            return
        reason = self._reasons.pop(record.name, "")
        if not reason and code != -signal.SIGKILL:  # who is killed from outside has not written why
            reason = self._last_line(record.name)
        self._ended(record, _how(code) + (f": {reason}" if reason else ""))

    def _ended(self, record: Record, why: str) -> None:
        name = record.name
        if record.stopped:
            record.pid, record.ready, record.last_error, record.status = 0, False, "", ""
            self._write()
            self._changed()
            return
        if time.monotonic() - self._since.get(name, 0.0) > STEADY_S:
            self._pauses.pop(name, None)
        pause = self._pauses.get(name, FIRST_PAUSE_S)
        self._pauses[name] = min(2 * pause, LONGEST_PAUSE_S)
        record.pid, record.ready, record.last_error, record.status = 0, False, why, ""
        record.restarts += 1
        self._timers[name] = self._loop.after(pause, lambda: self._again(name))
        self._write()
        self._changed()

    def _again(self, name: str) -> None:
        self._timers.pop(name, None)
        self._start_possible()

    # Readiness: datagrams of lines KEY=VALUE, the sender's pid beside them

    def _hear(self) -> None:
        """Read all notifications that have come."""
        with contextlib.suppress(BlockingIOError):
            while True:
                body, ancillary, _, _ = self._notify.recvmsg(4096, socket.CMSG_SPACE(12) + socket.CMSG_SPACE(64), socket.MSG_DONTWAIT)
                self._take_note(_sender(ancillary), body.decode(errors="replace"))

    def _take_note(self, pid: int, text: str) -> None:
        record = next((record for record in self._records.values() if pid and record.pid == pid), None)
        if record is None:
            return
        lines = dict(line.partition("=")[::2] for line in text.splitlines())
        record.status = lines.get("STATUS", record.status)
        if "READY" in lines:
            record.ready = lines["READY"] == "1"
        if "STOPPING" in lines:
            record.ready = False
            self._reasons[record.name] = record.status
        self._write()
        self._changed()
        self._start_possible()

    # Files

    def _write(self) -> None:
        beside = f"{self._table}.tmp"
        table = {"running": self._running, "processes": [asdict(record) for record in self._records.values()]}
        with open(beside, "w", encoding="utf-8") as stream:
            json.dump(table, stream)
        os.replace(beside, self._table)

    def _rotate(self, name: str) -> None:
        log = self._paths.log(name)
        with contextlib.suppress(FileNotFoundError):
            if os.path.getsize(log) > LOG_BYTES:
                os.replace(log, f"{log}.1")

    def _last_line(self, name: str) -> str:
        with contextlib.suppress(OSError), open(self._paths.log(name), "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - TAIL_BYTES))
            lines = stream.read().decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""


def _how(code: int | None) -> str:
    if code is None:
        return "ended"
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return int(struct.unpack("=iII", data[:12])[0])
    return 0
