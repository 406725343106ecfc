"""From a CustomResourceDefinition to the rows by which its objects are served.

Each version is a row of its own, with its own schema, columns and subresources; those of several versions know each other, for an object
that is stored in one is shown in all (``conversion.py``).

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/ and
.../custom-resource-definition-versioning/
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from podwire.apiserver.definitions import META, PREFIX
from podwire.apiserver.extension import merging, paths, printing, rules, shape, values
from podwire.apiserver.kind import ALL_VERBS, SCALE, STATUS, Custom, Kind, ScalePaths, Tree, Versions
from podwire.apiserver.validation import INVALID, FieldError

_VERSION = re.compile(r"v([1-9]\d*)(?:(alpha|beta)([1-9]\d*))?")
_UNCHECKED = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation"
_HEAD = {
    "apiVersion": {"type": "string", "description": "The version of the schema that the object is written in: GROUP/VERSION."},
    "kind": {"type": "string", "description": "The kind of the object."},
}


Convert = Callable[[list[Tree], Kind], Awaitable[list[Tree]]]


async def _unconverted(trees: list[Tree], _to: Kind) -> list[Tree]:
    return trees


def priority(version: str) -> tuple[int, int, int, str]:
    """Give what versions are ordered by: general ones first, then beta, then alpha, newer ones first; others behind by name."""
    match = _VERSION.fullmatch(version)
    if match is None:
        return (3, 0, 0, version)
    stage = {None: 0, "beta": 1, "alpha": 2}[match[2]]
    return (stage, -int(match[1]), -int(match[3] or 0), "")


def of_definition(definition: Tree, convert: Convert = _unconverted, *, strangers: bool = False) -> list[Kind]:
    """Give the rows of a definition that are served, the preferred version first.

    ``convert`` converts objects; ``strangers``: the store holds objects of versions that the definition does not have. Raises ValueError,
    Rejected for what cannot be served.
    """
    spec = definition["spec"]
    rows = {one["name"]: _Version(definition, one).row() for one in spec["versions"]}
    if len(rows) > 1 or strangers:
        storage = next(one["name"] for one in spec["versions"] if one.get("storage"))
        versions = Versions({}, rows[storage].api_version, convert)
        rows = {name: replace(row, versions=versions) for name, row in rows.items()}
        versions.rows |= {row.api_version: row for row in rows.values()}
    served = [one["name"] for one in spec["versions"] if one.get("served")]
    return [rows[name] for name in sorted(served, key=priority)]


def first(definition: Tree) -> Kind:
    """Give the row of a definition's first version, served or not. Raises as ``of_definition`` does."""
    return _Version(definition, definition["spec"]["versions"][0]).row()


@dataclass(frozen=True)
class _Version:
    """One version of a definition."""

    definition: Tree
    version: Tree

    def row(self) -> Kind:
        """The row of objects of this version."""
        spec, version = self.definition["spec"], self.version
        names, parts = spec["names"], version.get("subresources", {})
        columns, row = printing.columns(version.get("additionalPrinterColumns", []))
        subresources = (*((STATUS,) if "status" in parts else ()), *((SCALE,) if "scale" in parts else ()))
        validate = self._validator()
        return Kind(
            spec["group"],
            version["name"],
            names["plural"],
            names["kind"],
            spec["scope"] == "Namespaced",
            ".".join((*reversed(spec["group"].split(".")), version["name"], names["kind"])),
            singular=names.get("singular", ""),
            short_names=tuple(names.get("shortNames", ())),
            categories=tuple(names.get("categories", ())),
            subresources=subresources,
            verbs=_verbs(self.definition),
            columns=columns,
            row=row,
            selectable_fields=_selectable(version),
            default=shape.filler(self._schema) or _nothing,
            validate=validate,
            validate_status=validate,
            unconditional_update=False,
            deprecation=self._deprecation(),
            custom=Custom(
                shape.shape(self._schema, names["kind"], version["name"], preserve=bool(spec.get("preserveUnknownFields"))),
                merging.of_schema(self._schema),
                self._openapi(),
                _scale(parts.get("scale")),
            ),
        )

    @property
    def _schema(self) -> Tree:
        found: Tree = self.version["schema"]["openAPIV3Schema"]
        return found

    def _validator(self) -> Callable[[Tree, Tree | None], list[FieldError]]:
        check, ruled = values.checker(self._schema), rules.of_schema(self._schema)

        def validate(tree: Tree, old: Tree | None) -> list[FieldError]:
            errors: list[FieldError] = []
            check(tree, values.ABSENT if old is None else old, None, errors)
            if ruled is None:
                return errors
            if any(error.reason in values.BLOCKING for error in errors):
                return [*errors, FieldError(INVALID, "<nil>", "null", _UNCHECKED)]
            return errors + ruled(tree, old)

        return validate

    def _openapi(self) -> Mapping[str, Any]:
        spec = self.definition["spec"]
        schema = dict(self._schema)
        properties = {**schema.get("properties", {}), **_HEAD, "metadata": {"$ref": PREFIX + META + "ObjectMeta"}}
        gvk = {"group": spec["group"], "version": self.version["name"], "kind": spec["names"]["kind"]}
        return {**schema, "type": "object", "properties": properties, "x-kubernetes-group-version-kind": [gvk]}

    def _deprecation(self) -> str:
        if not self.version.get("deprecated"):
            return ""
        if warning := self.version.get("deprecationWarning"):
            return str(warning)
        spec, name = self.definition["spec"], self.version["name"]
        group, kind = spec["group"], spec["names"]["kind"]
        better = [
            one["name"]
            for one in spec["versions"]
            if one.get("served") and not one.get("deprecated") and priority(one["name"]) < priority(name)
        ]
        text = f"{group}/{name} {kind} is deprecated"
        return f"{text}; use {group}/{min(better, key=priority)} {kind}" if better else text


def _nothing(_tree: Tree) -> None:
    return None


def _verbs(definition: Tree) -> tuple[str, ...]:
    """Nothing is made of a kind that is going."""
    if definition["metadata"].get("deletionTimestamp"):
        return tuple(verb for verb in ALL_VERBS if verb != "create")
    return ALL_VERBS


def _selectable(version: Tree) -> dict[str, Callable[[Tree], str]]:
    return {one["jsonPath"].removeprefix("."): _text(paths.fields(one["jsonPath"])) for one in version.get("selectableFields", ())}


def _text(path: tuple[str, ...]) -> Callable[[Tree], str]:
    def read(tree: Tree) -> str:
        value: Any = tree
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

    return read


def _scale(part: Tree | None) -> ScalePaths | None:
    if part is None:
        return None
    selector = part.get("labelSelectorPath")
    return ScalePaths(
        paths.fields(part["specReplicasPath"]), paths.fields(part["statusReplicasPath"]), paths.fields(selector) if selector else ()
    )
