"""Expressions of policies checked against the kinds that their rules name: what does not fit is a warning in the policy's status.

A policy is compiled without knowing what objects it will be put to (``policies.py``); here each of its expressions is looked at once more
for each kind that it names without a wildcard. Nothing depends on what is found.

Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#type-checking
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from podwire.apiserver.admission.matching import REQUEST
from podwire.apiserver.cel import authorization, types
from podwire.apiserver.cel.check import Rejected, compile_text
from podwire.apiserver.cel.fields import escaped, unescaped
from podwire.apiserver.cel.types import Type
from podwire.apiserver.definitions import INT_OR_STRING, JSON, JSON_SCHEMA_OR, MICRO_TIME, TIME, Schema, definition, plain_type, referenced
from podwire.apiserver.kind import Kind

Tree = dict[str, Any]
Find = Callable[[str, str, str], Kind | None]  # by group, version, resource
FindKind = Callable[[str, str], Kind | None]  # by apiVersion and kind
_MOST = 10  # kinds of a rule
_NAMED = {INT_OR_STRING: types.DYN, JSON: types.DYN, TIME: types.TIMESTAMP, MICRO_TIME: types.TIMESTAMP} | dict.fromkeys(
    JSON_SCHEMA_OR, types.DYN
)
_FORMATS = {"byte": types.BYTES, "date": types.TIMESTAMP, "date-time": types.TIMESTAMP, "duration": types.DURATION}
_PLAIN = {"boolean": types.BOOL, "integer": types.INT, "number": types.DOUBLE}


def warnings(policy: Tree, find: Find, find_kind: FindKind) -> list[Tree]:
    """Give the warnings about a ValidatingAdmissionPolicy."""
    spec = policy["spec"]
    kinds = _kinds(spec.get("matchConstraints", {}).get("resourceRules", ()), find)
    about = spec.get("paramKind")
    params = find_kind(about.get("apiVersion", ""), about.get("kind", "")) if about else None
    scopes = [(kind, _scope(kind, params, spec.get("variables", ()))) for kind in kinds]
    found: list[Tree] = []
    for index, one in enumerate(spec.get("validations", ())):
        for key in ("expression", "messageExpression"):
            text = one.get(key)
            told = [f"{kind.api_version}, Kind={kind.kind}: {why}\n" for kind, scope in scopes if text and (why := _wrong(text, scope))]
            if told:
                found.append({"fieldRef": f"spec.validations[{index}].{key}", "warning": "\n".join(told)})
    return found


def _kinds(rules: Iterable[Tree], find: Find) -> list[Kind]:
    """Give the kinds that rules name, in order. What a wildcard means is not looked at, nor are subresources."""
    found: dict[tuple[str, str, str], Kind] = {}
    for rule in rules:
        groups, versions = sorted(rule.get("apiGroups", ())), sorted(rule.get("apiVersions", ()))
        if any("*" in word for word in (*groups, *versions)):
            continue
        plain = sorted(word for word in rule.get("resources", ()) if "*" not in word and "/" not in word)
        named = (find(group, version, resource) for group in groups for version in versions for resource in plain)
        for kind in [kind for kind in named if kind is not None][:_MOST]:
            found[kind.group, kind.version, kind.kind] = kind
    return [found[key] for key in sorted(found)][:_MOST]


def _scope(kind: Kind, params: Kind | None, variables: Iterable[Tree]) -> dict[str, Type]:
    of_object = of_kind(kind)
    scope = {"object": of_object, "oldObject": of_object, "request": REQUEST, "namespaceObject": types.DYN, **authorization.VARIABLES}
    if params is not None:
        scope["params"] = of_kind(params)
    known: dict[str, Type] = {}
    for one in variables:
        try:
            kind_of_it = compile_text(one["expression"], {**scope, "variables": Type("variables", fields=dict(known))}).type
        except Rejected:
            kind_of_it = types.DYN
        known[one["name"]] = kind_of_it
    return {**scope, "variables": Type("variables", fields=known)}


def _wrong(text: str, scope: Mapping[str, Type]) -> str:
    try:
        compile_text(text, scope)
    except Rejected as error:
        return str(error)
    return ""


# Types of kinds ----------------------------------------------------------------------------------------------------------------


def of_kind(kind: Kind) -> Type:
    """Give the type of a kind's objects."""
    if kind.custom is not None:
        return _of_schema(dict(kind.custom.openapi), kind.kind)
    return _of_schema({"$ref": f"#/$defs/{kind.definition}"}, kind.kind)


def _of_schema(schema: Schema, name: str) -> Type:
    """Give the type of a schema; what it refers to is looked up when it is asked for, for schemas may contain themselves."""
    if target := referenced(schema):
        return _NAMED.get(target) or _of_schema(definition(target), name)
    if schema.get("x-kubernetes-int-or-string"):
        return types.DYN
    match plain_type(schema):
        case "array":
            return types.list_of(_of_schema(schema.get("items", {}), f"{name}.@idx"))
        case "object":
            values = schema.get("additionalProperties")
            if isinstance(values, dict):
                return types.map_of(types.STRING, _of_schema(values, f"{name}.@elem"))
            if values or (schema.get("x-kubernetes-preserve-unknown-fields") and not schema.get("properties")):
                return types.DYN
            return Type(name, fields=_Fields(schema.get("properties", {}), name))
        case "string":
            return _FORMATS.get(schema.get("format", ""), types.STRING)
        case other:
            return _PLAIN.get(other, types.DYN)


class _Fields(Mapping[str, Type]):
    """The fields of an object by the names that expressions use, each worked out when it is asked for."""

    def __init__(self, properties: Mapping[str, Schema], name: str) -> None:
        self._properties = properties
        self._name = name

    def __getitem__(self, name: str) -> Type:
        field = unescaped(name)
        if escaped(field) != name:
            raise KeyError(name)
        return _of_schema(self._properties[field], f"{self._name}.{field}")

    def __iter__(self) -> Iterator[str]:
        return (name for name in map(escaped, self._properties) if name)

    def __len__(self) -> int:
        return sum(1 for _ in self)
