"""Cgroups: limits of what processes use, below a cgroup that is this user's to divide.

Version 1 has a tree for each controller, version 2 one for all; a ``Tree`` says where ours begins in each. It is made outside the cluster
(``make``), where root, or who has a delegated cgroup, may; inside, the cluster's user 0 is its owner and divides it (``divide``). A process
is put into a cgroup by writing its number to a file; what it starts is there, too.

In version 1 ours lies below the cgroup that this process is in, so whatever limits that one limits ours. In version 2 only a cgroup without
processes can be divided: root's lies at the top, an ordinary user's below the delegated one, which this process leaves for a leaf.

Sources: cgroups(7), the kernel's admin-guide/cgroup-v2 and cgroup-v1/{memory,cpusets,pids}; systemd.resource-control(5) (Delegate=).
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

CONTROLLERS: Final = ("cpu", "memory", "pids")
PERIOD_US: Final = 100_000
"""Of a limit of processor time."""
_PROCESSES: Final = "cgroup.procs"
_DIVISION: Final = "cgroup.subtree_control"
_LEAF: Final = "processes"


class CgroupsRefused(Exception):
    """There are no cgroups that this user may divide. The text says what is missing."""


@dataclass(frozen=True)
class Tree:
    """``folders``: where ours begins, by controller; in version 2 the same for all."""

    version: int
    folders: Mapping[str, str]

    def below(self, path: str) -> Tree:
        """The part with this path."""
        return Tree(self.version, {name: f"{folder}/{path}" for name, folder in self.folders.items()})

    def places(self) -> tuple[str, ...]:
        """Its folders, each once."""
        return tuple(dict.fromkeys(self.folders.values()))

    def to_words(self) -> dict[str, str]:
        """As a configuration holds it: the folders, and ``version``."""
        return {"version": str(self.version), **self.folders}

    @classmethod
    def from_words(cls, words: Mapping[str, str]) -> Tree | None:
        """What ``to_words`` gave; None for nothing. Raises KeyError, ValueError."""
        return cls(int(words["version"]), {name: words[name] for name in CONTROLLERS}) if words else None


@dataclass(frozen=True)
class Limits:
    """``memory``: bytes. ``cores``: at most so many. ``shares``: a part of them when they are scarce, 1024 for one. None: no limit."""

    memory: int | None = None
    cores: float | None = None
    shares: int | None = None
    processes: int | None = None


@dataclass(frozen=True)
class Machine:
    """What a process finds: mounts of version 1 by controller, the one of version 2 ("" without), and its own path in each ("" is that)."""

    mounts: Mapping[str, str] = field(default_factory=dict)
    unified: str = ""
    own: Mapping[str, str] = field(default_factory=dict)


def read(proc: str = "/proc/self") -> Machine:
    """Read what there is."""
    mounts: dict[str, str] = {}
    unified = ""
    for line in _lines(f"{proc}/mountinfo"):
        left, _, right = line.partition(" - ")
        place, (kind, _, options) = left.split()[4], right.split()[:3]
        if kind == "cgroup2":
            unified = unified or place
        elif kind == "cgroup":
            mounts |= dict.fromkeys(set(options.split(",")) & set(CONTROLLERS), place)
    own: dict[str, str] = {}
    for line in _lines(f"{proc}/cgroup"):
        _, names, path = line.split(":", 2)
        own |= dict.fromkeys(names.split(","), path)
    return Machine(mounts, unified, own)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().splitlines()
    except OSError:
        return []


# Outside the cluster ----------------------------------------------------------------------------------------------------------


def make(name: str, machine: Machine | None = None) -> Tree:
    """Make cgroups of this name, one for each controller, or one for all. What was left of them before goes. Raises CgroupsRefused."""
    machine = read() if machine is None else machine
    tree = _place(machine, name)
    try:
        if tree.version == 2:
            _divide_above(os.path.dirname(tree.places()[0]))
        remove(tree)
        for place in tree.places():
            os.mkdir(place, 0o755)
            os.chmod(place, 0o755)  # noqa: S103  (its owner's, whatever the umask)
        divide(tree)
    except OSError as refused:
        with contextlib.suppress(OSError):
            remove(tree)
        raise CgroupsRefused(_why(refused)) from refused
    return tree


def check(machine: Machine | None = None) -> None:
    """Whether ``make`` would do; of version 2 that is judged by what is to be read. Raises CgroupsRefused."""
    machine = read() if machine is None else machine
    tree = _place(machine, f"podwire-trial-{os.getpid()}")
    if tree.version == 1:
        make(os.path.basename(tree.places()[0]), machine)
        with contextlib.suppress(OSError):
            remove(tree)


def _place(machine: Machine, name: str) -> Tree:
    """Where ours would be. Raises CgroupsRefused."""
    if set(CONTROLLERS) <= machine.mounts.keys():
        return Tree(1, {one: f"{machine.mounts[one]}{machine.own.get(one, '/').rstrip('/')}/{name}" for one in CONTROLLERS})
    if not machine.unified:
        missing = ", ".join(sorted(set(CONTROLLERS) - machine.mounts.keys()))
        raise CgroupsRefused(f"this machine shows no cgroups for {missing} below /sys/fs/cgroup")
    above = machine.unified if os.geteuid() == 0 else f"{machine.unified}{machine.own.get('', '/').rstrip('/')}"
    found = _words(f"{above}/cgroup.controllers")
    if missing_ones := [one for one in CONTROLLERS if one not in found]:
        raise CgroupsRefused(f"the cgroup {above} has no controllers {', '.join(missing_ones)}{_delegate()}")
    if not os.access(f"{above}/{_DIVISION}", os.W_OK):
        raise CgroupsRefused(f"the cgroup {above} is not this user's to divide{_delegate()}")
    return Tree(2, dict.fromkeys(CONTROLLERS, f"{above}/{name}"))


def _divide_above(above: str) -> None:
    if missing := [one for one in CONTROLLERS if one not in _words(f"{above}/{_DIVISION}")]:
        _leave(above)
        _write(f"{above}/{_DIVISION}", " ".join(f"+{one}" for one in missing))


def _leave(above: str) -> None:
    """Take this process out of a cgroup that is to be divided, into a leaf of it."""
    if str(os.getpid()) in _words(f"{above}/{_PROCESSES}"):
        os.makedirs(f"{above}/{_LEAF}", exist_ok=True)
        _write(f"{above}/{_LEAF}/{_PROCESSES}", "0")


def _delegate() -> str:
    if os.geteuid() == 0:
        return ""
    return ": start it as `systemd-run --user --scope --property=Delegate=yes podwire up --privileged`"


def _why(refused: OSError) -> str:
    where = refused.filename or "/sys/fs/cgroup"
    if refused.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return f"{where} cannot be made or written ({os.strerror(refused.errno)}): that takes true root or a delegated cgroup{_delegate()}"
    if refused.errno == errno.EBUSY:
        return f"{where} cannot be divided: there are other processes in it{_delegate()}"
    return f"{where}: {refused.strerror}"


def remove(tree: Tree) -> None:
    """End what is in ours and take it away. What is not there is no fault. Raises OSError."""
    for place in tree.places():
        for folder in _from_below(place):
            _empty(folder)
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(folder)


def _from_below(place: str) -> Iterator[str]:
    for folder, _, _ in os.walk(place, topdown=False):
        yield folder


def _empty(folder: str) -> None:
    """Nothing of the cluster should live any more; a process that does, ends. A dead one holds its cgroup for a moment."""
    pids = [int(word) for word in _words(f"{folder}/{_PROCESSES}")]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            descriptor = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                _ended(descriptor)
            finally:
                os.close(descriptor)


def _ended(descriptor: int) -> None:
    select.select([descriptor], [], [], 5.0)


# Inside -----------------------------------------------------------------------------------------------------------------------


def divide(tree: Tree) -> None:
    """Let further cgroups be made below, with all controllers. Raises OSError."""
    if tree.version == 2:
        for place in tree.places():
            _write(f"{place}/{_DIVISION}", " ".join(f"+{name}" for name in CONTROLLERS))


def change(tree: Tree, limits: Limits) -> None:
    """Give cgroups that are there other limits; what has none now has none any more. Raises OSError."""
    for path, text in settings(tree, limits, anew=True):
        _write(path, text)


def establish(tree: Tree, limits: Limits, *, divided: bool = False) -> None:
    """Make cgroups with these limits where they are not there yet. ``divided``: further ones come below. Raises OSError."""
    for place in tree.places():
        with contextlib.suppress(FileExistsError):
            os.mkdir(place, 0o755)
    if divided:
        divide(tree)
    for path, text in settings(tree, limits):
        _write(path, text)


def settings(tree: Tree, limits: Limits, *, anew: bool = False) -> Sequence[tuple[str, str]]:
    """Which files say the limits, and what is to be written to them. ``anew``: also that there is none."""
    cpu, memory, pids = (tree.folders[name] for name in CONTROLLERS)
    quota = None if limits.cores is None else max(1000, round(limits.cores * PERIOD_US))
    found: list[tuple[str, str]] = []
    if tree.version == 1:
        if limits.shares is not None:
            found.append((f"{cpu}/cpu.shares", str(max(2, limits.shares))))
        if quota is not None:
            found += [(f"{cpu}/cpu.cfs_period_us", str(PERIOD_US)), (f"{cpu}/cpu.cfs_quota_us", str(quota))]
        elif anew:
            found.append((f"{cpu}/cpu.cfs_quota_us", "-1"))
        if limits.memory is not None or anew:
            found.append((f"{memory}/memory.limit_in_bytes", str(-1 if limits.memory is None else limits.memory)))
    else:
        if limits.shares is not None:
            found.append((f"{cpu}/cpu.weight", str(weight(limits.shares))))
        if quota is not None:
            found.append((f"{cpu}/cpu.max", f"{quota} {PERIOD_US}"))
        elif anew:
            found.append((f"{cpu}/cpu.max", f"max {PERIOD_US}"))
        if limits.memory is None and anew:
            found.append((f"{memory}/memory.max", "max"))
        if limits.memory is not None:
            found += [(f"{memory}/memory.max", str(limits.memory)), (f"{memory}/memory.oom.group", "1")]
    if limits.processes is not None:
        found.append((f"{pids}/pids.max", str(limits.processes)))
    return found


def weight(shares: int) -> int:
    """Shares of version 1 (2 to 262144) as a weight of version 2 (1 to 10000), as runtimes reckon it."""
    return 1 + (min(max(shares, 2), 262_144) - 2) * 9999 // 262_142


def enter(folder: str, pid: int = 0) -> None:
    """Put a process (0: this one) into a cgroup. Raises OSError."""
    _write(f"{folder}/{_PROCESSES}", str(pid))


def killed_for_memory(tree: Tree) -> int:
    """How many processes the kernel has ended there because the limit of memory was reached."""
    file = "memory.oom_control" if tree.version == 1 else "memory.events"
    words = _words(f"{tree.folders['memory']}/{file}")
    pairs = dict(zip(words[::2], words[1::2], strict=False))
    return int(pairs.get("oom_kill", "0"))


def _words(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().split()
    except OSError:
        return []


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(descriptor)
