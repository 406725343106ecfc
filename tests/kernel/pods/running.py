"""A node of a test's own: API server, first process, stand-ins and agent, each as the process that it is in a cluster. Not a test."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import running_apiserver
from kernel.linux.starting import start_first
from podwire.linux import init, unix
from podwire.linux.network import Network
from podwire.pods.logs.lines import decode
from podwire.wire.rtnetlink import Address, Link, add, change

NODE, NODE_IP = "node-1", "10.128.0.2"
LIMIT_S = 20.0

Tree = dict[str, Any]


def eventually(condition: Callable[[], Any], state: Callable[[], object] = lambda: "") -> Any:
    """Wait until a condition gives something true, and give that."""
    limit = time.monotonic() + LIMIT_S
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > limit:
            raise AssertionError(f"it did not come true within {LIMIT_S:g} s: {state()}")
        time.sleep(0.01)


class Node:
    """The processes of one node, and the API as its administrator sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = running_apiserver.start(folder)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.init = 0
        self._context = self.server.context()
        (folder / "config.json.agent").write_text(
            json.dumps(
                {
                    "cluster_dns": ["10.8.0.10"],
                    "pod_cidrs": ["10.4.0.0/24"],
                    "node_ips": [NODE_IP],
                    "zone": "us-central1-a",
                    "region": "us-central1",
                    "node_labels": {"cloud.google.com/gke-nodepool": "default-pool"},
                    "init_socket": f"{folder}/init.sock",
                    "standins_socket": f"{folder}/standins.sock",
                    "state_dir": f"{folder}/state",
                    "images_dir": f"{folder}/images",
                }
            )
        )

    # Processes ------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.start_init()
        self.start_standins()
        self.start_agent()

    def start_init(self) -> None:
        listening = unix.listen(f"{self.folder}/init.sock")
        self.init = start_first(lambda: init.main(listening), user=False, net=False)
        listening.close()

    def start_standins(self) -> None:
        self._start("standins", "standins", "--socket", f"{self.folder}/standins.sock")

    def start_agent(self) -> None:
        kubeconfig = self.server.kubeconfig(running_apiserver.NODE)
        self._start("agent", "agent", "pods", "--kubeconfig", kubeconfig, "--node", NODE, "--config", f"{self.folder}/config.json.agent")

    def _start(self, name: str, *words: str) -> None:
        notify = self.folder / f"notify-{name}"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, (self.folder / f"{name}.log").open("ab") as log:
            ready.bind(str(notify))
            ready.settimeout(LIMIT_S)
            command = [sys.executable, "-m", "podwire", *words]
            process = subprocess.Popen(command, env={**os.environ, "NOTIFY_SOCKET": str(notify)}, stdout=log, stderr=log)
            self.processes[name] = process
            try:
                while b"READY=1" not in ready.recv(4096):
                    pass
            except TimeoutError:
                raise AssertionError(f"{name} did not become ready:\n{self.log(name)}") from None

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def kill(self, name: str) -> None:
        """As a crash would."""
        self.processes[name].kill()
        self.processes[name].wait()

    def kill_init(self) -> None:
        """The node loses power: everything that its first process started or held is gone."""
        if self.init:
            os.kill(self.init, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.init, 0)
            self.init = 0

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.kill_init()
        self.server.stop()

    # The API --------------------------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: Tree | None = None, kind: str = "application/json", accept: str = "*/*") -> Tree:
        connection = http.client.HTTPSConnection("127.0.0.1", self.server.port, context=self._context, timeout=10)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": kind, "Accept": accept})
            answer: Tree = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()

    def create(self, path: str, body: Tree) -> Tree:
        answer = self.call("POST", path, body)
        assert answer.get("kind") != "Status", answer
        return answer

    def pod(self, name: str, *containers: Tree, labels: dict[str, str] | None = None, **spec: Any) -> Tree:
        """Create a Pod on this node."""
        spec = {"nodeName": NODE, "terminationGracePeriodSeconds": 5, "containers": list(containers), **spec}
        return self.create("/api/v1/namespaces/default/pods", {"metadata": {"name": name, "labels": labels or {}}, "spec": spec})

    def get(self, name: str) -> Tree:
        return self.call("GET", f"/api/v1/namespaces/default/pods/{name}")

    def wait(self, name: str, condition: Callable[[Tree], Any], what: str = "") -> Tree:
        """Wait for a condition on a Pod's status, and give the Pod."""

        def state() -> str:
            return f"{what}\n{json.dumps(self.get(name).get('status'), indent=1)}\n{self.events(name)}\n{self.log('agent')[-6000:]}"

        def holds() -> Tree | None:
            found = self.get(name)
            return found if condition(found.get("status", {})) else None

        found: Tree = eventually(holds, state)
        return found

    def ready(self, name: str) -> Tree:
        return self.wait(name, lambda status: condition(status, "Ready") == "True", f"{name} is ready")

    def delete(self, name: str) -> None:
        self.call("DELETE", f"/api/v1/namespaces/default/pods/{name}")

    def gone(self, name: str) -> None:
        eventually(lambda: self.get(name).get("code") == 404, lambda: (self.get(name), self.log("agent")[-6000:]))

    def events(self, name: str) -> list[str]:
        items = self.call("GET", "/api/v1/namespaces/default/events")["items"]
        return [f"{event['reason']}: {event['message']}" for event in items if event["involvedObject"]["name"] == name]

    def changes(self, pod: Tree) -> list[Tree]:
        """What was written to a Pod since it was created, as a watch tells it: others' writes are not among it."""
        query = f"watch=1&timeoutSeconds=1&fieldSelector=metadata.name={pod['metadata']['name']}"
        path = f"/api/v1/namespaces/default/pods?{query}&resourceVersion={pod['metadata']['resourceVersion']}"
        connection = http.client.HTTPSConnection("127.0.0.1", self.server.port, context=self._context, timeout=10)
        try:
            connection.request("GET", path)
            told = [json.loads(line) for line in connection.getresponse().read().splitlines()]
        finally:
            connection.close()
        return [one["object"]["status"] for one in told if one["type"] == "MODIFIED"]

    def said(self, pod: Tree, container: str = "main", run: int = 0) -> str:
        """What a run of a container has logged so far."""
        path = self.folder / "state/nodes" / NODE / "pods" / pod["metadata"]["uid"] / container / f"{run}.log"
        if not path.exists():
            return ""
        entries = [decode(line) for line in path.read_bytes().split(b"\n")[:-1]]
        return b"".join(entry.text + b"\n" * entry.whole for entry in entries if entry is not None).decode()

    def service_account(self) -> None:
        """What the controllers make of a namespace: its account and the cluster's certificate."""
        self.create("/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
        certificate = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": "the cluster's certificate"}}
        self.create("/api/v1/namespaces/default/configmaps", certificate)


def condition(status: Tree, kind: str) -> str:
    return next((str(one["status"]) for one in status.get("conditions", ()) if one["type"] == kind), "")


def ask(address: str, port: int, path: str = "/") -> Tree:
    """GET, from the node; the answer's JSON."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", path)
        answer: Tree = json.loads(connection.getresponse().read())
        return answer
    finally:
        connection.close()


@contextlib.contextmanager
def running_node() -> Iterator[Node]:
    """A node that runs, in the namespaces of the calling test."""
    with Network() as network:
        network.apply([change(Link("lo", up=True)), add(Address("lo", ip_interface(NODE_IP)))])
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder))
        try:
            node.start()
            yield node
        finally:
            node.stop()
