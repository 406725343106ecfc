"""cluster-up: from nothing to the first answer, down again, and what is left.

``first_200_s``: from the start of ``podwire up`` (three nodes) to the first 200 that a client on the internet gets through
the external load balancer, ``podwire apply`` of the page's example included. ``down_s``: ``podwire down``. ``status_ms``: a fresh
``podwire status``. ``left_behind``: processes, namespaces, mounts, interfaces and files, counted from outside before and after.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.report import Limit, Report, median

REPOSITORY = Path(__file__).parents[1]
ROUNDS = 5
STATUS_ROUNDS = 5
NAME = "bench"

# What a client on the internet does: ask until the first 200, each time over a new connection.
CLIENT = """
import http.client, sys, time
address, deadline = sys.argv[1], time.monotonic() + 60
while time.monotonic() < deadline:
    try:
        connection = http.client.HTTPConnection(address, 80, timeout=0.25)
        connection.request("GET", "/")
        answer = connection.getresponse()
        if answer.status == 200:
            sys.exit(0)
    except OSError:
        time.sleep(0.005)
sys.exit(1)
"""


class Machine:
    """What of a cluster could be left on the machine, counted from outside."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def count(self) -> dict[str, int]:
        processes, namespaces = self._processes()
        mounts = Path("/proc/self/mountinfo").read_text().count("\n")
        interfaces = len(os.listdir("/sys/class/net"))
        files = sum(1 for _ in self._home.rglob("*"))
        return {"processes": processes, "namespaces": namespaces, "mounts": mounts, "interfaces": interfaces, "files": files}

    def _processes(self) -> tuple[int, int]:
        """Count processes whose home is the benchmark's, and the network namespaces of all."""
        marked, namespaces = 0, set()
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            try:
                namespaces.add(os.readlink(f"{entry.path}/ns/net"))
                environment = Path(entry.path, "environ").read_bytes()
            except OSError:
                continue
            if f"HOME={self._home}\0".encode() in environment and int(entry.name) != os.getpid():
                marked += 1
        return marked, len(namespaces)


def podwire(home: Path, *words: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8"}
    cluster = [] if words[0] == "image" else ["--name", NAME]  # images belong to no cluster
    command = [sys.executable, "-m", "podwire", words[0], *cluster, *words[1:]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise SystemExit(f"podwire {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def address(home: Path) -> str:
    """The load balancer's address, as `podwire status` tells it; a matter of milliseconds after apply."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
        command = [sys.executable, "-m", "podwire", "status", "--name", NAME, "-o", "json"]
        tree = json.loads(subprocess.run(command, env=environment, capture_output=True, check=False).stdout)
        if tree["loadBalancers"]:
            return str(tree["loadBalancers"][0]["address"])
    raise SystemExit("the load balancer got no address within a minute")


def one_round(home: Path) -> dict[str, float]:
    start = time.perf_counter()
    podwire(home, "up")
    up = time.perf_counter()
    podwire(home, "apply", "-f", str(REPOSITORY / "examples/page"))
    applied = time.perf_counter()
    podwire(home, "exec", "internet", "--", sys.executable, "-S", "-c", CLIENT, address(home))
    first = time.perf_counter()
    prove(home)
    statuses = []
    for _ in range(STATUS_ROUNDS):
        before = time.perf_counter()
        podwire(home, "status")
        statuses.append(time.perf_counter() - before)
    before = time.perf_counter()
    podwire(home, "down")
    down = time.perf_counter() - before
    return {"up_s": up - start, "apply_s": applied - up, "first_200_s": first - start, "down_s": down, "status_ms": 1000 * median(statuses)}


def prove(home: Path) -> None:
    """The final state: all Pods of the example ready, and the answer comes from one of them."""
    answer = podwire(home, "exec", "internet", "--", sys.executable, str(REPOSITORY / "examples/fetch.py"), f"http://{address(home)}/")
    if not json.loads(answer)["pod"]["name"].startswith("frontend-"):
        raise SystemExit(f"answered by somebody else: {answer}")


def run() -> Report:
    """Run the benchmark."""
    with tempfile.TemporaryDirectory(prefix="podwire-bench-") as folder:
        home = Path(folder)
        machine = Machine(home)
        before = machine.count()
        rounds = [one_round(home) for _ in range(ROUNDS)]
        after = machine.count()
    samples = {name: [row[name] for row in rounds] for name in rounds[0]}
    left = {name: after[name] - before[name] for name in before}
    figures = {name: median(values) for name, values in samples.items()} | {"left_behind": float(sum(map(abs, left.values())))}
    limits = {
        "first_200_s": Limit(most=3),
        "down_s": Limit(most=0.5),
        "left_behind": Limit(most=0),
        "status_ms": Limit(most=150),
    }
    return Report(
        "cluster-up", figures, samples, {"nodes": 3, "zones": 3, "rounds": ROUNDS, **{f"left_{k}": v for k, v in left.items()}}, limits
    )
