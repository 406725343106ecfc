"""A first process for a test, and programs started through it. Not a test."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from podwire.linux import init, namespaces, unix
from podwire.linux.init_client import InitClient, State
from podwire.linux.process import Program


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
        pid = namespaces.start_first(lambda: init.main(listening, child, grace_s=grace_s), user=user, net=user)
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
