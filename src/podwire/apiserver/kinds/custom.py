"""The row of the group apiextensions.k8s.io, version v1: CustomResourceDefinition.

Here: how a kind is defined. It is stored, checked and printed. Not here: the serving of what it defines (``extension/``).

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from podwire.apiserver.cells import UNKNOWN
from podwire.apiserver.extension import paths, review, rules, structural
from podwire.apiserver.extension.names import is_established
from podwire.apiserver.kind import NAME, STATUS, Column, Kind, Tree
from podwire.apiserver.kinds.webhook_client import bundle_errors, client_errors, default_client
from podwire.apiserver.validation import (
    IMMUTABLE,
    FieldError,
    Path,
    dns_1035_label,
    dns_subdomain,
    duplicate,
    forbidden,
    invalid,
    required,
    too_many,
)
from podwire.apiserver.validation_values import one_of

_SPEC = Path("spec")
_NAMES, _VERSIONS = _SPEC / "names", _SPEC / "versions"
_PROTECTED = (".k8s.io", ".kubernetes.io")
_APPROVED = "api-approved.kubernetes.io"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_MOST_SELECTABLE = 8
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
    errors += _versions_errors(spec, old["spec"] if old is not None else {})
    errors += _names_errors(spec["names"])
    errors += _conversion_errors(spec["conversion"], old)
    return errors + (_changes(tree, old) if old is not None else [])


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


def _versions_errors(spec: Tree, old: Tree) -> list[FieldError]:
    versions: list[Tree] = spec.get("versions", [])
    errors: list[FieldError] = []
    names = [version.get("name", "") for version in versions]
    for index, name in enumerate(names):
        path = _VERSIONS @ index
        errors += [invalid(path / "name", name, ",".join(texts))] if (texts := dns_1035_label(name)) else []
    if len(set(names)) < len(names):
        errors.append(invalid(_VERSIONS, versions, "must contain unique version names"))
    if sum(bool(version.get("storage")) for version in versions) != 1:
        errors.append(invalid(_VERSIONS, versions, "must have exactly one version marked as storage version"))
    if spec.get("preserveUnknownFields"):
        errors.append(invalid(_SPEC / "preserveUnknownFields", True, "must be false"))
    known = [version.get("schema", {}).get("openAPIV3Schema") for version in old.get("versions", ())]
    for path, schema in _said(versions, "schema", "validation"):
        where = path / "openAPIV3Schema"
        found = schema.get("openAPIV3Schema")
        errors += [required(where, "schemas are required")] if found is None else _schema_errors(found, where, known)
    for path, columns in _said(versions, "additionalPrinterColumns", "additionalPrinterColumns"):
        for place, column in enumerate(columns):
            errors += _column_errors(column, path @ place)
    for path, parts in _said(versions, "subresources", "subresources"):
        errors += _scale_errors(parts["scale"], path / "scale") if "scale" in parts else []
    for path, fields in _said(versions, "selectableFields", "selectableFields"):
        errors += _selectable_errors(fields, path)
    return errors


def _said(versions: list[Tree], word: str, shared: str) -> Iterator[tuple[Path, Any]]:
    """Give what versions say, with the path where it is: what all say alike is said once, of the definition."""
    values: list[Any] = [version.get(word) for version in versions]
    if values and all(value == values[0] for value in values):
        if values[0] or word == "schema":
            yield _SPEC / shared, values[0] or {}
        return
    for index, value in enumerate(values):
        if value or word == "schema":
            yield _VERSIONS @ index / word, value or {}


def _schema_errors(schema: Tree, path: Path, known: list[Tree | None]) -> list[FieldError]:
    """Check a schema. The rules of one that was there before were taken then, whatever they are estimated to cost now."""
    return structural.errors(schema, path) or ([] if schema in known else rules.errors(schema, path))


def _scale_errors(scale: Tree, path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for key, roots, text, needed in (
        ("specReplicasPath", ("spec",), ".spec", True),
        ("statusReplicasPath", ("status",), ".status", True),
        ("labelSelectorPath", ("spec", "status"), "either .spec or .status", False),
    ):
        said = scale.get(key, "")
        if not said:
            errors += [required(path / key, f"{key} must be set")] if needed else []
            continue
        try:
            ok = paths.fields(said)[0] in roots
        except ValueError:
            ok = False
        errors += [] if ok else [invalid(path / key, said, f"should be a json path under {text}")]
    return errors


def _selectable_errors(fields: list[Tree], path: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    if len(fields) > _MOST_SELECTABLE:
        errors.append(too_many(path, _MOST_SELECTABLE))
    seen: set[str] = set()
    for index, one in enumerate(fields):
        where, said = path @ index / "jsonPath", one.get("jsonPath", "")
        if not said:
            errors.append(required(where))
            continue
        try:
            root = paths.fields(said)[0]
        except ValueError:
            errors.append(invalid(where, said, f"is an invalid path: {said} is no chain of fields"))
            continue
        errors += [invalid(where, said, "must not point to fields in metadata")] if root == "metadata" else []
        errors += [duplicate(where, said)] if said in seen else []
        seen.add(said)
    return errors


def _column_errors(column: Tree, path: Path) -> list[FieldError]:
    errors = [] if column.get("name") else [required(path / "name")]
    kind, kinds = column.get("type", ""), ("boolean", "date", "integer", "number", "string")
    text = f"must be one of {','.join(kinds)}"
    if not kind:
        errors.append(required(path / "type", text))
    elif kind not in kinds:
        errors.append(invalid(path / "type", kind, text))
    said = column.get("jsonPath", "")
    if not said:
        return [*errors, required(path / "JSONPath")]
    try:
        paths.find(said)
    except ValueError as error:
        errors.append(invalid(path / "jsonPath", said, str(error)))
    return errors


def _conversion_errors(conversion: Tree, old: Tree | None) -> list[FieldError]:
    """Check ``spec.conversion``. Messages name fields as upstream's own form of a definition has them: one level less deep."""
    path, strategy = _SPEC / "conversion", conversion["strategy"]
    webhook = conversion.get("webhook") or {}
    client, versions = webhook.get("clientConfig"), webhook.get("conversionReviewVersions") or []
    errors = one_of(strategy, ("None", "Webhook"), path / "strategy")
    if strategy != "Webhook":
        said = (("webhookClientConfig", client), ("conversionReviewVersions", versions))
        return errors + [forbidden(path / key, "should not be set when strategy is not set to Webhook") for key, one in said if one]
    where = path / "webhookClientConfig"
    if client is None:
        errors.append(required(where, "required when strategy is set to Webhook"))
    else:
        errors += client_errors(client, where)
        if old is not None and is_established(old) and not bundle_errors(_bundle(old), where):
            errors += bundle_errors(client.get("caBundle", ""), where / "caBundle")
    return errors + _review_errors(versions, old, path / "conversionReviewVersions")


