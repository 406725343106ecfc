"""The elements that one Service puts into the tables.

What belongs here: a Service program (desired.py) and its numbers become packed elements, by map. What must not: what other Services
have there, what the kernel holds, in which order it changes (ruleset.py).

Every element carries a comment that names the Service and port, and where there is one the Pod. nft cuts comments at 127 bytes. Elements
are written as rows (nft/rows.py), the bytes that the kernel takes and gives: there are many, and most are made to be sent once.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import lru_cache
from typing import Final, TypeAlias

import msgspec

from podwire import nft
from podwire.nft.model import Verdict
from podwire.nft.rows import Form, cut, form
from podwire.services.desired import PortProgram, ServiceProgram
from podwire.services.layout import Family, affinity_chain, table_text
from podwire.services.numbers import Numbers
from podwire.views.backends import Backend, Backends, Endpoints

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
COMMENT = 127

_MARK = struct.Struct("=I")
_MARKS = struct.Struct("=II")
PORT_KEY = struct.Struct("!B3xH2x")
_PORT = struct.Struct("!H2x")


FIELDS: Final = (
    *("backends", "handles", "keep_source", "own_endpoints", "cluster_ips", "short_circuit", "keep", "how", "sizes"),
    *("coming_ranges", "source_ranges", "guarded", "no_endpoints", "no_local_endpoints", "no_endpoint_ports", "no_local_endpoint_ports"),
    *("frontends", "node_ports"),
)
"""The maps and sets, each after what it points to. The set's name has ``-`` for ``_``."""

Elements: TypeAlias = Mapping[str, list[bytes]]
"""Rows by map or set; those without an element are left out."""

NOTHING: Elements = {}
SHARED = frozenset({"own_endpoints", "cluster_ips"})
"""Sets whose keys several Services may have. Elsewhere a key begins with an id, which is one Service port's own, or with an address that
one Service has (``addresses``)."""
_REPEATED = frozenset(  # where two ports of one Service may write one key
    {
        *("own_endpoints", "guarded", "source_ranges", "frontends", "node_ports"),
        *("no_endpoints", "no_local_endpoints", "no_endpoint_ports", "no_local_endpoint_ports"),
    }
)


def set_name(field: str) -> str:
    return field.replace("_", "-")


@lru_cache(maxsize=2)
def forms(family: Family) -> Mapping[str, Form]:
    """Give how the rows of each map and set are written."""
    table = nft.table(table_text(family))
    return {field: form(table.set(set_name(field))) for field in FIELDS}


class _Prefixes(dict[str, bytes]):
    """The first three octets of IPv4 addresses, as written: a cluster has few, and each many times."""

    def __missing__(self, prefix: str) -> bytes:
        """Pack another. Raises ValueError for what is none."""
        if len(self) >= _PREFIXES_MOST:
            self.clear()
        packed = self[prefix] = ipaddress.IPv4Address(f"{prefix}.0").packed[:3]
        return packed


_PREFIXES_MOST = 65_536
_PREFIXES = _Prefixes()
_OCTETS = {str(number): bytes((number,)) for number in range(256)}


def address_bytes(address: str) -> bytes:
    """Pack an address. Raises ValueError."""
    prefix, _, last = address.rpartition(".")
    try:  # ten times as fast as ipaddress, and as strict: there are many
        return _PREFIXES[prefix] + _OCTETS[last]
    except (KeyError, ValueError):
        return ipaddress.ip_address(address).packed


def addresses_bytes(addresses: Sequence[str], ends: Mapping[str, bytes] = _OCTETS) -> list[bytes]:
    """Pack many. Raises ValueError. ``ends`` are what the last octets become."""
    prefixes = _PREFIXES
    try:
        return [prefixes[prefix] + ends[last] for prefix, _, last in [address.rpartition(".") for address in addresses]]
    except (KeyError, ValueError):  # those of IPv6
        after = ends["0"][1:]
        return [address_bytes(address) + after for address in addresses]


@lru_cache(maxsize=64)
def _ends(port: int) -> Mapping[str, bytes]:
    packed = _port_bytes(port)
    return {text: octet + packed for text, octet in _OCTETS.items()}


