"""Kinds that extend the API: what is filled in, what is refused and in which words, how it is printed."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import Any

import pytest

from podwire.apiserver import schema
from podwire.apiserver.registry import REGISTRY

Tree = dict[str, Any]
ADMISSION = "admissionregistration.k8s.io"
NOW = datetime(2026, 1, 2, tzinfo=UTC)

RULE: Tree = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
WEBHOOK: Tree = {
    "name": "pods.check.example.com",
    "rules": [RULE],
    "clientConfig": {"service": {"name": "check", "namespace": "default"}},
    "sideEffects": "None",
    "admissionReviewVersions": ["v1"],
}
POLICY: Tree = {"matchConstraints": {"resourceRules": [RULE]}, "validations": [{"expression": "true"}]}
BINDING: Tree = {"policyName": "p", "validationActions": ["Deny"]}
DEFINITION: Tree = {
    "group": "farm.example.com",
    "scope": "Namespaced",
    "names": {"plural": "sheep", "kind": "Sheep", "shortNames": ["sh"]},
    "versions": [
        {
            "name": "v1",
            "served": True,
            "storage": True,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}},
        }
    ],
}


def made(plural: str, tree: Tree, group: str = ADMISSION, name: str = "a") -> tuple[Tree, list[str]]:
    kind = REGISTRY.find(group, "v1", plural)
    assert kind is not None
    tree = {"metadata": {"name": name}, **copy.deepcopy(tree)}
    assert schema.prune_and_check(kind, tree) == []
    kind.for_create(tree)
    return tree, [str(error) for error in kind.check(tree, None)]


def cells(plural: str, tree: Tree, group: str = ADMISSION) -> list[Any]:
    kind = REGISTRY.find(group, "v1", plural)
    assert kind is not None
    return kind.row(tree, NOW)


def test_webhooks_are_filled_in_and_printed() -> None:
    tree, errors = made("mutatingwebhookconfigurations", {"webhooks": [WEBHOOK]})
    assert errors == []
    webhook = tree["webhooks"][0]
    filled = ("failurePolicy", "matchPolicy", "timeoutSeconds", "reinvocationPolicy", "namespaceSelector", "objectSelector")
    assert [webhook[key] for key in filled] == ["Fail", "Equivalent", 10, "Never", {}, {}]
    assert (webhook["rules"][0]["scope"], webhook["clientConfig"]["service"]["port"]) == ("*", 443)
    assert cells("mutatingwebhookconfigurations", tree)[:2] == ["a", 1]
    tree, errors = made("validatingwebhookconfigurations", {"webhooks": [WEBHOOK]})
    assert errors == []
    assert "reinvocationPolicy" not in tree["webhooks"][0]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            {"name": "check"},
            'webhooks[0].name: Invalid value: "check": should be a domain with at least three segments separated by dots',
        ),
        ({"sideEffects": "Some"}, 'webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun"'),
        ({"sideEffects": None}, "webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"),
        ({"admissionReviewVersions": []}, "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1"),
        ({"timeoutSeconds": 31}, "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds"),
        ({"failurePolicy": "Never"}, 'webhooks[0].failurePolicy: Unsupported value: "Never": supported values: "Fail", "Ignore"'),
        ({"clientConfig": {}}, "webhooks[0].clientConfig: Required value: exactly one of url or service is required"),
        (
            {"clientConfig": {"url": "http://a.example/x"}},
            "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; "
            "desired format: https://host[:port]/path",
        ),
        (
            {"clientConfig": {"service": {"name": "c", "namespace": "d", "path": "x"}}},
            "webhooks[0].clientConfig.service.path: Invalid value: \"x\": must start with a '/'",
        ),
        (
            {"rules": [{**RULE, "operations": ["GET"]}]},
            'webhooks[0].rules[0].operations[0]: Unsupported value: "GET": supported values: "*", "CONNECT", "CREATE", "DELETE", "UPDATE"',
        ),
        (
            {"rules": [{**RULE, "apiGroups": ["*", "apps"]}]},
            'webhooks[0].rules[0].apiGroups: Invalid value: ["*","apps"]: if \'*\' is present, must not specify other API groups',
        ),
        ({"rules": [{**RULE, "resources": []}]}, "webhooks[0].rules[0].resources: Required value"),
    ],
)
def test_webhooks_are_refused(change: Tree, wanted: str) -> None:
    assert made("validatingwebhookconfigurations", {"webhooks": [WEBHOOK | change]})[1] == [wanted]


def test_webhooks_of_one_name() -> None:
    errors = made("validatingwebhookconfigurations", {"webhooks": [WEBHOOK, WEBHOOK]})[1]
    assert errors == ['webhooks[1].name: Duplicate value: "pods.check.example.com"']


def test_policies() -> None:
    tree, errors = made("validatingadmissionpolicies", {"spec": POLICY | {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}}})
    assert errors == []
    assert (tree["spec"]["failurePolicy"], tree["spec"]["matchConstraints"]["matchPolicy"]) == ("Fail", "Equivalent")
    assert cells("validatingadmissionpolicies", tree)[:3] == ["a", 1, "v1/ConfigMap"]
    text = "Required value: validations or auditAnnotations must contain at least one item"
    assert made("validatingadmissionpolicies", {"spec": {}})[1] == [
        "spec.matchConstraints: Required value",
        f"spec.validations: {text}",
        f"spec.auditAnnotations: {text}",
    ]
    blank = made("validatingadmissionpolicies", {"spec": POLICY | {"validations": [{"expression": " "}]}})[1]
    assert blank == ["spec.validations[0].expression: Required value: expression is not specified"]


def test_bindings_of_policies() -> None:
    tree, errors = made("validatingadmissionpolicybindings", {"spec": BINDING})
    assert errors == []
    assert cells("validatingadmissionpolicybindings", tree)[:3] == ["a", "p", "<unset>"]
    errors = made("validatingadmissionpolicybindings", {"spec": {"validationActions": ["Deny", "Warn", "Stop"]}})[1]
    assert [error.split(":")[0] for error in errors] == ["spec.policyName", "spec.validationActions[2]", "spec.validationActions"]


def test_a_definition_is_filled_in() -> None:
    tree, errors = made("customresourcedefinitions", {"spec": DEFINITION}, "apiextensions.k8s.io", "sheep.farm.example.com")
    assert errors == []
    assert tree["spec"]["names"] == {**DEFINITION["names"], "singular": "sheep", "listKind": "SheepList"}
    assert tree["spec"]["conversion"] == {"strategy": "None"}
    assert tree["status"]["storedVersions"] == ["v1"]


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            {"group": "farm"},
            [
                'metadata.name: Invalid value: "sheep.farm.example.com": must be spec.names.plural+"."+spec.group',
                'spec.group: Invalid value: "farm": should be a domain with at least one dot',
            ],
        ),
        ({"scope": "World"}, ['spec.scope: Unsupported value: "World": supported values: "Cluster", "Namespaced"']),
        ({"versions": []}, ["spec.versions: Invalid value: []: must have exactly one version marked as storage version"]),
        (
            {"versions": [{"name": "v1", "served": True, "storage": True}]},
            ["spec.validation.openAPIV3Schema: Required value: schemas are required"],
        ),
        (
            {"names": {**DEFINITION["names"], "listKind": "Sheep"}},
            ['spec.names.listKind: Invalid value: "Sheep": kind and listKind may not be the same'],
        ),
    ],
)
def test_a_definition_is_refused(change: Tree, wanted: list[str]) -> None:
    name = "sheep.farm.example.com"
    assert made("customresourcedefinitions", {"spec": DEFINITION | change}, "apiextensions.k8s.io", name)[1] == wanted


def test_every_value_of_a_definition_has_a_type() -> None:
    properties = {"a": {"description": "?"}, "b": {"type": "array"}, "c": {"x-kubernetes-int-or-string": True}, "d": {"type": "integer"}}
    versions = [DEFINITION["versions"][0] | {"schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}}]
    errors = made(
        "customresourcedefinitions", {"spec": DEFINITION | {"versions": versions}}, "apiextensions.k8s.io", "sheep.farm.example.com"
    )
    where = "spec.validation.openAPIV3Schema.properties"
    assert errors[1] == [
        f"{where}[a].type: Required value: must not be empty for specified object fields",
        f"{where}[b].items: Required value: must be specified",
    ]


def test_protected_groups_want_an_approval() -> None:
    errors = made("customresourcedefinitions", {"spec": DEFINITION | {"group": "x.k8s.io"}}, "apiextensions.k8s.io", "sheep.x.k8s.io")[1]
    assert [error.split(" must")[0] for error in errors] == [
        "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups"
    ]