def _review_errors(versions: list[str], old: Tree | None, path: Path) -> list[FieldError]:
    if not versions:
        return [required(path)]
    errors: list[FieldError] = []
    for index, version in enumerate(versions):
        if version in versions[:index]:
            errors.append(invalid(path @ index, version, "duplicate version"))
        else:
            errors += [invalid(path @ index, version, text) for text in dns_1035_label(version)]
    before = ((old or {}).get("spec", {}).get("conversion", {}).get("webhook") or {}).get("conversionReviewVersions")
    was_known = old is None or not before or bool({*review.KNOWN} & {*before})
    if was_known and not {*review.KNOWN} & {*versions}:
        errors.append(invalid(path, versions, f"must include at least one of {', '.join(review.KNOWN)}"))
    return errors


def _bundle(definition: Tree) -> str:
    client: Tree = (definition["spec"].get("conversion", {}).get("webhook") or {}).get("clientConfig") or {}
    return str(client.get("caBundle", ""))


def _changes(tree: Tree, old: Tree) -> list[FieldError]:
    spec, before = tree["spec"], old["spec"]
    errors = [invalid(_SPEC / key, spec.get(key), IMMUTABLE) for key in ("group", "scope") if spec.get(key) != before.get(key)]
    names, had = spec["names"], before["names"]
    errors += [invalid(_NAMES / key, names.get(key), IMMUTABLE) for key in ("plural", "kind") if names.get(key) != had.get(key)]
    return errors + _stored_errors(tree)


def _stored_errors(tree: Tree) -> list[FieldError]:
    """A version in which objects may be stored stays."""
    known = {version.get("name") for version in tree["spec"].get("versions", ())}
    stored = tree.get("status", {}).get("storedVersions", [])
    path = Path("status") / "storedVersions"
    return [invalid(path @ index, name, "must appear in spec.versions") for index, name in enumerate(stored) if name not in known]


def _validate_status(tree: Tree, _old: Tree | None) -> list[FieldError]:
    stored, path = tree.get("status", {}).get("storedVersions", []), Path("status") / "storedVersions"
    errors = _stored_errors(tree)
    storage = next((version["name"] for version in tree["spec"]["versions"] if version.get("storage")), "")
    if not stored:
        errors.append(required(path, "must have at least one stored version"))
    if storage not in stored:
        errors.append(invalid(path, stored, f"must have the storage version {storage}"))
    return errors


def _mark(tree: Tree) -> None:
    """A definition goes after its objects."""
    finalizers = tree["metadata"].setdefault("finalizers", [])
    if CLEANUP not in finalizers:
        finalizers.append(CLEANUP)


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
    validate_status=_validate_status,
    mark=_mark,
)

KINDS = (CUSTOM_RESOURCE_DEFINITION,)