def _port_bytes(port: int) -> bytes:
    try:
        return _PORT.pack(port)
    except struct.error:
        raise ValueError(f"{port} is no port") from None


def endpoints_bytes(addresses: Sequence[str], port: int) -> list[bytes]:
    """Pack endpoints of one port, as values of ``backends``. Raises ValueError."""
    return addresses_bytes(addresses, _ends(port))


mark: Final[Callable[[int], bytes]] = _MARK.pack
"""Pack a number that is a mark."""


def marks(numbers: Iterable[int]) -> list[bytes]:
    """Pack many."""
    return list(map(_MARK.pack, numbers))


@lru_cache(maxsize=4096)
def port_key(protocol: str, port: int) -> bytes:
    """Pack a protocol and port, as the keys of ``frontends`` end; 0 stands for an unknown protocol. Raises ValueError if it is no port."""
    try:
        return PORT_KEY.pack(PROTOCOLS.get(protocol, 0), port)
    except struct.error:
        raise ValueError(f"{port} is no port") from None


unpack_marks: Final[Callable[[bytes], tuple[int, int]]] = _MARKS.unpack
"""Unpack a key of two marks: an id and a slot or a handle."""


def _cut(comment: str) -> str:
    return comment if len(comment) <= COMMENT and comment.isascii() else cut(comment.encode(), COMMENT).decode()


def target_name(service: str, port: PortProgram) -> str:
    """What ids are given to: ``shop/users:http/TCP``, ``shop/users:80/TCP`` for a port without a name."""
    return f"{service}:{port.name or port.port}/{port.protocol}"


class _Building:
    """The lists of rows."""

    def __init__(self, family: Family, node: str, numbers: Numbers, lost: Set[bytes]) -> None:
        self.family, self.node, self.numbers, self.lost = family, node, numbers, lost
        self.forms = forms(family)
        self.lists: dict[str, list[bytes]] = {}
        self.cluster_ips: list[bytes] = []
        self.handles: dict[bytes, int] = {}  # of the port that is being built

    def add(self, field: str, key: bytes, value: bytes | Verdict | None = None, comment: str = "", end: bytes = b"") -> None:
        self.lists.setdefault(field, []).append(self.forms[field].row(key, value, _cut(comment), end))

    def view(self, target: str, view: str, backends: Endpoints, affinity_s: int) -> int:
        """Give a view of a port its id, sizes and backends. Returns the id, or 0 if it has no endpoint."""
        if not backends:
            return 0
        lists = self.lists
        label = target if view == "cluster" else f"{target} {view}"
        here: list[bytes] = []
        wanted, pods = _endpoints(backends, self.node, self.forms["own_endpoints"], here)
        if here:
            lists.setdefault("own_endpoints", []).extend(here)
        number, slots = self.numbers.seat(target, view, wanted)
        pods = _by_slot(slots, wanted, pods)
        self.add("sizes", mark(number), mark(len(slots)), label)
        rows = lists.setdefault("backends", [])
        _write_backends(self.forms["backends"], mark(number), _slots(len(slots)), slots, pods, target, rows)
        if affinity_s:
            handles = [mark(self.handles[endpoint]) for endpoint in slots]
            for slot, pod, handle in zip(_slots(len(slots)), pods, handles, strict=False):
                self.add("handles", mark(number) + slot, handle, _label(target, pod))
            _write_backends(self.forms["backends"], mark(number), handles, slots, pods, target, rows)
        return number


def addresses(service: ServiceProgram) -> list[tuple[bytes, tuple[bool, str, str]]]:
    """Give every address, protocol and port that a Service claims, as keys of ``frontends`` and ``node-ports``, each with its rank.

    The lowest rank has it: a cluster address is its own Service's, of others the oldest Service has it, then the first by name. Raises
    ValueError for what is no address.
    """
    inner, outer = (False, service.created, service.key), (True, service.created, service.key)
    cluster_ips, external_ips = [address_bytes(a) for a in service.cluster_ips], [address_bytes(a) for a in service.external_ips]
    found: list[tuple[bytes, tuple[bool, str, str]]] = []
    for port in service.ports:
        key = port_key(port.protocol, port.port)
        found += [(address + key, inner) for address in cluster_ips]
        if external_ips:
            found += [(address + key, outer) for address in external_ips if address not in cluster_ips]
        if port.node_port:
            found.append((port_key(port.protocol, port.node_port), outer))
    return found


