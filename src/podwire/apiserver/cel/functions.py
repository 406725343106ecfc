"""CEL's functions: what types they take and give, and what they do.

``FUNCTIONS`` is one table: a name, its overloads, its work. An overload that does not fit is found before there are values; where types
are not known until then, the work says ``no such overload``. ``libraries.py`` adds Kubernetes' own.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#list-of-standard-definitions and
https://github.com/google/cel-go/tree/master/ext (strings, math, encoders, optional)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import re2  # type: ignore[import-untyped]

from podwire.apiserver.cel.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    LIST,
    MAP,
    STRING,
    TIMESTAMP,
    TYPE,
    UINT,
    Type,
    joined,
    map_of,
    optional_of,
)
from podwire.apiserver.cel.values import LARGEST, NONE, Fault, Optional, Uint, compare, equal, no_overload, number, type_of, whole, within

Result = Type | Callable[[Sequence[Type]], Type]


@dataclass(frozen=True)
class Overload:
    """The types of the arguments (a member function's target first) and of the result."""

    takes: tuple[Type, ...]
    gives: Result
    member: bool = False


@dataclass(frozen=True)
class Function:
    """A function. ``weighs`` says that its cost grows with the size of its first argument; ``cost`` may be worked out from all of them."""

    work: Callable[..., Any]
    overloads: list[Overload] = field(default_factory=list)
    weighs: bool = False
    cost: int | Callable[..., int] = 1


FUNCTIONS: dict[str, Function] = {}


def define(
    name: str, *overloads: Overload, weighs: bool = False, cost: int | Callable[..., int] = 1
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put a function into the table."""

    def put(work: Callable[..., Any]) -> Callable[..., Any]:
        FUNCTIONS[name] = Function(work, list(overloads), weighs, cost)
        return work

    return put


def of(*takes: Type, gives: Result) -> Overload:
    return Overload(takes, gives)


def on(*takes: Type, gives: Result) -> Overload:
    return Overload(takes, gives, member=True)


def element(found: Sequence[Type]) -> Type:
    """The type of a list's elements."""
    return found[0].of[0] if found[0].name == "list" else DYN


def same(found: Sequence[Type]) -> Type:
    return found[0]


@lru_cache(maxsize=1024)
def pattern(text: str) -> Any:
    """Compile a regular expression. Raises Fault."""
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as error:
        raise Fault(f"error parsing regexp: {error}") from None


# Operators ---------------------------------------------------------------------------------------------------------------


@define("_==_", of(DYN, DYN, gives=BOOL))
def _equal(one: Any, other: Any) -> bool:
    return equal(one, other)


@define("_!=_", of(DYN, DYN, gives=BOOL))
def _differs(one: Any, other: Any) -> bool:
    return not equal(one, other)


_ORDER = [of(one, other, gives=BOOL) for one in (INT, UINT, DOUBLE) for other in (INT, UINT, DOUBLE)]
_ORDER += [of(one, one, gives=BOOL) for one in (STRING, BYTES, BOOL, TIMESTAMP, DURATION)]
define("_<_", *_ORDER)(lambda one, other: compare(one, other) == -1)
define("_<=_", *_ORDER)(lambda one, other: compare(one, other) in (-1, 0))
define("_>_", *_ORDER)(lambda one, other: compare(one, other) == 1)
define("_>=_", *_ORDER)(lambda one, other: compare(one, other) in (0, 1))

_SAME_NUMBERS = [of(one, one, gives=one) for one in (INT, UINT, DOUBLE)]


def _sum_type(found: Sequence[Type]) -> Type:
    return joined(found[0], found[1])


@define(
    "_+_",
    *_SAME_NUMBERS,
    of(STRING, STRING, gives=STRING),
    of(BYTES, BYTES, gives=BYTES),
    of(LIST, LIST, gives=_sum_type),
    of(TIMESTAMP, DURATION, gives=TIMESTAMP),
    of(DURATION, TIMESTAMP, gives=TIMESTAMP),
    of(DURATION, DURATION, gives=DURATION),
    weighs=True,
)
def _add(one: Any, other: Any) -> Any:
    kind, others = type(one), type(other)
    if kind is others:
        if kind in (int, Uint):
            return whole(int(one) + int(other), kind)
        if kind in (str, bytes, list):
            within(LARGEST, len(one) + len(other))
            return one + other
        if kind in (float, timedelta):
            return one + other
    if {kind, others} == {datetime, timedelta}:
        return one + other
    raise no_overload()


@define(
    "_-_",
    *_SAME_NUMBERS,
    of(TIMESTAMP, TIMESTAMP, gives=DURATION),
    of(TIMESTAMP, DURATION, gives=TIMESTAMP),
    of(DURATION, DURATION, gives=DURATION),
)
def _subtract(one: Any, other: Any) -> Any:
    kind, others = type(one), type(other)
    if kind is others and kind in (int, Uint):
        return whole(int(one) - int(other), kind)
    if (kind is others and kind in (float, timedelta, datetime)) or (kind is datetime and others is timedelta):
        return one - other
    raise no_overload()


@define("_*_", *_SAME_NUMBERS)
def _multiply(one: Any, other: Any) -> Any:
    kind = type(one)
    if kind is not type(other) or kind not in (int, Uint, float):
        raise no_overload()
    return one * other if kind is float else whole(int(one) * int(other), kind)


@define("_/_", *_SAME_NUMBERS)
def _divide(one: Any, other: Any) -> Any:
    kind = type(one)
    if kind is not type(other) or kind not in (int, Uint, float):
        raise no_overload()
    if kind is float:
        return one / other if other else math.copysign(math.inf, one * math.copysign(1, other)) if one else math.nan
    if not other:
        raise Fault("division by zero")
    share = abs(int(one)) // abs(int(other))
    return whole(share if (one < 0) == (other < 0) else -share, kind)


@define("_%_", *_SAME_NUMBERS[:2])
def _modulo(one: Any, other: Any) -> Any:
    kind = type(one)
    if kind is not type(other) or kind not in (int, Uint):
        raise no_overload()
    if not other:
        raise Fault("modulus by zero")
    rest = abs(int(one)) % abs(int(other))
    return whole(rest if one >= 0 else -rest, kind)


@define("-_", of(INT, gives=INT), of(DOUBLE, gives=DOUBLE))
def negate(one: Any) -> Any:
    if type(one) is int:
        return whole(-one)
    if type(one) is float:
        return -one
    raise no_overload()


@define("!_", of(BOOL, gives=BOOL))
def _not(one: Any) -> bool:
    if type(one) is not bool:
        raise no_overload()
    return not one


@define("@in", of(DYN, LIST, gives=BOOL), of(DYN, map_of(DYN, DYN), gives=BOOL), weighs=True)
def _in(one: Any, many: Any) -> bool:
    if type(many) is dict:
        return type(one) is not bool and not isinstance(one, list | dict) and one in many
    if type(many) is not list:
        raise no_overload()
    if type(one) is str:
        return one in many
    return any(equal(one, other) for other in many)


def _indexed(found: Sequence[Type]) -> Type:
    return found[0].of[-1] if found[0].name in ("list", "map") and found[0].of else DYN


@define("_[_]", of(LIST, INT, gives=_indexed), of(LIST, DOUBLE, gives=_indexed), of(MAP, DYN, gives=_indexed))
def index(many: Any, at: Any) -> Any:
    if type(many) is Optional:
        return optional_index(many, at)
    if type(many) is list:
        if type(at) is float and at.is_integer():
            at = int(at)
        if type(at) not in (int, Uint):
            raise no_overload()
        if not 0 <= at < len(many):
            raise Fault(f"index out of bounds: {at}")
        return many[at]
    if type(many) is dict:
        if isinstance(at, list | dict) or at not in many:
            raise Fault(f"no such key: {at}")
        return many[at]
    raise no_overload()


def _maybe_indexed(found: Sequence[Type]) -> Type:
    return optional_of(_indexed(found))


@define("_[?_]", of(LIST, INT, gives=_maybe_indexed), of(MAP, DYN, gives=_maybe_indexed))
def optional_index(many: Any, at: Any) -> Optional:
    if type(many) is Optional:
        return optional_index(many.value, at) if many.there else NONE
    try:
        return Optional(index(many, at), True)
    except Fault as fault:
        if str(fault).startswith(("no such key", "index out")):
            return NONE
        raise


# Conversions ---------------------------------------------------------------------------------------------------------------

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)")
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS_US = {"ns": 1e-3, "us": 1, "µs": 1, "μs": 1, "ms": 1e3, "s": 1e6, "m": 60e6, "h": 3600e6}


def read_time(text: str) -> datetime:
    """Read a time of RFC 3339. Raises Fault."""
    match = _TIME.fullmatch(text)
    try:
        if match is not None:
            fraction = (match[3] or "")[:6].ljust(6, "0")
            return datetime.fromisoformat(f"{match[1]}T{match[2]}.{fraction}{match[4].upper().replace('Z', '+00:00')}").astimezone(UTC)
    except ValueError:
        pass
    raise Fault(f'parsing time "{text}" as "2006-01-02T15:04:05Z07:00": cannot parse')


def read_duration(text: str) -> timedelta:
    """Read a length of time as Go writes it: ``1h30m``. Raises Fault."""
    sign, rest = (-1 if text.startswith("-") else 1), text.lstrip("+-")
    if rest == "0":
        return timedelta()
    total, position = 0.0, 0
    while match := _PART.match(rest, position):
        total += float(match[1]) * _UNITS_US[match[2]]
        position = match.end()
    if not rest or position < len(rest):
        raise Fault(f'time: invalid duration "{text}"')
    return timedelta(microseconds=sign * total)


def show_time(value: datetime) -> str:
    fraction = f".{value.microsecond:06d}".rstrip("0") if value.microsecond else ""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S") + fraction + "Z"


def show_duration(value: timedelta) -> str:
    return number(value.total_seconds()) + "s"


@define("int", *(of(one, gives=INT) for one in (INT, UINT, DOUBLE, STRING, TIMESTAMP, DURATION)))
def _int(value: Any) -> int:
    kind = type(value)
    if kind in (int, Uint):
        return whole(int(value))
    if kind is float:
        if not math.isfinite(value):
            raise Fault("integer overflow")
        return whole(int(value))
    if kind is str:
        if re.fullmatch(r"[+-]?\d+", value):
            return whole(int(value))
        raise Fault(f'strconv.ParseInt: parsing "{value}": invalid syntax')
    if kind is datetime:
        return int(value.timestamp())
    if kind is timedelta:
        return int(value / timedelta(microseconds=1)) * 1000
    raise no_overload()


@define("uint", *(of(one, gives=UINT) for one in (INT, UINT, DOUBLE, STRING)))
def _uint(value: Any) -> int:
    return whole(_int(value) if type(value) is not str or re.fullmatch(r"\d+", value) else -1, Uint)


@define("double", *(of(one, gives=DOUBLE) for one in (INT, UINT, DOUBLE, STRING)))
def _double(value: Any) -> float:
    if type(value) not in (int, Uint, float, str):
        raise no_overload()
    try:
        return float(value)
    except ValueError:
        raise Fault(f'strconv.ParseFloat: parsing "{value}": invalid syntax') from None


@define("bool", of(BOOL, gives=BOOL), of(STRING, gives=BOOL))
def _bool(value: Any) -> bool:
    if type(value) is bool:
        return value
    if type(value) is not str:
        raise no_overload()
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise Fault(f'strconv.ParseBool: parsing "{value}": invalid syntax')


PRINTERS: dict[type, Callable[[Any], str]] = {
    str: lambda value: value,
    bool: lambda value: "true" if value else "false",
    int: str,
    Uint: lambda value: str(int(value)),
    float: number,
    datetime: show_time,
    timedelta: show_duration,
}


@define("string", of(DYN, gives=STRING))
def show(value: Any) -> str:
    if type(value) is bytes:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise Fault("invalid UTF-8 in bytes, cannot convert to string") from None
    printer = PRINTERS.get(type(value))
    if printer is None:
        raise no_overload()
    return printer(value)


define("bytes", of(BYTES, gives=BYTES), of(STRING, gives=BYTES))(lambda value: value if type(value) is bytes else show(value).encode())
define("dyn", of(DYN, gives=DYN))(lambda value: value)
define("type", of(DYN, gives=TYPE))(type_of)
define("timestamp", of(STRING, gives=TIMESTAMP), of(TIMESTAMP, gives=TIMESTAMP), of(INT, gives=TIMESTAMP))(
    lambda value: (
        value if type(value) is datetime else datetime.fromtimestamp(value, UTC) if type(value) is int else read_time(text_of(value))
    )
)
define("duration", of(STRING, gives=DURATION), of(DURATION, gives=DURATION))(
    lambda value: value if type(value) is timedelta else read_duration(text_of(value))
)


def text_of(value: Any) -> Any:
    """Give a text. Raises Fault for anything else."""
    if type(value) is not str:
        raise no_overload()
    return value


def list_value(value: Any) -> list[Any]:
    """Give a list. Raises Fault for anything else."""
    if type(value) is not list:
        raise no_overload()
    return value


@define("size", *(make(one, gives=INT) for one in (STRING, BYTES, LIST, MAP) for make in (of, on)))
def _size(value: Any) -> int:
    if type(value) not in (str, bytes, list, dict):
        raise no_overload()
    return len(value)


# Times -----------------------------------------------------------------------------------------------------------------------


def _zone(name: str) -> Any:
    try:
        if match := re.fullmatch(r"([+-]?)(\d\d):(\d\d)", name):
            shift = timedelta(hours=int(match[2]), minutes=int(match[3]))
            return timezone(-shift if match[1] == "-" else shift)
        return ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        raise Fault(f"unknown time zone {name}") from None


def _part(of_time: Callable[[datetime], int], of_duration: Callable[[timedelta], int] | None = None) -> Callable[..., int]:
    def work(value: Any, zone: str = "UTC") -> int:
        if type(value) is datetime:
            return of_time(value.astimezone(UTC if zone == "UTC" else _zone(zone)))
        if type(value) is timedelta and of_duration is not None:
            return of_duration(value)
        raise no_overload()

    return work


_OF_TIME = (on(TIMESTAMP, gives=INT), on(TIMESTAMP, STRING, gives=INT))
for _name, _read in (
    ("getFullYear", lambda t: t.year),
    ("getMonth", lambda t: t.month - 1),
    ("getDate", lambda t: t.day),
    ("getDayOfMonth", lambda t: t.day - 1),
    ("getDayOfWeek", lambda t: t.isoweekday() % 7),
    ("getDayOfYear", lambda t: t.timetuple().tm_yday - 1),
):
    define(_name, *_OF_TIME)(_part(_read))
for _name, _read, _span in (
    ("getHours", lambda t: t.hour, lambda d: int(d.total_seconds() / 3600)),
    ("getMinutes", lambda t: t.minute, lambda d: int(d.total_seconds() / 60)),
    ("getSeconds", lambda t: t.second, lambda d: int(d.total_seconds())),
    ("getMilliseconds", lambda t: t.microsecond // 1000, lambda d: int(d.total_seconds() * 1000)),
):
    define(_name, *_OF_TIME, on(DURATION, gives=INT))(_part(_read, _span))
