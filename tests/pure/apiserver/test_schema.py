"""Written objects are brought into shape, and refused in the words of Kubernetes' decoder."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from podwire.apiserver import definitions, openapi, quantity, schema
from podwire.apiserver.registry import REGISTRY, Kind

MANIFESTS = Path(__file__).parents[4] / "shared" / "manifests" / "online-boutique"


def kind(plural: str) -> Kind:
    return next(one for one in REGISTRY if one.plural == plural)


def test_every_kind_has_a_schema_that_compiles() -> None:
    for one in REGISTRY:
        tree: dict[str, Any] = {"metadata": {"name": "x"}}
        assert schema.prune_and_check(one, tree) == []
        if one.custom is not None:  # a kind that carries its own schema
            assert one.custom.openapi
            continue
        marks = definitions.definition(one.definition)["x-kubernetes-group-version-kind"]
        assert {"group": one.group, "version": one.version, "kind": one.kind} in marks


def test_real_manifests_pass_unchanged() -> None:
    served = 0
    for path in sorted(MANIFESTS.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            found = REGISTRY.find_kind(document["apiVersion"], document["kind"]) if document else None
            if found is not None:
                before = copy.deepcopy(document)
                assert schema.prune_and_check(found, document) == []
                assert document == before
                served += 1
    assert served >= 30


@pytest.mark.parametrize(
    ("plural", "tree", "message"),
    [
        (
            "deployments",
            {"spec": {"replicas": "3"}},
            'Deployment in version "v1" cannot be handled as a Deployment: json: cannot unmarshal string into Go struct field '
            "DeploymentSpec.spec.replicas of type int32",
        ),
        ("deployments", {"spec": {"replicas": 2**31}}, "number 2147483648 into Go struct field DeploymentSpec.spec.replicas of type int32"),
        ("deployments", {"spec": {"replicas": 1.5}}, "number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"),
        ("deployments", {"spec": {"replicas": True}}, "bool into Go struct field DeploymentSpec.spec.replicas of type int32"),
        ("deployments", {"spec": []}, "array into Go struct field Deployment.spec of type v1.DeploymentSpec"),
        (
            "deployments",
            {"spec": {"template": {"spec": {"containers": [{"env": [{"name": "A", "value": 5}]}]}}}},
            "number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        ("services", {"spec": {"ports": [{"port": "http"}]}}, "string into Go struct field ServicePort.spec.ports.port of type int32"),
        ("services", {"spec": {"ports": {}}}, "object into Go struct field ServiceSpec.spec.ports of type []v1.ServicePort"),
        ("services", {"spec": {"type": 1}}, "number into Go struct field ServiceSpec.spec.type of type v1.ServiceType"),
        ("services", {"metadata": {"labels": {"a": 1}}}, "number into Go struct field ObjectMeta.metadata.labels of type string"),
        ("configmaps", {"data": ["a"]}, "array into Go struct field ConfigMap.data of type map[string]string"),
        ("secrets", {"data": {"a": "!"}}, "illegal base64 data at input byte 0"),
        ("secrets", {"data": {"a": "YWJj="}}, "illegal base64 data"),
        ("pods", {"metadata": {"creationTimestamp": "yesterday"}}, 'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00"'),
        (
            "pods",
            {"spec": {"containers": [{"resources": {"limits": {"cpu": "a lot"}}}]}},
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        ("forwardingrules", {"spec": {"ports": ["80"]}}, "string into Go struct field ForwardingRuleSpec.spec.ports of type int32"),
    ],
)
def test_values_of_a_wrong_type(plural: str, tree: dict[str, Any], message: str) -> None:
    with pytest.raises(schema.Mistyped) as raised:
        schema.prune_and_check(kind(plural), tree)
    assert message in str(raised.value)


def test_unknown_fields_fall_out_and_are_named() -> None:
    tree = {"spec": {"foo": 1, "template": {"spec": {"containers": [{"name": "a"}, {"name": "b", "imagee": "x"}]}}}, "sepc": {}}
    unknown = schema.prune_and_check(kind("deployments"), tree)
    assert unknown == ['unknown field "spec.foo"', 'unknown field "spec.template.spec.containers[1].imagee"', 'unknown field "sepc"']
    assert tree == {"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}}, "metadata": {}}
    assert schema.strict_message(kind("deployments"), unknown[:2]) == (
        'Deployment in version "v1" cannot be handled as a Deployment: strict decoding error: unknown field "spec.foo", '
        'unknown field "spec.template.spec.containers[1].imagee"'
    )


def test_nulls_and_empty_lists_and_maps_are_absent() -> None:
    tree = {
        "metadata": {"name": "x", "creationTimestamp": None, "labels": {}, "annotations": {"a": None}},
        "spec": {"ports": [], "selector": {"app": "web"}, "clusterIP": None, "sessionAffinityConfig": {"clientIP": {}}},
    }
    schema.prune_and_check(kind("services"), tree)
    assert tree == {
        "metadata": {"name": "x", "annotations": {"a": ""}},
        "spec": {"selector": {"app": "web"}, "sessionAffinityConfig": {"clientIP": {}}},
    }


def test_objects_without_fields_stay() -> None:
    tree = {"metadata": {}, "spec": {"volumes": [{"name": "a", "emptyDir": {}}], "containers": [None]}}
    schema.prune_and_check(kind("pods"), tree)
    assert tree["spec"] == {"volumes": [{"name": "a", "emptyDir": {}}], "containers": [{}]}


def test_numbers_or_text() -> None:
    tree = {"metadata": {}, "spec": {"ports": [{"targetPort": 80}, {"targetPort": "http"}]}}
    assert schema.prune_and_check(kind("services"), tree) == []
    container = {"resources": {"limits": {"cpu": 0.5, "memory": "1024Mi"}, "requests": {"cpu": 2}}}
    schema.prune_and_check(kind("pods"), {"spec": {"containers": [container]}})
    assert container == {"resources": {"limits": {"cpu": "500m", "memory": "1Gi"}, "requests": {"cpu": "2"}}}


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        *(("0", "0"), ("1", "1"), ("1.0", "1"), ("0.5", "500m"), ("1000m", "1"), ("1500m", "1500m"), (".5", "500m"), ("1n", "1n")),
        *(("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("1024", "1024"), ("1024Ki", "1Mi"), ("100Mi", "100Mi"), ("1000Ki", "1000Ki")),
        *(("1000k", "1M"), ("2e3", "2e3"), ("12e6", "12e6"), ("1E", "1E"), ("1Ei", "1Ei"), ("-5", "-5"), ("0.0000000001", "1n")),
    ],
)
def test_quantities_have_one_form(text: str, canonical: str) -> None:
    assert quantity.canonical(text) == canonical
    assert quantity.canonical(canonical) == canonical
    assert quantity.value(text) <= quantity.value(canonical)


@pytest.mark.parametrize("text", ["", "a", "1 ", "1MB", "1e", "--1", "1.2.3", "Mi"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(quantity.Malformed):
        quantity.value(text)


def _references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(_references(value) for value in node.values()))
    return set().union(*(_references(value) for value in node)) if isinstance(node, list) else set()


def _nulls(node: Any) -> bool:
    if isinstance(node, dict):
        return isinstance(node.get("type"), list) or any(_nulls(value) for value in node.values())
    return isinstance(node, list) and any(_nulls(value) for value in node)


def test_openapi_documents_are_whole() -> None:
    index = orjson.loads(openapi.index(REGISTRY))["paths"]
    assert index["api/v1"]["serverRelativeURL"].startswith("/openapi/v3/api/v1?hash=")
    for group, versions in REGISTRY.groups().items():
        for version in versions:
            assert openapi.place(group, version) in index
            document = orjson.loads(openapi.openapi(REGISTRY, group, version))
            schemas = document["components"]["schemas"]
            assert _references(document) <= {"#/components/schemas/" + name for name in schemas}
            assert not _nulls(schemas)
    patch = orjson.loads(openapi.openapi(REGISTRY, "apps", "v1"))["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"][
        "patch"
    ]
    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert "fieldValidation" in {parameter["name"] for parameter in patch["parameters"]}


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [
        operation["operationId"]
        for group, versions in REGISTRY.groups().items()
        for version in versions
        for path in orjson.loads(openapi.openapi(REGISTRY, group, version))["paths"].values()
        for verb, operation in path.items()
        if verb != "parameters"
    ]
    assert len(names) == len(set(names))


def test_a_spec_seen_before_is_judged_as_at_first() -> None:
    pods = REGISTRY.find("", "v1", "pods")
    assert pods is not None
    filled = {"containers": [{"name": "c", "image": "i", "args": ["a" * 600]}]}
    for _ in range(2):
        tree = {"metadata": {"name": "a", "odd": 1}, "spec": copy.deepcopy(filled)}
        assert schema.prune_and_check(pods, tree) == ['unknown field "metadata.odd"']
        assert tree == {"metadata": {"name": "a"}, "spec": filled}
    for _ in range(2):
        wrong = {"metadata": {}, "spec": copy.deepcopy(filled) | {"colour": "red"}}
        assert schema.prune_and_check(pods, wrong) == ['unknown field "spec.colour"']
    deployments = REGISTRY.find("apps", "v1", "deployments")
    assert deployments is not None
    assert schema.prune_and_check(deployments, {"metadata": {}, "spec": copy.deepcopy(filled)}) == ['unknown field "spec.containers"']
    for _ in range(2):
        spec = {"containers": [{"name": "c", "image": "i", "args": ["a" * 600], "ports": [{"containerPort": 99999, "protocol": "TCP"}]}]}
        errors = pods.validate({"spec": spec}, None)
        assert any(error.field == "spec.containers[0].ports[0].containerPort" for error in errors)
