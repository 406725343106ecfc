"""Run a test in a user, PID, mount and network namespace of its own.

A test marked ``kernel`` is called in a forked child that is the first process of its PID namespace: whatever it makes
(links, rules, processes, mounts) is gone when it returns, and nothing of it can reach the machine's own network namespace.
Fixtures are set up outside, in the test session's process. Kernel tests are plain functions; one that needs an event loop
starts it itself with ``asyncio.run``.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000
MS_REC, MS_PRIVATE, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x4000, 1 << 18, 2, 4, 8
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    _check(_libc.mount(source.encode(), target.encode(), kind.encode(), flags, None), f"mount {target}")


def _die_with_parent() -> None:
    """A test session that is killed, or gives a test up, takes the test's processes with it."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "prctl")


def _unshare() -> None:
    uid, gid = os.geteuid(), os.getegid()
    _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _as_first_process(action: Callable[[], object], report: int) -> None:
    status = 1
    try:
        _die_with_parent()
        _mount("none", "/", "none", MS_REC | MS_PRIVATE)
        _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        _mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV)
        action()
        status = 0
    except pytest.skip.Exception as skipped:
        os.write(report, f"skip:{skipped}".encode())
    except BaseException:
        os.write(report, traceback.format_exc().encode())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run_isolated(action: Callable[[], object]) -> None:
    """Call ``action`` in fresh namespaces. Raises AssertionError with its traceback if it raises anything."""
    reader, writer = os.pipe()
    outer = os.fork()
    if outer == 0:
        os.close(reader)
        try:
            _die_with_parent()
            _unshare()
            inner = os.fork()
            if inner == 0:
                _as_first_process(action, writer)
            _, status = os.waitpid(inner, 0)
            os._exit(os.waitstatus_to_exitcode(status) & 0x7F)
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
            os._exit(1)
    os.close(writer)
    try:
        with os.fdopen(reader, "rb") as pipe:
            text = pipe.read().decode()
        _, status = os.waitpid(outer, 0)
    except BaseException:
        os.kill(outer, signal.SIGKILL)
        os.waitpid(outer, 0)
        raise
    if text.startswith("skip:"):
        pytest.skip(text[5:])
    if status != 0:
        pytest.fail(text or f"the isolated test ended with status {os.waitstatus_to_exitcode(status)}", pytrace=False)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Call the tests marked ``kernel`` isolated; leave all others to pytest."""
    if pyfuncitem.get_closest_marker("kernel") is None:
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    run_isolated(lambda: pyfuncitem.obj(**arguments))
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None] | None:
    """Everything below tests/kernel is a kernel test."""
    for item in items:
        if "/tests/kernel/" in str(item.path):
            item.add_marker("kernel")
    return None