def cluster_ip_row(written: Form, owner: str, address: bytes) -> bytes:
    """Write the row of ``cluster_ips`` for an address of a Service."""
    return written.write(address, b"", cut(owner.encode(), COMMENT))


def elements(service: ServiceProgram, node: str, family: Family, numbers: Numbers, lost: Set[bytes] = frozenset()) -> Elements:
    """Give the elements of one Service. Numbers that it has not yet are drawn from ``numbers``.

    ``lost`` are those of its ``addresses`` that another Service has.

    Raises:
        ValueError: an address is none, or a protocol is unknown (the API refuses both).
    """
    _check(service)
    building = _Building(family, node, numbers, lost)
    own = building.cluster_ips = [address_bytes(address) for address in service.cluster_ips]
    for address in own:
        building.add("cluster_ips", address, comment=service.key)
    for port, twice in zip(service.ports, _claimed_twice(service), strict=True):
        building.lost = lost | twice if twice else lost
        _port(building, service, port)
    written = building.forms
    return {name: _unique(rows, written[name]) if name in _REPEATED else rows for name, rows in building.lists.items()}


def _check(service: ServiceProgram) -> None:
    """Refuse endpoints that are none also where nothing leads to them now: what another does may lead there, and is not to be refused."""
    for port in service.ports:
        for view in (port.cluster, port.internal or (), port.external or ()):
            if type(view) is Backends:
                endpoints_bytes(view.addresses.split(" "), view.port)
            else:
                for backend in view:
                    endpoint_bytes(backend)


def _claimed_twice(service: ServiceProgram) -> list[Set[bytes]]:
    """Give for each port of a Service what an earlier one claims, too, and therefore has."""
    nothing: Set[bytes] = frozenset()
    if len(service.ports) == 1:
        return [nothing]
    found: list[Set[bytes]] = []
    before: set[bytes] = set()
    for port in service.ports:
        keys = {key for key, _ in addresses(msgspec.structs.replace(service, ports=(port,)))}
        found.append(before & keys)
        before |= keys
    return found


def endpoint_bytes(backend: Backend) -> bytes:
    """Pack address and port, as values of ``backends``. Raises ValueError."""
    prefix, _, last = backend.address.rpartition(".")
    try:  # as address_bytes, which costs a call
        return _PREFIXES[prefix] + _ends(backend.port)[last]
    except (KeyError, ValueError):
        return ipaddress.ip_address(backend.address).packed + _port_bytes(backend.port)


def pair_bytes(one: str, other: str, port: int) -> tuple[bytes, bytes]:
    """Pack two endpoints of one port. Raises ValueError."""
    ends, (prefix, _, last), (others, _, end) = _ends(port), one.rpartition("."), other.rpartition(".")
    try:
        return _PREFIXES[prefix] + ends[last], _PREFIXES[others] + ends[end]
    except (KeyError, ValueError):
        first, second = endpoints_bytes((one, other), port)
        return first, second


def own_row(written: Form, backend: Backend) -> bytes:
    """Write the row of ``own_endpoints`` for one that is on this node. Raises ValueError."""
    address = address_bytes(backend.address)
    return written.row(address + address, None, _cut(backend.pod))


def exchanged_rows(
    written: Form, number: int, slot: int, endpoints: tuple[bytes, bytes], target: str, pods: tuple[str, str]
) -> tuple[bytes, bytes, bytes]:
    """Write the key, and the rows of ``backends`` before and after, for an id and slot that has another endpoint."""
    key, (gone, came) = _MARKS.pack(number, slot), pods
    begin, end = _round(written, key, f"{target} {gone}" if gone else target)
    before = begin + endpoints[0] + end
    if came != gone:
        begin, end = _round(written, key, f"{target} {came}" if came else target)
    return key, before, begin + endpoints[1] + end


