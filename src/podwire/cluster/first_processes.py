"""The supervisor's dealings with the first processes: the cluster's, which it lives under, and one of each node.

A node's is nested in the cluster's, so it outlives the supervisor; when it dies (the node's plug was pulled), everything in the
node's PID namespace dies with it. It is started anew, as a machine is that comes up again, unless the node was stopped.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection, Mapping

from podwire.cluster.loop import Loop
from podwire.cluster.paths import Paths
from podwire.linux import unix
from podwire.linux.errors import KernelRefused
from podwire.linux.init_client import InitClient

PAUSE_S = 0.1
NESTED = "init/"


class FirstProcesses:
    """``rebooted`` is called before a node's first process starts again after it died; it gives the node's network namespace."""

    def __init__(self, loop: Loop, paths: Paths, rebooted: Callable[[str], int]) -> None:
        self._loop = loop
        self._paths = paths
        self._rebooted = rebooted
        self._descriptors: dict[str, int] = {}
        self.cluster = InitClient(paths.init_socket)
        self._nodes: dict[str, InitClient] = {}
        self._places: dict[str, int] = {}
        # By node; a running child of the supervisor needs the one of this moment.
        self.pid_namespaces: dict[str, int] = {}

    def start_nodes(self, places: Mapping[str, int]) -> None:
        """Start each node's first process, or take over the one that runs. ``places``: network namespace by node."""
        self._places.update(places)
        programs = self.cluster.programs(NESTED)
        for node in places:
            known = programs.get(NESTED + node)
            if known is not None and known.exit is None:
                with contextlib.suppress(ProcessLookupError):
                    self._take(node, os.pidfd_open(known.pid), known.pid)
                    continue
            self._start(node)

    def _start(self, node: str) -> None:
        with contextlib.suppress(KernelRefused):
            self.cluster.forget(NESTED + node)
        path = self._paths.node_init_socket(node)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with unix.listen(path) as listening:
            started = self.cluster.nest(NESTED + node, listening)
        self._take(node, started.descriptor, started.pid)
        # What runs on the node is put into its network by this name.
        self._nodes[node].hold(f"place/node/{node}", self._places[node])

    def _take(self, node: str, descriptor: int, pid: int) -> None:
        self.pid_namespaces[node] = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._nodes[node] = InitClient(self._paths.node_init_socket(node))
        self._descriptors[node] = descriptor
        self._loop.on_readable(descriptor, lambda: self._died(node, descriptor))

    def _died(self, node: str, descriptor: int) -> None:
        self._loop.forget(descriptor)
        self._descriptors.pop(node, None)
        os.close(descriptor)
        os.close(self.pid_namespaces.pop(node))
        self._nodes.pop(node).close()
        self._loop.after(PAUSE_S, lambda: self.start(node))

    def start(self, node: str) -> None:
        """Start a node that was stopped, died, or is new, if it should run and does not; it begins with a network namespace of its own."""
        if node in self._places and node not in self._nodes:
            self._places[node] = self._rebooted(node)
            self._start(node)

    def power(self, node: str, descriptor: int) -> None:
        """From now on the node should run, in this network namespace until it starts anew."""
        self._places[node] = descriptor

    def stop(self, node: str) -> None:
        """Pull the node's plug: everything in its PID namespace ends, and nothing of it starts until ``power``."""
        self._places.pop(node, None)
        self.kill(node)

    def kill(self, node: str) -> None:
        """Pull the plug and leave the switch on: it comes up again."""
        if node in self._descriptors:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptors[node], signal.SIGKILL)

    def end_stray(self, node: str) -> None:
        """Kill the first process of a node that is stopped or no more, where a supervisor before this one did not come to it."""
        with contextlib.suppress(KernelRefused, OSError):
            self.cluster.signal(NESTED + node, signal.SIGKILL)

    def strays(self, nodes: Collection[str]) -> list[str]:
        """The nodes whose first process runs beside those of ``nodes``."""
        programs = self.cluster.programs(NESTED)
        return [
            name.removeprefix(NESTED) for name, told in programs.items() if told.exit is None and name.removeprefix(NESTED) not in nodes
        ]

    def of(self, node: str) -> InitClient:
        """Give the first process of a node, or with ``""`` the cluster's."""
        return self._nodes[node] if node else self.cluster

    def exit_status(self, node: str, name: str) -> int | None:
        """Say how a program ended; None while its first process does not know yet. A node that is gone took it along."""
        try:
            program = self.of(node).programs(name).get(name)
        except (KeyError, OSError):
            return -9
        return program.exit if program else -9

    def forget(self, node: str, name: str) -> None:
        """Free the name of a program that has ended."""
        with contextlib.suppress(KernelRefused, KeyError, OSError):
            self.of(node).forget(name)

    def running(self, prefix: str) -> dict[str, dict[str, int]]:
        """Give the programs with this prefix, ended ones too, by node ("" for the cluster's): name to descriptor."""
        found: dict[str, dict[str, int]] = {}
        for node in ("", *self._nodes):
            for name, program in self.of(node).programs(prefix).items():
                with contextlib.suppress(ProcessLookupError):
                    found.setdefault(node, {})[name] = os.pidfd_open(program.pid)
        return found

    def orphan_status(self, pid: int) -> int | None:
        """Say how a process ended that an earlier supervisor had started; None when that is not known."""
        limit = time.monotonic() + PAUSE_S
        while time.monotonic() < limit:
            for orphan, _, status in reversed(self.cluster.orphans()):
                if orphan == pid:
                    return int(status)
            time.sleep(0.001)  # it is dead, and init has not come to reap it yet
        return None
