"""Learning the numbers again from tables that an earlier process left in the kernel.

What belongs here: from the elements of a dump and what is wanted now, which Service port has which id, slots and handles. What must not:
deciding what the tables should hold (ruleset.py compares that afterwards).

How it works: comments are for people; what tells whose an id is are the addresses that lead to it. An address that is wanted now and
leads to an id gives that id to its Service port, in the view that the kernel's own sets say: an id in ``short-circuit`` is an external
view, one in ``keep-source`` alone an internal one, any other the cluster view. So connections, and clients that
keep to an endpoint, survive a restart. Ids that lead nowhere are forgotten, and never given again: numbers go on above the ceiling.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from podwire import nft
from podwire.nft import Element
from podwire.nft.datatypes import HOST
from podwire.services.desired import ServiceProgram
from podwire.services.elements import PORT_KEY, PROTOCOLS, address_bytes, mark, target_name, unpack_marks
from podwire.services.numbers import FIRST, VIEWS, Numbers


def adopt(numbers: Numbers, have: nft.Table, services: Iterable[ServiceProgram]) -> None:
    """Fill ``numbers`` from a dumped table, for the Services that are wanted."""
    sets = {one.name: one.elements for one in have.sets}
    ceiling = _number(sets.get("sizes", {}).get(mark(0)))
    slots, handles, highest = _endpoints(sets)
    numbers.raise_to(max(ceiling, highest + 1, _kept(sets) + 1))
    external = {_int(key): _number(element) for key, element in sets.get("short-circuit", {}).items()}
    kept = {_int(key) for key in sets.get("keep-source", {})}
    taken: set[int] = set()
    owners: dict[int, str] = {}  # by what the ids of a port have in common

    def give(target: str, view: str, number: int) -> None:
        base = number - VIEWS[view]
        if not number or owners.get(base, target) != target or number in taken:
            return
        if numbers.fits(target, view, number):
            owners[base] = target
            taken.add(number)
            numbers.adopt(target, view, number, slots.get(number, {}), handles.get(number, {}))

    for target, place, key in _addresses(services):
        number = _number(sets.get(place, {}).get(key))
        if number in external:
            give(target, "external", number)
            give(target, "cluster", external[number])
        else:
            give(target, "internal" if number in kept else "cluster", number)


def _addresses(services: Iterable[ServiceProgram]) -> Iterator[tuple[str, str, bytes]]:
    """Every way to a Service port with endpoints: its name, the map, and the key. Of two claims to one, that which has it comes first."""
    ordered = sorted(services, key=lambda service: (service.created, service.key))
    ports = [(service, port) for service in ordered for port in service.ports if port.cluster and port.protocol in PROTOCOLS]
    for service, port in ports:
        key = PORT_KEY.pack(PROTOCOLS[port.protocol], port.port)
        for address in service.cluster_ips:
            yield target_name(service.key, port), "frontends", address_bytes(address) + key
    for service, port in ports:
        target, protocol = target_name(service.key, port), PROTOCOLS[port.protocol]
        for address in service.external_ips:
            yield target, "frontends", address_bytes(address) + PORT_KEY.pack(protocol, port.port)
        if port.node_port:
            yield target, "node-ports", PORT_KEY.pack(protocol, port.node_port)


def _endpoints(sets: Mapping[str, Mapping[bytes, Element]]) -> tuple[dict[int, dict[int, bytes]], dict[int, dict[bytes, int]], int]:
    """By id: endpoints by slot, and handles by endpoint; and the highest number among them."""
    slots: dict[int, dict[int, bytes]] = {}
    handles: dict[int, dict[bytes, int]] = {}
    highest = FIRST - 1
    backends = sets.get("backends", {})
    for (number, slot), element in zip(map(unpack_marks, backends), backends.values(), strict=True):
        value = element.value
        if slot >= FIRST:
            handles.setdefault(number, {})[value] = slot  # type: ignore[index]  # a data map's values are bytes
            highest = max(highest, slot)
        elif number in slots:
            slots[number][slot] = value  # type: ignore[assignment]
        else:
            slots[number] = {slot: value}  # type: ignore[dict-item]
    return slots, handles, max([highest, *slots, *handles])


def _kept(sets: Mapping[str, Mapping[bytes, Element]]) -> int:
    """The highest number that clients who keep to an endpoint carry."""
    found = 0
    for key, element in sets.get("affinity", {}).items():
        found = max(found, int.from_bytes(key[-4:], HOST), _number(element))
    return found


def _int(key: bytes) -> int:
    return int.from_bytes(key, HOST)


def _number(element: Element | None) -> int:
    return int.from_bytes(element.value, HOST) if element is not None and isinstance(element.value, bytes) else 0
