"""Custom objects with rules, created over HTTPS: a part of ``api-auth``.

``crd_create_per_s``: objects of a kind that is defined through the API, with a schema, defaults and CEL rules, created by 32 clients, each
of which waits for its answer, so that what is counted is on disk.

It is proved that all objects are there, that defaults are filled in, and that an object that breaks a rule is refused.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import orjson

from bench.api import call, count
from bench.https_client import drive, on_a_loop, request
from tests.running_apiserver import ApiServer, start

COUNT = 6000
PARTS = 4
CREATORS = 32
GROUP = "gates.example.com"
OBJECTS = f"/apis/{GROUP}/v1/namespaces/default/gates"

_BACKEND = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "maxLength": 253, "minLength": 1, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
        "port": {"type": "integer", "minimum": 1, "maximum": 65535, "default": 80},
        "weight": {"type": "integer", "minimum": 0, "maximum": 1000000, "default": 1},
    },
}
_SPEC = {
    "type": "object",
    "required": ["hostnames"],
    "properties": {
        "hostnames": {"type": "array", "maxItems": 16, "items": {"type": "string", "maxLength": 253}, "x-kubernetes-list-type": "set"},
        "protocol": {"type": "string", "enum": ["HTTP", "HTTPS"], "default": "HTTP"},
        "tls": {"type": "object", "properties": {"mode": {"type": "string"}}},
        "backends": {
            "type": "array",
            "maxItems": 16,
            "items": _BACKEND,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-validations": [{"rule": "self.exists(b, b.weight > 0)", "message": "one backend has a weight"}],
        },
    },
    "x-kubernetes-validations": [
        {"rule": "self.protocol == 'HTTPS' || !has(self.tls)", "message": "tls goes with HTTPS"},
        {"rule": "self.hostnames.all(h, !h.startsWith('.') && h.lowerAscii() == h)", "message": "hostnames are in lower case"},
    ],
}
_SCHEMA = {"type": "object", "properties": {"spec": _SPEC}}
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"gates.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "gates", "kind": "Gate"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": _SPEC}}},
            }
        ],
    },
}


def gate(number: int, **more: object) -> bytes:
    backends = [{"name": f"backend-{one}", "port": 8080, "weight": one} for one in range(1, 4)] + [{"name": "spare"}]
    spec = {"hostnames": [f"shop-{number}.example.com", "www.example.com"], "backends": backends, **more}
    metadata = {"name": f"gate-{number:05}", "labels": {"app": "shop", "tier": "edge"}}
    return orjson.dumps({"apiVersion": f"{GROUP}/v1", "kind": "Gate", "metadata": metadata, "spec": spec})


def create(server: ApiServer) -> list[float]:
    """Create the objects, in parts; the rate of each."""
    call(server, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", orjson.dumps(DEFINITION), 201)
    rates = []
    part = COUNT // PARTS
    for first in range(0, COUNT, part):
        requests = [request("POST", OBJECTS, gate(number)) for number in range(first, first + part)]
        rates.append(part / on_a_loop(drive(server.port, server.context(), requests, CREATORS, 201)))
    _prove(server)
    return rates


def _prove(server: ApiServer) -> None:
    if count(server, OBJECTS) != COUNT:
        raise SystemExit("not all objects that were created are there")
    spec = orjson.loads(call(server, "GET", f"{OBJECTS}/gate-00000"))["spec"]
    if spec["protocol"] != "HTTP" or spec["backends"][3] != {"name": "spare", "port": 80, "weight": 1}:
        raise SystemExit(f"defaults are not filled in: {spec}")
    refused = orjson.loads(call(server, "POST", OBJECTS, gate(COUNT, tls={"mode": "Terminate"}), 422))
    if "tls goes with HTTPS" not in refused["message"]:
        raise SystemExit(f"a rule is not put: {refused}")


def measure() -> dict[str, list[float]]:
    """Give the samples."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        server = start(Path(folder))
        try:
            return {"crd_create_per_s": create(server)}
        finally:
            server.stop()
            server.listener.close()


if __name__ == "__main__":
    print(measure())
