"""Bytes to typed values and back.

An object that does not decode is the reader's to report: ``decode`` raises ``Undecodable`` with the path of the field, and an
informer that meets one passes over that object and goes on. Servers written in Go send ``null`` for an empty list or map
(``"endpoints": null``): a field that is null counts as absent. The first try takes the bytes as they are; only after it has failed are
nulls looked for, so that objects without any cost nothing more.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from podwire.objects.meta import Object, ObjectMeta

T = TypeVar("T", bound=Object)
V = TypeVar("V")


class Undecodable(ValueError):
    """An object whose JSON does not fit its type. The text names the field, as ``Expected `int`, got `str` - at `$.spec.x```."""


class ListMeta(msgspec.Struct, frozen=True, rename={"resource_version": "resourceVersion", "continue_": "continue"}):
    resource_version: str = ""
    continue_: str = ""


class WatchEvent(msgspec.Struct, frozen=True):
    """One line of a watch. ``object`` is left as bytes: a Status if ``type`` is ERROR, metadata alone if it is BOOKMARK."""

    type: str
    object: msgspec.Raw = msgspec.Raw(b"{}")


class Status(msgspec.Struct, frozen=True):
    """What an API server answers instead of an object when it refuses."""

    status: str | None = None
    message: str | None = None
    reason: str | None = None
    code: int | None = None
    details: dict[str, Any] | None = None


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list. ``refused`` holds the metadata of what did not decode, and why."""

    items: list[T]
    resource_version: str
    continue_: str
    refused: tuple[tuple[ObjectMeta, Undecodable], ...] = ()


class _List(msgspec.Struct, Generic[V], frozen=True):
    metadata: ListMeta = ListMeta()
    items: list[V] | None = None


class _Bare(msgspec.Struct, frozen=True):
    metadata: ObjectMeta = ObjectMeta()


@functools.cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind, strict=True)


def _decode(kind: Any, body: bytes | memoryview | msgspec.Raw) -> Any:
    try:
        return _decoder(kind).decode(body)
    except msgspec.ValidationError as error:
        plain = msgspec.json.decode(body)
        stripped = without_nulls(plain)
        if stripped == plain:
            raise Undecodable(str(error)) from error
        try:
            return msgspec.convert(stripped, kind)
        except msgspec.ValidationError as second:
            raise Undecodable(str(second)) from second
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Undecodable(str(error)) from error


def without_nulls(tree: Any) -> Any:
    """Give a JSON tree without the members and elements that are null."""
    if isinstance(tree, dict):
        return {key: without_nulls(value) for key, value in tree.items() if value is not None}
    if isinstance(tree, list):
        return [without_nulls(value) for value in tree if value is not None]
    return tree


def decode(kind: type[T], body: bytes | memoryview | msgspec.Raw) -> T:
    """Decode one JSON object. Raises Undecodable."""
    value: T = _decode(kind, body)
    return value


def decode_metadata(body: bytes | memoryview | msgspec.Raw) -> ObjectMeta:
    """Decode the metadata of an object and nothing else of it. Raises Undecodable."""
    bare: _Bare = _decode(_Bare, body)
    return bare.metadata


def decode_status(body: bytes | memoryview | msgspec.Raw) -> Status:
    """Decode a Status. Raises Undecodable."""
    status: Status = _decode(Status, body)
    return status


def decode_watch_event(line: bytes | memoryview) -> WatchEvent:
    """Decode the envelope of one line of a watch. Raises Undecodable."""
    event: WatchEvent = _decode(WatchEvent, line)
    return event


def decode_list(kind: type[T], body: bytes) -> Page[T]:
    """Decode a page of a list. One item that does not fit is set aside with its reason. Raises Undecodable if it is not a list."""
    try:
        page = _decoder(_List[kind]).decode(body)  # type: ignore[valid-type]
    except msgspec.DecodeError:
        return _decode_one_by_one(kind, body)
    return Page(page.items or [], page.metadata.resource_version, page.metadata.continue_)


def _decode_one_by_one(kind: type[T], body: bytes) -> Page[T]:
    page = _decode(_List[msgspec.Raw], body)
    items: list[T] = []
    refused: list[tuple[ObjectMeta, Undecodable]] = []
    for raw in page.items or ():
        try:
            items.append(decode(kind, raw))
        except Undecodable as error:
            try:
                refused.append((decode_metadata(raw), error))
            except Undecodable:
                refused.append((ObjectMeta(), error))
    return Page(items, page.metadata.resource_version, page.metadata.continue_, tuple(refused))


def convert(kind: type[T], tree: dict[str, Any]) -> T:
    """Make a typed value from a plain JSON tree; what is null in it counts as absent. Raises Undecodable."""
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError:
        try:
            return msgspec.convert(without_nulls(tree), kind)
        except msgspec.ValidationError as error:
            raise Undecodable(str(error)) from error


def encode(value: object) -> bytes:
    """Encode a value as JSON, without its defaults."""
    return msgspec.json.encode(value)


def tree(value: object) -> dict[str, Any]:
    """Give the plain JSON tree of a value."""
    plain: dict[str, Any] = msgspec.to_builtins(value)
    return plain
