"""Bodies of requests: bytes to trees, by their media type.

Here: the table of readers, and what every body must say of itself. Not here: schemas. Another encoding is one more row of ``READERS``.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#alternate-representations-of-resources
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from podwire.apiserver import protobuf, status, yaml_bodies
from podwire.apiserver.kind import Kind, Tree
from podwire.apiserver.requests import APPLY_PATCH, JSON, PROTOBUF, YAML, Request
from podwire.apiserver.schema import Mistyped, prune_and_check, strict_message

LIMIT = 3 * 1024 * 1024  # bytes: as upstream, so that what fits here fits there
_FIELD_VALIDATION = ("", "Ignore", "Warn", "Strict")
_WRITABLE_LEVELS = 250
_MUCH_YAML = 32 * 1024  # bytes
_YAML_TYPES = (YAML, "text/yaml", APPLY_PATCH)
_WARNINGS = 50  # headers have an end


def _json(body: bytes) -> Any:
    try:
        found = orjson.loads(body)
        # More can be read than can be written again.
        if body.count(b"{") + body.count(b"[") > _WRITABLE_LEVELS:
            orjson.dumps(found)
    except orjson.JSONDecodeError as error:
        raise status.bad_request(f"the object provided is unrecognized (must be of type JSON): {error}") from None
    except TypeError:
        raise status.bad_request("the object provided is nested too deeply") from None
    return found


def _yaml(body: bytes) -> Any:
    if body.startswith(b"{"):
        with contextlib.suppress(orjson.JSONDecodeError):  # JSON is YAML
            return orjson.loads(body)
    return orjson.loads(yaml_as_json(body))


def yaml_as_json(body: bytes) -> bytes:
    """Give what a YAML document says as JSON. Raises Failure (400)."""
    try:
        return orjson.dumps(yaml_bodies.read(body))
    except (yaml_bodies.Refused, TypeError, ValueError, RecursionError) as error:
        raise status.bad_request(f"the object provided is unrecognized (must be of type YAML): {error}") from None


def _protobuf(body: bytes) -> Any:
    try:
        return protobuf.decode(body)
    except protobuf.NotEncoded as error:
        raise status.unsupported_media_type(PROTOBUF, (JSON, YAML), str(error)) from None
    except protobuf.Malformed as error:
        raise status.bad_request(f"the object provided is unrecognized (must be of type Protobuf): {error}") from None


def takes_long(request: Request) -> bool:
    """Say whether a body is so much YAML that others should be served while it is read."""
    return len(request.body) > _MUCH_YAML and request.content_type in _YAML_TYPES and not request.body.startswith(b"{")


READERS: Mapping[str, Callable[[bytes], Any]] = {JSON: _json, YAML: _yaml, "text/yaml": _yaml, PROTOBUF: _protobuf}


def value(request: Request, readers: Mapping[str, Callable[[bytes], Any]] = READERS) -> Any:
    """Read the body, whatever JSON value it is. Raises Failure (400, 415)."""
    reader = readers.get(request.content_type)
    if reader is None:
        raise status.unsupported_media_type(request.content_type, list(readers))
    return reader(request.body)


def tree(request: Request) -> Tree:
    """Read the body, which must be an object. Raises Failure (400, 415)."""
    found = value(request)
    if not isinstance(found, dict):
        raise status.bad_request("the object provided is unrecognized (must be an object)")
    return found


def of_kind(request: Request, kind: Kind) -> Tree:
    """Read an object of one kind: it must say so, or say nothing. Raises Failure (400, 415)."""
    found = tree(request)
    api_version, name = found.get("apiVersion") or kind.api_version, found.get("kind") or kind.kind
    if name != kind.kind or not isinstance(api_version, str):
        raise status.bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: converting ({api_version}, Kind={name}) to '
            f"({kind.api_version}, Kind={kind.kind}): the kind in the data does not match the kind of the path"
        )
    if api_version != kind.api_version:
        raise status.bad_request(
            f"the API version in the data ({api_version}) does not match the expected API version ({kind.api_version})"
        )
    found["apiVersion"], found["kind"] = kind.api_version, kind.kind
    return found


def check_schema(request: Request, kind: Kind, found: Tree, refused: Callable[[str], status.Failure] = status.bad_request) -> None:
    """Bring an object into its kind's shape. Unknown fields are dropped, told or refused, as the request says.

    Raises what ``refused`` makes of a message about the object, Failure (400) for a request that does not say a level.
    """
    wanted = request.query.get("fieldValidation", "")
    if wanted not in _FIELD_VALIDATION:
        raise status.bad_request(f'fieldValidation: Unsupported value: "{wanted}": supported values: "Ignore", "Strict", "Warn"')
    if not isinstance(found.get("metadata", {}), dict):
        raise refused(f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: metadata is not an object')
    try:
        unknown = prune_and_check(kind, found)
    except Mistyped as error:
        raise refused(str(error)) from None
    if not unknown:
        return
    if wanted == "Strict":
        raise refused(strict_message(kind, unknown))
    if wanted != "Ignore":
        request.warnings += unknown[:_WARNINGS]
