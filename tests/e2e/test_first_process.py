"""The first process in a user namespace of its own, as root and as an ordinary user: the same path, the same behaviour."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from kernel.linux.starting import bash, first_process
from podwire.linux import namespaces
from podwire.linux.errors import NamespacesRefused

ORDINARY = 65534


def as_user(uid: int, action: Callable[[], None]) -> None:
    """Call ``action`` in a forked process of this user, with 1,024 open files."""
    if uid != os.geteuid() and os.geteuid() != 0:
        pytest.skip("only root can become another user")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            if uid != os.geteuid():
                os.setgroups([])
                os.setresgid(uid, uid, uid)
                os.setresuid(uid, uid, uid)
                # After a change of user the kernel keeps /proc/self root's until the process may be dumped again.
                _dumpable()
            action()
            status = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, text


def _dumpable() -> None:
    from podwire.linux import syscalls

    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)


@pytest.mark.parametrize("uid", [0, ORDINARY])
def test_a_cluster_in_small(uid: int, tmp_path: Path) -> None:
    outside = namespaces.identity()
    tmp_path.chmod(0o755)
    secret = tmp_path / "secret"
    secret.write_text("kept")

    def action() -> None:
        with first_process(user=True) as first:
            assert first.run(bash("id -u; echo $$ > /dev/null; readlink /proc/self"))[1].split()[0] == "0"
            _, text = first.run(bash("readlink /proc/self/ns/net"))
            assert str(outside[1]) not in text, "nothing runs in the machine's own network"
            # A Pod: a namespace, a link, a contained program that serves and one that asks.
            script = "ip link set lo up && ip address add 10.4.0.5/32 dev lo && ip -o address show dev lo && ip link add br0 type bridge"
            assert "10.4.0.5/32" in first.run(bash(script))[1]
            state, text = first.run(bash("touch /etc/x /usr/x; cat /proc/self/uid_map; echo x > /tmp/x && cat /tmp/x").contained())
            assert text.splitlines()[-1] == "x"
            assert state.exit == 0
            if uid == ORDINARY:
                assert first.run(bash("test -w /proc/sys/vm/swappiness || echo no"))[1] == "no\n", "the machine's settings are not ours"
            os.close(first.client.spawn("a", bash("sleep 1000")).descriptor)
            os.kill(first.pid, signal.SIGKILL)

    as_user(uid, action)
    assert namespaces.identity() == outside
    assert secret.read_text() == "kept"
    assert IPv4Interface("10.4.0.5/32") not in _own_addresses()


def _own_addresses() -> set[object]:
    from podwire.linux.network import Network

    with Network() as network:
        return {address.address for address in network.addresses()}


@pytest.mark.parametrize("uid", [0, ORDINARY])
def test_the_kernel_ends_everything_with_the_first_process(uid: int) -> None:
    def action() -> None:
        with first_process(user=True) as first:
            outer = [first.client.spawn(f"p{i}", bash("sleep 1000 & exec sleep 1000")).descriptor for i in range(5)]
            os.kill(first.pid, signal.SIGKILL)
            for fd in outer:
                _wait(fd)
                os.close(fd)

    as_user(uid, action)


def _wait(pidfd: int) -> None:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(10_000), "it still runs"


def test_an_ordinary_user_is_told_why_not() -> None:
    def action() -> None:
        # Inside a user namespace whose limit is 0, as sysctl would have set it for the machine.
        namespaces.enter_new(pid=False, net=False, ipc=False)
        Path("/proc/sys/user/max_user_namespaces").write_text("0")
        with pytest.raises(NamespacesRefused, match=r"user\.max_user_namespaces is 0: as root, run `sysctl"), first_process(user=True):
            pass

    as_user(ORDINARY, action)
