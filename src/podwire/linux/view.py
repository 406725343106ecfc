"""What a program sees of the machine's file system.

Everything here runs in the program's own process, between fork and exec, in a mount namespace of its own; nothing of it is
seen outside. Two views exist: the machine's own with some files exchanged (a Pod's resolv.conf), and the container's:
everything read-only, without devices and set-user-ID bits, with an own /tmp, /run, /dev, /proc and /sys.

Why so thorough where uid 0 is only uid 0 of a user namespace: when root made the cluster, that uid is the machine's root to
every file that checks owners alone: device nodes, ``/proc/sys/kernel/core_pattern``, ``/proc/sysrq-trigger``. A read-only
mount does not protect a device node, so devices are off everywhere but for the harmless ones in the new /dev.

A file can be put where the machine has no such path. The folder that lacks it is then replaced by a small one that
holds the same entries, each bound to the machine's, and the new one (``shadows``). A source is taken (``open_tree``) before anything is
hidden if it lies in what is hidden; otherwise after that, so that no source shows what the view hides (``concealment``). The root itself as
a source is taken last: what is shown is the view, with all that it hides and covers.

Sources: mount_namespaces(7), mount_setattr(2), move_mount(2) (a mount may lie on a symbolic link: where /etc/resolv.conf leads
does not matter); the paths that containerd masks by default (oci/spec_opts).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, ParamSpec, TypeVar

from podwire.linux import concealment, shadows, syscalls

P = ParamSpec("P")
T = TypeVar("T")

_DEVICES: Final = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS: Final = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
_READ_ONLY: Final = ("bus", "fs", "irq", "sys", "sysrq-trigger")
_MASKED: Final = ("acpi", "asound", "kcore", "keys", "latency_stats", "timer_list", "timer_stats", "sched_debug", "scsi")
_TIGHTER: Final = shadows.TIGHT | syscalls.MS_NOEXEC


ROOT: Final = "/"


@dataclass(frozen=True)
class View:
    """``files``: path that the program sees -> path of the file or folder to show there, read-only; ``folders`` likewise, writable.

    The source ``ROOT`` in ``files`` is the root of the view itself.
    ``read_only``: the container's view. ``hidden``: files and folders that it finds empty. ``proc``: a fresh /proc although the view is
    the machine's (the program is in a PID namespace of its own). ``sys``: likewise a fresh /sys, with the interfaces of its network.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    hidden: Sequence[str] = ()
    read_only: bool = False
    proc: bool = False
    sys: bool = False

    def __bool__(self) -> bool:
        return bool(self.files or self.folders or self.hidden or self.read_only or self.proc or self.sys)


class ViewRefused(OSError):
    """A step of the view failed; the text names the path."""


def apply(view: View) -> None:
    """Give the calling process, which is in a mount namespace of its own, this view.

    Raises:
        ViewRefused: with the path that the kernel refused.
    """
    _step("/", syscalls.mount, "none", "/", "", syscalls.MS_REC | syscalls.MS_SLAVE)
    own = sorted(target for target, source in view.files.items() if source == ROOT)
    taken = _take(view, _step("hidden folders", concealment.names, view.hidden))
    taken.sort(key=lambda one: os.path.normpath(one[0]).count("/"))  # what lies below another comes after it
    later = ("/tmp", "/run", "/dev", "/proc", "/sys") if view.read_only else ()  # noqa: S108  (they get their own below)
    for target, fd, _ in taken:
        _step(target, _make_place, target, folder=_is_folder(fd), later=later)
    for target in own:
        _step(target, _make_place, target, folder=True, later=later)
    if view.read_only:
        _container()
    else:
        if view.proc:
            _fresh_proc()
        if view.sys:
            with contextlib.suppress(PermissionError):  # as below
                syscalls.mount("sysfs", "/sys", "sysfs", _TIGHTER)
    for target, fd, read_only in taken:
        _step(target, _make_place, target, folder=_is_folder(fd), later=())
        _step(target, _attach, fd, target, read_only=read_only)
        os.close(fd)
    for target in own:
        _step(target, _make_place, target, folder=True, later=())
        _step(target, _show_root, target)


def _take(view: View, hidden: Sequence[str]) -> list[tuple[str, int, bool]]:
    """Copies of the mounts of all sources, as (target, descriptor, read-only), and what is hidden is hidden.

    A source that lies in what is hidden, and every one that may be written to, is taken as it is; any other one as it is seen.
    """
    files = {target: source for target, source in view.files.items() if source != ROOT}
    first = {target for target, source in files.items() if any(concealment.below(os.path.realpath(source), path) for path in hidden)}
    taken = [(target, _opened(files[target]), True) for target in first]
    taken += [(target, _opened(source), False) for target, source in view.folders.items()]
    if hidden:
        _step("hidden folders", concealment.conceal, hidden)
    return taken + [(target, _opened(source), True) for target, source in files.items() if target not in first]


