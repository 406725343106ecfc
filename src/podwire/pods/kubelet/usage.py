"""What containers, and the node, use of the processor and of memory: read from /proc, when somebody asks.

A container's processes are its first one and all that descend from it. Processor time is what they have used, with what their children
had used that are gone; memory is their proportional share (PSS), so that pages that processes share count once. Stand-ins share one
process: each has a fair part of it. The node is all processes of its PID namespace.

A rate needs two readings. The one before is kept; where there is none that is recent, a second one is made a moment later. A container
that began in between is judged by all of its time.

Sources: proc_pid_stat(5), proc_pid_smaps_rollup(5), https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from podwire.linux import syscalls

SHORTEST_S, LONGEST_S = 1.0, 60.0
"""Between the two readings of a rate."""

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
NODE = ""

Roots = Mapping[str, int]
"""The name of a container to the pid of its first process; several may share one."""


@dataclass(frozen=True)
class Used:
    """Seconds of processor time since the beginning, bytes of memory now."""

    cpu_s: float = 0.0
    memory: int = 0


@dataclass(frozen=True)
class Usage:
    """Cores that were used on the average of the window, bytes of memory. ``cpu_s``: seconds of processor time in all."""

    cores: float
    memory: int
    cpu_s: float


@dataclass(frozen=True)
class Reading:
    """``at``: monotonic seconds."""

    at: float
    used: Mapping[str, Used]


@dataclass(frozen=True)
class Measured:
    """By the container's name, ``NODE`` for the node. ``window_s``: the time between the readings."""

    window_s: float
    usage: Mapping[str, Usage] = field(default_factory=dict)


@dataclass(frozen=True)
class _Process:
    parent: int
    cpu_s: float
    rss: int


def processes(proc: str = "/proc") -> dict[int, _Process]:
    """Read all processes that are to be seen."""
    found = {}
    for entry in os.scandir(proc):
        if entry.name.isdigit():
            try:
                with open(f"{proc}/{entry.name}/stat", "rb") as file:
                    # The name, in brackets, may hold anything; the numbers begin after the last bracket.
                    words = file.read().rpartition(b") ")[2].split()
                found[int(entry.name)] = _Process(int(words[1]), sum(map(int, words[11:15])) * _TICK, int(words[21]) * _PAGE)
            except (OSError, IndexError):
                continue  # it has ended, perhaps while it was read
    return found


def memory(pid: int, rss: int, proc: str = "/proc") -> int:
    """Give the proportional share of a process, or all that it has resident where that is not told."""
    try:
        with open(f"{proc}/{pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return rss


def read(roots: Roots, proc: str = "/proc") -> dict[str, Used]:
    """Read what each has used, and the node."""
    known = processes(proc)
    children: dict[int, list[int]] = {}
    for pid, process in known.items():
        children.setdefault(process.parent, []).append(pid)
    shares = {pid: memory(pid, process.rss, proc) for pid, process in known.items()}
    sharing: dict[int, int] = {}
    for pid in roots.values():
        sharing[pid] = sharing.get(pid, 0) + 1

    def total(pids: Iterable[int], parts: int = 1) -> Used:
        chosen = list(pids)
        return Used(sum(known[pid].cpu_s for pid in chosen) / parts, sum(shares[pid] for pid in chosen) // parts)

    used = {name: total(_tree(pid, children), sharing[pid]) for name, pid in roots.items() if pid in known}
    # Children that were waited for count with their parents already.
    return used | {NODE: total(known)}


def _tree(root: int, children: Mapping[int, list[int]]) -> list[int]:
    found = [root]
    for pid in found:
        found += children.get(pid, ())
    return found


def rates(before: Reading, after: Reading, ages: Mapping[str, float]) -> Measured:
    """``ages``: for how many seconds each container has run."""
    window_s = max(after.at - before.at, 1e-3)
    usage = {}
    for name, used in after.used.items():
        former = before.used.get(name)
        if former is not None and former.cpu_s <= used.cpu_s:
            cores = (used.cpu_s - former.cpu_s) / window_s
        else:
            cores = used.cpu_s / max(ages.get(name, window_s), 1e-3)
        usage[name] = Usage(cores, used.memory, used.cpu_s)
    return Measured(window_s, usage)


class OwnNamespace:
    """Reads from a /proc of the PID namespace that this process is in, which the one that it finds mounted may not be."""

    def __init__(self) -> None:
        self._proc = -1

    def read(self, roots: Roots) -> dict[str, Used]:
        """Raises OSError."""
        if self._proc < 0:
            self._proc = syscalls.detached_mount("proc")
        return read(roots, f"/proc/self/fd/{self._proc}")


class Meter:
    """Keeps the readings of one node. ``clock``: monotonic seconds."""

    def __init__(self, take: Callable[[Roots], dict[str, Used]], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._take = clock, take
        self._readings: list[Reading] = []
        self._busy = asyncio.Lock()

    async def measure(self, roots: Roots, ages: Mapping[str, float]) -> Measured:
        """Measure now; who asks at the same time waits, and is told the same."""
        async with self._busy:
            last = self._readings[-1] if self._readings else None
            if last is None or self._clock() - last.at > LONGEST_S:
                self._readings = [await self._read(roots)]
            wait_s = self._readings[-1].at + SHORTEST_S - self._clock()
            if len(self._readings) == 1 and wait_s > 0:
                await asyncio.sleep(wait_s)
            # A timer may be early: where there is one reading alone, there is a second one now.
            if len(self._readings) == 1 or self._clock() - self._readings[-1].at >= SHORTEST_S:
                self._readings = [self._readings[-1], await self._read(roots)]
            return rates(self._readings[0], self._readings[1], ages)

    async def _read(self, roots: Roots) -> Reading:
        used = await asyncio.to_thread(self._take, roots)
        return Reading(self._clock(), used)
