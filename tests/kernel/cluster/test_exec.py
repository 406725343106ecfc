"""podwire exec: places, descriptors, statuses, signals, terminals."""

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

from lab import Lab, eventually


def test_what_passes_through(tmp_path: Path) -> None:
    lab = Lab(tmp_path, environment={"COLOUR": "blue"})
    lab.run("up", "--zones", "1", "--wait", "0")
    try:
        _statuses(lab)
        _descriptors_and_surroundings(lab, tmp_path)
        _signals(lab)
        _an_orphan(lab)
        _terminal(lab)
        _unknown_places(lab)
    finally:
        lab.run("down")
    lab.nothing_is_left()


def _statuses(lab: Lab) -> None:
    assert lab.run("exec", "internet", "--", "sh", "-c", "exit 7", status=7).returncode == 7
    assert lab.run("exec", "internet", "sh", "-c", "kill -9 $$", status=137).returncode == 137
    assert "no-such-program" in lab.run("exec", "internet", "--", "no-such-program", status=127).stderr
    assert "Permission denied" in lab.run("exec", "internet", "--", "/etc/passwd", status=126).stderr
    assert "expected a command" in lab.run("exec", "internet", status=2).stderr


def _descriptors_and_surroundings(lab: Lab, folder: Path) -> None:
    script = "cat; echo error >&2; pwd; echo $COLOUR"
    done = lab.run("exec", "control", "--", "sh", "-c", script, standard_input="hello\n", cwd=folder)
    assert done.stdout == f"hello\n{folder}\nblue\n"
    assert done.stderr == "error\n"
    large = {"LARGE": "x" * 100_000}
    assert len(Lab(lab.home, environment=large).run("exec", "vpc", "--", "sh", "-c", "echo $LARGE").stdout) == 100_001
    node = next(process["name"] for process in lab.status()["processes"] if process["name"].startswith("node/"))
    places = [lab.run("exec", place, "--", "readlink", "/proc/self/ns/net").stdout for place in ("internet", "vpc", "control", node)]
    assert len(set(places)) == 4
    assert os.readlink("/proc/self/ns/net") + "\n" not in places
    assert lab.run("exec", "internet", "--", "ls", "/sys/class/net").stdout.split() == ["eth0", "lo"]


def _signals(lab: Lab) -> None:
    script = "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.01; done"
    with lab.start("exec", "vpc", "--", "sh", "-c", script) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        program.terminate()
        assert program.communicate(timeout=20)[0] == "got\n"
    assert program.returncode == 9


def _an_orphan(lab: Lab) -> None:
    """The command line is killed: its program gets SIGHUP, and SIGKILL if that does not end it."""
    mark = lab.home / "hung-up"
    script = f"trap 'echo > {mark}' HUP; echo ready; while :; do sleep 0.01; done"
    with lab.start("exec", "vpc", "--", "sh", "-c", script) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        program.kill()
        # The pipe is the program's too: it ends when the program does.
        program.communicate(timeout=20)
    assert mark.exists()
    mark.unlink()


def _terminal(lab: Lab) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (33, 77))
    command = [sys.executable, "-m", "podwire", "exec", "internet", "--", "sh", "-c", "stty size; tty; exec cat"]
    with subprocess.Popen(command, env=lab.environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as program:
        os.close(theirs)
        seen = _read_until(ours, b"/dev/pts/")
        assert b"33 77" in seen
        os.write(ours, b"ready\n")
        # Once from the terminal and once from cat: a shell that is just about to start a program can miss a Ctrl-C.
        _read_until(ours, b"ready\r\nready\r\n")
        os.write(ours, b"\x03")
        assert program.wait(20) == 128 + signal.SIGINT
    os.close(ours)


def _read_until(descriptor: int, word: bytes) -> bytes:
    seen = b""
    limit = time.monotonic() + 20
    while word not in seen:
        assert time.monotonic() < limit, seen
        if select.select([descriptor], [], [], 1)[0]:
            seen += os.read(descriptor, 4096)
    return seen


def _unknown_places(lab: Lab) -> None:
    assert "internet" in lab.run("exec", "internett", "--", "true", status=2).stderr
    assert "node/gke-" in lab.run("exec", "node/nosuch", "--", "true", status=2).stderr
    assert "no place 'pod/default/x'" in lab.run("exec", "pod/default/x", "--", "true", status=2).stderr


def test_a_person_cannot_be_told_of_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    assert 'no cluster "podwire"' in Lab(tmp_path).run("exec", "internet", "--", "true", status=1).stderr
    assert eventually(lambda: list(tmp_path.iterdir()) == [])
