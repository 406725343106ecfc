"""Kubernetes' protobuf bodies: every field has a number, what is encoded is what comes out, and no bytes do harm."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from podwire.apiserver import protobuf_fields
from podwire.apiserver.definitions import INT_OR_STRING, MICRO_TIME, QUANTITY, TIME, definition, plain_type, referenced
from podwire.apiserver.protobuf import DEPTH, Malformed, NotEncoded, decode
from podwire.apiserver.registry import REGISTRY

Tree = dict[str, Any]
CRD = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
OWN_WAY = {TIME, MICRO_TIME, QUANTITY, INT_OR_STRING, "io.k8s.apimachinery.pkg.runtime.RawExtension"}
OWN_WAY |= {"io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1", CRD + "JSON"}
OWN_WAY |= {f"{CRD}JSONSchemaPropsOr{what}" for what in ("Bool", "Array", "StringArray")}
# Younger than the table, and told by kubelets in JSON.
UNNUMBERED = {("io.k8s.api.core.v1.NodeSystemInfo", "runningInUserNamespace")}

# An encoder, the plain way round --------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def body(api_version: str, kind: str, raw: bytes) -> bytes:
    return b"k8s\0" + field(1, field(1, api_version.encode()) + field(2, kind.encode())) + field(2, raw) + field(3, b"") + field(4, b"")


def encoded(tree: Tree) -> bytes:
    kind = REGISTRY.find_kind(tree["apiVersion"], tree["kind"])
    assert kind is not None
    return body(tree["apiVersion"], tree["kind"], message(kind.definition, kind.definition, tree))


def message(name: str, owner: str, tree: Tree) -> bytes:
    """Encode a tree as a message. Fields that the message does not have are another's."""
    numbered, properties = protobuf_fields.fields(name), definition(owner)["properties"]
    assert numbered is not None
    out = b""
    for number, one in numbered.items():
        if one.inline:
            out += field(number, message(one.inline, owner, tree))
        elif one.name in tree:
            out += several(number, properties[one.name], tree[one.name])
    return out


def several(number: int, schema: Tree, value: Any) -> bytes:
    if not referenced(schema) and plain_type(schema) == "array":
        return b"".join(several(number, schema["items"], one) for one in value)
    if not referenced(schema) and plain_type(schema) == "object" and "additionalProperties" in schema:
        entries = ((field(1, key.encode()) + several(2, schema["additionalProperties"], one)) for key, one in value.items())
        return b"".join(field(number, entry) for entry in entries)
    return varint(number << 3 | 1) + struct.pack("<d", value) if plain_type(schema) == "number" else field(number, single(schema, value))


def single(schema: Tree, value: Any) -> bytes | int:
    target = referenced(schema)
    if target in (TIME, MICRO_TIME):
        moment = datetime.fromisoformat(value)
        return field(1, int(moment.timestamp())) + field(2, moment.microsecond * 1000)
    if target == QUANTITY:
        return field(1, value.encode())
    if target == INT_OR_STRING:
        return field(1, 0) + field(2, value) if isinstance(value, int) else field(1, 1) + field(3, value.encode())
    if target in OWN_WAY:
        return field(1, json.dumps(value).encode())
    if target:
        return message(target, target, value)
    if isinstance(value, str):
        return base64.b64decode(value) if schema.get("format") == "byte" else value.encode()
    return int(value)


