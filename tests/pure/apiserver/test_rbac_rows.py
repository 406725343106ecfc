"""What a role or a binding may not be, in upstream's words."""

from __future__ import annotations

from typing import Any

import pytest

from podwire.apiserver.registry import REGISTRY

Tree = dict[str, Any]
GROUP = "rbac.authorization.k8s.io"
POD = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
REFERENCE = {"apiGroup": GROUP, "kind": "ClusterRole", "name": "view"}
USER = {"kind": "User", "apiGroup": GROUP, "name": "ann"}


def errors(plural: str, **fields: Any) -> list[str]:
    kind = REGISTRY.find(GROUP, "v1", plural)
    assert kind is not None
    metadata = {"name": "x", **({"namespace": "shop"} if kind.namespaced else {})}
    return [f"{error.field}: {error.message}" for error in kind.check({"metadata": metadata, **fields}, None)]


@pytest.mark.parametrize(
    ("plural", "fields", "expected"),
    [
        ("roles", {"rules": [POD]}, []),
        ("roles", {"rules": [{**POD, "verbs": []}]}, ["rules[0].verbs: Required value: verbs must contain at least one value"]),
        (
            "roles",
            {"rules": [{"verbs": ["get"]}]},
            [
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ],
        ),
        (
            "roles",
            {"rules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]},
            ['rules[0].nonResourceURLs: Invalid value: ["/x"]: namespaced rules cannot apply to non-resource URLs'],
        ),
        (
            "clusterroles",
            {"rules": [{**POD, "nonResourceURLs": ["/x"]}]},
            ['rules[0].nonResourceURLs: Invalid value: ["/x"]: rules cannot apply to both regular resources and non-resource URLs'],
        ),
        (
            "clusterroles",
            {"aggregationRule": {}},
            [
                "aggregationRule.clusterRoleSelectors: Required value: "
                "at least one clusterRoleSelector required if aggregationRule is non-nil"
            ],
        ),
        ("clusterroles", {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}}, []),
        ("rolebindings", {"roleRef": REFERENCE, "subjects": [USER, {"kind": "ServiceAccount", "name": "own"}]}, []),
        (
            "clusterrolebindings",
            {"roleRef": REFERENCE, "subjects": [{"kind": "ServiceAccount", "name": "own"}]},
            ["subjects[0].namespace: Required value"],
        ),
        (
            "clusterrolebindings",
            {"roleRef": {**REFERENCE, "kind": "Role"}, "subjects": [USER]},
            ['roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole"'],
        ),
        (
            "rolebindings",
            {"roleRef": REFERENCE, "subjects": [{**USER, "apiGroup": "x"}, {"kind": "Team", "name": "a"}]},
            [
                f'subjects[0].apiGroup: Unsupported value: "x": supported values: "{GROUP}"',
                'subjects[1].kind: Unsupported value: "Team": supported values: "Group", "ServiceAccount", "User"',
            ],
        ),
        (
            "rolebindings",
            {"roleRef": REFERENCE, "subjects": [{"kind": "ServiceAccount", "name": "own", "apiGroup": GROUP}]},
            [f'subjects[0].apiGroup: Unsupported value: "{GROUP}": supported values: ""'],
        ),
    ],
)
def test_rows(plural: str, fields: Tree, expected: list[str]) -> None:
    assert errors(plural, **fields) == expected


def test_a_binding_keeps_its_role() -> None:
    kind = REGISTRY.find(GROUP, "v1", "rolebindings")
    assert kind is not None
    old = {"metadata": {"name": "x", "namespace": "shop", "uid": "u", "resourceVersion": "1"}, "roleRef": REFERENCE, "subjects": [USER]}
    [error] = kind.check({**old, "roleRef": {**REFERENCE, "name": "edit"}}, old)
    assert error.message.endswith("cannot change roleRef")
