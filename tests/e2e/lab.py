"""A user of a machine, with a home of their own: what end-to-end tests run podwire and kubectl as.

As root every test runs twice: as root, and as uid 65534 with 1,024 open files. As an ordinary user it runs once, as that user.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
NOBODY = 65534
OPEN_FILES = 1024
USERS = (0, NOBODY) if os.geteuid() == 0 else (os.geteuid(),)
LIMIT_S = 60.0
_GET = """
import sys, urllib.request, urllib.error
try:
    answer = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1], timeout=20)
except urllib.error.HTTPError as error:
    answer = error
sys.stdout.write(answer.read().decode())
"""


def until(condition: Callable[[], Any], what: str, limit_s: float = LIMIT_S) -> Any:
    """Wait until a condition gives something true, and give that. Fails with ``what`` after the limit."""
    deadline = time.monotonic() + limit_s
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s:g} s: {what} (last: {found!r})")
        time.sleep(0.02)


@functools.cache
def installation() -> Path:
    """The folder of an installation that every user may read: the repository itself, or a copy where its folders are private."""
    if all(folder.stat().st_mode & stat.S_IXOTH for folder in (REPOSITORY, *REPOSITORY.parents)):
        return REPOSITORY
    copy = Path(tempfile.mkdtemp(prefix="podwire-e2e-installation-"))
    copy.chmod(0o755)
    for part in ("src", "examples", "tools", ".venv"):
        shutil.copytree(REPOSITORY / part, copy / part, symlinks=True)
    for path in (copy / ".venv").glob("lib/*/site-packages/podwire.pth"):
        path.write_text(f"{copy}/src\n")
    return copy


@dataclass(frozen=True)
class User:
    """Somebody with a uid and a home. ``run`` runs any program as them."""

    uid: int
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        path = f"{installation()}/.venv/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        return {"HOME": str(self.home), "PATH": path, "LANG": "C.UTF-8"}

    @property
    def python(self) -> str:
        return f"{installation()}/.venv/bin/python"

    def start(self, command: Sequence[str], environment: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """Start a program as this user; options are Popen's."""
        if os.geteuid() == 0 and self.uid:
            options |= {"user": self.uid, "group": self.uid, "extra_groups": []}
        if self.uid:
            options["preexec_fn"] = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
        options.setdefault("cwd", installation())
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("text", True)
        return subprocess.Popen(list(command), env={**self.environment, **(environment or {})}, **options)

    def run(
        self,
        command: Sequence[str],
        *,
        status: int | None = 0,
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
        limit_s: float = 120,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program to its end and expect an exit status (None: any)."""
        feed = subprocess.DEVNULL if stdin is None else subprocess.PIPE
        with self.start(command, environment, stdin=feed, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options) as process:
            try:
                out, err = process.communicate(stdin, timeout=limit_s)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                raise AssertionError(f"{list(command)} did not end within {limit_s} s:\n{out}{err}") from None
        done = subprocess.CompletedProcess(list(command), process.returncode, out, err)
        if status is not None:
            assert done.returncode == status, f"{list(command)} ended with {done.returncode}, not {status}:\n{out}{err}"
        return done

    def podwire(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run([f"{installation()}/.venv/bin/podwire", *words], **options)


@dataclass(frozen=True)
class Cluster:
    """A running cluster of a user's."""

    user: User
    name: str

    def podwire(self, word: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.user.podwire(word, "--name", self.name, *words, **options)

    def kubectl(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run stock kubectl with the context that ``up`` made."""
        return self.user.run(["kubectl", "--context", f"podwire-{self.name}", *words], **options)

    def get(self, *words: str) -> Any:
        return json.loads(self.kubectl("get", *words, "-o", "json").stdout)

    def status(self) -> Any:
        return json.loads(self.podwire("status", "-o", "json", status=None).stdout)

    def exec(self, where: str, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.podwire("exec", where, "--", *command, **options)

    def fetch(self, where: str, url: str, times: int = 1, *, status: int | None = 0) -> list[dict[str, Any]]:
        """Ask a URL from a place, each time over a new connection."""
        done = self.exec(where, self.user.python, f"{installation()}/examples/fetch.py", url, str(times), status=status)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def get_text(self, where: str, url: str) -> str:
        """Ask a URL from a place, once, and give the body, whatever the status."""
        return self.exec(where, self.user.python, "-S", "-c", _GET, url).stdout

    def ready(self, namespace: str = "default", limit_s: float = LIMIT_S) -> list[dict[str, Any]]:
        """Wait until all Pods of a namespace are ready and every Deployment has its number; give the Pods."""

        def look() -> Any:
            pods = self.get("pods", "-n", namespace)["items"]
            deployments = self.get("deployments", "-n", namespace)["items"]
            whole = all(item["status"].get("readyReplicas", 0) == item["spec"]["replicas"] for item in deployments)
            return whole and pods and all(_is_ready(pod) for pod in pods) and pods

        found: list[dict[str, Any]] = until(look, f"all Pods of {namespace} ready", limit_s)
        return found

    def balancer(self, service: str) -> dict[str, Any]:
        """Wait for a Service's load-balancer address and its port on this machine."""

        def look() -> Any:
            rows = [row for row in self.status()["loadBalancers"] if row["service"] == service and row["urls"]]
            return rows and rows[0]

        found: dict[str, Any] = until(look, f"an address for {service}")
        return found


def _is_ready(pod: Mapping[str, Any]) -> bool:
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))


@contextlib.contextmanager
def a_user(uid: int, below: str | None = None) -> Iterator[User]:
    """A user with an empty home (``below`` a folder, else among temporary files), and nothing left of them afterwards."""
    home = Path(tempfile.mkdtemp(prefix=f"podwire-e2e-{uid}-", dir=below))
    home.chmod(0o755)
    if os.geteuid() == 0:
        os.chown(home, uid, uid)
    user = User(uid, home)
    try:
        yield user
    finally:
        for process in processes_of(user):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def a_cluster(user: User, name: str, *words: str) -> Iterator[Cluster]:
    """A running cluster, taken down at the end."""
    user.podwire("up", "--name", name, *words)
    try:
        yield Cluster(user, name)
    finally:
        user.podwire("down", "--name", name, status=None)


def processes_of(user: User) -> list[int]:
    """The processes on this machine that were started with this user's home, whatever namespace they live in."""
    wanted = f"HOME={user.home}\0".encode()
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if wanted in Path(entry.path, "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def traces_of(user: User) -> dict[str, Any]:
    """All that a cluster of this user's could leave on the machine."""
    files = sorted(str(path.relative_to(user.home)) for path in user.home.rglob("*"))
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(user.home) in line]
    return {"processes": processes_of(user), "files": files, "mounts": mounts, "interfaces": sorted(os.listdir("/sys/class/net"))}
