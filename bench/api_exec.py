"""api-exec: a command in a container, and bytes through a port-forward, by a client in this process, in a cluster of one node.

``exec_p50_ms``: from connecting to the API until the exit status of ``true`` is read (WebSocket, v5.channel.k8s.io), TLS included.
``port_forward_mib_per_s``: what one connection to a server in a Pod gives, as kubectl carries it (SPDY/3.1 in WebSocket messages);
``port_forward_up_mib_per_s``: the other way. Each transfer is counted by the other end, and each exit status is looked at.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
import yaml

from bench.report import Limit, Report, median, percentile
from podwire.daemon.duplex import Duplex
from podwire.pods.kubelet.upgrade import unmask
from podwire.wire import spdy, websocket

REPOSITORY = Path(__file__).parents[1]
NAME = "bench"
EXECS, WARM, ROUNDS, BYTES = 60, 5, 3, 128 * 1024 * 1024
DOWN, UP, COUNTED = 9000, 9001, 64 * 1024
SERVER = f"""
import socket, threading
def serve(port, talk):
    listening = socket.create_server(("", port))
    while True:
        threading.Thread(target=talk, args=listening.accept()[:1], daemon=True).start()
def down(connection):
    block, left = bytes({COUNTED}), {BYTES}
    while left:
        connection.sendall(block)
        left -= len(block)
    connection.close()
def up(connection):
    got = 0
    while got < {BYTES}:
        got += len(connection.recv(1 << 20))
    connection.sendall(str(got).encode())
    connection.close()