def _round(written: Form, key: bytes, label: str) -> tuple[bytes, bytes]:
    text = label.encode()
    if len(text) > COMMENT:
        text = cut(text, COMMENT)
    head, note, tail = written.around(len(text))
    return head + key + written.middle, note + text + tail


def _label(target: str, pod: str) -> str:
    return f"{target} {pod}" if pod else target


SLOTS: Final = tuple(mark(slot) for slot in range(256))
"""The first slots, packed."""


def _slots(count: int) -> Iterable[bytes]:
    """So many slots, packed, and perhaps more."""
    return SLOTS if count <= len(SLOTS) else map(_MARK.pack, range(count))


def _write_backends(
    written: Form,
    number: bytes,
    places: Iterable[bytes],
    endpoints: Iterable[bytes],
    pods: Iterable[str],
    target: str,
    into: list[bytes],
) -> None:
    """Write the rows of ``backends`` for an id: each endpoint at its place, which is its slot or its handle."""
    size, before, note, after = -1, b"", b"", b""
    middle, join = written.middle, b"".join
    for place, endpoint, pod in zip(places, endpoints, pods, strict=False):
        text = (f"{target} {pod}" if pod else target).encode()
        if len(text) > COMMENT:
            text = cut(text, COMMENT)
        if len(text) != size:  # the Pods of a Service have names of one length, mostly
            size = len(text)
            before, note, after = written.around(size)
            before += number
        into.append(join((before, place, middle, endpoint, note, text, after)))


def _endpoints(backends: Endpoints, node: str, written: Form, here: list[bytes]) -> tuple[list[bytes], list[str]]:
    """Pack the endpoints of a view, and give the Pod of each. Those that are on this node are written to ``here``. Raises ValueError."""
    once: dict[bytes, str] = {}  # an address may be written in several ways
    for backend in backends:
        once.setdefault(endpoint_bytes(backend), backend.pod)
        if backend.node == node or not backend.node:  # one that names no node may be here
            here.append(own_row(written, backend))
    return list(once), list(once.values())


def _by_slot(slots: Sequence[bytes], endpoints: Sequence[bytes], pods: list[str]) -> list[str]:
    """Give the Pods of endpoints in the order of the slots."""
    if slots is endpoints:  # as those of a port that is new
        return pods
    pod_of = dict(zip(endpoints, pods, strict=True))
    return [pod_of[endpoint] for endpoint in slots]


def _unique(rows: list[bytes], written: Form) -> list[bytes]:
    """Keep the first of those with one key: two ports of one Service may share an endpoint, or claim one address."""
    if len(rows) == 1:
        return rows
    found = {written.key(row): row for row in reversed(rows)}
    return rows if len(found) == len(rows) else list(reversed(found.values()))


def _port(building: _Building, service: ServiceProgram, port: PortProgram) -> None:
    target = target_name(service.key, port)
    if port.protocol not in PROTOCOLS:
        raise ValueError(f"{service.key}: the protocol {port.protocol} is none of {', '.join(PROTOCOLS)}")
    comment, anywhere = target, bool(port.cluster)
    key = port_key(port.protocol, port.port)
    if service.affinity_s:
        views = (port.cluster, port.internal or (), port.external or ())
        building.handles = building.numbers.handles(target, dict.fromkeys(endpoint_bytes(one) for view in views for one in view))
    inside, outside = _reachable(building, service, port, key)
    cluster = 0
    if (port.internal is None and inside) or outside:  # a view that no address leads to has no id
        cluster = building.view(target, "cluster", port.cluster, service.affinity_s)
    inner = cluster
    if port.internal is not None:
        inner = _local(building, target, "internal", port.internal, service.affinity_s) if inside else 0
    for address in building.cluster_ips:
        _frontend(building, address + key, comment, inner, reached=bool(inner), anywhere=anywhere)
    if service.affinity_s and cluster:
        verdict = Verdict("goto", affinity_chain(service.affinity_s, "cluster"))
        building.add("how", mark(cluster), verdict, comment)
        if port.external is not None:
            building.add("keep", mark(cluster), verdict, comment)
    if outside:
        _outside(building, service, port, target, cluster)


