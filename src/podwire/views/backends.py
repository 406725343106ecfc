"""Endpoints, one by one and in columns.

What belongs here: the two ways in which the endpoints of a Service port are kept. What must not: which they are (frontends.py), and who is
chosen.

How it works: most ports have endpoints of one port number, all usable and without hints, and a cluster has very many. ``Backends`` keeps
these as columns, each one string with a word for every endpoint: they are made, compared and let go in a fraction of the time that as many
objects take, because they are read from a few places in memory instead of many. To everybody else they are what they stand for, endpoints
in a row, made when asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import msgspec

from podwire.objects.discovery import Endpoint, EndpointSlice

_FAMILIES = {"IPv4": 4, "IPv6": 6}


class Backend(msgspec.Struct, frozen=True, gc=False):
    """One endpoint of one Service port. ``pod`` is ``namespace/name`` of the Pod behind it, ``""`` if it is none."""

    address: str
    port: int
    node: str = ""
    pod: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    hint_zones: tuple[str, ...] = ()
    hint_nodes: tuple[str, ...] = ()


class Backends(msgspec.Struct, frozen=True, gc=False):
    """Endpoints in columns, at least one: those of one port number and family, of which nothing else is to be said.

    ``addresses``, ``nodes`` and ``pods`` hold a word for each, with one space between two; no two addresses are the same.
    """

    addresses: str
    port: int
    family: int
    nodes: str
    pods: str

    def __len__(self) -> int:
        return self.addresses.count(" ") + 1

    def __iter__(self) -> Iterator[Backend]:
        port = self.port
        for address, node, pod in zip(self.addresses.split(" "), self.nodes.split(" "), self.pods.split(" "), strict=True):
            yield Backend(address, port, node, pod)

    def __getitem__(self, at: int) -> Backend:
        return Backend(self.addresses.split(" ")[at], self.port, self.nodes.split(" ")[at], self.pods.split(" ")[at])


Endpoints: TypeAlias = Backends | tuple[Backend, ...]
"""Endpoints in columns where that can be, else one by one."""


def in_columns(backends: tuple[Backend, ...], family: int) -> Endpoints:
    """Put endpoints of one family (4 or 6) into columns, whatever their conditions and hints, which are forgotten. Else they stay as
    they are."""
    if not backends or len({backend.port for backend in backends}) > 1:
        return backends
    return (
        _joined(
            [backend.address for backend in backends],
            backends[0].port,
            family,
            [backend.node for backend in backends],
            [backend.pod for backend in backends],
        )
        or backends
    )


def _one_in_columns(endpoint: Endpoint, port: int, family: int) -> Backends | None:
    """Give the only endpoint as ``in_columns_of`` does several."""
    conditions, pod, node = endpoint.conditions, endpoint.target_ref, endpoint.node_name
    if endpoint.hints is not None or conditions.ready is False or conditions.terminating or conditions.serving is False:
        return None
    if not endpoint.addresses:
        return None
    address = endpoint.addresses[0]
    name = f"{pod.namespace}/{pod.name}" if pod is not None and pod.kind == "Pod" else ""
    if " " in address or " " in node or " " in name or (":" in address) != (family == 6):
        return None
    return Backends(address, port, family, node, name)


def _port_of(piece: EndpointSlice, name: str, protocol: str) -> int | None:
    """Give the one number that a Service port has in a slice."""
    targets = piece.ports
    if len(targets) == 1:
        target = targets[0]
        return target.port if target.name == name and target.protocol == protocol else None
    port: int | None = None
    for target in targets:
        if target.name == name and target.protocol == protocol:
            if port is not None:
                return None
            port = target.port
    return port


def in_columns_of(piece: EndpointSlice, name: str, protocol: str) -> Backends | None:
    """Give a slice's endpoints of a Service port in columns: None if there is none, or of one there is more to be said."""
    port = _port_of(piece, name, protocol)
    if port is None:
        return None
    if len(piece.endpoints) == 1:
        return _one_in_columns(piece.endpoints[0], port, _FAMILIES.get(piece.address_type, 0))
    addresses: list[str] = []
    nodes: list[str] = []
    pods: list[str] = []
    for endpoint in piece.endpoints:
        conditions, pod = endpoint.conditions, endpoint.target_ref
        if endpoint.hints is not None or conditions.ready is False or conditions.terminating or conditions.serving is False:
            return None
        if not endpoint.addresses:
            continue
        addresses.append(endpoint.addresses[0])  # the API asks consumers to use the first: the others are the same endpoint
        nodes.append(endpoint.node_name)
        pods.append(f"{pod.namespace}/{pod.name}" if pod is not None and pod.kind == "Pod" else "")
    return _joined(addresses, port, _FAMILIES.get(piece.address_type, 0), nodes, pods)


