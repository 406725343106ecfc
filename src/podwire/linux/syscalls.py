"""System calls that Python 3.11 does not have, through ctypes.

Each function raises an OSError whose text says what was asked. Nothing here decides anything; flags are the kernel's, under
the kernel's names. Calls without a wrapper in glibc go through ``syscall``: their numbers from 424 on are the same on every
architecture.

Sources: the manual pages of section 2; include/uapi/linux/{sched,mount,prctl,capability}.h.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from typing import Final, NamedTuple

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
CLONE_FS: Final = 0x00000200

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_MOVE: Final = 8192
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MS_SLAVE: Final = 1 << 19
MNT_DETACH: Final = 2

MOUNT_ATTR_RDONLY: Final = 1
MOUNT_ATTR_NOSUID: Final = 2
MOUNT_ATTR_NODEV: Final = 4
MOUNT_ATTR_NOEXEC: Final = 8

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000
AT_SYMLINK_NOFOLLOW: Final = 0x100
OPEN_TREE_CLONE: Final = 1
OPEN_TREE_CLOEXEC: Final = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH: Final = 4

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_NAME: Final = 15
PR_CAPBSET_READ: Final = 23
PR_CAPBSET_DROP: Final = 24
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

IN_MODIFY: Final = 0x2
IN_CLOSE_WRITE: Final = 0x8
IN_MOVED_FROM: Final = 0x40
IN_CREATE: Final = 0x100
IN_IGNORED: Final = 0x8000

_MOUNT_SETATTR, _OPEN_TREE, _MOVE_MOUNT, _CLOSE_RANGE = 442, 428, 429, 436
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSCONFIG_CMD_CREATE: Final = 6
_CLOEXEC: Final = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
_CLOSE_RANGE_CLOEXEC: Final = 4
_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41, "riscv64": 41}
_MSG_DONTWAIT: Final = 0x40
_MSG_WAITFORONE: Final = 0x10000
_CAPABILITY_VERSION_3: Final = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """Give the calling thread new namespaces (``CLONE_*``). The new PID namespace is the next child's."""
    _check(_libc.unshare(flags), f"unshare {flags:#x}")


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into the namespace behind a descriptor. ``kind`` (``CLONE_NEW*``) must fit it; 0 takes any."""
    _check(_libc.setns(fd, kind), f"setns descriptor {fd}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(source.encode(), os.fsencode(target), kind.encode() or None, flags, data.encode() or None)
    _check(result, f"mount {kind or source} on {target}")


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2); by default the mount leaves the tree at once and ends when nothing uses it."""
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def mount_setattr(path: str, *, set_flags: int = 0, clear_flags: int = 0, recursive: bool = False, fd: int = AT_FDCWD) -> None:
    """Change ``MOUNT_ATTR_*`` of a mount, or of a whole tree of mounts in one step (Linux 5.12)."""
    attributes = struct.pack("=QQQQ", set_flags, clear_flags, 0, 0)
    flags = (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    result = _libc.syscall(_MOUNT_SETATTR, fd, ctypes.c_char_p(os.fsencode(path)), flags, ctypes.c_char_p(attributes), ctypes.c_size_t(32))
    _check(result, f"mount_setattr {path or fd}")


def open_tree(path: str, *, recursive: bool = False) -> int:
    """A descriptor of a detached copy of the mount at ``path``: taken here, put elsewhere by ``move_mount``."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return _check(_libc.syscall(_OPEN_TREE, AT_FDCWD, ctypes.c_char_p(os.fsencode(path)), flags), f"open_tree {path}")


def move_mount(fd: int, target: str) -> None:
    """Attach a detached mount at ``target``."""
    source = ctypes.c_char_p(b"")
    result = _libc.syscall(_MOVE_MOUNT, fd, source, AT_FDCWD, ctypes.c_char_p(os.fsencode(target)), MOVE_MOUNT_F_EMPTY_PATH)
    _check(result, f"move_mount to {target}")


def detached_mount(kind: str) -> int:
    """Make a file system that is mounted nowhere: a descriptor of its root. A ``proc`` shows the PID namespace of the caller."""
    context = _check(_libc.syscall(_FSOPEN, ctypes.c_char_p(kind.encode()), _CLOEXEC), f"fsopen {kind}")
    try:
        _check(_libc.syscall(_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0), f"fsconfig {kind}")
        return _check(_libc.syscall(_FSMOUNT, context, _CLOEXEC, 0), f"fsmount {kind}")
    finally:
        os.close(context)


def pivot_root(new: str, old: str) -> None:
    """Make ``new`` the root of this mount namespace and show the old one at ``old``."""
    number = _PIVOT_ROOT[platform.machine()]
    _check(_libc.syscall(number, ctypes.c_char_p(os.fsencode(new)), ctypes.c_char_p(os.fsencode(old))), f"pivot_root {new}")


def prctl(option: int, argument: int = 0, what: str = "") -> int:
    """prctl(2) with one argument."""
    return _check(_libc.prctl(option, argument, 0, 0, 0), what or f"prctl {option}")


def set_title(title: str) -> None:
    """What ``ps`` shows for this process: its short name (15 bytes), and its arguments as far as there is room for them."""
    name = title.encode()
    buffer = ctypes.create_string_buffer(name[:15])
    prctl(PR_SET_NAME, ctypes.addressof(buffer), "set the process's name")
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    room = end - start
    if start and room > 1:
        # The arguments' memory is this process's own and is read by nothing but /proc/PID/cmdline.
        ctypes.memmove(start, name[: room - 1].ljust(room, b"\0"), room)


def drop_bounding_set(keep: frozenset[int]) -> None:
    """Take every capability that is not in ``keep`` out of the bounding set, for good; clear the ambient set."""
    for capability in range(64):
        held = _libc.prctl(PR_CAPBSET_READ, capability, 0, 0, 0)
        if held < 0:
            break
        if held and capability not in keep:
            prctl(PR_CAPBSET_DROP, capability, f"drop capability {capability}")
    _check(_libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "clear the ambient capabilities")


def set_capabilities(keep: frozenset[int]) -> None:
    """Set the effective and permitted sets to ``keep`` and the inheritable one to nothing."""
    mask = sum(1 << capability for capability in keep)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    data = struct.pack("=6I", low, low, 0, high, high, 0)
    _check(_libc.capset(ctypes.c_char_p(header), ctypes.c_char_p(data)), "set the capabilities")


def permitted_capabilities() -> frozenset[int]:
    """What this thread is permitted."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), 8)
    data = ctypes.create_string_buffer(24)
    _check(_libc.capget(header, data), "read the capabilities")
    _, low, _, _, high, _ = struct.unpack("=6I", data.raw)
    mask = low | high << 32
    return frozenset(number for number in range(64) if mask >> number & 1)


def sync_file_system(fd: int) -> None:
    """syncfs(2): everything of the file system that the descriptor is on is written to its disk."""
    _check(_libc.syncfs(fd), "write the file system to its disk")


def signal_descriptor(numbers: frozenset[int]) -> int:
    """A descriptor from which signals that the caller has blocked are read, 128 bytes each, with who sent them (signalfd)."""
    mask = sum(1 << (number - 1) for number in numbers).to_bytes(128, "little")
    return _check(_libc.signalfd(-1, ctypes.c_char_p(mask), os.O_CLOEXEC | os.O_NONBLOCK), "make a descriptor for signals")


def read_signals(fd: int) -> list[tuple[int, int]]:
    """The signals that wait at the descriptor, as (number, pid of the sender; 0 when it is outside this PID namespace)."""
    try:
        data = os.read(fd, 128 * 64)
    except BlockingIOError:
        return []
    return [(number, sender) for number, _, _, sender in (struct.unpack_from("=IiiI", data, offset) for offset in range(0, len(data), 128))]


def inotify_init() -> int:
    """A descriptor that reports changes of files; reading from it does not block."""
    return _check(_libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK), "inotify")


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """Watch a path; the same path again is the same watch."""
    return _check(_libc.inotify_add_watch(fd, os.fsencode(path), ctypes.c_uint32(mask)), f"watch {path}")


