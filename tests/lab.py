"""A cluster of a test's own, by the door that a person has: the command line, with a HOME of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

LIMIT_S = 20.0
LOOK_AGAIN_S = 0.005


def eventually(condition: Callable[[], object], what: str = "") -> Any:
    """Wait until a condition is true and give its value."""
    limit = time.monotonic() + LIMIT_S
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < limit, f"not within {LIMIT_S:g} s: {what or condition}"
        time.sleep(LOOK_AGAIN_S)


def reap() -> None:
    """As the first process of its namespace, a test inherits what door leaves."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def processes() -> set[int]:
    """The processes of this PID namespace, but for this one, the dead, and what the test itself started."""
    reap()
    return {int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()}


class Lab:
    def __init__(self, home: Path, name: str = "podwire", environment: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.name = name
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(home), "KUBECONFIG": str(home / "config"), **(environment or {})}

    @property
    def root(self) -> Path:
        return self.home / ".local/state/podwire" / self.name

    def start(self, word: str, *words: str, **options: Any) -> subprocess.Popen[str]:
        named = [word, *(["--name", self.name] if word not in {"list", "version"} else []), *words]
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.Popen([sys.executable, "-m", "podwire", *named], env=self.environment, text=True, **options)

    def run(
        self, word: str, *words: str, status: int | None = 0, standard_input: str = "", **options: Any
    ) -> subprocess.CompletedProcess[str]:
        with self.start(word, *words, stdin=subprocess.PIPE, **options) as process:
            out, err = process.communicate(standard_input, timeout=LIMIT_S * 3)
        assert status is None or process.returncode == status, f"podwire {word} ended with {process.returncode}:\n{out}{err}"
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def status(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.run("status", "-o", "json", status=None).stdout)
        return report

    def process(self, name: str) -> dict[str, Any]:
        return next(process for process in self.status()["processes"] if process["name"] == name)

    def kill(self, name: str) -> int:
        pid = int(self.process(name)["pid"])
        os.kill(pid, signal.SIGKILL)
        return pid

    def nothing_is_left(self, *, but: Set[str] = frozenset()) -> None:
        """Fail if a process, a file or the kubeconfig entry is still there."""
        eventually(lambda: not processes(), "the end of all processes")
        left = {str(path.relative_to(self.home)) for path in self.home.rglob("*")}
        assert left <= but
