"""What an expression is worth for one packet, and what sets say of it.

What belongs here: the packet, its connection and its surroundings as values; expressions, comparisons and look-ups. What must not: the
order in which rules are asked and what they do (walk.py).

An expression is worth a tuple of fields, each as the bytes that the kernel would keep, or nothing (None): a port of a packet without one, a
key that no map holds. Nothing matches nothing: a rule that meets it is left.

What this does not know it refuses (NotModelled); it never guesses.

Source: nft(8); the kernel's net/netfilter/nft_*.c.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from podwire.nft import datatypes, fields
from podwire.nft.datatypes import DataType
from podwire.nft.model import (
    Concatenation,
    Constant,
    Ct,
    Element,
    Expression,
    Fib,
    Lookup,
    Masked,
    Match,
    Meta,
    Numgen,
    Payload,
    Prefix,
    Range,
    Reference,
    Set,
    TableName,
)

Fields = tuple[bytes, ...]
Learnt = Mapping[tuple[TableName, str], Mapping[bytes, "Known"]]

_PROTOCOLS: Final = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58}
_PORTS: Final = frozenset({"tcp", "udp", "sctp"})
_STATES: Final = datatypes.datatype("ct_state").symbols
_STATUS: Final = datatypes.datatype("ct_status").symbols
_FIB: Final = datatypes.datatype("fib_addrtype").symbols


class NotModelled(NotImplementedError):
    """A statement or expression whose effect is not known here."""


@dataclass(frozen=True, slots=True)
class Known:
    """What packets put into a set: the element, and when; None for one that they took away. Times in milliseconds of the caller's clock."""

    element: Element | None
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet. ``link`` is the interface by which it enters, "" if it starts here. ``mark`` is the packet's mark, not the connection's."""

    source: str
    destination: str
    protocol: str = "tcp"
    source_port: int = 0
    destination_port: int = 0
    link: str = ""
    mark: int = 0

    @property
    def version(self) -> int:
        return ipaddress.ip_address(self.destination).version

    def __str__(self) -> str:
        return f"{self.protocol} {self.source}:{self.source_port} > {self.destination}:{self.destination_port}"


@dataclass(frozen=True, slots=True)
class Connection:
    """What connection tracking keeps. ``original`` is the first packet as it came; translations are None where there is none.

    A connection is ``new`` until its first packet has been answered; ``established()`` gives the one that follows.
    """

    original: Packet
    state: str = "new"
    mark: int = 0
    destination: tuple[str, int] | None = None
    source: str | None = None

    def established(self) -> Connection:
        return replace(self, state="established")

    @property
    def status(self) -> int:
        there = self.original.destination, self.original.destination_port
        bits = (_STATUS["dnat"] if self.destination not in (None, there) else 0) | (_STATUS["snat"] if self.source else 0)
        return bits if self.state == "new" else bits | _STATUS["seen-reply"] | _STATUS["confirmed"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the namespace's routing says. ``local`` are its own addresses (those of the loopback are, always).

    ``routes`` lead from a range to the link by which it is reached, the longest first match counts; ``addresses`` are those of each
    link, the first of a family being what masquerade takes.
    """

    local: frozenset[str] = frozenset()
    routes: Mapping[str, str] = field(default_factory=dict)
    addresses: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def kind(self, address: str) -> str:
        """Say what ``fib daddr type`` would: local, multicast, broadcast, unicast."""
        one = ipaddress.ip_address(address)
        if address in self.local or one.is_loopback:
            return "local"
        if one.is_multicast:
            return "multicast"
        return "broadcast" if address == "255.255.255.255" else "unicast"

    def link(self, address: str) -> str:
        """Give the link by which an address is reached, "" if no route is known."""
        if self.kind(address) == "local":
            return "lo"
        one = ipaddress.ip_address(address)
        fitting = [n for n in map(ipaddress.ip_network, self.routes) if n.version == one.version and one in n]
        return self.routes[str(max(fitting, key=lambda n: n.prefixlen))] if fitting else ""

    def own_address(self, link: str, version: int) -> str:
        """Give the address that ``masquerade`` takes on a link. On the loopback, which has none to show, that of another link."""
        there = [*self.addresses.get(link, ()), *(address for other in self.addresses.values() for address in other)]
        for address in there:
            if ipaddress.ip_address(address).version == version:
                return address
        raise NotModelled(f"masquerade on {link or 'an unknown link'}: no address is known")


