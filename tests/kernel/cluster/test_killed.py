"""kill -9 and Ctrl-C at every stage of up and down, and of everything that runs: whole, or gone."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import Lab, eventually, processes

Stage = Callable[[Lab], bool]

UP: dict[str, Stage] = {
    "begun": lambda lab: lab.root.exists(),
    "marked": lambda lab: (lab.root / "making").exists(),
    "written down": lambda lab: (lab.root / "state.json").exists(),
    "listening": lambda lab: (lab.root / "control.sock").exists(),
    "door": lambda lab: (lab.root / "run.json").exists(),
    "init": lambda lab: 'init": {' in _text(lab.root / "run.json"),
    "credentials": lambda lab: (lab.root / "pki/ca.crt").exists(),
    "supervisor": lambda lab: (lab.root / "logs/supervisor.log").exists(),
    "processes": lambda lab: (lab.root / "logs/apiserver.log").exists(),
    "kubeconfig": lambda lab: (lab.home / "config").exists(),
}
DOWN: dict[str, Stage] = {
    "marked": lambda lab: (lab.root / "deleting").exists(),
    "ended": lambda lab: not (lab.root / "run.json").exists(),
    "nearly": lambda lab: not (lab.root / "state.json").exists(),
}


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def _reach(stage: Stage, lab: Lab, process: subprocess.Popen[str]) -> None:
    """Wait for a stage without a pause, or for the end of the command."""
    limit = time.monotonic() + 20
    while not stage(lab) and process.poll() is None:
        assert time.monotonic() < limit


def _whole_or_gone(lab: Lab) -> None:
    """The next command finds a whole cluster, or nothing at all."""

    def settled() -> bool:
        found = json.loads(lab.run("list", "-o", "json").stdout)
        # One whose end has begun still holds its lock for a moment, and answers nobody.
        return not found or (found[0]["state"] == "running" and bool(lab.run("status", "-o", "json", status=None).stdout))

    eventually(settled, "a whole cluster or none")
    if lab.root.exists():
        assert not (lab.root / "making").exists()
        assert lab.process("supervisor")["state"] == "ready"
        lab.run("down")
    # The folders around are everybody's: a command killed at its last step may leave them, empty.
    lab.nothing_is_left(but={".local", ".local/state"})


@pytest.mark.parametrize("stage", UP)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
def test_up_is_killed(tmp_path: Path, stage: str, number: signal.Signals) -> None:
    lab = Lab(tmp_path)
    with lab.start("up", "--zones", "1", "--wait", "0") as up:
        _reach(UP[stage], lab, up)
        up.send_signal(number)
        _, said = up.communicate(timeout=30)
    if number == signal.SIGINT and up.returncode:
        assert "Traceback" not in said
        assert up.returncode == 130
    _whole_or_gone(lab)


@pytest.mark.parametrize("stage", ["door", "init", "supervisor", "kubeconfig"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
def test_up_of_a_kept_cluster_is_killed_and_the_cluster_stays_kept(tmp_path: Path, stage: str, number: signal.Signals) -> None:
    lab = Lab(tmp_path)
    lab.run("up", "--zones", "1", "--wait", "0")
    lab.run("down", "--keep")
    authority = (lab.root / "pki/ca.crt").read_bytes()
    for file in ("run.json", "control.sock", "logs/supervisor.log"):
        (lab.root / file).unlink(missing_ok=True)
    with lab.start("up", "--wait", "0") as up:
        _reach(UP[stage], lab, up)
        up.send_signal(number)
        up.communicate(timeout=30)
    lab.run("down", "--keep", status=None)
    eventually(lambda: not processes(), "the end of all processes")
    assert json.loads(lab.run("list", "-o", "json").stdout)[0]["state"] == "kept"
    assert not (tmp_path / "config").exists()
    assert (lab.root / "pki/ca.crt").read_bytes() == authority
    lab.run("down")
    lab.nothing_is_left()


@pytest.mark.parametrize("stage", ["door", "init", "supervisor", "processes"])
@pytest.mark.parametrize("victim", ["door", "init"])
def test_up_whose_door_or_init_is_killed_says_so_and_leaves_nothing(tmp_path: Path, stage: str, victim: str) -> None:
    lab = Lab(tmp_path)
    with lab.start("up", "--zones", "1", "--wait", "30") as up:
        _reach(UP["init" if victim == "init" else stage], lab, up)
        _reach(UP[stage], lab, up)
        os.kill(json.loads((lab.root / "run.json").read_text())[victim]["pid"], signal.SIGKILL)
        _, said = up.communicate(timeout=30)
    assert up.returncode == 1
    assert "ended while it was started" in said
    assert "Traceback" not in said
    lab.nothing_is_left()


@pytest.mark.parametrize("stage", DOWN)
def test_down_is_killed(tmp_path: Path, stage: str) -> None:
    lab = Lab(tmp_path)
    lab.run("up", "--zones", "1", "--wait", "0")
    with lab.start("down") as down:
        _reach(DOWN[stage], lab, down)
        down.kill()
        down.communicate(timeout=30)
    _whole_or_gone(lab)


@pytest.mark.parametrize("victim", ["door", "init"])
def test_a_cluster_whose_door_or_init_is_killed_is_gone_and_comes_back(tmp_path: Path, victim: str) -> None:
    lab = Lab(tmp_path)
    lab.run("up", "--zones", "1", "--wait", "0")
    port = lab.status()["apiServer"]
    lab.kill(victim)
    eventually(lambda: not processes(), "the end of all processes")
    assert json.loads(lab.run("list", "-o", "json").stdout)[0]["state"] == "kept"
    lab.run("up", "--wait", "0")
    assert lab.status()["apiServer"] == port
    lab.run("down")
    lab.nothing_is_left()


def test_a_killed_supervisor_comes_back_and_finds_what_runs(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.run("up", "--zones", "1", "--wait", "0")
    standins = next(process["name"] for process in lab.status()["processes"] if process["name"].startswith("standins/"))
    eventually(lambda: lab.process(standins)["state"] == "ready")
    before = lab.process(standins)
    namespace = lab.run("exec", "internet", "--", "readlink", "/proc/self/ns/net").stdout
    with lab.start("exec", "internet", "--", "sh", "-c", "echo begun; read line; exit 5", stdin=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "begun\n"
        former = lab.kill("supervisor")
        eventually(lambda: lab.run("status", "-o", "json", status=None).stdout and lab.process("supervisor")["pid"] not in {0, former})
        program.communicate("go\n", timeout=20)
    assert program.returncode == 5
    assert lab.process(standins) == before
    assert lab.run("exec", "internet", "--", "readlink", "/proc/self/ns/net").stdout == namespace
    lab.kill(standins)
    after = eventually(lambda: (now := lab.process(standins))["state"] == "ready" and now)
    assert after["restarts"] == 1
    assert after["lastError"] == "killed by SIGKILL"
    lab.run("down")
    lab.nothing_is_left()


def test_the_processes_of_a_node_whose_first_process_is_killed_come_back(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.run("up", "--zones", "1", "--wait", "0")
    standins = next(process["name"] for process in lab.status()["processes"] if process["name"].startswith("standins/"))
    eventually(lambda: lab.process(standins)["state"] == "ready")
    before = lab.process(standins)["pid"]
    node = standins.removeprefix("standins/")
    [first] = [pid for pid in processes() if Path(f"/proc/{pid}/cmdline").read_text().startswith(f"podwire-init init/{node}")]
    os.kill(first, signal.SIGKILL)
    eventually(lambda: (now := lab.process(standins))["state"] == "ready" and now["pid"] != before)
    assert lab.run("exec", f"node/{node}", "--", "echo", "here").stdout == "here\n"
    lab.run("down")
    lab.nothing_is_left()
