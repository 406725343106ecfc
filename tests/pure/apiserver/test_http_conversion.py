"""Kinds of several versions whose objects a program converts: an HTTPS server that really answers, or does not."""

from __future__ import annotations

import base64
import copy
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from running_apiserver import ApiServer
from webhook_server import Webhook

Tree = dict[str, Any]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE, APPLY, JSON_PATCH = "application/merge-patch+json", "application/apply-patch+yaml", "application/json-patch+json"
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
DEADLINE_S = 20.0

STRING, NUMBER = {"type": "string"}, {"type": "integer", "minimum": 1, "maximum": 65535}
LABEL = {"type": "object", "additionalProperties": STRING}


def schema(**fields: Tree) -> Tree:
    status = {"type": "object", "properties": {"replicas": {"type": "integer"}}}
    spec = {"type": "object", "properties": {**fields, "replicas": {"type": "integer"}, "notes": LABEL}}
    return {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": status}}}


def version(name: str, column: str, fields: Tree, *, storage: bool) -> Tree:
    parts = {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}
    columns = [{"name": column.capitalize(), "type": "string", "jsonPath": f".spec.{column}"}]
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": schema(**fields),
        "subresources": parts,
        "additionalPrinterColumns": columns,
        "selectableFields": [{"jsonPath": f".spec.{column}"}],
    }


def definition(group: str, webhook: Webhook, stored: str = "v1") -> Tree:
    """Places, which say ``hostPort`` in v1beta1, ``host`` and ``port`` in v1."""
    client = {"url": webhook.url("/convert"), "caBundle": webhook.bundle}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"places.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "places", "kind": "Place"},
            "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": client, "conversionReviewVersions": ["v2", "v1"]}},
            "versions": [
                version("v1", "host", {"host": STRING, "port": {**NUMBER, "default": 80}}, storage=stored == "v1"),
                version("v1beta1", "hostPort", {"hostPort": {**STRING, "pattern": ":"}}, storage=stored == "v1beta1"),
            ],
        },
    }


def converted(tree: Tree, api_version: str) -> Tree:
    tree, spec = {**tree, "apiVersion": api_version}, dict(tree.get("spec", {}))
    if api_version.endswith("v1beta1"):
        spec["hostPort"] = f"{spec.pop('host', '')}:{spec.pop('port', '')}"
    elif "hostPort" in spec:
        host, _, port = spec.pop("hostPort").partition(":")
        spec |= {"host": host, "port": int(port)}
    return {**tree, "spec": spec}


def convert(request: Tree) -> Tree:
    made = [converted(tree, request["desiredAPIVersion"]) for tree in request["objects"]]
    return {"result": {"status": "Success"}, "convertedObjects": made}


@pytest.fixture
def webhook(tmp_path: Path) -> Iterator[Webhook]:
    running = Webhook(tmp_path)
    running.answers["/convert"] = convert
    yield running
    running.close()


class Places:
    """The paths of one test's kind, and what it was defined as."""

    def __init__(self, call: Any, namespace: str, webhook: Webhook, stored: str) -> None:
        self.group = f"{namespace}.example.com"
        self.call = call
        made = call("POST", CRDS, definition(self.group, webhook, stored))
        assert made.status == 201, made.tree
        self.v1, self.v1beta1 = (f"/apis/{self.group}/{name}/namespaces/{namespace}/places" for name in ("v1", "v1beta1"))

    def new(self, name: str, **spec: Any) -> Tree:
        path = self.v1 if "host" in spec else self.v1beta1
        return {"apiVersion": f"{self.group}/{path.split('/')[3]}", "kind": "Place", "metadata": {"name": name}, "spec": spec}

    def make(self, name: str, **spec: Any) -> Tree:
        tree = self.new(name, **spec)
        made = self.call("POST", self.v1 if "host" in spec else self.v1beta1, tree)
        assert made.status == 201, made.tree
        return made.tree

    def change(self, change: Callable[[Tree], None]) -> Any:
        """Change the definition."""
        tree = self.call("GET", f"{CRDS}/places.{self.group}").tree
        change(tree["spec"])
        tree["metadata"].pop("resourceVersion")
        changed = self.call("PUT", f"{CRDS}/places.{self.group}", tree)
        assert changed.status == 200, changed.tree
        return changed

    def failure(self, said: str, since: str = "v1beta1") -> str:
        return f"conversion webhook for {self.group}/{since}, Kind=Place {said}"


@pytest.fixture
def places(call: Any, namespace: str, webhook: Webhook) -> Places:
    return Places(call, namespace, webhook, "v1")


@pytest.fixture
def old_places(call: Any, namespace: str, webhook: Webhook) -> Places:
    """The same, stored as v1beta1."""
    return Places(call, namespace, webhook, "v1beta1")


# Reads and writes ------------------------------------------------------------------------------------------------------------


