"""The words in which a patch is refused that leaves no object of its kind: status 422, the field ``patch``, and what came of it.

    JSON and merge patches    patch: Invalid value: "{...}": json: cannot unmarshal string into Go struct field ...    the patched object
    strategic merge patches   patch: Invalid value: "map[spec:map[replicas:x]]": unrecognized type: int32              the patch itself

People and programs look for these texts. Pure.

Source: what kube-apiserver answers; fmt's ``%+v`` of maps
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from podwire.apiserver import status
from podwire.apiserver.validation import Path
from podwire.apiserver.validation import invalid as invalid_field

_UNREADABLE = re.compile(r"json: cannot unmarshal (\w+).* into Go (?:struct field \S+|value) of type (\S+)\Z")
_KINDS = {"string": "string", "number": "int64", "bool": "bool", "object": "map", "array": "slice"}
_BEGUN = re.compile(r"\w+ in version \"\w+\" cannot be handled as a \w+: ")


def no_object(body: bytes, wanted: str) -> status.Failure:
    """Give the answer to a patch that is not what a patch of its kind is. ``wanted``: Go's type for it."""
    if body.strip() == b"null":
        return status.bad_request("Invalid JSON Patch")
    found = {b"[": "array", b"{": "object", b'"': "string", b"t": "bool", b"f": "bool"}.get(body.lstrip()[:1], "number")
    return status.bad_request(f"error decoding patch: json: cannot unmarshal {found} into Go value of type {wanted}")


def unfit(value: Any, why: str, *, strategic: bool) -> status.Failure:
    """Give the answer to a patch whose outcome cannot be read, as ``why`` says. ``value``: the outcome, or a strategic patch itself."""
    why = _BEGUN.sub("", why, count=1)
    shown = printed(value) if strategic else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
    error = invalid_field(Path("patch"), shown, _converted(why) if strategic else why)
    cause = {"reason": error.reason, "message": error.message, "field": error.field}
    return status.Failure(422, "Invalid", f' "" is invalid: {error}', {"causes": [cause]})


def _converted(why: str) -> str:
    """Say in the words of the converter of maps what the decoder of JSON says."""
    found = _UNREADABLE.match(why)
    if found is None:
        return why
    source, wanted = _KINDS.get(found[1], found[1]), found[2]
    if wanted.startswith("[]"):
        return f"cannot restore slice from {source}"
    if wanted.startswith("map["):
        return f"cannot restore map from {source}"
    return f"cannot restore struct from: {source}" if "." in wanted else f"unrecognized type: {wanted}"


def printed(value: Any) -> str:
    """Print a JSON tree as Go prints a map of it."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case dict():
            return f"map[{' '.join(f'{key}:{printed(value[key])}' for key in sorted(value))}]"
        case list():
            return f"[{' '.join(map(printed, value))}]"
    return str(value)
