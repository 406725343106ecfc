"""The OpenAPI v3 documents, one for each group and version: what ``kubectl explain`` shows and ``kubectl apply`` asks before it writes.

Here: rows of the registry and their schemas turned into a document. Not here: HTTP, the checking of what is written (``schema.py``).

Source: https://spec.openapis.org/oas/v3.0.3 and https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-v3
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import orjson

from podwire.apiserver.definitions import META, PREFIX, Schema, definition, kubernetes_version, referenced
from podwire.apiserver.kind import Kind, Subresource
from podwire.apiserver.registry import Registry

_COMPONENTS = "#/components/schemas/"
_JSON = "application/json"
_PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_SUBRESOURCES = {
    "Scale": "io.k8s.api.autoscaling.v1.Scale",
    "Binding": "io.k8s.api.core.v1.Binding",
    "Eviction": "io.k8s.api.policy.v1.Eviction",
    "TokenRequest": "io.k8s.api.authentication.v1.TokenRequest",
}
_KINDS_OF_BODIES = {
    "Scale": ("autoscaling", "v1"),
    "Binding": ("", "v1"),
    "Eviction": ("policy", "v1"),
    "TokenRequest": ("authentication.k8s.io", "v1"),
}


def place(group: str, version: str) -> str:
    """Give where a group's document is, below ``/openapi/v3/``: ``api/v1`` or ``apis/apps/v1``."""
    return f"apis/{group}/{version}" if group else f"api/{version}"


def index(registry: Registry) -> bytes:
    """Give the body of ``/openapi/v3``: where the documents are, with a hash by which clients keep them."""
    return registry.once("openapi", partial(_index, registry))


def _index(registry: Registry) -> bytes:
    found = {}
    for group, versions in registry.groups().items():
        for version in versions:
            url = location(group, version, mark(registry, group, version))
            found[place(group, version)] = {"serverRelativeURL": url}
    return orjson.dumps({"paths": found})


def location(group: str, version: str, marked: str) -> str:
    """Give the path under which a document of that mark may be kept for good."""
    return f"/openapi/v3/{place(group, version)}?hash={marked}"


def mark(registry: Registry, group: str, version: str) -> str:
    """Give the mark of a document: another one when the document changes. Raises KeyError when nothing is served there."""
    document = openapi(registry, group, version)
    return registry.once(("openapi mark", group, version), lambda: hashlib.sha256(document).hexdigest().upper()[:32])


OPENAPI_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


def version_2(accept: str) -> tuple[bytes, str]:
    """Give ``/openapi/v2`` and its content type: a document without paths.

    All that is said of the API is said in version 3. kubectl still asks for version 2, in protobuf alone, about a kind that it did not
    find there, and takes a 404 for a broken server instead of an unknown kind.
    """
    info = {"title": "Kubernetes", "version": f"v{kubernetes_version()}"}
    if "protobuf" not in accept:
        return orjson.dumps({"swagger": "2.0", "info": info, "paths": {}}), _JSON
    # message Document { string swagger = 1; Info info = 2; Paths paths = 8; }, Info { string title = 1; string version = 2; }
    described = _text(1, info["title"].encode()) + _text(2, info["version"].encode())
    return _text(1, b"2.0") + _text(2, described) + _text(8, b""), OPENAPI_V2_PROTOBUF


def _text(number: int, content: bytes) -> bytes:
    """A protobuf field with a length, of up to 127 bytes."""
    return bytes((number << 3 | 2, len(content))) + content


# Documents that are large and of kinds that do not change: made once, whatever is defined beside them.
_kept: dict[tuple[Kind, ...], bytes] = {}


def openapi(registry: Registry, group: str, version: str) -> bytes:
    """Give the document of one group and version. Raises KeyError when nothing is served there."""
    kinds = registry.kinds(group, version)
    if not kinds:
        raise KeyError(place(group, version))
    if any(kind.custom is not None for kind in kinds):
        return registry.once(("openapi", group, version), partial(_document, kinds))
    if kinds not in _kept:
        _kept[kinds] = _document(kinds)
    return _kept[kinds]


