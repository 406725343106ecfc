"""The tables ``podwire-cni``: host ports that lead to containers, and the machine's address for what leaves a network. Pure.

One table for each family, there as long as an attachment needs it. Its elements carry the attachment's port name as their comment; so
one that is deleted is found without anything but that name. Rules for a network carry the network as theirs.

A host port on an address of its own goes before one on all addresses. Three connections take the machine's address towards the
container, since the answer would not come back otherwise: one from the machine's own 127.0.0.1 or ::1, one of a container to itself by its
host port, one of a neighbour on the same plain bridge. So that the first can pass, packets for 127.0.0.0/8 are routed
(``route_localnet``; for ::1 there is a route), and those that come from outside are dropped before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from podwire import nft
from podwire.pods.cni.configuration import IPAddress, IPNetwork, PortMapping
from podwire.pods.cni.errors import HostPortTaken

TABLE = "podwire-cni"
NAMES = (("ip", TABLE), ("ip6", TABLE))

_TEXT = """\
table {ip} podwire-cni {{
  map address-ports {{ type {address} . inet_proto . inet_service : {address} . inet_service; }}
  map ports {{ type inet_proto . inet_service : {address} . inet_service; }}
  set published {{ type {address}; }}
  set itself {{ type {address} . {address}; }}
  set masqueraded {{ type {address}; }}
  chain host-ports {{
    dnat {ip} to {ip} daddr . meta l4proto . th dport map @address-ports
    fib daddr type local dnat {ip} to meta l4proto . th dport map @ports
  }}
  chain neighbours {{
{neighbours}  }}
  chain outside {{
{outside}  }}
  chain guard {{
    type filter hook prerouting priority -300; policy accept;
    iifname != "lo" {ip} daddr {loopback} drop
  }}
  chain nat-prerouting {{
    type nat hook prerouting priority dstnat; policy accept;
    jump host-ports
  }}
  chain nat-output {{
    type nat hook output priority -100; policy accept;
    jump host-ports
  }}
  chain nat-postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    {ip} saddr {loopback} {ip} daddr @published masquerade
    {ip} saddr . {ip} daddr @itself masquerade
    ct status dnat {ip} daddr @published jump neighbours
    {ip} saddr @masqueraded jump outside
  }}
}}
"""
_WORDS = {
    4: {"ip": "ip", "address": "ipv4_addr", "loopback": "127.0.0.0/8"},
    6: {"ip": "ip6", "address": "ipv6_addr", "loopback": "::1"},
}
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}


@dataclass(frozen=True)
class Publication:
    """What an attachment wants of the tables. ``owner`` is its port's name.

    ``bridged``: the networks within which its neighbours reach it past the IP layer. ``masqueraded``: those that its packets leave with the
    machine's address.
    """

    owner: str
    addresses: tuple[IPAddress, ...]
    mappings: tuple[PortMapping, ...] = ()
    bridged: tuple[IPNetwork, ...] = ()
    masqueraded: tuple[IPNetwork, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.mappings or self.masqueraded)


def with_publication(have: nft.Ruleset, wanted: Publication) -> nft.Ruleset:
    """The tables with this attachment's elements beside those of others. Raises HostPortTaken."""
    tables = {table.id: table for table in without(have, wanted.owner).tables}
    for address in wanted.addresses:
        words = _WORDS[address.version]
        name = (words["ip"], TABLE)
        outside = [str(network) for network in wanted.masqueraded if network.version == address.version]
        mappings = [one for one in wanted.mappings if one.host_address is None or one.host_address.version == address.version]
        neighbours = [str(network) for network in wanted.bridged if network.version == address.version and mappings]
        if not outside and not mappings:
            continue
        old = tables.get(name)
        table = _table(address.version, {*_networks(old, "neighbours"), *neighbours}, {*_networks(old, "outside"), *outside}, old)
        tables[name] = _extended(table, address, mappings, bool(outside), wanted.owner)
    return nft.Ruleset(tuple(tables.values()))


def without(have: nft.Ruleset, owner: str) -> nft.Ruleset:
    """The tables without an attachment's elements; a table that holds nobody's is none."""
    return only(have, lambda comment: comment != owner)


def only(have: nft.Ruleset, keep: Callable[[str], bool]) -> nft.Ruleset:
    """The tables with those elements alone whose owner's name ``keep`` wants, and the rules that these need."""
    kept = []
    for table in have.tables:
        sets = tuple(one.with_elements(element for element in one.elements.values() if keep(element.comment)) for one in table.sets)
        if any(one.elements for one in sets):
            version = 4 if table.family == "ip" else 6
            used = {name: _used(table, name, sets) for name in ("neighbours", "outside")}
            kept.append(_table(version, used["neighbours"], used["outside"], replace(table, sets=sets)))
    return nft.Ruleset(tuple(kept))


def _used(table: nft.Table, chain: str, sets: Sequence[nft.Set]) -> list[str]:
    """The networks of the chain's rules that an element of its set still is in."""
    held = next(one for one in sets if one.name == ("published" if chain == "neighbours" else "masqueraded"))
    addresses = [ip_address(key) for key in held.elements]
    return [text for text in _networks(table, chain) if any(address in ip_network(text) for address in addresses)]


def _extended(table: nft.Table, address: IPAddress, mappings: Sequence[PortMapping], masqueraded: bool, owner: str) -> nft.Table:
    new: dict[str, list[nft.Element]] = {one.name: [] for one in table.sets}
    for mapping in mappings:
        own = [] if mapping.host_address is None or mapping.host_address.is_unspecified else [mapping.host_address]
        name = "address-ports" if own else "ports"
        key = [*own, mapping.protocol, mapping.host_port]
        element = table.set(name).element(key, [address, mapping.container_port], comment=owner)
        there = table.set(name).elements.get(element.key)
        if there is not None and there.value != element.value:
            raise HostPortTaken(f"host port {mapping.host_port}/{mapping.protocol} leads to another container")
        new[name].append(element)
    if mappings:
        new["published"].append(table.set("published").element([address], comment=owner))
        new["itself"].append(table.set("itself").element([address, address], comment=owner))
    if masqueraded:
        new["masqueraded"].append(table.set("masqueraded").element([address], comment=owner))
    return replace(table, sets=tuple(one.with_elements([*one.elements.values(), *new[one.name]]) for one in table.sets))


def _table(version: int, neighbours: Iterable[str], outside: Iterable[str], old: nft.Table | None) -> nft.Table:
    """The table with the rules that these networks need, and the elements of the old one."""
    words = _WORDS[version]
    ip, multicast = words["ip"], _MULTICAST[version]
    near = "".join(f'    {ip} saddr {one} masquerade comment "{one}"\n' for one in sorted(neighbours))
    far = "".join(
        f'    {ip} saddr {one} {ip} daddr != {one} {ip} daddr != {multicast} masquerade comment "{one}"\n' for one in sorted(outside)
    )
    table = nft.table(_TEXT.format(neighbours=near, outside=far, **words))
    elements: Mapping[str, Mapping[bytes, nft.Element]] = {one.name: one.elements for one in old.sets} if old else {}
    return replace(table, sets=tuple(one.with_elements(elements.get(one.name, {}).values()) for one in table.sets))


def _networks(table: nft.Table | None, chain: str) -> list[str]:
    return [rule.comment for rule in table.chain(chain).rules] if table else []