def _reachable(building: _Building, service: ServiceProgram, port: PortProgram, key: bytes) -> tuple[bool, bool]:
    """Say whether any cluster address, and any other address, leads to a port: other Services may have them."""
    lost = building.lost
    if not lost and not service.external_ips:
        return True, bool(port.node_port)
    external = [address_bytes(a) + key for a in service.external_ips if a not in service.cluster_ips]  # its own is no other address
    if port.node_port:
        external.append(port_key(port.protocol, port.node_port))
    return any(address + key not in lost for address in building.cluster_ips), any(one not in lost for one in external)


def _outside(building: _Building, service: ServiceProgram, port: PortProgram, target: str, cluster: int) -> None:
    """The addresses that clients outside the cluster use: external IPs, load-balancer VIPs, the node port."""
    comment = target
    outer, reached = cluster, bool(cluster)
    if port.external is not None and cluster:
        outer, reached = _external(building, target, port.external, cluster, service.affinity_s), bool(port.external)
    key = port_key(port.protocol, port.port)
    for address in service.external_ips:
        if address in service.cluster_ips:
            continue
        _frontend(building, address_bytes(address) + key, comment, outer, reached=reached, anywhere=bool(cluster))
        if address in service.vips and service.source_ranges is not None:
            own = (address,) if service.node_may_come else ()
            _guard(building, address_bytes(address) + key, service.source_ranges + own, comment)
    key = port_key(port.protocol, port.node_port)
    if port.node_port and key not in building.lost:
        if outer:
            building.add("node_ports", key, mark(outer), comment)
        if not cluster:
            building.add("no_endpoint_ports", key, comment=comment)
        elif not reached:
            building.add("no_local_endpoint_ports", key, comment=comment)


def _frontend(building: _Building, key: bytes, comment: str, number: int, *, reached: bool, anywhere: bool) -> None:
    """Put an address into ``frontends`` and, where it leads nowhere, among those that are refused or dropped."""
    if key in building.lost:
        return
    if number:
        building.add("frontends", key, mark(number), comment)
    if not anywhere:
        building.add("no_endpoints", key, comment=comment)
    elif not reached:
        building.add("no_local_endpoints", key, comment=comment)


def _local(building: _Building, target: str, view: str, backends: Endpoints, affinity_s: int) -> int:
    number = building.view(target, view, backends, affinity_s)
    if number:
        building.add("keep_source", mark(number), comment=f"{target} {view}")
        if affinity_s:
            building.add("how", mark(number), Verdict("goto", affinity_chain(affinity_s, view)), target)
    return number


def _external(building: _Building, target: str, backends: Endpoints, cluster: int, affinity_s: int) -> int:
    """The view of clients outside. Pods and the node itself are led to the cluster view; so it has an id even without endpoints."""
    number = building.numbers.id(target, "external")
    label = f"{target} external"
    building.view(target, "external", backends, affinity_s)
    building.add("keep_source", mark(number), comment=label)
    building.add("short_circuit", mark(number), mark(cluster), label)
    building.add("how", mark(number), Verdict("goto", "from-inside"), label)
    if affinity_s and backends:  # without, nothing is chosen, and nothing to be remembered
        building.add("keep", mark(number), Verdict("goto", affinity_chain(affinity_s, "external")), label)
    return number


def _guard(building: _Building, key: bytes, ranges: tuple[str, ...], comment: str) -> None:
    """Only these sources may come. Ranges are merged: the kernel refuses one that lies within another."""
    if key in building.lost:
        return
    building.add("guarded", key, comment=comment)
    networks = [ipaddress.ip_network(text.strip(), strict=False) for text in ranges]
    for network in ipaddress.collapse_addresses(n for n in networks if n.version == building.family.number):  # type: ignore[type-var]
        building.add("source_ranges", key + network.network_address.packed, comment=comment, end=key + network.broadcast_address.packed)
