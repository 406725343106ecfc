"""The kernel's side of the VPC network: one nftables table, a routing table for each instance, routes for Pod ranges.

What a new packet meets, in this order: a forwarding rule for its address, protocol and port gives it the number of a group; a hash
over its addresses and ports chooses a slot; the slot names an instance, whose mark the connection keeps for its life; the mark chooses
the instance's routing table. The caller's address and the address it called stay as they are. Without an instance the packet is
dropped. What is left: to an external address without a forwarding rule, dropped; new from the internet, dropped; everything else
passes. Connections from inside to the internet leave with the address of Cloud NAT.

Why numbers of groups are made of their members: when the members change, the new group's slots are there before any address points to
it, and the old one's are taken away a moment later (``later``), so that no packet between the two look-ups finds nothing.

Source: https://cloud.google.com/load-balancing/docs/network; Eisenbud et al., "Maglev", NSDI 2016 (slots);
https://cloud.google.com/nat/docs/overview
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network
from typing import Final

from podwire import nft
from podwire.lib.consistent_hash import maglev
from podwire.vpc.desired import Fabric, Group, Host
from podwire.wire.rtnetlink import Route, Rule

TABLE: Final = ("ip", "podwire-vpc")
ROUTE_PROTOCOL: Final = 67  # who made a route: this agent (66 is the guest agent's of the nodes)
RULE_PRIORITY: Final = 1000  # before main (32766); all rules of this priority are ours
SIZES: Final = (1021, 4093, 16381, 65521)  # primes; at least a hundred slots for each instance, as far as they go
_SEED: Final = 0x706F6477  # one for ever: a connection without a record goes where it went before
_SLOT: Final = struct.Struct("=II")
_MARK: Final = struct.Struct("=I")

LAYOUT: Final = """
table ip podwire-vpc {
    map slots { typeof ct mark . meta mark : meta mark; size 1048576; }
    map forwarding-rules { type ipv4_addr . inet_proto . inet_service : mark; size 65536; }
    map forwarding-rules-for-all-ports { type ipv4_addr . inet_proto : mark; size 65536; }
    set by-client { type mark; size 65536; }
    set external-addresses { type ipv4_addr; flags interval; }
    chain keep { ct mark set meta mark; }
    chain send {
        meta mark set ct mark . meta mark map @slots goto keep
        drop
    }
    chain spread-by-client {
        meta mark set jhash ip saddr . ip daddr mod %(size)d seed %(seed)#x
        goto send
    }
    chain spread {
        ct mark @by-client goto spread-by-client
        meta mark set jhash ip saddr . ip daddr . meta l4proto . th sport . th dport mod %(size)d seed %(seed)#x
        goto send
    }
    chain arrive {
        ct mark set ip daddr . meta l4proto . th dport map @forwarding-rules goto spread
        ct mark set ip daddr . meta l4proto map @forwarding-rules-for-all-ports goto spread
        ip daddr @external-addresses drop
        iifname "internet" drop
    }
    chain prerouting {
        type filter hook prerouting priority mangle; policy accept;
        ct state established,related ct direction original ct mark != 0 meta mark set ct mark
        ct state established,related accept
        goto arrive
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        %(nat)s
    }
}
"""


@dataclass(frozen=True)
class Program:
    """What the kernel is to hold: the table, and the routes and rules that are ours."""

    table: nft.Table
    routes: frozenset[Route]
    rules: frozenset[Rule]


def program(fabric: Fabric, external: Sequence[IPv4Network], nat_address: str) -> Program:
    """Give the kernel's side of what is desired. ``external`` are the ranges of external addresses; ``nat_address`` "" : no Cloud NAT."""
    groups = {forwarding.group.number: forwarding.group for forwarding in fabric.forwardings}
    size = table_size(max((len(group.hosts) for group in groups.values()), default=0))
    bare = layout(size, nat_address)
    contents = {
        "slots": [slot for number, group in sorted(groups.items()) for slot in _slots(number, group, size)],
        "forwarding-rules": _ports(bare, fabric),
        "forwarding-rules-for-all-ports": _all_ports(bare, fabric),
        "by-client": [bare.set("by-client").element((number,)) for number, group in groups.items() if group.by_client],
        "external-addresses": [_range(network) for network in external],
    }
    table = replace(bare, sets=tuple(one.with_elements(contents[one.name]) for one in bare.sets))
    return Program(table, frozenset(_routes(fabric.hosts)), frozenset(_rules(fabric.hosts)))


