"""Where the kubelet of a node is, and what its refusals mean to a client of this API.

Source: https://kubernetes.io/docs/concepts/architecture/control-plane-node-communication/#control-plane-to-node
"""

from __future__ import annotations

from podwire.apiserver import keys, status
from podwire.apiserver.answers import Tree, decode
from podwire.apiserver.api import Api
from podwire.apiserver.kind import Kind
from podwire.apiserver.streaming.upstream import Endpoint, Upstream

PORT = 10250
_ADDRESSES = ("InternalIP", "ExternalIP", "Hostname")


def kind(api: Api, plural: str) -> Kind:
    """One of the kinds that this package reads."""
    found = api.registry.find("", "v1", plural)
    assert found is not None
    return found


def read(api: Api, plural: str, namespace: str, name: str) -> Tree:
    """An object. Raises Failure (404)."""
    row = kind(api, plural)
    record = api.store.get(keys.key(row, namespace, name))
    if record is None:
        raise status.not_found(row, name)
    return decode(record.value)


def locate(api: Api, upstream: Upstream, node: str) -> Endpoint:
    """Where a node's kubelet is. Raises Failure."""
    state = read(api, "nodes", "", node).get("status", {})
    addresses = {one["type"]: one["address"] for one in reversed(state.get("addresses", ()))}
    address = next((addresses[kind] for kind in _ADDRESSES if kind in addresses), "")
    if not address:
        raise status.internal(f"no preferred addresses found; known addresses: {list(addresses)}")
    if upstream.kubelet_tls is None:
        raise status.internal("this API server has no certificate for kubelets")
    port = state.get("daemonEndpoints", {}).get("kubeletEndpoint", {}).get("Port") or PORT
    return Endpoint(address, port, upstream.kubelet_tls, node)


def refusal(code: int, body: bytes) -> status.Failure:
    """A kubelet's answer as a Status, in the words that upstream makes of it."""
    text = body.decode(errors="replace").strip()
    match code:
        case 400:
            return status.bad_request(text)
        case 401:
            return status.Failure(401, "Unauthorized", "the server has asked for the client to provide credentials")
        case 403:
            return status.Failure(403, "Forbidden", text)
        case 404:
            return status.Failure(404, "NotFound", f"the server could not find the requested resource ({text})")
        case _:
            return status.Failure(code, "InternalError", f'an error on the server ("{text}") has prevented the request from succeeding')
