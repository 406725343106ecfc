"""Programs: what they see of the machine, what they may do, what they are given."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import termios
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel.linux.starting import First, bash, first_process
from podwire.linux import namespaces, process, syscalls, view
from podwire.linux.errors import KernelRefused
from podwire.linux.process import CONTAINER_CAPABILITIES, Program


def contained(first: First, script: str, **more: object) -> str:
    return first.run(bash(script, **more).contained())[1]


def test_a_container_writes_nothing_of_the_machine(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    files = f"/etc/passwd /x /usr/x /var/tmp/x {victim} {tmp_path}/new"
    script = f"for f in {files}; do echo changed 2>/dev/null >>$f && echo WROTE $f; done; echo done"
    with first_process() as first:
        # The folder of the test lies under /tmp, which is the container's own: bind it in, read-only.
        assert contained(first, script, files={str(tmp_path): str(tmp_path)}) == "done\n"
        assert first.run(bash(f"echo control >> {tmp_path}/new && cat {tmp_path}/new"))[1] == "control\n", "without it, it could"
    assert victim.read_text() == "kept"


def test_a_container_has_its_own_tmp_and_run() -> None:
    Path("/run/of-the-machine").write_text("")
    with first_process() as first:
        assert (
            contained(first, "ls -A /tmp /run; echo x > /tmp/podwire-test-a && echo y > /run/b && cat /tmp/podwire-test-a /run/b")
            == "/run:\n\n/tmp:\nx\ny\n"
        )
        assert contained(first, "ls -A /tmp /run") == "/run:\n\n/tmp:\n", "each one its own"
        assert not Path("/tmp/podwire-test-a").exists()
        assert not Path("/run/b").exists()


def test_a_container_has_no_devices_but_the_harmless_ones() -> None:
    with first_process() as first:
        text = contained(
            first, "ls -A /dev | tr '\\n' ' '; head -c 3 /dev/zero | wc -c; echo gone > /dev/null; mknod /tmp/d b 254 0; head -c1 /tmp/d"
        )
        assert text.startswith("fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero 3\n")
        assert "Operation not permitted" in text
        assert "/tmp/d" in text.splitlines()[-1]


def test_a_container_cannot_change_the_kernels_settings() -> None:
    with first_process() as first:
        files = "/proc/sys/kernel/core_pattern /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger"
        text = contained(first, f"for f in {files}; do test -w $f && echo $f; done; umount /proc/sys; mount -o remount,rw /; echo done")
        assert text.splitlines()[-1] == "done"
        assert not [line for line in text.splitlines() if line.startswith("/proc")]
        assert "superuser" in text or "not permitted" in text or "permission denied" in text
        # Also not through a user namespace of its own, with every capability there.
        tries = (
            "mount -t proc proc /proc; mount -o remount,rw /proc/sys; umount /proc/sys; test -w /proc/sys/kernel/core_pattern && echo GOT"
        )
        text = contained(first, f"unshare -Urm --fork sh -c '{tries}'; echo done")
        assert "GOT" not in text


def test_a_container_gains_no_rights() -> None:
    mask = sum(1 << number for number in CONTAINER_CAPABILITIES)
    with first_process() as first:
        status = dict(line.split(":\t", 1) for line in contained(first, "cat /proc/self/status").splitlines() if ":\t" in line)
        assert (status["NoNewPrivs"], int(status["CapBnd"], 16), int(status["CapEff"], 16)) == ("1", mask, mask)
        assert (int(status["CapInh"], 16), int(status["CapAmb"], 16)) == (0, 0)
        _, text = first.run(bash("cat /proc/self/status"))
        free = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        assert free["NoNewPrivs"] == "0"
        assert int(free["CapEff"], 16) & ~mask, "a user's own program keeps them all"


def test_what_a_container_does_see() -> None:
    pod = namespaces.create_network()
    with first_process() as first:
        first.client.hold("pod", pod)
        assert contained(first, "ls /sys/class/net; readlink /proc/self/ns/net", namespace="pod").split()[0] == "lo"
        assert (
            contained(first, "ls /sys/class/net; readlink /proc/self/ns/net", namespace="pod")
            .split()[1]
            .endswith(f"{namespaces.identity(pod)[1]}]")
        )
        text = contained(first, "echo $$; hostname; cat /proc/1/comm; ps -e | wc -l", own_processes=True, hostname="web-0")
        assert text.splitlines()[:3] == ["1", "web-0", "bash"]
        assert socket.gethostname() != "web-0"


def test_the_root_that_is_shown_again_hides_what_the_view_hides(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    script = "ls -A /usr/share /host/usr/share; cat /host/etc/hosts; echo x > /host/tmp/x; echo x > /host/etc/x; chroot /host ls -d /usr"
    with first_process() as first:
        text = contained(first, script, hidden=["/usr/share"], files={"/etc/hosts": f"{tmp_path}/secret", "/host": view.ROOT})
        assert text.startswith("/host/usr/share:\n\n/usr/share:\nsecret")
        assert text.endswith("/usr\n")
        assert text.count("Read-only file system") == 2


def test_hidden_folders_are_empty(tmp_path: Path) -> None:
    with first_process() as first:
        assert contained(first, "ls -A /etc /no-such; echo x > /etc/y; echo done", hidden=["/etc", "/no/such"]).endswith("done\n")
        text = contained(first, "ls -A /usr/share | wc -l; cat /etc/hosts", hidden=["/usr/share"], files={"/etc/hosts": "/proc/version"})
        assert text.startswith("0\n")
        assert "Linux" in text


@pytest.mark.parametrize("inside", [True, False])
def test_files_appear_where_the_machine_has_none(tmp_path: Path, inside: bool) -> None:
    (tmp_path / "file").write_text("one\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "key").write_text("two\n")
    file, folder = str(tmp_path / "file"), str(tmp_path / "folder")
    files = {
        "/config": folder,
        "/etc/app/settings": file,
        "/etc/hosts": file,
        "/no/such/way/file": file,
        "/var/run/secrets/kubernetes.io/token": file,
    }
    script = (
        "cat /config/key /etc/app/settings /etc/hosts /no/such/way/file /var/run/secrets/kubernetes.io/token; ls /usr/bin/env /etc/passwd"
    )
    before = set(os.listdir("/")), set(os.listdir("/etc")), set(os.listdir("/run"))
    with first_process() as first:
        program = bash(script, files=files)
        _, text = first.run(program.contained() if inside else program)
        assert text == "two\none\none\none\none\n/etc/passwd\n/usr/bin/env\n"
        _, text = first.run(replace(bash("echo x >> /config/key; cat /config/key"), files=files))
        assert "Read-only" in text
        _, text = first.run(bash("echo x >> /data/key; cat /data/key", folders={"/data": folder}).contained())
        assert text == "two\nx\n", "a folder is writable"
    assert (set(os.listdir("/")), set(os.listdir("/etc")), set(os.listdir("/run"))) == before


@pytest.mark.parametrize("target", ["/run/resolve/real.conf", "/run/gone/dangling.conf"])
@pytest.mark.parametrize("inside", [True, False])
def test_a_file_replaces_a_symbolic_link(tmp_path: Path, target: str, inside: bool) -> None:
    # /etc/resolv.conf often leads into /run, and sometimes nowhere.
    os.mkdir("/run/resolve")
    Path("/run/resolve/real.conf").write_text("of the machine\n")
    syscalls.mount("tmpfs", "/mnt", "tmpfs")
    os.symlink(target, "/mnt/resolv.conf")
    (tmp_path / "own").write_text("nameserver 10.8.0.10\n")
    with first_process() as first:
        program = bash("cat /mnt/resolv.conf", files={"/mnt/resolv.conf": str(tmp_path / "own")})
        assert first.run(program.contained() if inside else program)[1] == "nameserver 10.8.0.10\n"
    assert os.readlink("/mnt/resolv.conf") == target


def test_a_program_gets_what_it_is_given_and_nothing_else(tmp_path: Path) -> None:
    output = tmp_path / "out"
    extra_reader, extra_writer = os.pipe()
    os.set_inheritable(extra_reader, True)
    with first_process() as first:
        script = "ls /proc/self/fd | tr '\\n' ' '; echo $A; pwd; umask; echo to-three >&3; "
        script += "cat /proc/self/status | grep -E 'Sig(Blk|Ign)'; echo error >&2"
        program = bash(script, env={"A": "b"}, cwd="/usr", umask=0o077, stdout=str(output), stderr=str(output), descriptors=[extra_writer])
        os.close(first.client.spawn("a", program).descriptor)
        assert first.ended("a").exit == 0
        told = output.read_text().splitlines()
        assert told[:3] + told[5:] == ["0 1 2 3 4 b", "/usr", "0077", "error"]
        blocked, ignored = (int(line.split(":")[1], 16) for line in told[3:5])
        # 32 and 33 are the C library's own: no program can change what it was started with.
        assert (blocked, ignored & ~(3 << 31)) == (0, 0)
        assert os.read(extra_reader, 100) == b"to-three\n"
        os.close(first.client.spawn("b", Program(["echo", "more"], stdout=str(output))).descriptor)
        first.ended("b")
        assert output.read_text().endswith("error\nmore\n"), "appended"
        assert first.run(bash("read x; echo $?"))[1] == "1\n", "no stdin is an empty one"


def test_descriptors_in_any_order() -> None:
    # The numbers that a program is to have are in use in its starter, for other things.
    with first_process() as first:
        for stdin, stdout in ((0, 2), (2, 0), (1, 0)):
            pipes = [os.pipe() for _ in range(3)]
            os.write(pipes[0][1], b"in\n")
            numbers = {0: pipes[0][0], 2: pipes[1][1], 1: pipes[0][0]}
            numbers[stdout] = pipes[1][1]
            numbers[stdin] = pipes[0][0]
            os.close(first.client.spawn("a", Program(["head", "-n1"], stdin=numbers[stdin], stdout=numbers[stdout])).descriptor)
            first.ended("a")
            first.client.forget("a")
            assert os.read(pipes[1][0], 10) == b"in\n"
            for fd in (fd for pipe in pipes for fd in pipe):
                os.close(fd)


def test_a_terminal() -> None:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with first_process() as first:
        program = bash(
            "stty size; [ -t 0 ] && echo terminal; echo tty > /dev/tty; exec sleep 1000",
            stdin=slave,
            stdout=slave,
            stderr=slave,
            terminal=True,
        )
        os.close(first.client.spawn("shell", program).descriptor)
        os.close(slave)
        text = b""
        while b"tty\r\n" not in text.replace(b"terminal", b""):
            text += os.read(master, 1000)
        assert text == b"24 80\r\nterminal\r\ntty\r\n"
        os.write(master, b"\x03")  # Ctrl-C reaches it, because the terminal is its own
        assert first.ended("shell").exit == -signal.SIGINT
    os.close(master)


def test_the_end_of_a_terminal_ends_the_session() -> None:
    with first_process() as first:
        master, slave = os.openpty()  # here, so that the first process has no copy of it
        program = Program(["sleep", "1000"], stdin=slave, stdout=slave, stderr=slave, terminal=True)
        os.close(first.client.spawn("shell", program).descriptor)
        os.close(slave)
        os.close(master)
        assert first.ended("shell").exit == -signal.SIGHUP


def test_a_name_is_looked_for_on_the_programs_own_path(tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\necho mine\n")
    (tmp_path / "tool").chmod(0o755)
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "tool").write_text("not executable")
    with first_process() as first:
        path = f"{tmp_path}/first:{tmp_path}:/usr/bin"
        assert first.run(Program(["tool"], env={"PATH": path}))[1] == "mine\n"
        with pytest.raises(KernelRefused, match="Permission denied"):
            first.run(Program(["tool"], env={"PATH": f"{tmp_path}/first"}))


def test_a_process_is_told_from_a_later_one() -> None:
    with first_process() as first:
        a = first.client.spawn("a", Program(["sleep", "1000"]))
        assert isinstance(a.started, int)
        assert process.start_time(os.getpid()) == process.start_time("self")
        assert process.start_time(999_999) is None
        os.close(a.descriptor)


def test_the_title_of_a_process() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        syscalls.set_title("podwire node/a with a very long name indeed " + "x" * 5000)
        os.write(writer, Path("/proc/self/comm").read_bytes() + Path("/proc/self/cmdline").read_bytes())
        os._exit(0)
    os.waitpid(child, 0)
    told = os.read(reader, 20_000)
    assert told.startswith(b"podwire node/a \npodwire node")


words = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=20)


@settings(max_examples=50)
@given(
    st.builds(
        Program,
        st.lists(words, min_size=1),
        env=st.dictionaries(words, words),
        cwd=words,
        stdin=st.none() | words | st.integers(0, 5),
        stdout=st.none() | words | st.integers(0, 5),
        namespace=st.none() | words | st.integers(0, 5),
        descriptors=st.lists(st.integers(0, 9), max_size=3),
        files=st.dictionaries(words, words),
        read_only=st.booleans(),
        capabilities=st.none() | st.lists(st.integers(0, 40)),
        umask=st.integers(0, 0o777),
        session=st.booleans(),
    )
)
def test_a_program_is_what_it_was_on_the_other_side(program: Program) -> None:
    message, beside = program.to_message()
    assert Program.from_message(message, beside) == program