POD: Tree = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "web",
        "namespace": "shop",
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "labels": {"app": "web", "empty": ""},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "u", "controller": True}],
        "managedFields": [{"manager": "m", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:a": {}}}}],
    },
    "spec": {
        "volumes": [
            {"name": "data", "emptyDir": {"sizeLimit": "1Gi"}},
            {
                "name": "all",
                "projected": {"sources": [{"secret": {"name": "s", "items": [{"key": "k", "path": "p"}]}}], "defaultMode": 420},
            },
            {"name": "config", "configMap": {"name": "c", "optional": False}},
        ],
        "containers": [
            {
                "name": "web",
                "image": "example/web:1",
                "command": ["/web", "-v"],
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
                    {"name": "C", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                ],
                "envFrom": [{"prefix": "X_", "configMapRef": {"name": "c"}}],
                "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
                "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 3},
                "livenessProbe": {"tcpSocket": {"port": 8080}, "failureThreshold": 2},
                "lifecycle": {"preStop": {"exec": {"command": ["sleep", "1"]}}},
                "securityContext": {"runAsUser": 0, "privileged": False, "capabilities": {"add": ["NET_ADMIN"]}},
            }
        ],
        "nodeSelector": {"disk": "ssd"},
        "terminationGracePeriodSeconds": 0,
        "enableServiceLinks": False,
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a", "b"]}],
        "securityContext": {"supplementalGroups": [1, 2, 300], "fsGroup": -1},
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}},
        "tolerations": [{"operator": "Exists", "tolerationSeconds": 300}],
        "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]},
    },
    "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "1969-12-31T23:59:59Z"}]},
}
OBJECTS: list[Tree] = [
    POD,
    {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"a": "AP8=", "b": ""}, "immutable": False},
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p"},
        "spec": {
            "podSelector": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": 80, "endPort": 90}]}],
        },
    },
    {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "l"},
        "spec": {"holderIdentity": "me", "renewTime": "2026-01-02T03:04:05.678901Z", "leaseTransitions": 0},
    },
    {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 0,
            "paused": True,
            "selector": {"matchLabels": {"a": "b"}},
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i", "resources": {}}]}},
        },
    },
]


@pytest.mark.parametrize("tree", OBJECTS, ids=lambda tree: tree["kind"])
def test_an_object_comes_out_as_it_was_encoded(tree: Tree) -> None:
    assert decode(encoded(tree)) == tree


def definitions_of(name: str, seen: dict[str, Tree]) -> Iterator[tuple[str, Tree]]:
    if name in seen or name in OWN_WAY:
        return
    seen[name] = definition(name)
    yield name, seen[name]
    for schema in seen[name].get("properties", {}).values():
        while not referenced(schema) and ("items" in schema or "additionalProperties" in schema):
            schema = schema.get("items") or schema["additionalProperties"]
        if target := referenced(schema):
            yield from definitions_of(target, seen)


def names_in(name: str) -> set[str]:
    found = protobuf_fields.fields(name)
    assert found is not None, f"{name} has no numbers"
    return {one.name for one in found.values() if not one.inline}.union(*(names_in(one.inline) for one in found.values() if one.inline))


def test_every_field_of_every_kind_has_a_number() -> None:
    kinds = [kind.definition for kind in REGISTRY if kind.custom is None and kind.definition.startswith("io.k8s.")]
    seen: dict[str, Tree] = {}
    missing = {
        (name, one)
        for kind in kinds
        for name, schema in definitions_of(kind, seen)
        for one in schema.get("properties", {}).keys() - names_in(name) - {"apiVersion", "kind"}
    }
    assert missing == UNNUMBERED


def test_a_zero_that_was_not_written_is_absent_and_one_that_was_stays() -> None:
    container = field(1, b"c") + field(2, b"") + field(16, 0)
    spec = field(2, container) + field(3, b"") + field(4, 0) + field(11, 0)
    tree = decode(body("v1", "Pod", field(1, field(1, b"p") + field(8, b"")) + field(2, spec) + field(3, b"")))
    assert tree["metadata"] == {"name": "p"}
    assert tree["spec"] == {"containers": [{"name": "c"}], "terminationGracePeriodSeconds": 0}


def test_a_message_in_two_pieces_is_one_and_unknown_fields_are_passed_over() -> None:
    raw = field(1, field(1, b"c")) + field(1, field(3, b"n")) + field(900, b"future") + field(901, 7) + varint(902 << 3 | 5) + b"1234"
    assert decode(body("v1", "ConfigMap", raw)) == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"}}