@functools.cache
def layout(size: int, nat_address: str) -> nft.Table:
    """Give the table without elements."""
    nat = f'oifname "internet" snat to {nat_address} fully-random' if nat_address else ""
    return nft.table(LAYOUT % {"size": size, "seed": _SEED, "nat": nat})


def table_size(members: int) -> int:
    """Give the number of slots for groups of up to so many members."""
    return next((size for size in SIZES if size >= 100 * members), SIZES[-1])


@functools.lru_cache(maxsize=64)
def _slots(number: int, group: Group, size: int) -> tuple[nft.Element, ...]:
    marks = {host.name: _MARK.pack(host.mark) for host in group.hosts}
    names = sorted(marks)
    return tuple(
        nft.Element(_SLOT.pack(number, slot), marks[names[index]], comment=names[index]) for slot, index in enumerate(maglev(names, size))
    )


def _ports(bare: nft.Table, fabric: Fabric) -> list[nft.Element]:
    held = bare.set("forwarding-rules")
    return [
        held.element((one.address, one.protocol, one.port), (one.group.number,), comment=one.note)
        for one in fabric.forwardings
        if one.port is not None
    ]


def _all_ports(bare: nft.Table, fabric: Fabric) -> list[nft.Element]:
    held = bare.set("forwarding-rules-for-all-ports")
    return [
        held.element((one.address, one.protocol), (one.group.number,), comment=one.note) for one in fabric.forwardings if one.port is None
    ]


def _range(network: IPv4Network) -> nft.Element:
    first, last = network.network_address.packed, network.broadcast_address.packed
    return nft.Element(first, end=b"" if first == last else last)


# Routes ---------------------------------------------------------------------------------------------------------------------


def _routes(hosts: Iterable[Host]) -> Iterable[Route]:
    for host in hosts:
        yield Route(IPv4Network("0.0.0.0/0"), gateway=host.address, table=host.mark, protocol=ROUTE_PROTOCOL)
        for network in host.ranges:
            yield Route(network, gateway=host.address if network.version == 4 else host.ipv6, protocol=ROUTE_PROTOCOL)


def _rules(hosts: Iterable[Host]) -> Iterable[Rule]:
    return (Rule(host.mark, host.mark, RULE_PRIORITY) for host in hosts)


def ours(routes: Iterable[Route]) -> dict[tuple[object, ...], Route]:
    """Pick the routes that this agent made, by what makes one different from another. (The kernel adds the link that it found.)"""
    return {identity(route): route for route in routes if route.protocol == ROUTE_PROTOCOL}


def identity(route: Route) -> tuple[object, ...]:
    """Destination, table and gateway."""
    return route.destination, route.table, route.gateway


# Order ----------------------------------------------------------------------------------------------------------------------


def later(batches: Iterable[Sequence[nft.Change]]) -> tuple[list[list[nft.Change]], list[nft.Change]]:
    """Divide changes of the table into those that may be made now and those that packets in flight may not meet yet.

    Later: the removal of slots whose group an address pointed to a moment ago.
    """
    now: list[list[nft.Change]] = []
    after: list[nft.Change] = []
    for batch in batches:
        kept = []
        for at, change in enumerate(batch):
            if isinstance(change, nft.DeleteElements) and change.set.name == "slots" and not _replaced(change, batch[at + 1 : at + 2]):
                after.append(change)
            else:
                kept.append(change)
        if kept:
            now.append(kept)
    return now, after


def _replaced(gone: nft.DeleteElements, following: Sequence[nft.Change]) -> bool:
    return any(
        isinstance(added, nft.AddElements) and added.set.name == gone.set.name and added.elements[0].key == gone.elements[0].key
        for added in following
    )
