"""A first process for a test, and programs started through it. Not a test.

``start_first`` is what starting a cluster comes down to: namespaces, a fork, /proc, and ``init.main``.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NoReturn

from podwire.linux import init, namespaces, syscalls, unix
from podwire.linux.errors import KernelRefused, NamespacesRefused
from podwire.linux.init_client import InitClient, State
from podwire.linux.process import Program


def start_first(action: Callable[[], None], *, user: bool = True, net: bool = True) -> int:
    """Fork the first process of fresh namespaces, with its /proc, call ``action`` in it, and return its pid as seen from here.

    It leads a session of its own and is a child of this process, which becomes the reaper of its orphaned descendants for that
    (PR_SET_CHILD_SUBREAPER). When ``action`` returns, it ends with status 0, when it raises, with 1 and a line on stderr.

    Raises:
        NamespacesRefused: naming the setting that forbids it.
    """
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1, "adopt orphans")
    reader, writer = os.pipe2(os.O_CLOEXEC)
    between = os.fork()
    if between == 0:
        os.close(reader)
        _between(action, writer, user=user, net=net)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = json.loads(pipe.read() or b"{}")
    os.waitpid(between, 0)
    if "pid" in told:
        return int(told["pid"])
    raise NamespacesRefused(
        told.get("errno", errno.EIO), told.get("what", "make namespaces"), told.get("hint", "the process that made them ended")
    )


def _between(action: Callable[[], None], report: int, *, user: bool, net: bool) -> NoReturn:
    """The process that makes the namespaces: its child is the first in them, and it ends."""
    try:
        namespaces.enter_new(user=user, net=net)
        pid = os.fork()
        if pid == 0:
            _first(action, report)
        os.write(report, json.dumps({"pid": pid}).encode())
    except KernelRefused as refused:
        os.write(report, json.dumps({"errno": refused.errno, "what": refused.what, "hint": refused.hint}).encode())
    except OSError as refused:
        os.write(report, json.dumps({"errno": refused.errno, "what": "start the first process", "hint": str(refused)}).encode())
    finally:
        os._exit(0)


def _first(action: Callable[[], None], report: int) -> NoReturn:
    status = 1
    try:
        os.close(report)
        os.setsid()
        tight = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
        syscalls.mount("proc", "/proc", "proc", tight)
        action()
        status = 0
    except BaseException as failure:
        print(f"{type(failure).__name__}: {failure}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@dataclass
class First:
    """A first process: where it listens, its pid as the test sees it, and a client."""

    path: str
    pid: int
    client: InitClient

    def run(self, program: Program, name: str = "it") -> tuple[State, str]:
        """Start a program, wait for its end; its state and what it printed."""
        reader, writer = os.pipe()
        with os.fdopen(reader, errors="replace") as output:
            try:
                self.client.spawn(name, replace(program, stdout=writer, stderr=writer))
            finally:
                os.close(writer)
            text = output.read()
        state = self.ended(name)
        self.client.forget(name)
        return state, text

    def ended(self, name: str) -> State:
        """The state of a program that has ended or is about to."""
        with InitClient(self.path) as watcher:
            watcher.watch()
            state = watcher.programs(name)[name]
            if state.exit is None:
                next(news for news in watcher.news() if news.name == name)
                state = watcher.programs(name)[name]
        return state


def bash(script: str, **more: object) -> Program:
    """A shell with a script."""
    return Program(["bash", "-c", script], **more)  # type: ignore[arg-type]


@contextlib.contextmanager
def first_process(child: Callable[[], None] | None = None, *, user: bool = False, grace_s: float = 2.0) -> Iterator[First]:
    """The first process of new PID and mount namespaces, which end with it."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/init.sock"
        listening = unix.listen(path)
        pid = start_first(lambda: init.main(listening, child, grace_s=grace_s), user=user, net=user)
        listening.close()
        descriptor = os.pidfd_open(pid)
        try:
            with InitClient(path) as client:
                yield First(path, pid, client)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, descriptor, os.WEXITED)
            os.close(descriptor)
