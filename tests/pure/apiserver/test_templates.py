"""Pods of one template: the second is made as the first was, whatever is remembered."""

from __future__ import annotations

from typing import Any

Tree = dict[str, Any]
SPEC: Tree = {
    "containers": [
        {
            "name": "c",
            "image": "nginx:1.27",
            "ports": [{"containerPort": 80}],
            "resources": {"limits": {"cpu": "500m"}},
            "readinessProbe": {"httpGet": {"port": 80}},
        }
    ],
    "volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}],
}


def path(namespace: str, plural: str = "pods", query: str = "") -> str:
    return f"/api/v1/namespaces/{namespace}/{plural}{query}"


def pod(name: str, labels: Tree | None = None, **spec: Any) -> Tree:
    return {"metadata": {"name": name, "labels": labels or {"app": "web"}}, "spec": {**SPEC, **spec}}


def without_identity(tree: Tree) -> Tree:
    metadata = {key: value for key, value in tree["metadata"].items() if key not in ("name", "uid", "resourceVersion", "creationTimestamp")}
    metadata["managedFields"] = [{**entry, "time": ""} for entry in metadata["managedFields"]]
    return {**tree, "metadata": metadata}


def test_the_second_pod_is_as_the_first(call: Any, namespace: str) -> None:
    made = [call("POST", path(namespace), pod(name)).tree for name in ("a", "b", "c")]
    assert without_identity(made[0]) == without_identity(made[1]) == without_identity(made[2])
    assert made[1]["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "500m"}
    assert (made[1]["status"], made[1]["metadata"]["generation"]) == ({"phase": "Pending", "qosClass": "Burstable"}, 1)
    for selector in ("fieldSelector=status.phase=Pending,spec.restartPolicy=Always", "labelSelector=app=web"):
        found = call("GET", path(namespace, query=f"?{selector}")).tree["items"]
        assert [item["metadata"]["name"] for item in found] == ["a", "b", "c"]
    assert call("GET", path(namespace, query="/b")).tree == made[1]


def test_metadata_are_each_pods_own(call: Any, namespace: str) -> None:
    for name in ("a", "b"):
        call("POST", path(namespace), pod(name))
    other = call("POST", path(namespace), pod("c", {"tier": "front"})).tree
    fields = other["metadata"]["managedFields"][0]["fieldsV1"]
    assert fields["f:metadata"]["f:labels"] == {".": {}, "f:tier": {}}
    assert set(fields["f:spec"]) >= {"f:containers", "f:volumes", "f:restartPolicy"}
    refused = call("POST", path(namespace), pod("d", {"tier": "-"}))
    assert (refused.status, refused.tree["details"]["causes"][0]["field"]) == (422, "metadata.labels")
    assert call("POST", path(namespace), pod("A_b")).status == 422
    assert call("POST", path(namespace), pod("a")).status == 409
    assert call("POST", path("nowhere"), pod("a")).status == 404


def test_who_has_a_say_is_asked(call: Any, namespace: str) -> None:
    for name in ("a", "b"):
        call("POST", path(namespace), pod(name))
    limit = {"type": "Container", "default": {"memory": "64Mi"}}
    call("POST", path(namespace, "limitranges"), {"metadata": {"name": "r"}, "spec": {"limits": [limit]}})
    filled = call("POST", path(namespace), pod("c")).tree["spec"]["containers"][0]["resources"]
    assert filled == {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "500m", "memory": "64Mi"}}
    call("DELETE", path(namespace, "limitranges", "/r"))
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "1200m"}}}
    call("POST", path(namespace, "resourcequotas"), quota)
    answers = [call("POST", path(namespace), pod(name)) for name in ("d", "e", "f", "g")]
    assert [answer.status for answer in answers].count(403) >= 2
    assert "exceeded quota: q" in answers[-1].tree["message"]
    missing = call("POST", path(namespace), pod("h", serviceAccountName="nobody"))
    assert (missing.status, "serviceaccount" in missing.tree["message"]) == (403, True)


def test_what_was_dropped_once_is_refused_when_asked(call: Any, namespace: str) -> None:
    odd = {"containers": SPEC["containers"], "oddity": 1}
    for name in ("a", "b"):
        tree = {"metadata": {"name": name}, "spec": odd}
        assert call("POST", path(namespace, query="?fieldValidation=Ignore"), tree).status == 201
    refused = call("POST", path(namespace, query="?fieldValidation=Strict"), {"metadata": {"name": "c"}, "spec": odd})
    assert (refused.status, 'unknown field "spec.oddity"' in refused.tree["message"]) == (400, True)


def test_a_changed_pod_leaves_its_template_alone(call: Any, namespace: str) -> None:
    for name in ("a", "b"):
        call("POST", path(namespace), pod(name))
    patch = {"spec": {"containers": [{"name": "c", "image": "nginx:1.28"}]}}
    kind = "application/strategic-merge-patch+json"
    assert call("PATCH", path(namespace, query="/b"), patch, content_type=kind).status == 200
    assert call("POST", path(namespace), pod("c")).tree["spec"]["containers"][0]["image"] == "nginx:1.27"
