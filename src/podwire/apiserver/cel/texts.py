"""CEL's functions of texts, numbers, bytes and optional values.

Source: https://github.com/google/cel-go/tree/master/ext (strings, math, encoders) and .../cel/library.go (optional)
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson

from podwire.apiserver.cel.functions import Result, define, list_value, negate, of, on, pattern, same, show, text_of
from podwire.apiserver.cel.types import BOOL, BYTES, DOUBLE, DYN, INT, LIST, STRING, UINT, Type, joined, list_of, optional_of
from podwire.apiserver.cel.values import LARGEST, MOST_STEPS, NONE, Fault, Optional, Uint, equal, no_overload, number, type_of, within

# Texts -----------------------------------------------------------------------------------------------------------------------


def _at(value: str, position: int) -> int:
    if not 0 <= position <= len(value):
        raise Fault(f"index out of range: {position}")
    return position


def _member(name: str, *takes: Type, gives: Result = STRING, weighs: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A member function of texts, which are checked here."""

    def put(work: Callable[..., Any]) -> Callable[..., Any]:
        def checked(value: Any, *rest: Any) -> Any:
            for one, wanted in zip((value, *rest), (STRING, *takes), strict=False):
                if (wanted is STRING and type(one) is not str) or (wanted is INT and type(one) not in (int, Uint)):
                    raise no_overload()
            return work(value, *rest)

        least = len(takes) - (name in _SHORTER)
        overloads = [on(STRING, *takes[:count], gives=gives) for count in range(least, len(takes) + 1)]
        define(name, *overloads, weighs=weighs)(checked)
        return work

    return put


define("jsonpatch.escapeKey", of(STRING, gives=STRING))(lambda value: text_of(value).replace("~", "~0").replace("/", "~1"))
_SHORTER = ("indexOf", "lastIndexOf", "replace", "split", "substring")

_member("contains", STRING, gives=BOOL)(lambda value, part: part in value)
_member("startsWith", STRING, gives=BOOL)(str.startswith)
_member("endsWith", STRING, gives=BOOL)(str.endswith)
_member("charAt", INT)(lambda value, at: value[_at(value, at) : at + 1])
_member("lowerAscii")(lambda value: value.lower() if value.isascii() else re.sub("[A-Z]+", lambda found: found[0].lower(), value))
_member("upperAscii")(lambda value: value.upper() if value.isascii() else re.sub("[a-z]+", lambda found: found[0].upper(), value))
_member("trim")(str.strip)
_member("reverse")(lambda value: value[::-1])
_member("substring", INT, INT)(lambda value, start, end=None: _slice(value, start, len(value) if end is None else end))
_member("replace", STRING, STRING, INT)(lambda value, old, new, count=-1: _replaced(value, old, new, count))
_member("split", STRING, INT, gives=list_of(STRING))(lambda value, part, count=-1: _split(value, part, count))


def _replaced(value: str, old: str, new: str, count: int) -> str:
    found = value.count(old)
    within(LARGEST, len(value) + (found if count < 0 else min(found, count)) * len(new))
    return value.replace(old, new, count)


def _slice(value: str, start: int, end: int) -> str:
    if start > end:
        raise Fault(f"invalid substring range. start: {start}, end: {end}")
    return value[_at(value, start) : _at(value, end)]


def _split(value: str, part: str, count: int) -> list[str]:
    if count == 0:
        return []
    if not part:
        return list(value) if count < 0 else [*value[: count - 1], value[count - 1 :]]
    return value.split(part, count - 1 if count > 0 else -1)


@define("matches", on(STRING, STRING, gives=BOOL), of(STRING, STRING, gives=BOOL), weighs=True)
def _matches(value: Any, text: Any) -> bool:
    return pattern(text_of(text)).search(text_of(value)) is not None


def _position(*, last: bool) -> Callable[..., Any]:
    def work(value: Any, part: Any, start: int | None = None) -> Any:
        if type(value) is list:
            places = range(len(value) - 1, -1, -1) if last else range(len(value))
            return next((place for place in places if equal(value[place], part)), -1)
        text = text_of(value)
        if start is not None:
            _at(text, start)
        if last:
            return text.rfind(text_of(part), 0, len(text) if start is None else start + len(part))
        return text.find(text_of(part), start or 0)

    return work


for _name, _last in (("indexOf", False), ("lastIndexOf", True)):
    _on_texts = (on(STRING, STRING, gives=INT), on(STRING, STRING, INT, gives=INT))
    define(_name, *_on_texts, on(LIST, DYN, gives=INT), weighs=True)(_position(last=_last))


@define("join", on(list_of(STRING), gives=STRING), on(list_of(STRING), STRING, gives=STRING), weighs=True)
def _join(value: Any, between: str = "") -> str:
    texts = [text_of(one) for one in list_value(value)]
    within(LARGEST, sum(map(len, texts)) + len(between) * len(texts))
    return between.join(texts)


define("strings.quote", of(STRING, gives=STRING))(lambda value: orjson.dumps(text_of(value)).decode())

_MOST_DIGITS = 1000
_CLAUSE = re.compile(r"%(?:%|(?:\.(\d+))?([sdfeboxX]))")