def inotify_rm_watch(fd: int, watch: int) -> None:
    """End a watch."""
    _check(_libc.inotify_rm_watch(fd, watch), "end a watch")


class _Span(ctypes.Structure):  # struct iovec
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):  # struct msghdr
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("spans", ctypes.POINTER(_Span)),
        ("span_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Many(ctypes.Structure):  # struct mmsghdr
    _fields_ = (("header", _Header), ("received", ctypes.c_uint))


class Taken(NamedTuple):
    """Datagrams that were received: the first begins at byte 0 of ``data``, the second at byte ``size``, and so on."""

    data: bytes
    size: int
    lengths: list[int]

    def datagrams(self) -> list[bytes]:
        """Give them one by one."""
        data, size = self.data, self.size
        return [data[at : at + length] for at, length in zip(range(0, len(data), size), self.lengths, strict=True)]

    @property
    def last(self) -> bytes:
        """The last one."""
        return self.data[-self.size :][: self.lengths[-1]]


class Datagrams:
    """Room for ``count`` datagrams of at most ``size`` bytes, that one call receives (recvmmsg): other threads run for longer meanwhile."""

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size, self._data = count, size, bytearray(count * size)
        first = ctypes.addressof(ctypes.c_char.from_buffer(self._data))
        self._spans = (_Span * count)(*(_Span(first + at * size, size) for at in range(count)))
        self._headers = (_Many * count)()
        for one, span in zip(self._headers, self._spans, strict=True):
            one.header.spans, one.header.span_count = ctypes.pointer(span), 1
        word = ctypes.sizeof(ctypes.c_uint)
        fields = memoryview(self._headers).cast("B").cast("I")
        self._received = fields[_Many.received.offset // word :: ctypes.sizeof(_Many) // word]

    def receive(self, fd: int) -> list[bytes]:
        """Wait for one datagram, and take those that are there, too. What does not fit is cut off."""
        return self.take(fd, wait=True).datagrams()

    def take(self, fd: int, *, wait: bool) -> Taken:
        """Take the datagrams that are there, as they were received: others may cut them while more are asked for.

        Raises BlockingIOError when none is there and is not to be waited for.
        """
        flags = _MSG_WAITFORONE | (0 if wait else _MSG_DONTWAIT)
        found = _check(_libc.recvmmsg(fd, self._headers, self._count, flags, None), "receive datagrams")
        data = bytes(memoryview(self._data)[: found * self._size])  # slices of bytes cost least
        return Taken(data, self._size, self._received[:found].tolist())


def close_on_exec_from(lowest: int) -> None:
    """Let every descriptor from ``lowest`` on be closed when a program is executed, also those that somebody left open."""
    last = ctypes.c_uint(0xFFFFFFFF)
    _check(_libc.syscall(_CLOSE_RANGE, ctypes.c_uint(lowest), last, _CLOSE_RANGE_CLOEXEC), "mark descriptors to be closed")
