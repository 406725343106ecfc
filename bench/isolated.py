"""Run a part of a benchmark in a process of its own: fresh memory, and if it wants, a fresh network namespace."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from typing import Any


def in_child(work: Callable[..., Any], *arguments: Any, fresh_network: bool = False) -> Any:
    """Call ``work`` in a forked child and give what it returns (as JSON carries it). Raises SystemExit when it fails.

    With ``fresh_network`` the child is root of new user, mount and network namespaces first, which end with the last process in them.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            if fresh_network:
                from podwire.linux import namespaces

                # As root without a user namespace: nft may then send as much in one transaction as it wants.
                namespaces.enter_new(user=os.geteuid() != 0, pid=False)
            answer = json.dumps(work(*arguments)).encode()
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(answer)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    if os.waitpid(child, 0)[1]:
        raise SystemExit(f"{work.__name__} failed")
    return json.loads(text)


def resident_mib() -> float:
    """The resident memory of this process."""
    return _field("/proc/self/status", "VmRSS") / 1024


def kernel_mib() -> float:
    """The kernel's own memory, of the whole machine: differences over a short time are what something cost."""
    return sum(_field("/proc/meminfo", name) for name in ("SUnreclaim", "VmallocUsed", "Percpu")) / 1024


def _field(path: str, name: str) -> float:
    with open(path) as lines:
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name}:"))