def _opened(source: str) -> int:
    return _step(source, syscalls.open_tree, source, recursive=True)


def _step(path: str, action: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    try:
        return action(*arguments, **named)
    except OSError as refused:
        number = refused.errno or 0
        raise ViewRefused(number, f"{path}: {os.strerror(number)}") from refused


def _is_folder(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


def _show_root(target: str) -> None:
    fd = syscalls.open_tree(ROOT, recursive=True)
    try:
        _attach(fd, target, read_only=True)
    finally:
        os.close(fd)


def _attach(fd: int, target: str, read_only: bool) -> None:
    flags = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV | (syscalls.MOUNT_ATTR_RDONLY if read_only else 0)
    syscalls.mount_setattr("", set_flags=flags, recursive=True, fd=fd)
    syscalls.move_mount(fd, target)


# ------------------------------------------------------------------------------------------------------------ places


def _make_place(target: str, *, folder: bool, later: Sequence[str]) -> None:
    """Make sure that there is something at ``target`` to mount on. Places below ``later`` are made when those are there."""
    parent, name = os.path.split(os.path.normpath(target))
    parent = os.path.realpath(parent)
    if any(parent == place or parent.startswith(place + "/") for place in later):
        return
    path = os.path.join(parent, name)
    if os.path.lexists(path):
        return
    ancestor = parent
    while not os.path.isdir(ancestor):
        ancestor = os.path.dirname(ancestor)
    if not shadows.made_here(ancestor):
        shadows.shadow(ancestor)
    os.makedirs(parent, exist_ok=True)
    shadows.make(path, folder=folder)


# ------------------------------------------------------------------------------------------------- the container's view


def _container() -> None:
    devices = {name: syscalls.open_tree(f"/dev/{name}") for name in _DEVICES if os.path.exists(f"/dev/{name}")}
    tight = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
    _step("/", syscalls.mount_setattr, "/", set_flags=tight, recursive=True)
    _step("/tmp", shadows.tmpfs, "/tmp", "mode=1777")  # noqa: S108
    _step("/run", shadows.tmpfs, "/run", "mode=0755")
    _step("/dev", _dev, devices)
    _fresh_proc()
    _tighten_proc()
    _fresh_sys()


def _dev(devices: Mapping[str, int]) -> None:
    shadows.tmpfs("/dev", "mode=0755,size=64k", syscalls.MS_NOSUID | syscalls.MS_NOEXEC)
    for name, fd in devices.items():
        path = f"/dev/{name}"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666))
        syscalls.move_mount(fd, path)
        os.close(fd)
    for name, target in _LINKS.items():
        os.symlink(target, f"/dev/{name}")
    os.mkdir("/dev/shm")  # noqa: S108
    shadows.tmpfs("/dev/shm", "mode=1777", _TIGHTER)  # noqa: S108
    os.mkdir("/dev/mqueue")
    with contextlib.suppress(OSError):  # a kernel without POSIX message queues
        syscalls.mount("mqueue", "/dev/mqueue", "mqueue", _TIGHTER)
    os.mkdir("/dev/pts")
    syscalls.mount("devpts", "/dev/pts", "devpts", syscalls.MS_NOSUID | syscalls.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620")


def _fresh_proc() -> None:
    # Refused where the machine's own /proc is masked, as in most containers: then that one stays, with its masks.
    with contextlib.suppress(PermissionError):
        syscalls.mount("proc", "/proc", "proc", _TIGHTER)


def _tighten_proc() -> None:
    for name in _READ_ONLY:
        path = f"/proc/{name}"
        if os.path.exists(path):
            _step(path, _read_only, path)
    for name in _MASKED:
        path = f"/proc/{name}"
        if os.path.isdir(path):
            _step(path, syscalls.mount, "tmpfs", path, "tmpfs", _TIGHTER | syscalls.MS_RDONLY, "size=4k")
        elif os.path.exists(path):
            _step(path, syscalls.mount, "/dev/null", path, "", syscalls.MS_BIND)


def _read_only(path: str) -> None:
    fd = syscalls.open_tree(path, recursive=True)
    try:
        _attach(fd, path, read_only=True)
    finally:
        os.close(fd)


def _fresh_sys() -> None:
    # Shows the program's own network interfaces. Refused where the machine's /sys is masked: then that one stays, read-only.
    with contextlib.suppress(PermissionError):
        syscalls.mount("sysfs", "/sys", "sysfs", _TIGHTER | syscalls.MS_RDONLY)
        if os.path.isdir("/sys/firmware"):
            syscalls.mount("tmpfs", "/sys/firmware", "tmpfs", _TIGHTER | syscalls.MS_RDONLY, "size=4k")
