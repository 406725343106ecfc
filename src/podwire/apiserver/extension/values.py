"""Custom objects checked against their schema: every error at once, in the API's words.

A schema is compiled once into closures. A value that was stored as it is and has not been changed is not held against the writer
(*ratcheting*): a definition may become stricter than the objects that there are.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation and
https://spec.openapis.org/oas/v3.0.3#schema-object
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable
from typing import Any

import orjson
import re2  # type: ignore[import-untyped]

from podwire.apiserver.extension.formats import FORMATS
from podwire.apiserver.schema import Where, spelled
from podwire.apiserver.validation import DUPLICATE, INVALID, REQUIRED, TOO_LONG, TOO_MANY, TYPE_INVALID, UNSUPPORTED, FieldError

Schema = dict[str, Any]
Errors = list[FieldError]
# A value, what it was before (ABSENT when it was not there, or cannot be told), where it is, what is found.
Check = Callable[[Any, Any, Where, Errors], None]
# One rule of a value that has the right type.
Rule = Callable[[Any, Where, Errors], None]


class _Absent:
    """What was not there."""


ABSENT = _Absent()
BLOCKING = (REQUIRED, TOO_LONG, TOO_MANY, TYPE_INVALID)

_REMEMBERED, _SHORT = 256, 128  # texts that a pattern remembers, and characters of such a text
_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object", type(None): "null"}


def regular_expression(pattern: str) -> Any:
    """Compile a pattern of a user. Raises ValueError with what is wrong."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        text = error.args[0]
        raise ValueError(text.decode(errors="replace") if isinstance(text, bytes) else str(text)) from None


def _body(where: Where, text: str) -> str:
    return f"{spelled(where)} in body {text}"


def _invalid(where: Where, value: Any, text: str) -> FieldError:
    return FieldError(INVALID, spelled(where), value, _body(where, text))


def checker(schema: Schema) -> Check:
    """Compile the check of one value and of what is in it."""
    has_type = _type_test(schema)
    rules = [*_enum(schema), *_scalar_rules(schema), *_size_rules(schema), *_object_rules(schema)]
    choices = _choices(schema)
    inner = _inner(schema)
    nullable = bool(schema.get("nullable"))
    expected = _expected(schema)

    def check(value: Any, old: Any, where: Where, errors: Errors) -> None:
        if value is None and nullable:
            return
        if has_type is not None and not has_type(value):
            kind = _NAMES.get(type(value), "value")
            found = FieldError(TYPE_INVALID, spelled(where), kind, _body(where, f'must be of type {expected}: "{kind}"'))
            if old is ABSENT or value != old:
                errors.append(found)
            return
        if old is not ABSENT and value == old:
            return
        for rule in rules:
            rule(value, where, errors)
        if choices is not None:
            choices(value, where, errors)
        if inner is not None:
            inner(value, old, where, errors)

    return check


# Types -------------------------------------------------------------------------------------------------------------------


def _expected(schema: Schema) -> str:
    return "integer,string" if schema.get("x-kubernetes-int-or-string") else str(schema.get("type", ""))


def _is_integer(value: Any) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer())


_TESTS: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: type(value) is str,
    "boolean": lambda value: type(value) is bool,
    "integer": _is_integer,
    "number": lambda value: type(value) in (int, float),
    "array": lambda value: type(value) is list,
    "object": lambda value: type(value) is dict,
    "integer,string": lambda value: type(value) in (int, str),
}


def _type_test(schema: Schema) -> Callable[[Any], bool] | None:
    return _TESTS.get(_expected(schema))


# Rules of one value --------------------------------------------------------------------------------------------------------


def _enum(schema: Schema) -> list[Rule]:
    if "enum" not in schema:
        return []
    allowed = schema["enum"]
    shown = ", ".join(orjson.dumps(one if isinstance(one, str) else orjson.dumps(one).decode()).decode() for one in allowed)

    def rule(value: Any, where: Where, errors: Errors) -> None:
        if not any(type(one) is type(value) and one == value for one in allowed):
            errors.append(FieldError(UNSUPPORTED, spelled(where), value, f"supported values: {shown}"))

    return [rule]


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(value)


def _bound(test: Callable[[Any], bool], text: str) -> Rule:
    def rule(value: Any, where: Where, errors: Errors) -> None:
        if type(value) in (int, float) and not test(value):
            errors.append(_invalid(where, value, text))

    return rule