def one_came(piece: EndpointSlice, name: str, protocol: str, before: Backends) -> tuple[Backend, Backend, Backends] | None:
    """Give the endpoint that went, the one that came for it, and all there are now, if that is how a slice's endpoints of a port differ
    from those before. None also where nothing differs, and where columns would not do: what ``in_columns_of`` gives says more."""
    if _port_of(piece, name, protocol) != before.port or _FAMILIES.get(piece.address_type) != before.family:
        return None
    endpoints = piece.endpoints
    addresses, nodes, pods = before.addresses.split(" "), before.nodes.split(" "), before.pods.split(" ")
    if len(endpoints) != len(addresses):
        return None
    found: tuple[str, str, str, Backend] | None = None
    for endpoint, had, had_node, had_pod in zip(endpoints, addresses, nodes, pods, strict=True):
        conditions, target, node = endpoint.conditions, endpoint.target_ref, endpoint.node_name
        if endpoint.hints is not None or conditions.ready is False or conditions.terminating or conditions.serving is False:
            return None
        pod = f"{target.namespace}/{target.name}" if target is not None and target.kind == "Pod" else ""
        if not endpoint.addresses:
            return None
        address = endpoint.addresses[0]
        if address != had or pod != had_pod or node != had_node:
            # Where another differs already, or it is that of another place, somebody appends.
            if found is not None or (address != had and address in addresses):
                return _one_came_elsewhere(before, in_columns_of(piece, name, protocol))
            if " " in address or " " in pod or " " in node or (":" in address) != (before.family == 6):
                return None
            found = had, had_node, had_pod, Backend(address, before.port, node, pod)
    if found is None:
        return None
    had, had_node, had_pod, came = found
    at = addresses.index(had)
    addresses[at], nodes[at], pods[at] = came.address, came.node, came.pod
    now = Backends(
        " ".join(addresses) if came.address != had else before.addresses,
        before.port,
        before.family,
        " ".join(nodes) if came.node != had_node else before.nodes,
        " ".join(pods) if came.pod != had_pod else before.pods,
    )
    return Backend(had, before.port, had_node, had_pod), came, now


def _one_came_elsewhere(before: Backends, now: Backends | None) -> tuple[Backend, Backend, Backends] | None:
    found = one_for_one(before, now) if now is not None else None
    return None if found is None or now is None else (*found, now)


def merged(parts: Sequence[Backends]) -> Backends | None:
    """Put the endpoints of several slices together: None if that makes no columns."""
    first = parts[0]
    if any(part.port != first.port or part.family != first.family for part in parts):
        return None
    addresses = " ".join([part.addresses for part in parts])
    words = addresses.split(" ")
    if len(set(words)) < len(words):
        return None
    return Backends(addresses, first.port, first.family, " ".join([part.nodes for part in parts]), " ".join([part.pods for part in parts]))


def _joined(addresses: list[str], port: int, family: int, nodes: list[str], pods: list[str]) -> Backends | None:
    """Write columns. None where there is nothing, an endpoint twice, a word that is not one, or an address of the other family."""
    count = len(addresses)
    one = Backends(" ".join(addresses), port, family, " ".join(nodes), " ".join(pods))
    if not one.addresses.count(" ") + 1 == count == one.nodes.count(" ") + 1 == one.pods.count(" ") + 1 == len(set(addresses)):
        return None
    alike = ":" not in one.addresses if family == 4 else all(":" in address for address in addresses)
    return one if alike else None


def one_for_one(one: Endpoints, other: Endpoints) -> tuple[Backend, Backend] | None:
    """Give the endpoint that went and the one that came for it, in whatever place, if that is all that differs; of one family both."""
    if len(one) != len(other) or (type(one) is Backends and type(other) is Backends and one.family != other.family):
        return None
    gone, came = set(one).difference(other), set(other).difference(one)
    return (gone.pop(), came.pop()) if len(gone) == 1 == len(came) else None
