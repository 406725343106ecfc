"""Namespaces: made, entered by one thread, left alone by the others; refusals that say what to do."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from podwire.linux import namespaces, syscalls, sysctl
from podwire.linux.errors import KernelRefused, NamespaceGone, NamespacesRefused


def test_a_new_namespace_is_another_one() -> None:
    own = namespaces.identity()
    made = namespaces.create_network()
    assert namespaces.identity(made) != own
    assert namespaces.inside(made, namespaces.identity) == namespaces.identity(made)
    assert namespaces.identity() == own
    os.close(made)


def test_only_the_thread_moves() -> None:
    made = namespaces.create_network()
    before = {thread.name for thread in threading.enumerate()}
    assert namespaces.inside(made, lambda: os.listdir("/proc/thread-self/ns") and namespaces.identity()) == namespaces.identity(made)
    assert {thread.name for thread in threading.enumerate()} == before
    with pytest.raises(ZeroDivisionError):
        namespaces.inside(made, lambda: 1 // 0)
    os.close(made)


def test_a_visit_is_made_by_the_thread_itself_where_nobody_notices() -> None:
    made, own = namespaces.create_network(), namespaces.identity()

    def visited() -> tuple[tuple[int, int], bool]:
        here = threading.get_native_id()
        return namespaces.visit(made, lambda: (namespaces.identity(), threading.get_native_id() == here))

    assert visited() == (namespaces.identity(made), True)
    assert namespaces.identity() == own
    with pytest.raises(ZeroDivisionError):
        namespaces.visit(made, lambda: 1 // 0)
    assert namespaces.identity() == own

    async def on_a_loop() -> tuple[tuple[int, int], bool]:
        return visited()

    assert asyncio.run(on_a_loop()) == (namespaces.identity(made), False)
    with ThreadPoolExecutor(1) as other:
        assert other.submit(visited).result() == (namespaces.identity(made), True)
        assert other.submit(namespaces.identity).result() == own
        assert visited() == (namespaces.identity(made), False), "the first of several threads stays"
    os.close(made)


def test_who_could_not_come_back_does_not_go() -> None:
    child = os.fork()
    if child == 0:
        syscalls.unshare(syscalls.CLONE_NEWUSER)  # the namespace it is in is no longer its own
        made = namespaces.create_network()
        here = threading.get_native_id()
        moved = namespaces.visit(made, lambda: (namespaces.identity(), threading.get_native_id() == here))
        os._exit(0 if moved == (namespaces.identity(made), False) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_socket_stays_where_it_was_made() -> None:
    made = namespaces.create_network()
    far = namespaces.socket_inside(made, socket.AF_INET, socket.SOCK_STREAM)
    near = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    os.close(made)
    far.bind(("0.0.0.0", 8080))
    near.bind(("0.0.0.0", 8080))
    far.close()
    near.close()


def test_a_whole_process_enters() -> None:
    made = namespaces.create_network()
    namespaces.enter(made)
    assert namespaces.identity() == namespaces.identity(made)
    ready, stop = threading.Event(), threading.Event()
    other = threading.Thread(target=lambda: (ready.set(), stop.wait()))
    other.start()
    ready.wait()
    with pytest.raises(RuntimeError, match="several threads"):
        namespaces.enter(made)
    stop.set()
    other.join()


def test_what_is_no_namespace() -> None:
    with pytest.raises(NamespaceGone, match="enter the network namespace of descriptor 999: Bad file descriptor"):
        namespaces.inside(999, lambda: None)


def test_the_limit_of_namespaces_is_named() -> None:
    sysctl.write_all({"user.max_net_namespaces": "0"})
    with pytest.raises(KernelRefused, match=r"create a network namespace: .*max_net_namespaces"):
        namespaces.create_network()


def _enter_new() -> str:
    """What a child is told that tries to make the namespaces of a cluster."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            namespaces.enter_new(pid=False)
            os.write(writer, b"done")
        except NamespacesRefused as refused:
            os.write(writer, str(refused).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.wait()
    with os.fdopen(reader) as pipe:
        return pipe.read()


def test_user_namespaces_nest() -> None:
    assert _enter_new() == "done"


def test_a_refusal_names_the_setting() -> None:
    sysctl.write_all({"user.max_user_namespaces": "0"})
    told = _enter_new()
    assert told.startswith("make a user namespace: No space left on device (ENOSPC)")
    assert "user.max_user_namespaces is 0: as root, run `sysctl -w user.max_user_namespaces=10000`" in told


def test_a_changed_root_directory_is_named() -> None:
    syscalls.mount("tmpfs", "/mnt", "tmpfs", syscalls.MS_NOSUID)
    os.mkdir("/mnt/proc")
    syscalls.mount("proc", "/mnt/proc", "proc", 0)
    os.chroot("/mnt")
    os.chdir("/")
    assert "(chroot)" in _enter_new()


def test_other_errors_have_words_too() -> None:
    assert "dmesg" in namespaces.refusal_reason(errno.EINVAL)  # this kernel has every kind, so something else forbids it
    assert "/proc/sys/user/max_" in namespaces.refusal_reason(errno.EUSERS)


def test_kernel_settings_are_written_where_they_belong() -> None:
    made = namespaces.create_network()
    hostile = {"net.ipv4.ip_forward": "0", "net.ipv4.conf.all.rp_filter": "1", "net.ipv4.conf.default.rp_filter": "1"}
    hostile |= {"net.ipv4.conf.lo.send_redirects": "1", "-net.bridge.bridge-nf-call-iptables": "1", "net.ipv6.conf.default.accept_dad": "1"}
    sysctl.write_all(hostile)
    sysctl.write_all(hostile, made)
    wanted = sysctl.hardened(forward=True)
    sysctl.write_all(wanted, made)
    for key, value in wanted.items():
        found = sysctl.read(key, made)
        assert (found is None and key.startswith("-")) or (found is not None and found.split() == value.split()), key
    assert sysctl.read("net.ipv4.conf.all.rp_filter") == "1", "only there"
    assert sysctl.read("net.ipv4.conf.all.rp_filter", made) == "0"
    os.close(made)


def test_a_missing_setting_is_named_unless_it_may_be_missing() -> None:
    sysctl.write_all({"-net.ipv4.no_such_thing": "1"})
    with pytest.raises(KernelRefused, match=r"sysctl -w net.ipv4.no_such_thing='1': No such file"):
        sysctl.write_all({"net.ipv4.no_such_thing": "1"})
    with pytest.raises(KernelRefused, match="Invalid argument"):
        sysctl.write_all({"net.ipv4.ip_forward": "perhaps"})


def test_a_links_name_may_hold_a_dot() -> None:
    assert sysctl.path("net.ipv4.conf.eth0/5.rp_filter") == "net/ipv4/conf/eth0.5/rp_filter"
