"""A real API server for these tests, and a client that says what it got."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from oracles import program
from podwire.cluster.credentials import Identity
from running_apiserver import ADMIN, ApiServer, start

Tree = dict[str, Any]
DEADLINE_S = 20.0


@dataclass
class Got:
    status: int
    tree: Any
    headers: http.client.HTTPMessage


Call = Callable[..., Got]


@pytest.fixture(scope="module")
def server() -> Iterator[ApiServer]:
    """One server for the tests of a module; each uses a namespace of its own."""
    with tempfile.TemporaryDirectory(prefix="api") as folder:
        running = start(Path(folder))
        yield running
        running.stop()
        running.listener.close()
        assert "Traceback" not in running.log(), running.log()


@pytest.fixture
def call(server: ApiServer) -> Iterator[Call]:
    """``call(method, path, body, identity=..., headers=...)``: one request, with a client certificate or, for None, without."""
    connections: dict[str, http.client.HTTPSConnection] = {}

    def request(
        method: str,
        path: str,
        body: Any = None,
        *,
        identity: Identity | None = ADMIN,
        content_type: str = "application/json",
        headers: dict[str, str] | None = None,
    ) -> Got:
        name = identity.name if identity else ""
        if name not in connections:
            connections[name] = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(identity), timeout=DEADLINE_S)
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        all_headers = {"content-type": content_type, **(headers or {})} if sent is not None else headers or {}
        connections[name].request(method, path, sent, all_headers)
        response = connections[name].getresponse()
        text = response.read()
        tree = json.loads(text) if text and (response.getheader("content-type") or "").startswith("application/json") else text
        return Got(response.status, tree, response.headers)

    yield request
    for connection in connections.values():
        connection.close()


class Kubectl:
    def __init__(self, server: ApiServer, home: Path) -> None:
        beside = Path(sys.executable).with_name("kubectl")
        self._program = str(beside) if beside.exists() else program("kubectl")
        self._environment = {**os.environ, "HOME": str(home), "KUBECONFIG": server.kubeconfig()}

    def __call__(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._program, *words], env=self._environment, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )


@pytest.fixture(scope="module")
def kubectl(server: ApiServer, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    return Kubectl(server, tmp_path_factory.mktemp("home"))


@pytest.fixture
def namespace(call: Call, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own."""
    name = request.node.name.split("[")[0].replace("_", "-").lower()[:63].rstrip("-")
    got = call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    assert got.status in (201, 409), got
    return name
