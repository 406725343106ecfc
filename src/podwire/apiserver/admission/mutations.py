"""MutatingAdmissionPolicies: changes in CEL that are made to what is written, where a binding says so.

    ApplyConfiguration   Object{spec: Object.spec{replicas: 3}}            merged by the kind's list types and map types
    JSONPatch            [JSONPatch{op: "add", path: "/spec", value: 3}]   applied as RFC 6902 has it

A policy is compiled once. A list or an object that merging would replace as a whole is for patches alone. Who owns fields is not a policy's
affair: what it adds to a new object is nobody's.

Source: https://kubernetes.io/docs/reference/access-authn-authz/mutating-admission-policy/
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from podwire.apiserver import apply, merge_types
from podwire.apiserver.admission.attributes import Attributes
from podwire.apiserver.admission.policies import Bound, Head, Looking, Matter, cause
from podwire.apiserver.cel import types
from podwire.apiserver.cel.budget import Budget
from podwire.apiserver.cel.check import Program, compile_text
from podwire.apiserver.cel.functions import show_duration, show_time
from podwire.apiserver.cel.types import Type, list_of
from podwire.apiserver.cel.values import Fault, Made, Uint
from podwire.apiserver.patch import PatchError, json_patch
from podwire.apiserver.validation import FieldError, Path, invalid

Tree = dict[str, Any]
_FAULTS = 10  # told at once


class _AnyField(dict[str, Type]):
    """The fields of an object of which nothing is known until it meets its kind."""

    def get(self, _name: str, _otherwise: Any = None) -> Type:
        return types.DYN

    def __contains__(self, _name: object) -> bool:
        return True


OBJECT = Type("Object", fields=_AnyField())
JSON_PATCH = Type("JSONPatch", fields={"op": types.STRING, "path": types.STRING, "from": types.STRING, "value": types.DYN})
_WANTED = {"ApplyConfiguration": OBJECT, "JSONPatch": list_of(JSON_PATCH)}
PLACES: Mapping[str, str] = {"ApplyConfiguration": "applyConfiguration", "JSONPatch": "jsonPatch"}


def structs(name: str) -> Type | None:
    """Give the type of an object that an expression makes: ``Object`` and what is below it, ``JSONPatch``."""
    if name == "JSONPatch":
        return JSON_PATCH
    return Type(name, fields=_AnyField()) if name == "Object" or name.startswith("Object.") else None


@dataclass(frozen=True)
class _Mutation:
    sort: str
    expression: str
    program: Program


class Mutating(Head):
    """One MutatingAdmissionPolicy, compiled. Raises Rejected."""

    def __init__(self, tree: Tree) -> None:
        super().__init__(tree, structs)
        self.again = tree["spec"].get("reinvocationPolicy") == "IfNeeded"
        self.mutations = [self._mutation(one) for one in tree["spec"].get("mutations", ())]

    def _mutation(self, said: Tree) -> _Mutation:
        text = said[PLACES[said["patchType"]]]["expression"]
        return _Mutation(said["patchType"], text.strip(), compile_text(text, self.scope, None, structs))


class Refused(Exception):
    """A change that cannot be made. The text goes on after the policy's and the binding's names."""


class Mutator(Bound[Mutating]):
    """Changes writes as MutatingAdmissionPolicies say."""

    def mutated(self, matter: Matter[Mutating], asked: Attributes, param: Tree | None) -> Iterator[Tree]:
        """Give an object after each mutation of a policy; ``asked.tree`` is set to it before the next. Raises Refused."""
        policy = matter.policy
        try:
            if policy.conditions and not policy.conditions.hold(self.values(asked, param)):
                return
        except Fault as fault:
            raise Refused(str(fault)) from None
        for one in policy.mutations:
            values = self.values(asked, param)
            wrong = policy.lay_out(values, Budget())
            try:
                found, _ = one.program.evaluate(values)
            except Fault as fault:
                raise Refused(f"expression '{one.expression}' resulted in error: {cause(fault, wrong)}") from None
            yield (_applied if one.sort == "ApplyConfiguration" else _patched)(asked, found)


def denied(matter: Matter[Mutating], why: str) -> str:
    """Say who denies a request because he cannot change it."""
    return f"policy '{matter.policy.name}' with binding '{matter.binding_name}' denied request: {why}"


# ApplyConfiguration ----------------------------------------------------------------------------------------------------------


def _applied(asked: Attributes, found: Any) -> Tree:
    """Merge a configuration into an object. Raises Refused."""
    if not isinstance(found, Made) or found.name != "Object":
        raise Refused(f"unsupported return type from ApplyConfiguration expression: {type(found).__name__}")
    if wrong := list(_misnamed(found, ["Object"])):
        raise Refused("type mismatch: " + "\n".join(wrong))
    kind, live = merge_types.of_kind(asked.kind), asked.tree
    config = {**_plain(found), "apiVersion": asked.kind.api_version, "kind": asked.kind.kind}
    if faults := list(islice(apply.faults(kind, config), _FAULTS)):
        told = faults[0] if len(faults) == 1 else "errors:\n" + "\n".join(f"  {fault}" for fault in faults)
        raise Refused(f"error applying patch: failed to convert patch object to typed object: {told}")
    if whole := list(_atomic(kind, config, "")):
        told = ", ".join(whole)
        raise Refused(f"error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {told}")
    try:
        merged: Tree = apply.merge(kind, live, config)
    except merge_types.NoElement as error:
        raise Refused(f"error applying patch: failed to merge patch: {error}") from None
    return merged


def _misnamed(value: Any, path: list[str]) -> Iterator[str]:
    """Say which objects are called otherwise than the place where they stand."""
    if isinstance(value, Made):
        wanted = ".".join(path)
        if value.name != wanted:
            yield f'unexpected type name "{value.name}", expected "{wanted}", which matches field name path from root Object type'
        for key, one in value.items():
            yield from _misnamed(one, [*path, key])
    elif isinstance(value, list):
        for one in value:
            yield from _misnamed(one, path)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _misnamed(one, path)


def _atomic(kind: merge_types.Type, value: Any, path: str) -> Iterator[str]:
    """Name the lists and objects of a configuration that would be replaced as a whole."""
    if kind.form == "leaf":
        if isinstance(value, dict | list):
            yield path
    elif isinstance(value, dict):
        for key, one in value.items():
            below = kind.below(key)
            if below is not None:
                yield from _atomic(below, one, f"{path}.{key}")
    elif isinstance(value, list) and kind.element is not None and kind.form == "keyed":
        for index, one in enumerate(value):
            yield from _atomic(kind.element, one, f"{path}[{index}]")


# JSONPatch -------------------------------------------------------------------------------------------------------------------


def _patched(asked: Attributes, found: Any) -> Tree:
    """Apply a patch to an object; one whose test fails changes nothing. Raises Refused."""
    if not isinstance(found, list) or not all(isinstance(one, Made) and one.name == "JSONPatch" for one in found):
        raise Refused("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch")
    for one in found:
        value = one.get("value")
        if isinstance(value, Made) and (wrong := list(_misnamed(value, [value.name]))):
            raise Refused("type mismatch: " + "\n".join(wrong))
    tree: Tree = asked.tree or {}
    try:
        patched = json_patch(tree, [_plain(one) for one in found])
    except PatchError as error:
        if "test failed" in str(error):
            return tree
        raise Refused(f"JSONPath: {error}") from None
    if not isinstance(patched, dict):
        raise Refused("JSONPath: the patch leaves no object")
    return patched


def _plain(value: Any) -> Any:
    """Give a value of an expression as JSON has it. Raises Refused."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, Uint):
        return int(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return show_time(value)
    if isinstance(value, timedelta):
        return show_duration(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise Refused(f"a value of type {type(value).__name__} is no JSON")


# What is wrong with a policy -------------------------------------------------------------------------------------------------


def errors(spec: Tree) -> list[FieldError]:
    """Give the expressions of a MutatingAdmissionPolicy that do not compile, or do not give what they should."""
    path, looking = Path("spec"), Looking(spec, structs)
    for index, one in enumerate(spec.get("mutations", ())):
        sort = one["patchType"]
        where, text = path / "mutations" @ index / PLACES[sort] / "expression", one[PLACES[sort]]["expression"].strip()
        before = len(looking.found)
        kind = looking.look(where, text, None)
        if len(looking.found) == before and not _gives(kind, _WANTED[sort]):
            looking.found.append(invalid(where, text, f"must evaluate to {_WANTED[sort]} but got {kind}"))
    return looking.found


def _gives(kind: Type, wanted: Type) -> bool:
    if kind.name == "dyn" or kind == wanted:
        return True
    return kind.name == wanted.name == "list" and kind.of[0].name in ("dyn", "JSONPatch")
