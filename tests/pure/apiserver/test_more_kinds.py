# ruff: noqa: E501  (messages are written whole, so that they can be searched for)
"""Rules and columns of the kinds beyond Pods, Services and Deployments."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from podwire.apiserver import schema, tables
from podwire.apiserver.kind import Kind
from podwire.apiserver.registry import REGISTRY

MANIFESTS = Path(__file__).parents[4] / "shared" / "manifests" / "online-boutique"
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def kind(plural: str) -> Kind:
    return next(one for one in REGISTRY if one.plural == plural)


def made(plural: str, name: str = "x", **fields: Any) -> dict[str, Any]:
    row = kind(plural)
    tree: dict[str, Any] = {"metadata": {"name": name, "uid": "u", "creationTimestamp": "2026-01-01T23:55:00Z"}, **copy.deepcopy(fields)}
    if row.namespaced:
        tree["metadata"]["namespace"] = "default"
    assert schema.prune_and_check(row, tree) == []
    row.for_create(tree)
    return tree


def errors(plural: str, name: str = "x", **fields: Any) -> list[str]:
    return [str(error) for error in kind(plural).check(made(plural, name, **fields), None)]


POD = {"containers": [{"name": "a", "image": "nginx"}]}
WEB = {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": POD}}
ONCE = {"spec": {**POD, "restartPolicy": "Never"}}
JOB = {"template": ONCE}
BACKEND = {"service": {"name": "web", "port": {"number": 80}}}

RIGHT: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "statefulsets": ({"spec": {**WEB, "serviceName": "web"}}, ["x", "0/1", "5m", "a", "nginx"]),
    "daemonsets": ({"spec": WEB}, ["x", 0, 0, 0, 0, 0, "<none>", "5m", "a", "nginx", "app=web"]),
    "replicationcontrollers": ({"spec": {"template": WEB["template"]}}, ["x", 1, 0, 0, "5m", "a", "nginx", "app=web"]),
    "jobs": ({"spec": JOB}, ["x", "Running", "0/1", "", "5m", "a", "nginx", "batch.kubernetes.io/controller-uid=u"]),
    "cronjobs": (
        {"spec": {"schedule": "@daily", "jobTemplate": {"spec": JOB}}},
        ["x", "@daily", "<none>", "False", 0, "<none>", "5m", "a", "nginx", "<none>"],
    ),
    "ingresses": ({"spec": {"defaultBackend": BACKEND}}, ["x", "<none>", "*", "", "80", "5m"]),
    "ingressclasses": ({"spec": {"controller": "k8s.io/gce"}}, ["x", "k8s.io/gce", "<none>", "5m"]),
    "networkpolicies": ({"spec": {"podSelector": {"matchLabels": {"a": "b"}}}}, ["x", "a=b", "5m"]),
    "servicecidrs": ({"spec": {"cidrs": ["10.9.0.0/24"]}}, ["x", "10.9.0.0/24", "5m"]),
    "poddisruptionbudgets": ({"spec": {"minAvailable": 1}}, ["x", "1", "N/A", 0, "5m"]),
    "horizontalpodautoscalers": (
        {"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "web"}}},
        ["x", "Deployment/web", "cpu: <unknown>/80%", "1", 3, 0, "5m"],
    ),
    "roles": ({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}, ["x", "2026-01-01T23:55:00Z"]),
    "rolebindings": (
        {"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]},
        ["x", "Role/r", "5m", "u", "", ""],
    ),
    "persistentvolumes": (
        {"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}},
        ["x", "1Gi", "RWO", "Retain", "Pending", "", "", "<unset>", "", "5m", "Filesystem"],
    ),
    "persistentvolumeclaims": (
        {"spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}},
        ["x", "Pending", "", "", "", "", "<unset>", "5m", "Filesystem"],
    ),
    "storageclasses": ({"provisioner": "a.b/c"}, ["x", "a.b/c", "Delete", "Immediate", False, "5m"]),
    "runtimeclasses": (
        {"handler": "gvisor", "overhead": {"podFixed": {"cpu": "250m"}}, "scheduling": {"nodeSelector": {"a": "b"}}},
        ["x", "gvisor", "5m"],
    ),
    "priorityclasses": ({"value": 5}, ["x", 5, False, "5m", "PreemptLowerPriority"]),
    "resourcequotas": ({"spec": {"hard": {"pods": "4"}}}, ["x", "", "", "5m"]),
    "limitranges": ({"spec": {"limits": [{"type": "Pod"}]}}, ["x", "2026-01-01T23:55:00Z"]),
}


@pytest.mark.parametrize("plural", RIGHT)
def test_what_is_right_is_stored_and_printed(plural: str) -> None:
    fields, cells = RIGHT[plural]
    assert errors(plural, **fields) == []
    tree = made(plural, **fields)
    assert tables.row(kind(plural), tree, NOW)["cells"] == cells
    again = copy.deepcopy(tree)
    kind(plural).for_update(again, tree)
    assert again == tree
    assert kind(plural).check(again, tree) == []


@pytest.mark.parametrize(
    ("plural", "fields", "expected"),
    [
        ("daemonsets", {"spec": {**WEB, "updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}}, ["spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0 when maxSurge is 0"]),
        ("statefulsets", {"spec": {**WEB, "podManagementPolicy": "X"}}, ['spec.podManagementPolicy: Unsupported value: "X": supported values: "OrderedReady", "Parallel"']),
        ("replicationcontrollers", {"spec": {"selector": {"a": "b"}, "template": WEB["template"]}}, ['spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`']),
        ("jobs", {"spec": {"template": {"spec": POD}}}, ['spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"']),
        ("jobs", {"spec": {**JOB, "backoffLimit": -1}}, ["spec.backoffLimit: Invalid value: -1: must be greater than or equal to 0"]),
        ("cronjobs", {"spec": {"schedule": "* *", "jobTemplate": {"spec": JOB}}}, ["spec.schedule: Invalid value: \"* *\": expected exactly 5 fields, found 2: [* *]"]),
        ("ingresses", {"spec": {}}, ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"]),
        ("ingresses", {"spec": {"rules": [{"http": {"paths": [{"path": "x", "pathType": "Prefix", "backend": BACKEND}]}}]}}, ['spec.rules[0].http.paths[0].path: Invalid value: "x": must be an absolute path']),
        ("ingresses", {"spec": {"rules": [{"http": {"paths": [{"backend": {}}]}}]}}, ["spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified", "spec.rules[0].http.paths[0].backend: Required value: cannot specify neither a service nor a resource backend"]),
        ("ingressclasses", {"spec": {"controller": "gce"}}, ['spec.controller: Invalid value: "gce": must be a domain-prefixed path (such as "acme.io/foo")']),
        ("networkpolicies", {"spec": {"podSelector": {}, "ingress": [{"from": [{}]}]}}, ["spec.ingress[0].from[0]: Required value: must specify a peer"]),
        ("networkpolicies", {"spec": {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}}]}]}}, ['spec.egress[0].to[0].ipBlock.except[0]: Invalid value: "11.0.0.0/8": must be a strict subset of `cidr`']),
        ("networkpolicies", {"spec": {"ingress": [{"ports": [{"port": 80, "endPort": 70}]}]}}, ["spec.ingress[0].ports[0].endPort: Invalid value: 70: must be greater than or equal to `port`"]),
        ("servicecidrs", {"spec": {}}, ["spec.cidrs: Required value: at least one CIDR required"]),
        ("poddisruptionbudgets", {"spec": {"minAvailable": 1, "maxUnavailable": 1}}, ['spec: Invalid value: {"minAvailable":1,"maxUnavailable":1}: minAvailable and maxUnavailable cannot be both set']),
        ("horizontalpodautoscalers", {"spec": {"maxReplicas": 1, "minReplicas": 2, "scaleTargetRef": {"kind": "D", "name": "d"}}}, ["spec.maxReplicas: Invalid value: 1: must be greater than or equal to `minReplicas`"]),
        ("roles", {"rules": [{"verbs": ["get"]}]}, ["rules[0].apiGroups: Required value: resource rules must supply at least one api group", "rules[0].resources: Required value: resource rules must supply at least one resource"]),
        ("clusterrolebindings", {"roleRef": {"kind": "Role", "name": "r"}}, ['roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"']),
        ("persistentvolumeclaims", {"spec": {}}, ["spec.accessModes: Required value: at least 1 access mode is required", "spec.resources[storage]: Required value"]),
        ("persistentvolumeclaims", {"spec": {"accessModes": ["ReadWriteOncePod", "ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}, ["spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes"]),
        ("storageclasses", {}, ["provisioner: Required value"]),
        ("priorityclasses", {"value": 1000000001}, ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"]),
        ("runtimeclasses", {"handler": "", "scheduling": {"tolerations": [{"key": "a"}, {"key": "a"}]}}, ["handler: Invalid value: \"\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')", 'scheduling.tolerations[1]: Duplicate value: {"key":"a"}']),
        ("runtimeclasses", {"handler": "x", "overhead": {"podFixed": {"cpu": "-1"}}}, ['overhead.podFixed[cpu]: Invalid value: "-1": must be greater than or equal to 0']),
        ("resourcequotas", {"spec": {"hard": {"pods": "-1"}}}, ['spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0']),
    ],
)  # fmt: skip
def test_what_is_refused(plural: str, fields: dict[str, Any], expected: list[str]) -> None:
    assert errors(plural, **fields) == expected


def test_names_by_kind() -> None:
    assert errors("clusterroles", "system:node", rules=RIGHT["roles"][0]["rules"]) == []
    assert errors("clusterroles", "a/b", rules=RIGHT["roles"][0]["rules"]) == ["metadata.name: Invalid value: \"a/b\": may not contain '/'"]
    parent = {"spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "web"}}}
    assert errors("ipaddresses", "10.8.0.1", **parent) == []
    assert errors("ipaddresses", "FD00::1", **parent) == [
        'metadata.name: Invalid value: "FD00::1": must be an IP address in canonical form'
    ]
    assert tables.row(kind("ipaddresses"), made("ipaddresses", "10.8.0.1", **parent), NOW)["cells"] == [
        "10.8.0.1",
        "services/default/web",
        "5m",
    ]
    assert errors("cronjobs", "x" * 53, **RIGHT["cronjobs"][0]) == [
        f'metadata.name: Invalid value: "{"x" * 53}": must be no more than 52 characters'
    ]


def test_a_role_reference_and_a_stateful_sets_name_never_change() -> None:
    old = made("rolebindings", **RIGHT["rolebindings"][0])
    new = copy.deepcopy(old)
    new["roleRef"]["name"] = "other"
    [error] = kind("rolebindings").check(new, old)
    assert str(error).endswith("cannot change roleRef")
    old = made("statefulsets", **RIGHT["statefulsets"][0])
    new = copy.deepcopy(old)
    new["spec"]["serviceName"] = "other"
    [error] = kind("statefulsets").check(new, old)
    assert str(error).startswith("spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template',")
    new = copy.deepcopy(old)
    new["spec"]["replicas"] = 5
    assert kind("statefulsets").check(new, old) == []


def test_real_network_policies_are_right() -> None:
    row = kind("networkpolicies")
    found = 0
    for path in sorted(MANIFESTS.glob("network-policy-*.yaml")):
        for tree in filter(None, yaml.safe_load_all(path.read_text())):
            tree["metadata"]["namespace"] = "default"
            assert schema.prune_and_check(row, tree) == []
            row.for_create(tree)
            assert row.check(tree, None) == []
            found += 1
    assert found == 13


def test_a_policy_that_is_not_enforced_is_said_to_be_so() -> None:
    tree = {"metadata": {"name": "deny", "namespace": "default"}, "spec": {"podSelector": {}}}
    assert kind("networkpolicies").warnings(tree, None) == [
        "NetworkPolicies are stored, and not enforced by this version of podwire: every packet passes"
    ]