@dataclass(slots=True)
class Situation:
    """One packet at one place in its way, with everything that a rule may look at. Rules change it."""

    packet: Packet
    connection: Connection
    surroundings: Surroundings
    choose: Callable[[int], int]
    now_ms: int = 0
    out: str = ""
    learnt: dict[tuple[TableName, str], dict[bytes, Known]] = field(default_factory=dict)

    # Expressions

    def worth(self, e: Expression, table: Tables) -> Fields | None:
        """Evaluate an expression. None: nothing, the rule does not match. Raises NotModelled."""
        match e:
            case Payload(protocol, name):
                return self._payload(protocol, name)
            case Meta(key):
                return self._meta(key)
            case Ct(key, direction):
                return self._ct(key, direction)
            case Fib(inputs, "type") if inputs in (("saddr",), ("daddr",)):
                address = self.packet.source if inputs == ("saddr",) else self.packet.destination
                return (datatypes.datatype("fib_addrtype").from_int(_FIB[self.surroundings.kind(address)]),)
            case Numgen("random", modulus, offset):
                return (datatypes.integer(4, host_order=True).from_int(self.choose(modulus) + offset),)
            case Constant(_, data):
                return (data,)
            case Concatenation(parts):
                found = [self.worth(part, table) for part in parts]
                return None if any(f is None for f in found) else tuple(one for f in found if f is not None for one in f)
            case Masked(source, mask, xor):
                return self._masked(self.worth(source, table), mask, xor)
            case Lookup(key, held):
                return self._held_value(key, held, table)
        raise NotModelled(f"the value of {e}")

    def _payload(self, protocol: str, name: str) -> Fields | None:
        p = self.packet
        match protocol, name:
            case ("ip" | "ip6", "saddr" | "daddr"):
                if p.version != (4 if protocol == "ip" else 6):
                    return None
                return (ipaddress.ip_address(p.source if name == "saddr" else p.destination).packed,)
            case ("th" | "tcp" | "udp" | "sctp", "sport" | "dport"):
                if protocol not in ("th", p.protocol):
                    return None
                if p.protocol not in _PORTS:
                    return (b"\0\0",)  # what lies there: type and code or a checksum; no port is 0
                return ((p.source_port if name == "sport" else p.destination_port).to_bytes(2, "big"),)
        raise NotModelled(f"the field {protocol} {name}")

    def _meta(self, key: str) -> Fields:
        p = self.packet
        match key:
            case "mark":
                return (datatypes.MARK.pack(p.mark),)
            case "l4proto":
                return (bytes((_PROTOCOLS[p.protocol],)),)
            case "nfproto":
                return (bytes((fields.IPV4 if p.version == 4 else fields.IPV6,)),)
            case "iifname" | "oifname":
                return ((p.link if key == "iifname" else self.out).encode().ljust(16, b"\0"),)
        raise NotModelled(f"meta {key}")

    def _ct(self, key: str, direction: str) -> Fields | None:
        one = self.connection
        match direction, key:
            case ("", "mark"):
                return (datatypes.MARK.pack(one.mark),)
            case ("", "state"):
                return (datatypes.MARK.pack(_STATES[one.state]),)
            case ("", "status"):
                return (datatypes.MARK.pack(one.status),)
            case ("original", "ip saddr" | "ip daddr" | "ip6 saddr" | "ip6 daddr"):
                if one.original.version != (4 if key.startswith("ip ") else 6):
                    return None
                return (ipaddress.ip_address(one.original.source if key.endswith("saddr") else one.original.destination).packed,)
            case ("original", "proto-src" | "proto-dst"):
                return ((one.original.source_port if key == "proto-src" else one.original.destination_port).to_bytes(2, "big"),)
            case ("original", "protocol"):
                return (bytes((_PROTOCOLS[one.original.protocol],)),)
        raise NotModelled(f"ct {direction} {key}")

    def _masked(self, source: Fields | None, mask: bytes, xor: bytes) -> Fields | None:
        if source is None:
            return None
        (data,) = source
        return (bytes(one & m ^ x for one, m, x in zip(data, mask, xor, strict=True)),)

    # Comparisons

    def matches(self, match: Match, table: Tables) -> bool:
        """Say whether a comparison holds. Raises NotModelled."""
        left = self.worth(match.left, table)
        if left is None:
            return False
        right, operator = match.right, match.operator
        if isinstance(right, Reference | Set):
            if operator not in ("==", "!="):
                raise NotModelled(f"a set compared with {operator}")
            return (self.find(right, left, table) is not None) == (operator == "==")
        if isinstance(right, Prefix | Range):
            inside = _between(left[0], right)
            if operator not in ("==", "!="):
                raise NotModelled(f"a range compared with {operator}")
            return inside == (operator == "==")
        if not isinstance(right, Constant):
            raise NotModelled(f"a comparison with {right}")
        return _compared(right.type, left[0], operator, right.data)

    # Sets

    def elements(self, table: Tables, one: Set) -> Mapping[bytes, Element]:
        """Give what a set holds now: what it was loaded with, and what packets put there and took away."""
        learnt = self.learnt.get((table.id, one.name)) if one.name else None
        if not learnt:
            return one.elements
        merged = dict(one.elements)
        for key, known in learnt.items():
            element = known.element
            lasts = element is not None and (
                not (element.timeout_ms or one.timeout_ms) or self.now_ms - known.since_ms < (element.timeout_ms or one.timeout_ms)
            )
            if element is not None and lasts:
                merged[key] = element
            else:
                merged.pop(key, None)
        return merged

    def find(self, held: Reference | Set, key: Fields, table: Tables) -> Element | None:
        """Find the element that a key belongs to."""
        one = table.sets[held.name] if isinstance(held, Reference) else held
        there = self.elements(table, one)
        packed = datatypes.pack(one.key_types, key)
        exact = there.get(packed)
        if exact is not None or not any(element.end for element in there.values()):
            return exact
        return next((element for element in there.values() if _covers(one.key_types, element, key)), None)

    def _held_value(self, key: Expression, held: Reference | Set, table: Tables) -> Fields | None:
        found = self.worth(key, table)
        if found is None:
            return None
        element = self.find(held, found, table)
        if element is None or not isinstance(element.value, bytes):
            return None
        one = table.sets[held.name] if isinstance(held, Reference) else held
        return (element.value,) if len(one.value_types) == 1 else datatypes.unpack(one.value_types, element.value)


