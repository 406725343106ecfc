"""Kinds that are defined through the API, over HTTPS: served at once, checked, printed, changed, deleted."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest

from running_apiserver import CONTROLLER

Tree = dict[str, Any]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
DEADLINE_S = 20.0

SCHEMA: Tree = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "required": ["size"],
            "properties": {
                "size": {"type": "integer", "minimum": 1, "maximum": 5},
                "color": {"type": "string", "default": "red", "enum": ["red", "blue"], "pattern": "^[a-z]+$"},
                "port": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                "note": {"type": "string", "nullable": True},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "parts": {
                    "type": "array",
                    "maxItems": 3,
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": {"type": "string"}, "weight": {"type": "integer", "default": 1}},
                    },
                },
                "when": {"type": "string", "format": "date-time"},
                "replicas": {"type": "integer"},
            },
        },
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}}},
    },
}


def definition(plural: str, group: str, schema: Tree = SCHEMA, **version: Any) -> Tree:
    kind = plural[:-1].capitalize()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "shortNames": [plural[:2] + "x"], "categories": ["all"]},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **version}],
        },
    }


def thing(name: str, group: str, kind: str = "Widget", version: str = "v1", **spec: Any) -> Tree:
    return {"apiVersion": f"{group}/{version}", "kind": kind, "metadata": {"name": name}, "spec": spec}


def until(call: Any, path: str, wanted: Any) -> Tree:
    end = time.monotonic() + DEADLINE_S
    while True:
        got = call("GET", path)
        if wanted(got):
            return got.tree
        assert time.monotonic() < end, got.tree
        time.sleep(0.02)


def condition(tree: Tree, kind: str) -> tuple[str, str, str]:
    return next(
        ((one["status"], one["reason"], one["message"]) for one in tree["status"].get("conditions", ()) if one["type"] == kind),
        ("", "", ""),
    )


@pytest.fixture
def widgets(call: Any, namespace: str) -> tuple[str, str]:
    """A group of the test's own with Widgets in it; the path where they are."""
    group = f"{namespace}.example.com"
    parts = {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}
    columns = [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Color", "type": "string", "jsonPath": ".spec.color", "priority": 1},
        {"name": "Second", "type": "string", "jsonPath": ".spec.parts[1].name"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]
    fields = [{"jsonPath": ".spec.color"}]
    made = call("POST", CRDS, definition("widgets", group, subresources=parts, additionalPrinterColumns=columns, selectableFields=fields))
    assert made.status == 201, made.tree
    return group, f"/apis/{group}/v1/namespaces/{namespace}/widgets"


def test_served_at_once_and_established(call: Any, widgets: tuple[str, str]) -> None:
    group, path = widgets
    assert call("GET", path).tree["items"] == []
    tree = until(call, f"{CRDS}/widgets.{group}", lambda got: condition(got.tree, "Established")[0] == "True")
    assert condition(tree, "NamesAccepted") == ("True", "NoConflicts", "no conflicts found")
    assert condition(tree, "Established") == ("True", "InitialNamesAccepted", "the initial names have been accepted")
    assert tree["status"]["acceptedNames"] == tree["spec"]["names"]
    listed = call("GET", f"/apis/{group}/v1").tree["resources"]
    assert [one["name"] for one in listed] == ["widgets", "widgets/status", "widgets/scale"]
    assert listed[0]["shortNames"] == ["wix"]
    document = call("GET", f"/openapi/v3/apis/{group}/v1").tree
    name = ".".join([*reversed(group.split(".")), "v1", "Widget"])
    assert document["components"]["schemas"][name]["properties"]["spec"]["properties"]["size"]["maximum"] == 5
    assert f"apis/{group}/v1" in call("GET", "/openapi/v3").tree["paths"]


def test_shape(call: Any, widgets: tuple[str, str]) -> None:
    group, path = widgets
    spec = {"size": 2, "note": None, "color": None, "bogus": 1, "free": {"any": {"thing": None}}, "parts": [{"name": "a", "x": 1}]}
    made = call("POST", path, thing("a", group, **spec))
    assert made.status == 201, made.tree
    assert made.tree["spec"] == {
        "size": 2,
        "note": None,
        "color": "red",
        "free": {"any": {"thing": None}},
        "parts": [{"name": "a", "weight": 1}],
    }
    assert made.tree["metadata"]["generation"] == 1
    assert made.headers.get_all("Warning") == ['299 - "unknown field \\"spec.bogus\\""', '299 - "unknown field \\"spec.parts[0].x\\""']
    strict = call("POST", path + "?fieldValidation=Strict", thing("b", group, **spec))
    assert (strict.status, strict.tree["message"]) == (
        400,
        'Widget in version "v1" cannot be handled as a Widget: strict decoding error: unknown field "spec.bogus", '
        'unknown field "spec.parts[0].x"',
    )


def test_every_error_at_once(call: Any, widgets: tuple[str, str]) -> None:
    group, path = widgets
    parts = [{"name": "a"}, {"name": "a"}, {"name": "b", "weight": "heavy"}]
    refused = call("POST", path, thing("a", group, color="Green", port=True, parts=parts, when="today"))
    assert (refused.status, refused.tree["reason"]) == (422, "Invalid")
    shown = {f"{one['field']}: {one['message']}" for one in refused.tree["details"]["causes"]}
    assert shown == {
        "spec.size: Required value",
        'spec.color: Unsupported value: "Green": supported values: "red", "blue"',
        "spec.color: Invalid value: \"Green\": spec.color in body should match '^[a-z]+$'",
        'spec.port: Invalid value: "boolean": spec.port in body must be of type integer,string: "boolean"',
        'spec.parts[1]: Duplicate value: {"name":"a"}',
        'spec.parts[2].weight: Invalid value: "string": spec.parts[2].weight in body must be of type integer: "string"',
        'spec.when: Invalid value: "today": spec.when in body must be of type date-time: "today"',
    }
    assert refused.tree["message"].startswith(f'Widget.{group} "a" is invalid: [')
    small = call("POST", path, thing("a", group, size=0, parts=[{"name": str(one)} for one in range(4)]))
    assert {one["message"] for one in small.tree["details"]["causes"]} == {
        "Invalid value: 0: spec.size in body should be greater than or equal to 1",
        "Too many: 4: must have at most 3 items",
    }


def test_table_scale_status_and_selection(call: Any, widgets: tuple[str, str]) -> None:
    group, path = widgets
    call("POST", path, thing("a", group, size=1, replicas=3, parts=[{"name": "x"}, {"name": "y"}]))
    call("POST", path, thing("b", group, size=2, color="blue", replicas=1))
    table = call("GET", path, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}).tree
    assert [(one["name"], one["priority"]) for one in table["columnDefinitions"]] == [
        ("Name", 0), ("Size", 0), ("Color", 1), ("Second", 0), ("Age", 0)
    ]  # fmt: skip
    assert [row["cells"][:4] for row in table["rows"]] == [["a", 1, "red", "y"], ["b", 2, "blue", None]]
    assert [one["metadata"]["name"] for one in call("GET", path + "?fieldSelector=spec.color%3Dblue").tree["items"]] == ["b"]
    scaled = call("PATCH", path + "/a/scale", {"spec": {"replicas": 7}}, content_type="application/merge-patch+json")
    assert (scaled.status, scaled.tree["spec"]) == (200, {"replicas": 7})
    assert call("GET", path + "/a").tree["spec"]["replicas"] == 7
    stated = call(
        "PATCH", path + "/a/status", {"status": {"replicas": 7}, "spec": {"size": 5}}, content_type="application/merge-patch+json"
    )
    assert (stated.tree["status"], stated.tree["spec"]["size"]) == ({"replicas": 7}, 1)
    wrong = call("PATCH", path + "/a/status", {"status": {"replicas": "x"}}, content_type="application/merge-patch+json")
    assert wrong.tree["details"]["causes"][0]["field"] == "status.replicas"
    strategic = call("PATCH", path + "/a", {"spec": {}}, content_type="application/strategic-merge-patch+json")
    assert strategic.status == 415


