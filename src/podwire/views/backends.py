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

from podwire.objects.discovery import EndpointSlice

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


def in_columns_of(piece: EndpointSlice, name: str, protocol: str) -> Backends | None:
    """Give a slice's endpoints of a Service port in columns: None if there is none, or of one there is more to be said."""
    numbers = [target.port for target in piece.ports if target.name == name and target.protocol == protocol]
    if len(numbers) != 1 or numbers[0] is None:
        return None
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
    return _joined(addresses, numbers[0], _FAMILIES.get(piece.address_type, 0), nodes, pods)


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
    """Write columns. None where there is nothing, an endpoint twice, or a word that is not one."""
    between = len(addresses) - 1
    if between < 1:
        if between < 0 or " " in (addresses[0] + nodes[0] + pods[0]):
            return None
        return Backends(addresses[0], port, family, nodes[0], pods[0])
    one = Backends(" ".join(addresses), port, family, " ".join(nodes), " ".join(pods))
    if len(set(addresses)) <= between or {one.addresses.count(" "), one.nodes.count(" "), one.pods.count(" ")} != {between}:
        return None
    return one


def one_other(one: Endpoints, other: Endpoints) -> int | None:
    """Say in which place all that differs between two rows of endpoints is: None if it is more, or nothing."""
    if type(one) is not Backends or type(other) is not Backends:
        if len(one) != len(other):
            return None
        places = [place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
        return places[0] if len(places) == 1 else None
    if one.port != other.port:
        return 0 if len(one) == len(other) == 1 else None
    found: int | None = None
    for had, has in ((one.addresses, other.addresses), (one.nodes, other.nodes), (one.pods, other.pods)):
        if had == has:
            continue
        before, after = had.split(" "), has.split(" ")
        if len(before) != len(after):
            return None
        for place, word in enumerate(before):
            if word != after[place]:
                if found not in (None, place):
                    return None
                found = place
    return found