def test_an_object_is_shown_in_both_versions(call: Any, places: Places, webhook: Webhook) -> None:
    made = places.make("a", host="one.example", port=8080, notes={"x": "y"})
    assert (made["spec"]["port"], webhook.asked) == (8080, [])  # stored as it was written
    seen = call("GET", f"{places.v1beta1}/a").tree
    assert (seen["apiVersion"], seen["spec"]) == (f"{places.group}/v1beta1", {"hostPort": "one.example:8080", "notes": {"x": "y"}})
    assert {**seen["metadata"], "managedFields": 0} == {**made["metadata"], "managedFields": 0}
    made = places.make("b", hostPort="two.example:90")
    assert (made["spec"], made["metadata"]["generation"]) == ({"hostPort": "two.example:90"}, 1)
    seen = call("GET", f"{places.v1}/b").tree
    assert (seen["spec"], seen["metadata"]["resourceVersion"]) == ({"host": "two.example", "port": 90}, made["metadata"]["resourceVersion"])
    assert len(webhook.asked) == 3  # one read; one write, there and back
    assert [one["desiredAPIVersion"].split("/")[1] for one in webhook.asked] == ["v1beta1", "v1", "v1beta1"]


def test_each_version_is_checked_pruned_and_filled_by_its_own_schema(call: Any, places: Places, webhook: Webhook) -> None:
    wrong = call("POST", places.v1beta1, places.new("a", hostPort="nowhere"))
    assert wrong.tree["details"]["causes"][0]["field"] == "spec.hostPort"
    assert webhook.asked == []  # it is not asked about what is wrong
    unknown = call("POST", f"{places.v1beta1}?fieldValidation=Strict", places.new("a", hostPort="a:1", port=3))
    assert (unknown.status, 'unknown field "spec.port"' in unknown.tree["message"]) == (400, True)
    assert call("POST", places.v1, places.new("a", host="a")).tree["spec"]["port"] == 80
    assert call("GET", f"{places.v1beta1}/a").tree["spec"] == {"hostPort": "a:80"}
    webhook.answers["/convert"] = lambda request: {
        "result": {"status": "Success"},
        "convertedObjects": [{**converted(one, request["desiredAPIVersion"]), "extra": 1} for one in request["objects"]],
    }
    assert "extra" not in call("GET", f"{places.v1beta1}/a").tree


def test_a_list_is_one_review_and_a_table_has_the_columns_of_its_version(call: Any, places: Places, webhook: Webhook) -> None:
    for number in range(5):
        places.make(f"p{number}", host=f"h{number}", port=number + 1)
    listed = call("GET", places.v1beta1).tree
    assert (listed["kind"], listed["apiVersion"]) == ("PlaceList", f"{places.group}/v1beta1")
    assert [one["spec"]["hostPort"] for one in listed["items"]] == [f"h{number}:{number + 1}" for number in range(5)]
    assert [len(one["objects"]) for one in webhook.asked] == [5]
    table = call("GET", places.v1beta1, headers=TABLE).tree
    assert [one["name"] for one in table["columnDefinitions"]] == ["Name", "Hostport"]
    assert table["rows"][1]["cells"] == ["p1", "h1:2"]
    assert call("GET", places.v1, headers=TABLE).tree["rows"][1]["cells"] == ["p1", "h1"]
    one = call("GET", f"{places.v1beta1}/p3?includeObject=Object", headers=TABLE).tree
    assert (one["rows"][0]["cells"], one["rows"][0]["object"]["spec"]) == (["p3", "h3:4"], {"hostPort": "h3:4"})
    selected = call("GET", f"{places.v1beta1}?fieldSelector=spec.hostPort%3Dh2:3").tree
    assert [one["metadata"]["name"] for one in selected["items"]] == ["p2"]
    assert [one["metadata"]["name"] for one in call("GET", f"{places.v1}?fieldSelector=spec.host%3Dh2").tree["items"]] == ["p2"]
    page = call("GET", f"{places.v1beta1}?limit=2").tree
    rest = call("GET", f"{places.v1beta1}?limit=9&continue={page['metadata']['continue']}").tree
    assert [len(page["items"]), len(rest["items"])] == [2, 3]
    assert {one["apiVersion"] for one in page["items"] + rest["items"]} == {f"{places.group}/v1beta1"}