threading.Thread(target=serve, args=({DOWN}, down)).start()
serve({UP}, up)
"""
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "source"},
    "spec": {"containers": [{"name": "main", "image": "podwire.dev/machine", "command": ["python3", "-c", SERVER]}]},
}


class Api:
    """The API as a kubeconfig has it."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        tree = yaml.safe_load(kubeconfig.read_text())
        cluster, user = tree["clusters"][0]["cluster"], tree["users"][0]["user"]
        place = urlsplit(cluster["server"])
        self.host, self.port = str(place.hostname), int(place.port or 443)
        pems = {name: base64.b64decode(source[name]) for source in (cluster, user) for name in source if name.endswith("-data")}
        (folder / "ca.pem").write_bytes(pems["certificate-authority-data"])
        (folder / "user.pem").write_bytes(pems["client-certificate-data"] + pems["client-key-data"])
        self.context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        self.context.load_cert_chain(folder / "user.pem")

    async def upgrade(self, path: str, protocol: str) -> Duplex:
        """A WebSocket, after its handshake."""
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Duplex, self.host, self.port, ssl=self.context)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [f"GET {path} HTTP/1.1", f"Host: {self.host}:{self.port}", "Connection: Upgrade", "Upgrade: websocket"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Protocol: {protocol}", "", ""]
        connection.write("\r\n".join(lines).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = await connection.read()
            assert piece, f"the connection ended: {head!r}"
            head += piece
        assert head.startswith(b"HTTP/1.1 101"), head
        connection.unread(head.partition(b"\r\n\r\n")[2])
        return connection


async def execute(api: Api) -> float:
    """Run ``true``; gives the milliseconds until its status is read."""
    began = time.perf_counter()
    path = "/api/v1/namespaces/default/pods/source/exec?command=true&stdout=true&stderr=true"
    connection = await api.upgrade(path, "v5.channel.k8s.io")
    session, said = websocket.Session(server=False), b""
    while not said.endswith(b"}"):
        data = await connection.read()
        assert data, "no status came"
        for event in session.receive(data):
            if isinstance(event, websocket.Piece):
                said += event.payload
    took_ms = (time.perf_counter() - began) * 1000
    assert json.loads(said[1:])["status"] == "Success", said
    connection.close()
    return took_ms


class Forward:
    """A port-forward with one connection."""

    def __init__(self, connection: Duplex) -> None:
        self._connection, self._frames = connection, websocket.Session(server=False)
        self._streams = spdy.Session(client=True)
        self.data = 0

    def send(self, *parts: bytes) -> None:
        payload, mask = b"".join(parts), b"\x12\x34\x56\x78"
        self._connection.write(b"".join((websocket.head(len(payload), masked=True), mask, unmask(payload, mask))))

    def open(self, port: int) -> None:
        for kind in ("error", "data"):
            headers = {"streamType": kind, "port": str(port), "requestID": "0"}
            self.data, frame = self._streams.open(headers)
            self.send(frame)

    async def upload(self, size: int) -> None:
        block = bytes(COUNTED)
        for _ in range(size // COUNTED):
            self.send(spdy.Session.head(self.data, COUNTED), block)
            await self._connection.drain()

    async def received(self, enough: Callable[[bytes], bool]) -> None:
        """Read until enough has come, or raise what went wrong."""
        while True:
            raw = await self._connection.read()
            assert raw, "the connection ended"
            pieces = [event.payload for event in self._frames.receive(raw) if isinstance(event, websocket.Piece)]
            for event in self._streams.receive(b"".join(pieces)):
                if isinstance(event, spdy.Data):
                    assert event.stream == self.data or not event.payload, event.payload
                    if event.stream == self.data and enough(event.payload):
                        return

    def close(self) -> None:
        self._connection.close()


async def forwarded(api: Api, port: int, work: Callable[[Forward], Awaitable[None]]) -> float:
    """MiB a second of one transfer."""
    path = "/api/v1/namespaces/default/pods/source/portforward"
    forward = Forward(await api.upgrade(path, "SPDY/3.1+portforward.k8s.io"))
    began = time.perf_counter()
    forward.open(port)
    await work(forward)
    took_s = time.perf_counter() - began
    forward.close()
    return BYTES / 1024 / 1024 / took_s


async def _down(forward: Forward) -> None:
    got = 0

    def enough(payload: bytes) -> bool:
        nonlocal got
        got += len(payload)
        return got >= BYTES

    await forward.received(enough)
    assert got == BYTES


async def _up(forward: Forward) -> None:
    await forward.upload(BYTES)
    await forward.received(lambda payload: payload == str(BYTES).encode())


async def _samples(api: Api) -> dict[str, list[float]]:
    """All samples of a cluster that runs the Pod; those of one figure by its name."""
    for _ in range(WARM):
        await execute(api)
    return {
        "exec_p50_ms": [await execute(api) for _ in range(EXECS)],
        "port_forward_mib_per_s": [await forwarded(api, DOWN, _down) for _ in range(ROUNDS)],
        "port_forward_up_mib_per_s": [await forwarded(api, UP, _up) for _ in range(ROUNDS)],
    }


def run() -> Report:
    """The benchmark by itself."""
    samples = measure()
    figures = {name: median(values) for name, values in samples.items()}
    figures["exec_p99_ms"] = percentile(samples["exec_p50_ms"], 0.99)
    limits = {"exec_p50_ms": Limit(most=20), "port_forward_mib_per_s": Limit(least=200)}
    return Report("api-exec", figures, samples, {"execs": EXECS, "bytes": BYTES}, limits)


def measure() -> dict[str, list[float]]:
    """Give the samples, of a cluster of this benchmark's own."""
    podwire = [sys.executable, "-m", "podwire"]
    with tempfile.TemporaryDirectory(prefix="podwire-bench-") as name:
        folder = Path(name)
        kubeconfig = folder / "kubeconfig"
        environment = {**os.environ, "HOME": name, "XDG_STATE_HOME": f"{name}/state", "KUBECONFIG": str(kubeconfig)}
        kubectl = ["kubectl", "--context", f"podwire-{NAME}"]
        words = ["up", "--name", NAME, "--zones", "1", "--kubeconfig", str(kubeconfig)]
        subprocess.run([*podwire, *words], env=environment, check=True, stdout=subprocess.DEVNULL)
        try:
            subprocess.run(
                [*kubectl, "create", "-f", "-"], input=json.dumps(POD), text=True, env=environment, check=True, stdout=subprocess.DEVNULL
            )
            waiting = [*kubectl, "wait", "--for=condition=Ready", "pod/source", "--timeout=60s"]
            subprocess.run(waiting, env=environment, check=True, stdout=subprocess.DEVNULL)
            return uvloop.run(_samples(Api(kubeconfig, folder)))
        finally:
            subprocess.run([*podwire, "down", "--name", NAME], env=environment, check=False, stdout=subprocess.DEVNULL)
