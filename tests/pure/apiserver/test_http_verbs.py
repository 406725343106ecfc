"""Verbs over HTTPS, as clients speak them."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.apiserver.version import KUBERNETES_VERSION
from running_apiserver import ApiServer

Tree = dict[str, Any]


def config_map(name: str, **data: str) -> Tree:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": name[0]}}, "data": data}


def pod(name: str, **spec: Any) -> Tree:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "nginx"}], **spec},
    }


def deployment(name: str) -> Tree:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": 2, "selector": {"matchLabels": labels}, "template": template},
    }


def path(namespace: str, rest: str = "", plural: str = "configmaps", root: str = "/api/v1") -> str:
    return f"{root}/namespaces/{namespace}/{plural}{'/' + rest if rest else ''}"


def test_create_get_update_delete(call: Any, namespace: str) -> None:
    made = call("POST", path(namespace), config_map("a", k="1"))
    assert made.status == 201
    metadata = made.tree["metadata"]
    assert metadata["namespace"] == namespace
    assert len(metadata["uid"]) == 36
    assert int(metadata["resourceVersion"]) > 0
    assert call("GET", path(namespace, "a")).tree == made.tree

    again = call("POST", path(namespace), config_map("a"))
    assert (again.status, again.tree["reason"], again.tree["message"]) == (409, "AlreadyExists", 'configmaps "a" already exists')

    changed = call("PUT", path(namespace, "a"), made.tree | {"data": {"k": "2"}})
    assert (changed.status, changed.tree["data"]) == (200, {"k": "2"})
    assert changed.tree["metadata"]["uid"] == metadata["uid"]
    stale = call("PUT", path(namespace, "a"), made.tree | {"data": {"k": "3"}})
    assert (stale.status, stale.tree["reason"]) == (409, "Conflict")
    assert stale.tree["message"] == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    same = call("PUT", path(namespace, "a"), changed.tree)
    assert same.tree == changed.tree

    gone = call("DELETE", path(namespace, "a"))
    assert (gone.status, gone.tree["status"], gone.tree["details"]["uid"]) == (200, "Success", metadata["uid"])
    missing = call("GET", path(namespace, "a"))
    assert (missing.status, missing.tree["reason"], missing.tree["message"]) == (404, "NotFound", 'configmaps "a" not found')


def test_generate_name(call: Any, namespace: str) -> None:
    tree = config_map("a")
    tree["metadata"] = {"generateName": "web-"}
    names = {call("POST", path(namespace), tree).tree["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("web-") and len(name) == 9 for name in names)


@pytest.mark.parametrize(
    ("kind", "patch", "expected"),
    [
        ("application/merge-patch+json", {"data": {"a": None, "b": "2"}}, {"b": "2"}),
        ("application/strategic-merge-patch+json", {"data": {"b": "2"}}, {"a": "1", "b": "2"}),
        ("application/json-patch+json", [{"op": "replace", "path": "/data/a", "value": "9"}], {"a": "9"}),
    ],
)
def test_patch(call: Any, namespace: str, kind: str, patch: Any, expected: Any) -> None:
    call("DELETE", path(namespace, "a"))
    call("POST", path(namespace), config_map("a", a="1"))
    got = call("PATCH", path(namespace, "a"), patch, content_type=kind)
    assert (got.status, got.tree["data"]) == (200, expected)
    nothing = call("PATCH", path(namespace, "a"), {}, content_type="application/merge-patch+json")
    assert nothing.tree == got.tree
    conflict = call("PATCH", path(namespace, "a"), {"metadata": {"resourceVersion": "1"}}, content_type="application/merge-patch+json")
    assert (conflict.status, conflict.tree["reason"]) == (409, "Conflict")
    renamed = call("PATCH", path(namespace, "a"), {"metadata": {"name": "b"}}, content_type="application/merge-patch+json")
    assert renamed.status == 422


def test_a_patch_leaves_its_source_alone(call: Any, namespace: str) -> None:
    """What the patch does not touch is shared while it is made, and must not be changed by what follows."""
    root = "/apis/apps/v1"
    call("POST", path(namespace, plural="deployments", root=root), deployment("d"))
    where = path(namespace, "d", "deployments", root)
    before = call("GET", where).tree
    got = call("PATCH", where, {"spec": {"template": {"spec": {"hostname": "h"}}}}, content_type="application/merge-patch+json").tree
    assert got["metadata"]["generation"] == before["metadata"]["generation"] + 1 == 2
    assert got["spec"]["template"]["spec"] == before["spec"]["template"]["spec"] | {"hostname": "h"}


def test_status_and_spec_are_written_apart(call: Any, namespace: str) -> None:
    root = "/apis/apps/v1"
    made = call("POST", path(namespace, plural="deployments", root=root), deployment("d") | {"status": {"replicas": 7}}).tree
    assert "replicas" not in made.get("status", {})
    where = path(namespace, "d", "deployments", root)
    status = call("PUT", where + "/status", made | {"status": {"replicas": 2}, "spec": made["spec"] | {"replicas": 9}})
    assert (status.status, status.tree["status"]["replicas"], status.tree["spec"]["replicas"]) == (200, 2, 2)
    assert status.tree["metadata"]["generation"] == 1
    spec = call("PUT", where, status.tree | {"status": {}, "spec": status.tree["spec"] | {"replicas": 3}}).tree
    assert (spec["status"]["replicas"], spec["spec"]["replicas"], spec["metadata"]["generation"]) == (2, 3, 2)
    patched = call("PATCH", where + "/status", {"status": {"readyReplicas": 1}}, content_type="application/merge-patch+json").tree
    assert patched["status"] == {"replicas": 2, "readyReplicas": 1}


def test_scale(call: Any, namespace: str) -> None:
    root = "/apis/apps/v1"
    call("POST", path(namespace, plural="deployments", root=root), deployment("d"))
    where = path(namespace, "d/scale", "deployments", root)
    scale = call("GET", where).tree
    assert (scale["kind"], scale["spec"], scale["status"]["selector"]) == ("Scale", {"replicas": 2}, "app=d")
    put = call("PUT", where, scale | {"spec": {"replicas": 0}})
    assert (put.status, put.tree["spec"]) == (200, {})
    assert call("PUT", where, scale | {"spec": {"replicas": 1}}).status == 409
    patched = call("PATCH", where, {"spec": {"replicas": 5}}, content_type="application/merge-patch+json")
    assert patched.tree["spec"] == {"replicas": 5}
    assert call("GET", path(namespace, "d", "deployments", root)).tree["metadata"]["generation"] == 3
    assert call("PATCH", where, {"spec": {"replicas": -1}}, content_type="application/merge-patch+json").status == 422
    assert call("PATCH", where, {"spec": {"replicas": "x"}}, content_type="application/merge-patch+json").status == 400


def test_dry_run_stores_nothing(call: Any, namespace: str) -> None:
    got = call("POST", path(namespace) + "?dryRun=All", config_map("a"))
    assert got.status == 201
    assert call("GET", path(namespace, "a")).status == 404
    call("POST", path(namespace), config_map("a", k="1"))
    changed = call("PATCH", path(namespace, "a") + "?dryRun=All", {"data": {"k": "2"}}, content_type="application/merge-patch+json")
    assert changed.tree["data"] == {"k": "2"}
    call("DELETE", path(namespace, "a") + "?dryRun=All")
    assert call("GET", path(namespace, "a")).tree["data"] == {"k": "1"}
    assert call("POST", path(namespace) + "?dryRun=Some", config_map("b")).status == 400


def test_dry_run_sets_no_address_aside(call: Any, namespace: str) -> None:
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "clusterIP": "10.8.0.77"}}
    for _ in range(2):
        assert call("POST", path(namespace, plural="services") + "?dryRun=All", service).status == 201
    assert call("POST", path(namespace, plural="services"), service).status == 201
    second = call("POST", path(namespace, plural="services"), service | {"metadata": {"name": "t"}})
    assert (second.status, "10.8.0.77" in second.tree["message"]) == (422, True)
    call("DELETE", path(namespace, "s", "services"))
    assert call("POST", path(namespace, plural="services"), service).status == 201


def test_field_validation(call: Any, namespace: str) -> None:
    tree = config_map("a") | {"extra": 1}
    strict = call("POST", path(namespace) + "?fieldValidation=Strict", tree)
    assert (strict.status, strict.tree["reason"]) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "extra"' in strict.tree["message"]
    warned = call("POST", path(namespace) + "?fieldValidation=Warn", tree)
    assert (warned.status, warned.headers.get_all("warning")) == (201, ['299 - "unknown field \\"extra\\""'])
    assert "extra" not in warned.tree
    ignored = call("POST", path(namespace) + "?fieldValidation=Ignore", config_map("b") | {"extra": 1})
    assert (ignored.status, ignored.headers.get_all("warning")) == (201, None)
    assert call("POST", path(namespace) + "?fieldValidation=Maybe", config_map("c")).status == 400


def test_finalizers_hold_an_object(call: Any, namespace: str) -> None:
    tree = config_map("a")
    tree["metadata"]["finalizers"] = ["example.com/hold"]
    call("POST", path(namespace), tree)
    marked = call("DELETE", path(namespace, "a"))
    assert marked.tree["metadata"]["deletionTimestamp"]
    again = call("DELETE", path(namespace, "a"))
    assert again.tree["metadata"]["resourceVersion"] == marked.tree["metadata"]["resourceVersion"]
    more = call(
        "PATCH",
        path(namespace, "a"),
        {"metadata": {"finalizers": ["example.com/hold", "example.com/b"]}},
        content_type="application/merge-patch+json",
    )
    assert more.status == 422
    last = call("PATCH", path(namespace, "a"), {"metadata": {"finalizers": None}}, content_type="application/merge-patch+json")
    assert last.status == 200
    assert call("GET", path(namespace, "a")).status == 404


@pytest.mark.parametrize(("policy", "finalizer"), [("Orphan", "orphan"), ("Foreground", "foregroundDeletion")])
def test_propagation_is_recorded(call: Any, namespace: str, policy: str, finalizer: str) -> None:
    call("POST", path(namespace), config_map(policy.lower()))
    got = call("DELETE", path(namespace, policy.lower()), {"propagationPolicy": policy})
    assert got.tree["metadata"]["finalizers"] == [finalizer]
    background = call("DELETE", path(namespace, policy.lower()), {"propagationPolicy": "Background"})
    assert background.tree["status"] == "Success"
    assert call("DELETE", path(namespace, "x"), {"propagationPolicy": "Sideways"}).status == 422


def test_preconditions(call: Any, namespace: str) -> None:
    made = call("POST", path(namespace), config_map("a")).tree["metadata"]
    for wrong in ({"uid": "x"}, {"resourceVersion": "1"}):
        got = call("DELETE", path(namespace, "a"), {"preconditions": wrong})
        assert (got.status, got.tree["reason"]) == (409, "Conflict")
    right = {"uid": made["uid"], "resourceVersion": made["resourceVersion"]}
    assert call("DELETE", path(namespace, "a"), {"preconditions": right}).status == 200


def test_a_pod_on_a_node_is_given_time(call: Any, namespace: str) -> None:
    pods = path(namespace, plural="pods")
    call("POST", pods, pod("waits"))
    assert call("DELETE", pods + "/waits").tree["status"] == "Success"  # nobody runs it: gone at once

    call("POST", pods, pod("runs"))
    binding = {"metadata": {"name": "runs"}, "target": {"kind": "Node", "name": "node-1"}}
    assert call("POST", pods + "/runs/binding", binding).status == 201
    bound = call("GET", pods + "/runs").tree
    assert bound["spec"]["nodeName"] == "node-1"
    assert {c["type"]: c["status"] for c in bound["status"]["conditions"]} == {"PodScheduled": "True"}
    twice = call("POST", pods + "/runs/binding", binding)
    assert (twice.status, "already assigned to node" in twice.tree["message"]) == (409, True)

    marked = call("DELETE", pods + "/runs").tree
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    sooner = call("DELETE", pods + "/runs", {"gracePeriodSeconds": 5}).tree
    assert sooner["metadata"]["deletionGracePeriodSeconds"] == 5
    assert sooner["metadata"]["deletionTimestamp"] < marked["metadata"]["deletionTimestamp"]
    later = call("DELETE", pods + "/runs", {"gracePeriodSeconds": 60}).tree
    assert later["metadata"]["deletionGracePeriodSeconds"] == 5
    call("DELETE", pods + "/runs", {"gracePeriodSeconds": 0, "preconditions": {"uid": bound["metadata"]["uid"]}})
    assert call("GET", pods + "/runs").status == 404


def test_delete_collection(call: Any, namespace: str) -> None:
    for name in ("a1", "a2", "b1"):
        call("POST", path(namespace), config_map(name))
    got = call("DELETE", path(namespace) + "?labelSelector=app%3Da")
    assert [one["metadata"]["name"] for one in got.tree["items"]] == ["a1", "a2"]
    assert [one["metadata"]["name"] for one in call("GET", path(namespace)).tree["items"]] == ["b1"]


def test_what_the_cloud_still_uses_is_not_deleted(call: Any) -> None:
    cloud = "/apis/compute.podwire.dev/v1"
    address = call("POST", f"{cloud}/addresses", {"metadata": {"name": "shop"}}).tree["spec"]["address"]
    assert call("POST", f"{cloud}/addresses", {"metadata": {"name": "free"}}).status == 201
    for name, ip in (("web", address), ("elsewhere", "203.0.113.250")):
        rule = {"metadata": {"name": name}, "spec": {"ipAddress": ip, "target": "pool"}}
        assert call("POST", f"{cloud}/forwardingrules", rule).status == 201
    for path in ("addresses/shop", "addresses/shop?dryRun=All", "addresses"):
        got = call("DELETE", f"{cloud}/{path}")
        assert (got.status, got.tree["reason"]) == (400, "resourceInUseByAnotherResource")
        assert got.tree["message"] == "The address resource 'addresses/shop' is already being used by 'forwardingRules/web'"
    assert "deletionTimestamp" not in call("GET", f"{cloud}/addresses/shop").tree["metadata"]
    assert call("DELETE", f"{cloud}/addresses/free").status == 200
    assert call("DELETE", f"{cloud}/forwardingrules/web").status == 200
    assert call("DELETE", f"{cloud}/addresses/shop").status == 200


def test_a_namespace_ends_when_its_controller_says_so(call: Any, namespace: str) -> None:
    assert call("DELETE", f"/api/v1/namespaces/{namespace}").tree["status"]["phase"] == "Terminating"
    refused = call("POST", path(namespace), config_map("a"))
    assert (refused.status, refused.tree["reason"]) == (403, "Forbidden")
    assert f"unable to create new content in namespace {namespace} because it is being terminated" in refused.tree["message"]
    held = call("GET", f"/api/v1/namespaces/{namespace}").tree
    assert held["spec"]["finalizers"] == ["kubernetes"]
    assert call("PUT", f"/api/v1/namespaces/{namespace}/finalize", held | {"spec": {}}).status == 200
    assert call("GET", f"/api/v1/namespaces/{namespace}").status == 404
    nowhere = call("POST", path(namespace), config_map("a"))
    assert (nowhere.status, nowhere.tree["message"]) == (404, f'namespaces "{namespace}" not found')
    assert call("DELETE", "/api/v1/namespaces/default").status == 403


def test_all_errors_at_once(call: Any, namespace: str) -> None:
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 99999}], "type": "Wrong"}}
    got = call("POST", path(namespace, plural="services"), service)
    assert (got.status, got.tree["reason"]) == (422, "Invalid")
    causes = {cause["field"]: cause["message"] for cause in got.tree["details"]["causes"]}
    assert causes["spec.ports[0].port"] == "Invalid value: 99999: must be between 1 and 65535, inclusive"
    assert "spec.type" in causes


def test_what_every_cluster_holds(call: Any) -> None:
    service = call("GET", "/api/v1/namespaces/default/services/kubernetes").tree
    assert (service["spec"]["clusterIP"], service["spec"]["ports"][0]["port"]) == ("10.8.0.1", 443)
    endpoints = call("GET", "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").tree
    assert (endpoints["endpoints"][0]["addresses"], endpoints["ports"][0]["port"]) == (["10.127.0.2"], 443)
    names = [one["metadata"]["name"] for one in call("GET", "/api/v1/namespaces").tree["items"]]
    assert {"default", "kube-system", "kube-public", "kube-node-lease"} <= set(names)
    assert call("GET", "/version").tree["gitVersion"] == KUBERNETES_VERSION


def test_the_version_is_that_of_the_schemas(server: ApiServer) -> None:
    from podwire.apiserver.definitions import kubernetes_version

    assert f"v{kubernetes_version()}" == KUBERNETES_VERSION
