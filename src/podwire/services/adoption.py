"""Learning the numbers again from tables that an earlier process left in the kernel.

What belongs here: from the elements of a dump and what is wanted now, which Service port has which id, slots and handles. What must not:
deciding what the tables should hold (ruleset.py compares that afterwards).

How it works: comments are for people; what tells whose an id is are the addresses that lead to it. An address that is wanted now and
leads to an id gives that id to its Service port, in the view that the kernel's own sets say: an id in ``short-circuit`` is an external
view, one in ``keep-source`` alone an internal one, any other the cluster view. So connections, and clients that
keep to an endpoint, survive a restart. Ids that lead nowhere are forgotten, and never given again: numbers go on above the ceiling.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import NamedTuple

from podwire import nft
from podwire.nft import Element
from podwire.nft.datatypes import HOST
from podwire.nft.rows import Packed, has_rows, packed
from podwire.services.desired import ServiceProgram
from podwire.services.elements import PROTOCOLS, address_bytes, mark, port_key, target_name, unpack_marks
from podwire.services.numbers import FIRST, VIEWS, Numbers

_Handles = dict[int, dict[bytes, int]]


class Ways(NamedTuple):
    """How the Services that are wanted are reached: for each way the name of the port, the map and the key. ``keep``: one has affinity."""

    all: Sequence[tuple[str, str, bytes]]
    keep: bool


def ways(services: Iterable[ServiceProgram]) -> Ways:
    """Give every way to the Services that are wanted. Of two claims to one, that which has it comes first."""
    wanted = list(services)
    return Ways(list(_addresses(wanted)), any(service.affinity_s for service in wanted))


def adopt(numbers: Numbers, have: Iterable[nft.Set], wanted: Ways) -> None:
    """Fill ``numbers`` from the sets of a dumped table, for the Services that are wanted.

    ``backends`` may be missing as long as it is not known, unless some Service ``keep``s clients: who sits where is read when needed.
    """
    found = {one.name: one for one in have}
    sets = {one.name: packed(one) for one in found.values() if has_rows(one)}
    ceiling, backends = _number(sets, "sizes", mark(0)), sets.get("backends")
    handles: _Handles = {}
    highest = FIRST - 1
    if backends is not None and (not ceiling or wanted.keep):
        handles, highest = _handles(backends)
    numbers.raise_to(max(ceiling, highest + 1, _kept(found) + 1))
    external = {_int(key): _number(sets, "short-circuit", key) for key in _keys(sets, "short-circuit")}
    kept = {_int(key) for key in _keys(sets, "keep-source")}
    taken: set[int] = set()
    owners: dict[int, str] = {}  # by what the ids of a port have in common

    def give(target: str, view: str, number: int) -> None:
        base = number - VIEWS[view]
        if not number or owners.get(base, target) != target or number in taken:
            return
        if numbers.fits(target, view, number):
            owners[base] = target
            taken.add(number)
            numbers.adopt(target, view, number, None, handles.get(number, {}))

    for target, place, key in wanted.all:
        number = _number(sets, place, key)
        if number in external:
            give(target, "external", number)
            give(target, "cluster", external[number])
        else:
            give(target, "internal" if number in kept else "cluster", number)
    read(numbers, found.get("backends"))


def read(numbers: Numbers, backends: nft.Set | None) -> None:
    """Let ``numbers`` know where it is told who sits where."""
    numbers.read = partial(_seated, packed(backends)) if backends is not None and has_rows(backends) else None


def _addresses(services: Iterable[ServiceProgram]) -> Iterator[tuple[str, str, bytes]]:
    ordered = sorted(services, key=lambda service: (service.created, service.key))
    ports = [(service, port) for service in ordered for port in service.ports if port.cluster and port.protocol in PROTOCOLS]
    for service, port in ports:
        key = port_key(port.protocol, port.port)
        for address in service.cluster_ips:
            yield target_name(service.key, port), "frontends", address_bytes(address) + key
    for service, port in ports:
        target = target_name(service.key, port)
        for address in service.external_ips:
            yield target, "frontends", address_bytes(address) + port_key(port.protocol, port.port)
        if port.node_port:
            yield target, "node-ports", port_key(port.protocol, port.node_port)


def _seated(backends: Packed | None, number: int) -> list[bytes]:
    """The endpoints of an id by slot, up to a gap: those beyond will be seated anew."""
    found: list[bytes] = []
    if backends is None:
        return found
    held, value, first = backends.by_key, backends.form.value, mark(number)
    for slot in count():
        row = held.get(first + (_SLOTS[slot] if slot < len(_SLOTS) else mark(slot)))
        if row is None:
            return found
        found.append(value(row))
    return found


_SLOTS = tuple(mark(slot) for slot in range(256))


def _handles(backends: Packed) -> tuple[_Handles, int]:
    """By id the handle of each endpoint, and the highest number among ids and handles."""
    handles: _Handles = {}
    highest = FIRST - 1
    value = backends.form.value
    for key, row in backends.by_key.items():
        number, slot = unpack_marks(key)
        if slot >= FIRST:
            handles.setdefault(number, {})[value(row)] = slot
        highest = max(highest, number, slot)
    return handles, highest


def _kept(have: Mapping[str, nft.Set]) -> int:
    """The highest number that clients who keep to an endpoint carry."""
    clients: Mapping[bytes, Element] = have["affinity"].elements if "affinity" in have else {}
    found = 0
    for key, element in clients.items():
        found = max(found, _int(key[-4:]), _int(element.value) if isinstance(element.value, bytes) else 0)
    return found


def _keys(sets: Mapping[str, Packed], name: str) -> Iterable[bytes]:
    return sets[name].by_key if name in sets else ()


def _int(key: bytes) -> int:
    return int.from_bytes(key, HOST)


def _number(sets: Mapping[str, Packed], name: str, key: bytes) -> int:
    """The number that a map has for a key, 0 for none."""
    there = sets.get(name)
    row = None if there is None else there.by_key.get(key)
    if there is None or row is None:
        return 0
    value = there.form.value(row)
    return _int(value) if len(value) == 4 else 0
