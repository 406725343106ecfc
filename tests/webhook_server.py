"""A program of a user's, for tests: a webhook that is reached at 127.0.0.1 over HTTPS, with a certificate of its own.

``answers[PATH]`` makes a response of a request; what it leaves out (the uid) is filled in. What was asked is kept in ``asked``.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Tree = dict[str, Any]


class Webhook:
    """It serves from the start until ``close``. ``bundle`` is what to trust, as configurations have it."""

    def __init__(self, folder: Path) -> None:
        self.asked: list[Tree] = []
        self.answers: dict[str, Callable[[Tree], Tree]] = {}
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["content-length"])))
                request, path = review["request"], self.path.split("?")[0]
                webhook.asked.append({**request, "path": path})
                response = webhook.answers[path](request)
                if "raw" in response:  # the code and the body of the whole answer
                    self._send(*response["raw"])
                    return
                said = {key: review[key] for key in ("apiVersion", "kind")} | response.pop("review", {})
                body = json.dumps(said | {"response": {"uid": request["uid"], **response}}).encode()
                self._send(200, body)

            def _send(self, code: int, body: bytes) -> None:
                self.send_response(code)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return None

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.bundle = self._certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "hook.pem")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def _certificate(self, folder: Path) -> str:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "hook")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), False)
            .add_extension(x509.BasicConstraints(True, None), True)
            .sign(key, hashes.SHA256())
        )
        pem = certificate.public_bytes(serialization.Encoding.PEM)
        kept = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / "hook.pem").write_bytes(pem + kept)
        return base64.b64encode(pem).decode()

    def url(self, place: str) -> str:
        return f"https://127.0.0.1:{self.server.server_address[1]}{place}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
