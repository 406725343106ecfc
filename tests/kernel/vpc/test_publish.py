"""The agent ``publish`` as a process, against a real API server and a lab that only keeps what it is told."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import running_apiserver
from podwire.linux import namespaces, unix
from podwire.linux.network import Network
from podwire.wire.rtnetlink import Address, Link, add, change

LIMIT_S = 20.0
ADDRESS = "203.0.113.2"


class Lab(threading.Thread):
    """The other side of the control socket: answers as docs/architecture.md says."""

    def __init__(self, path: str) -> None:
        super().__init__(daemon=True)
        self.report: dict[str, Any] = {}
        self.sockets: dict[str, socket.socket] = {}
        self.connections: list[socket.socket] = []
        self._listening = unix.listen(path)
        self.start()

    def run(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            self.connections.append(connection)
            threading.Thread(target=self._hear, args=(connection,), daemon=True).start()

    def _hear(self, connection: socket.socket) -> None:
        while (received := unix.receive(connection)) is not None:
            message, descriptors = received
            if message.get("memfd"):
                with open(descriptors[-1], "rb") as stream:
                    stream.seek(0)
                    message = json.load(stream)
            unix.send(connection, *self._answer(message))

    def _answer(self, message: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        match message["request"]:
            case "report":
                self.report |= {key: value for key, value in message.items() if key != "request"}
                return {}, []
            case "open":
                return ({}, [namespaces.own_network()]) if message["where"] == "internet" else ({"error": "unknown"}, [])
            case "listen":
                made = self.sockets.setdefault(message["name"], socket.create_server(("127.0.0.1", 0)))
                return {"port": made.getsockname()[1]}, [made.fileno()]
            case "unlisten":
                self.sockets.pop(message["name"]).close()
                return {}, []
        return {"error": f"unknown request {message}"}, []

    def forget(self) -> None:
        """Be a lab that was started again: connections end, nothing is known but the sockets."""
        self.report = {}
        while self.connections:
            self.connections.pop().shutdown(socket.SHUT_RDWR)


def eventually(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + LIMIT_S
    while not (answer := what()):
        assert time.monotonic() < until, "it did not come to be"
        time.sleep(0.01)
    return answer


def kubectl(server: running_apiserver.ApiServer, *words: str, body: object = None, content: str = "application/json") -> dict[str, Any]:
    """One request to the API."""
    import urllib.request

    method, path = words
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data=data, method=method, headers={"Content-Type": content})
    with urllib.request.urlopen(request, context=server.context()) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def serve_hello() -> None:
    listening = socket.create_server((ADDRESS, 80))

    def run() -> None:
        while True:
            connection, _ = listening.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"hello")

    threading.Thread(target=run, daemon=True).start()


def get(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as connection:
        connection.sendall(b"GET\n")
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(100), b""))


def test_addresses_are_published_and_the_report_is_kept() -> None:
    with Network() as network:
        network.apply([change(Link("lo", up=True)), add(Address("lo", IPv4Interface(f"{ADDRESS}/32")))])
    serve_hello()
    with tempfile.TemporaryDirectory(prefix="pw") as name:
        folder = Path(name)
        lab = Lab(f"{name}/control.sock")
        server = running_apiserver.start(folder)
        (folder / "agent.json").write_text(json.dumps({"control_socket": f"{name}/control.sock"}))
        identity = server.kubeconfig(running_apiserver.CONTROLLER)
        command = [sys.executable, "-m", "podwire", "agent", "publish", "--kubeconfig", identity, "--config", f"{name}/agent.json"]
        with (folder / "publish.log").open("wb") as log:
            agent = subprocess.Popen(command, stderr=log)
        try:
            _follow(server, lab)
        except BaseException:
            os.write(2, (folder / "publish.log").read_bytes())
            raise
        finally:
            agent.terminate()
            assert agent.wait(LIMIT_S) == 0
            server.stop()


def _follow(server: running_apiserver.ApiServer, lab: Lab) -> None:
    rules = "/apis/compute.podwire.dev/v1/forwardingrules"
    kubectl(server, "POST", "/api/v1/nodes", body={"metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "z"}}})
    eventually(lambda: lab.report.get("nodes"))
    state = {"ready": False, "unschedulable": False, "pressure": []}
    assert lab.report["nodes"][0] | {"reason": ""} == {"name": "n1", "zone": "z", "address": "", "reason": "", **state}
    spec = {"ipAddress": ADDRESS, "ipProtocol": "TCP", "ports": [80], "target": "web"}
    kubectl(server, "POST", rules, body={"metadata": {"name": "web"}, "spec": spec})
    port = eventually(lambda: lab.sockets.get(f"{ADDRESS}:80")).getsockname()[1]
    assert get(port) == b"hello"
    service = {"metadata": {"name": "web"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}
    kubectl(server, "POST", "/api/v1/namespaces/default/services", body=service)
    patch = {"status": {"loadBalancer": {"ingress": [{"ip": ADDRESS}]}}}
    kubectl(server, "PATCH", "/api/v1/namespaces/default/services/web/status", body=patch, content="application/merge-patch+json")
    shown = [{"service": "default/web", "address": ADDRESS, "ports": [80], "urls": [f"http://127.0.0.1:{port}"]}]
    eventually(lambda: lab.report.get("loadBalancers") == shown)
    lab.forget()
    eventually(lambda: lab.report.get("loadBalancers") == shown)  # said again, unasked
    assert get(port) == b"hello"
    for number in range(300):  # a report that no packet holds
        kubectl(
            server,
            "POST",
            "/api/v1/nodes",
            body={"metadata": {"name": f"a-node-with-quite-a-long-name-so-that-it-adds-up-to-much-{number}"}},
        )
    eventually(lambda: len(lab.report["nodes"]) == 301)
    kubectl(server, "DELETE", f"{rules}/web")
    eventually(lambda: not lab.sockets)
    eventually(lambda: lab.report["loadBalancers"][0]["urls"] == [])