def test_updates_patches_status_and_scale(call: Any, places: Places) -> None:
    made = places.make("a", host="h", port=1, replicas=1)
    path = f"{places.v1beta1}/a"
    tree = call("GET", path).tree
    tree["spec"]["hostPort"] = "h:2"
    updated = call("PUT", path, tree)
    assert (updated.status, updated.tree["spec"], updated.tree["metadata"]["generation"]) == (200, {"hostPort": "h:2", "replicas": 1}, 2)
    assert call("PUT", path, tree).status == 409  # of an old state
    assert call("GET", f"{places.v1}/a").tree["spec"]["port"] == 2
    merged = call("PATCH", path, {"spec": {"hostPort": "h:3"}}, content_type=MERGE)
    assert (merged.tree["apiVersion"], merged.tree["spec"]["hostPort"]) == (f"{places.group}/v1beta1", "h:3")
    replaced = call("PATCH", path, [{"op": "replace", "path": "/spec/hostPort", "value": "g:3"}], content_type=JSON_PATCH)
    assert replaced.tree["spec"]["hostPort"] == "g:3"
    dry = call("PATCH", f"{path}?dryRun=All", {"spec": {"hostPort": "g:99"}}, content_type=MERGE)
    assert (dry.status, dry.tree["spec"]["hostPort"], dry.tree["apiVersion"]) == (200, "g:99", f"{places.group}/v1beta1")
    stated = call("PATCH", f"{path}/status", {"status": {"replicas": 4}, "spec": {"hostPort": "z:1"}}, content_type=MERGE)
    assert (stated.status, stated.tree["status"], stated.tree["spec"]["hostPort"]) == (200, {"replicas": 4}, "g:3")
    scaled = call("PATCH", f"{path}/scale", {"spec": {"replicas": 6}}, content_type=MERGE)
    assert (scaled.tree["kind"], scaled.tree["spec"], scaled.tree["status"]) == ("Scale", {"replicas": 6}, {"replicas": 4})
    assert call("GET", f"{path}/scale").tree["spec"] == {"replicas": 6}
    final = call("GET", f"{places.v1}/a").tree
    assert (final["spec"], final["status"]) == ({"host": "g", "port": 3, "replicas": 6}, {"replicas": 4})
    assert final["metadata"]["uid"] == made["metadata"]["uid"]
    same = call("PATCH", path, {"spec": {"hostPort": "g:3"}}, content_type=MERGE).tree
    assert same["metadata"]["resourceVersion"] == final["metadata"]["resourceVersion"]  # nothing changed, nothing was written


def test_deletions(call: Any, places: Places) -> None:
    held = places.new("held", host="h", port=1)
    held["metadata"]["finalizers"] = ["example.com/hold"]
    assert call("POST", places.v1, held).status == 201
    for name in "ab":
        places.make(name, host=name, port=1)
    marked = call("DELETE", f"{places.v1beta1}/held").tree
    assert (marked["spec"], "deletionTimestamp" in marked["metadata"]) == ({"hostPort": "h:1"}, True)
    gone = call("DELETE", f"{places.v1beta1}/a")
    assert (gone.status, gone.tree["kind"]) == (200, "Status")
    deleted = call("DELETE", places.v1beta1).tree
    assert sorted(one["spec"]["hostPort"] for one in deleted["items"]) == ["b:1", "h:1"]
    freed = call("PATCH", f"{places.v1beta1}/held", {"metadata": {"finalizers": None}}, content_type=MERGE)
    assert (freed.status, freed.tree["spec"]) == (200, {"hostPort": "h:1"})
    assert call("GET", places.v1).tree["items"] == []


# Owners of fields ------------------------------------------------------------------------------------------------------------


def owners(tree: Tree) -> dict[tuple[str, str], Tree]:
    found = tree["metadata"]["managedFields"]
    return {(one["manager"], one["apiVersion"].split("/")[1]): one["fieldsV1"].get("f:spec", {}) for one in found}


def test_configurations_are_applied_in_both_versions(call: Any, places: Places) -> None:
    def lay(path: str, manager: str, more: str = "", **spec: Any) -> Any:
        tree = places.new("a", **spec) if "host" in spec or "hostPort" in spec else {**places.new("a", **spec)}
        tree["apiVersion"] = f"{places.group}/{path.split('/')[3]}"
        return call("PATCH", f"{path}/a?fieldManager={manager}{more}", tree, content_type=APPLY)

    assert lay(places.v1, "new", host="h", port=1, notes={"n": "1"}).status == 201
    conflict = lay(places.v1beta1, "old", hostPort="h:2")
    assert conflict.status == 409, conflict.tree
    assert {one["field"] for one in conflict.tree["details"]["causes"]} == {".spec.port"}  # in the owner's version
    shared = lay(places.v1beta1, "old", hostPort="h:1", notes={"o": "2"})
    assert (shared.status, shared.tree["spec"]) == (200, {"hostPort": "h:1", "notes": {"n": "1", "o": "2"}})
    assert owners(shared.tree) == {
        ("new", "v1"): {"f:host": {}, "f:port": {}, "f:notes": {"f:n": {}}},
        ("old", "v1beta1"): {"f:hostPort": {}, "f:notes": {"f:o": {}}},
    }
    forced = lay(places.v1beta1, "old", "&force=true", hostPort="h:2", notes={"o": "2"})
    assert owners(forced.tree) == {
        ("new", "v1"): {"f:host": {}, "f:notes": {"f:n": {}}},
        ("old", "v1beta1"): {"f:hostPort": {}, "f:notes": {"f:o": {}}},
    }
    # What an applier no longer says goes, also when he goes on in another version; what somebody else says there stays.
    moved = lay(places.v1, "old", notes={"p": "3"})
    assert moved.status == 200, moved.tree
    assert moved.tree["spec"]["notes"] == {"n": "1", "p": "3"}
    assert moved.tree["spec"]["host"] == "h"
    assert owners(moved.tree)[("old", "v1")] == {"f:notes": {"f:p": {}}}
    # An update takes what it changes from its owners in their own version.
    patched = call("PATCH", f"{places.v1beta1}/a?fieldManager=third", {"spec": {"hostPort": "g:7"}}, content_type=MERGE)
    assert ("f:host" in owners(patched.tree)[("new", "v1")], owners(patched.tree)[("third", "v1beta1")]) == (False, {"f:hostPort": {}})


