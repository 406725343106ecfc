"""Server-side apply over HTTPS: what is asked, what is refused, who owns what afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.apiserver.managed_fields import paths
from running_apiserver import NODE

Tree = dict[str, Any]
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
AGENT = {"user-agent": "spade/1.0 (linux)"}


def deployments(namespace: str, rest: str = "") -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/deployments{'/' + rest if rest else ''}"


def config_maps(namespace: str, rest: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps{'/' + rest if rest else ''}"


def deployment(**spec: Any) -> Tree:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


def whole(**spec: Any) -> Tree:
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}
    return deployment(selector={"matchLabels": labels}, template=template, **spec)


def config_map(name: str = "c", **data: str) -> Tree:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def owners(tree: Tree) -> dict[tuple[str, str, str], list[str]]:
    return {
        (entry["manager"], entry["operation"], entry.get("subresource", "")): list(paths(entry["fieldsV1"]))
        for entry in tree["metadata"].get("managedFields", ())
    }


@pytest.fixture
def apply(call: Any) -> Any:
    def apply(path: str, body: Any, manager: str = "ann", query: str = "") -> Any:
        return call("PATCH", f"{path}?fieldManager={manager}{query}", body, content_type=APPLY)

    return apply


def test_create_and_apply_again(apply: Any, call: Any, namespace: str) -> None:
    where = deployments(namespace, "web")
    made = apply(where, whole(replicas=2))
    assert made.status == 201
    again = apply(where, whole(replicas=2))
    assert (again.status, again.tree) == (200, made.tree), "the same configuration changes nothing, not even a time"
    assert made.tree["spec"]["strategy"]["type"] == "RollingUpdate", "defaults are there"
    (entry,) = made.tree["metadata"]["managedFields"]
    assert {key: value for key, value in entry.items() if key not in ("fieldsV1", "time")} == {
        "manager": "ann",
        "operation": "Apply",
        "apiVersion": "apps/v1",
        "fieldsType": "FieldsV1",
    }
    assert entry["time"].endswith("Z")
    assert not any("strategy" in path for path in owners(made.tree)[("ann", "Apply", "")]), "and nobody's"
    assert apply(where, whole()).tree["spec"]["replicas"] == 1, "what is no longer applied falls back to its default"
    assert call("GET", where).tree["metadata"]["generation"] == 2


def test_yaml_and_dry_run(apply: Any, call: Any, namespace: str) -> None:
    body = b"# a remark\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  k: |\n    text\n"
    tried = apply(config_maps(namespace, "c"), body, query="&dryRun=All")
    assert (tried.status, tried.tree["data"]) == (201, {"k": "text\n"})
    assert call("GET", config_maps(namespace, "c")).status == 404
    assert apply(config_maps(namespace, "c"), body).status == 201
    tried = apply(config_maps(namespace, "c"), config_map(k="2"), query="&dryRun=All")
    assert (tried.status, tried.tree["data"]) == (200, {"k": "2"})
    assert call("GET", config_maps(namespace, "c")).tree["data"] == {"k": "text\n"}


def test_conflict_status(apply: Any, call: Any, namespace: str) -> None:
    call("POST", deployments(namespace), whole(replicas=2), headers=AGENT)
    where = deployments(namespace, "web")
    refused = apply(where, deployment(replicas=3))
    assert refused.status == 409
    message = 'Apply failed with 1 conflict: conflict with "spade" using apps/v1: .spec.replicas'
    cause = {"reason": "FieldManagerConflict", "message": 'conflict with "spade" using apps/v1', "field": ".spec.replicas"}
    assert refused.tree == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "Conflict",
        "details": {"causes": [cause]},
        "code": 409,
    }
    forced = apply(where, deployment(replicas=3), query="&force=true")
    assert (forced.status, forced.tree["spec"]["replicas"]) == (200, 3)
    assert owners(forced.tree)[("ann", "Apply", "")] == [".spec.replicas"]
    assert ".spec.replicas" not in owners(forced.tree)[("spade", "Update", "")]
    # An update takes without asking.
    taken = call("PATCH", where + "?fieldManager=bob", {"spec": {"replicas": 4}}, content_type=MERGE).tree
    assert owners(taken)[("bob", "Update", "")] == [".spec.replicas"]
    assert ("ann", "Apply", "") not in owners(taken)


def test_every_write_notes_its_writer(call: Any, namespace: str) -> None:
    made = call("POST", config_maps(namespace), config_map(a="1"), headers=AGENT).tree
    assert owners(made) == {("spade", "Update", ""): [".data", ".data.a"]}
    made["data"]["b"] = "2"
    put = call("PUT", config_maps(namespace, "c") + "?fieldManager=bob", made).tree
    assert owners(put) == {("bob", "Update", ""): [".data.b"], ("spade", "Update", ""): [".data", ".data.a"]}
    patched = call("PATCH", config_maps(namespace, "c"), {"data": {"a": None}}, content_type=MERGE, headers=AGENT).tree
    assert owners(patched) == {("bob", "Update", ""): [".data.b"], ("spade", "Update", ""): [".data"]}
    # A client that does not know of owners does not delete them.
    del patched["metadata"]["managedFields"]
    assert owners(call("PUT", config_maps(namespace, "c"), patched).tree) == owners(put) | {("spade", "Update", ""): [".data"]}


def test_status_and_scale_are_subresources(apply: Any, call: Any, namespace: str) -> None:
    where = deployments(namespace, "web")
    made = call("POST", deployments(namespace), whole(replicas=2), headers=AGENT).tree
    told = call("PUT", where + "/status?fieldManager=ctl", made | {"status": {"replicas": 2}}).tree
    assert owners(told)[("ctl", "Update", "status")] == [".status.replicas"]
    by_apply = apply(where + "/status", deployment(replicas=9) | {"status": {"readyReplicas": 1}}, "kit").tree
    assert by_apply["status"] == {"replicas": 2, "readyReplicas": 1}
    assert by_apply["spec"]["replicas"] == 2
    assert owners(by_apply)[("kit", "Apply", "status")] == [".status.readyReplicas"]
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": 5}}
    refused = apply(where + "/scale", scale, "hpa")
    assert (refused.status, refused.tree["message"][-16:]) == (409, ": .spec.replicas")
    assert call("PUT", where + "/scale?fieldManager=hpa", scale).tree["spec"]["replicas"] == 5
    found = call("GET", where).tree
    assert owners(found)[("hpa", "Update", "scale")] == [".spec.replicas"]
    refused = apply(where, deployment(replicas=3))
    assert 'conflict with "hpa" with subresource "scale" using apps/v1: .spec.replicas' in refused.tree["message"]
    assert apply(where + "/scale", scale, "kit").tree["spec"]["replicas"] == 5
    assert owners(call("GET", where).tree)[("kit", "Apply", "scale")] == [".spec.replicas"]
    for wrong in ({"spec": 5}, {"spec": {"replicas": "x"}}, {"spec": {"replicas": True}}, {"kind": "Deployment"}, {"metadata": {"uid": 5}}):
        assert apply(where + "/scale", scale | wrong, "kit").status == 400
    assert apply(where + "/scale", scale | {"spec": {"replicas": -1}}, "kit", "&force=1").status == 422
    # The status is no part of the object's own configuration.
    assert apply(where, deployment() | {"status": {"replicas": 7}}).tree["status"]["replicas"] == 2


@pytest.mark.parametrize("nothing", [[], [{}]])
def test_owners_are_forgotten_when_asked(apply: Any, call: Any, namespace: str, nothing: Any) -> None:
    where = config_maps(namespace, "c")
    call("POST", config_maps(namespace), config_map(a="1"), headers=AGENT)
    bare = call("PATCH", where, {"metadata": {"managedFields": nothing}}, content_type=MERGE).tree
    assert "managedFields" not in bare["metadata"]
    # Nobody owns what changes meanwhile, until somebody applies.
    changed = call("PATCH", where, {"data": {"b": "2"}}, content_type=MERGE).tree
    assert "managedFields" not in changed["metadata"]
    refused = apply(where, config_map(a="2"))
    assert refused.tree["message"] == 'Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.a'
    assert owners(apply(where, config_map(a="1")).tree) == {
        ("ann", "Apply", ""): [".data.a"],
        ("before-first-apply", "Update", ""): [".data", ".data.a", ".data.b"],
    }
    call("DELETE", where)


def test_owners_may_be_written(apply: Any, call: Any, namespace: str) -> None:
    """As kubectl does when a user goes on from client-side apply."""
    where = config_maps(namespace, "c")
    made = call("POST", config_maps(namespace), config_map(a="1"), headers=AGENT).tree
    (entry,) = made["metadata"]["managedFields"]
    entry |= {"operation": "Apply", "manager": "ann"}
    change = [{"op": "replace", "path": "/metadata/managedFields", "value": [entry]}]
    moved = call("PATCH", where, change, content_type="application/json-patch+json").tree
    assert owners(moved) == {("ann", "Apply", ""): [".data", ".data.a"]}
    assert "data" not in apply(where, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}).tree


@pytest.mark.parametrize(
    ("query", "change", "code", "message"),
    [
        ("", {}, 422, 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'),
        (
            "?fieldManager=" + "m" * 129,
            {},
            422,
            'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Too long: may not be more than 128 bytes',
        ),
        ("?fieldManager=m&force=maybe", {}, 400, 'strconv.ParseBool: parsing "maybe": invalid syntax'),
        (
            "?fieldManager=m",
            {"apiVersion": "v2"},
            400,
            "Incorrect version specified in apply patch. Specified patch version: v2, expected: v1",
        ),
        ("?fieldManager=m", {"kind": "Secret"}, 400, "does not match the kind of the path (ConfigMap)"),
        ("?fieldManager=m", {"metadata": {"managedFields": []}}, 400, "metadata.managedFields must be nil"),
        ("?fieldManager=m", {"metadata": {"name": "other"}}, 400, "does not match the name on the URL"),
        ("?fieldManager=m", {"metadata": {"namespace": "other"}}, 400, "does not match the namespace"),
        (
            "?fieldManager=m",
            {"metadata": {"uid": "1-2-3"}},
            409,
            "the provided object specified uid 1-2-3, and no existing object was found",
        ),
        ("?fieldManager=m", {"metadata": 7}, 400, "metadata"),
        ("?fieldManager=m", {"dat": {}}, 500, "/v1, Kind=ConfigMap): .dat: field not declared in schema"),
        ("?fieldManager=m", {"data": {"k": 1}}, 400, "cannot unmarshal number"),
        ("?fieldManager=m", {"metadata": {"name": "c", "labels": {"-": "x"}}}, 422, "metadata.labels"),
        ("?fieldManager=m", b"[1, 2]", 400, "no object"),
        ("?fieldManager=m", b"{a: b: c}", 400, "YAML"),
    ],
)
def test_what_is_refused(call: Any, namespace: str, query: str, change: Any, code: int, message: str) -> None:
    body = change if isinstance(change, bytes) else config_map() | change
    refused = call("PATCH", config_maps(namespace, "c") + query, body, content_type=APPLY)
    assert (refused.status, refused.tree["kind"]) == (code, "Status")
    assert message.replace("/v1,", f"{namespace}/c; v1,") in refused.tree["message"]
    assert call("GET", config_maps(namespace, "c")).status == 404


def test_more_that_is_refused(apply: Any, call: Any, namespace: str) -> None:
    twice = whole()
    twice["spec"]["template"]["spec"]["containers"] *= 2
    refused = apply(deployments(namespace, "web"), twice)
    assert (refused.status, refused.tree.get("reason")) == (500, None)
    assert 'containers: duplicate entries for key [name="c"]' in refused.tree["message"]
    assert apply(deployments(namespace, "web") + "/status", deployment()).status == 404
    call("POST", config_maps(namespace), config_map(a="1"))
    stale = apply(config_maps(namespace, "c"), config_map() | {"metadata": {"name": "c", "resourceVersion": "1"}})
    assert (stale.status, stale.tree["reason"]) == (409, "Conflict")
    forced = call("PATCH", config_maps(namespace, "c") + "?force=true", {}, content_type=MERGE)
    assert "force: Forbidden: may not be specified for non-apply patch" in forced.tree["message"]
    assert "fieldManager: Too long" in call("POST", config_maps(namespace) + "?fieldManager=" + "m" * 129, config_map("d")).tree["message"]


def test_a_user_who_may_not_patch_may_not_apply(call: Any) -> None:
    node = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {"phase": "Running"}}
    path = "/api/v1/namespaces/default/pods/p"
    assert call("PATCH", path + "?fieldManager=m", node, content_type=APPLY, identity=NODE).status == 403


@pytest.mark.parametrize(
    "body", [b"", b"null", b"7", b'"x"', b"[]", b"{}", b'{"apiVersion":[]}', b"{1: 2}", b"\xff\xfe", b"a: &a [*a]", b"{a: 1"]
)
def test_bodies_that_are_nothing(call: Any, namespace: str, body: bytes) -> None:
    got = call("PATCH", config_maps(namespace, "c") + "?fieldManager=m", body, content_type=APPLY)
    assert (got.status, got.tree["kind"]) == (400, "Status")


def test_the_manager_is_named_by_the_client(call: Any, namespace: str) -> None:
    for name, agent in (("a", "kubectl/v1.37.0 (linux/amd64)"), ("b", "")):
        made = call("POST", config_maps(namespace), config_map(name, k="1"), headers={"user-agent": agent}).tree
        assert made["metadata"]["managedFields"][0]["manager"] == {"a": "kubectl", "b": "unknown"}[name]