def test_delete_options_of_any_group() -> None:
    raw = field(1, 0) + field(2, field(1, b"u")) + field(4, b"Foreground")
    wanted = {"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "propagationPolicy": "Foreground"}
    for version in ("v1", "apps/v1"):
        assert decode(body(version, "DeleteOptions", raw)) == {"apiVersion": version, "kind": "DeleteOptions", **wanted}


def test_free_json_and_wrapped_lists() -> None:
    extra = field(5, field(1, b"scopes") + field(2, field(1, b"a") + field(1, b"b")))
    tree = decode(body("authorization.k8s.io/v1", "SubjectAccessReview", field(2, extra)))
    assert tree["spec"] == {"extra": {"scopes": ["a", "b"]}}


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"", "prefix"),
        (b'{"kind":"Pod"}', "prefix"),
        (b"k8s\0", "'Kind' is missing"),
        (b"k8s\0\x0a", "unexpected end"),
        (body("v1", "Pod", b"\x0a\xff\x01"), "unexpected end"),
        (body("v1", "Pod", b"\xff" * 11), "number is too long"),
        (body("v1", "Pod", b"\x02\x00"), "number 0"),
        (body("v1", "Pod", b"\x0b"), "wire type 3"),
        (body("v1", "Pod", field(1, 7)), "a number stands"),
        (body("v1", "Pod", field(2, field(4, b"x"))), "a number is expected"),
        (body("v1", "Pod", field(1, field(1, b"\xff"))), "not UTF-8"),
        (body("v1", "Pod", field(1, field(8, field(1, 1 << 60)))), "time is out of range"),
        (body("v1", "Pod", field(1, field(17, field(7, field(1, b"{"))))), "JSON in the body"),
        (b"k8s\0" + field(1, field(1, b"v1") + field(2, b"Pod")) + field(3, b"gzip"), "encoded as gzip"),
    ],
)
def test_what_is_malformed_is_told(sent: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        decode(sent)


def test_a_kind_without_an_encoding() -> None:
    with pytest.raises(NotEncoded, match='no kind "Sheep" is registered for version "farm/v1"'):
        decode(body("farm/v1", "Sheep", b""))
    with pytest.raises(NotEncoded, match="ForwardingRule"):
        decode(body("compute.podwire.dev/v1", "ForwardingRule", b""))


def test_messages_without_end() -> None:
    raw = b""
    for _ in range(DEPTH + 1):
        raw = field(28, raw)  # not: {not: {not: ...}}
    version = field(1, b"v1") + field(4, field(1, raw))
    with pytest.raises(Malformed, match="nested too deeply"):
        decode(body("apiextensions.k8s.io/v1", "CustomResourceDefinition", field(2, field(7, version))))


def harmless(sent: bytes) -> None:
    try:
        tree = decode(sent)
    except (Malformed, NotEncoded):
        return
    json.dumps(tree, allow_nan=False)


@given(st.sampled_from(["Pod", "Service", "Secret", "Node", "DeleteOptions", "Event"]), st.binary(max_size=200))
def test_random_bytes_do_no_harm(kind: str, raw: bytes) -> None:
    harmless(raw)
    harmless(b"k8s\0" + raw)
    harmless(body("v1", kind, raw))


@settings(max_examples=300)
@given(st.sampled_from([encoded(tree) for tree in OBJECTS]), st.data())
def test_mutated_bodies_do_no_harm(sent: bytes, data: st.DataObject) -> None:
    changed = bytearray(sent)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(4, len(changed) - 1))
        match data.draw(st.integers(0, 2)):
            case 0:
                changed[at] = data.draw(st.integers(0, 255))
            case 1:
                del changed[at : at + data.draw(st.integers(1, 20))]
                changed += b"\0" * (5 - len(changed))
            case _:
                changed[at:at] = data.draw(st.binary(max_size=8))
    harmless(bytes(changed))