# Watching ----------------------------------------------------------------------------------------------------------------------


def opened(server: ApiServer, path: str, headers: dict[str, str] | None = None) -> tuple[http.client.HTTPSConnection, Any]:
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(), timeout=DEADLINE_S)
    connection.request("GET", path, headers=headers or {})
    return connection, connection.getresponse()


def told(response: Any) -> tuple[str, Tree]:
    event = json.loads(response.readline())
    return event["type"], event["object"]


def test_a_watch(server: ApiServer, call: Any, places: Places, webhook: Webhook) -> None:
    places.make("a", host="h", port=1)
    bookmarks = "allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
    connection, events = opened(server, f"{places.v1beta1}?watch=true&{bookmarks}")
    second, chosen = opened(server, f"{places.v1beta1}?watch=true&fieldSelector=spec.hostPort%3Dh:1")
    kind, tree = told(events)
    assert (kind, tree["apiVersion"], tree["spec"]) == ("ADDED", f"{places.group}/v1beta1", {"hostPort": "h:1"})
    kind, tree = told(events)
    assert (kind, tree["apiVersion"]) == ("BOOKMARK", f"{places.group}/v1beta1")
    assert told(chosen)[0] == "ADDED"
    call("PATCH", f"{places.v1}/a", {"spec": {"port": 2}}, content_type=MERGE)
    kind, tree = told(events)
    assert (kind, tree["spec"]) == ("MODIFIED", {"hostPort": "h:2"})
    kind, tree = told(chosen)
    assert (kind, tree["spec"]) == ("DELETED", {"hostPort": "h:1"})  # it left the selection
    call("DELETE", f"{places.v1}/a")
    kind, tree = told(events)
    assert (kind, tree["spec"]) == ("DELETED", {"hostPort": "h:2"})
    webhook.answers["/convert"] = lambda _request: {"result": {"status": "Failed", "message": "out of order"}}
    places.make("b", host="h", port=1)
    kind, tree = told(events)
    assert (kind, tree["code"], tree["message"]) == ("ERROR", 500, places.failure("failed: out of order", "v1"))
    assert events.readline() == b""
    for one in (connection, second):
        one.close()


def test_a_watch_for_tables(server: ApiServer, call: Any, places: Places) -> None:
    connection, events = opened(server, f"{places.v1beta1}?watch=true", TABLE)
    places.make("a", host="h", port=1)
    assert told(events)[1]["rows"][0]["cells"] == ["a", "h:1"]
    connection.close()


def test_those_who_watch_share_a_conversion(server: ApiServer, places: Places, webhook: Webhook) -> None:
    opened_ones = [opened(server, f"{places.v1beta1}?watch=true&timeoutSeconds=60") for _ in range(5)]
    places.make("a", host="h", port=1)
    assert [told(response)[1]["spec"] for _, response in opened_ones] == [{"hostPort": "h:1"}] * 5
    assert len(webhook.asked) == 1
    for connection, _ in opened_ones:
        connection.close()


def test_a_watch_ends_with_its_definition(server: ApiServer, call: Any, places: Places) -> None:
    places.make("a", host="h", port=1)
    connection, events = opened(server, f"{places.v1beta1}?watch=true")
    assert told(events)[0] == "ADDED"

    def unserved(spec: Tree) -> None:
        spec["versions"][1]["served"] = False

    places.change(unserved)
    assert events.readline() == b""  # it ended; nobody is served this version any more
    assert call("GET", places.v1beta1).status == 404
    connection.close()


def test_many_objects_are_several_reviews(call: Any, places: Places, webhook: Webhook) -> None:
    for number in range(3):
        places.make(f"p{number}", host="h", port=1, notes={"long": "x" * 900_000})
    assert len(call("GET", places.v1beta1).tree["items"]) == 3
    assert [len(one["objects"]) for one in webhook.asked] == [2, 1]  # at most two million bytes at once


def test_versions_that_differ_in_their_schemas_alone(call: Any, namespace: str, webhook: Webhook) -> None:
    places = Places(call, namespace, webhook, "v1")
    places.change(lambda spec: spec.update(conversion={"strategy": "None"}))
    places.make("a", host="h", port=1, notes={"x": "y"})
    assert call("GET", f"{places.v1beta1}/a").tree["spec"] == {"notes": {"x": "y"}}  # what it does not know falls out
    assert call("GET", f"{places.v1}/a").tree["spec"] == {"host": "h", "port": 1, "notes": {"x": "y"}}
    changed = call("PATCH", f"{places.v1beta1}/a", {"spec": {"hostPort": "a:1"}}, content_type=MERGE)
    assert changed.tree["spec"] == {"notes": {"x": "y"}}  # kept as v1, which does not know it
    assert webhook.asked == []