def _scalar_rules(schema: Schema) -> list[Rule]:
    rules: list[Rule] = []
    if (most := schema.get("maximum")) is not None:
        if schema.get("exclusiveMaximum"):
            rules.append(_bound(lambda value: value < most, f"should be less than {_number(most)}"))
        else:
            rules.append(_bound(lambda value: value <= most, f"should be less than or equal to {_number(most)}"))
    if (least := schema.get("minimum")) is not None:
        if schema.get("exclusiveMinimum"):
            rules.append(_bound(lambda value: value > least, f"should be greater than {_number(least)}"))
        else:
            rules.append(_bound(lambda value: value >= least, f"should be greater than or equal to {_number(least)}"))
    if unit := schema.get("multipleOf"):
        rules.append(_bound(lambda value: _is_multiple(value, unit), f"should be a multiple of {_number(unit)}"))
    if pattern := schema.get("pattern"):
        rules.append(_pattern(pattern))
    if (check := FORMATS.get(schema.get("format", ""))) is not None:
        rules.append(_format(schema["format"], check))
    return rules


def _is_multiple(value: float, unit: float) -> bool:
    if type(value) is int and type(unit) is int:
        return value % unit == 0
    share = value / unit
    return math.isclose(share, round(share), rel_tol=1e-9, abs_tol=1e-9)


def _pattern(pattern: str) -> Rule:
    search = regular_expression(pattern).search
    fits_again = functools.lru_cache(_REMEMBERED)(lambda text: search(text) is not None)  # texts of objects that are alike come again

    def fits(text: str) -> bool:
        return fits_again(text) if len(text) <= _SHORT else search(text) is not None

    def rule(value: Any, where: Where, errors: Errors) -> None:
        if type(value) is str and not fits(value):
            errors.append(_invalid(where, value, f"should match '{pattern}'"))

    return rule


def _format(name: str, check: Callable[[str], bool]) -> Rule:
    def rule(value: Any, where: Where, errors: Errors) -> None:
        if type(value) is str and not check(value):
            shown = orjson.dumps(value).decode()
            errors.append(FieldError(TYPE_INVALID, spelled(where), value, _body(where, f"must be of type {name}: {shown}")))

    return rule


def _size_rules(schema: Schema) -> list[Rule]:
    rules: list[Rule] = []
    if (most := schema.get("maxLength")) is not None:
        rules.append(_sized(str, lambda _v, size: size > most, lambda _v, _s, where: _too_long(where, most)))
    if (least := schema.get("minLength")) is not None:
        rules.append(_sized(str, lambda _v, size: size < least, _short(f"should be at least {least} chars long")))
    if (limit := schema.get("maxItems")) is not None:
        rules.append(_sized(list, lambda _v, size: size > limit, lambda _v, size, where: _too_many(where, size, limit)))
    if (needed := schema.get("minItems")) is not None:
        rules.append(_sized(list, lambda _v, size: size < needed, _few(f"should have at least {needed} items")))
    if (widest := schema.get("maxProperties")) is not None:
        rules.append(_sized(dict, lambda _v, size: size > widest, lambda _v, size, where: _too_many(where, size, widest)))
    if (narrowest := schema.get("minProperties")) is not None:
        rules.append(_sized(dict, lambda _v, size: size < narrowest, _few(f"should have at least {narrowest} properties")))
    if schema.get("uniqueItems"):
        rules.append(_sized(list, lambda value, _s: len({_key(one) for one in value}) < len(value), _few("shouldn't contain duplicates")))
    return rules


def _sized(kind: type[Any], bad: Callable[[Any, int], bool], error: Callable[[Any, int, Where], FieldError]) -> Rule:
    def rule(value: Any, where: Where, errors: Errors) -> None:
        if isinstance(value, kind) and bad(value, len(value)):
            errors.append(error(value, len(value), where))

    return rule


def _short(text: str) -> Callable[[Any, int, Where], FieldError]:
    return lambda value, _size, where: _invalid(where, value, text)


def _few(text: str) -> Callable[[Any, int, Where], FieldError]:
    return lambda _value, size, where: _invalid(where, size if "duplicates" not in text else "", text)


def _too_long(where: Where, limit: int) -> FieldError:
    return FieldError(TOO_LONG, spelled(where), None, f"may not be more than {limit} bytes")