@dataclass(frozen=True, slots=True)
class Tables:
    """The table whose rules are asked: its name, and its sets by name."""

    id: TableName
    sets: Mapping[str, Set]


def _covers(types: tuple[DataType, ...], element: Element, key: Fields) -> bool:
    low = (element.key,) if len(types) == 1 else datatypes.unpack(types, element.key)
    high = low if not element.end else (element.end,) if len(types) == 1 else datatypes.unpack(types, element.end)
    return all(
        kind.to_int(first) <= kind.to_int(one) <= kind.to_int(last) for kind, first, one, last in zip(types, low, key, high, strict=True)
    )


def _between(data: bytes, right: Prefix | Range) -> bool:
    kind, number = right.type, right.type.to_int(data)
    if isinstance(right, Range):
        return kind.to_int(right.low) <= number <= kind.to_int(right.high)
    rest = 8 * kind.size - right.bits
    return number >> rest == kind.to_int(right.data) >> rest


def _compared(kind: DataType, data: bytes, operator: str, other: bytes) -> bool:
    if kind.kind == "name" and len(other) < kind.size:
        data = data[: len(other)]
    left, right = kind.to_int(data), kind.to_int(other)
    match operator:
        case "==":
            return left == right
        case "!=":
            return left != right
        case "&":
            return bool(left & right)
        case "!":
            return not left & right
        case "<":
            return left < right
        case ">":
            return left > right
        case "<=":
            return left <= right
        case ">=":
            return left >= right
    raise NotModelled(f"the operator {operator}")
