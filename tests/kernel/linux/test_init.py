"""The first process: holds, starts, reaps, tells; ends in order; survives whatever its clients do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel.linux.starting import bash, first_process
from podwire.linux import namespaces, process, unix
from podwire.linux.errors import KernelRefused, ProgramNotStarted
from podwire.linux.init_client import AsyncInitClient, Exited, InitClient
from podwire.linux.process import Program


def eventually(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        threading.Event().wait(0.005)


def test_a_program_runs_and_its_status_is_kept_until_forgotten() -> None:
    with first_process() as first:
        started = first.client.spawn("web", bash("exit 7"))
        assert os.readlink(f"/proc/self/fd/{started.descriptor}") == "anon_inode:[pidfd]"
        os.close(started.descriptor)
        state = first.ended("web")
        assert (state.pid, state.started, state.exit) == (started.pid, started.started, 7)
        with pytest.raises(KernelRefused, match="has ended and is not forgotten") as refused:
            first.client.spawn("web", bash("exit 0"))
        assert refused.value.errno == errno.EEXIST
        first.client.forget("web")
        assert first.client.programs() == {}
        with pytest.raises(KernelRefused, match="there is no program web"):
            first.client.forget("web")


def test_signals_and_their_statuses() -> None:
    with first_process() as first:
        os.close(first.client.spawn("a", Program(["sleep", "1000"])).descriptor)
        with pytest.raises(KernelRefused, match="it runs"):
            first.client.forget("a")
        first.client.signal("a", signal.SIGTERM)
        assert first.ended("a").exit == -signal.SIGTERM
        with pytest.raises(KernelRefused, match="it has ended with status -15") as refused:
            first.client.signal("a", signal.SIGTERM)
        assert refused.value.errno == errno.ESRCH
        os.close(first.client.spawn("group", bash("sleep 1000 & sleep 1000; exit 3")).descriptor)
        first.client.signal("group", signal.SIGKILL, group=True)
        assert first.ended("group").exit == -signal.SIGKILL
        eventually(lambda: len(first.client.orphans()) >= 1 or "sleep" not in first.run(bash("ps -eo comm"))[1])


def test_a_pidfd_tells_the_end_too() -> None:
    with first_process() as first:
        started = first.client.spawn("a", Program(["sleep", "1000"]))
        signal.pidfd_send_signal(started.descriptor, signal.SIGKILL)
        assert first.ended("a").exit == -9
        os.close(started.descriptor)


@pytest.mark.parametrize(
    ("program", "status", "words"),
    [
        (Program(["no-such-program"]), 127, "start no-such-program: No such file or directory (ENOENT): it is in none of"),
        (Program(["/no/such"]), 127, "start /no/such: No such file or directory"),
        (Program(["/etc/passwd"]), 126, "start /etc/passwd: Permission denied (EACCES)"),
        (Program(["/etc"]), 126, "Permission denied"),
        (Program(["true"], cwd="/nope"), 126, "change to the folder /nope"),
        (Program(["true"], stdin="/nope"), 126, "open stdin, stdout and stderr"),
        (Program(["true"], files={"/etc/hosts": "/nope"}), 126, "prepare the file system: [Errno 2] /nope"),
        (Program(["no-such-program"], own_processes=True), 127, "No such file or directory"),
        (Program(["true"], own_processes=True, cwd="/nope"), 126, "change to the folder /nope"),
        (Program(["true"], namespace="pod/a"), None, "no network namespace is held as pod/a"),
    ],
)  # fmt: skip
def test_a_program_that_cannot_be_started(program: Program, status: int | None, words: str) -> None:
    with first_process() as first:
        with pytest.raises(KernelRefused) as refused:
            first.client.spawn("it", program)
        assert words in str(refused.value)
        if status is not None:
            assert isinstance(refused.value, ProgramNotStarted)
            assert refused.value.status == status
        assert first.client.programs() == {}
        assert first.run(bash("echo on"))[1] == "on\n", "the name is free, and the first process goes on"
        assert first.client.orphans() == []


def test_descriptors_are_held_and_given_in_pages() -> None:
    with first_process() as first:
        namespace = namespaces.create_network()
        names = {f"pod/{i:04}" for i in range(600)}
        for name in names:
            first.client.hold(name, namespace)
        first.client.hold("node", namespace)
        given = first.client.give("pod/")
        assert given.keys() == names
        assert {namespaces.identity(fd) for fd in given.values()} == {namespaces.identity(namespace)}
        for fd in given.values():
            os.close(fd)
        other = namespaces.create_network()
        first.client.hold("node", other)
        (fd,) = first.client.give("node").values()
        assert namespaces.identity(fd) == namespaces.identity(other), "the later one is held"
        os.close(fd)
        first.client.release("node")
        assert first.client.give("node") == {}
        with pytest.raises(KernelRefused, match="nothing is held as node"):
            first.client.release("node")
        _, text = first.run(Program(["readlink", "/proc/self/ns/net"], namespace="pod/0001"))
        assert str(namespaces.identity(namespace)[1]) in text


def test_ends_are_told_to_whoever_watches() -> None:
    with first_process() as first, InitClient(first.path) as watcher:
        watcher.watch()
        for i in range(50):
            os.close(first.client.spawn(f"p{i}", bash(f"exit {i}")).descriptor)
        news = watcher.news()
        found = {one.name: one.status for one in (next(news) for _ in range(50))}
        assert found == {f"p{i}": i for i in range(50)}


def test_orphans_are_reaped_and_remembered() -> None:
    with first_process() as first:
        first.run(bash("(sleep 0.05; exit 9) & disown"))
        eventually(lambda: 9 in [status for _, _, status in first.client.orphans()])
        pid, started, _ = next(one for one in first.client.orphans() if one[2] == 9)
        assert pid > 1
        assert started


def test_programs_outlive_the_client_that_started_them() -> None:
    with first_process() as first:
        child = os.fork()
        if child == 0:
            with InitClient(first.path) as client:
                client.spawn("web", Program(["sleep", "1000"]))
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        before = first.client.programs()["web"]
        assert before.exit is None
        first.client.signal("web", 0)


def test_a_bad_request_is_answered_and_nothing_ends() -> None:
    with first_process() as first:
        raw = unix.connect(first.path, timeout_s=10)
        for sent in (b"{", b"[]", b"null", b"\xff\xfe", b"{}", b'{"do":"no"}', b'{"do":"hold","name":"x"}', b'{"do":"hold","name":5}',
                     b'{"do":"spawn","name":"x","program":{"argv":[]}}', b'{"do":"spawn","name":"x","program":{"argv":["a"],"frob":1}}',
                     b'{"do":"spawn","name":"x","program":{"argv":["a"],"stdin":0}}', b'{"do":"spawn","name":"x","program":[]}',
                     b'{"do":"spawn","name":"x","program":{"argv":["a\\u0000b"]}}', b'{"do":"signal","name":"x","signal":"y"}',
                     b'{"do":["x"]}', b'{"do":"end","grace_s":"x"}'):  # fmt: skip
            raw.send(sent)
            answer = unix.receive(raw)
            assert answer is not None, sent
            assert "error" in answer[0], sent
        raw.send(b"x" * (unix.MAX_MESSAGE + 5000))
        answer = unix.receive(raw)
        assert answer is not None
        assert "longer than" in answer[0]["error"]["what"]
        raw.close()
        assert first.run(bash("echo on"))[1] == "on\n"


def test_descriptors_of_bad_requests_are_closed() -> None:
    with first_process() as first:
        count = f"/proc/{first.pid}/fd"
        first.client.programs()
        before = len(os.listdir(count))
        raw = unix.connect(first.path, timeout_s=10)
        for message in ({"do": "no"}, {"do": "release", "name": "x"}, {"do": "hold", "name": "x"}):
            unix.send(raw, message, [raw.fileno()] * 3)
            assert unix.receive(raw) is not None
        raw.close()
        first.client.programs()
        eventually(lambda: len(os.listdir(count)) == before)


def test_a_client_that_does_not_read_harms_nobody() -> None:
    with first_process() as first, InitClient(first.path) as deaf:
        deaf.watch()
        raw = unix.connect(first.path, timeout_s=10)
        raw.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                unix.send(raw, {"id": 1, "do": "orphans"})
        assert first.run(bash("echo on"))[1] == "on\n"
        raw.close()


def test_the_child_is_started_again() -> None:
    reader, writer = os.pipe()

    def child() -> None:
        os.write(writer, b"%d\n" % process.start_time("self"))  # type: ignore[arg-type]
        signal.pause()

    with first_process(child) as first, os.fdopen(reader) as lines:
        assert lines.readline()
        for _ in range(3):
            state, text = first.run(bash("pgrep -P 1 -f pytest | head -1 || true; ps -eo pid,ppid,comm"))
            children = [line.split() for line in text.splitlines() if len(line.split()) == 3 and line.split()[1] == "1"]
            pid = next(int(pid) for pid, _, name in children if name not in {"bash", "ps"})
            os.close(first.client.spawn("killer", bash(f"kill -9 {pid}")).descriptor)
            first.ended("killer")
            first.client.forget("killer")
            assert lines.readline(), "another one"
            assert state.exit == 0
        os.close(writer)


def test_terminate_from_outside_ends_everything_in_order(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with first_process() as first:
        os.close(first.client.spawn("a", bash(f"trap 'echo ended > {mark}; exit 0' TERM; while :; do sleep 0.02; done")).descriptor)
        # Its handler is in place once it has run for a moment: ask the kernel.
        pid = first.client.programs()["a"].pid
        eventually(lambda: _catches(first.pid, pid, signal.SIGTERM))
        os.kill(first.pid, signal.SIGTERM)
        _, status = os.waitpid(first.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    assert mark.read_text() == "ended\n"


def _catches(first: int, inner: int, number: int) -> bool:
    for line in Path("/proc").iterdir():
        if not line.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            status = dict(one.split(":", 1) for one in (line / "status").read_text().splitlines())
            if status["NSpid"].split()[-1] == str(inner) and len(status["NSpid"].split()) > 1:
                return bool(int(status["SigCgt"], 16) >> (number - 1) & 1)
    return False


def test_nobody_inside_ends_the_first_process() -> None:
    with first_process() as first:
        _, text = first.run(bash("kill -TERM 1; kill -INT 1; kill -HUP 1; kill -KILL 1; kill -USR1 1; echo tried"))
        assert text == "tried\n"
        assert first.run(bash("echo on"))[1] == "on\n"


def test_an_end_that_is_asked_for_waits_no_longer_than_said() -> None:
    with first_process() as first:
        os.close(first.client.spawn("deaf", bash("trap '' TERM; while :; do sleep 100; done")).descriptor)
        eventually(lambda: _ignores(first.client.programs()["deaf"].pid))
        first.client.end(0.05)
        with pytest.raises((KernelRefused, ConnectionError), match=r"about to end|closed|reset|pipe"):
            first.client.spawn("late", Program(["true"]))
        _, status = os.waitpid(first.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0


def _ignores(inner: int) -> bool:
    for line in Path("/proc").iterdir():
        with contextlib.suppress(OSError, KeyError, ValueError):
            status = dict(one.split(":", 1) for one in (line / "status").read_text().splitlines())
            if status["NSpid"].split()[-1] == str(inner) and len(status["NSpid"].split()) > 1:
                return bool(int(status["SigIgn"], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def test_a_first_process_below_the_first() -> None:
    with first_process() as first:
        path = os.path.join(os.path.dirname(first.path), "node.sock")
        listening = unix.listen(path)
        started = first.client.nest("node/a", listening)
        listening.close()
        with InitClient(path) as node:
            inner = node.spawn("web", Program(["sleep", "1000"]))
            assert inner.pid == 2, "numbers begin anew"
            assert first.client.programs()["node/a"].pid == started.pid
            first.client.signal("node/a", signal.SIGKILL)
            assert first.ended("node/a").exit == -9
            assert _ended(inner.descriptor), "all of it ends with it"
        os.close(inner.descriptor)
        os.close(started.descriptor)


def _ended(pidfd: int) -> bool:
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(10_000))


def test_many_open_files_are_the_programs_limit_not_the_first_processs() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024))
    with first_process() as first:
        for i in range(400):
            first.client.hold(f"pod/{i}", 0)
        assert first.run(bash("ulimit -Sn; ulimit -Hn"))[1] == "256\n1024\n"
        assert first.run(bash("ulimit -Sn", open_files=512))[1] == "512\n"


def test_at_the_limit_of_open_files_it_says_so_and_goes_on() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    with first_process() as first:
        held = 0
        with contextlib.suppress(KernelRefused):
            for held in range(100):
                first.client.hold(f"pod/{held}", 0)
        assert 40 < held < 64
        with pytest.raises(KernelRefused, match="too many open files"):
            first.client.hold("one-more", 0)
        with contextlib.suppress(OSError), contextlib.closing(unix.connect(first.path, timeout_s=10)) as refused:
            assert unix.receive(refused) is None, "cut off, not left waiting"
        for i in range(10):
            first.client.release(f"pod/{i}")
        assert first.client.programs() == {}
        assert len(first.client.give("pod/1")) > 0


def test_the_client_for_an_event_loop() -> None:
    async def run(path: str) -> None:
        news: list[Exited] = []
        came = asyncio.Event()

        def told(one: Exited) -> None:
            news.append(one)
            if len(news) == 100:
                came.set()

        async with await AsyncInitClient.connect(path) as client:
            await client.watch(told)
            started = await asyncio.gather(*(client.spawn(f"p{i}", bash(f"exit {i}")) for i in range(100)))
            await asyncio.wait_for(came.wait(), 20)
            assert {one.name: one.status for one in news} == {f"p{i}": i for i in range(100)}
            programs = await client.programs("p9")
            assert programs.keys() == {f"p9{i}" for i in range(10)} | {"p9"}
            assert {state.exit for state in programs.values()} == {9, *range(90, 100)}
            for one in started:
                os.close(one.descriptor)
            await asyncio.gather(*(client.forget(name) for name in (one.name for one in news)))
            with pytest.raises(ProgramNotStarted):
                await client.spawn("x", Program(["no-such-program"]))
            with pytest.raises(KernelRefused):
                await client.signal("x", 9)
            await asyncio.gather(*(client.hold(f"h/{i:03}", 0) for i in range(300)))
            given = await client.give("h/")
            assert len(given) == 300
            for fd in given.values():
                os.close(fd)
            await client.release("h/000")
            assert await client.orphans() == []
            await client.end(0)
            await asyncio.wait_for(client.closed(), 10)
            with pytest.raises(ConnectionResetError):
                await client.programs()

    with first_process() as first:
        asyncio.run(run(first.path))


def test_a_long_path_of_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30) / ("longer" * 20)
    folder.mkdir(parents=True)
    path = str(folder / "s.sock")
    for _ in range(2):  # a socket that was left there is no hindrance
        listening = unix.listen(path)
        assert os.stat(path).st_mode & 0o777 == 0o600
        client = unix.connect(path, timeout_s=10)
        server, _ = listening.accept()
        unix.send(client, {"a": "ü"}, [client.fileno()])
        received = unix.receive(server)
        assert received is not None
        assert received[0] == {"a": "ü"}
        assert os.fstat(received[1][0]).st_ino == os.fstat(client.fileno()).st_ino
        os.close(received[1][0])
        client.close()
        assert unix.receive(server) is None
        server.close()
        listening.close()
    with pytest.raises(ConnectionRefusedError, match=r"connect to .*s\.sock"):
        unix.connect(path)
    with pytest.raises(FileNotFoundError):
        unix.connect(str(tmp_path / "none"))
    with pytest.raises(unix.MessageLost):
        unix.encode({"a": "x" * unix.MAX_MESSAGE})
    assert socket.AF_UNIX
