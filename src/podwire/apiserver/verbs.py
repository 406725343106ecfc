"""From a request to its handler: does the resource exist, does it have the verb, may this user.

The order is that of upstream: who (before this), may they, does the kind serve it. What is refused is refused before the body is looked at.
"""

from __future__ import annotations

from podwire.apiserver import applying, deletion, reading, reviews, status, subresources, versions, watch, writing
from podwire.apiserver.admission import gate
from podwire.apiserver.answers import Answer, Stream
from podwire.apiserver.api import Api
from podwire.apiserver.auth.authorizer import attributes
from podwire.apiserver.kind import Kind
from podwire.apiserver.requests import APPLY_PATCH, Request


def authorize(api: Api, request: Request) -> str:
    """Give the verb, if the user may do it. Raises Failure (403, 405)."""
    verb = request.verb
    _authorize(api, request, verb)
    return verb


def _authorize(api: Api, request: Request, verb: str) -> None:
    api.authorizer.demand(request.user, attributes(verb, request.target, request.query.get("fieldSelector", "")))


async def handle(api: Api, request: Request, verb: str) -> Answer | Stream:
    """Answer to a request that its user may make. Raises Failure."""
    target = request.target
    kind = api.registry.find(target.group, target.version, target.plural)
    if kind is None or (target.namespace and not kind.namespaced):
        raise status.no_such_path()
    if target.name and kind.namespaced and not target.namespace:
        raise status.no_such_path()
    _ = request.form  # a form that is not served is refused before anything is done
    if kind.deprecation:
        request.warnings.append(kind.deprecation)
    if kind.conversion is not None:
        return await versions.translated(api, request, kind, kind.conversion, _respond)
    return await _respond(api, request, kind, verb)


async def _respond(api: Api, request: Request, kind: Kind, verb: str) -> Answer | Stream:
    target = request.target
    if target.subresource:
        return await _subresource(api, request, kind, verb)
    if verb not in kind.verbs or (target.name and verb == "create"):
        raise status.method_not_allowed()
    match verb:
        case "get":
            return await reading.get(api, request, kind)
        case "list":
            return await reading.list_all(api, request, kind)
        case "watch":
            return watch.watch(api, request, kind)
        case "create":
            return reviews.respond(api, request, kind) if kind in reviews.ANSWERS else await writing.create(api, request, kind)
        case "update":
            _named(request)
            return await gate.settled(request, kind, lambda: writing.update(api, request, kind))
        case "patch":
            _named(request)
            return await gate.settled(request, kind, lambda: _patch(api, request, kind))
        case "delete":
            return await gate.settled(request, kind, lambda: deletion.delete(api, request, kind))
        case _:
            return await deletion.delete_collection(api, request, kind)


async def _patch(api: Api, request: Request, kind: Kind, subresource: str = "") -> Answer:
    if request.content_type != APPLY_PATCH:
        return await writing.patch(api, request, kind, subresource)
    # An object that is applied and is not there is created: its user must be one who may.
    return await applying.apply(api, request, kind, lambda: _authorize(api, request, "create"), subresource)


def _named(request: Request) -> None:
    if not request.target.name:
        raise status.method_not_allowed()


async def _subresource(api: Api, request: Request, kind: Kind, verb: str) -> Answer | Stream:
    part = kind.subresource(request.target.subresource)
    if part is None:
        raise status.no_such_path()
    if verb not in part.verbs:
        raise status.method_not_allowed()
    if part.name == "status":
        if verb == "get":
            return await reading.get(api, request, kind)
        write = writing.update if verb == "update" else _patch
        return await gate.settled(request, kind, lambda: write(api, request, kind, "status"))
    handler = subresources.HANDLERS.get((part.name, verb, "")) or subresources.HANDLERS.get((part.name, verb, kind.resource))
    if handler is None:
        raise status.no_such_path()
    return await gate.settled(request, kind, lambda: handler(api, request, kind))
