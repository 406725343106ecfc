"""A kernel, or a filter in front of it, that refuses what a cluster needs: named at once, and nothing left."""

from __future__ import annotations

import ctypes
import errno
import inspect
import os
import struct

import pytest

from e2e.lab import User, installation, processes_of

SOCKET, UNSHARE, SETNS, MOUNT_SETATTR = (41, 272, 308, 442) if os.uname().machine == "x86_64" else (198, 97, 268, 442)
AF_NETLINK, NETLINK_NETFILTER, CLONE_NEWPID = 16, 12, 0x20000000

# name: system call, (argument, value, whether one bit of it is enough) that must all hold, error
FILTERS = {
    "netfilter": (SOCKET, ((0, AF_NETLINK, False), (2, NETLINK_NETFILTER, False)), errno.EPROTONOSUPPORT),
    "netlink": (SOCKET, ((0, AF_NETLINK, False),), errno.EAFNOSUPPORT),
    "pid namespaces": (UNSHARE, ((0, CLONE_NEWPID, True),), errno.EINVAL),
    "setns": (SETNS, (), errno.EPERM),
    "mount_setattr": (MOUNT_SETATTR, (), errno.ENOSYS),
}


def filtered(name: str, command: list[str]) -> None:
    """Run a program under a filter (seccomp(2), a classic BPF program over the call's number and arguments)."""
    number, tests, error = FILTERS[name]
    left = 2 * len(tests)
    code = [struct.pack("HBBI", 0x20, 0, 0, 0), struct.pack("HBBI", 0x15, 0, left + 1, number)]
    for argument, value, bit in tests:
        left -= 2
        code += [struct.pack("HBBI", 0x20, 0, 0, 16 + 8 * argument), struct.pack("HBBI", 0x45 if bit else 0x15, 0, left + 1, value)]
    code += [struct.pack("HBBI", 0x06, 0, 0, 0x50000 | error), struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)]
    program = ctypes.create_string_buffer(b"".join(code))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(head), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")
    os.execvp(command[0], command)


@pytest.mark.parametrize(
    ("name", "wait", "word"),
    [
        ("netfilter", "100", "nftables: "),
        ("netfilter", "0", "nftables: "),
        ("netlink", "100", "veth pairs and bridges: "),
        ("pid namespaces", "100", "seccomp filter"),
        ("setns", "100", "networks of its own: "),
        ("mount_setattr", "100", "mounts of its own: "),
    ],
)
def test_a_missing_feature_is_named_and_nothing_is_left(user: User, name: str, wait: str, word: str) -> None:
    source = f"import ctypes, os, struct, sys\nFILTERS = {FILTERS!r}\n{inspect.getsource(filtered)}\nfiltered(sys.argv[1], sys.argv[2:])"
    launcher = [user.python, "-c", source, name, f"{installation()}/.venv/bin/podwire"]
    refused = user.run([*launcher, "up", "--zones", "1", "--wait", wait], status=1, limit_s=60)
    assert word in refused.stderr
    assert "Traceback" not in refused.stderr
    assert processes_of(user) == []
    assert [path for path in user.home.rglob("*") if path.is_file()] == []
    examined = user.run([*launcher, "doctor"], status=1)
    assert word.removesuffix(": ") in examined.stdout
