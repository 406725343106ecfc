"""Namespaces: making them, opening sockets in them, living in them.

A network namespace is a descriptor here, never a name or a mount (a bind mount for each makes every later mount namespace
dear). A socket stays in the namespace where it was made, so what a process needs in another namespace is done by a thread
that lives only for that: the process's other threads, and the event loop on one of them, never move. A thread that has no loop and
waits anyhow may go itself and come back (``visit``).

``enter_new`` is the one way into the namespaces that a cluster lives in, for root and for an ordinary user alike: a user
namespace in which this one user is uid 0, and the others owned by it, so that the kernel itself refuses every step from
there to the machine's own network.

Sources: namespaces(7), user_namespaces(7), pid_namespaces(7).
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from podwire.linux import ids, syscalls
from podwire.linux.errors import KernelRefused, NamespaceGone, NamespacesRefused

T = TypeVar("T")

_OWN_NETWORK: Final = "/proc/thread-self/ns/net"


def in_new(kinds: int, action: Callable[[], T]) -> T:
    """Call ``action`` in a short-lived thread that is in new namespaces (CLONE_NEWNET, CLONE_NEWIPC), and return what it returns.

    Raises:
        KernelRefused: they cannot be made.
    """

    def moved() -> T:
        try:
            syscalls.unshare(kinds)
        except OSError as refused:
            raise KernelRefused(refused.errno or 0, "make namespaces") from None
        return action()

    return _in_thread(moved)


def create_ipc(prepare: Callable[[], None]) -> int:
    """A descriptor of a new IPC namespace, which ``prepare`` is called in first. The caller closes it.

    Raises:
        KernelRefused: EPERM without CAP_SYS_ADMIN, ENOSPC at the limit user.max_ipc_namespaces.
    """

    def action() -> int:
        prepare()
        return os.open("/proc/thread-self/ns/ipc", os.O_RDONLY | os.O_CLOEXEC)

    return in_new(syscalls.CLONE_NEWIPC, action)


def create_network() -> int:
    """A descriptor of a new network namespace, which ends when nothing holds it any more. The caller closes it.

    Raises:
        KernelRefused: EPERM without CAP_SYS_ADMIN, ENOSPC at the limit user.max_net_namespaces, EMFILE.
    """
    return _in_thread(_create_network)


def _create_network() -> int:
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
    except OSError as refused:
        hint = "the limit is /proc/sys/user/max_net_namespaces" if refused.errno == errno.ENOSPC else ""
        raise KernelRefused(refused.errno or 0, "create a network namespace", hint) from None
    return os.open(_OWN_NETWORK, os.O_RDONLY | os.O_CLOEXEC)


def own_network() -> int:
    """A descriptor of the network namespace that the calling thread is in. The caller closes it."""
    return os.open(_OWN_NETWORK, os.O_RDONLY | os.O_CLOEXEC)


def identity(fd: int | None = None) -> tuple[int, int]:
    """What tells one network namespace from another: device and inode. Without a descriptor: the calling thread's own."""
    found = os.stat(_OWN_NETWORK) if fd is None else os.fstat(fd)
    return found.st_dev, found.st_ino


def inside(fd: int, action: Callable[[], T]) -> T:
    """Call ``action`` in a short-lived thread that is in the network namespace, and return what it returns.

    What it raises is raised here. It must not start threads or processes that outlive it. About 0.1 ms.

    Raises:
        NamespaceGone: the descriptor is no network namespace.
    """

    def moved() -> T:
        _enter(fd)
        return action()

    return _in_thread(moved)


def visit(fd: int, action: Callable[[], T]) -> T:
    """As ``inside``; by the calling thread itself, which takes a tenth of the time, wherever nobody can notice.

    Not by one with a running event loop; nor by a process's first thread beside others (``/proc/self`` is that one's namespace to all);
    nor where the kernel would not let it back.
    """
    if not _may_leave():
        return inside(fd, action)
    own = own_network()
    try:
        try:
            syscalls.setns(own, syscalls.CLONE_NEWNET)
        except OSError:  # this namespace is of a user namespace where we are nobody
            return inside(fd, action)
        _enter(fd)
        try:
            return action()
        finally:
            syscalls.setns(own, syscalls.CLONE_NEWNET)
    finally:
        os.close(own)


def _may_leave() -> bool:
    if threading.current_thread() is threading.main_thread() and threading.active_count() > 1:
        return False
    events = sys.modules.get("asyncio.events")  # where it was never imported, no loop runs
    return events is None or events._get_running_loop() is None


def socket_inside(fd: int, family: int, type: int, protocol: int = 0) -> socket.socket:  # noqa: A002  (the name socket.socket has for it)
    """A socket of the network namespace, for use by any thread of this process."""
    return inside(fd, lambda: socket.socket(family, type, protocol))


