"""CEL's values, as Python's: bool, int, Uint, float, str, bytes, None, list, dict, datetime, timedelta, and those of this file.

Here: what values are equal, how one is compared, what goes wrong. Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#values
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import Any

from podwire.apiserver.cel import types
from podwire.apiserver.cel.types import Type


class Fault(Exception):
    """What goes wrong while an expression is evaluated. The text is CEL's."""


class CostExceeded(Fault):
    """An expression that takes too long."""

    def __init__(self) -> None:
        super().__init__("operation cancelled: actual cost limit exceeded")


class Uint(int):
    """A whole number without a sign."""

    __slots__ = ()


class Made(dict[str, Any]):
    """An object that an expression has made, under the name that it gave its type."""

    __slots__ = ("name",)

    def __init__(self, name: str, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        self.name = name


@dataclass(frozen=True, slots=True)
class Optional:
    """A value that may not be there."""

    value: Any = None
    there: bool = False


@dataclass(frozen=True, slots=True)
class Quantity:
    """An amount of a resource."""

    amount: Fraction


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in its parts."""

    scheme: str
    host: str
    hostname: str
    port: str
    path: str
    query: str


@dataclass(frozen=True, slots=True)
class Semver:
    """A semantic version; ``rank`` orders versions as https://semver.org has it."""

    major: int
    minor: int
    patch: int
    rank: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Format:
    """A named rule of texts."""

    name: str


NONE = Optional()

_TYPES: dict[type, Type] = {
    bool: types.BOOL,
    int: types.INT,
    Uint: types.UINT,
    float: types.DOUBLE,
    str: types.STRING,
    bytes: types.BYTES,
    type(None): types.NULL,
    list: types.LIST,
    dict: types.MAP,
    datetime: types.TIMESTAMP,
    timedelta: types.DURATION,
    Optional: types.optional_of(types.DYN),
    Quantity: types.QUANTITY,
    Url: types.URL,
    Semver: types.SEMVER,
    Format: types.FORMAT,
    IPv4Address: types.IP,
    IPv6Address: types.IP,
    IPv4Interface: types.CIDR,
    IPv6Interface: types.CIDR,
    Type: types.TYPE,
}


def type_of(value: Any) -> Type:
    return _TYPES.get(type(value), types.DYN)


def no_overload(*_values: Any) -> Fault:
    return Fault("no such overload")


LARGEST = 10_000_000  # characters or elements of a value that an expression makes
MOST_STEPS = 1_000_000  # of one function that looks at each element of its arguments


def within(limit: int, size: int) -> None:
    """Refuse work of more than so many steps, or a value of more than such a size. Raises CostExceeded."""
    if size > limit:
        raise CostExceeded


def equal(one: Any, other: Any) -> bool:
    """Say whether two values are the same; a truth is no number, though Python has it so. Raises CostExceeded.

    What looks small may be large: a list of lists may hold one list many times over.
    """
    if type(one) in (list, dict) and type(one) is type(other):
        return _same_inside(one, other, [MOST_STEPS])
    return _same(one, other)


def _same_inside(one: Any, other: Any, left: list[int]) -> bool:
    if type(one) is not type(other) or type(one) not in (list, dict):
        return _same(one, other)
    left[0] -= len(one)
    if left[0] < 0:
        raise CostExceeded
    if len(one) != len(other):
        return False
    if type(one) is list:
        return all(_same_inside(value, counter, left) for value, counter in zip(one, other, strict=True))
    return all(key in other and _same_inside(value, other[key], left) for key, value in one.items())


def _same(one: Any, other: Any) -> bool:
    kind, others = type(one), type(other)
    if kind is others:
        return bool(one == other)
    if kind is bool or others is bool:
        return False
    return bool(one == other)


_NUMBERS = (int, Uint, float)
_ORDERED = (str, bytes, bool, datetime, timedelta)


def compare(one: Any, other: Any) -> int:
    """Give -1, 0 or 1, or 2 where there is no order (NaN). Raises Fault."""
    kind, others = type(one), type(other)
    if not ((kind in _NUMBERS and others in _NUMBERS) or (kind is others and kind in _ORDERED)):
        raise no_overload()
    if one != one or other != other:
        return 2
    return -1 if one < other else int(one > other)


def whole(value: int, kind: type = int) -> int:
    """Give a number of CEL's size. Raises Fault."""
    if kind is Uint:
        if not 0 <= value < 1 << 64:
            raise Fault("unsigned integer overflow")
        return Uint(value)
    if not -(1 << 63) <= value < 1 << 63:
        raise Fault("integer overflow")
    return value


def number(value: float) -> str:
    """Print a double as Go does."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if math.isnan(value):
        return "NaN"
    return str(int(value)) if value.is_integer() and abs(value) < 1e21 else repr(value)