@define("format", on(STRING, LIST, gives=STRING), weighs=True)
def _format(value: Any, arguments: Any) -> str:
    text, rest = text_of(value), iter(list_value(arguments))

    size = 0

    def put(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        try:
            one = next(rest)
        except StopIteration:
            raise Fault("index out of range in format arguments") from None
        shown = _formatted(match[2], int(match[1] or 6), one)
        nonlocal size
        size += len(shown)
        within(LARGEST, size)
        return shown

    return _CLAUSE.sub(put, str(text))


def _formatted(clause: str, precision: int, value: Any) -> str:
    kind = type(value)
    match clause:
        case "s":
            return formatted_text(value)
        case "f" | "e" if precision > _MOST_DIGITS:
            raise Fault(f"error during formatting: precision {precision} is more than {_MOST_DIGITS}")
        case "d" if kind in (int, Uint):
            return str(int(value))
        case "d" if kind is float:
            return number(value)
        case "f" | "e" if kind in (int, Uint, float):
            return f"{float(value):.{precision}{clause}}"
        case "b" if kind in (int, Uint, bool):
            return f"{int(value):b}"
        case "o" if kind in (int, Uint):
            return f"{int(value):o}"
        case "x" | "X" if kind in (int, Uint):
            return f"{int(value):{clause}}"
        case "x" | "X" if kind in (str, bytes):
            shown: str = (value.encode() if kind is str else value).hex()
            return shown.upper() if clause == "X" else shown
    raise Fault(f"error during formatting: {clause} clause can not be used with {type_of(value)}")


def formatted_text(value: Any) -> str:
    """Print any value. Raises CostExceeded."""
    return _printed(value, [MOST_STEPS])


def _printed(value: Any, left: list[int]) -> str:
    if type(value) in (list, dict):
        left[0] -= len(value)
        within(MOST_STEPS, MOST_STEPS - left[0])
    if type(value) is list:
        return f"[{', '.join(_printed(one, left) for one in value)}]"
    if type(value) is dict:
        return f"{{{', '.join(f'{_printed(key, left)}: {_printed(value[key], left)}' for key in sorted(value, key=str))}}}"
    if type(value) is str:
        left[0] -= len(value) // 10
        within(MOST_STEPS, MOST_STEPS - left[0])
    if value is None:
        return "null"
    if type(value) is Type:
        return str(value)
    return str(show(value))


# Numbers, bytes, optional values -----------------------------------------------------------------------------------------------


def _numbers(value: Sequence[Any]) -> Sequence[Any]:
    found = value[0] if len(value) == 1 and type(value[0]) is list else value
    if not found or any(type(one) not in (int, Uint, float) for one in found):
        raise no_overload()
    return found


_MANY = [of(*([DYN] * count), gives=same if count == 1 else DYN) for count in range(1, 8)]
define("math.greatest", *_MANY)(lambda *value: max(_numbers(value)))
define("math.least", *_MANY)(lambda *value: min(_numbers(value)))
_ON_DOUBLE = of(DOUBLE, gives=DOUBLE)
define("math.ceil", _ON_DOUBLE)(lambda value: float(math.ceil(value)) if math.isfinite(value) else value)
define("math.floor", _ON_DOUBLE)(lambda value: float(math.floor(value)) if math.isfinite(value) else value)
define("math.round", _ON_DOUBLE)(lambda value: math.copysign(math.floor(abs(value) + 0.5), value) if math.isfinite(value) else value)
define("math.trunc", _ON_DOUBLE)(lambda value: float(math.trunc(value)) if math.isfinite(value) else value)
define("math.abs", *(of(one, gives=one) for one in (INT, UINT, DOUBLE)))(lambda value: value if value >= 0 else negate(value))
define("math.sign", *(of(one, gives=one) for one in (INT, UINT, DOUBLE)))(lambda value: type(value)((value > 0) - (value < 0)))
define("math.isNaN", of(DOUBLE, gives=BOOL))(math.isnan)
define("math.isInf", of(DOUBLE, gives=BOOL))(math.isinf)
define("math.isFinite", of(DOUBLE, gives=BOOL))(math.isfinite)
define("math.sqrt", *(of(one, gives=DOUBLE) for one in (INT, UINT, DOUBLE)))(lambda value: math.sqrt(value) if value >= 0 else math.nan)
define("base64.encode", of(BYTES, gives=STRING), weighs=True)(lambda value: base64.b64encode(value).decode())


@define("base64.decode", of(STRING, gives=BYTES), weighs=True)
def _decode(value: Any) -> bytes:
    try:
        return base64.b64decode(text_of(value) + "=" * (-len(value) % 4), validate=True)
    except binascii.Error:
        raise Fault("illegal base64 data") from None


def _inner(found: Sequence[Type]) -> Type:
    return found[0].of[0] if found[0].name == "optional_type" else DYN


def _optional(value: Any) -> Optional:
    if type(value) is not Optional:
        raise no_overload()
    return value


_SOME = optional_of(DYN)
define("optional.of", of(DYN, gives=lambda found: optional_of(found[0])))(lambda value: Optional(value, True))
define("optional.none", of(gives=_SOME))(lambda: NONE)
define("optional.ofNonZeroValue", of(DYN, gives=lambda found: optional_of(found[0])))(
    lambda value: Optional(value, True) if value or type(value) in (datetime, timedelta) else NONE
)
define("hasValue", on(_SOME, gives=BOOL))(lambda value: _optional(value).there)
define("orValue", on(_SOME, DYN, gives=lambda found: joined(_inner(found), found[1])))(
    lambda value, other: value.value if _optional(value).there else other
)
define("or", on(_SOME, _SOME, gives=same))(lambda value, other: value if _optional(value).there else other)


@define("value", on(_SOME, gives=_inner))
def _value(value: Any) -> Any:
    if not _optional(value).there:
        raise Fault("optional.none() dereference")
    return value.value
