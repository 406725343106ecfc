"""What a program that is in no PID namespace of its own leaves behind when it ends: found by its UTS namespace, and killed.

A container has a host name to itself, in a UTS namespace that everything in it shares, also what commands in it have started, and that
nothing in it may leave without CAP_SYS_ADMIN; so where the kernel does not end a container's processes with its first one, that tells
them from all others. (Its mount namespace is made by the runtime, when nobody looks; where there are cgroups of one's own, those
would serve.)

Source: uts_namespaces(7).
"""

from __future__ import annotations

import contextlib
import os
import signal

_ROUNDS = 100
"""Each round kills what was there: what forks faster than that is left."""


def mark_of(pid: int | str = "self") -> int:
    """What tells a process's UTS namespace from others, as long as a process is in it; 0 where there is no such process."""
    try:
        return os.stat(f"/proc/{pid}/ns/uts").st_ino
    except OSError:
        return 0


def end(mark: int) -> None:
    """Kill every process in that UTS namespace, of this PID namespace, whose /proc is mounted. Never those of one's own."""
    if mark in {0, mark_of()}:
        return
    for _ in range(_ROUNDS):
        found = [int(name) for name in os.listdir("/proc") if name.isdigit() and mark_of(name) == mark]
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
