"""From door to init: the namespaces that a cluster lives in, and its first process.

    door ── (forks) between ── (unshares, forks) init ── (starts again and again) supervisor

``between`` ends at once and leaves init to door, so there is one process outside and no other. Init asks the kernel to be
killed when door ends: neither is ever alone. Its mount namespace is private, with a /proc of its own PID namespace and a tmpfs
on /run; the state directory stays in sight where it lies below /run.

Source: user_namespaces(7), pid_namespaces(7), PR_SET_PDEATHSIG in prctl(2).
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
from collections.abc import Mapping
from typing import NoReturn

from podwire.cluster.paths import Paths
from podwire.linux import ids, init, namespaces, syscalls, unix
from podwire.linux.errors import KernelRefused

_TIGHT = syscalls.MS_NOSUID | syscalls.MS_NODEV


def start_init(paths: Paths, held: Mapping[str, int], kept: set[int]) -> int:
    """Start init in fresh namespaces and give its number, once it is ready to serve. The caller is a subreaper.

    ``held`` are what init holds from the start, by name; ``kept`` stay open in init: they tell others
    that it lives. Raises KernelRefused.
    """
    reader, writer = os.pipe()
    guard = os.pidfd_open(os.getpid())
    between = os.fork()
    if between == 0:
        os.close(reader)
        _between(paths, held, kept, guard, writer)
    os.close(writer)
    os.close(guard)
    pid = 0
    failure: KernelRefused | None = None
    with open(reader, "rb") as lines:
        for line in lines:
            told = json.loads(line)
            pid = told.get("pid", pid)
            if "errno" in told:
                failure = KernelRefused(told["errno"], told["what"], told["hint"])
    os.waitpid(between, 0)
    if failure or not pid:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid or -1, 0)
        raise failure or KernelRefused(0, "start the cluster's first process")
    return pid


def _between(paths: Paths, held: Mapping[str, int], kept: set[int], guard: int, report: int) -> NoReturn:
    try:
        namespaces.enter_new(lent=ids.lent())
        own = os.pidfd_open(os.getpid())
        pid = os.fork()
        if pid == 0:
            _first(paths, held, kept, guard, own, report)
        _tell(report, {"pid": pid})
    except BaseException as failure:
        _tell_failure(report, failure)
    finally:
        os._exit(0)


def _first(paths: Paths, held: Mapping[str, int], kept: set[int], guard: int, between: int, report: int) -> NoReturn:
    """Be init."""
    status = 1
    try:
        _die_with(guard, between)
        _close_all_but({0, 1, 2, report, *held.values(), *kept})
        _mount(paths)
        syscalls.set_title("podwire init")
        listening = unix.listen(paths.init_socket)
        os.close(report)
        init.main(listening, lambda: _supervise(paths), held=held)
        status = 0
    except BaseException as failure:
        _tell_failure(report, failure)
        print(f"podwire init: {failure}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def _die_with(door: int, between: int) -> None:
    """Have the kernel kill this process when door ends; door is its parent once ``between`` has ended."""
    select.select([between], [], [])
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL, "end with door")
    if select.select([door], [], [], 0)[0]:
        os._exit(1)


def _mount(paths: Paths) -> None:
    syscalls.mount("proc", "/proc", "proc", _TIGHT | syscalls.MS_NOEXEC)
    state = os.open(paths.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    syscalls.mount("tmpfs", "/run", "tmpfs", _TIGHT, "mode=0755")
    os.makedirs(paths.run, mode=0o700)
    if not os.path.isdir(paths.root):
        os.makedirs(paths.root, mode=0o700)
        syscalls.mount(f"/proc/self/fd/{state}", paths.root, "", syscalls.MS_BIND | syscalls.MS_REC)
    os.close(state)
    os.symlink(paths.control_socket, f"{paths.run}/control.sock")


def _supervise(paths: Paths) -> NoReturn:
    """Become the supervisor: a program anew each time, so that one that was upgraded meanwhile is whole."""
    log = os.open(paths.log("supervisor"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for target in (1, 2):
        os.dup2(log, target)
    os.chdir("/")
    os.execv(sys.executable, [sys.executable, "-m", "podwire", "supervisor", paths.root])


def _close_all_but(keep: set[int]) -> None:
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in keep:
            with contextlib.suppress(OSError):
                os.close(int(name))


def _tell(report: int, words: Mapping[str, object]) -> None:
    os.write(report, json.dumps(words).encode() + b"\n")


def _tell_failure(report: int, failure: BaseException) -> None:
    if isinstance(failure, KernelRefused):
        words = {"errno": failure.errno or 0, "what": failure.what, "hint": failure.hint}
    elif isinstance(failure, OSError):
        words = {"errno": failure.errno or 0, "what": "prepare the cluster's first process", "hint": str(failure)}
    else:
        words = {"errno": 0, "what": f"prepare the cluster's first process: {failure!r}", "hint": ""}
    with contextlib.suppress(OSError):
        _tell(report, words)