def enter(fd: int) -> None:
    """Move this whole process into the network namespace. It must have one thread only.

    Raises:
        RuntimeError: there are other threads; they would stay behind.
    """
    if threading.active_count() > 1:
        raise RuntimeError("a process with several threads cannot move to another network namespace")
    _enter(fd)


def _enter(fd: int) -> None:
    try:
        syscalls.setns(fd, syscalls.CLONE_NEWNET)
    except OSError as refused:
        number = refused.errno or 0
        kind = NamespaceGone if number in {errno.EBADF, errno.EINVAL} else KernelRefused
        raise kind(number, f"enter the network namespace of descriptor {fd}") from None


def _in_thread(action: Callable[[], T]) -> T:
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(action())
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=run, name="namespace", daemon=True)
    thread.start()
    thread.join()
    if failures:
        try:
            raise failures[0]
        finally:
            failures.clear()  # no cycle from the traceback to this frame
    return results[0]


# ------------------------------------------------------------------------------------------------ fresh namespaces


def enter_new(
    *,
    user: bool = True,
    pid: bool = True,
    mount: bool = True,
    net: bool = True,
    ipc: bool = True,
    uts: bool = True,
    lent: ids.Lent | None = None,
) -> None:
    """Move this single-threaded process into fresh namespaces; with ``pid``, its next child is the first process of one.

    With ``user``, this user becomes uid 0 and gid 0 there, with every capability over the other new namespaces and none
    outside. ``lent``: further users that it is to have; where they are refused, it has that one. Without ``user``, the process must
    already have CAP_SYS_ADMIN.

    Raises:
        NamespacesRefused: naming the setting that forbids it.
        RuntimeError: there are other threads.
    """
    if threading.active_count() > 1:
        raise RuntimeError("a process with several threads cannot make a user namespace")
    uid, gid = os.geteuid(), os.getegid()
    flags = user * syscalls.CLONE_NEWUSER | pid * syscalls.CLONE_NEWPID | mount * syscalls.CLONE_NEWNS
    flags |= net * syscalls.CLONE_NEWNET | ipc * syscalls.CLONE_NEWIPC | uts * syscalls.CLONE_NEWUTS
    mapper = ids.Mapper(lent) if user and lent is not None else None
    try:
        try:
            syscalls.unshare(flags)
        except BaseException:
            if mapper is not None:
                mapper.end()
            raise
        if user and not (mapper is not None and mapper.map()):
            _map_user(uid, gid)
        if mount:
            syscalls.mount("none", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    except OSError as refused:
        what = "make a user namespace" if user else "make namespaces"
        raise NamespacesRefused(refused.errno or 0, what, refusal_reason(refused.errno or 0)) from refused


def _map_user(uid: int, gid: int) -> None:
    # An ordinary user may write a gid map only after giving up setgroups(2): user_namespaces(7).
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        fd = os.open(f"/proc/self/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)


def _setting(name: str) -> str | None:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except OSError:
        return None


def refusal_reason(number: int) -> str:
    """Why the kernel refused a user namespace with this error number, and what to do, as far as it can be seen from here."""
    if _setting("kernel/unprivileged_userns_clone") == "0":
        return "kernel.unprivileged_userns_clone is 0: as root, run `sysctl -w kernel.unprivileged_userns_clone=1`"
    for kind in ("user", "pid", "mnt", "net", "ipc", "uts"):
        if _setting(f"user/max_{kind}_namespaces") == "0":
            return f"user.max_{kind}_namespaces is 0: as root, run `sysctl -w user.max_{kind}_namespaces=10000`"
    if number in {errno.ENOSPC, errno.EUSERS}:
        return "too many namespaces, or user namespaces nested too deep: raise the limits /proc/sys/user/max_*_namespaces"
    if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor restricts user namespaces: as root, run `sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, "
            "or give the interpreter a profile with `userns,`"
        )
    missing = [kind for kind in ("user", "pid", "net", "ipc", "uts") if not os.path.exists(f"/proc/self/ns/{kind}")]
    if number == errno.EINVAL and missing:
        return f"this kernel is built without {', '.join(f'CONFIG_{kind.upper()}_NS' for kind in missing)}: choose another kernel"
    if _under_seccomp():
        return (
            "a seccomp filter is in force: inside a container, start it with `--security-opt seccomp=unconfined` "
            "(and `--security-opt apparmor=unconfined`), or with `--privileged`"
        )
    return "a changed root directory (chroot) or a security module may forbid it: see the kernel's log (`dmesg`)"


def _under_seccomp() -> bool:
    try:
        return "\nSeccomp:\t2" in Path("/proc/self/status").read_text()
    except OSError:
        return False