# Storage -----------------------------------------------------------------------------------------------------------------------


def test_storage_is_migrated(call: Any, old_places: Places, webhook: Webhook) -> None:
    places = old_places
    for name in "abc":
        places.make(name, hostPort=f"{name}:1")
    assert webhook.asked == []

    def store_v1(spec: Tree) -> None:
        for one in spec["versions"]:
            one["storage"] = one["name"] == "v1"

    changed = places.change(store_v1)
    assert changed.tree["status"]["storedVersions"] == ["v1beta1", "v1"]
    assert [one["spec"]["host"] for one in call("GET", places.v1).tree["items"]] == ["a", "b", "c"]  # what is old is readable
    places.make("d", host="d", port=1)
    count = len(webhook.asked)
    assert call("GET", f"{places.v1}/d").status == 200
    assert len(webhook.asked) == count  # what is new is stored as it is
    # Each object is written as it is, which writes it in the version that is stored now.
    for item in call("GET", places.v1).tree["items"]:
        written = call("PUT", f"{places.v1}/{item['metadata']['name']}", item)
        moved = written.tree["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"]
        assert (written.status, moved) == (200, item["metadata"]["name"] != "d")
    count = len(webhook.asked)
    assert len(call("GET", places.v1).tree["items"]) == 4
    assert len(webhook.asked) == count
    early = copy.deepcopy(call("GET", f"{CRDS}/places.{places.group}").tree)
    early["spec"]["versions"].pop()
    refused = call("PUT", f"{CRDS}/places.{places.group}", early)
    assert refused.tree["details"]["causes"][0]["message"] == 'Invalid value: "v1beta1": must appear in spec.versions'
    status = call("PATCH", f"{CRDS}/places.{places.group}/status", {"status": {"storedVersions": ["v1"]}}, content_type=MERGE)
    assert status.status == 200, status.tree
    places.change(lambda spec: spec["versions"].pop())
    assert call("GET", places.v1beta1).status == 404
    assert len(call("GET", places.v1).tree["items"]) == 4
    assert len(webhook.asked) == count


def test_what_was_not_migrated_is_told(call: Any, old_places: Places) -> None:
    old_places.make("a", hostPort="a:1")

    def only_v1(spec: Tree) -> None:
        spec["versions"] = [one | {"storage": True} for one in spec["versions"] if one["name"] == "v1"]

    old_places.change(lambda spec: [one.update(storage=one["name"] == "v1") for one in spec["versions"]] and None)
    path = f"{CRDS}/places.{old_places.group}"
    assert call("PATCH", f"{path}/status", {"status": {"storedVersions": ["v1"]}}, content_type=MERGE).status == 200
    old_places.change(only_v1)
    got = call("GET", f"{old_places.v1}/a")
    assert (got.status, got.tree["message"]) == (
        500,
        f"request to convert CR from an invalid group/version: {old_places.group}/v1beta1",
    )


# What goes wrong ---------------------------------------------------------------------------------------------------------------


def success(*objects: Any) -> Tree:
    return {"result": {"status": "Success"}, "convertedObjects": list(objects)}


def changed(**metadata: Any) -> Callable[[Tree], Tree]:
    def answer(request: Tree) -> Tree:
        tree = converted(request["objects"][0], request["desiredAPIVersion"])
        return success({**tree, "metadata": {**tree["metadata"], **metadata}})

    return answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: {"result": {"status": "Failed", "message": "no such place"}}, "failed: no such place"),
        (lambda _: {"result": {"status": "Failure"}}, "failed: response.result.status was 'Failure', not 'Success'"),
        (lambda _: {"uid": "other", **success()}, 'failed: expected response.uid="{uid}", got "other"'),
        (lambda _: success(), "returned 0 objects, expected 1"),
        (
            lambda _: {"review": {"kind": "Review"}, **success()},
            "failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got apiextensions.k8s.io/v1, Kind=Review",
        ),
        (
            lambda request: success(request["objects"][0]),
            "returned invalid object at index 0: invalid groupVersion (expected {group}/v1beta1, received {group}/v1)",
        ),
        (
            lambda request: success({**converted(request["objects"][0], request["desiredAPIVersion"]), "kind": "Spot"}),
            "returned invalid object at index 0: invalid kind (expected Place, received Spot)",
        ),
        (changed(name="b"), "returned invalid object: must have the same name: a != b"),
        (changed(uid="u"), "returned invalid object: must have the same UID: {object_uid} != u"),
        (changed(labels={"a": 1}), "returned invalid metadata: metadata.labels[a] must be a string, but is int in converted object"),
        (changed(labels=[]), "returned invalid metadata: invalid metadata.labels of type list in converted object"),
    ],
)
def test_answers_that_are_not_taken(call: Any, places: Places, webhook: Webhook, answer: Callable[[Tree], Tree], said: str) -> None:
    tree = places.make("a", host="h", port=1)
    try:
        webhook.answers["/convert"] = answer
        got = call("GET", f"{places.v1beta1}/a")
        uid = webhook.asked[-1]["uid"]
        wanted = said.format(group=places.group, uid=uid, object_uid=tree["metadata"]["uid"])
        assert (got.status, got.tree["message"]) == (500, places.failure(wanted, "v1"))
    finally:
        webhook.answers["/convert"] = convert
        assert call("DELETE", f"{CRDS}/places.{places.group}").status == 200
        while call("GET", f"{CRDS}/places.{places.group}").status != 404:
            pass


