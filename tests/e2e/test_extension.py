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

def answer(review, host):
    request = review["request"]
    marks = [{"op": "add", "path": "/metadata/annotations", "value": {"seen": host}}]
    answer = {"uid": request["uid"], "allowed": request["object"]["metadata"]["name"] != "bad", "status": {"message": "bad is bad"}}
    if answer["allowed"]:
        answer |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(marks).encode()).decode()}
    return answer
"""

CONVERTER = """
import http.server, json, ssl

def converted(tree, version):
    spec = tree["spec"]
    if version.endswith("/v1beta1"):
        spec["hostPort"] = "{}:{}".format(spec.pop("host"), spec.pop("port"))
    else:
        spec["host"], _, port = spec.pop("hostPort").partition(":")
        spec["port"] = int(port)
    return tree | {"apiVersion": version}

def answer(review, host):
    request = review["request"]
    made = [converted(one, request["desiredAPIVersion"]) for one in request["objects"]]
    return {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": made}
"""

SERVE = """
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said = {key: review[key] for key in ("apiVersion", "kind")}
        body = json.dumps(said | {"response": answer(review, self.headers["host"])}).encode()
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


def serve(cluster: Cluster, namespace: str, program: str) -> str:
    """Run a webhook as a Pod behind the Service ``hook``, and wait for it. Gives what to trust."""
    trusted, served = certificate(f"hook.{namespace}.svc")
    meta = {"name": "hook", "namespace": namespace}
    container = {"name": "c", "image": "podwire.dev/machine", "command": ["/usr/bin/python3", "/hook/serve.py"], "volumeMounts": [{"name": "v", "mountPath": "/hook"}]}  # fmt: skip
    apply(
        cluster,
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"tls.pem": served, "serve.py": program + SERVE}},
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
    return trusted


def stop(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("delete", "pod", "hook", "-n", namespace, "--grace-period=1")
    until(lambda: not any(one.get("endpoints") for one in cluster.get("endpointslices", "-n", namespace)["items"]), "no endpoint is left")


def test_a_webhook_in_a_pod_is_asked_over_the_wires(cluster: Cluster, namespace: str) -> None:
    trusted = serve(cluster, namespace, HOOK)
    meta = {"name": "hook", "namespace": namespace}
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
        stop(cluster, namespace)
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


def places(namespace: str, trusted: str, stored: str) -> dict[str, Any]:
    """Places say ``hostPort`` in v1beta1, ``host`` and ``port`` in v1. They are stored as ``stored``."""
    service = {"name": "hook", "namespace": namespace, "path": "/convert"}
    client = {"clientConfig": {"service": service, "caBundle": trusted}, "conversionReviewVersions": ["v1"]}
    fields = {"v1": {"host": {"type": "string"}, "port": {"type": "integer"}}, "v1beta1": {"hostPort": {"type": "string"}}}

    def version(name: str) -> dict[str, Any]:
        schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": fields[name]}}}
        columns = [{"name": key, "type": "string", "jsonPath": f".spec.{key}"} for key in fields[name]]
        return {"name": name, "served": True, "storage": name == stored, "schema": {"openAPIV3Schema": schema}, "additionalPrinterColumns": columns}  # fmt: skip

    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "places.convert.example.com"},
        "spec": {
            "group": "convert.example.com",
            "scope": "Namespaced",
            "names": {"plural": "places", "singular": "place", "kind": "Place"},
            "conversion": {"strategy": "Webhook", "webhook": client},
            "versions": [version("v1"), version("v1beta1")],
        },
    }


def test_a_program_in_a_pod_converts_objects(cluster: Cluster, namespace: str) -> None:
    """kubectl in both versions; the storage version changes, objects are migrated, and the program is no longer needed."""
    trusted, here = serve(cluster, namespace, CONVERTER), ("-n", namespace)
    group = "convert.example.com"

    def place(version: str, name: str, **spec: Any) -> dict[str, Any]:
        return {"apiVersion": f"{group}/{version}", "kind": "Place", "metadata": {"name": name, "namespace": namespace}, "spec": spec}

    apply(cluster, places(namespace, trusted, "v1beta1"))
    try:
        cluster.kubectl("wait", "--for=condition=Established", f"crd/places.{group}", "--timeout=60s")
        apply(cluster, place("v1beta1", "old", hostPort="a.example:80"), place("v1", "new", host="b.example", port=90))
        table = cluster.kubectl("get", f"places.v1beta1.{group}", *here).stdout.split()
        assert table == ["NAME", "HOSTPORT", "new", "b.example:90", "old", "a.example:80"]
        table = cluster.kubectl("get", "places", *here).stdout.split()  # the preferred version
        assert table == ["NAME", "HOST", "PORT", "new", "b.example", "90", "old", "a.example", "80"]
        # kubectl compares with the version that it reads, and changes what is stored in another.
        apply(cluster, place("v1", "old", host="a.example", port=81))
        assert cluster.get(f"places.v1beta1.{group}", "old", *here)["spec"] == {"hostPort": "a.example:81"}
        with_server = ("apply", "--server-side", "--field-manager=other", "-f", "-")
        refused = cluster.kubectl(*with_server, stdin=json.dumps(place("v1beta1", "old", hostPort="c:1")), status=None)
        assert "conflict" in refused.stderr
        cluster.kubectl(*with_server, "--force-conflicts", stdin=json.dumps(place("v1beta1", "old", hostPort="c:1")))
        assert cluster.get("places", "old", *here)["spec"] == {"host": "c", "port": 1}
        seen = cluster.kubectl("get", f"places.v1beta1.{group}", *here, "--watch", "--request-timeout=3s", status=None).stdout
        assert "c:1" in seen
        # Storage moves to v1: each object is written once as it is.
        apply(cluster, places(namespace, trusted, "v1"))
        assert cluster.get("crd", f"places.{group}")["status"]["storedVersions"] == ["v1beta1", "v1"]
        cluster.kubectl("replace", "-f", "-", stdin=json.dumps(cluster.get("places", *here)))
        stored = json.dumps({"status": {"storedVersions": ["v1"]}})
        cluster.kubectl("patch", "crd", f"places.{group}", "--subresource=status", "--type=merge", "-p", stored)
        stop(cluster, namespace)
        assert [one["spec"]["host"] for one in cluster.get("places", *here)["items"]] == ["b.example", "c"]
        silent = cluster.kubectl("get", f"places.v1beta1.{group}", *here, status=None)
        assert f"conversion webhook for {group}/v1, Kind=Place failed: " in silent.stderr
        assert 'no endpoints available for service "hook"' in silent.stderr
    finally:
        cluster.kubectl("delete", "crd", f"places.{group}", "--timeout=60s")
