"""An API server of one's own, for tests: its certificates, its process, its kubeconfigs.

``start(folder)`` serves on a free port of 127.0.0.1 until ``stop``. Usable in any test that needs a real API.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from podwire.cluster import credentials
from podwire.cluster.credentials import Identity
from podwire.cluster.paths import Paths

ADMIN = Identity("admin", "podwire-admin", ("system:masters",))
NODE = Identity("node/node-1", "system:node:node-1", ("system:nodes",))
CONTROLLER = Identity("controllers", "system:podwire:controllers", ("system:podwire:controllers",))
START_S = 20.0


@dataclass
class ApiServer:
    """A running server. ``kubeconfig(identity)`` is a path; ``context(identity)`` a TLS context for a Python client."""

    folder: Path
    port: int
    listener: socket.socket
    paths: Paths
    process: subprocess.Popen[bytes] | None = None
    options: dict[str, object] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def kubeconfig(self, identity: Identity = ADMIN) -> str:
        return str(self.paths.kubeconfig(identity.name))

    def context(self, identity: Identity | None = ADMIN) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=f"{self.paths.pki}/ca.crt")
        if identity is not None:
            import base64

            user = json.loads(Path(self.kubeconfig(identity)).read_text())["users"][0]["user"]
            pem = self.folder / f"{identity.name.replace('/', '-')}.pem"
            if not pem.exists():
                pem.write_bytes(b"".join(base64.b64decode(user[key]) for key in ("client-certificate-data", "client-key-data")))
            context.load_cert_chain(pem)
        return context

    def run(self) -> None:
        """Start the process and wait until it says that it is ready."""
        notify = self.folder / "notify"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(notify))
            ready.settimeout(START_S)
            descriptor = self.listener.fileno()
            with (self.folder / "apiserver.log").open("ab") as log:
                self.process = subprocess.Popen(
                    [
                        sys.executable,
                        "-m",
                        "podwire.apiserver.serve",
                        "--config",
                        str(self.folder / "config.json"),
                        "--fd",
                        str(descriptor),
                    ],
                    pass_fds=[descriptor],
                    env={**os.environ, "NOTIFY_SOCKET": str(notify)},
                    stdout=log,
                    stderr=log,
                )
            try:
                while b"READY=1" not in ready.recv(4096):
                    pass
            except TimeoutError:
                raise AssertionError(f"the API server did not start:\n{self.log()}") from None

    def log(self) -> str:
        return (self.folder / "apiserver.log").read_text()

    def kill(self) -> None:
        """End the process as a crash would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, limit_s: float = 10.0) -> int:
        """End the process as a supervisor does; give its status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the API server did not stop:\n{self.log()}") from None


def start(folder: Path, **options: object) -> ApiServer:
    """Make credentials in a short ``folder`` and start a server. ``options`` go into its configuration."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    paths = Paths(str(folder / "state"))
    names = ["127.0.0.1", "localhost", "kubernetes.default.svc"]
    credentials.ensure(paths, [ADMIN, NODE, CONTROLLER], server_names=names, server=f"https://127.0.0.1:{port}", cluster="test")
    config = {
        "database": str(folder / "api.sqlite"),
        "certificate": f"{paths.pki}/apiserver.crt",
        "key": f"{paths.pki}/apiserver.key",
        "clientCA": f"{paths.pki}/ca.crt",
        "serviceAccountKey": f"{paths.pki}/sa.key",
        **options,
    }
    (folder / "config.json").write_text(json.dumps(config))
    server = ApiServer(folder, port, listener, paths)
    server.run()
    return server
