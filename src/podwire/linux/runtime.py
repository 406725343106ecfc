"""An OCI runtime that makes a program: what it finds mounted, and what it says.

All of it runs in the program's own process, between fork and exec, which the runtime takes the place of: it makes the program and ends.

Source: https://github.com/opencontainers/runc/blob/main/man/runc-run.8.md, .../docs/terminals.md (detached, with a console socket)
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Final

from podwire.linux import syscalls, terminals, unix

#: Where a runtime finds the socket that it sends a terminal to, in the folder of its pid file.
CONSOLE_SOCKET: Final = "console.sock"
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


def make(command: Sequence[str], pid_file: str, log: str, console: int | None) -> int:
    """Let the runtime make the program; gives its pid. Nobody else can reap it before that is told: the caller becomes its parent.

    ``console``: a socket that the terminal is sent through, which the runtime makes. Raises RuntimeRefused, OSError.
    """
    syscalls.prctl(syscalls.PR_SET_CHILD_SUBREAPER, 1, "become a subreaper")
    listening: socket.socket | None = None
    if console is not None:
        os.chdir(os.path.dirname(pid_file))  # a socket's path is short
        listening = unix.listen(CONSOLE_SOCKET, socket.SOCK_STREAM)
    pid = os.fork()
    if pid == 0:
        try:
            os.execve(command[0], list(command), {"PATH": _PATH})
        finally:
            os._exit(127)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeRefused(*_refusal(log, status))
    if listening is not None and console is not None:
        _pass_on(listening, console)
    with open(pid_file, encoding="ascii") as file:
        return int(file.read())


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
