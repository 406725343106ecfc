"""Rules of a schema (``x-kubernetes-validations``): compiled once, when the definition is stored, and put to each object that is written.

A rule sees the value at its place as ``self`` and, when it changes, the value before as ``oldSelf``; a rule that names ``oldSelf`` is put
only where there was one, unless it says that it is optional. What a rule may cost is limited, and what all rules of an object may cost.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson

from podwire.apiserver.cel import types
from podwire.apiserver.cel.check import Program, Rejected, compile_text
from podwire.apiserver.cel.cost import estimate
from podwire.apiserver.cel.fields import escaped
from podwire.apiserver.cel.types import Type
from podwire.apiserver.cel.values import NONE, CostExceeded, Fault, Optional
from podwire.apiserver.extension import paths, sizes
from podwire.apiserver.extension.values import ABSENT
from podwire.apiserver.kind import Tree
from podwire.apiserver.schema import Where, spelled
from podwire.apiserver.validation import DUPLICATE, FORBIDDEN, INVALID, REQUIRED, FieldError, Path, invalid, required, unsupported

Schema = dict[str, Any]
WORD = "x-kubernetes-validations"
OBJECT_LIMIT = 10_000_000  # what all rules of one object may cost
_REASONS = (DUPLICATE, FORBIDDEN, INVALID, REQUIRED)
_LONGEST_MESSAGE = 5 * 1024
_FORMATS = {"byte": types.BYTES, "date": types.TIMESTAMP, "date-time": types.TIMESTAMP, "duration": types.DURATION}
_NUMBERS = {"boolean": Type("bool", most=0), "integer": Type("int", most=0), "number": Type("double", most=0)}
_TEXT, _KEY = Type("string", most=sizes.text_length({})), Type("string", most=0)
_METADATA = Type("metadata", fields={"name": _TEXT, "generateName": _TEXT}, most=0)
_OUT_OF_BUDGET = "validation failed due to running out of cost budget, no further validation rules will be run"


def schema_type(schema: Schema, name: str = "object", *, root: bool = False) -> Type:
    """Give the type of the values of a schema. ``name`` tells objects apart."""
    if schema.get("x-kubernetes-int-or-string"):
        return Type("dyn", most=sizes.text_length(schema))
    match schema.get("type", ""):
        case "array":
            return Type("list", (schema_type(schema.get("items", {}), name + ".@idx"),), most=sizes.item_count(schema))
        case "object":
            return _object_type(schema, name, root=root or bool(schema.get("x-kubernetes-embedded-resource")))
        case "string":
            return Type(_FORMATS.get(schema.get("format", ""), types.STRING).name, most=sizes.text_length(schema))
        case "boolean" | "integer" | "number" as kind:
            return _NUMBERS[kind]
    return types.DYN


def _object_type(schema: Schema, name: str, *, root: bool) -> Type:
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        return Type("map", (_KEY, schema_type(values, name + ".@elem")), most=sizes.entry_count(schema))
    if values or (schema.get("x-kubernetes-preserve-unknown-fields") and not schema.get("properties")):
        return types.DYN
    fields = {escaped(key): schema_type(one, f"{name}.{key}") for key, one in schema.get("properties", {}).items() if escaped(key)}
    if root:
        fields |= {"apiVersion": _TEXT, "kind": _TEXT, "metadata": _METADATA}
    return Type(name, fields=fields, most=0)


# Compiling ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rule:
    """One rule. ``shown`` is how messages name it."""

    program: Program
    message: str
    message_program: Program | None
    reason: str
    field: tuple[str, ...]
    optional_old: bool
    shown: str
    kind: str

    @property
    def of_change(self) -> bool:
        return "oldSelf" in self.program.uses


@dataclass
class _Budget:
    left: int = OBJECT_LIMIT


Check = Callable[[Any, Any, Where, list[FieldError], _Budget], None]


def _variables(rule: Tree, kind: Type) -> dict[str, Type]:
    return {"self": kind, "oldSelf": types.optional_of(kind) if rule.get("optionalOldSelf") else kind}


def _compiled(schema: Schema, rule: Tree, kind: Type) -> _Rule:
    """Compile one rule. Raises Rejected."""
    variables = _variables(rule, kind)
    said = rule.get("messageExpression")
    message = rule.get("message", "").strip()
    text = rule["rule"].strip()
    return _Rule(
        compile_text(rule["rule"], variables, types.BOOL),
        message or f"failed rule: {text}",
        compile_text(said, variables, types.STRING) if said else None,
        rule.get("reason") or INVALID,
        paths.fields(rule["fieldPath"]) if rule.get("fieldPath") else (),
        bool(rule.get("optionalOldSelf")),
        message or text,
        schema.get("type", ""),
    )


def of_schema(schema: Schema) -> Callable[[Tree, Tree | None], list[FieldError]] | None:
    """Compile the rules of a schema; None where there are none. Raises Rejected, ValueError."""
    check = _checker(schema, root=True)
    if check is None:
        return None

    def validate(tree: Tree, old: Tree | None) -> list[FieldError]:
        errors: list[FieldError] = []
        check(tree, ABSENT if old is None else old, None, errors, _Budget())
        return errors

    return validate


def _checker(schema: Schema, *, root: bool = False) -> Check | None:
    rules = [_compiled(schema, rule, schema_type(schema, root=root)) for rule in schema.get(WORD, ())]
    inner = _inner(schema)
    if not rules and inner is None:
        return None

    def check(value: Any, old: Any, where: Where, errors: list[FieldError], budget: _Budget) -> None:
        if value is None or budget.left < 0:
            return
        unchanged = old is not ABSENT and old == value
        for rule in rules:
            if unchanged and not rule.of_change:
                continue
            if budget.left < 0:
                return
            _put(rule, value, old, where, errors, budget)
        if inner is not None and budget.left >= 0:
            inner(value, old, where, errors, budget)

    return check


def _inner(schema: Schema) -> Check | None:
    if isinstance(schema.get("items"), dict):
        below = _checker(schema["items"])
        keys = schema.get("x-kubernetes-list-map-keys", ()) if schema.get("x-kubernetes-list-type") == "map" else ()
        return None if below is None else _of_list(below, keys)
    fields = {name: below for name, one in schema.get("properties", {}).items() if (below := _checker(one)) is not None}
    values = schema.get("additionalProperties")
    others = _checker(values) if isinstance(values, dict) else None
    if not fields and others is None:
        return None

    def check(value: Any, old: Any, where: Where, errors: list[FieldError], budget: _Budget) -> None:
        if type(value) is not dict:
            return
        before = old if type(old) is dict else {}
        for key, one in value.items():
            below = fields.get(key, others)
            if below is not None:
                below(one, before.get(key, ABSENT), (where, key), errors, budget)

    return check


def _of_list(below: Check, keys: Any) -> Check:
    def identity(value: Any) -> tuple[Any, ...]:
        return tuple(orjson.dumps(value.get(key)) for key in keys) if type(value) is dict else ()

    def check(value: Any, old: Any, where: Where, errors: list[FieldError], budget: _Budget) -> None:
        if type(value) is not list:
            return
        before = {identity(one): one for one in old} if keys and type(old) is list else {}
        for index, one in enumerate(value):
            below(one, before.get(identity(one), ABSENT) if before else ABSENT, (where, index), errors, budget)

    return check


# Putting -----------------------------------------------------------------------------------------------------------------


def _put(rule: _Rule, value: Any, old: Any, where: Where, errors: list[FieldError], budget: _Budget) -> None:
    """Put one rule to one value."""
    if rule.of_change and old is ABSENT and not rule.optional_old:
        return
    before = old
    if rule.optional_old:
        before = NONE if old is ABSENT else Optional(old, True)
    values = {"self": value, "oldSelf": before}

    def wrong(detail: str) -> FieldError:
        return FieldError(INVALID, spelled(where) or "<nil>", rule.kind, detail)

    try:
        found, cost = rule.program.evaluate(values)
    except CostExceeded as fault:
        errors.append(wrong(f"'{fault}': no further validation rules will be run due to call cost exceeds limit for rule: {rule.shown}"))
        budget.left = -1
        return
    except Fault as fault:
        if str(fault).startswith("no such overload"):
            text = f"'{fault}': call arguments did not match a supported operator, function or macro signature for rule: {rule.shown}"
        else:
            text = f"{fault} evaluating rule: {rule.shown}"
        errors.append(wrong(text))
        return
    budget.left -= cost
    if budget.left < 0:
        errors.append(wrong(_OUT_OF_BUDGET))
        return
    if found is not True:
        errors.append(_refusal(rule, values, where))


def _refusal(rule: _Rule, values: Tree, where: Where) -> FieldError:
    for name in rule.field:
        where = (where, name)
    detail = rule.message
    if rule.message_program is not None:
        try:
            text, _ = rule.message_program.evaluate(values)
        except Fault:
            text = None
        if isinstance(text, str) and text.strip() and "\n" not in text.strip() and len(text) <= _LONGEST_MESSAGE:
            detail = text.strip()
    place = spelled(where) or "<nil>"
    if rule.reason == DUPLICATE:
        return FieldError(DUPLICATE, place, rule.kind)
    return FieldError(rule.reason, place, rule.kind, detail)


# What is wrong with rules --------------------------------------------------------------------------------------------------


def errors(schema: Schema, path: Path) -> list[FieldError]:
    """Give what is wrong with the rules of a structural schema, what they may cost among it."""
    budget = sizes.Budget()
    return [*_errors(schema, path, _Place(budget, 1), root=True), *budget.errors(path)]


@dataclass(frozen=True)
class _Place:
    """Where in a schema one is: how often a value may be there (None: without limit), and the list whose elements cannot be told apart
    (``loose``), so that nothing below it has a state before.
    """

    budget: sizes.Budget
    times: int | None
    loose: Path | None = None


def _errors(schema: Schema, path: Path, place: _Place, *, root: bool = False) -> Iterator[FieldError]:
    kind = schema_type(schema, root=root) if schema.get(WORD) else types.DYN
    for index, rule in enumerate(schema.get(WORD, ())):
        yield from _rule_errors(schema, rule, kind, path / WORD @ index, place)
    below = replace(place, times=sizes.below(schema, place.times))
    for name, one in schema.get("properties", {}).items():
        yield from _errors(one, path / "properties" % name, below)
    if isinstance(schema.get("items"), dict):
        apart = place.loose is not None or schema.get("x-kubernetes-list-type") == "map"
        yield from _errors(schema["items"], path / "items", below if apart else replace(below, loose=path))
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _errors(schema["additionalProperties"], path / "additionalProperties", below)


def _rule_errors(schema: Schema, rule: Tree, kind: Type, path: Path, where: _Place) -> Iterator[FieldError]:
    text, message = rule.get("rule", ""), rule.get("message")
    if not text.strip():
        yield required(path / "rule", "rule is not specified")
        return
    if message is not None and not message.strip():
        yield invalid(path / "message", message, "message must be non-empty if specified")
    elif message and "\n" in message.strip():
        yield invalid(path / "message", message, "message must not contain line breaks")
    elif not message and "\n" in text.strip():
        yield required(path / "message", "message must be specified if rule contains line breaks")
    if rule.get("reason", INVALID) not in _REASONS:
        yield unsupported(path / "reason", rule["reason"], _REASONS)
    variables = _variables(rule, kind)
    try:
        program = compile_text(text, variables, types.BOOL)
        cost = where.budget.spend(estimate(text, variables), schema, where.times)
        yield from where.budget.note("rule", cost, path / "rule")
        if "oldSelf" in program.uses and where.loose is not None and not rule.get("optionalOldSelf"):
            yield invalid(path / "rule", text, f"oldSelf cannot be used on the uncorrelatable portion of the schema within {where.loose}")
        if rule.get("optionalOldSelf") and "oldSelf" not in program.uses:
            yield invalid(path / "optionalOldSelf", True, "may not be set if oldSelf is not used in rule")
    except Rejected as error:
        yield invalid(path / "rule", rule, _compilation(error, "cel expression must evaluate to a bool"))
    if said := rule.get("messageExpression"):
        try:
            compile_text(said, variables, types.STRING)
            yield from where.budget.note("messageExpression", estimate(said, variables), path / "messageExpression")
        except Rejected as error:
            text = _compilation(error, "messageExpression must evaluate to a string")
            yield invalid(path / "messageExpression", rule, "messageExpression " * ("failed" in text) + text)
    if place := rule.get("fieldPath"):
        yield from _place_errors(schema, place, path / "fieldPath")


def _compilation(error: Rejected, otherwise: str) -> str:
    return otherwise if str(error).startswith("must evaluate") else f"compilation failed: {error}"


def _place_errors(schema: Schema, place: str, path: Path) -> Iterator[FieldError]:
    try:
        steps = paths.fields(place)
    except ValueError:
        yield invalid(path, place, f"fieldPath must be a valid path: expected [ or . but got: {place}")
        return
    for step in steps:
        found = schema.get("properties", {}).get(step) if "properties" in schema else schema.get("additionalProperties")
        if not isinstance(found, dict):
            yield invalid(path, place, "fieldPath must be a valid path: does not refer to a valid field")
            return
        schema = found