def _document(kinds: tuple[Kind, ...]) -> bytes:
    roots = {kind.definition for kind in kinds} | {kind.definition + "List" for kind in kinds if kind.listed}
    roots |= {_SUBRESOURCES[part.kind] for kind in kinds for part in kind.subresources if part.kind and not part.streamed}
    roots |= {META + "DeleteOptions", META + "Status", META + "Patch"}
    paths: dict[str, Any] = {}
    for kind in kinds:
        paths.update(_paths(kind))
    document = {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": f"v{kubernetes_version()}"},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": _components(roots, _of_custom(kinds))},
    }
    return orjson.dumps(document)


# Schemas -----------------------------------------------------------------------------------------------------------------


def _of_custom(kinds: Iterable[Kind]) -> dict[str, Schema]:
    """The schemas of kinds that were defined through the API, and of their lists."""
    found: dict[str, Schema] = {}
    for kind in kinds:
        if kind.custom is None:
            continue
        gvk = {"x-kubernetes-group-version-kind": [{"group": kind.group, "version": kind.version, "kind": kind.list_kind}]}
        found[kind.definition] = dict(kind.custom.openapi)
        found[kind.definition + "List"] = {
            "description": f"{kind.list_kind} is a list of {kind.kind}",
            "type": "object",
            "required": ["items"],
            "properties": {
                "apiVersion": {"type": "string"},
                "items": {"type": "array", "items": {"$ref": PREFIX + kind.definition}},
                "kind": {"type": "string"},
                "metadata": {"$ref": PREFIX + META + "ListMeta"},
            },
            **gvk,
        }
    return found


def _components(roots: Iterable[str], custom: Mapping[str, Schema]) -> dict[str, Schema]:
    found: dict[str, Schema] = {}
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _converted(custom.get(name) or definition(name), waiting)
    return dict(sorted(found.items()))


