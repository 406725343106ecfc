"""Which requests are answered by somebody else, and by whom."""

from __future__ import annotations

from typing import Any

from podwire.apiserver import status
from podwire.apiserver.answers import Answer
from podwire.apiserver.api import Api
from podwire.apiserver.auth.authorizer import attributes
from podwire.apiserver.requests import Request, Target
from podwire.apiserver.streaming import pods, proxy
from podwire.apiserver.streaming.exchanges import Exchange, Receive
from podwire.apiserver.streaming.upstream import Upstream

CONNECTS = frozenset({"exec", "attach", "portforward"})
_PROXIES = frozenset({"pods", "services", "nodes"})
_LOG_METHODS, _CONNECT_METHODS = ("GET",), ("GET", "POST")


def takes(target: Target) -> bool:
    """Whether this package answers to requests for it."""
    if target.group or target.version != "v1" or not target.name:
        return False
    if target.subresource == "proxy":
        return target.plural in _PROXIES and bool(target.namespace) == (target.plural != "nodes")
    return target.plural == "pods" and bool(target.namespace) and (target.subresource == "log" or target.subresource in CONNECTS)


async def answer(
    api: Api, upstream: Upstream, asked: Request, scope: dict[str, Any], receive: Receive, take_over: Any
) -> Exchange | Answer:
    """Answer to a request that its user may make. ``take_over``: None when it asks for no upgrade. Raises Failure."""
    if asked.target.subresource == "proxy":
        return await proxy.proxy(api, upstream, asked, scope, receive, take_over)
    log = asked.target.subresource == "log"
    if asked.method not in (_LOG_METHODS if log else _CONNECT_METHODS):
        raise status.method_not_allowed()
    if log:
        return await pods.log(api, upstream, asked) or Answer(200, b"", content_type=b"text/plain")
    if asked.method == "GET":
        # WebSockets begin with GET, and what they do is what POST does: who may only read may not.
        api.authorizer.demand(asked.user, attributes("create", asked.target, ""))
    return await pods.connect(api, upstream, asked, scope, take_over)
