"""An OCI runtime that makes a program: what it finds mounted, and what it says.

All of it runs in the program's own process, between fork and exec, which the runtime takes the place of: it makes the program and ends.

Source: https://github.com/opencontainers/runc/blob/main/man/runc-run.8.md, .../docs/terminals.md (detached, with a console socket)
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import Final

from podwire.linux import cgroups, syscalls, terminals, unix

CONSOLE_SOCKET: Final = "console.sock"
_ID: Final = "container"  # each has a state of its own
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class RuntimeRefused(Exception):
    """The runtime has made nothing. ``step``: ``execute`` where the program itself is at fault."""

    def __init__(self, number: int, words: str, step: str) -> None:
        super().__init__(words)
        self.number, self.step = number, step


def mount_image(overlay: Mapping[str, str]) -> None:
    """Mount the image's layers for a runtime; and let it leave the machine's cgroups as they are."""
    syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
    if os.path.isdir("/sys/fs/cgroup"):
        syscalls.mount_setattr("/sys/fs/cgroup", set_flags=syscalls.MOUNT_ATTR_RDONLY, recursive=True)
    os.chdir(overlay["base"])
    upper, work = (overlay[name].replace("\\", "\\\\").replace(",", "\\,") for name in ("upper", "work"))
    options = f"userxattr,lowerdir={overlay['lower']},upperdir={upper},workdir={work}"
    syscalls.mount("overlay", overlay["target"], "overlay", syscalls.MS_NODEV, options)
    os.chdir("/")


def make(runtime: Sequence[str], bundle: str, console: int | None, groups: Sequence[int]) -> int:
    """Let the runtime make the program of a bundle; gives its pid. Until that is told nobody else can reap it: the caller is its parent.

    ``console``: a socket that the terminal is sent through, which the runtime makes. ``groups``: descriptors of the cgroups that it is to
    be in. What the runtime logs, its pid and its socket lie in the bundle. Raises RuntimeRefused, OSError.
    """
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1, "become a subreaper")
    os.chdir(bundle)  # a socket's path is short
    listening = unix.listen(CONSOLE_SOCKET, socket.SOCK_STREAM) if console is not None else None
    terminal = ("--console-socket", CONSOLE_SOCKET) if console is not None else ()
    verb = ("create",) if groups else ("run", "--detach")
    _run([*runtime, *verb, "--pid-file", f"{bundle}/pid", "--bundle", bundle, *terminal, _ID], bundle)
    if listening is not None and console is not None:
        _pass_on(listening, console)
    with open(f"{bundle}/pid", encoding="ascii") as file:
        pid = int(file.read())
    if groups:
        try:
            for group in groups:
                cgroups.enter(f"/proc/self/fd/{group}", pid)
            _run([*runtime, "start", _ID], bundle)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
    return pid


def _run(command: Sequence[str], bundle: str) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            os.execve(command[0], list(command), {"PATH": _PATH})
        finally:
            os._exit(127)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeRefused(*_refusal(f"{bundle}/log", status))


def _pass_on(listening: socket.socket, console: int) -> None:
    """The runtime has made the terminal, and what it has sent waits here."""
    listening.setblocking(False)
    with listening.accept()[0] as connected:
        _, masters, _, _ = socket.recv_fds(connected, 4096, 1)
    terminals.hand_over(console, masters[0])


def _refusal(log: str, status: int) -> tuple[int, str, str]:
    """Why a runtime has made nothing: error number, its words, and the step."""
    words = f"the runtime ended with status {os.waitstatus_to_exitcode(status)}"
    with contextlib.suppress(OSError, ValueError, IndexError, KeyError, TypeError), open(log, encoding="utf-8") as file:
        words = str(json.loads(file.read().splitlines()[-1])["msg"])
    for number in (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ENOEXEC, errno.EISDIR):
        text = os.strerror(number).lower()
        if "exec: " in words and (text in words or (number == errno.ENOENT and "not found in $PATH" in words)):
            return number, words, "execute"
    return errno.EINVAL, words, "let the runtime make it"
