"""Kinds of one's own and webhooks, as an operator brings them: with the garbage collector, the end of a Namespace and a server in a Pod."""

# ruff: noqa: E501 (objects are read better in one line)

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from e2e.lab import Cluster, until

HOOK = """
import base64, http.server, json, ssl

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))["request"]
        marks = [{"op": "add", "path": "/metadata/annotations", "value": {"seen": self.headers["host"]}}]
        answer = {"uid": request["uid"], "allowed": request["object"]["metadata"]["name"] != "bad", "status": {"message": "bad is bad"}}
        if answer["allowed"]:
            answer |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(marks).encode()).decode()}
        body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

server = http.server.ThreadingHTTPServer(("0.0.0.0", 8443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/hook/tls.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "extension-" + request.function.__name__.replace("_", "-")[:20].rstrip("-")
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--timeout=60s", "--ignore-not-found")


def certificate(name: str) -> tuple[str, str]:
    """Make a certificate that is its own authority: what to trust, and what to serve with."""
    key = ec.generate_private_key(ec.SECP256R1())
    named = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(named, named, key.public_key(), 1, now - timedelta(hours=1), now + timedelta(hours=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
    made = builder.add_extension(x509.BasicConstraints(True, None), True).sign(key, hashes.SHA256())
    pem = made.public_bytes(serialization.Encoding.PEM)
    kept = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return base64.b64encode(pem).decode(), (pem + kept).decode()


def apply(cluster: Cluster, *trees: dict[str, Any]) -> None:
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": trees}))


def test_a_webhook_in_a_pod_is_asked_over_the_wires(cluster: Cluster, namespace: str) -> None:
    trusted, served = certificate(f"hook.{namespace}.svc")
    meta = {"name": "hook", "namespace": namespace}
    container = {"name": "c", "image": "podwire.dev/machine", "command": ["/usr/bin/python3", "/hook/serve.py"], "volumeMounts": [{"name": "v", "mountPath": "/hook"}]}  # fmt: skip
    apply(
        cluster,
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"tls.pem": served, "serve.py": HOOK}},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**meta, "labels": {"app": "hook"}},
            "spec": {
                "containers": [container | {"readinessProbe": {"tcpSocket": {"port": 8443}}}],
                "volumes": [{"name": "v", "secret": {"secretName": "hook"}}],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"selector": {"app": "hook"}, "ports": [{"port": 443, "targetPort": 8443}]},
        },
    )
    cluster.kubectl("wait", "--for=condition=Ready", "pod/hook", "-n", namespace, "--timeout=60s")
    until(
        lambda: any(one.get("endpoints") for one in cluster.get("endpointslices", "-n", namespace)["items"]), "the Service has an endpoint"
    )
    webhook = {
        "name": "hook.extension.example.com",
        "clientConfig": {"service": {**meta, "path": "/ask"}, "caBundle": trusted},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    kind = "MutatingWebhookConfiguration"
    apply(
        cluster, {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "extension"}, "webhooks": [webhook]}
    )
    try:
        cluster.kubectl("create", "configmap", "good", "-n", namespace)
        assert cluster.get("configmap", "good", "-n", namespace)["metadata"]["annotations"] == {"seen": f"hook.{namespace}.svc:443"}
        refused = cluster.kubectl("create", "configmap", "bad", "-n", namespace, status=None)
        assert refused.returncode == 1
        assert 'admission webhook "hook.extension.example.com" denied the request: bad is bad' in refused.stderr
        cluster.kubectl("delete", "pod", "hook", "-n", namespace, "--grace-period=1")
        until(
            lambda: not any(one.get("endpoints") for one in cluster.get("endpointslices", "-n", namespace)["items"]), "no endpoint is left"
        )
        silent = cluster.kubectl("create", "configmap", "other", "-n", namespace, status=None)
        assert 'failed calling webhook "hook.extension.example.com"' in silent.stderr
        assert 'no endpoints available for service "hook"' in silent.stderr
    finally:
        cluster.kubectl("delete", kind, "extension")


def test_what_belongs_to_a_defined_kind_goes_with_it(cluster: Cluster, namespace: str) -> None:
    """GKE's own definitions: an object owns others, and a Namespace of them ends."""
    here = ("-n", namespace)
    owner = {
        "apiVersion": "cloud.google.com/v1",
        "kind": "BackendConfig",
        "metadata": {"name": "a", "namespace": namespace},
        "spec": {"timeoutSec": 40},
    }
    apply(cluster, owner)
    uid = cluster.get("backendconfig", "a", *here)["metadata"]["uid"]
    reference = {"apiVersion": "cloud.google.com/v1", "kind": "BackendConfig", "name": "a", "uid": uid}
    owned = {"name": "owned", "namespace": namespace, "ownerReferences": [reference]}
    apply(cluster, {"apiVersion": "networking.gke.io/v1beta1", "kind": "FrontendConfig", "metadata": owned, "spec": {"sslPolicy": "x"}})
    cluster.kubectl("delete", "backendconfig", "a", *here)
    until(lambda: not cluster.get("frontendconfig", *here)["items"], "what it owned has gone")
    apply(cluster, owner)
    cluster.kubectl("delete", "namespace", namespace, "--timeout=60s")
