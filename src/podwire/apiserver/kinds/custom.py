"""The row of the group apiextensions.k8s.io, version v1: CustomResourceDefinition.

Here: how a kind is defined. It is stored, checked and printed. Not here: the serving of what it defines.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from podwire.apiserver.cells import UNKNOWN
from podwire.apiserver.kind import NAME, STATUS, Column, Kind, Tree
from podwire.apiserver.kinds.webhook_client import client_errors, default_client
from podwire.apiserver.validation import (
    IMMUTABLE,
    FieldError,
    Path,
    dns_1035_label,
    dns_subdomain,
    forbidden,
    invalid,
    required,
    unsupported,
)
from podwire.apiserver.validation_values import one_of

_SPEC = Path("spec")
_NAMES, _VERSIONS = _SPEC / "names", _SPEC / "versions"
_PROTECTED = (".k8s.io", ".kubernetes.io")
_APPROVED = "api-approved.kubernetes.io"
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_MIXED = "may have mixed case, but should otherwise match: "


def _row(tree: Tree, _now: datetime) -> list[Any]:
    return [tree["metadata"]["name"], tree["metadata"].get("creationTimestamp", UNKNOWN)]


def _default(tree: Tree) -> None:
    spec = tree.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if kind := names.get("kind"):
        names.setdefault("singular", kind.lower())
        names.setdefault("listKind", f"{kind}List")
    conversion = spec.setdefault("conversion", {})
    conversion.setdefault("strategy", "None")
    default_client(conversion.get("webhook", {}).get("clientConfig", {}))


def _prepare_create(tree: Tree) -> None:
    """A new definition has stored nothing but in the version that it names."""
    stored = [version["name"] for version in tree["spec"].get("versions", ()) if version.get("storage") and version.get("name")]
    tree["status"] = {"acceptedNames": {"kind": "", "plural": ""}, "storedVersions": stored}


def _prepare_update(tree: Tree, _old: Tree) -> None:
    """A version that has become the one that is stored counts as one in which something is stored."""
    stored = tree.setdefault("status", {}).setdefault("storedVersions", [])
    names = (version.get("name", "") for version in tree["spec"].get("versions", ()) if version.get("storage"))
    tree["status"]["storedVersions"] = [*stored, *(name for name in names if name and name not in stored)]


def _validate(tree: Tree, old: Tree | None) -> list[FieldError]:
    spec = tree["spec"]
    group, plural = spec.get("group", ""), spec["names"].get("plural", "")
    name = tree["metadata"].get("name", "")
    errors: list[FieldError] = []
    if name != f"{plural}.{group}":
        errors.append(invalid(Path("metadata") / "name", name, 'must be spec.names.plural+"."+spec.group'))
    errors += _group_errors(group, tree["metadata"].get("annotations", {}))
    errors += one_of(spec.get("scope", ""), ("Cluster", "Namespaced"), _SPEC / "scope")
    errors += _versions_errors(spec.get("versions", []))
    errors += _names_errors(spec["names"])
    errors += _conversion_errors(spec["conversion"])
    return errors + (_changes(spec, old["spec"]) if old is not None else [])


def _group_errors(group: str, annotations: Tree) -> list[FieldError]:
    path = _SPEC / "group"
    if not group:
        return [required(path)]
    if texts := dns_subdomain(group):
        return [invalid(path, group, ",".join(texts))]
    if "." not in group:
        return [invalid(path, group, "should be a domain with at least one dot")]
    if f".{group}".endswith(_PROTECTED) and not annotations.get(_APPROVED):
        where = Path("metadata") / "annotations" % _APPROVED
        text = f'protected groups must have approval annotation "{_APPROVED}", see https://github.com/kubernetes/enhancements/pull/1111'
        return [required(where, text)]
    return []


def _names_errors(names: Tree) -> list[FieldError]:
    errors: list[FieldError] = []
    for key in ("plural", "singular", "kind", "listKind"):
        word = names.get(key, "")
        if not word:
            errors.append(required(_NAMES / key))
        elif texts := dns_1035_label(word.lower() if "ind" in key else word):
            errors.append(invalid(_NAMES / key, word, (_MIXED if "ind" in key else "") + ",".join(texts)))
    for key in ("shortNames", "categories"):
        for index, word in enumerate(names.get(key, ())):
            errors += [invalid(_NAMES / key @ index, word, ",".join(texts))] if (texts := dns_1035_label(word)) else []
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        errors.append(invalid(_NAMES / "listKind", names["listKind"], "kind and listKind may not be the same"))
    return errors


def _versions_errors(versions: list[Tree]) -> list[FieldError]:
    errors: list[FieldError] = []
    names = [version.get("name", "") for version in versions]
    for index, version in enumerate(versions):
        path = _VERSIONS @ index
        errors += [invalid(path / "name", names[index], ",".join(texts))] if (texts := dns_1035_label(names[index])) else []
        schema = version.get("schema", {}).get("openAPIV3Schema")
        where = path / "schema" / "openAPIV3Schema"
        if schema is None:
            errors.append(required(where, "schemas are required"))
        else:
            errors += _root_errors(schema, where)
        for place, column in enumerate(version.get("additionalPrinterColumns", ())):
            errors += _column_errors(column, path / "additionalPrinterColumns" @ place)
    if len(set(names)) < len(names):
        errors.append(invalid(_VERSIONS, versions, "must contain unique version names"))
    if sum(bool(version.get("storage")) for version in versions) != 1:
        errors.append(invalid(_VERSIONS, versions, "must have exactly one version marked as storage version"))
    return errors


def _root_errors(schema: Tree, path: Path) -> list[FieldError]:
    if not schema.get("type"):
        return [required(path / "type", "must not be empty at the root"), *_schema_errors(schema, path)]
    if schema["type"] != "object":
        return [invalid(path / "type", schema["type"], "must be object at the root")]
    return list(_schema_errors(schema, path))


def _schema_errors(schema: Tree, path: Path) -> Iterator[FieldError]:
    """Check that every value has a type, all the way down."""
    if "additionalProperties" in schema and schema.get("properties"):
        yield forbidden(path / "additionalProperties", "additionalProperties and properties are mutual exclusive")
    below = [(one, path / "properties" % name, "fields") for name, one in schema.get("properties", {}).items()]
    if isinstance(schema.get("items"), dict):
        below.append((schema["items"], path / "items", "items"))
    elif schema.get("type") == "array":
        yield required(path / "items", "must be specified")
    if isinstance(schema.get("additionalProperties"), dict):
        below.append((schema["additionalProperties"], path / "additionalProperties", "values"))
    for one, where, what in below:
        kind, free = one.get("type", ""), one.get("x-kubernetes-int-or-string") or one.get("x-kubernetes-preserve-unknown-fields")
        if not kind and not free:
            owner = {"fields": "object fields", "items": "array items", "values": "object fields"}[what]
            yield required(where / "type", f"must not be empty for specified {owner}")
        elif kind and kind not in _TYPES:
            yield unsupported(where / "type", kind, _TYPES)
        yield from _schema_errors(one, where)


def _column_errors(column: Tree, path: Path) -> list[FieldError]:
    errors = [] if column.get("name") else [required(path / "name")]
    kind, kinds = column.get("type", ""), ("boolean", "date", "integer", "number", "string")
    text = f"must be one of {','.join(kinds)}"
    if not kind:
        errors.append(required(path / "type", text))
    elif kind not in kinds:
        errors.append(invalid(path / "type", kind, text))
    return errors if column.get("jsonPath") else [*errors, required(path / "JSONPath")]


def _conversion_errors(conversion: Tree) -> list[FieldError]:
    path, strategy = _SPEC / "conversion", conversion["strategy"]
    errors = one_of(strategy, ("None", "Webhook"), path / "strategy")
    webhook = conversion.get("webhook")
    if strategy == "Webhook":
        if webhook is None or "clientConfig" not in webhook:
            errors.append(required(path / "webhookClientConfig", "required when strategy is set to Webhook"))
        else:
            errors += client_errors(webhook["clientConfig"], path / "webhookClientConfig")
        if not (webhook or {}).get("conversionReviewVersions"):
            errors.append(required(path / "conversionReviewVersions"))
    return errors


def _changes(spec: Tree, before: Tree) -> list[FieldError]:
    errors = [invalid(_SPEC / key, spec.get(key), IMMUTABLE) for key in ("group", "scope") if spec.get(key) != before.get(key)]
    names, had = spec["names"], before["names"]
    return errors + [invalid(_NAMES / key, names.get(key), IMMUTABLE) for key in ("plural", "kind") if names.get(key) != had.get(key)]


CUSTOM_RESOURCE_DEFINITION = Kind(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    False,
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    short_names=("crd", "crds"),
    categories=("api-extensions",),
    subresources=(STATUS,),
    columns=(NAME, Column("Created At", description="When it was made.")),
    row=_row,
    default=_default,
    prepare_create=_prepare_create,
    prepare_update=_prepare_update,
    validate=_validate,
)

KINDS = (CUSTOM_RESOURCE_DEFINITION,)
