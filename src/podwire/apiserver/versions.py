"""Kinds that are stored in another version: the request is translated to it, the answer back.

    extensions/v1beta1 Ingress ─> networking.k8s.io/v1 Ingress ─> store ─> networking.k8s.io/v1 ─> extensions/v1beta1

An object is in the store once, whatever version it was written in, and every version shows it. What a client says is checked against the
version that it speaks, what comes of it against the stored one; messages speak the client's version.

Here: the way there and back, the same for all kinds. Not here: how one version becomes another (``kinds/``, ``Kind.conversion``).

Source: https://kubernetes.io/docs/reference/using-api/deprecation-policy/ (all versions round-trip)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import orjson

from podwire.apiserver import bodies, status, writing
from podwire.apiserver.answers import Answer, Stream, Tree
from podwire.apiserver.api import Api, latest_tree
from podwire.apiserver.kind import Conversion, Kind
from podwire.apiserver.requests import APPLY_PATCH, JSON, YAML, Request

Respond = Callable[[Api, Request, Kind, str], Awaitable[Answer | Stream]]


async def translated(api: Api, request: Request, kind: Kind, conversion: Conversion, respond: Respond) -> Answer | Stream:
    """Answer to a request for a kind that is stored in another version. Raises Failure."""
    inner = _request(api, request, kind, conversion)
    try:
        found = await respond(api, inner, conversion.stored, inner.verb)
    except status.Failure as failure:
        raise _in_words_of(kind, conversion, failure) from None
    if isinstance(found, Stream):
        found.pieces = _lines(found.pieces, kind, conversion) if found.stop is not None else _whole(found.pieces, kind, conversion)
        return found
    return replace(found, body=orjson.dumps(_shown(orjson.loads(found.body), kind, conversion)))


# There -------------------------------------------------------------------------------------------------------------------


def _request(api: Api, request: Request, kind: Kind, conversion: Conversion) -> Request:
    stored, words = conversion.stored, dict(request.query)
    target = replace(request.target, group=stored.group, version=stored.version, plural=stored.plural)
    for name, inner in conversion.fields.items():
        if "fieldSelector" in words:
            words["fieldSelector"] = words["fieldSelector"].replace(name, inner)
    if request.method not in ("POST", "PUT", "PATCH"):
        return replace(request, target=target, query=words, spoken=kind)
    words["fieldValidation"] = "Ignore"  # said of the client's own version, below
    media, method = JSON, request.method
    if request.content_type == APPLY_PATCH and method == "PATCH":
        media, tree = APPLY_PATCH, bodies.READERS[YAML](request.body)
        if isinstance(tree, dict):
            bodies.check_schema(request, kind, tree)
            tree = _converted(tree, stored, conversion.to_stored)
    elif method == "PATCH":
        method, tree = "PUT", _patched(api, request, kind, conversion)
    else:
        tree = _checked(request, kind, bodies.of_kind(request, kind), conversion)
    headers = {**request.headers, b"content-type": media.encode()}
    return replace(request, method=method, target=target, query=words, headers=headers, body=orjson.dumps(tree), spoken=kind)


def _patched(api: Api, request: Request, kind: Kind, conversion: Conversion) -> Tree:
    """Apply a patch to the object as the client sees it; what comes of it is an update of the state that was patched."""
    target, change = request.target, writing.read_patch(request)
    old = latest_tree(api, kind, target.namespace, target.name)
    if old is None:
        raise status.not_found(kind, target.name)
    tree = writing.patched(request, kind, _converted(old, kind, conversion.from_stored), change)
    tree["metadata"].setdefault("resourceVersion", old["metadata"]["resourceVersion"])
    return _checked(request, kind, tree, conversion)


def _checked(request: Request, kind: Kind, tree: Tree, conversion: Conversion) -> Tree:
    """Check an object as one of the client's version; give it as one of the stored version. Raises Failure (400, 422)."""
    bodies.check_schema(request, kind, tree)
    kind.default(tree)
    if errors := kind.validate(tree, None):
        raise status.invalid(kind, tree["metadata"].get("name", ""), errors)
    return _converted(tree, conversion.stored, conversion.to_stored)


def _converted(tree: Tree, kind: Kind, convert: Callable[[Tree], Tree]) -> Tree:
    return {**convert(tree), "apiVersion": kind.api_version, "kind": kind.kind}


# And back ----------------------------------------------------------------------------------------------------------------


def _shown(tree: Any, kind: Kind, conversion: Conversion) -> Any:
    """Show an answer in the client's version: an object, a list, the objects in a Table. All else is as it is."""
    stored = conversion.stored
    what = (tree.get("apiVersion"), tree.get("kind"))
    if what == (stored.api_version, stored.kind):
        return _converted(tree, kind, conversion.from_stored)
    if what == (stored.api_version, stored.list_kind):
        return {**tree, "apiVersion": kind.api_version, "items": [_converted(one, kind, conversion.from_stored) for one in tree["items"]]}
    if tree.get("kind") == "Table":
        rows = [{**row, "object": _shown(row["object"], kind, conversion)} if "object" in row else row for row in tree["rows"]]
        return {**tree, "rows": rows}
    if tree.get("kind") == "Status" and tree.get("details", {}).get("group") == stored.group:
        return {**tree, "details": {**tree["details"], "group": kind.group}}
    return tree


async def _lines(pieces: AsyncIterator[bytes], kind: Kind, conversion: Conversion) -> AsyncIterator[bytes]:
    """Translate a watch: each piece is whole lines."""
    async for piece in pieces:
        events = (orjson.loads(line) for line in piece.splitlines())
        yield b"".join(orjson.dumps({**event, "object": _shown(event["object"], kind, conversion)}) + b"\n" for event in events)


async def _whole(pieces: AsyncIterator[bytes], kind: Kind, conversion: Conversion) -> AsyncIterator[bytes]:
    """Translate a list that comes in pieces."""
    body = b"".join([piece async for piece in pieces])
    yield orjson.dumps(_shown(orjson.loads(body), kind, conversion))


def _in_words_of(kind: Kind, conversion: Conversion, failure: status.Failure) -> status.Failure:
    """Tell a failure in the words of the client's version."""
    stored = conversion.stored
    words = ((stored.resource, kind.resource), (f"{stored.kind}.{stored.group}", f"{kind.kind}.{kind.group}"), *conversion.words)

    def said(text: str) -> str:
        for there, here in words:
            text = text.replace(there, here) if there not in here else text
        return text

    details = failure.details
    if details and details.get("group", "") == stored.group:
        details = {**details, "group": kind.group}
    if details and "causes" in details:
        details = {**details, "causes": [{**one, "field": said(one["field"])} if "field" in one else one for one in details["causes"]]}
    return status.Failure(failure.code, failure.reason, said(failure.message), details, failure.headers)