def test_objects_come_back_in_order(call: Any, places: Places, webhook: Webhook) -> None:
    for number in range(2):
        places.make(f"p{number}", host="h", port=1)
    webhook.answers["/convert"] = lambda request: success(*reversed(convert(request)["convertedObjects"]))
    got = call("GET", places.v1beta1)
    said = "returned invalid converted object at index 0: must have the same name: p0 != p1"
    assert (got.status, got.tree["message"]) == (500, places.failure(said, "v1"))
    webhook.answers["/convert"] = lambda request: success(*convert(request)["convertedObjects"][:1])
    got = call("GET", places.v1beta1)
    assert got.tree["message"] == places.failure("returned 1 objects, expected 2", "v1")


@pytest.mark.parametrize(
    ("code", "body", "said"),
    [
        (500, b"oh dear", 'an error on the server ("oh dear") has prevented the request from succeeding'),
        (404, b"", "the server could not find the requested resource"),
        (302, b"", "the server responded with the status code 302 but did not return more information"),
        (200, b"<html>", "couldn't get version/kind; json parse error: "),
        (200, b"[]", "couldn't get version/kind; json parse error: "),
        (200, b"[" * 100_000, "couldn't get version/kind; json parse error: "),
        (200, b" " * 8_000_000, "the answer has more than "),
    ],
)
def test_what_is_no_answer(call: Any, namespace: str, webhook: Webhook, code: int, body: bytes, said: str) -> None:
    places, group = Places(call, namespace, webhook, "v1"), f"{namespace}.example.com"
    places.make("a", host="h", port=1)
    try:
        webhook.answers["/convert"] = lambda _request: {"raw": (code, body)}
        got = call("GET", f"{places.v1beta1}/a")
        assert got.status == 500
        assert got.tree["message"].startswith(places.failure(f"failed: {said}", "v1")), got.tree["message"][:300]
    finally:
        assert call("DELETE", f"{CRDS}/places.{group}").status == 200
        while call("GET", f"{CRDS}/places.{group}").status != 404:
            pass


def test_whom_to_trust(call: Any, places: Places, webhook: Webhook) -> None:
    places.make("a", host="h", port=1)
    url = webhook.url("/convert")
    places.change(lambda spec: spec["conversion"]["webhook"].update(clientConfig={"url": url}))
    got = call("GET", f"{places.v1beta1}/a")
    why = "tls: failed to verify certificate: x509: certificate signed by unknown authority"
    assert got.tree["message"] == places.failure(f'failed: Post "{url}?timeout=30s": {why}', "v1")
    assert webhook.asked == []
    places.change(lambda spec: spec["conversion"]["webhook"].update(clientConfig={"url": "https://127.0.0.1:1/x"}))
    got = call("GET", f"{places.v1beta1}/a")
    why = "dial tcp 127.0.0.1:1: connect: connection refused"
    assert got.tree["message"] == places.failure(f'failed: Post "https://127.0.0.1:1/x?timeout=30s": {why}', "v1")


def test_labels_and_annotations_are_the_programs_and_nothing_else(call: Any, places: Places, webhook: Webhook) -> None:
    made = places.make("a", host="h", port=1)
    webhook.answers["/convert"] = changed(labels={"seen": "yes"}, creationTimestamp="1999-01-01T00:00:00Z", generation=99, finalizers=["x"])
    metadata = call("GET", f"{places.v1beta1}/a").tree["metadata"]
    assert metadata["labels"] == {"seen": "yes"}
    assert (metadata["creationTimestamp"], metadata["generation"]) == (made["metadata"]["creationTimestamp"], 1)
    assert "finalizers" not in metadata
    selected = call("GET", f"{places.v1beta1}?labelSelector=seen%3Dyes").tree
    assert [one["metadata"]["name"] for one in selected["items"]] == ["a"]
    assert call("GET", f"{places.v1}?labelSelector=seen%3Dyes").tree["items"] == []


