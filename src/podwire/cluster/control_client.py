"""Asking a running cluster's supervisor from outside: one request, one answer.

Numbers of processes in an answer are the cluster's own; here they are made the machine's, which a person can use.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from podwire.cluster import packets, state
from podwire.cluster.paths import Paths
from podwire.cluster.problem import Problem


class NotRunning(Problem):
    """The cluster does not run. The text says what to do."""


class NoCluster(NotRunning):
    """There is no cluster of this name; ``others`` are those that there are."""

    def __init__(self, name: str, others: Sequence[str] = ()) -> None:
        there = f"; there are: {', '.join(others)}" if others else ""
        super().__init__(f'there is no cluster "{name}"{there}; make it with: podwire up --name {name}')


def connect(paths: Paths) -> socket.socket:
    """Connect to the supervisor. Raises NotRunning."""
    name = os.path.basename(paths.root)
    try:
        return packets.connect(paths.control_socket)
    except packets.Closed:
        if not os.path.isdir(paths.root):
            raise NoCluster(name) from None
        raise NotRunning(f'cluster "{name}" is not running; start it with: podwire up --name {name}') from None


def has_ended(paths: Paths) -> bool:
    return not os.path.isdir(paths.root) or state.is_free(paths)


def ask(paths: Paths, request: str, **words: Any) -> dict[str, Any]:
    """Ask once. Raises NotRunning."""
    with connect(paths) as connection:
        try:
            packets.send(connection, {"request": request, **words})
            answer = packets.receive(connection).message
        except packets.Closed:
            name = os.path.basename(paths.root)
            raise NotRunning(f'cluster "{name}" ended while it was asked') from None
    if "error" in answer:
        raise Problem(answer["error"])
    return answer


def status(paths: Paths) -> dict[str, Any]:
    """Give the status, with the machine's process numbers. Raises NotRunning."""
    report = ask(paths, "status")
    run = state.read_run(paths)
    if run and run.init:
        numbers = dict(_numbers(run.init.pid))
        supervisor = report.pop("supervisor")
        for process in (supervisor, *report["processes"]):
            process["pid"] = numbers.get(process["pid"], 0)
        # These two never start again: with either of them ends the cluster.
        first = [("door", run.door.pid), ("init", run.init.pid)]
        own = [{"name": name, "pid": pid, "state": "ready", "restarts": 0, "lastError": ""} for name, pid in first]
        report["processes"] = [*own, supervisor, *report["processes"]]
    return report


def _numbers(init: int) -> Iterator[tuple[int, int]]:
    """Yield, for each process below init, its number in the cluster and the machine's."""
    waiting = [init]
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError, ValueError):
            with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as stream:
                numbers = next(line for line in stream if line.startswith("NSpid:")).split()[1:]
            # The last namespaces are the cluster's and, for what lives on a node, the node's.
            depth = _depth(init) - 1
            yield int(numbers[depth]), pid
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as stream:
                waiting += [int(child) for child in stream.read().split()]


def _depth(init: int) -> int:
    with open(f"/proc/{init}/status", encoding="utf-8", errors="replace") as stream:
        return len(next(line for line in stream if line.startswith("NSpid:")).split()) - 1
