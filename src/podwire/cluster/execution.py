"""The command line's end of a program at a place: its descriptors or terminal, its signals, its exit status.

With a terminal on both sides the program gets a pseudo terminal made here: this side in raw mode, sizes passed on, so Ctrl-C,
colours and full-screen programs work. Without, it gets our own descriptors, and signals are passed on to it. Its status becomes
ours: 128 + number where a signal ended it.

Source: pty(7), termios(3), pidfd_send_signal(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from podwire.cluster import control_client, packets, state
from podwire.cluster.paths import Paths
from podwire.cluster.problem import Problem

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
BACK_WITHIN_S = 10.0
CHUNK = 1 << 16
_ENDED = 128 + signal.SIGTERM


class NotStarted(Problem):
    """The program could not be started. The status is 2 for an unknown place, 126 and 127 as a shell has them."""


def run(cluster: str, where: str, command: Sequence[str], *, stdin: int = 0, stdout: int = 1, stderr: int = 2) -> int:
    """Run a program at a place of a cluster and give its exit status. Raises NotStarted, control_client.NotRunning."""
    paths = state.paths(cluster, os.environ)
    if os.isatty(stdin) and os.isatty(stdout):
        return _in_terminal(paths, where, command, stdin, stdout)
    return _with_ours(paths, where, command, (stdin, stdout, stderr))


def run_own(cluster: str, where: str, module: str, word: str, *, stdout: int = 1) -> int:
    """Run a module of this package at a place and give its exit status. Raises as ``run`` does, and KeyboardInterrupt.

    Ctrl-C ends the program without a word (by SIGTERM: at SIGINT Python says where it was), and whoever asked for it.
    """
    command = [sys.executable, "-m", module, word]
    with open(os.devnull, "rb") as nothing:
        status = _with_ours(
            state.paths(cluster, os.environ), where, command, (nothing.fileno(), stdout, 2), {signal.SIGINT: signal.SIGTERM}
        )
    if status == _ENDED:
        raise KeyboardInterrupt
    return status


def _with_ours(
    paths: Paths, where: str, command: Sequence[str], descriptors: Sequence[int], changed: Mapping[int, int] = MappingProxyType({})
) -> int:
    """Run a program on descriptors of ours, and pass on the signals that we get; ``changed``: which one is passed on as which."""
    # What comes before there is a program waits for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    try:
        program = _Program(paths, where, command, descriptors, terminal=False)
        with program, program.passing_signals(changed):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
            return program.wait()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)


class _Program:
    """A program that the lab runs for us."""

    def __init__(self, paths: Paths, where: str, command: Sequence[str], descriptors: Sequence[int], *, terminal: bool) -> None:
        self._paths = paths
        self.connection = control_client.connect(paths)
        packets.send(
            self.connection,
            {
                "request": "exec",
                "where": where,
                "argv": list(command),
                "env": dict(os.environ),
                "cwd": os.getcwd(),
                "umask": _umask(),
                "terminal": terminal,
            },
            descriptors,
        )
        answer, received = packets.receive(self.connection)
        if "error" in answer:
            self.connection.close()
            raise NotStarted(answer["error"], int(answer.get("status", 1)))
        self._id = answer["id"]
        self.descriptor = received[0]

    def __enter__(self) -> _Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        os.close(self.descriptor)

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, number)

    @contextlib.contextmanager
    def passing_signals(self, changed: Mapping[int, int]) -> Iterator[None]:
        """Give the program the signals that we get."""
        before = {number: signal.signal(number, lambda received, _: self.signal(changed.get(received, received))) for number in PASSED_ON}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def status(self) -> int | None:
        """Take one message: the exit status if it is that. Comes back to a supervisor that was started anew."""
        try:
            message = packets.receive(self.connection).message
        except packets.Closed:
            self._come_back()
            return None
        if "exited" not in message:
            return None
        status = int(message["exited"])
        return 128 - status if status < 0 else status

    def wait(self) -> int:
        while True:
            status = self.status()
            if status is not None:
                return status

    def _come_back(self) -> None:
        self.connection.close()
        limit = time.monotonic() + BACK_WITHIN_S
        while True:
            try:
                self.connection = control_client.connect(self._paths)
                packets.send(self.connection, {"request": "attach", "id": self._id})
                answer = packets.receive(self.connection).message
                if "error" in answer:
                    raise NotStarted(answer["error"], 1)
            except (packets.Closed, control_client.NotRunning):
                self.connection.close()
                if time.monotonic() > limit or control_client.has_ended(self._paths):
                    raise NotStarted("the cluster has ended, and the program with it", 128 + signal.SIGKILL) from None
                time.sleep(0.01)
            else:
                return


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


# With a terminal ---------------------------------------------------------------------------------------------------------


def _in_terminal(paths: Paths, where: str, command: Sequence[str], stdin: int, stdout: int) -> int:
    ours, theirs = os.openpty()
    _copy_size(stdin, ours)
    try:
        program = _Program(paths, where, command, (theirs, theirs, theirs), terminal=True)
    finally:
        os.close(theirs)
    woken_out, woken_in = socket.socketpair()
    woken_in.setblocking(False)
    with program, _raw(stdin), _waking(woken_in):
        return _copy(program, stdin, stdout, ours, woken_out)


@contextlib.contextmanager
def _raw(terminal: int) -> Iterator[None]:
    before = termios.tcgetattr(terminal)
    tty.setraw(terminal, termios.TCSADRAIN)  # what was typed ahead is the program's
    try:
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _waking(wake: socket.socket) -> Iterator[None]:
    """Have a change of the window's size, and what should end us, wake the loop; in raw mode no key makes a signal."""
    numbers = (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    former = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        for number, handler in before.items():
            signal.signal(number, handler)


def _copy(program: _Program, stdin: int, stdout: int, ours: int, woken: socket.socket) -> int:
    """Copy between the terminals until the program has ended and all that it wrote is shown."""
    watched: set[int] = {stdin, ours}
    status: int | None = None
    while status is None or ours in watched:
        # After the end only what is still in the terminal counts, and nobody may hold it open any longer.
        patience = None if status is None else 0
        sources: list[Any] = [*watched, woken, *([program.connection] if status is None else [])]
        ready, _, _ = select.select(sources, [], [], patience)
        if status is not None and ours not in ready:
            break
        if woken in ready:
            for number in woken.recv(256):
                if number == signal.SIGWINCH:
                    _copy_size(stdin, ours)
                else:
                    program.signal(number)
        if program.connection in ready and status is None:
            status = program.status()
        if ours in ready and not _move(ours, stdout):
            watched.discard(ours)
        if stdin in ready and not _move(stdin, ours):
            watched.discard(stdin)
    return status


def _move(source: int, target: int) -> bool:
    """Copy what there is; False at the end (which a terminal tells by EIO)."""
    try:
        data = os.read(source, CHUNK)
    except OSError:
        return False
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(target, rest) :]
        except OSError:
            return False
    return bool(data)


def _copy_size(source: int, target: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, b"\0" * 8))
