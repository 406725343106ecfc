"""Rows of the group rbac.authorization.k8s.io, version v1.

Source: https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from podwire.apiserver.cells import UNKNOWN, age
from podwire.apiserver.kind import AGE, NAME, Column, Kind, Tree
from podwire.apiserver.validation import FieldError, Path, dns_subdomain, invalid, path_segment, required, unsupported
from podwire.apiserver.validation_values import selector_errors

_GROUP, _VERSION, _DEFINITION = "rbac.authorization.k8s.io", "v1", "io.k8s.api.rbac.v1."
_ROLE_COLUMNS = (NAME, Column("Created At", description="When it was made."))
_BINDING_COLUMNS = (
    NAME,
    Column("Role", description="What is allowed."),
    AGE,
    Column("Users", priority=1, description="The users to whom."),
    Column("Groups", priority=1, description="The groups to whom."),
    Column("ServiceAccounts", priority=1, description="The accounts of Pods to whom."),
)


def _role_row(tree: Tree, _now: datetime) -> list[Any]:
    return [tree["metadata"]["name"], tree["metadata"].get("creationTimestamp", UNKNOWN)]


def _binding_row(tree: Tree, now: datetime) -> list[Any]:
    role, subjects = tree.get("roleRef", {}), tree.get("subjects", ())
    named = {kind: [one.get("name", "") for one in subjects if one.get("kind") == kind] for kind in ("User", "Group")}
    accounts = [f"{one.get('namespace', '')}/{one.get('name', '')}" for one in subjects if one.get("kind") == "ServiceAccount"]
    born = age(tree["metadata"].get("creationTimestamp"), now)
    shown = (
        f"{role.get('kind', '')}/{role.get('name', '')}",
        born,
        ", ".join(named["User"]),
        ", ".join(named["Group"]),
        ", ".join(accounts),
    )
    return [tree["metadata"]["name"], *shown]


def _default_binding(tree: Tree) -> None:
    if "roleRef" in tree and not tree["roleRef"].get("apiGroup"):
        tree["roleRef"]["apiGroup"] = _GROUP
    for subject in tree.get("subjects", ()):
        if not subject.get("apiGroup") and subject.get("kind") in ("User", "Group"):
            subject["apiGroup"] = _GROUP


def _validate_role(tree: Tree, _old: Tree | None) -> list[FieldError]:
    errors: list[FieldError] = []
    namespaced = bool(tree["metadata"].get("namespace"))
    for index, rule in enumerate(tree.get("rules", ())):
        path = Path("rules") @ index
        if not rule.get("verbs"):
            errors.append(required(path / "verbs", "verbs must contain at least one value"))
        if rule.get("nonResourceURLs"):
            if namespaced:
                text = "namespaced rules cannot apply to non-resource URLs"
                errors.append(invalid(path / "nonResourceURLs", rule["nonResourceURLs"], text))
            if any(rule.get(field) for field in ("apiGroups", "resources", "resourceNames")):
                text = "rules cannot apply to both regular resources and non-resource URLs"
                errors.append(invalid(path / "nonResourceURLs", rule["nonResourceURLs"], text))
            continue
        if not rule.get("apiGroups"):
            errors.append(required(path / "apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            errors.append(required(path / "resources", "resource rules must supply at least one resource"))
    return errors + _aggregation_errors(tree.get("aggregationRule"))


def _aggregation_errors(rule: Tree | None) -> list[FieldError]:
    if rule is None:
        return []
    path = Path("aggregationRule") / "clusterRoleSelectors"
    selectors = rule.get("clusterRoleSelectors") or []
    if not selectors:
        return [required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil")]
    return [error for index, selector in enumerate(selectors) for error in selector_errors(selector, path @ index)]


def _validate_binding(tree: Tree, old: Tree | None) -> list[FieldError]:
    role, path = tree.get("roleRef", {}), Path("roleRef")
    kinds = ("ClusterRole", "Role") if tree["metadata"].get("namespace") else ("ClusterRole",)
    errors: list[FieldError] = []
    if role.get("apiGroup") != _GROUP:
        errors.append(unsupported(path / "apiGroup", role.get("apiGroup", ""), (_GROUP,)))
    if role.get("kind") not in kinds:
        errors.append(unsupported(path / "kind", role.get("kind", ""), kinds))
    if not role.get("name"):
        errors.append(required(path / "name"))
    for index, subject in enumerate(tree.get("subjects", ())):
        errors += _subject_errors(subject, Path("subjects") @ index, namespaced=bool(tree["metadata"].get("namespace")))
    if old is not None and role != old.get("roleRef"):
        errors.append(invalid(path, role, "cannot change roleRef"))
    return errors


def _subject_errors(subject: Tree, where: Path, *, namespaced: bool) -> list[FieldError]:
    """A ServiceAccount without a namespace is one of the RoleBinding's own."""
    errors: list[FieldError] = []
    kind, name, group = subject.get("kind", ""), subject.get("name", ""), subject.get("apiGroup", "")
    if not name:
        errors.append(required(where / "name"))
    if kind == "ServiceAccount":
        errors += [invalid(where / "name", name, told) for told in (dns_subdomain(name, False) if name else ())]
        if group:
            errors.append(unsupported(where / "apiGroup", group, ("",)))
        if not namespaced and not subject.get("namespace"):
            errors.append(required(where / "namespace"))
    elif kind in ("Group", "User"):
        if group != _GROUP:
            errors.append(unsupported(where / "apiGroup", group, (_GROUP,)))
    else:
        errors.append(unsupported(where / "kind", kind, ("Group", "ServiceAccount", "User")))
    return errors


def _role(plural: str, kind: str, namespaced: bool) -> Kind:
    return Kind(
        _GROUP,
        _VERSION,
        plural,
        kind,
        namespaced,
        _DEFINITION + kind,
        columns=_ROLE_COLUMNS,
        row=_role_row,
        name_errors=path_segment,
        validate=_validate_role,
        generations=False,
    )


def _binding(plural: str, kind: str, namespaced: bool) -> Kind:
    return Kind(
        _GROUP,
        _VERSION,
        plural,
        kind,
        namespaced,
        _DEFINITION + kind,
        columns=_BINDING_COLUMNS,
        row=_binding_row,
        name_errors=path_segment,
        default=_default_binding,
        validate=_validate_binding,
        generations=False,
    )


KINDS = (
    _binding("clusterrolebindings", "ClusterRoleBinding", False),
    _role("clusterroles", "ClusterRole", False),
    _binding("rolebindings", "RoleBinding", True),
    _role("roles", "Role", True),
)
