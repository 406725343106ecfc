"""The one process of a cluster in the machine's own network namespace.

It starts init in fresh namespaces, and then does three things:

- on the supervisor's request it makes sockets and hands them in (SCM_RIGHTS): listening ones on 127.0.0.1, and connected ones to those
  registries of the machine's loopback that it was started with, and to nothing else;
- until ``up`` commits, it takes everything back when ``up`` goes away (the end of the boot channel);
- it goes when init goes, and init goes when it goes (boot.py), so neither is ever alone; and it goes when somebody deleted the
  state directory, since nothing could find the cluster any more.

What must not be here: anything heavy. It is started as ``python -m podwire.cluster.door ROOT --boot FD --lock FD --hold NAME=FD...
--registry HOST:PORT...``.

On the boot channel: ``{"started": {}}`` or ``{"error": text}`` from here; ``{"commit": {}}`` from ``up``, answered ``{"committed": {}}``.
From the supervisor: ``{"id", "port", "protocol"}`` or ``{"id", "registry"}``, answered ``{"id", "port"}`` + a socket,
or ``{"id", "error"}``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Collection, Mapping

from podwire.cluster import boot, packets, ports, state
from podwire.cluster.loop import Loop
from podwire.cluster.paths import Paths
from podwire.linux import syscalls
from podwire.linux.errors import KernelRefused

LOOK_S = 1.0


class Door:
    def __init__(self, paths: Paths, upper: socket.socket, lock: int, registries: Collection[str]) -> None:
        self._paths = paths
        self._registries = frozenset(registries)
        self._upper = upper
        self._lock = lock
        self._loop = Loop()
        self._committed = False
        self._inner: socket.socket
        self._init: int

    def run(self, held: Mapping[str, int]) -> None:
        """Live as long as the cluster does."""
        try:
            self._start(held)
            packets.send(self._upper, {"started": {}})
        except KernelRefused as refused:
            self._roll_back(str(refused))
            return
        except packets.Closed:
            self._end()
            self._roll_back("")
            return
        self._loop.on_readable(self._init, self._loop.stop)
        self._loop.on_readable(self._upper.fileno(), self._hear_upper)
        self._loop.on_readable(self._inner.fileno(), self._hear_inner)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else lambda *_: self._end())
        self._look()
        self._loop.run()
        self._end()
        if not self._committed:
            self._roll_back("the cluster's first process has ended")

    def _start(self, held: Mapping[str, int]) -> None:
        self._inner, inside = packets.pair()
        own = state.identify(os.getpid())
        assert own
        state.write_run(self._paths, state.Run(state.boot_id(), own))
        # Orphans of the short-lived process between become children of door, so that init's end can be waited for here.
        syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1, "become a subreaper")
        pid = boot.start_init(self._paths, {**held, "door": inside.fileno()}, {self._lock, self._upper.fileno()})
        self._init = os.pidfd_open(pid)
        inside.close()
        for descriptor in held.values():
            os.close(descriptor)
        state.write_run(self._paths, state.Run(state.boot_id(), own, state.identify(pid)))

    def _look(self) -> None:
        """Go when the state directory has gone."""
        if os.fstat(self._lock).st_nlink:
            self._loop.after(LOOK_S, self._look)
        else:
            self._loop.stop()

    def _hear_upper(self) -> None:
        try:
            packet = packets.receive(self._upper)
            if "commit" in packet.message:
                state.unmark(self._paths, "making")
                self._committed = True
                packets.send(self._upper, {"committed": {}})
        except packets.Closed:
            self._loop.forget(self._upper.fileno())
            self._upper.close()
            if not self._committed:
                self._loop.stop()

    def _hear_inner(self) -> None:
        try:
            message, descriptors = packets.receive(self._inner)
        except packets.Closed:
            self._loop.stop()
            return
        for descriptor in descriptors:
            os.close(descriptor)
        answer: packets.Message = {"id": message.get("id")}
        try:
            with self._made(message) as made:
                answer["port"] = made.getsockname()[1]
                packets.send(self._inner, answer, [made.fileno()])
        except (ports.Refused, KeyError, TypeError, ValueError, OSError) as error:
            packets.send(self._inner, {**answer, "error": str(error)})

    def _made(self, message: packets.Message) -> socket.socket:
        if "registry" not in message:
            return ports.listening_or_any(int(message["port"]), str(message["protocol"]))
        if message["registry"] not in self._registries:
            raise ports.Refused(f"the Cluster names no registry {message['registry']}")
        return ports.connecting(message["registry"])

    def _end(self) -> None:
        """End the cluster: the kernel ends every process in init's PID namespace before init itself is over."""
        with contextlib.suppress(AttributeError, ProcessLookupError):
            signal.pidfd_send_signal(self._init, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)

    def _roll_back(self, why: str) -> None:
        """Take back a cluster that never was whole, once ``up`` writes nothing into it any more."""
        from podwire.cluster import lifecycle  # loaded only when something went wrong

        with contextlib.suppress(packets.Closed, OSError):
            packets.send(self._upper, {"error": why})
            while True:
                packets.receive(self._upper)
        lifecycle.roll_back(self._paths)


def main(arguments: list[str]) -> None:
    root, *words = arguments
    held: dict[str, int] = {}
    numbers: dict[str, int] = {}
    registries: list[str] = []
    for word, value in zip(words[::2], words[1::2], strict=True):
        if word == "--hold":
            name, _, number = value.partition("=")
            held[name] = int(number)
        elif word == "--registry":
            registries.append(value)
        else:
            numbers[word] = int(value)
    for descriptor in (*held.values(), *numbers.values()):
        os.set_inheritable(descriptor, False)
    syscalls.set_title(f"podwire door {os.path.basename(root)}")
    Door(Paths(root), socket.socket(fileno=numbers["--boot"]), numbers["--lock"], registries).run(held)


if __name__ == "__main__":
    main(sys.argv[1:])