def test_apply_merges_by_the_keys_of_the_schema(call: Any, widgets: tuple[str, str]) -> None:
    group, path = widgets
    kind = "application/apply-patch+yaml"
    first = call("PATCH", path + "/a?fieldManager=one", thing("a", group, size=1, parts=[{"name": "x"}]), content_type=kind)
    assert first.status == 201, first.tree
    second = call("PATCH", path + "/a?fieldManager=two", thing("a", group, parts=[{"name": "y", "weight": 3}]), content_type=kind)
    assert second.tree["spec"]["parts"] == [{"name": "x", "weight": 1}, {"name": "y", "weight": 3}]
    conflict = call("PATCH", path + "/a?fieldManager=two", thing("a", group, size=2), content_type=kind)
    assert (conflict.status, conflict.tree["details"]["causes"][0]["field"]) == (409, ".spec.size")
    unknown = call("PATCH", path + "/a?fieldManager=two", thing("a", group, bogus=2), content_type=kind)
    assert unknown.status == 500
    assert ".spec.bogus: field not declared in schema" in unknown.tree["message"]


def test_a_stricter_definition_is_for_later_writes(call: Any, widgets: tuple[str, str]) -> None:
    group, path = widgets
    call("POST", path, thing("a", group, size=5, note="n"))
    schema = copy.deepcopy(SCHEMA)
    schema["properties"]["spec"]["properties"]["size"]["maximum"] = 2
    stored = call("GET", f"{CRDS}/widgets.{group}").tree
    stored["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema
    stored["metadata"].pop("resourceVersion")
    assert call("PUT", f"{CRDS}/widgets.{group}", stored).status == 200
    assert call("GET", path + "/a").tree["spec"]["size"] == 5
    assert call("POST", path, thing("b", group, size=5)).status == 422
    patch = {"spec": {"note": "m"}}
    assert call("PATCH", path + "/a", patch, content_type="application/merge-patch+json").status == 200  # what stays is not judged again
    assert call("PATCH", path + "/a", {"spec": {"size": 4}}, content_type="application/merge-patch+json").status == 422


def test_versions(call: Any, namespace: str) -> None:
    group = f"{namespace}.example.com"
    made = definition("gadgets", group)
    old = copy.deepcopy(made["spec"]["versions"][0]) | {"name": "v1beta1", "storage": False, "deprecated": True}
    made["spec"]["versions"].append(old)
    assert call("POST", CRDS, made).status == 201
    assert [one["version"] for one in call("GET", f"/apis/{group}").tree["versions"]] == ["v1", "v1beta1"]
    path = f"/apis/{group}/v1beta1/namespaces/{namespace}/gadgets"
    created = call("POST", path, thing("a", group, "Gadget", "v1beta1", size=1))
    assert (created.status, created.tree["apiVersion"]) == (201, f"{group}/v1beta1"), created.tree
    assert created.headers["Warning"] == f'299 - "{group}/v1beta1 Gadget is deprecated; use {group}/v1 Gadget"'
    assert call("GET", path.replace("v1beta1", "v1") + "/a").tree["apiVersion"] == f"{group}/v1"
    assert call("POST", path, thing("b", group, "Gadget", "v1beta1", size=9)).status == 422
    # What is stored follows the definition.
    stored = call("GET", f"{CRDS}/gadgets.{group}").tree
    stored["metadata"].pop("resourceVersion")  # its conditions may be written meanwhile
    for version in stored["spec"]["versions"]:
        version["storage"] = version["name"] == "v1beta1"
    changed = call("PUT", f"{CRDS}/gadgets.{group}", stored)
    assert (changed.status, changed.tree["status"]["storedVersions"]) == (200, ["v1", "v1beta1"])
    assert call("GET", path + "/a").tree["apiVersion"] == f"{group}/v1beta1"
    stored = changed.tree
    stored["spec"]["versions"] = stored["spec"]["versions"][1:]
    stored["metadata"].pop("resourceVersion")
    gone = call("PUT", f"{CRDS}/gadgets.{group}", stored)
    assert gone.tree["details"]["causes"][0]["message"] == 'Invalid value: "v1": must appear in spec.versions'


def test_names_that_are_taken(call: Any, widgets: tuple[str, str]) -> None:
    group, _path = widgets
    other = definition("gizmos", group)
    other["spec"]["names"]["kind"] = "Widget"
    assert call("POST", CRDS, other).status == 201
    path = f"{CRDS}/gizmos.{group}"
    tree = until(call, path, lambda got: condition(got.tree, "NamesAccepted")[0] == "False")
    assert condition(tree, "NamesAccepted") == ("False", "ListKindConflict", '"WidgetList" is already in use')
    assert condition(tree, "Established") == ("False", "NotAccepted", "not all names are accepted")
    assert call("GET", f"/apis/{group}/v1/gizmos").status == 404
    assert call("DELETE", f"{CRDS}/widgets.{group}").status == 200
    until(call, path, lambda got: condition(got.tree, "Established")[0] == "True")
    assert call("GET", f"/apis/{group}/v1/gizmos").status == 200


def test_objects_go_before_their_definition(call: Any, widgets: tuple[str, str]) -> None:
    group, path = widgets
    held = thing("held", group, size=1)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    call("POST", path, held)
    call("POST", path, thing("free", group, size=1))
    gone = call("DELETE", f"{CRDS}/widgets.{group}")
    assert gone.tree["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    until(call, path + "/free", lambda got: got.status == 404)
    tree = until(call, f"{CRDS}/widgets.{group}", lambda got: condition(got.tree, "Terminating")[0] == "True")
    assert condition(tree, "Terminating")[1] == "InstanceDeletionInProgress"
    assert call("POST", path, thing("late", group, size=1)).status == 405
    call("PATCH", path + "/held", {"metadata": {"finalizers": None}}, content_type="application/merge-patch+json")
    until(call, f"{CRDS}/widgets.{group}", lambda got: got.status == 404)
    until(call, f"/apis/{group}/v1", lambda got: got.status == 404)


def test_objects_go_with_a_definition_of_which_nothing_is_served(call: Any, widgets: tuple[str, str]) -> None:
    group, path = widgets
    call("POST", path, thing("a", group, size=1))
    stored = call("GET", f"{CRDS}/widgets.{group}").tree
    again = copy.deepcopy(stored)
    stored["metadata"].pop("resourceVersion")
    stored["spec"]["versions"][0]["served"] = False
    assert call("PUT", f"{CRDS}/widgets.{group}", stored).status == 200
    assert call("GET", path).status == 404
    assert call("DELETE", f"{CRDS}/widgets.{group}").status == 200
    until(call, f"{CRDS}/widgets.{group}", lambda got: got.status == 404)
    again["metadata"] = {"name": again["metadata"]["name"]}
    assert call("POST", CRDS, again).status == 201
    assert call("GET", path).tree["items"] == []  # nothing was left behind


def test_the_kinds_of_gke_are_there(call: Any, namespace: str) -> None:
    for group, version, plural in (
        ("cloud.google.com", "v1", "backendconfigs"),
        ("networking.gke.io", "v1beta1", "frontendconfigs"),
        ("networking.gke.io", "v1", "managedcertificates"),
        ("networking.gke.io", "v1beta1", "servicenetworkendpointgroups"),
    ):
        assert call("GET", f"/apis/{group}/{version}/namespaces/{namespace}/{plural}").status == 200
    path = f"/apis/cloud.google.com/v1/namespaces/{namespace}/backendconfigs"
    spec = {"timeoutSec": 40, "connectionDraining": {"drainingTimeoutSec": 60}, "cdn": {"enabled": True, "cacheMode": "USE_ORIGIN_HEADERS"}}
    made = call("POST", path, thing("a", "cloud.google.com", "BackendConfig", **spec))
    assert (made.status, made.tree["spec"]) == (201, spec)
    wrong = call("POST", path, thing("b", "cloud.google.com", "BackendConfig", timeoutSec="40", iap={}))
    assert {one["field"] for one in wrong.tree["details"]["causes"]} == {"spec.timeoutSec", "spec.iap.enabled"}


def test_controllers_may_delete_what_is_defined(call: Any, widgets: tuple[str, str]) -> None:
    group, path = widgets
    call("POST", path, thing("a", group, size=1))
    until(call, f"{CRDS}/widgets.{group}", lambda got: condition(got.tree, "Established")[0] == "True")
    assert call("POST", path, thing("b", group, size=1), identity=CONTROLLER).status == 403
    assert call("DELETE", path + "/a", identity=CONTROLLER).status == 200
