"""Kinds in two versions: what is written in one is read in the other, and messages speak the client's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

Tree = dict[str, Any]
OLD = "/apis/extensions/v1beta1/namespaces/{}/ingresses"
NEW = "/apis/networking.k8s.io/v1/namespaces/{}/ingresses"
MERGE = "application/merge-patch+json"

# As the page writes it.
DEMO: Tree = {
    "apiVersion": "extensions/v1beta1",
    "kind": "Ingress",
    "metadata": {"name": "demo"},
    "spec": {
        "rules": [
            {"host": "demo.example.com", "http": {"paths": [{"backend": {"serviceName": "frontend", "servicePort": 80}}]}},
            {"host": "demo-backend.example.com", "http": {"paths": [{"backend": {"serviceName": "users", "servicePort": 8080}}]}},
        ]
    },
}


def paths(tree: Tree) -> list[Tree]:
    return [path for rule in tree["spec"]["rules"] for path in rule["http"]["paths"]]


def test_the_pages_ingress_is_kept_and_shown_in_both_versions(call: Any, namespace: str) -> None:
    made = call("POST", OLD.format(namespace), DEMO)
    assert made.status == 201, made
    assert "extensions/v1beta1 Ingress is deprecated" in made.headers["warning"]
    assert made.tree["apiVersion"] == "extensions/v1beta1"
    backend = {"serviceName": "frontend", "servicePort": 80}
    assert paths(made.tree)[0] == {"backend": backend}
    stored = call("GET", NEW.format(namespace) + "/demo").tree
    service = {"service": {"name": "users", "port": {"number": 8080}}}
    assert paths(stored)[1] == {"backend": service, "pathType": "ImplementationSpecific"}
    assert stored["metadata"]["uid"] == made.tree["metadata"]["uid"]
    again = call("GET", OLD.format(namespace) + "/demo").tree
    assert again == made.tree
    listed = call("GET", OLD.format(namespace)).tree
    assert (listed["kind"], listed["apiVersion"], listed["items"]) == ("IngressList", "extensions/v1beta1", [again])
    everywhere = call("GET", "/apis/extensions/v1beta1/ingresses?fieldSelector=metadata.name=demo").tree
    assert again in everywhere["items"]


def test_update_patch_status_and_delete(call: Any, namespace: str) -> None:
    old, new = OLD.format(namespace), NEW.format(namespace)
    call("POST", old, DEMO)
    tree = call("GET", f"{old}/demo").tree
    tree["spec"]["backend"] = {"serviceName": "other", "servicePort": "http"}
    assert call("PUT", f"{old}/demo", tree).status == 200
    assert call("GET", f"{new}/demo").tree["spec"]["defaultBackend"] == {"service": {"name": "other", "port": {"name": "http"}}}
    assert call("PUT", f"{old}/demo", tree).status == 409
    got = call("PATCH", f"{old}/demo", {"spec": {"backend": {"servicePort": 90}}}, content_type=MERGE)
    assert got.tree["spec"]["backend"] == {"serviceName": "other", "servicePort": 90}
    state = {"status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}}
    assert call("PATCH", f"{old}/demo/status", state, content_type=MERGE).tree["status"] == state["status"]
    assert call("GET", f"{new}/demo").tree["status"] == state["status"]
    dry = call("DELETE", f"{old}/demo?dryRun=All")
    assert dry.status == 200
    gone = call("DELETE", f"{old}/demo")
    assert (gone.tree["status"], gone.tree["details"]["group"]) == ("Success", "extensions")
    missing = call("GET", f"{old}/demo")
    assert (missing.status, missing.tree["message"]) == (404, 'ingresses.extensions "demo" not found')
    assert missing.tree["details"]["group"] == "extensions"


def test_refusals_speak_the_clients_version(call: Any, namespace: str) -> None:
    tree = json.loads(json.dumps(DEMO))
    paths(tree)[0]["backend"] = {"serviceName": "frontend", "servicePort": 70000}
    got = call("POST", OLD.format(namespace), tree)
    where = "spec.rules[0].http.paths[0].backend.servicePort"
    assert got.status == 422
    wanted = f'Ingress.extensions "demo" is invalid: {where}: Invalid value: 70000: must be between 1 and 65535, inclusive'
    assert got.tree["message"] == wanted
    assert got.tree["details"]["causes"][0]["field"] == where
    unknown = call("POST", OLD.format(namespace) + "?fieldValidation=Strict", DEMO | {"spec": {"defaultBackend": {}}})
    assert unknown.status == 400
    assert 'unknown field "spec.defaultBackend"' in unknown.tree["message"]
    assert call("POST", OLD.format(namespace), DEMO | {"apiVersion": "networking.k8s.io/v1"}).status == 400


def test_a_table_and_its_objects(call: Any, namespace: str) -> None:
    call("POST", OLD.format(namespace), DEMO)
    accept = {"accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
    table = call("GET", OLD.format(namespace) + "?includeObject=Object", headers=accept).tree
    assert table["rows"][0]["cells"][:3] == ["demo", "<none>", "demo.example.com,demo-backend.example.com"]
    assert table["rows"][0]["object"]["apiVersion"] == "extensions/v1beta1"


def test_a_watch(call: Any, namespace: str) -> None:
    call(
        "POST",
        NEW.format(namespace),
        {"metadata": {"name": "n"}, "spec": {"defaultBackend": {"service": {"name": "a", "port": {"number": 1}}}}},
    )
    watch = f"{OLD.format(namespace)}?watch=true&timeoutSeconds=1"
    event = call("GET", watch).tree  # one line: one object
    assert (event["type"], event["object"]["apiVersion"]) == ("ADDED", "extensions/v1beta1")
    assert event["object"]["spec"] == {"backend": {"serviceName": "a", "servicePort": 1}}
    initial = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    bookmark = call("GET", f"{watch}&{initial}&labelSelector=none=such").tree
    assert (bookmark["type"], bookmark["object"]["apiVersion"]) == ("BOOKMARK", "extensions/v1beta1")


def test_events_in_both_versions(call: Any, namespace: str) -> None:
    new = {
        "metadata": {"name": "e"},
        "eventTime": "2026-01-02T03:04:05.000006Z",
        "reportingController": "example.com/c",
        "reportingInstance": "c-1",
        "action": "Start",
        "reason": "Started",
        "type": "Normal",
        "regarding": {"kind": "Pod", "name": "web", "namespace": namespace},
        "note": "it runs",
    }
    path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    made = call("POST", path, new)
    assert made.status == 201, made
    core = call("GET", f"/api/v1/namespaces/{namespace}/events/e").tree
    assert (core["message"], core["involvedObject"]["name"], core["reportingComponent"]) == ("it runs", "web", "example.com/c")
    chosen = call("GET", f"{path}?fieldSelector=regarding.name=web,reportingController=example.com/c").tree
    assert [one["note"] for one in chosen["items"]] == ["it runs"]
    assert call("GET", f"{path}?fieldSelector=regarding.name=other").tree["items"] == []
    lacking = call("POST", path, {key: value for key, value in new.items() if key != "action"} | {"metadata": {"name": "f"}})
    assert lacking.tree["message"] == 'Event.events.k8s.io "f" is invalid: action: Required value'
    older = call(
        "POST",
        f"/api/v1/namespaces/{namespace}/events",
        {
            "metadata": {"name": "g"},
            "involvedObject": {"kind": "Pod", "name": "web", "namespace": namespace},
            "message": "m",
            "source": {"component": "k"},
            "firstTimestamp": "2026-01-02T03:04:05Z",
            "count": 3,
        },
    )
    assert older.status == 201
    shown = call("GET", f"{path}/g").tree
    assert (shown["note"], shown["deprecatedSource"], shown["deprecatedCount"]) == ("m", {"component": "k"}, 3)


@pytest.mark.parametrize("place", ["extensions/v1beta1", "events.k8s.io/v1", "admissionregistration.k8s.io/v1", "authorization.k8s.io/v1"])
def test_each_version_is_described(call: Any, place: str) -> None:
    document = call("GET", f"/openapi/v3/apis/{place}").tree
    assert document["components"]["schemas"]
    assert {resource["kind"] for resource in call("GET", f"/apis/{place}").tree["resources"]}


def test_kubectl_takes_the_page_at_its_word(kubectl: Any, tmp_path: Path) -> None:
    manifest = tmp_path / "ingress.json"
    manifest.write_text(json.dumps(DEMO))
    first = kubectl("apply", "-f", str(manifest))
    assert first.stdout == "ingress.extensions/demo created\n", first.stderr
    assert kubectl("apply", "-f", str(manifest)).stdout == "ingress.extensions/demo unchanged\n"
    changed = json.loads(json.dumps(DEMO))
    paths(changed)[0]["backend"]["servicePort"] = 81
    manifest.write_text(json.dumps(changed))
    second = kubectl("apply", "-f", str(manifest))
    assert second.stdout == "ingress.extensions/demo configured\n", second.stderr
    described = kubectl("describe", "ingress", "demo").stdout
    assert "frontend:81" in described
    assert "users:8080" in described
    assert "demo.example.com" in kubectl("get", "ingress", "demo").stdout
    assert "apiVersion: extensions/v1beta1" in kubectl("get", "ingresses.v1beta1.extensions", "demo", "-o", "yaml").stdout
    explained = kubectl("explain", "ingress.spec.rules.http.paths.backend", "--api-version=extensions/v1beta1").stdout
    assert "servicePort" in explained
    assert kubectl("delete", "-f", str(manifest)).stdout.startswith('ingress.extensions "demo" deleted')


METRICS: list[Tree] = [
    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 60}}},
    {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "100Mi"}}},
    {
        "type": "ContainerResource",
        "containerResource": {"name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 5}},
    },
    {
        "type": "Pods",
        "pods": {
            "metric": {"name": "rate", "selector": {"matchLabels": {"a": "b"}}},
            "target": {"type": "AverageValue", "averageValue": "3"},
        },
    },
    {
        "type": "Object",
        "object": {
            "describedObject": {"kind": "Service", "name": "s"},
            "metric": {"name": "hits"},
            "target": {"type": "Value", "value": "10"},
        },
    },
    {
        "type": "External",
        "external": {
            "metric": {"name": "queue", "selector": {"matchLabels": {"a": "b"}}},
            "target": {"type": "AverageValue", "averageValue": "1"},
        },
    },
]


def test_autoscalers_in_both_versions(call: Any, namespace: str) -> None:
    old, new = (f"/apis/autoscaling/{version}/namespaces/{namespace}/horizontalpodautoscalers" for version in ("v1", "v2"))
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}
    simple = call(
        "POST", old, {"metadata": {"name": "a"}, "spec": {"scaleTargetRef": target, "maxReplicas": 3, "targetCPUUtilizationPercentage": 70}}
    )
    assert simple.status == 201, simple
    assert simple.tree["spec"] == {"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": 70}
    use = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}
    assert call("GET", f"{new}/a").tree["spec"]["metrics"] == [{"type": "Resource", "resource": use}]
    spec = {
        "scaleTargetRef": target,
        "maxReplicas": 3,
        "minReplicas": 1,
        "metrics": METRICS,
        "behavior": {"scaleUp": {"stabilizationWindowSeconds": 5}},
    }
    made = call("POST", new, {"metadata": {"name": "b"}, "spec": spec})
    assert made.status == 201, made
    shown = call("GET", f"{old}/b").tree
    assert shown["spec"]["targetCPUUtilizationPercentage"] == 60
    metrics = json.loads(shown["metadata"]["annotations"]["autoscaling.alpha.kubernetes.io/metrics"])
    assert metrics[0] == {"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "100Mi"}}
    shown["spec"]["maxReplicas"] = 4
    assert call("PUT", f"{old}/b", shown).status == 200
    back = call("GET", f"{new}/b").tree
    assert back["spec"] == made.tree["spec"] | {"maxReplicas": 4}
    assert back["spec"]["behavior"]["scaleUp"]["stabilizationWindowSeconds"] == 5
    assert "annotations" not in back["metadata"]
    refused = call("POST", old, {"metadata": {"name": "c"}, "spec": {"scaleTargetRef": target, "maxReplicas": 0}})
    assert "spec.maxReplicas: Invalid value: 0: must be greater than 0" in refused.tree["message"]


@pytest.mark.parametrize("body", [b"[]", b"{", b'"x"', b"{}", b'{"spec": "x"}', b'{"spec": {"rules": "x"}}', b'{"spec": {"rules": [1]}}'])
@pytest.mark.parametrize("media", ["application/json", MERGE, "application/apply-patch+yaml", "application/strategic-merge-patch+json"])
def test_what_is_no_object_of_the_version_is_told(call: Any, namespace: str, body: bytes, media: str) -> None:
    path = OLD.format(namespace)
    if media == "application/json":
        assert 400 <= call("POST", path, body).status < 500
    else:
        call("POST", path, DEMO)
        assert call("PATCH", f"{path}/demo?fieldManager=t", body, content_type=media).status < 500


def test_applied_on_the_servers_side(kubectl: Any, tmp_path: Path) -> None:
    manifest = tmp_path / "ingress.json"
    manifest.write_text(json.dumps(DEMO | {"metadata": {"name": "applied"}}))
    for _ in range(2):
        got = kubectl("apply", "--server-side", "-f", str(manifest))
        assert got.stdout == "ingress.extensions/applied serverside-applied\n", got.stderr
    assert (
        kubectl("get", "ingress", "applied", "-o", "jsonpath={.spec.rules[1].http.paths[0].backend.service.port.number}").stdout == "8080"
    )
