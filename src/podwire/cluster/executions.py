"""Programs that a person starts at a place (``podwire exec``): started by the first process of that place, watched here.

The command line passes its descriptors and waits. When it goes away, its program gets SIGHUP and then SIGKILL, as when a
terminal is closed. When the supervisor goes away, the command line comes back with ``attach``, and loses nothing: the first
process knows how the program ended.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from podwire.cluster import wheres
from podwire.cluster.control import Caller, Refused
from podwire.cluster.first_processes import FirstProcesses
from podwire.cluster.loop import Loop
from podwire.cluster.packets import Message
from podwire.cluster.paths import Paths
from podwire.linux.errors import ProgramNotStarted
from podwire.linux.init_client import InitClient
from podwire.linux.process import Program

GRACE_S = 2.0
LOOK_AGAIN_S = 0.001
PREFIX = "exec/"


@dataclass
class Execution:
    id: str
    node: str
    descriptor: int
    caller: Caller | None = None
    timers: list[Callable[[], None]] = field(default_factory=list)


class Executions:
    """All programs that were started by ``exec`` and whose end has not been told yet."""

    def __init__(self, loop: Loop, paths: Paths, nodes: Callable[[], Sequence[str]], first: FirstProcesses) -> None:
        self._loop = loop
        self._paths = paths
        self._nodes = nodes
        self._first = first
        self._running: dict[str, Execution] = {}

    def start(self, message: Message, descriptors: tuple[int, ...], caller: Caller) -> None:
        """Start a program; the answer is its id and a descriptor of it, its end is told later."""
        try:
            where = wheres.find(str(message["where"]), self._nodes(), self._paths)
        except wheres.Unknown as unknown:
            caller.tell({"error": str(unknown), "status": 2})
            return
        if len(descriptors) != 3:
            raise Refused(f"expected stdin, stdout and stderr, got {len(descriptors)} descriptors")
        program = Program(
            argv=[str(word) for word in message["argv"]],
            env={str(key): str(value) for key, value in message["env"].items()},
            cwd=str(message["cwd"]),
            namespace=where.held,
            stdin=descriptors[0],
            stdout=descriptors[1],
            stderr=descriptors[2],
            files=self._files(where),
            own_sys=True,
            terminal=bool(message.get("terminal")),
            umask=int(message.get("umask", 0o022)),
        )
        name = PREFIX + secrets.token_hex(6)
        try:
            descriptor = self._of(where).spawn(name, program).descriptor
        except ProgramNotStarted as failure:
            caller.tell({"error": str(failure), "status": failure.status})
            return
        execution = Execution(f"{where.node}:{name}", where.node, descriptor)
        self._watch(execution)
        self._attach(execution, caller)
        caller.tell({"id": execution.id}, [descriptor])

    def attach(self, message: Message, _: tuple[int, ...], caller: Caller) -> None:
        """Take up a program again whose command line lost its connection."""
        execution = self._running.get(str(message["id"]))
        if execution is None:
            raise Refused(f"no program {message['id']!r}")
        caller.tell({})
        self._attach(execution, caller)

    def adopt(self, node: str, running: Mapping[str, int]) -> None:
        """Take over programs that an earlier supervisor started: name to descriptor. Who waits for them comes back soon."""
        for name, descriptor in running.items():
            execution = Execution(f"{node}:{name}", node, descriptor)
            self._watch(execution)
            execution.timers.append(self._loop.after(GRACE_S, lambda execution=execution: self._abandon(execution)).cancel)  # type: ignore[misc]

    def _files(self, where: wheres.Where) -> dict[str, str]:
        if not where.pod_uid:
            return {}
        folder = f"{self._paths.node(where.node)}/pods/{where.pod_uid}"
        return {f"/etc/{name}": f"{folder}/{name}" for name in ("resolv.conf", "hosts") if os.path.exists(f"{folder}/{name}")}

    def _watch(self, execution: Execution) -> None:
        self._running[execution.id] = execution
        self._loop.on_readable(execution.descriptor, lambda: self._ended(execution))

    def _attach(self, execution: Execution, caller: Caller) -> None:
        for cancel in execution.timers:
            cancel()
        execution.caller = caller
        caller.on_gone.append(lambda: self._abandon(execution))

    def _abandon(self, execution: Execution) -> None:
        """Nobody waits any more."""
        if execution.id not in self._running:
            return
        execution.caller = None
        self._signal(execution, signal.SIGHUP)
        execution.timers.append(self._loop.after(GRACE_S, lambda: self._signal(execution, signal.SIGKILL)).cancel)

    def _signal(self, execution: Execution, number: signal.Signals) -> None:
        if execution.id in self._running:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(execution.descriptor, number)

    def _ended(self, execution: Execution) -> None:
        self._loop.forget(execution.descriptor)
        name = execution.id.partition(":")[2]
        status = self._first.exit_status(execution.node, name)
        if status is None:  # it has ended this very moment, and its first process has not come to reap it
            self._loop.after(LOOK_AGAIN_S, lambda: self._ended(execution))
            return
        del self._running[execution.id]
        for cancel in execution.timers:
            cancel()
        os.close(execution.descriptor)
        self._first.forget(execution.node, name)
        if execution.caller:
            execution.caller.tell({"exited": status})

    def network(self, word: str) -> int:
        """Give a descriptor of a place's network namespace, the caller's to close. Raises wheres.Unknown."""
        where = wheres.find(word, self._nodes(), self._paths)
        return self._of(where).give(where.held)[where.held]

    def _of(self, where: wheres.Where) -> InitClient:
        try:
            return self._first.of(where.node)
        except KeyError:
            raise Refused(f"node {where.node} is not running (see: podwire node list)") from None
