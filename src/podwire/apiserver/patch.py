"""Patches that need no schema: JSON Patch (a list of operations) and JSON Merge Patch (a tree of differences).

Every function gives a new tree, which shares nothing with the one it was given.
Here: RFC 6902 and RFC 7386. Not here: strategic merge patches (``patch_strategic.py``), server-side apply, HTTP.

Source: RFC 6901, RFC 6902, RFC 7386
"""

from __future__ import annotations

from typing import Any

import orjson

from podwire.apiserver.patch_strategic import PatchError, copied, strategic_merge_patch

__all__ = ["COPY_LIMIT", "JSON_PATCH_LIMIT", "PatchError", "json_patch", "merge_patch", "strategic_merge_patch"]

JSON_PATCH_LIMIT = 10_000
"""The largest number of operations in one JSON Patch, as upstream has it."""

COPY_LIMIT = 3 * 1024 * 1024
"""Bytes that all copies of one JSON Patch may make, as upstream has it: forty that double a value would fill any memory."""


def merge_patch(tree: Any, patch: Any) -> Any:
    """Apply a JSON Merge Patch: a null removes, an object merges, all else replaces."""
    return _merged(copied(tree), copied(patch))


def _merged(tree: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(tree) if isinstance(tree, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = _merged(merged.get(key), value)
        else:
            merged[key] = value
    return merged


def json_patch(tree: Any, operations: Any) -> Any:
    """Apply a JSON Patch, all operations or none. Raises PatchError: 400 for what is no patch, 422 for one that does not fit the tree."""
    if not isinstance(operations, list):
        raise PatchError("a JSON patch is a list of operations", 400)
    if len(operations) > JSON_PATCH_LIMIT:
        raise PatchError(f"The allowed maximum operations in a JSON patch is {JSON_PATCH_LIMIT}, got {len(operations)}", 413)
    document, left = copied(tree), COPY_LIMIT
    for operation in operations:
        if not isinstance(operation, dict):
            raise PatchError("an operation of a JSON patch is an object", 400)
        if not isinstance(operation.get("path"), str):
            raise PatchError("operation missing path field: missing value", 422)
        if operation.get("op") == "copy":
            document, size = _copy(document, operation)
            left -= size
            if left < 0:
                told = f"the accumulated size increase of JSON patch copy is {COPY_LIMIT - left}, exceeding the limit {COPY_LIMIT}"
                raise PatchError(f"Unable to complete the copy, {told}", 422)
        else:
            document = _operate(document, operation)
    return document


def _operate(document: Any, operation: dict[str, Any]) -> Any:
    verb, path = operation.get("op"), operation["path"]
    match verb:
        case "add":
            return _add(document, path, _value(operation), verb)
        case "replace":
            _get(document, path, verb)
            return _value(operation) if path == "" else _put(document, path, _value(operation), verb)
        case "remove":
            return _remove(document, path, verb)
        case "test":
            if not _same(_get(document, path, verb), operation.get("value")):
                raise PatchError(f"testing value {path} failed: test failed", 422)
            return document
        case "move":
            return _move(document, operation)
    raise PatchError(f"Unexpected kind: {verb}", 422)


def _value(operation: dict[str, Any]) -> Any:
    if "value" not in operation:
        raise PatchError(f"{operation['op']} operation does not have a value: missing value", 422)
    # The document must not share what a later operation changes.
    return copied(operation["value"])


def _source(document: Any, operation: dict[str, Any]) -> tuple[str, Any]:
    """Give where an operation takes from, and what is there."""
    source = operation.get("from")
    if not isinstance(source, str):
        raise PatchError("failed to decode from: operation, missing from field: missing value", 422)
    return source, _get(document, source, operation["op"])


def _copy(document: Any, operation: dict[str, Any]) -> tuple[Any, int]:
    """Give the document with a copy in it, and the bytes that the copy made."""
    _, value = _source(document, operation)
    try:
        text = orjson.dumps(value)
    except TypeError:
        raise PatchError("the object is nested too deeply", 400) from None
    return _add(document, operation["path"], orjson.loads(text), "copy"), len(text)


def _move(document: Any, operation: dict[str, Any]) -> Any:
    (source, value), path = _source(document, operation), operation["path"]
    if path.startswith(source + "/"):
        raise PatchError(f'move operation does not apply: "{path}" lies in "{source}"', 422)
    return _add(_remove(document, source, "move"), path, value, "move")


def _same(left: Any, right: Any) -> bool:
    """Equality of JSON: ``true`` is not 1, but 1.0 is."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(_same(one, other) for one, other in zip(left, right, strict=True))
    return bool(left == right)


# Pointers ----------------------------------------------------------------------------------------------------------------


def _parts(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise PatchError(f'doc is missing path: "{path}": missing value', 422)
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _missing(verb: str, path: str) -> PatchError:
    return PatchError(f'{verb} operation does not apply: doc is missing path: "{path}": missing value', 422)


def _index(part: str, length: int, verb: str, path: str, *, beyond: bool = False) -> int:
    """Read an index of a list; ``beyond`` allows the place after its last element."""
    if not part.isascii() or not part.isdigit() or (len(part) > 1 and part[0] == "0"):
        raise PatchError(f'{verb} operation does not apply: "{part}" in "{path}" is no index: invalid index referenced', 422)
    index = int(part)
    if index >= length + beyond:
        where = f"error in {verb} for path: '{path}'"
        raise PatchError(f"{verb} operation does not apply: {where}: Unable to access invalid index: {part}: invalid index referenced", 422)
    return index


def _child(node: Any, part: str, verb: str, path: str) -> Any:
    if isinstance(node, dict) and part in node:
        return node[part]
    if isinstance(node, list):
        return node[_index(part, len(node), verb, path)]
    raise _missing(verb, path)


def _get(document: Any, path: str, verb: str) -> Any:
    for part in _parts(path):
        document = _child(document, part, verb, path)
    return document


def _parent(document: Any, path: str, verb: str) -> tuple[Any, str]:
    *way, last = _parts(path)
    for part in way:
        document = _child(document, part, verb, path)
    if not isinstance(document, dict | list):
        raise _missing(verb, path)
    return document, last


def _put(document: Any, path: str, value: Any, verb: str) -> Any:
    """Set what is there already."""
    node, last = _parent(document, path, verb)
    node[last if isinstance(node, dict) else _index(last, len(node), verb, path)] = value
    return document


def _add(document: Any, path: str, value: Any, verb: str) -> Any:
    if path == "":
        return value
    node, last = _parent(document, path, verb)
    if isinstance(node, dict):
        node[last] = value
    else:
        node.insert(len(node) if last == "-" else _index(last, len(node), verb, path, beyond=True), value)
    return document


def _remove(document: Any, path: str, verb: str) -> Any:
    if path == "":
        return None
    node, last = _parent(document, path, verb)
    _child(node, last, verb, path)
    del node[last if isinstance(node, dict) else _index(last, len(node), verb, path)]
    return document