def test_nothing_is_stored_when_conversion_fails(call: Any, places: Places, webhook: Webhook) -> None:
    places.make("a", host="h", port=1)
    webhook.answers["/convert"] = lambda request: (
        convert(request) if request["desiredAPIVersion"].endswith("v1") else {"result": {"status": "Failed", "message": "one way only"}}
    )
    refused = call("POST", places.v1beta1, places.new("b", hostPort="b:1"))
    assert (refused.status, refused.tree["message"]) == (500, places.failure("failed: one way only", "v1"))
    assert [one["metadata"]["name"] for one in call("GET", places.v1).tree["items"]] == ["a"]


def test_nobody_who_can_be_asked(call: Any, places: Places, webhook: Webhook) -> None:
    places.make("a", host="h", port=1)

    def by_service(spec: Tree) -> None:
        service = {"name": "converter", "namespace": "default", "path": "/convert"}
        spec["conversion"]["webhook"]["clientConfig"] = {"service": service}

    places.change(by_service)
    got = call("GET", f"{places.v1beta1}/a")
    where = "https://converter.default.svc:443/convert?timeout=30s"
    assert (got.status, got.tree["message"]) == (500, places.failure(f'failed: Post "{where}": service "converter" not found', "v1"))
    assert call("GET", f"{places.v1}/a").status == 200  # nobody need be asked
    # The definition can be deleted with all its objects: nobody is asked for that.
    assert call("DELETE", f"{CRDS}/places.{places.group}").status == 200
    while call("GET", f"{CRDS}/places.{places.group}").status != 404:
        pass


def test_a_program_that_does_not_answer_holds_up_its_own_requests_alone(
    server: ApiServer, call: Any, namespace: str, places: Places, webhook: Webhook
) -> None:
    """More requests wait for it than there are seats; others are served, writes of its kind's stored version too."""
    places.make("a", host="h", port=1)
    answering = threading.Event()

    def slow(request: Tree) -> Tree:
        assert answering.wait(DEADLINE_S)
        return convert(request)

    webhook.answers["/convert"] = slow
    waiting = []
    for _ in range(150):
        connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(), timeout=DEADLINE_S)
        connection.request("GET", f"{places.v1beta1}/a")
        waiting.append(connection)
    watch, events = opened(server, f"{places.v1beta1}?watch=true")
    while len(webhook.asked) < 50:
        pass
    assert call("POST", f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"name": "c"}}).status == 201
    assert call("PATCH", f"{places.v1}/a", {"spec": {"port": 2}}, content_type=MERGE).status == 200
    assert len(call("GET", places.v1).tree["items"]) == 1
    other, plain = opened(server, f"{places.v1}?watch=true")
    assert told(plain)[1]["spec"]["port"] == 2
    answering.set()
    for connection in waiting:
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["spec"]["hostPort"][:2]) == (200, "h:")
        connection.close()
    assert told(events)[0] == "ADDED"
    for connection in (watch, other):
        connection.close()


def test_a_write_that_was_overtaken_is_made_anew(call: Any, server: ApiServer, places: Places, webhook: Webhook) -> None:
    places.make("a", host="h", port=1, replicas=1)
    overtaken: list[bool] = []

    def overtake(request: Tree) -> Tree:
        if request["desiredAPIVersion"].endswith("v1") and not overtaken:
            overtaken.append(True)
            connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=server.context(), timeout=DEADLINE_S)
            connection.request("PATCH", f"{places.v1}/a", json.dumps({"spec": {"replicas": 5}}), {"content-type": MERGE})
            assert connection.getresponse().status == 200
            connection.close()
        return convert(request)

    webhook.answers["/convert"] = overtake
    got = call("PATCH", f"{places.v1beta1}/a", {"spec": {"hostPort": "g:9"}}, content_type=MERGE)
    assert (got.status, got.tree["spec"]) == (200, {"hostPort": "g:9", "replicas": 5})


# Who judges --------------------------------------------------------------------------------------------------------------------

ADMISSION = "/apis/admissionregistration.k8s.io/v1"


@pytest.fixture
def tidy(call: Any) -> Iterator[None]:
    yield
    for plural in ("validatingadmissionpolicybindings", "validatingadmissionpolicies", "mutatingwebhookconfigurations"):
        assert call("DELETE", f"{ADMISSION}/{plural}").status == 200


def of_beta(places: Places) -> Tree:
    return {"apiGroups": [places.group], "apiVersions": ["v1beta1"], "operations": ["CREATE", "UPDATE"], "resources": ["places"]}