def _too_many(where: Where, size: int, limit: int) -> FieldError:
    return FieldError(TOO_MANY, spelled(where), size, f"must have at most {limit} items")


def _object_rules(schema: Schema) -> list[Rule]:
    names = schema.get("required", ())
    if not names:
        return []

    def rule(value: Any, where: Where, errors: Errors) -> None:
        if type(value) is dict:
            errors.extend(FieldError(REQUIRED, spelled((where, name))) for name in names if name not in value)

    return [rule]


def _key(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


# Choices -------------------------------------------------------------------------------------------------------------------


def _choices(schema: Schema) -> Rule | None:
    groups = {word: [checker(one) for one in schema.get(word, ())] for word in ("allOf", "anyOf", "oneOf")}
    never = checker(schema["not"]) if "not" in schema else None
    if never is None and not any(groups.values()):
        return None

    def rule(value: Any, where: Where, errors: Errors) -> None:
        for check in groups["allOf"]:
            check(value, ABSENT, where, errors)
        if groups["anyOf"]:
            _one_of(groups["anyOf"], value, where, errors, 0)
        if groups["oneOf"]:
            _one_of(groups["oneOf"], value, where, errors, 1)
        if never is not None:
            found: Errors = []
            never(value, ABSENT, where, found)
            if not found:
                errors.append(_whole(f'"{spelled(where)}" must not validate the schema (not)'))

    return rule


def _one_of(checks: list[Check], value: Any, where: Where, errors: Errors, most: int) -> None:
    """Look for branches that fit; ``most`` 0 means any number."""
    fitting, best = 0, None
    for check in checks:
        found: Errors = []
        check(value, ABSENT, where, found)
        if not found:
            fitting += 1
        elif best is None or len(found) < len(best):
            best = found
    name = spelled(where)
    if not fitting:
        what = "must validate one and only one schema (oneOf). Found none valid" if most else "must validate at least one schema (anyOf)"
        errors.append(_whole(f'"{name}" {what}'))
        errors.extend(best or ())
    elif most and fitting > 1:
        errors.append(_whole(f'"{name}" must validate one and only one schema (oneOf). Found {fitting} valid alternatives'))


def _whole(text: str) -> FieldError:
    """An error of a choice names no field but in its text."""
    return FieldError(INVALID, "<nil>", "", text)


# What is inside --------------------------------------------------------------------------------------------------------------


def _inner(schema: Schema) -> Check | None:
    if isinstance(schema.get("items"), dict):
        return _list_check(schema)
    fields = {name: checker(one) for name, one in schema.get("properties", {}).items()}
    values = schema.get("additionalProperties")
    others = checker(values) if isinstance(values, dict) else None
    if not fields and others is None:
        return None

    def check(value: Any, old: Any, where: Where, errors: Errors) -> None:
        if type(value) is not dict:
            return
        before = old if type(old) is dict else {}
        for key, one in value.items():
            below = fields.get(key, others)
            if below is not None:
                below(one, before.get(key, ABSENT), (where, key), errors)

    return check


def _list_check(schema: Schema) -> Check:
    below = checker(schema["items"])
    form = schema.get("x-kubernetes-list-type", "atomic")
    keys = schema.get("x-kubernetes-list-map-keys", ())

    def check(value: Any, old: Any, where: Where, errors: Errors) -> None:
        if type(value) is not list:
            return
        before: dict[Hashable, Any] = {}
        if form == "map" and type(old) is list:
            before = {_identity(one, keys): one for one in old if type(one) is dict}
        seen: set[Hashable] = set()
        for index, one in enumerate(value):
            place = (where, index)
            if form in ("map", "set"):
                identity: Hashable = _identity(one, keys) if form == "map" else one if type(one) is str else _key(one)
                if identity in seen:
                    shown = {key: one.get(key) for key in keys} if form == "map" and type(one) is dict else one
                    errors.append(FieldError(DUPLICATE, spelled(place), shown))
                seen.add(identity)
                below(one, before.get(identity, ABSENT), place, errors)
            else:
                below(one, ABSENT, place, errors)

    return check


def _identity(value: Any, keys: Any) -> Hashable:
    if len(keys) == 1 and type(value) is dict and type(name := value.get(keys[0])) is str:
        return name  # nearly all of them
    return _key([value.get(key) for key in keys] if type(value) is dict else value)
