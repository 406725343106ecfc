"""cni-add: what a container runtime waits for: ADD of podwire-cni as a program and by call, beside the bridge plugin of the CNI project.

The programs are started in turn in one namespace, so that whatever else the machine does meets all of them; each ADD is for a
container of its own. ``program``: with the node's agent, as a node has it; ``alone``: without. The bridge plugin is that of Debian's
containernetworking-plugins with its own host-local; where that is not installed its figure is left out and the input says so. Proof of the
final state: a connection to every container.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

from bench.isolated import in_child
from bench.report import Limit, Report, percentile

ROUNDS = 40
BRIDGE_PLUGIN = Path("/usr/lib/cni/bridge")


class _Subject:
    """One way to add a container; keeps the addresses it was given and the milliseconds each took."""

    def __init__(self, name: str, configuration: dict[str, object], call: Callable[[dict[str, str], bytes, int], bytes]) -> None:
        self.name, self._body, self._call = name, json.dumps(configuration).encode(), call
        self.taken: list[float] = []
        self.containers: list[tuple[int, str]] = []

    def add(self, number: int) -> None:
        from podwire.linux import namespaces

        namespace = namespaces.create_network()
        words = {
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": f"{self.name}-{number}",
            "CNI_IFNAME": "eth0",
            "CNI_NETNS": f"/proc/{os.getpid()}/fd/{namespace}",
            "CNI_PATH": str(BRIDGE_PLUGIN.parent),
        }
        start = time.perf_counter()
        output = self._call(words, self._body, namespace)
        self.taken.append(1000 * (time.perf_counter() - start))
        self.containers.append((namespace, json.loads(output)["ips"][0]["address"].partition("/")[0]))


def _program(path: Path, variables: dict[str, str]) -> Callable[[dict[str, str], bytes, int], bytes]:
    def call(words: dict[str, str], body: bytes, namespace: int) -> bytes:  # noqa: ARG001
        ran = subprocess.run([path], input=body, stdout=subprocess.PIPE, env=words | variables | {"PATH": os.environ["PATH"]})
        if ran.returncode:
            raise SystemExit(f"cni-add: {path}: {ran.stdout.decode()}")
        return ran.stdout

    return call


def _by_call() -> Callable[[dict[str, str], bytes, int], bytes]:
    from podwire.pods.cni.plugin import Plugin

    plugin = Plugin()

    def call(words: dict[str, str], body: bytes, namespace: int) -> bytes:
        status, output = plugin.answer(words, body, namespace)
        if status:
            raise SystemExit(f"cni-add: {output.decode()}")
        return output

    return call


@contextlib.contextmanager
def _agent(path: Path) -> Iterator[None]:
    running = subprocess.Popen([sys.executable, "-m", "podwire", "cni", "serve", "--socket", path], stderr=subprocess.DEVNULL)
    try:
        while not path.exists():
            time.sleep(0.01)
        yield
    finally:
        running.terminate()
        running.wait()


def _measure() -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as folder:
        home, socket = Path(folder), Path(folder, "cni.sock")
        subprocess.run([sys.executable, "-m", "podwire", "cni", "install", home], check=True, stdout=subprocess.DEVNULL)

        def network(number: int, kind: str, **ipam: object) -> dict[str, object]:
            subnet = {"subnet": f"10.{22 + number}.0.0/24"}
            own = {"dataDir": str(home / "data")} if kind == "podwire-cni" else {"isGateway": True}
            base = {"cniVersion": "1.0.0", "name": f"net{number}", "type": kind, "bridge": f"cni{number}"}
            return base | own | {"ipam": {"ranges": [[subnet]]} | ipam}

        ours = home / "podwire-cni"
        subjects = [
            _Subject("call", network(0, "podwire-cni"), _by_call()),
            _Subject("program", network(1, "podwire-cni"), _program(ours, {"PODWIRE_CNI_SOCKET": str(socket)})),
            _Subject("alone", network(2, "podwire-cni"), _program(ours, {"PODWIRE_CNI_SOCKET": str(home / "none")})),
        ]
        if BRIDGE_PLUGIN.exists():
            ipam = {"type": "host-local", "dataDir": str(home / "host-local"), "routes": [{"dst": "0.0.0.0/0"}]}
            subjects.append(_Subject("bridge_plugin", network(3, "bridge", **ipam), _program(BRIDGE_PLUGIN, {})))
        with _agent(socket):
            for number in range(ROUNDS):
                for subject in subjects:
                    subject.add(number)
        for subject in subjects:
            _prove(subject.containers)
        return {subject.name: subject.taken for subject in subjects}


def _prove(containers: list[tuple[int, str]]) -> None:
    """A connection from the machine to every container."""
    import socket

    from podwire.linux import namespaces

    if len({address for _, address in containers}) != len(containers):
        raise SystemExit("cni-add: an address was given twice")
    for namespace, address in containers:
        server = namespaces.socket_inside(namespace, socket.AF_INET, socket.SOCK_STREAM)
        server.bind((str(ip_address(address)), 8080))
        server.listen()
        accepting = threading.Thread(target=lambda server=server: server.accept()[0].close())
        accepting.start()
        socket.create_connection((address, 8080), 5).close()
        accepting.join()
        server.close()


def run() -> Report:
    """Run the benchmark."""
    taken = in_child(_measure, fresh_network=True)
    samples = {f"{name}_p50_ms": values for name, values in taken.items()}
    figures = {name: percentile(values, 0.5) for name, values in samples.items()}
    limits = {"program_p50_ms": Limit(most=30), "call_p50_ms": Limit(most=2)}
    beside = str(BRIDGE_PLUGIN) if BRIDGE_PLUGIN.exists() else "not installed: apt-get install containernetworking-plugins"
    return Report("cni-add", figures, samples, {"rounds": ROUNDS, "bridge_plugin": beside}, limits)
