"""CEL's types.

A type is a value: a name and what it is made of. ``dyn`` stands for any; where it is met, types are looked at again when there are values.
Objects have declared fields, from a schema.

Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md#values
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Type:
    """``of`` are the types of elements, of keys and values. An object's ``fields`` do not take part in comparisons: its name does.

    ``most`` is how many characters, elements or entries a value has at most, None where nobody knows; it does not take part either.
    """

    name: str
    of: tuple[Type, ...] = ()
    fields: Mapping[str, Type] | None = field(default=None, compare=False, repr=False)
    most: int | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        if self.name in ("list", "map", "optional_type", "type") and self.of:
            return f"{self.name}({', '.join(str(one) for one in self.of)})"
        return self.name


DYN, NULL = Type("dyn"), Type("null_type")
BOOL, INT, UINT, DOUBLE, STRING, BYTES = (Type(name) for name in ("bool", "int", "uint", "double", "string", "bytes"))
TIMESTAMP, DURATION, TYPE = Type("timestamp"), Type("duration"), Type("type")
QUANTITY, URL, IP, CIDR, FORMAT, SEMVER = (Type(name) for name in ("quantity", "url", "net.IP", "net.CIDR", "format", "semver"))
NAMES = {one.name: one for one in (BOOL, INT, UINT, DOUBLE, STRING, BYTES, DYN, NULL, TYPE)}


def list_of(element: Type) -> Type:
    return Type("list", (element,))


def map_of(key: Type, value: Type) -> Type:
    return Type("map", (key, value))


def optional_of(inner: Type) -> Type:
    return Type("optional_type", (inner,))


LIST, MAP = list_of(DYN), map_of(DYN, DYN)


def fits(wanted: Type, found: Type) -> bool:
    """Say whether a value of one type may stand where another is wanted. What is not known fits."""
    if wanted is DYN or found is DYN or wanted == found or "dyn" in (wanted.name, found.name):
        return True
    if wanted.fields is not None or found.fields is not None:
        # An object is a map with names for keys where nothing better is known of it.
        other = found if wanted.fields is not None else wanted
        return other.name == "map" or (other.fields is not None and wanted.name == found.name)
    if found.name == "null_type":
        return wanted.name in ("timestamp", "duration", "optional_type")
    if wanted.name != found.name:
        return False
    return all(fits(one, other) for one, other in zip(wanted.of, found.of, strict=False))


def joined(one: Type, other: Type) -> Type:
    """Give a type for values of either; ``dyn`` when they have nothing in common."""
    if one == other:
        return one
    if one.name == "null_type":
        return other if other.name in ("timestamp", "duration") else DYN
    return DYN
