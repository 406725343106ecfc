"""Agents as processes: how they start, say that they are ready, and end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from podwire.cli.agent import AGENTS, agent

AGENT = """
import asyncio, sys
from podwire.daemon.run import run

async def works(context):
    context.ready("works")
    await asyncio.sleep(1000)

async def fails(context):
    raise ValueError("the table is full")

async def fails_beside(context):
    async def beside():
        raise OSError("the kernel refused")
    context.start(beside(), "beside")
    await asyncio.sleep(1000)

async def slow(context):
    context.ready("slow")
    try:
        await asyncio.sleep(1000)
    finally:
        context.log.info("slow has cleaned up")

async def returns(context):
    context.ready("returns")

agents = [(name, globals()[name]) for name in sys.argv[3:]]
sys.exit(run(agents, kubeconfig=sys.argv[1], config=sys.argv[2] or None))
"""


class Process:
    def __init__(self, folder: Path, process: subprocess.Popen[str], notify: socket.socket) -> None:
        self.folder, self.process, self.notify = folder, process, notify
        self.heard = ""

    def hear(self, text: str) -> None:
        while text not in self.heard:
            self.heard += self.notify.recv(4096).decode() + "\n"

    def end(self) -> tuple[int, list[str]]:
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors.splitlines()


@contextmanager
def started(folder: Path, *names: str, config: dict[str, object] | None = None) -> Iterator[Process]:
    kubeconfig = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "k"}}],
        "clusters": [{"name": "k", "cluster": {"server": "http://127.0.0.1:1"}}],
    }
    (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
    path = ""
    if config is not None:
        path = str(folder / "agent.json")
        Path(path).write_text(json.dumps(config))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(folder / "notify"))
        notify.settimeout(20)
        process = subprocess.Popen(
            [sys.executable, "-c", AGENT, str(folder / "kubeconfig"), path, *names],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NOTIFY_SOCKET": str(folder / "notify")},
        )
        try:
            yield Process(folder, process, notify)
        finally:
            process.kill()
            process.communicate()


def test_a_signal_is_a_clean_end(tmp_path: Path) -> None:
    with started(tmp_path, "works", "slow") as process:
        process.hear("READY=1")
        process.process.send_signal(signal.SIGTERM)
        status, lines = process.end()
        process.hear("STOPPING=1")
    assert status == 0
    assert any("slow has cleaned up" in line for line in lines)
    assert "ended by a signal" in lines[-1]


@pytest.mark.parametrize(
    ("names", "reason"),
    [(("works", "fails"), "fails: the table is full"), (("slow", "fails_beside"), "the kernel refused")],
)
def test_an_agent_that_raises_ends_the_process_and_says_why(names: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    with started(tmp_path, *names) as process:
        status, lines = process.end()
        process.hear(f"STATUS={reason}")
    assert status == 1
    assert lines[-1].endswith(reason)
    assert "Traceback (most recent call last):" in lines


def test_when_all_have_returned_the_work_is_done(tmp_path: Path) -> None:
    with started(tmp_path, "returns") as process:
        assert process.end()[0] == 0


def test_a_wrong_configuration_is_one_line(tmp_path: Path) -> None:
    with started(tmp_path, "works", config={"max_pods": "many"}) as process:
        status, lines = process.end()
    assert status == 1
    assert len(lines) == 1
    assert "agent.json" in lines[0]
    assert "max_pods" in lines[0]


def test_logs_as_json(tmp_path: Path) -> None:
    with started(tmp_path, "fails", config={"log_format": "json"}) as process:
        _, lines = process.end()
    last = json.loads(lines[-1])
    assert (last["level"], last["message"]) == ("error", "fails: the table is full")


def test_health_pages(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def page(name: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    with started(tmp_path, "works", config={"health_port": port}) as process:
        process.hear("READY=1")
        assert page("healthz") == (200, "ok\n")
        assert page("livez") == (200, "ok\n")
        assert "podwire_loop_lag_worst_seconds" in page("metrics")[1]
        assert page("secrets")[0] == 404


def test_the_command_knows_its_agents() -> None:
    wrong = CliRunner().invoke(agent, ["nothing"])
    assert wrong.exit_code == 2
    assert all(name in wrong.output for name in AGENTS)
    lacking = CliRunner().invoke(agent, ["pods"])
    assert lacking.exit_code == 2
    assert "--node" in lacking.output
