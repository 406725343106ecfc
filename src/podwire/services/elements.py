"""The elements that one Service puts into the tables.

What belongs here: a Service program (desired.py) and its numbers become packed elements, by map. What must not: what other Services
have there, what the kernel holds, in which order it changes (ruleset.py).

Every element carries a comment that names the Service and port, and where there is one the Pod. nft cuts comments at 127 bytes.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Set
from typing import NamedTuple

from podwire.nft.model import Element, Verdict
from podwire.services.desired import PortProgram, ServiceProgram
from podwire.services.layout import AFFINITY, Family
from podwire.services.numbers import Numbers
from podwire.views.frontends import Backend

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
COMMENT = 127

_MARK = struct.Struct("=I")
_MARKS = struct.Struct("=II")
PORT_KEY = struct.Struct("!B3xH2x")
_PORT = struct.Struct("!H2x")


class Elements(NamedTuple):
    """By map or set; the field's name with ``-`` for ``_`` is the set's."""

    backends: tuple[Element, ...] = ()
    handles: tuple[Element, ...] = ()
    keep_source: tuple[Element, ...] = ()
    own_endpoints: tuple[Element, ...] = ()
    cluster_ips: tuple[Element, ...] = ()
    short_circuit: tuple[Element, ...] = ()
    keep: tuple[Element, ...] = ()
    how: tuple[Element, ...] = ()
    sizes: tuple[Element, ...] = ()
    source_ranges: tuple[Element, ...] = ()
    guarded: tuple[Element, ...] = ()
    no_endpoints: tuple[Element, ...] = ()
    no_local_endpoints: tuple[Element, ...] = ()
    no_endpoint_ports: tuple[Element, ...] = ()
    no_local_endpoint_ports: tuple[Element, ...] = ()
    frontends: tuple[Element, ...] = ()
    node_ports: tuple[Element, ...] = ()


NOTHING = Elements()
# Maps whose keys Services share or may both claim; in the others every key begins with an id, which is one Service port's own.
SHARED = frozenset(
    {
        *("own_endpoints", "cluster_ips", "guarded", "source_ranges", "frontends", "node_ports"),
        *("no_endpoints", "no_local_endpoints", "no_endpoint_ports", "no_local_endpoint_ports"),
    }
)


def set_name(field: str) -> str:
    return field.replace("_", "-")


_OCTETS = {str(number): bytes((number,)) for number in range(256)}


def address_bytes(address: str) -> bytes:
    """Pack an address. Raises ValueError."""
    try:  # five times as fast as ipaddress, and as strict: there are many
        a, b, c, d = address.split(".")
        return _OCTETS[a] + _OCTETS[b] + _OCTETS[c] + _OCTETS[d]
    except (ValueError, KeyError):
        return ipaddress.ip_address(address).packed


def mark(number: int) -> bytes:
    return _MARK.pack(number)


def target_name(service: str, port: PortProgram) -> str:
    """What ids are given to: ``shop/users:http/TCP``, ``shop/users:80/TCP`` for a port without a name."""
    return f"{service}:{port.name or port.port}/{port.protocol}"


class _Building:
    """The lists that become Elements."""

    def __init__(self, family: Family, node: str, numbers: Numbers, lost: Set[bytes]) -> None:
        self.family, self.node, self.numbers, self.lost = family, node, numbers, lost
        self.lists: dict[str, list[Element]] = {}

    def add(self, field: str, key: bytes, value: bytes | Verdict | None = None, comment: str = "", end: bytes = b"") -> None:
        self.lists.setdefault(field, []).append(Element(key, value, end, comment))

    def view(self, target: str, view: str, backends: tuple[Backend, ...], affinity_s: int) -> int:
        """Give a view of a port its id, sizes and backends. Returns the id, or 0 if it has no endpoint."""
        if not backends:
            return 0
        number = self.numbers.id(target, view)
        pack, node = _MARKS.pack, self.node
        label = target if view == "cluster" else f"{target} {view}"
        ports = {port: _PORT.pack(port) for port in {b.port for b in backends}}
        seated = {address_bytes(b.address) + ports[b.port]: b.pod for b in backends}
        slots = self.numbers.slots(number, seated)
        self.add("sizes", _MARK.pack(number), _MARK.pack(len(slots)), label[:COMMENT])
        rows = [
            Element(pack(number, slot), endpoint, b"", (f"{target} {pod}" if (pod := seated[endpoint]) else target)[:COMMENT])
            for slot, endpoint in enumerate(slots)
        ]
        if affinity_s:
            handles = self.numbers.handles(number, slots)
            self.lists.setdefault("handles", []).extend(
                [Element(row.key, _MARK.pack(handles[row.value]), b"", row.comment) for row in rows if isinstance(row.value, bytes)]
            )
            rows += [Element(pack(number, handles[row.value]), row.value, b"", row.comment) for row in rows if isinstance(row.value, bytes)]
        self.lists.setdefault("backends", []).extend(rows)
        for backend in [b for b in backends if b.node in (node, "")]:  # one that names no node may be here
            address = address_bytes(backend.address)
            self.add("own_endpoints", address + address, comment=backend.pod[:COMMENT])
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
        protocol = PROTOCOLS.get(port.protocol, 0)
        key = PORT_KEY.pack(protocol, port.port)
        found += [(address + key, inner) for address in cluster_ips]
        if external_ips:
            found += [(address + key, outer) for address in external_ips if address not in cluster_ips]
        if port.node_port:
            found.append((PORT_KEY.pack(protocol, port.node_port), outer))
    return found


def elements(service: ServiceProgram, node: str, family: Family, numbers: Numbers, lost: Set[bytes] = frozenset()) -> Elements:
    """Give the elements of one Service. Numbers that it has not yet are drawn from ``numbers``.

    ``lost`` are those of its ``addresses`` that another Service has.

    Raises:
        ValueError: an address is none, or a protocol is unknown (the API refuses both).
    """
    building = _Building(family, node, numbers, lost)
    for address in service.cluster_ips:
        building.add("cluster_ips", address_bytes(address), comment=service.key[:COMMENT])
    for port in service.ports:
        _port(building, service, port)
    return Elements(**{name: _unique(rows) if name in SHARED else tuple(rows) for name, rows in building.lists.items()})


def _unique(rows: list[Element]) -> tuple[Element, ...]:
    """Keep the first of those with one key: two ports of one Service may share an endpoint, or claim one address."""
    if len(rows) == 1:
        return (rows[0],)
    found = {row.key: row for row in reversed(rows)}
    return tuple(rows) if len(found) == len(rows) else tuple(reversed(found.values()))


def _port(building: _Building, service: ServiceProgram, port: PortProgram) -> None:
    target = target_name(service.key, port)
    protocol = PROTOCOLS.get(port.protocol)
    if protocol is None:
        raise ValueError(f"{service.key}: the protocol {port.protocol} is none of {', '.join(PROTOCOLS)}")
    comment, anywhere = target[:COMMENT], bool(port.cluster)
    key = PORT_KEY.pack(protocol, port.port)
    inside, outside = _reachable(building, service, port, key)
    cluster = 0
    if (port.internal is None and inside) or outside:  # a view that no address leads to has no id
        cluster = building.view(target, "cluster", port.cluster, service.affinity_s)
    inner = cluster
    if port.internal is not None:
        inner = _local(building, target, "internal", port.internal, service.affinity_s) if inside else 0
    for address in service.cluster_ips:
        _frontend(building, address_bytes(address) + key, comment, inner, reached=bool(inner), anywhere=anywhere)
    if service.affinity_s and cluster:
        verdict = Verdict("goto", f"{AFFINITY}{service.affinity_s}s")
        building.add("how", mark(cluster), verdict, comment)
        if port.external is not None:
            building.add("keep", mark(cluster), verdict, comment)
    if outside:
        _outside(building, service, port, target, cluster)


def _reachable(building: _Building, service: ServiceProgram, port: PortProgram, key: bytes) -> tuple[bool, bool]:
    """Say whether any cluster address, and any other address, leads to a port: other Services may have them."""
    lost = building.lost
    if not lost:
        return True, bool(service.external_ips or port.node_port)
    external = [address_bytes(a) + key for a in service.external_ips if a not in service.cluster_ips]
    if port.node_port:
        external.append(PORT_KEY.pack(PROTOCOLS[port.protocol], port.node_port))
    return any(address_bytes(a) + key not in lost for a in service.cluster_ips), any(one not in lost for one in external)


def _outside(building: _Building, service: ServiceProgram, port: PortProgram, target: str, cluster: int) -> None:
    """The addresses that clients outside the cluster use: external IPs, load-balancer VIPs, the node port."""
    protocol, comment = PROTOCOLS[port.protocol], target[:COMMENT]
    outer, reached = cluster, bool(cluster)
    if port.external is not None and cluster:
        outer, reached = _external(building, target, port.external, cluster, service.affinity_s), bool(port.external)
    key = PORT_KEY.pack(protocol, port.port)
    for address in service.external_ips:
        if address in service.cluster_ips:
            continue
        _frontend(building, address_bytes(address) + key, comment, outer, reached=reached, anywhere=bool(cluster))
        if address in service.vips and service.source_ranges is not None:
            own = (address,) if service.node_may_come else ()
            _guard(building, address_bytes(address) + key, service.source_ranges + own, comment)
    key = PORT_KEY.pack(protocol, port.node_port)
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


def _local(building: _Building, target: str, view: str, backends: tuple[Backend, ...], affinity_s: int) -> int:
    number = building.view(target, view, backends, affinity_s)
    if number:
        building.add("keep_source", mark(number), comment=f"{target} {view}"[:COMMENT])
        if affinity_s:
            building.add("how", mark(number), Verdict("goto", f"{AFFINITY}{affinity_s}s"), target[:COMMENT])
    return number


def _external(building: _Building, target: str, backends: tuple[Backend, ...], cluster: int, affinity_s: int) -> int:
    """The view of clients outside. Pods and the node itself are led to the cluster view; so it has an id even without endpoints."""
    number = building.numbers.id(target, "external")
    label = f"{target} external"[:COMMENT]
    building.view(target, "external", backends, affinity_s)
    building.add("keep_source", mark(number), comment=label)
    building.add("short_circuit", mark(number), mark(cluster), label)
    building.add("how", mark(number), Verdict("goto", "from-inside"), label)
    if affinity_s:
        building.add("keep", mark(number), Verdict("goto", f"{AFFINITY}{affinity_s}s"), label)
    return number


def _guard(building: _Building, key: bytes, ranges: tuple[str, ...], comment: str) -> None:
    """Only these sources may come. Ranges are merged: the kernel refuses one that lies within another."""
    if key in building.lost:
        return
    building.add("guarded", key, comment=comment)
    networks = [ipaddress.ip_network(text.strip(), strict=False) for text in ranges]
    for network in ipaddress.collapse_addresses(n for n in networks if n.version == building.family.number):  # type: ignore[type-var]
        building.add("source_ranges", key + network.network_address.packed, comment=comment, end=key + network.broadcast_address.packed)