def _converted(schema: Any, waiting: list[str]) -> Any:
    """Turn JSON Schema into OpenAPI 3.0: no null among the types, no neighbours beside a reference."""
    if isinstance(schema, list):
        return [_converted(one, waiting) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        waiting.append(referenced(schema))
        reference = {"$ref": _COMPONENTS + schema["$ref"].removeprefix(PREFIX)}
        neighbours = {key: value for key, value in schema.items() if key != "$ref"}
        return {"allOf": [reference], **neighbours} if neighbours else reference
    out: Schema = {}
    for key, value in schema.items():
        if key == "type" and isinstance(value, list):
            out[key] = next(one for one in value if one != "null")
        elif key == "properties":
            out[key] = {name: _converted(one, waiting) for name, one in value.items()}
        elif key in ("default", "enum", "example"):
            out[key] = value  # it may look like a schema
        elif key in ("items", "additionalProperties", "oneOf", "anyOf", "allOf", "not"):
            out[key] = _converted(value, waiting)
        else:
            out[key] = value
    return out


# Paths ---------------------------------------------------------------------------------------------------------------------


def _parameter(name: str, kind: str, description: str, where: str = "query") -> Schema:
    return {
        "name": name,
        "in": where,
        "description": description,
        "schema": {"type": kind, "uniqueItems": True},
        "required": where == "path",
    }


_PRETTY = _parameter("pretty", "string", "If 'true', the output is printed for people.")
_DRY_RUN = _parameter("dryRun", "string", "With the value All, nothing is stored.")
_MANAGER = _parameter("fieldManager", "string", "The name of whoever makes the change.")
_VALIDATION = _parameter("fieldValidation", "string", "What is done with unknown fields: Ignore, Warn or Strict.")
_FORCE = _parameter("force", "boolean", "Takes fields away from other managers (apply only).")
_LIST = [
    _parameter("allowWatchBookmarks", "boolean", "Ask for events of the type BOOKMARK."),
    _parameter("continue", "string", "Where the list goes on."),
    _parameter("fieldSelector", "string", "Restrict by fields."),
    _parameter("labelSelector", "string", "Restrict by labels."),
    _parameter("limit", "integer", "The largest number of objects in one answer."),
    _parameter("resourceVersion", "string", "The version from which to watch, or which to list."),
    _parameter("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
    _parameter("sendInitialEvents", "boolean", "A watch begins with what there is."),
    _parameter("timeoutSeconds", "integer", "How long the call may last."),
    _parameter("watch", "boolean", "Send changes as they happen."),
]


def _content(name: str, types: Iterable[str] = (_JSON,)) -> Schema:
    return {one: {"schema": {"$ref": _COMPONENTS + name}} for one in types}


def _operation(
    kind: Kind, action: str, verb: str, answer: str, *, body: Schema | None = None, parameters: Iterable[Schema] = (), part: str = ""
) -> Schema:
    scope = "Namespaced" if kind.namespaced else ""
    gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    sub = kind.subresource(part) if part else None
    if sub is not None and sub.kind:
        gvk = dict(zip(("group", "version"), _KINDS_OF_BODIES[sub.kind], strict=True)) | {"kind": sub.kind}
    title = "".join(word.capitalize() for word in (kind.group.split(".")[0] or "core", kind.version))
    described = {
        "description": f"{verb} {kind.plural if action in ('list', 'deletecollection') else kind.kind}{' ' + part if part else ''}",
        "operationId": f"{verb}{title}{scope}{kind.kind}{part.capitalize()}",
        "tags": [f"{kind.group.split('.')[0] or 'core'}_{kind.version}"],
        "parameters": list(parameters),
        "responses": {
            "201" if action == "post" else "200": {"description": "OK", "content": _content(answer)},
            "401": {"description": "Unauthorized"},
        },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk,
    }
    return described | ({"requestBody": {"content": body, "required": action != "delete"}} if body else {})


def _paths(kind: Kind) -> dict[str, Any]:
    base = "/" + place(kind.group, kind.version)
    shared = [_parameter("namespace", "string", "The namespace.", "path")] if kind.namespaced else []
    root = f"{base}/namespaces/{{namespace}}/{kind.plural}" if kind.namespaced else f"{base}/{kind.plural}"
    found: dict[str, Any] = {root: {**_collection(kind), "parameters": [*shared, _PRETTY]}}
    named = [_parameter("name", "string", "The name.", "path"), *shared, _PRETTY]
    if single := _single(kind):
        found[root + "/{name}"] = {**single, "parameters": named}
    if kind.namespaced and kind.listed:
        listing = _operation(kind, "list", "list", kind.definition + "List")
        listing["operationId"] += "ForAllNamespaces"
        found[f"{base}/{kind.plural}"] = {"get": listing, "parameters": [*_LIST, _PRETTY]}
    for part in kind.subresources:
        if part.streamed:
            continue
        found[f"{root}/{{name}}/{part.name}"] = {**_part(kind, part), "parameters": named}
    return found


def _collection(kind: Kind) -> Schema:
    writes = [_DRY_RUN, _MANAGER, _VALIDATION]
    found = {
        "get": _operation(kind, "list", "list", kind.definition + "List", parameters=_LIST),
        "post": _operation(kind, "post", "create", kind.definition, body=_content(kind.definition), parameters=writes),
        "delete": _operation(
            kind,
            "deletecollection",
            "deleteCollection",
            META + "Status",
            body=_content(META + "DeleteOptions"),
            parameters=[_DRY_RUN, *_LIST],
        ),
    }
    words = {"get": "list", "post": "create", "delete": "deletecollection"}
    return {method: one for method, one in found.items() if words[method] in kind.verbs}


_WORDS = {"get": "get", "put": "update", "patch": "patch", "delete": "delete"}


def _single(kind: Kind, part: str = "", body: str = "") -> Schema:
    body = body or kind.definition
    writes = [_DRY_RUN, _MANAGER, _VALIDATION]
    patches = _PATCHES if kind.custom is None else [one for one in _PATCHES if "strategic" not in one]
    found = {
        "get": _operation(kind, "get", "read", body, part=part),
        "put": _operation(kind, "put", "replace", body, body=_content(body), parameters=writes, part=part),
        "patch": _operation(kind, "patch", "patch", body, body=_content(META + "Patch", patches), parameters=[*writes, _FORCE], part=part),
    }
    if not part:
        found["delete"] = _operation(
            kind, "delete", "delete", META + "Status", body=_content(META + "DeleteOptions"), parameters=[_DRY_RUN]
        )
        found = {method: one for method, one in found.items() if _WORDS[method] in kind.verbs}
    return found


def _part(kind: Kind, part: Subresource) -> Schema:
    body = _SUBRESOURCES.get(part.kind, kind.definition)
    if part.verbs == ("create",):
        return {
            "post": _operation(
                kind, "post", "create", body, body=_content(body), parameters=[_DRY_RUN, _MANAGER, _VALIDATION], part=part.name
            )
        }
    whole = _single(kind, part.name, body)
    return {method: one for method, one in whole.items() if _WORDS[method] in part.verbs}
