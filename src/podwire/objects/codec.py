"""Bytes to typed values and back.

An object that does not decode is the reader's to report: ``decode`` raises ``Undecodable`` with the path of the field, and an
informer that meets one passes over that object and goes on.
"""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import msgspec

from podwire.objects.meta import Object

T = TypeVar("T", bound=Object)


class Undecodable(ValueError):
    """An object whose JSON does not fit its type. The text names the field, as ``Expected `int`, got `str` - at `$.spec.x```."""


@functools.cache
def _decoder(kind: type[Any]) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, strict=True)


def decode(kind: type[T], body: bytes | memoryview | msgspec.Raw) -> T:
    """Decode one JSON object. Raises Undecodable."""
    try:
        value: T = _decoder(kind).decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Undecodable(str(error)) from error
    return value


def convert(kind: type[T], tree: dict[str, Any]) -> T:
    """Make a typed value from a plain JSON tree. Raises Undecodable."""
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise Undecodable(str(error)) from error


def encode(value: object) -> bytes:
    """Encode a value as JSON, without its defaults."""
    return msgspec.json.encode(value)


def tree(value: object) -> dict[str, Any]:
    """Give the plain JSON tree of a value."""
    plain: dict[str, Any] = msgspec.to_builtins(value)
    return plain
