"""Fields of JSON objects as expressions see them: under which name, and as what value where JSON has no type for it.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

from podwire.apiserver.cel.comprehensions import Frame, Run
from podwire.apiserver.cel.functions import read_duration, read_time
from podwire.apiserver.cel.syntax import KEYWORDS
from podwire.apiserver.cel.types import BYTES, DOUBLE, DURATION, TIMESTAMP, Type
from podwire.apiserver.cel.values import NONE, Fault, Made, Optional, no_overload

# Names of fields ---------------------------------------------------------------------------------------------------------

_ESCAPED = (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"))
_PARTS = re.compile("|".join(word for _, word in _ESCAPED))


def escaped(name: str) -> str:
    """Give the name by which an expression calls a field, ``""`` when none can."""
    if name in KEYWORDS:
        return f"__{name}__"
    for sign, word in _ESCAPED:
        name = name.replace(sign, word)
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else ""


def unescaped(name: str) -> str:
    """Give the name of the field that an expression means."""
    if name.startswith("__") and name.endswith("__") and name[2:-2] in KEYWORDS:
        return name[2:-2]
    signs = {word: sign for sign, word in _ESCAPED}
    return _PARTS.sub(lambda match: signs[match[0]], name)


# Values of a schema that JSON has no type for ----------------------------------------------------------------------------


def reader(kind: Type) -> Callable[[Any], Any] | None:
    """Give what makes a value of a type from its JSON; None when it is what it should be."""
    if kind == DOUBLE:
        return lambda value: float(value) if type(value) is int else value
    if kind == TIMESTAMP:
        return lambda value: _read_time(value) if type(value) is str else value
    if kind == DURATION:
        return lambda value: read_duration(value) if type(value) is str else value
    if kind == BYTES:
        return _read_bytes
    if kind.name == "list" and kind.of and (inner := reader(kind.of[0])) is not None:
        return lambda value: [inner(one) for one in value] if type(value) is list else value
    if kind.name == "map" and kind.of and (below := reader(kind.of[1])) is not None:
        return lambda value: {key: below(one) for key, one in value.items()} if type(value) is dict else value
    return None


def _read_time(text: str) -> Any:
    return read_time(f"{text}T00:00:00Z" if len(text) == len("2006-01-02") else text)


def _read_bytes(value: Any) -> Any:
    try:
        return base64.b64decode(value) if type(value) is str else value
    except (binascii.Error, ValueError):
        raise Fault("illegal base64 data") from None


# Fields of what is no plain object ------------------------------------------------------------------------------------------


def optional_field(operand: Run, field: str, read: Callable[[Any], Any] | None) -> Run:
    """Give what looks up a field that may not be there."""

    def run(frame: Frame) -> Optional:
        value = operand(frame)
        if type(value) is Optional:
            if not value.there:
                return NONE
            value = value.value
        if not isinstance(value, dict):
            raise no_overload()
        if field not in value:
            return NONE
        return Optional(value[field] if read is None else read(value[field]), True)

    return run


def field_of_other(value: Any, field: str) -> Any:
    """Give a field of an optional value, or of an object that an expression has made. Raises Fault."""
    if type(value) is Optional:
        return Optional(value.value[field], True) if value.there and field in value.value else NONE
    if value is None or (type(value) is Made and field not in value):
        raise Fault(f"no such key: {field}")
    if type(value) is Made:
        return value[field]
    raise no_overload()
