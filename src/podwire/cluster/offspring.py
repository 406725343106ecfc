"""How the supervisor's child comes to be: fork, move, become its command line.

The fork moves before it becomes: into its network namespace, and, for a node's processes, it is forked into that node's PID
namespace. It waits until its parent has written it down, and ends if the parent does not live to do that.
Nothing is imported here that the parent has not imported: ten children cost 18 ms.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from podwire.cluster.paths import Paths
from podwire.cluster.plan import Process
from podwire.linux import namespaces, syscalls

ABANDONED = 75
Call = Callable[[list[str]], object]


@dataclass(frozen=True)
class Grounds:
    """Where processes can be put: descriptors of network namespaces by place, of PID namespaces by node, of listening sockets by name.

    ``exit_status`` tells how an orphan ended, as far as init knows (pid -> status, or None). ``call`` runs a command line.
    """

    networks: Mapping[str, int]
    pid_namespaces: Mapping[str, int]
    listeners: Mapping[str, int]
    notify: str
    exit_status: Callable[[int], int | None]
    call: Call


@dataclass
class Child:
    pid: int
    _gate: int

    def release(self) -> None:
        """Let it begin."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._gate, b"1")
        os.close(self._gate)


def fork(process: Process, grounds: Grounds, paths: Paths) -> Child:
    """Fork one process into its place; it waits for ``release``. Raises OSError."""
    gate_out, gate_in = os.pipe()
    try:
        with _forking_into(grounds.pid_namespaces[process.pid_namespace] if process.pid_namespace else None):
            pid = os.fork()
            if pid == 0:
                os.close(gate_in)  # or the parent's end would never be seen
                _live(process, grounds, paths, gate_out)
    except BaseException:
        os.close(gate_in)
        os.close(gate_out)
        raise
    os.close(gate_out)
    return Child(pid, gate_in)


@contextlib.contextmanager
def _forking_into(namespace: int | None) -> Iterator[None]:
    """Have the next child born in a PID namespace below this one."""
    if namespace is None:
        yield
        return
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.setns(namespace, syscalls.CLONE_NEWPID)
        try:
            yield
        finally:
            syscalls.setns(own, syscalls.CLONE_NEWPID)
    finally:
        os.close(own)


def _live(process: Process, grounds: Grounds, paths: Paths, gate: int) -> None:
    """Be the process; never returns."""
    status = 1
    try:
        log = os.open(paths.log(process.name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        listeners = [grounds.listeners[listen.name] for listen in process.listen]
        network = grounds.networks[process.place]
        nothing = os.open("/dev/null", os.O_RDWR)
        for descriptor, target in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(descriptor, target)
        if os.read(gate, 1) == b"":  # the parent did not live to let it begin
            os._exit(ABANDONED)
        os.setsid()
        os.umask(0o077)  # whatever it writes is the user's alone
        _reset_signals()
        namespaces.enter(network)
        words = list(process.arguments)
        for listener in listeners:
            words += ["--fd", str(listener)]
        _close_all_but({0, 1, 2, *listeners})
        os.environ["NOTIFY_SOCKET"] = grounds.notify
        sys.argv = ["podwire", *words]
        syscalls.set_title(f"podwire {process.name}")
        status = _call(grounds.call, words)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _call(call: Call, words: list[str]) -> int:
    try:
        call(words)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)  # as the interpreter does
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)


def _close_all_but(keep: set[int]) -> None:
    last = max(int(name) for name in os.listdir("/proc/self/fd"))
    for descriptor in range(3, last + 1):
        if descriptor not in keep:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def listen_inside(namespace: int, address: str, port: int) -> socket.socket:
    """Give a listening TCP socket of a network namespace."""
    made = namespaces.socket_inside(namespace, socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((address, port))
    made.listen(1024)
    return made