def test_a_webhook_is_shown_the_version_that_it_names(call: Any, places: Places, webhook: Webhook, tidy: None) -> None:
    patch = [{"op": "replace", "path": "/spec/hostPort", "value": "changed:9"}]
    webhook.answers["/change"] = lambda _request: {
        "allowed": True,
        "patchType": "JSONPatch",
        "patch": base64.b64encode(json.dumps(patch).encode()).decode(),
    }
    hook = {
        "name": "change.hooks.example.com",
        "clientConfig": {"url": webhook.url("/change"), "caBundle": webhook.bundle},
        "rules": [of_beta(places)],
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    path = f"{ADMISSION}/mutatingwebhookconfigurations"
    assert call("POST", path, {"metadata": {"name": "change"}, "webhooks": [hook]}).status == 201
    made = places.make("a", host="h", port=1)
    assert made["spec"] == {"host": "changed", "port": 9}
    asked = next(one for one in webhook.asked if one["path"] == "/change")
    assert (asked["kind"]["version"], asked["requestKind"]["version"], asked["requestResource"]["version"]) == ("v1beta1", "v1", "v1")
    assert (asked["object"]["apiVersion"], asked["object"]["spec"]) == (f"{places.group}/v1beta1", {"hostPort": "h:1"})
    exact = [{"op": "add", "path": "/webhooks/0/matchPolicy", "value": "Exact"}]
    assert call("PATCH", f"{path}/change", exact, content_type=JSON_PATCH).status == 200
    assert places.make("b", host="h", port=1)["spec"] == {"host": "h", "port": 1}
    webhook.answers["/convert"] = lambda _request: {"result": {"status": "Failed", "message": "out of order"}}
    assert call("PATCH", f"{path}/change", [exact[0] | {"value": "Equivalent"}], content_type=JSON_PATCH).status == 200
    refused = call("POST", places.v1, places.new("c", host="h", port=1))
    assert refused.tree["message"] == f"Internal error occurred: {places.failure('failed: out of order', 'v1')}"


def test_a_policy_is_put_to_the_version_that_it_names(call: Any, places: Places, tidy: None) -> None:
    limit = places.make("limit", hostPort="most:7")
    spec: Tree = {
        "matchConstraints": {"resourceRules": [of_beta(places)]},
        "paramKind": {"apiVersion": limit["apiVersion"], "kind": "Place"},
        "validations": [{"expression": "object.spec.hostPort != 'bad:' + params.spec.hostPort.split(':')[1]"}],
    }
    assert call("POST", f"{ADMISSION}/validatingadmissionpolicies", {"metadata": {"name": "beta"}, "spec": spec}).status == 201
    bound = {"policyName": "beta", "validationActions": ["Deny"], "paramRef": {"name": "limit", "parameterNotFoundAction": "Deny"}}
    assert call("POST", f"{ADMISSION}/validatingadmissionpolicybindings", {"metadata": {"name": "beta"}, "spec": bound}).status == 201
    refused = call("POST", places.v1, places.new("a", host="bad", port=7))
    assert refused.status == 422, refused.tree
    assert refused.tree["message"].startswith(
        f"places.{places.group} \"a\" is forbidden: ValidatingAdmissionPolicy 'beta' with binding 'beta'"
    )
    assert call("POST", places.v1, places.new("a", host="bad", port=8)).status == 201
    exact = [{"op": "replace", "path": "/spec/matchConstraints/matchPolicy", "value": "Exact"}]
    assert call("PATCH", f"{ADMISSION}/validatingadmissionpolicies/beta", exact, content_type=JSON_PATCH).status == 200
    assert call("POST", places.v1, places.new("b", host="bad", port=7)).status == 201
    assert call("POST", places.v1beta1, places.new("c", hostPort="bad:7")).status == 422


# What is no conversion -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("conversion", "wanted"),
    [
        ({"strategy": "Magic"}, ['spec.conversion.strategy: Unsupported value: "Magic": supported values: "None", "Webhook"']),
        (
            {"strategy": "Webhook"},
            [
                "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
                "spec.conversion.conversionReviewVersions: Required value",
            ],
        ),
        (
            {"strategy": "Webhook", "webhook": {"clientConfig": {}, "conversionReviewVersions": ["v2", "v2"]}},
            [
                "spec.conversion.webhookClientConfig: Required value: exactly one of url or service is required",
                'spec.conversion.conversionReviewVersions[1]: Invalid value: "v2": duplicate version',
                'spec.conversion.conversionReviewVersions: Invalid value: ["v2","v2"]: must include at least one of v1, v1beta1',
            ],
        ),
        (
            {"strategy": "Webhook", "webhook": {"clientConfig": {"url": "http://a/b"}, "conversionReviewVersions": ["v1"]}},
            [
                "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; "
                "desired format: https://host[:port]/path"
            ],
        ),
        (
            {"strategy": "None", "webhook": {"clientConfig": {"url": "https://a/b"}, "conversionReviewVersions": ["v1"]}},
            [
                "spec.conversion.webhookClientConfig: Forbidden: should not be set when strategy is not set to Webhook",
                "spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook",
            ],
        ),
    ],
)
def test_definitions_that_are_refused(call: Any, namespace: str, webhook: Webhook, conversion: Tree, wanted: list[str]) -> None:
    made = definition(f"{namespace}.example.com", webhook)
    made["spec"]["conversion"] = conversion
    refused = call("POST", CRDS, made)
    assert refused.status == 422
    assert [f"{one['field']}: {one['message']}" for one in refused.tree["details"]["causes"]] == wanted
