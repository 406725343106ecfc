"""proxy: requests that are passed on to a Pod, a Service's endpoint or a Node, with method, headers, body and query as they are.

The name in the path is ``[SCHEME:]NAME[:PORT]``. A Service's port leads to one of its ready endpoints, chosen anew each time. The rest of
the path is passed on byte for byte; a Location that leads to the same host comes back below this path.

Source: https://kubernetes.io/docs/tasks/access-application-cluster/access-cluster-services/#manually-constructing-apiserver-proxy-urls
"""

from __future__ import annotations

import ipaddress
import random
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

from podwire.apiserver import keys, status
from podwire.apiserver.answers import Answer, Tree, decode
from podwire.apiserver.api import Api
from podwire.apiserver.requests import Request
from podwire.apiserver.streaming import kubelet
from podwire.apiserver.streaming.exchanges import (
    HOP_BY_HOP,
    UNREACHABLE,
    Exchange,
    Passed,
    Receive,
    Refused,
    body_of,
    forwarded,
    join,
    request,
)
from podwire.apiserver.streaming.upstream import Endpoint, Upstream, service_unreachable

_SCHEMES = ("", "http", "https")


def split(name: str) -> tuple[str, str, str]:
    """Scheme, name and port. Raises Failure (400)."""
    match name.split(":"):
        case [plain]:
            return "", plain, ""
        case [plain, port]:
            return "", plain, port
        case [scheme, plain, port] if scheme in _SCHEMES:
            return scheme, plain, port
    raise status.bad_request(f'invalid request "{name}"')


def _checked(address: str, port: int, upstream: Upstream, scheme: str) -> Endpoint:
    """An endpoint that may be reached: not this machine, not a link. Raises Failure (400)."""
    parsed = ipaddress.ip_address(address)
    if parsed.is_loopback or parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified:
        raise status.bad_request("address not allowed")
    return Endpoint(address, port, upstream.any_tls if scheme == "https" else None)


def _pod(api: Api, upstream: Upstream, asked: Request) -> Endpoint:
    scheme, name, port = split(asked.target.name)
    pod = kubelet.read(api, "pods", asked.target.namespace, name)
    declared = [one for container in pod.get("spec", {}).get("containers", ()) for one in container.get("ports", ())]
    if not port:
        number = declared[0]["containerPort"] if declared else 443 if scheme == "https" else 80
    elif port.isascii() and port.isdigit():
        number = int(port)
    else:
        number = next((one["containerPort"] for one in declared if one.get("name") == port), 0)
    address = pod.get("status", {}).get("podIP", "")
    if not address:
        raise status.bad_request("address not allowed")
    if not 0 < number < 65_536:
        raise status.bad_request(f'invalid port "{port}" of pod "{name}"')
    return _checked(address, number, upstream, scheme)


def _service(api: Api, upstream: Upstream, asked: Request) -> Endpoint:
    scheme, name, wanted = split(asked.target.name)
    namespace = asked.target.namespace
    service = kubelet.read(api, "services", namespace, name)
    ports = service.get("spec", {}).get("ports", ())
    found = next((one for one in ports if wanted in (one.get("name", ""), str(one["port"]))), None)
    if found is None and not wanted and len(ports) == 1:
        found = ports[0]
    if found is None:
        raise status.unavailable(f'no service port "{wanted}" found for service "{name}"')
    ready = list(_ready(api, namespace, name, found.get("name", "")))
    if not ready:
        raise status.Failure(503, "ServiceUnavailable", f'no endpoints available for service "{asked.target.name}"')
    address, port = random.choice(ready)
    return _checked(address, port, upstream, scheme)


