"""The rows of Services as most are, many Services at once.

What belongs here: which Services these are, what they claim, and their rows, column by column. What must not: Services that are otherwise
(elements.py gives the rows of any), what the kernel holds (ruleset.py).

How it works: a *plain* Service has cluster addresses alone, no traffic policy and no affinity, and usable endpoints in columns. Most of
them have one address and one port. Their rows are the same but for a few words, so of many Services each word is gathered into a list, and
lists are put together by iterators that run outside of the interpreter's own loop: a fraction of the time that as many calls would take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, chain, repeat
from operator import add
from typing import Final, NamedTuple, TypeAlias

from podwire.nft.rows import Column, Form, columns, cut
from podwire.services.desired import PortProgram, ServiceProgram
from podwire.services.elements import (
    COMMENT,
    SLOTS,
    Elements,
    address_bytes,
    addresses_bytes,
    endpoints_bytes,
    mark,
    marks,
    own_row,
    port_key,
)
from podwire.services.numbers import Numbers
from podwire.views.backends import Backends

Own: TypeAlias = list[tuple[str, list[bytes]]]
"""By Service the rows of its endpoints that are on this node: several Services may have the same ones."""

_CLUSTER: Final = "cluster"


def claims(service: ServiceProgram, cluster_ips: Sequence[bytes]) -> list[bytes]:
    """Give what a plain Service claims: its cluster addresses, which are given packed, with its ports."""
    keys = [port_key(port.protocol, port.port) for port in service.ports]
    return [address + key for address in cluster_ips for key in keys]


def claimed(services: Mapping[str, ServiceProgram]) -> tuple[dict[bytes, str], dict[bytes, str]] | tuple[None, None]:
    """Give who of plain Services claims what, and who has which cluster address. None where two want one. Raises ValueError."""
    slim = [service for service in services.values() if len(service.ports) == 1 == len(service.cluster_ips)]
    if len(slim) == len(services):
        kinds = {(port.protocol, port.port) for port in [service.ports[0] for service in slim]}
        addresses = addresses_bytes([service.cluster_ips[0] for service in slim])
        if len(kinds) == 1:
            place = port_key(*kinds.pop())
            keys = [address + place for address in addresses]
        else:
            ports = [service.ports[0] for service in slim]
            keys = [address + port_key(port.protocol, port.port) for address, port in zip(addresses, ports, strict=True)]
        claims_, owners = dict(zip(keys, services, strict=True)), dict(zip(addresses, services, strict=True))
        return (claims_, owners) if len(claims_) == len(services) == len(owners) else (None, None)
    claims_, owners, count, many = {}, {}, 0, 0
    for key, service in services.items():
        own = [address_bytes(address) for address in service.cluster_ips]
        wanted = claims(service, own)
        claims_.update(dict.fromkeys(wanted, key))
        owners.update(dict.fromkeys(own, key))
        count, many = count + len(wanted), many + len(own)
    return (claims_, owners) if (len(claims_), len(owners)) == (count, many) else (None, None)


class Written(NamedTuple):
    """Rows by map."""

    columns: Mapping[str, list[Column]]
    own: Own


def write(services: Sequence[ServiceProgram], node: str, written: Mapping[str, Form], numbers: Numbers) -> Written:
    """Write the rows of plain Services. Numbers that they have not yet are drawn from ``numbers``. Raises ValueError for a bad address."""
    into, slim = _Columns(), [service for service in services if len(service.ports) == 1 == len(service.cluster_ips)]
    others = () if len(slim) == len(services) else [one for one in services if not len(one.ports) == 1 == len(one.cluster_ips)]
    own = _write_slim(into, slim, node, written["own_endpoints"], numbers) if slim else []
    own += _write_any(into, others, node, written["own_endpoints"], numbers)
    return Written({field: columns(written[field], *rest, COMMENT) for field, rest in into.by_field() if rest[0]}, own)


def elements(service: ServiceProgram, node: str, written: Mapping[str, Form], numbers: Numbers) -> Elements:
    """Give the rows of one plain Service by map."""
    into = _Columns()
    own = _write_any(into, [service], node, written["own_endpoints"], numbers)
    rows: dict[str, list[bytes]] = {}
    for field, (keys, values, texts) in into.by_field():
        write_one = written[field].write
        comments = [cut(text, COMMENT) for text in texts]
        rows[field] = [write_one(*parts) for parts in zip(keys, values or repeat(b""), comments, strict=False)]
    if own:
        ((_, rows["own_endpoints"]),) = own
    return rows


class _Columns:
    """Keys, values and comments by map. ``cluster_ips`` has no values."""

    def __init__(self) -> None:
        self.backends: tuple[list[bytes], list[bytes], list[bytes]] = [], [], []
        self.cluster_ips: tuple[list[bytes], list[bytes], list[bytes]] = [], [], []
        self.sizes: tuple[list[bytes], list[bytes], list[bytes]] = [], [], []
        self.frontends: tuple[list[bytes], list[bytes], list[bytes]] = [], [], []

    def by_field(self) -> Iterator[tuple[str, tuple[list[bytes], list[bytes], list[bytes]]]]:
        """Give the columns of each map."""
        for field in ("backends", "cluster_ips", "sizes", "frontends"):
            yield field, getattr(self, field)


def _add(column: tuple[list[bytes], list[bytes], list[bytes]], keys: list[bytes], values: Sequence[bytes], texts: list[bytes]) -> None:
    column[0].extend(keys)
    column[1].extend(values)
    column[2].extend(texts)


def _write_slim(into: _Columns, services: Sequence[ServiceProgram], node: str, own: Form, numbers: Numbers) -> Own:
    """Write Services of one port and one address: all of them together."""
    ports = [service.ports[0] for service in services]
    clusters = [port.cluster for port in ports if isinstance(port.cluster, Backends)]  # as all plain ones have
    names = [service.key for service in services]
    targets = [f"{name}:{port.name or port.port}/{port.protocol}" for name, port in zip(names, ports, strict=True)]
    counts = [cluster.addresses.count(" ") + 1 for cluster in clusters]
    endpoints = _endpoints(clusters)
    seats = endpoints
    if len(endpoints) > len(ports):
        seats = [b"".join(endpoints[end - count : end]) for count, end in zip(counts, accumulate(counts), strict=True)]
    six = 6 in {cluster.family for cluster in clusters}  # one address may be written in several ways
    odd = set(range(len(services))) if six else numbers.seated_otherwise(targets, seats)
    if odd:
        found = _write_any(into, [service for at, service in enumerate(services) if at in odd], node, own, numbers)
        rest = [service for at, service in enumerate(services) if at not in odd]
        return found + (_write_slim(into, rest, node, own, numbers) if rest else [])
    ids = marks(numbers.seat_all(targets, seats))
    addresses = addresses_bytes([service.cluster_ips[0] for service in services])
    places = [port_key(*place) for place in kinds] if len(kinds := _places(ports)) > 1 else [port_key(*kinds[0])] * len(ports)
    comments = list(map(str.encode, targets))
    _add(into.cluster_ips, addresses, (), list(map(str.encode, names)))
    _add(into.sizes, ids, [SLOTS[count] if count < len(SLOTS) else mark(count) for count in counts], comments)
    _add(into.frontends, [address + place for address, place in zip(addresses, places, strict=True)], ids, comments)
    pods = " ".join([cluster.pods for cluster in clusters]).encode().split(b" ")
    labels = [comment + b" " for comment in comments]
    if len(endpoints) == len(ports):
        keys = [one + SLOTS[0] for one in ids]
    else:
        keys = [*map(add, _repeated(ids, counts), chain.from_iterable(map(_slots, counts)))]
        labels = [*_repeated(labels, counts)]
    texts = [*map(add, labels, pods)]
    if b"" in pods:
        texts = [label + pod if pod else label[:-1] for label, pod in zip(labels, pods, strict=True)]
    _add(into.backends, keys, endpoints, texts)
    nodes = [cluster.nodes for cluster in clusters]
    every = " ".join(nodes).split(" ")
    if "" in every:
        here = list(zip(names, clusters, strict=True))
    elif node in every:
        here = [(names[at], clusters[at]) for at, its in enumerate(nodes) if node in its]
    else:
        return []
    return [(name, rows) for name, cluster in here if (rows := _here(cluster, node, own))]


def _columns_of(port: PortProgram) -> Backends:
    assert type(port.cluster) is Backends
    return port.cluster


def _endpoints(clusters: list[Backends]) -> list[bytes]:
    """Pack the endpoints of all, one after the other."""
    ports = {cluster.port for cluster in clusters}
    if len(ports) == 1:  # as Services that are alike mostly have
        return endpoints_bytes(" ".join([cluster.addresses for cluster in clusters]).split(" "), ports.pop())
    return [endpoint for cluster in clusters for endpoint in endpoints_bytes(cluster.addresses.split(" "), cluster.port)]


def _repeated(words: list[bytes], counts: list[int]) -> Iterator[bytes]:
    return chain.from_iterable(map(repeat, words, counts))


def _places(ports: list[PortProgram]) -> list[tuple[str, int]]:
    """Give protocol and number of each; of one alone if they are the same."""
    found = [(port.protocol, port.port) for port in ports]
    return found[:1] if len(set(found)) == 1 else found


def _slots(count: int) -> Sequence[bytes]:
    return SLOTS[:count] if count <= len(SLOTS) else marks(range(count))


def _write_any(into: _Columns, services: Sequence[ServiceProgram], node: str, own: Form, numbers: Numbers) -> Own:
    """Write Services one after the other."""
    found: Own = []
    for service in services:
        key = service.key
        addresses = [address_bytes(address) for address in service.cluster_ips]
        here: dict[bytes, bytes] = {}
        _add(into.cluster_ips, addresses, (), [key.encode()] * len(addresses))
        for port in service.ports:
            target = f"{key}:{port.name or port.port}/{port.protocol}"
            text, cluster = target.encode(), _columns_of(port)
            wanted, pods = endpoints_bytes(cluster.addresses.split(" "), cluster.port), cluster.pods.encode().split(b" ")
            pod_of = dict(zip(reversed(wanted), reversed(pods), strict=True))  # an address may be written in several ways: the first counts
            number, slots = numbers.seat(target, _CLUSTER, wanted if len(pod_of) == len(wanted) else list(dict.fromkeys(wanted)))
            packed, count, place = mark(number), len(slots), port_key(port.protocol, port.port)
            _add(into.sizes, [packed], [mark(count)], [text])
            _add(into.frontends, [address + place for address in addresses], [packed] * len(addresses), [text] * len(addresses))
            labels = [text + b" " + pod_of[endpoint] if pod_of[endpoint] else text for endpoint in slots]
            _add(into.backends, [packed + slot for slot in _slots(count)], slots, labels)
            for row in _here(cluster, node, own):
                here.setdefault(own.key(row), row)
        if here:
            found.append((key, list(here.values())))
    return found


def _here(cluster: Backends, node: str, form: Form) -> list[bytes]:
    """Write the rows of those endpoints that are on this node, or that name none."""
    nodes = cluster.nodes.split(" ")
    if node not in nodes and "" not in nodes:
        return []
    return [own_row(form, backend) for backend in cluster if backend.node == node or not backend.node]
