"""Patches that leave no object of its kind are refused as upstream refuses them: status 422, in its words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podwire.apiserver.patch_refusals import printed

MERGE, STRATEGIC, JSON = "application/merge-patch+json", "application/strategic-merge-patch+json", "application/json-patch+json"
READ = "json: cannot unmarshal string into Go struct field"
COPIES, LABELS = {"spec": {"replicas": "three"}}, {"metadata": {"labels": "a"}}
CONTAINERS = {"spec": {"template": {"spec": {"containers": "x"}}}}
SET_COPIES = [{"op": "replace", "path": "/spec/replicas", "value": "three"}]


@pytest.fixture
def deployment(call: Any, namespace: str) -> str:
    where = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    call("POST", where, {"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}})
    return f"{where}/web"


@pytest.mark.parametrize(
    ("media", "patch", "why"),
    [
        (MERGE, COPIES, f"{READ} DeploymentSpec.spec.replicas of type int32"),
        (JSON, SET_COPIES, f"{READ} DeploymentSpec.spec.replicas of type int32"),
        (STRATEGIC, COPIES, "unrecognized type: int32"),
        (STRATEGIC, CONTAINERS, "cannot restore slice from string"),
        (STRATEGIC, LABELS, "cannot restore map from string"),
        (STRATEGIC, {"spec": {"strategy": 1}}, "cannot restore struct from: int64"),
    ],
)
def test_a_value_of_another_type(call: Any, deployment: str, media: str, patch: Any, why: str) -> None:
    got = call("PATCH", deployment, patch, content_type=media)
    assert (got.status, got.tree["reason"]) == (422, "Invalid"), got
    message = got.tree["message"]
    assert message.startswith(' "" is invalid: patch: Invalid value: "')
    assert message.endswith(f'": {why}')
    assert got.tree["details"]["causes"][0]["field"] == "patch"
    value = json.loads(message.removeprefix(' "" is invalid: patch: Invalid value: ').removesuffix(f": {why}"))
    if media == STRATEGIC:
        assert value == printed(patch)
    else:
        assert json.loads(value)["spec"]["replicas"] == "three"
        assert json.loads(value)["kind"] == "Deployment"


@pytest.mark.parametrize(
    ("media", "patch"),
    [(MERGE, {"spec": {"copies": 1}}), (STRATEGIC, {"spec": {"copies": 1}}), (JSON, [{"op": "add", "path": "/spec/copies", "value": 1}])],
)
def test_fields_that_there_are_not(call: Any, deployment: str, media: str, patch: Any) -> None:
    strict = call("PATCH", f"{deployment}?fieldValidation=Strict", patch, content_type=media)
    assert (strict.status, strict.tree["reason"]) == (422, "Invalid")
    assert strict.tree["message"].endswith('": strict decoding error: unknown field "spec.copies"')
    assert "copies" in strict.tree["message"].split('": strict')[0]
    warned = call("PATCH", deployment, patch, content_type=media)
    assert (warned.status, warned.headers.get_all("warning")) == (200, ['299 - "unknown field \\"spec.copies\\""'])


@pytest.mark.parametrize(
    ("media", "body", "found", "wanted"),
    [
        (JSON, b' {"op": "add"}', "object", "[]interface {}"),
        (MERGE, b"[]", "array", "map[string]interface {}"),
        (STRATEGIC, b'"a"', "string", "map[string]interface {}"),
        (MERGE, b"5", "number", "map[string]interface {}"),
        (MERGE, b"true", "bool", "map[string]interface {}"),
    ],
)
def test_what_is_no_patch_at_all(call: Any, deployment: str, media: str, body: bytes, found: str, wanted: str) -> None:
    got = call("PATCH", deployment, body, content_type=media)
    told = f"error decoding patch: json: cannot unmarshal {found} into Go value of type {wanted}"
    assert (got.status, got.tree["message"]) == (400, told)


def test_an_element_without_its_key(call: Any, deployment: str) -> None:
    patch = {"spec": {"template": {"spec": {"containers": [{"image": "x"}]}}}}
    got = call("PATCH", deployment, patch, content_type=STRATEGIC)
    assert (got.status, got.tree["message"]) == (400, "map: map[image:x] does not contain declared merge key: name")


def test_trees_are_printed_as_go_prints_them() -> None:
    assert printed({"b": [1, "x", None], "a": {"t": True, "f": 1.5}}) == "map[a:map[f:1.5 t:true] b:[1 x <nil>]]"