def _ready(api: Api, namespace: str, service: str, port_name: str) -> list[tuple[str, int]]:
    """The ready endpoints of a Service's port."""
    slices = api.registry.find("discovery.k8s.io", "v1", "endpointslices")
    assert slices is not None
    found: list[tuple[str, int]] = []
    for record in api.store.range(f"{keys.prefix(slices)}{namespace}/"):
        tree: Tree = decode(record.value)
        if tree["metadata"].get("labels", {}).get("kubernetes.io/service-name") != service or tree.get("addressType") == "FQDN":
            continue
        numbers = [one["port"] for one in tree.get("ports") or () if one.get("name", "") == port_name and one.get("port")]
        for endpoint in tree.get("endpoints") or ():
            if endpoint.get("conditions", {}).get("ready", True):
                found += [(endpoint["addresses"][0], number) for number in numbers]
    return found


def _node(api: Api, upstream: Upstream, asked: Request) -> Endpoint:
    scheme, name, port = split(asked.target.name)
    place = kubelet.locate(api, upstream, name)
    if port and int(port if port.isdigit() else 0) != place.port:
        if not port.isdigit() or not 0 < int(port) < 65_536:
            raise status.bad_request(f'invalid port "{port}" of node "{name}"')
        return _checked(place.address, int(port), upstream, scheme)
    return place


_PLACES = {"pods": _pod, "services": _service, "nodes": _node}


def _rest(asked: Request, raw_path: bytes) -> str:
    """The path below ``proxy``, byte for byte; empty where not even a slash follows."""
    before = 8 if asked.target.namespace else 6
    parts = raw_path.split(b"/", before)
    return "/" + parts[before].decode("latin-1") if len(parts) > before else ""


def _relocation(endpoint: Endpoint, base: str) -> Any:
    """Rewrites a Location: what leads to the same host leads to this path."""

    def relocate(place: str) -> str:
        parts = urlsplit(place)
        if parts.netloc not in ("", endpoint.authority, endpoint.address):
            return place
        if not parts.netloc and not parts.path.startswith("/"):
            return place
        query = f"?{parts.query}" if parts.query else ""
        return base + parts.path + query + (f"#{parts.fragment}" if parts.fragment else "")

    return relocate


async def proxy(api: Api, upstream: Upstream, asked: Request, scope: dict[str, Any], receive: Receive, take_over: Any) -> Exchange | Answer:
    """Pass a request on. Raises Failure."""
    raw: bytes = scope["raw_path"]
    query = scope["query_string"].decode("latin-1")
    rest = _rest(asked, raw)
    endpoint = _PLACES[asked.target.plural](api, upstream, asked)
    base = raw.decode("latin-1").removesuffix(rest) if rest else raw.decode("latin-1")
    if not rest and asked.method in ("GET", "HEAD") and take_over is None:
        place = base + "/" + (f"?{query}" if query else "")
        return Answer(301, b"", ((b"location", place.encode("latin-1")),))
    target = (rest or "/") + (f"?{query}" if query else "")
    headers = forwarded(scope["headers"], upgrade=take_over is not None)
    host = next((value for name, value in scope["headers"] if name == b"host"), b"")
    headers += [(b"x-forwarded-uri", base.encode("latin-1") + rest.encode("latin-1")), (b"x-forwarded-host", host)]
    headers += [(b"x-forwarded-proto", b"https")]
    try:
        if take_over is not None:
            return await join(upstream, endpoint, asked.method, target, headers, take_over)
        answer = await request(upstream, endpoint, asked.method, target, headers, _body(scope, receive))
    except Refused as refused:
        kept = tuple(one for one in refused.headers if one[0] not in HOP_BY_HOP and one[0] not in (b"content-length", b"content-type"))
        content_type = next((value for name, value in refused.headers if name == b"content-type"), b"text/plain")
        return Answer(refused.code, refused.body, kept, content_type)
    except UNREACHABLE as error:
        raise service_unreachable(endpoint, error) from error
    return Passed(answer, _relocation(endpoint, base))


def _body(scope: dict[str, Any], receive: Receive) -> AsyncIterator[bytes] | None:
    names = {name for name, _ in scope["headers"]}
    return body_of(receive) if names & {b"content-length", b"transfer-encoding"} and scope["method"] not in ("GET", "HEAD") else None
